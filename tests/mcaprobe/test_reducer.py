"""Is all that a reducer was given done when it is left, whatever interrupted it?"""

import threading
import time

import pytest

from mcaprobe.reducer import Reducer


def test_a_thread_that_an_interrupt_hid_from_its_executor_is_waited_for(monkeypatch) -> None:
    start, done = threading.Thread.start, []

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    def slow() -> None:
        time.sleep(0.2)
        done.append("written")

    with pytest.raises(KeyboardInterrupt), Reducer(1) as reducer:
        monkeypatch.setattr(threading.Thread, "start", interrupted)
        reducer.call(slow)
    assert done == ["written"]


def test_blocks_come_in_order_and_what_one_raises_is_raised() -> None:
    def wait(block: range) -> int:
        time.sleep(0.01 * (block.start == 0))
        if block.start == 9:
            raise ValueError("block 9")
        return block.start

    with Reducer(3) as reducer:
        assert list(reducer.each(wait, [range(k, k + 1) for k in range(7)])) == list(range(7))
        with pytest.raises(ValueError, match="block 9"):
            list(reducer.each(wait, [range(k, k + 1) for k in (7, 8, 9, 10)]))
