"""How many threads: those asked for, else a default, else the processors this process may use."""

import os

import pytest

from mrcz.threads import check_threads, count_threads, default_threads


def test_those_asked_for_come_first():
    assert count_threads(3) == 3
    assert count_threads(3, 5) == 3
    assert count_threads(None, 5) == 5
    assert count_threads(None) == default_threads()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system gives no processors to a process")
def test_the_default_is_what_this_process_may_use():
    before = os.sched_getaffinity(0)
    assert default_threads() == len(before)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert default_threads() == count_threads(None) == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("none", [0, -1])
def test_fewer_than_one_is_refused(none):
    with pytest.raises(ValueError, match=f"n_threads must be at least 1, got {none}"):
        count_threads(none, 4)
    with pytest.raises(ValueError, match=f"n_threads must be at least 1, got {none}"):
        check_threads(none)
    check_threads(None)
