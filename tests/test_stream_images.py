import cv2
import numpy as np
import pytest

from segdeploy.errors import RequestError
from segdeploy.picture.image import WRITTEN, find_images
from segdeploy.run.session import open_session, segment
from segdeploy.serve.stream.images import segment_files, stems_for


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.JPG", "sub/c.webp", "sub/c.png", "sub/deep/a.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (60, 90, 3), np.uint8))
    (tmp_path / "in" / "notes.txt").write_text("no image")
    return tmp_path / "in"


def test_images_are_found_in_order_in_all_folders(folder):
    names = [path.relative_to(folder).as_posix() for path in find_images(folder)]
    assert names == ["a.png", "b.JPG", "sub/c.png", "sub/c.webp", "sub/deep/a.png"]
    assert find_images(folder / "a.png") == [folder / "a.png"]


def test_a_second_run_does_not_segment_the_results_of_the_first(folder, graphs):
    before = find_images(folder)
    with open_session(graphs("frames")) as session:
        list(segment_files(session, [folder], folder))
    assert find_images(folder, but=WRITTEN) == before


def test_no_result_leaves_the_output_folder(folder, tmp_path):
    """A path that goes up and down again names the same image."""
    sources = [folder / ".." / "in" / "a.png", folder / "sub" / ".." / "sub" / "deep", folder / "b.JPG"]
    stems = [
        stem.relative_to(tmp_path / "out").as_posix() for _, stem in stems_for(sources, tmp_path / "out")
    ]
    assert stems == ["a", "sub/deep/a", "b"]


def test_nothing_to_segment(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match=r"holds no image \(\.png, \.jpg"):
        find_images(tmp_path / "empty")
    with pytest.raises(RequestError, match="there is no file or folder"):
        find_images(tmp_path / "gone")


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3, None])
def test_each_image_gets_three_files_in_its_own_folder(batch, folder, graphs, tmp_path):
    with open_session(graphs("frames", batch)) as session:
        done = list(segment_files(session, [folder], tmp_path / "out"))
        expected = segment(
            open_session(graphs("frames")), cv2.imread(str(folder / "sub/deep/a.png"))[..., ::-1]
        )
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    stems = {"a", "b", "sub/c.webp", "sub/c.png", "sub/deep/a"}
    assert written == {f"{stem}.{kind}.png" for stem in stems for kind in ("overlay", "colours", "ids")}
    assert all(one.error is None and len(one.written) == 3 for one in done)
    ids = cv2.imread(str(tmp_path / "out/sub/deep/a.ids.png"), cv2.IMREAD_UNCHANGED)
    assert ids.shape == (60, 90)
    assert np.mean(ids == expected.labels) >= 0.9999


def test_a_bad_file_is_reported_and_the_rest_done(folder, graphs, tmp_path):
    (folder / "b.JPG").write_bytes((folder / "b.JPG").read_bytes()[:20])
    (folder / "z.png").write_bytes(b"")
    with open_session(graphs("frames", 3)) as session:
        done = {one.path.name: one for one in segment_files(session, [folder], tmp_path / "out")}
    assert {name for name, one in done.items() if one.error} == {"b.JPG", "z.png"}
    assert "b.JPG is not an image that can be decoded" in str(done["b.JPG"].error)
    assert len(list((tmp_path / "out").rglob("*.ids.png"))) == 4
