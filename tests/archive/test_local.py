"""Threads as who stores files."""

import threading
import time

import pytest

from mrcz.archive.local import Late, Threads
from mrcz.archive.record import Record
from mrcz.archive.task import Task


def task(name, size=1):
    return Task("/top", name, "/root", "s", f"s/data/{name}", "", size, 0)


def collect(executor, count):
    found = []
    while len(found) < count:
        found += executor.wait(5)
    return sorted(record.source for record in found)


def test_all_are_done_side_by_side():
    both = threading.Barrier(2, timeout=5)

    def work(task, tell, flow):
        both.wait()
        return Record("stored", task.source)

    executor = Threads(2, work=work)
    try:
        for k in range(6):
            executor.submit(task(f"f{k}"))
        assert collect(executor, 6) == [f"f{k}" for k in range(6)]
        assert executor.wait(0.01) == [] and executor.doing() == []
    finally:
        executor.close()


def test_what_is_being_done():
    go = threading.Event()

    def work(task, tell, flow):
        tell(3, 10)
        go.wait(5)
        return Record("stored", task.source)

    executor = Threads(1, work=work)
    try:
        executor.submit(task("a"))
        while executor.doing() != [("1", "a", 3, 10)]:
            time.sleep(0.01)
        go.set()
        assert collect(executor, 1) == ["a"]
    finally:
        executor.close()


def test_closing_ends_what_is_being_done():
    begun = threading.Event()
    ended = []

    def work(task, tell, flow):
        begun.set()
        try:
            while True:
                tell(0, 1)
                time.sleep(0.005)
        finally:
            ended.append(task.source)

    executor = Threads(1, work=work)
    for k in range(3):
        executor.submit(task(f"f{k}"))
    assert begun.wait(5)
    executor.close()
    assert ended == ["f0"] and executor.wait(0) == []


def test_a_fault_of_ours_is_raised():
    def work(task, tell, flow):
        raise ZeroDivisionError

    executor = Threads(1, work=work)
    try:
        executor.submit(task("a"))
        with pytest.raises(ZeroDivisionError):
            executor.wait(5)
    finally:
        executor.close()


def test_what_comes_late_is_made_with_the_first_task():
    made = []

    def make():
        made.append(Threads(1, work=lambda task, tell, flow: Record("stored", task.source)))
        return made[-1]

    late = Late(make, 7)
    assert late.slots == 7 and late.doing() == [] and late.wait(0.01) == []
    late.close()
    assert not made
    late.submit(task("a"))
    late.submit(task("b"))
    assert collect(late, 2) == ["a", "b"] and len(made) == 1 and late.slots == made[0].slots
    late.close()
    with pytest.raises(RuntimeError):  # it is closed
        late.submit(task("c"))
