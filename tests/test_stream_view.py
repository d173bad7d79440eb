"""The page of a running stream: what it answers and refuses, that it holds nobody up, and a real browser's view."""

import http.client
import json
import re
import socket
import struct
import threading
import time
from dataclasses import replace
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from browser import Page as Browser
from browser import find_chromium
from heap import bytes_per_call

from segdeploy.errors import RequestError
from segdeploy.model.labels import generated_labels, read_labels
from segdeploy.picture.segmentation import Segmentation
from segdeploy.serve.stream import view
from segdeploy.serve.stream.result import Shown
from segdeploy.serve.stream.view import Page

CITY = read_labels("cityscapes")
SKY = CITY.names.index("sky")
HEIGHT, WIDTH = 60, 100


def shown(index=0, source="clip.mp4", models=1, sky_rows=20, level=128, classes=CITY, dropped=0):
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:sky_rows] = SKY
    results = (Segmentation(labels, classes), Segmentation(labels[::-1].copy(), classes))[:models]
    frame = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
    return Shown(source, index, index / 25, frame, results, 24.96 + index, 31.4, dropped)


@pytest.fixture
def page():
    made = Page(0, names=("a.onnx", "b.onnx"))
    yield made
    made.close()


def get(page, path, host=None, method="GET"):
    where = urlsplit(page.url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=20)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def unpacked(body):
    parts = []
    while body:
        (size,) = struct.unpack_from("<I", body)
        parts.append(body[4 : 4 + size])
        body = body[4 + size :]
    return json.loads(parts[0]), parts[1:]


def test_the_page_and_its_files(page):
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        answer, body = get(page, path)
        assert (answer.status, answer.headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert not re.search(rb"(src|href)=\"(https?:)?//|url\(|@import", body)
    for path in ("/page.py", "/../view.py", "/view.py", "/favicon.ico"):
        assert get(page, path)[0].status == 404
    assert get(page, "/", method="POST")[0].status == 501


def test_a_frame_is_what_was_taken(page):
    page.take(shown(3, models=2, dropped=4))
    facts, (frame, *ids) = unpacked(get(page, "/frame?source=0&after=0")[1])
    first, second = facts.pop("models")
    assert facts == {
        "sources": ["clip.mp4"],
        "serial": 1,
        "index": 3,
        "time_s": 0.12,
        "fps": 27.96,
        "latency_ms": 31.4,
        "dropped": 4,
    }
    assert (first["name"], second["name"]) == ("a.onnx", "b.onnx")
    assert first["areas"] == [["road", pytest.approx(2 / 3)], ["sky", pytest.approx(1 / 3)]]
    assert (first["classes"][0], first["palette"][0]) == ("road", "#804080")
    decoded = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (HEIGHT, WIDTH, 3) and (np.abs(decoded.astype(int) - 128) <= 1).all()
    for part, result in zip(ids, shown(models=2).results, strict=True):
        read = cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(read, result.labels)


def test_only_the_newest_frame_is_kept(page):
    for index in range(5):
        page.take(shown(index))
    assert unpacked(get(page, "/frame?source=0&after=2")[1])[0]["index"] == 4


def test_it_waits_for_a_newer_frame(page, monkeypatch):
    page.take(shown(0))
    timer = threading.Timer(0.3, page.take, [shown(1)])
    timer.start()
    assert unpacked(get(page, "/frame?source=0&after=1")[1])[0]["index"] == 1
    timer.join()
    monkeypatch.setattr(view, "LONGEST_WAIT_S", 0.1)
    facts, pictures = unpacked(get(page, "/frame?source=0&after=2")[1])
    assert (facts, pictures) == ({"sources": ["clip.mp4"], "serial": 0}, [])


def test_each_source_has_its_own(page):
    for index, source in enumerate(("left", "right", "left")):
        page.take(shown(index, source))
    for number, index in ((0, 2), (1, 1)):
        facts = unpacked(get(page, f"/frame?source={number}&after=0")[1])[0]
        assert (facts["sources"], facts["index"]) == (["left", "right"], index)


@pytest.mark.parametrize("asked", ["source=x", "source=-1", "after=1.5", "after=-2"])
def test_what_is_no_number_is_refused(page, asked):
    assert get(page, f"/frame?{asked}")[0].status == 400


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8765", 200),
        ("localhost", 200),
        ("[::1]:80", 200),
        ("192.168.1.20:8765", 200),
        (socket.gethostname(), 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:8765", 421),
        ("localhost.evil.example", 421),
        ("[::1", 421),
        ("user@evil.example", 421),
    ],
)
def test_a_name_that_anybody_could_point_here_gets_nothing(page, host, status):
    page.take(shown())
    for path in ("/", "/frame"):
        answer, body = get(page, path, host)
        assert answer.status == status
        assert status == 200 or body.startswith(b"this page answers to the address it was opened at")


def test_no_host_at_all_gets_nothing(page):
    where = urlsplit(page.url)
    with socket.create_connection((where.hostname, where.port), 20) as raw:
        raw.sendall(b"GET /frame HTTP/1.0\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.0 421 ")


def test_an_address_that_is_none_is_refused_in_silence(page, capsys):
    where = urlsplit(page.url)
    with socket.create_connection((where.hostname, where.port), 20) as raw:
        raw.sendall(f"GET http://[/ HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())
        head = raw.recv(1000).decode()
    assert head.startswith("HTTP/1.0 400 ")
    assert "Server: segdeploy \r\n" in head
    page.close()
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_a_request_leaves_no_memory_behind(page):
    """A thread that called OpenCV keeps 880 bytes of it for ever, and each request has a thread."""
    page.take(shown())
    assert bytes_per_call(lambda: get(page, "/frame?source=0&after=0"), before=40, calls=250) < 300


def test_it_is_bound_to_this_machine_alone(page):
    assert page.url.startswith("http://127.0.0.1:")
    assert page._server.server_address[0] == "127.0.0.1"


def test_a_busy_port(page):
    port = urlsplit(page.url).port
    with pytest.raises(
        RequestError,
        match=rf"^port {port} of 127\.0\.0\.1 is in use; name another one, such as --view {port + 1}$",
    ):
        Page(port)


def test_impossible_places():
    with pytest.raises(RequestError, match=r"'x{60}' is no address; expected one of this machine's"):
        Page(0, "x" * 300)
    with pytest.raises(RequestError, match=r"^70000 is not a port; expected 1 to 65535"):
        Page(70000)
    with pytest.raises(
        RequestError, match=r"^192\.0\.2\.1 is no address of this machine \(.*--view-address$"
    ):
        Page(0, "192.0.2.1")


@pytest.mark.slow
def test_closing_ends_every_thread_whoever_hangs_on():
    before = set(threading.enumerate())
    page = Page(0)
    where = urlsplit(page.url)
    frames = shown()
    big = Shown(
        "big", 0, 0.0, np.random.default_rng(0).integers(0, 256, (2000, 3000, 3), np.uint8), (), 1, 1, 0
    )
    silent, deaf, waiting = (socket.create_connection((where.hostname, where.port), 20) for _ in range(3))
    page.take(frames)
    page.take(big)
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    deaf.sendall(b"GET /frame?source=1&after=0 HTTP/1.0\r\nHost: localhost\r\n\r\n")
    waiting.sendall(b"GET /frame?source=0&after=1 HTTP/1.0\r\nHost: localhost\r\n\r\n")
    deadline = time.monotonic() + 10
    while len(set(threading.enumerate()) - before) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    began = time.monotonic()
    for index in range(200):  # nobody who looks holds the stream up
        page.take(shown(index))
    assert time.monotonic() - began < 1
    page.close()
    assert time.monotonic() - began < view.PATIENCE_S / 2
    assert set(threading.enumerate()) == before
    for one in (silent, deaf, waiting):
        one.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((where.hostname, where.port), 5)
    Page(where.port).close()  # the port is free again at once


# ---- a browser -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    found = find_chromium()
    if found is None:
        pytest.skip(
            "no Chromium is installed, so the page is not opened in a browser: apt-get install chromium"
        )
    browser = Browser(found, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def opened(chromium, page):
    """The page with its first frame drawn, and nothing to complain about until it is left."""
    page.take(shown(0))
    chromium.events.clear()
    chromium.visit(page.url)
    chromium.until(f"{text('status')} == 'Running.'")
    yield chromium
    chromium.visit("about:blank")
    assert chromium.of("Runtime.exceptionThrown") == [] and chromium.of("Log.entryAdded") == []
    asked = {urlsplit(one["request"]["url"]) for one in chromium.of("Network.requestWillBeSent")}
    assert {one.netloc for one in asked if one.scheme == "http"} == {urlsplit(page.url).netloc}


def pixel(canvas, x, y):
    """Read through a canvas of its own: Chromium warns of reading the page's often."""
    return f"""(() => {{
        const pen = new OffscreenCanvas(1, 1).getContext("2d");
        pen.drawImage(document.querySelectorAll("canvas")[{canvas}], -{x}, -{y});
        return [...pen.getImageData(0, 0, 1, 1).data];
    }})()"""


def text(name):
    return f"document.getElementById('{name}').innerText"


def rows(browser):
    return browser.ask(f"{text('areas')}.split('\\n').map(row => row.split('\\t').map(one => one.trim()))")


def test_frame_classes_and_figures_are_seen(opened, page):
    assert opened.ask(pixel(0, 50, 50))[0] in (127, 128, 129)
    assert opened.ask(pixel(1, 50, 10)) == [*CITY.colours[SKY], 255]
    assert opened.ask(pixel(1, 50, 50)) == [*CITY.colours[0], 255]
    assert opened.ask(text("figures")) == "frame 0 at 0.00 s, 25.0 FPS, 31 ms"
    assert rows(opened) == [["road", "66.7 %"], ["sky", "33.3 %"]]
    assert (
        opened.ask("getComputedStyle(document.querySelector('.swatch')).backgroundColor")
        == "rgb(128, 64, 128)"
    )
    page.take(shown(1, sky_rows=0, dropped=3))
    opened.until(f"{text('figures')} == 'frame 1 at 0.04 s, 26.0 FPS, 31 ms, 3 frames dropped'")
    assert opened.ask(pixel(1, 50, 10)) == [*CITY.colours[0], 255]
    assert rows(opened) == [["road", "100.0 %"], ["sky", "0.0 %"]]  # sky keeps its row
    assert opened.ask("document.documentElement.scrollWidth <= window.innerWidth")


def test_plots_grow_with_the_frames(opened, page):
    line = "document.querySelectorAll('polyline')[0].getAttribute('points').split(' ').length"
    assert opened.ask(line) == 1
    page.take(shown(1))
    opened.until(f"{line} == 2")
    said = opened.ask("[...document.querySelectorAll('svg')].map(one => one.getAttribute('aria-label'))")
    assert said == [
        "Throughput 26.0 FPS, at most 26.0 in the last 2 frames shown",
        "Latency 31.4 ms, at most 31.4 in the last 2 frames shown",
    ]


def test_pause_is_this_pages_own_and_works_by_key(opened, page):
    opened.ask("document.getElementById('pause').focus()")
    opened.press(" ", 32)
    opened.until("document.getElementById('pause').getAttribute('aria-pressed') == 'true'")
    assert opened.ask(text("status")) == "Paused; the stream itself goes on."
    for index in (1, 2, 3):
        page.take(shown(index))
    time.sleep(0.3)
    assert opened.ask(text("figures")).startswith("frame 0 ")
    opened.press(" ", 32)
    opened.until(f"{text('figures')}.startsWith('frame 3 ')")
    assert opened.ask(text("status")) == "Running."


def test_opacity_moves_by_keys(opened):
    seen = "getComputedStyle(document.querySelector('.labels')).opacity"
    opened.until(f"{seen} == '0.55'")
    opened.ask("document.getElementById('opacity').focus()")
    for _ in range(5):
        opened.press("ArrowRight", 39)
    opened.until(f"{seen} == '0.6'")
    opened.press("Home", 36)
    opened.until(f"{seen} == '0'")


def test_keys_reach_the_picture_wherever_the_reader_is(opened, page):
    opened.ask("document.activeElement.blur()")
    seen = "getComputedStyle(document.querySelector('.labels')).opacity"
    opened.press("ArrowRight", 39)
    opened.until(f"{seen} == '0.6'")
    opened.press(" ", 32)
    opened.until(f"{text('status')} == 'Paused; the stream itself goes on.'")
    opened.press(" ", 32)
    page.take(shown(1, models=2))
    opened.until("document.querySelectorAll('.stage').length == 2")
    opened.ask("document.getElementById('layout').value = 'wipe'")
    opened.ask("document.getElementById('layout').dispatchEvent(new Event('change'))")
    opened.press("ArrowLeft", 37)
    opened.until("document.querySelector('.stages').style.getPropertyValue('--cut') == '45%'")
    point(opened, 0.25, 0.5, held=True)
    opened.until("document.querySelector('.stages').style.getPropertyValue('--cut') == '25%'")


def point(browser, x, y, held=False):
    """Move the mouse to a place of the first picture, from 0 to 1."""
    place = "document.querySelector('.stack').getBoundingClientRect()"
    at = browser.ask(f"[{place}.left + {x} * {place}.width, {place}.top + {y} * {place}.height]")
    browser.call(
        "Input.dispatchMouseEvent",
        type="mouseMoved",
        x=at[0],
        y=at[1],
        buttons=int(held),
        button="left" if held else "none",
    )


def test_the_class_under_the_mouse_is_named(opened):
    for y, name in ((0.1, "sky"), (0.4, "road")):
        point(opened, 0.5, y)
        opened.until(f"{text('under')} == '{name}'")
    assert opened.ask(text("title")) == "clip.mp4 · a.onnx"
    assert opened.ask("document.title") == "clip.mp4 · a.onnx · segdeploy"


def test_a_class_that_is_pressed_is_not_drawn(opened, page):
    sky = "[...document.querySelectorAll('button.class')].find(one => one.textContent == 'sky')"
    opened.ask(f"{sky}.focus()")
    opened.press(" ", 32)
    opened.until(f"{sky}.getAttribute('aria-pressed') == 'false'")
    assert opened.ask(pixel(1, 50, 10))[3] == 0
    assert opened.ask(pixel(1, 50, 50)) == [*CITY.colours[0], 255]
    page.take(shown(1))
    opened.until(f"{text('figures')}.startsWith('frame 1 ')")
    assert opened.ask(pixel(1, 50, 10))[3] == 0
    assert opened.ask("document.activeElement.textContent") == "sky"
    opened.press(" ", 32)
    opened.until(f"{sky}.getAttribute('aria-pressed') == 'true'")
    assert opened.ask(pixel(1, 50, 10)) == [*CITY.colours[SKY], 255]


def test_less_than_one_frame_a_second_is_no_nought(opened, page):
    slow = shown(1)
    page.take(replace(slow, fps=0.25))
    opened.until(f"{text('figures')} == 'frame 1 at 0.04 s, 0.25 FPS, 31 ms'")


def test_tab_reaches_every_control_and_shows_where_it_is(opened):
    opened.ask("document.activeElement.blur()")
    reached = []
    for _ in range(4):
        opened.press("Tab", 9)
        reached.append(opened.ask("document.activeElement.id"))
        assert opened.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert reached == ["pause", "source", "opacity", "whole"]
    assert opened.ask("[...document.querySelectorAll('input, select')].every(one => one.labels.length == 1)")


def test_a_source_can_be_chosen(opened, page):
    page.take(shown(0, "clip.mp4"))
    page.take(shown(8, "<b>rtsp://camera</b>"))
    opened.until("document.getElementById('source').options.length == 2")
    opened.ask("document.getElementById('source').focus()")
    opened.press("End", 35)
    opened.until(f"{text('figures')}.startsWith('frame 8 ')")
    assert opened.ask("document.getElementById('source').value") == "<b>rtsp://camera</b>"
    assert opened.ask("document.querySelectorAll('b').length") == 0
    page.take(shown(1, "clip.mp4"))
    page.take(shown(9, "<b>rtsp://camera</b>"))
    opened.until(f"{text('figures')}.startsWith('frame 9 ')")


def test_two_models_stand_side_by_side_or_under_a_wipe(opened, page):
    page.take(shown(1, models=2))
    opened.until("document.querySelectorAll('.stage').length == 2")
    names = "[...document.querySelectorAll('figcaption')].map(one => one.textContent)"
    assert opened.ask(names) == ["a.onnx", "b.onnx"]
    assert opened.ask(pixel(1, 50, 10)) == [*CITY.colours[SKY], 255]
    assert opened.ask(pixel(3, 50, 10)) == [*CITY.colours[0], 255]
    assert rows(opened) == [["road", "66.7 %", "66.7 %"], ["sky", "33.3 %", "33.3 %"]]
    assert opened.ask("document.querySelector('.over').hidden")
    opened.ask("document.getElementById('layout').focus()")
    opened.press("End", 35)
    opened.until("document.querySelectorAll('.stage').length == 1")
    assert opened.ask(names) == ["a.onnx | b.onnx"]
    clips = "[...document.querySelectorAll('.labels')].map(one => getComputedStyle(one).clipPath)"
    opened.ask("document.getElementById('cut').focus()")
    opened.press("ArrowRight", 39)
    opened.until("document.querySelector('.stages').style.getPropertyValue('--cut') == '51%'")
    left, right = opened.ask(clips)
    assert ("49%" in left, "51%" in right) == (True, True)


def test_it_follows_the_readers_light_or_dark(opened):
    ground = "getComputedStyle(document.body).backgroundColor"
    for scheme, colour in (("dark", "rgb(21, 24, 27)"), ("light", "rgb(255, 255, 255)")):
        opened.prefer(scheme)
        assert opened.ask(ground) == colour


def test_hostile_class_names_are_words(chromium, page):
    classes = generated_labels([f"<img src=x onerror=alert({index})>" for index in range(19)])
    page.take(shown(classes=classes))
    chromium.visit(page.url)
    chromium.until(f"{text('status')} == 'Running.'")
    assert chromium.ask("document.images.length") == 0
    assert chromium.ask(text("areas")).startswith("<img src=x onerror=alert(0)>")


@pytest.mark.slow
def test_the_end_is_told(chromium):
    page = Page(0)
    page.take(shown(5))
    chromium.visit(page.url)
    chromium.until(f"{text('figures')}.startsWith('frame 5 ')")
    page.close()
    chromium.until(f"{text('status')} == 'The stream has ended.'")
    assert chromium.ask(text("figures")).startswith("frame 5 ")
