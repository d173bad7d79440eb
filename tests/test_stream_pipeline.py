import _thread
import threading
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import clips
import numpy as np
import pytest
from bench_fakes import HostSession
from heap import bytes_in_use

from segdeploy.errors import EngineError, OutputError, RequestError, VideoError
from segdeploy.picture.video_reading import TimedFrame, Video
from segdeploy.serve.stream.live import Live
from segdeploy.serve.stream.pipeline import Pipeline, StreamPlan


def picture(index, size=(48, 64)):
    return np.full((*size, 3), index % 256, np.uint8)


class Made:
    """`count` frames, with `wait_s` between them."""

    path = None
    fps = 25.0

    def __init__(self, name="made", count=10, live=False, wait_s=0.0, error=None, sizes=((48, 64),)):
        self.name, self.frames, self.live = name, count, live
        self.wait_s, self.error, self.sizes = wait_s, error, sizes
        self.stopped = threading.Event()
        self.closed = False

    def read(self):
        for index in range(self.frames):
            if self.stopped.wait(self.wait_s):
                return
            yield TimedFrame(
                picture(index, self.sizes[index * len(self.sizes) // self.frames]), index / self.fps
            )
        if self.error:
            raise self.error

    def stop(self):
        self.stopped.set()

    def close(self):
        self.closed = True


class Kept:
    name = "kept"

    def __init__(self, fail_at=None, wait_s=0.0):
        self.shown, self.closed, self.fail_at, self.wait_s = [], 0, fail_at, wait_s

    def take(self, shown):
        time.sleep(self.wait_s)
        if len(self.shown) == self.fail_at:
            raise OutputError("the disk is full")
        self.shown.append(shown)

    def close(self):
        self.closed += 1

    def give_up(self):
        """It never hangs."""

    @property
    def indices(self):
        return [shown.index for shown in self.shown]


class Slow(HostSession):
    def run(self, inputs):
        time.sleep(0.02)
        return super().run(inputs)


@contextmanager
def no_thread_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def run(streams, sinks, session=None, shared=(), said=None, **plan):
    pipeline = Pipeline(
        [session or HostSession(batch=1)],
        streams,
        [[sink] for sink in sinks],
        shared,
        StreamPlan(**plan),
        (said if said is not None else []).append,
    )
    with no_thread_left():
        try:
            return pipeline.run()
        finally:
            assert all(stream.closed for stream in streams if isinstance(stream, Made))
            assert all(sink.closed == 1 for sink in [*sinks, *shared])


def test_every_frame_of_a_file_in_order():
    sink = Kept(wait_s=0.002)
    (tally,) = run([Made(count=60)], [sink])
    assert sink.indices == list(range(60))
    assert [int(shown.frame[0, 0, 0]) for shown in sink.shown] == list(range(60))
    assert [shown.time_s for shown in sink.shown] == [index / 25 for index in range(60)]
    assert (tally.frames, tally.dropped, tally.error) == (60, 0, None)
    last = sink.shown[-1]
    assert last.results[0].labels.shape == (48, 64)
    assert last.fps > 0
    assert last.latency_ms > 0
    assert last.source == "made"


def test_a_live_source_is_thinned_out_and_does_not_lag():
    sink = Kept()
    (tally,) = run([Made(count=120, live=True, wait_s=0.002)], [sink], Slow(batch=1))
    assert tally.dropped > 20
    assert tally.frames + tally.dropped == 120
    assert sink.indices == sorted(set(sink.indices))
    assert sink.indices[-1] == 119
    assert sink.shown[-1].dropped == tally.dropped
    assert max(shown.latency_ms for shown in sink.shown) < 1000


def test_batches_are_filled_across_sources_and_each_has_its_own_sink():
    session, sinks, shared = HostSession(batch=4), [Kept(), Kept(), Kept()], Kept()
    streams = [Made(name, 8) for name in "abc"]
    run(streams, sinks, session, [shared])
    assert len(session.asked) == 6
    for name, sink in zip("abc", sinks, strict=True):
        assert sink.indices == list(range(8))
        assert {shown.source for shown in sink.shown} == {name}
    assert len(shared.shown) == 24


def test_every_third_and_no_more_than_four():
    sink = Kept()
    (tally,) = run([Made(count=60)], [sink], every=3, max_frames=4)
    assert sink.indices == [0, 3, 6, 9]
    assert tally.frames == 4
    endless = Kept()
    run([Made(count=10**9, live=True, wait_s=0.001)], [endless], max_frames=5)
    assert len(endless.shown) == 5


def test_two_models_see_the_same_frames():
    sink = Kept()
    sessions = [HostSession(batch=1), HostSession(batch=1, interface="logits")]
    Pipeline(sessions, [Made(count=5)], [[sink]]).run()
    assert [len(shown.results) for shown in sink.shown] == [2] * 5
    assert sink.shown[0].results[1].labels.shape == (48, 64)


def test_a_source_that_fails_ends_alone():
    sinks, said = [Kept(), Kept()], []
    tallies = run([Made("a", 5, error=VideoError("a is cut short")), Made("b", 30)], sinks, said=said)
    assert [len(sink.shown) for sink in sinks] == [5, 30]
    assert said == ["a is cut short"]
    assert [str(tally.error) for tally in tallies] == ["a is cut short", "None"]


@pytest.mark.parametrize("kind", [EngineError, ZeroDivisionError])
def test_a_model_that_fails_stops_all(kind):
    class Broken(HostSession):
        def run(self, inputs):
            if len(self.asked) == 3:
                raise kind("out of memory")
            return super().run(inputs)

    sink = Kept()
    with pytest.raises(kind, match="out of memory"):
        run([Made(count=10**9), Made(count=10**9, live=True, wait_s=0.001)], [sink, Kept()], Broken(batch=1))


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 7])
def test_a_sink_that_fails_ends_alone(place):
    """The source goes on for its other sinks, and ends where it has none."""
    sinks, said = [Kept(fail_at=place), Kept()], []
    tallies = run([Made("a", 10**9), Made("b", 40)], sinks, said=said)
    assert sinks[0].indices == list(range(place))
    assert sinks[1].indices == list(range(40))
    assert said == ["the disk is full"]
    assert [str(tally.error) for tally in tallies] == ["the disk is full", "None"]
    shared = Kept()
    run([Made("a", 40)], [Kept(fail_at=place)], shared=[shared])
    assert shared.indices == list(range(40))
    sink = Kept()
    (tally,) = run([Made("a", 40)], [sink], shared=[Kept(fail_at=place)])
    assert (sink.indices, tally.error) == (list(range(40)), None)


def test_what_failed_is_known_when_all_is_over():
    pipeline = Pipeline([HostSession(batch=1)], [Made()], [[Kept()]], [Kept(fail_at=3)])
    pipeline.run()
    assert [str(error) for error in pipeline.errors] == ["the disk is full"]


@pytest.mark.parametrize("kind", [BrokenPipeError, ZeroDivisionError])
def test_a_fault_in_a_sink_stops_all(kind):
    class Broken(Kept):
        def take(self, shown):
            raise kind

    with pytest.raises(kind):
        run([Made(count=10**9), Made("b", 10**9)], [Broken(), Kept()])


def test_a_sink_that_cannot_be_closed_is_told():
    class Unclosed(Kept):
        def close(self):
            super().close()
            raise OutputError("only 3 of 4 frames were written")

    (tally,) = run([Made(count=4)], [Unclosed()])
    assert str(tally.error) == "only 3 of 4 frames were written"


# ---- what hangs ------------------------------------------------------------------------------------------------------


class Stuck(Kept):
    """Hangs as FFmpeg does, at a frame or in closing, until it is freed."""

    name = "rtsp://server/a"

    def __init__(self, at=None, in_close=False):
        super().__init__()
        self.at, self.in_close, self.given_up = at, in_close, 0
        self.free = threading.Event()

    def take(self, shown):
        super().take(shown)
        if len(self.shown) == self.at:
            self.free.wait(60)

    def close(self):
        if self.in_close:
            self.free.wait(60)
        super().close()

    def give_up(self):
        self.given_up += 1


@pytest.fixture
def stuck():
    made = []

    def make(*given, **named):
        made.append(Stuck(*given, **named))
        return made[-1]

    yield make
    for sink in made:
        sink.free.set()
    end = time.monotonic() + 10
    while any(thread.name.startswith("segdeploy: ") for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)


GIVEN_UP = "rtsp://server/a is given up: it took nothing for 0.5 s"


@pytest.mark.slow
@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_sink_that_hangs_holds_no_other_source(stuck, live, batch):
    hangs, goes_on, said, came = stuck(at=3), Kept(), [], []
    goes_on.take = lambda shown: came.append((time.monotonic(), shown.index))
    sources = [Made("a", 10**9, live=live, wait_s=0.01), Made("b", 150, live=True, wait_s=0.01)]
    pipeline = Pipeline(
        [HostSession(batch=batch)], sources, [[hangs], [goes_on]], say=said.append, timeout_s=0.5
    )
    begin = time.monotonic()
    tallies = pipeline.run()
    assert said == [GIVEN_UP]
    assert [str(tally.error) for tally in tallies] == [GIVEN_UP, "None"]
    assert hangs.given_up == 1
    assert tallies[1].frames + tallies[1].dropped == 150
    assert (
        max(later[0] - earlier[0] for earlier, later in pairwise(came)) < 0.4
    )  # while the first one hung, too
    assert time.monotonic() - begin < 10


@pytest.mark.slow
def test_a_sink_that_hangs_loses_its_own_source_nothing_elsewhere(stuck):
    """A live source goes on at its rate for its other sink; a file waits, and goes on when the one is given up."""
    for live in (True, False):
        hangs, goes_on, shared = stuck(at=3), Kept(), Kept()
        source = Made("a", 150, live=live, wait_s=0.01)
        Pipeline([HostSession(batch=1)], [source], [[hangs, goes_on]], [shared], timeout_s=0.5).run()
        assert goes_on.indices == shared.indices
        if not live:
            assert goes_on.indices == list(range(150))
        assert len(goes_on.indices) > 100


@pytest.mark.slow
def test_a_shared_sink_that_hangs_holds_nobody(stuck):
    hangs, sinks, said = stuck(at=3), [Kept(), Kept()], []
    sources = [Made("a", 60, live=True, wait_s=0.01), Made("b", 60)]
    Pipeline(
        [HostSession(batch=1)], sources, [[sink] for sink in sinks], [hangs], say=said.append, timeout_s=0.5
    ).run()
    assert said == [GIVEN_UP]
    assert sinks[1].indices == list(range(60))
    assert len(sinks[0].indices) > 40


def test_a_sink_that_hangs_in_closing_is_given_up(stuck):
    hangs, other, said = stuck(in_close=True), Kept(), []
    (tally,) = Pipeline(
        [HostSession(batch=1)], [Made(count=5)], [[hangs, other]], say=said.append, timeout_s=0.5
    ).run()
    assert said == [GIVEN_UP] and str(tally.error) == GIVEN_UP
    assert (hangs.indices, other.indices, other.closed) == (list(range(5)), list(range(5)), 1)


def test_what_was_given_up_and_comes_back_is_closed_in_order(stuck):
    hangs = stuck(at=3)
    Pipeline([HostSession(batch=1)], [Made(count=50)], [[hangs]], timeout_s=0.5).run()
    assert hangs.closed == 0
    hangs.free.set()
    end = time.monotonic() + 10
    while not hangs.closed:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert hangs.indices == [0, 1, 2]


@pytest.mark.slow
def test_a_slow_sink_loses_no_frame_of_a_file():
    sink = Kept(wait_s=0.05)
    run([Made(count=30)], [sink])
    assert sink.indices == list(range(30))


@pytest.mark.slow
@pytest.mark.parametrize("where", ["take", "close", "shared"])
def test_ctrl_c_ends_in_time_whatever_hangs(stuck, where):
    """The other sinks have all that was segmented, and are closed."""
    hangs = stuck(at=None if where == "close" else 3, in_close=where == "close")
    other, said = Kept(), []
    shared = [hangs] if where == "shared" else []
    own = [] if where == "shared" else [hangs]
    pipeline = Pipeline(
        [HostSession(batch=1)],
        [Made("a", 10**9, wait_s=0.005), Made("b", 10**9, live=True, wait_s=0.005)],
        [own, [other]],
        shared,
        say=said.append,
        timeout_s=2,
    )
    threading.Timer(0.8, _thread.interrupt_main).start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        pipeline.run()
    assert time.monotonic() - begin < 0.8 + 2
    assert said == ["rtsp://server/a is given up: it did not end in time"]
    assert other.closed == 1
    assert len(other.shown) == pipeline.tallies[1].frames > 50


@pytest.mark.slow
def test_a_sink_that_is_always_slow_does_not_slow_a_camera():
    """As a reader of --json does that takes five lines a second: another sink of the same camera gets every frame."""
    slow, other = Kept(wait_s=0.2), Kept()
    camera = Made(count=120, live=True, wait_s=0.02)
    tallies = run([camera], [other], shared=[slow])
    assert len(slow.shown) < 60
    assert len(other.shown) == tallies[0].frames
    assert tallies[0].dropped < 30


def test_what_a_slow_sink_lacks_of_a_camera_is_said():
    sink, said = Kept(wait_s=0.6), []
    (tally,) = run([Made(count=24, live=True, wait_s=0.05)], [sink], said=said)
    lacking = tally.frames - len(sink.indices)
    assert lacking > 0
    assert said == [f"{sink.name} was too slow for {lacking} live frames, which are not in it"]


def test_ctrl_c_closes_everything_in_order():
    class Pressed(Kept):
        def take(self, shown):
            super().take(shown)
            if shown.index == 5:
                _thread.interrupt_main()

    sink, other = Pressed(), Kept()
    with pytest.raises(KeyboardInterrupt):
        run([Made(count=10**9, wait_s=0.001), Made("b", 10**9, live=True, wait_s=0.001)], [sink, other])
    assert sink.indices == list(range(len(sink.shown)))
    assert 6 <= len(sink.shown) < 500


def test_a_change_of_size_is_said_once():
    said = []
    run([Made(count=9, sizes=((48, 64), (24, 32), (96, 64)))], [Kept()], said=said)
    assert said == [
        "made changes its size to 24x32 at frame 3; in a clip its pictures are fitted into the first size"
    ]


def test_a_batch_larger_than_the_models():
    with pytest.raises(RequestError, match="--batch 4 is more than the 2 that the model was made for"):
        Pipeline([HostSession(batch=2)], [Made()], [[]], plan=StreamPlan(batch=4))


# ---- what can be lost ---------------------------------------------------------------------------------------------


class Camera:
    """One connection: so many frames, and then what happens."""

    fps = 10.0

    def __init__(self, count, error=None, finished=False):
        self.count, self.error, self.over, self.closed = count, error, finished, False

    def read(self):
        for index in range(self.count):
            yield TimedFrame(picture(index), index / 10)
        if self.error:
            raise self.error

    def finished(self):
        return self.over

    def close(self):
        self.closed = True


def camera(*connections, patience_s=30.0):
    """A live source whose connections are these, one after the other; an error is one that fails."""
    left, said = list(connections), []

    def connect(stopped):
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return Live("cam", connect, patience_s, said.append), said


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    from segdeploy.serve.stream import live

    monkeypatch.setattr(live, "FIRST_WAIT_S", 0.01)


def test_a_lost_camera_is_connected_again():
    connections = [
        Camera(3),
        VideoError("cam cannot be opened: refused"),
        Camera(2, VideoError("cam broke")),
        Camera(4),
    ]
    source, said = camera(*connections, *[VideoError("gone")] * 99, patience_s=0.2)
    sink = Kept()
    tallies = run([source], [sink])
    assert [shown.index for shown in sink.shown] == sorted(shown.index for shown in sink.shown)
    assert sink.shown[-1].index == 8
    assert tallies[0].frames + tallies[0].dropped == 9
    times = [shown.time_s for shown in sink.shown]
    assert times == sorted(times)
    assert said[0] == "cam ended; connecting again for up to 0.2 s"
    assert said[1].startswith("cam is back after 0.")
    assert said[2] == "cam broke; connecting again for up to 0.2 s"


def test_a_camera_that_stays_away_is_given_up():
    source, said = camera(Camera(2), *[VideoError("cam cannot be opened: refused")] * 99, patience_s=0.1)
    sink = Kept()
    (tally,) = run([source], [sink])
    assert str(tally.error) == "cam was lost and did not come back in 0.1 s: cam cannot be opened: refused"
    assert len(said) == 1


@pytest.mark.slow
def test_two_hundred_connections_leave_nothing_behind(tmp_path, monkeypatch):
    """Neither memory nor descriptors nor threads, with a decoder's own threads in each connection."""
    from segdeploy.serve.stream import live

    monkeypatch.setattr(live, "FIRST_WAIT_S", 0.0)
    path = clips.write_clip(tmp_path / "a.ts", clips.every_40_ms(3), size=(240, 320))
    seen, memory = [], []

    def connect(stopped):
        seen.append((len(list(Path("/proc/self/fd").iterdir())), threading.active_count()))
        if len(seen) in (40, 240):
            memory.append(bytes_in_use())
        if len(seen) == 240:
            stopped.set()
        return Video(str(path), timeout_s=5)

    source = Live("cam", connect, 30.0, lambda text: None)
    assert sum(1 for _ in source.read()) == 720
    assert len(set(seen)) == 1
    assert (memory[1] - memory[0]) / 200 < 300  # bytes a connection; a picture of this size has 230,400


def test_waits_grow():
    waits = []
    source, _ = camera(Camera(1), *[VideoError("x")] * 99, patience_s=1e6)

    class Stopped(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            if len(waits) == 12:
                self.set()
            return self.is_set()

    source._stopped = Stopped()
    assert len(list(source.read())) == 1
    assert waits[:4] == pytest.approx([0.01, 0.02, 0.04, 0.08])
    assert max(waits) == 10.24 or max(waits) == 15.0


def test_the_first_connection_must_succeed():
    with pytest.raises(VideoError, match="refused"):
        camera(VideoError("refused"))


def test_a_stream_that_says_it_is_over_is_over():
    source, said = camera(Camera(3, finished=True))
    assert len(list(source.read())) == 3
    assert said == []
