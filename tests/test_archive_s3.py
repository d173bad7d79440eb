"""Archives of a bucket, by s3fs and over the S3 protocol: moto's server, which checks who may do what.

Beyond CI, since both bring half of Amazon's clients: pip install moto flask flask-cors py-partiql-parser s3fs
"""

import io
import json
import socket
import tarfile

import clips
import cv2
import numpy as np
import pytest

from segdeploy.cli import main
from segdeploy.serve.archive import archive as driver

pytestmark = [pytest.mark.slow, pytest.mark.beyond_ci]

ALLOWED = {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject"]}
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        ALLOWED
        | {
            "Resource": [
                "arn:aws:s3:::street",
                "arn:aws:s3:::street/frames/*",
                "arn:aws:s3:::nowhere",
                "arn:aws:s3:::nowhere/*",
            ]
        },
    ],
}


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def tar_of_two():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for number in range(2):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(png(number))
            tar.addfile(member, io.BytesIO(png(number)))
    return data.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    clip = tmp_path_factory.mktemp("clip") / "clip.mp4"
    clips.write_clip(clip, clips.every_40_ms(5))
    some = {f"frames/cam{number % 2}/{number}.png": png(number) for number in range(4)}
    return {
        **some,
        "frames/some.tar": tar_of_two(),
        "frames/clip.mp4": clip.read_bytes(),
        "locked/a.png": png(9),
    }


@pytest.fixture(scope="module")
def bucket(files):
    """A bucket, and two users: one may list it and read below frames/, the other may do nothing."""
    pytest.importorskip("s3fs")
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server")
    requests = pytest.importorskip("requests")

    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    url = "http://{}:{}".format(*running.get_host_and_port())
    given = {"endpoint_url": url, "region_name": "us-east-1"}
    admin = given | {"aws_access_key_id": "admin", "aws_secret_access_key": "admin"}
    boto3.client("s3", **admin).create_bucket(Bucket="street")
    for name, data in files.items():
        boto3.client("s3", **admin).put_object(Bucket="street", Key=name, Body=data)
    keys = {}
    iam = boto3.client("iam", **admin)
    for user in ("reader", "nobody"):
        iam.create_user(UserName=user)
        made = iam.create_access_key(UserName=user)["AccessKey"]
        keys[user] = made["AccessKeyId"], made["SecretAccessKey"]
    iam.put_user_policy(UserName="reader", PolicyName="reads", PolicyDocument=json.dumps(POLICY))
    requests.post(f"{url}/moto-api/reset-auth", data=b"0", timeout=30)  # rights are checked from here on
    yield url, keys
    running.stop()


@pytest.fixture
def user(bucket, monkeypatch):
    import s3fs

    url, keys = bucket
    monkeypatch.setattr(driver, "PAUSE_S", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")

    def become(name):
        s3fs.S3FileSystem.clear_instance_cache()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[name][0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[name][1])

    become("reader")
    return become


def written(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}


def test_a_bucket_is_archived_as_a_folder_is(user, graphs, files, tmp_path, capsys):
    for name, data in files.items():
        path = tmp_path / "here" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    outs = []
    for source in (tmp_path / "here/frames", "s3://street/frames"):
        outs.append(tmp_path / f"out{len(outs)}")
        words = ["archive", graphs("frames"), source, "-o", outs[-1], "--workers", "2", "--areas", "csv"]
        assert main([*map(str, words), "--json", "-"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["files"], said["frames"], said["failed"]) == (6, 11, 0)
    first, second = (written(out / "labels") for out in outs)
    assert len(first) == 6
    assert first == second
    assert sorted((outs[0] / "areas.csv").read_text().split()) == sorted(
        (outs[1] / "areas.csv").read_text().split()
    )
    assert main([*map(str, words), "--json", "-"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["files"], said["before"]) == (0, 6)


def test_patterns_and_files_of_a_bucket(user, graphs, tmp_path, capsys):
    words = ["archive", graphs("frames"), "s3://street/frames/*/*.png", "s3://street/frames/clip.mp4"]
    assert main([*map(str, words), "-o", str(tmp_path / "out"), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == 5


def test_a_bucket_without_rights_gives_one_message(user, graphs, tmp_path, refused):
    assert "s3://nowhere/x cannot be listed: FileNotFoundError" in refused(
        "archive", graphs("frames"), "s3://nowhere/x"
    )
    user("nobody")
    for source in ("s3://street/frames", "s3://street/frames/*/*.png", "s3://street/frames/some.tar"):
        said = refused("archive", graphs("frames"), source)
        assert f"{source} cannot be listed: PermissionError: " in said
        assert "see that it exists, and that this user may list it" in said


def test_a_file_that_may_not_be_read_is_listed(user, graphs, tmp_path, capsys):
    words = [
        "archive",
        graphs("frames"),
        "s3://street",
        "-o",
        tmp_path / "out",
        "--workers",
        "1",
        "--json",
        "-",
    ]
    assert main(list(map(str, words))) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["files"], said["failed"]) == (6, 1)
    (lost,) = map(json.loads, (tmp_path / "out/failures.jsonl").read_text().splitlines())
    assert lost["file"] == "locked/a.png"
    assert "s3://street/locked/a.png cannot be read: PermissionError: " in lost["reason"]


def test_a_store_that_is_away_is_named(user, graphs, monkeypatch, refused):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    user("reader")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    said = refused("archive", graphs("frames"), "s3://street/frames")
    assert "s3://street/frames cannot be listed: " in said
