import threading
import time

import numpy as np
import pytest

from segdeploy.picture.video_reading import TimedFrame
from segdeploy.serve.stream.inbox import Inbox

FRAME = np.zeros((2, 2, 3), np.uint8)


def put(inbox, lane, *indices):
    return [inbox.put(lane, index, TimedFrame(FRAME, index / 10)) for index in indices]


def taken(inbox, count):
    return [(waiting.lane, waiting.index) for waiting in inbox.take(count)]


def later(work):
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_live_source_loses_its_oldest_frame_and_each_is_counted():
    inbox = Inbox([True], depth=2)
    assert put(inbox, 0, 0, 1, 2, 3, 4) == [True] * 5
    assert inbox.dropped == [3]
    assert taken(inbox, 4) == [(0, 3), (0, 4)]


def test_a_file_waits_for_room():
    inbox = Inbox([False], depth=2)
    put(inbox, 0, 0, 1)
    waiting = later(lambda: put(inbox, 0, 2))
    time.sleep(0.05)
    assert waiting.is_alive()
    assert taken(inbox, 1) == [(0, 0)]
    waiting.join(5)
    assert taken(inbox, 2) == [(0, 1), (0, 2)]
    assert inbox.dropped == [0]


def test_a_batch_is_filled_across_sources_in_turn():
    inbox = Inbox([False, False, False], depth=4)
    for lane in range(3):
        put(inbox, lane, 0, 1)
    assert taken(inbox, 4) == [(0, 0), (1, 0), (2, 0), (0, 1)]
    for lane in range(3):
        inbox.end(lane)
    assert taken(inbox, 4) == [(1, 1), (2, 1)]
    assert taken(inbox, 4) == []


def test_files_are_waited_for_until_the_batch_is_full():
    inbox = Inbox([False, False], depth=4)
    put(inbox, 0, 0)
    filling = later(lambda: (time.sleep(0.1), put(inbox, 1, 0)))
    assert taken(inbox, 2) == [(0, 0), (1, 0)]
    filling.join()


def test_beside_a_live_source_what_is_there_goes_at_once():
    inbox = Inbox([True, False], depth=4)
    put(inbox, 0, 0)
    assert taken(inbox, 4) == [(0, 0)]


def test_no_more_frames_than_were_asked_for():
    inbox = Inbox([False, True], depth=8, limit=2)
    put(inbox, 0, 0, 1, 2)
    put(inbox, 1, 0, 1, 2)
    assert taken(inbox, 8) == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert put(inbox, 0, 3) == put(inbox, 1, 3) == [False]
    assert taken(inbox, 8) == []
    assert inbox.dropped == [0, 0]


@pytest.mark.parametrize("live", [True, False])
def test_a_stop_wakes_whoever_waits(live):
    inbox = Inbox([live], depth=1)
    answers = []
    taking = later(lambda: answers.append(inbox.take(1)))
    time.sleep(0.05)
    inbox.stop()
    taking.join(5)
    assert answers == [[]]
    assert put(inbox, 0, 0) == [False]
    full = Inbox([False], depth=1)
    put(full, 0, 0)
    putting = later(lambda: answers.append(put(full, 0, 1)))
    time.sleep(0.05)
    full.stop()
    putting.join(5)
    assert answers[1] == [False]


def test_a_source_without_room_holds_no_other():
    """Of the first, whose frames go nowhere, two are under way; files and a batch of four or not."""
    for live in ([False, False], [True, True], [True, False]):
        inbox = Inbox(live, depth=4, room=2)
        put(inbox, 0, 0, 1, 2, 3)
        put(inbox, 1, 0, 1)
        assert taken(inbox, 4) == [(0, 0), (1, 0), (0, 1), (1, 1)]
        for index in (2, 3, 4):
            inbox.arrived(1)
            put(inbox, 1, index)
            assert taken(inbox, 4) == [(1, index)]
        inbox.end(1)
        waiting = later(lambda inbox=inbox: time.sleep(0.1) or inbox.arrived(0))
        assert taken(inbox, 4) == [(0, 2)]  # it waited for the room, and did not end
        waiting.join()


def test_a_source_that_is_given_up_leaves_nothing():
    inbox = Inbox([False, False], depth=4, room=1)
    put(inbox, 0, 0, 1)
    put(inbox, 1, 0)
    assert taken(inbox, 2) == [(0, 0), (1, 0)]
    inbox.give_up(0)
    inbox.end(1)
    assert taken(inbox, 2) == []
    assert put(inbox, 0, 2) == [False]
