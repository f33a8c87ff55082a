"""Rates: measured with a clock, since that is what they promise."""

import os
import subprocess
import sys
import threading
import time

import pytest

from mrcz.archive.local import Threads
from mrcz.archive.pace import Pace, Rate, be_nice, shared_pace
from mrcz.archive.task import Task


def seconds(work):
    start = time.monotonic()
    work()
    return time.monotonic() - start


def test_without_a_rate_nothing_waits():
    assert seconds(lambda: [Rate().take(1 << 40) for _ in range(1000)]) < 0.5


def test_bytes_go_at_the_rate_after_the_first_burst():
    rate = Rate(1e6)
    taken = seconds(lambda: [rate.take(10_000) for _ in range(100)])  # 1 MB, a quarter of it at once
    assert 0.70 <= taken < 1.2


def test_a_pause_saves_no_more_than_a_burst():
    rate = Rate(1e6)
    rate.take(250_000)
    time.sleep(0.8)
    assert seconds(lambda: rate.take(600_000)) >= 0.3


def test_all_threads_share_one_rate():
    rate = Rate(2e6)
    done = []

    def work():
        for _ in range(25):
            rate.take(20_000)
        done.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]  # 2 MB in all

    def run():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert 0.70 <= seconds(run) < 1.3
    assert len(done) == 4


def test_no_thread_starves_beside_a_greedy_one():
    rate = Rate(1e6)
    stop = threading.Event()

    def greedy():
        while not stop.is_set():
            rate.take(50_000)

    others = [threading.Thread(target=greedy) for _ in range(3)]
    for thread in others:
        thread.start()
    try:
        assert seconds(lambda: [rate.take(10_000) for _ in range(5)]) < 2.5
    finally:
        stop.set()
        for thread in others:
            thread.join()


def test_a_long_wait_is_interrupted():
    stopping = threading.Event()

    def interrupted():
        if stopping.is_set():
            raise InterruptedError

    threading.Timer(0.3, stopping.set).start()
    start = time.monotonic()
    with pytest.raises(InterruptedError):
        Pace(write_rate=10.0, interrupted=interrupted).write(100_000)
    assert 0.2 < time.monotonic() - start < 1.5


def test_workers_that_wait_for_a_slow_rate_end_when_they_are_told(tmp_path):
    (tmp_path / "src" / "s").mkdir(parents=True)
    (tmp_path / "src" / "s" / "a.bin").write_bytes(b"x" * 1_000_000)
    status = os.stat(tmp_path / "src" / "s" / "a.bin")
    pace = Pace(read_rate=100.0)  # hours
    threads = Threads(1, flow=pace)
    path = "s/data/a.bin"
    top, root = str(tmp_path / "src"), str(tmp_path / "dst")
    threads.submit(Task(top, "s/a.bin", root, "s", path, path, status.st_size, status.st_mtime_ns))
    assert threads.wait(0.5) == []
    assert seconds(threads.close) < 5
    assert not [name for _, _, names in os.walk(tmp_path / "dst") for name in names]
    # Others at that pace go on.
    with pytest.raises(InterruptedError):
        pace.interrupted_by(stopping_after(0.2)).read(1)


def stopping_after(wait):
    until = time.monotonic() + wait

    def check():
        if time.monotonic() > until:
            raise InterruptedError

    return check


def test_ctrl_c_comes_through():
    code = "from mrcz.archive.pace import Rate; print('go', flush=True); Rate(1.0).take(1000)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"go\n"
        time.sleep(0.1)
        import signal

        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert b"KeyboardInterrupt" in errors


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf")])
def test_wrong_rates_are_refused(wrong):
    with pytest.raises(ValueError, match="bytes a second"):
        Rate(wrong)


def test_reading_and_writing_do_not_wait_for_each_other():
    pace = Pace(read_rate=1.0, write_rate=0.0)
    assert seconds(lambda: pace.write(1 << 30)) < 0.2


def test_tasks_of_a_process_share_their_pace():
    assert shared_pace(5e6, 0.0) is shared_pace(5e6, 0.0)
    assert shared_pace(5e6, 0.0) is not shared_pace(5e6, 1.0)


@pytest.mark.skipif(not hasattr(os, "setpriority"), reason="the system has no niceness")
def test_nice_is_added_once_and_to_all_threads_that_follow():
    code = """
import os, threading
from mrcz.archive.pace import be_nice
before = os.getpriority(os.PRIO_PROCESS, 0)
be_nice(0)
assert os.getpriority(os.PRIO_PROCESS, 0) == before
for _ in range(3):
    be_nice(5)
seen = []
thread = threading.Thread(target=lambda: seen.append(os.getpriority(os.PRIO_PROCESS, 0)))
thread.start(); thread.join()
print(os.getpriority(os.PRIO_PROCESS, 0) - before, seen[0] - before)
"""
    if os.getpriority(os.PRIO_PROCESS, 0) > 10:
        pytest.skip("is as nice as can be")
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.split() == ["5", "5"]


@pytest.mark.parametrize("wrong", [-1, 20])
def test_other_niceness_is_refused(wrong):
    with pytest.raises(ValueError, match="0 to 19"):
        be_nice(wrong)
