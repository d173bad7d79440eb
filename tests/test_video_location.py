"""What is said of addresses: no password, and no less than all the rest."""

import random
import string
import time

import pytest

from segdeploy.picture.video_location import as_typed, is_secret, without_credentials


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("rtsp://admin:secret@cam:554/front", "rtsp://cam:554/front"),
        ("rtsp://admin@cam/front", "rtsp://cam/front"),
        ("rtsp://admin:se/cr@et@cam/front", "rtsp://cam/front"),
        ("rtsp://user:it's-s3cret@127.0.0.1:1/x", "rtsp://127.0.0.1:1/x"),
        ("http://user:s3 cret@host/x", "http://host/x"),
        ('http://user:a"b@host/x', "http://host/x"),
        ("rtsp://u:p?a#b@cam/1?x=mail@host.de", "rtsp://host.de"),  # nobody can tell where it ends
        ("rtsp://u:p@[fe80::1]:554/x", "rtsp://[fe80::1]:554/x"),
        ("rtsp://user:secret", "rtsp://"),
        ("there is no file rtsp:/joe:secret@cam:554/x", "there is no file rtsp:/cam:554/x"),  # as a path has it
        ("http://cam/video?user=joe&password=secret&channel=2", "http://cam/video?user=…&password=…&channel=2"),
        ("http://cam/?password=a b&channel=2", "http://cam/?password=…&channel=2"),
        ("http://cam/?password%3Dabc", "http://cam/?password%3D…"),
        ("http://cam/?p%61ssword=abc&x=1", "http://cam/?p%61ssword=…&x=1"),
        ("http://cam/?apiKey=abc&X-Amz-Signature=d", "http://cam/?apiKey=…&X-Amz-Signature=…"),
        (
            "http://cam/?to=rtsp%3A%2F%2Fu%3Ap%40cam%2F1%3Ftoken%3Dabc%26x%3D1&y=2",
            "http://cam/?to=rtsp%3A%2F%2Fcam%2F1%3Ftoken%3D…%26x%3D1&y=2",
        ),
        ("http://cam/?to=rtsp://u:p@cam/1", "http://cam/?to=rtsp://cam/1"),
        ("rtsp://cam/user=admin_password=secret_channel=1", "rtsp://cam/user=…"),
        ("srt://cam:1?passphrase=a b c d e&mode=x", "srt://cam:1?passphrase=…&mode=x"),
        ("rtspsrc location=rtsp://a:secret@cam user-pw='secret word' ! x", "rtspsrc location=rtsp://cam user-pw=… ! x"),
        ('rtspsrc location="rtsp://a:sec ret@cam/1" name=x ! y', 'rtspsrc location="rtsp://cam/1" name=x ! y'),
        ("rtspsrc user-id=joe user-pw = s3cret ! x", "rtspsrc user-id=… user-pw = … ! x"),
        ("rtspsrc user-pw=it's;a&b ! x", "rtspsrc user-pw=… ! x"),
        ('x user-pw=(string)"a b" ! c', "x user-pw=… ! c"),
        ("souphttpsrc extra-headers='h,Authorization=Basic abc'", "souphttpsrc extra-headers='h,Authorization=…'"),
        ("[Errno 111] refused: 'rtsp://u:it's@cam/x'", "[Errno 111] refused: 'rtsp://cam/x'"),
        ('{"uri": "rtsp://u:p@cam/1", "password": "a b"}', '{"uri": "rtsp://cam/1", "password": …}'),
    ],
)  # fmt: skip
def test_what_opens_doors_is_not_said(given, said):
    assert without_credentials(given) == said
    assert without_credentials(said) == said


@pytest.mark.parametrize(
    "text",
    [
        "clip.mp4",
        "rtsp://cam",
        "rtsp://cam/1?x=mail@host.de",
        "rtsp://cam:554/1?x=mail@host.de",
        "rtsp://cam:554/mail@host.de",
        "http://cam/@joe/clip.mp4",
        "rtsp://[fe80::1]/x@y",
        "http://cam/?user-agent=VLC&author=me&keyframe=1&monkey=2&design=3",
        "videotestsrc ! x264enc key-int-max=10 bitrate=300 ! queue",
        "rtspsrc location=rtsp://cam ! identity name=mail@host.de",
        "rtsp://cam/1 cannot be opened: Connection refused (joe@host.de is told)",
    ],
)
def test_what_is_no_secret_is_said(text):
    assert without_credentials(text) == text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("admin:secret@cam/front", "…@cam/front"),
        ("rtsp:/u:p@cam", "…@cam"),
        ("rtsp://u:p@cam", "rtsp://cam"),
        ("gone.mp4", "gone.mp4"),
        ("joe@home.mp4", "joe@home.mp4"),
    ],
)
def test_what_should_have_been_an_address(given, said):
    assert as_typed(given) == said


@pytest.mark.parametrize(
    "address", ["rtsp://cam/x?token=abc", "http://cam/?password=a b&channel=2", "http://cam/?pin=1&key=2"]
)
@pytest.mark.parametrize("why", [" cannot be opened: Connection refused", ": 401", "; it was given up", ""])
def test_the_words_behind_what_was_left_out_stay(address, why):
    """A message names the address as it is said, and is looked at as a whole once more."""
    said = without_credentials(address) + why
    assert without_credentials(said) == said


def test_names_of_secrets():
    secret = (
        "password Passwd user_password dbpassword pwd user-pw userid user_id USERNAME token access_token authToken auth"
        " x-auth api_key apikey apiKey key X-Amz-Credential sig signature Signature client-secret passphrase sessionid"
    )
    open_ = "key-int-max keyframe author monkey bypass passthrough design signal-handoffs user-agent x name location"
    assert [name for name in secret.split() if not is_secret(name)] == []
    assert [name for name in open_.split() if is_secret(name)] == []


# ---- many, at random -------------------------------------------------------------------------------------------------

HOSTS = ("cam", "cam.local", "192.168.0.7", "[fe80::1]")
PORTS = ("", ":554", ":8554")
PATHS = ("", "/", "/live", "/live/main.sdp", "/mail@host.de", "/a b")
QUERIES = ("", "?channel=2", "?x=mail@host.de&channel=2", "?keyframe=1&author=a%40b", "?q=%3D%26")
SECRETS = ("password", "pwd", "user-pw", "access_token", "apiKey", "sig", "p%61ssword", "Authorization")
# What ends a word or an address for whoever reads it is in there; a password of digits up to a slash reads like a port.
LETTERS = string.ascii_letters + string.digits + string.punctuation + " äß漢"


def password(dice, without=""):
    letters = [letter for letter in LETTERS if letter not in without]
    return "pW" + "".join(dice.choice(letters) for _ in range(dice.randrange(4, 16)))


def leaked(said, secret):
    """The longest piece of four letters or more of a secret that is still there."""
    pieces = (secret[start : start + 4] for start in range(len(secret) - 3))
    return [piece for piece in pieces if piece in said]


@pytest.mark.slow
def test_no_password_of_ten_thousand_is_said():
    dice = random.Random(5)
    for _ in range(5000):
        place = dice.choice(HOSTS) + dice.choice(PORTS) + dice.choice(("", "/live", "/a/b.sdp"))
        secret = password(dice)
        uri = f"{dice.choice(('rtsp', 'http', 'rtsps'))}://{dice.choice(('joe', 'a.b', ''))}:{secret}@{place}"
        said = without_credentials(uri)
        assert leaked(said, secret) == [], uri
        assert said.endswith(f"://{place}"), uri
        name = dice.choice(SECRETS)
        secret = password(dice, without="&" + "%")
        uri = f"http://{place}?channel=2&{name}{dice.choice(('=', '%3D', '%253d'))}{secret}&mode=live"
        said = without_credentials(uri)
        assert leaked(said, secret) == [], uri
        assert said.startswith(f"http://{place}?channel=2&{name}"), uri
        assert said.endswith("…&mode=live"), uri


@pytest.mark.slow
def test_no_password_is_said_of_words():
    dice = random.Random(6)
    for _ in range(5000):
        secret = password(dice, without=" '\"\\")
        place = f"{dice.choice(HOSTS)}{dice.choice(PORTS)}/live"
        given, told = f"rtsp://joe:{secret}@{place}", f"rtsp://{place}"
        for words, said in (
            (f"rtspsrc location={given} latency=0 ! queue", f"rtspsrc location={told} latency=0 ! queue"),
            (f'rtspsrc location="{given}" ! queue', f'rtspsrc location="{told}" ! queue'),
            (f"OSError: [Errno 5] '{given}'\n  more", f"OSError: [Errno 5] '{told}'\n  more"),
            (f"rtspsrc user-pw={secret} latency=0 ! queue", "rtspsrc user-pw=… latency=0 ! queue"),
            (f"rtspsrc user-pw = '{secret}' latency=0 ! queue", "rtspsrc user-pw = … latency=0 ! queue"),
        ):
            assert without_credentials(words) == said, words


@pytest.mark.slow
def test_nothing_else_of_ten_thousand_is_left_out():
    dice = random.Random(7)
    for _ in range(10_000):
        uri = "rtsp://" + "".join(dice.choice(part) for part in (HOSTS, PORTS, PATHS, QUERIES))
        assert without_credentials(uri) == uri
        if " " not in uri:
            for words in (f"a ! b location={uri} x=y@z ! c", f"{uri}: it ended", f"('{uri}', 'b@c')"):
                assert without_credentials(words) == words


@pytest.mark.parametrize("part", ["h%3A%2F%2Fa%3Ab", "ab", "?a=", 'pw="', "a:", "%3A%2F%2F", "a:/", "'a://"])
@pytest.mark.parametrize("begin", ["", "@"])
def test_a_long_address_takes_no_longer_than_its_length(part, begin):
    """An argument may have 128 KiB; what grew with the square of it took a minute."""
    text = begin + part * (128_000 // len(part))
    begin_s = time.process_time()
    as_typed(text)
    without_credentials(text)
    assert time.process_time() - begin_s < 2


def test_lines_of_a_long_text_are_searched_one_by_one_and_cut():
    address = "rtsp://joe:s3cret@cam/1"
    said = without_credentials(f"{address}\n{'x' * 5000} {address}\nsee {address}")
    assert said == f"rtsp://cam/1\n{'x' * 4096}…\nsee rtsp://cam/1"
    assert "s3cret" not in as_typed("joe:s3cret@cam/" + "x" * 5000)
