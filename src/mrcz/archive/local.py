"""The work of an archive on the threads of this process."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from mrcz.archive.pace import Pace
from mrcz.archive.record import Record
from mrcz.archive.store import Flow, store
from mrcz.archive.task import Task

__all__ = ["Executor", "Late", "Stopped", "Threads"]


class Executor(Protocol):
    """Who stores files: takes tasks, gives records, in any order."""

    @property
    def slots(self) -> int:
        """Tasks it wants to have at a time."""
        ...

    def submit(self, task: Task) -> None:
        """Take a task."""
        ...

    def wait(self, timeout: float) -> list[Record]:
        """Records that are done; none after `timeout` seconds."""
        ...

    def doing(self) -> list[tuple[str, str, int, int]]:
        """(worker, source, bytes done, bytes in all) of what is being done."""
        ...

    def close(self) -> None:
        """End; what is being done is given up, and leaves nothing."""
        ...


class Late:
    """An `Executor` that is made when the first task comes: a cluster takes seconds to start, and often there is
    nothing to do.

    Parameters
    ----------
    make : callable
    slots : int
        Tasks it wants until it is made.
    """

    def __init__(self, make: Callable[[], Executor], slots: int) -> None:
        self._make, self._slots = make, slots
        self._made: Executor | None = None

    @property
    def slots(self) -> int:
        return self._slots if self._made is None else self._made.slots

    def submit(self, task: Task) -> None:
        if self._made is None:
            self._made = self._make()
        self._made.submit(task)

    def wait(self, timeout: float) -> list[Record]:
        if self._made is not None:
            return self._made.wait(timeout)
        time.sleep(timeout)
        return []

    def doing(self) -> list[tuple[str, str, int, int]]:
        return [] if self._made is None else self._made.doing()

    def close(self) -> None:
        if self._made is not None:
            self._made.close()


class Stopped(BaseException):
    """The archive ends, and so does the file in hand."""


class Threads:
    """An `Executor` of threads: the core releases the GIL, and so do hashing, reading and writing.

    Parameters
    ----------
    workers : int
        Files at a time.
    flow : Flow, optional
        What slows all of them down together.
    work : callable, optional
        `store`, or what is done with its record besides.
    """

    def __init__(
        self,
        workers: int,
        flow: Flow | None = None,
        work: Callable[..., Record] = store,
    ) -> None:
        self.slots = 2 * workers  # one in hand and one waiting each
        self._flow = flow.interrupted_by(self._check) if isinstance(flow, Pace) else flow
        self._work = work
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="archive")
        self._done: queue.SimpleQueue[Record | BaseException] = queue.SimpleQueue()
        self._doing: dict[int, tuple[str, int, int]] = {}
        self._stop = threading.Event()

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def submit(self, task: Task) -> None:
        self._pool.submit(self._run, task)

    def _run(self, task: Task) -> None:
        if self._stop.is_set():
            return
        here = threading.get_ident()
        self._doing[here] = (task.source, 0, task.size)

        def tell(done: int, total: int) -> None:
            self._check()
            self._doing[here] = (task.source, done, total)

        try:
            self._done.put(self._work(task, tell, self._flow))
        except Stopped:
            pass
        except BaseException as error:  # a fault of ours: whoever waits is told
            self._done.put(error)
        finally:
            self._doing.pop(here, None)

    def wait(self, timeout: float) -> list[Record]:
        found: list[Record] = []
        until = time.monotonic() + timeout
        while True:
            try:
                # The first is waited for, all others that are there are taken along.
                one = self._done.get(timeout=0 if found else max(0.0, until - time.monotonic()))
            except queue.Empty:
                return found
            if isinstance(one, BaseException):
                raise one
            found.append(one)

    def doing(self) -> list[tuple[str, str, int, int]]:
        workers = sorted(self._doing.items())
        return [(str(k + 1), source, done, total) for k, (_, (source, done, total)) in enumerate(workers)]

    def close(self) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
