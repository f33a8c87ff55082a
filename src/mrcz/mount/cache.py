"""Decoded frames kept for the next read, and others decoded ahead of it: a cache of bounded size."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from mrcz.threads import default_threads

__all__ = ["FrameCache"]

_SPARE = 4  # batches whose memory is kept for the next


class _Batch:
    """Frames decoded together: n bytes as they come, how many reads use them now, how many bytes nobody fetched yet."""

    def __init__(self, n: int) -> None:
        self.data: Future[np.ndarray] = Future()
        self.n = self.unread = n
        self.users = 0


class FrameCache:
    """Decoded batches of frames.

    Most programs read a frame once, so a batch is dropped when all of it has been fetched; of the others, the longest
    unused goes first. The memory is used for the next batches: a sequential read works in a few buffers, which stay in
    the processor's cache and cost no page faults.

    Parameters
    ----------
    limit : int
        Bytes to keep at most; what is being read right now comes on top.
    """

    def __init__(self, limit: int = 512 << 20) -> None:
        self.limit = limit
        self._kept: OrderedDict[Any, _Batch] = OrderedDict()
        self._bytes = 0
        self._spare: list[np.ndarray] = []
        self._lock = threading.Lock()
        self._jobs: deque[tuple[Any, _Batch, Callable[[np.ndarray], None]]] = deque()
        # One processor is left to those who fetch: they would have to wait for it.
        self._ahead = ThreadPoolExecutor(max(1, default_threads() - 1), thread_name_prefix="mrcz-ahead")

    @contextmanager
    def hold(self, key: Any, n: int, make: Callable[[np.ndarray], None], fetched: int) -> Iterator[np.ndarray]:
        """The batch of that key, neither dropped nor overwritten meanwhile: (n,) uint8 array, not to be written.

        Parameters
        ----------
        key : hashable
        n : int
            Bytes of the batch.
        make : callable
            ``make(out)`` decodes into a (n,) uint8 array: on this thread, if nobody has or is about to. Its error is
            raised here, and the batch is made anew the next time.
        fetched : int
            Bytes of it that count as fetched after.
        """
        with self._lock:
            batch = self._kept.get(key)
            mine = batch is None
            if batch is None:
                batch = self._kept[key] = _Batch(n)
            self._kept.move_to_end(key)
            batch.users += 1
        try:
            if mine:
                self._fill(key, batch, make)
            # Rather than wait for a processor that is at it, decode what comes next.
            while not batch.data.done() and self._work():
                pass
            yield batch.data.result()
        finally:
            with self._lock:
                batch.users -= 1
                batch.unread -= fetched
                if batch.unread <= 0:
                    self._drop(key, batch)

    def prepare(self, key: Any, n: int, make: Callable[[np.ndarray], None]) -> None:
        """Have the batch of that key made in the background, if nobody has or is about to."""
        with self._lock:
            if key in self._kept:
                return
            batch = self._kept[key] = _Batch(n)
        self._jobs.append((key, batch, make))
        self._ahead.submit(self._work)

    def _work(self) -> bool:
        """Make the next of the batches to prepare; False if there is none."""
        try:
            job = self._jobs.popleft()
        except IndexError:
            return False
        self._fill(*job)
        return True

    def _fill(self, key: Any, batch: _Batch, make: Callable[[np.ndarray], None]) -> None:
        try:
            out = self._buffer(batch.n)
            make(out)
        except BaseException as error:
            with self._lock:
                del self._kept[key]
            batch.data.set_exception(error)
            return
        batch.data.set_result(out)
        with self._lock:
            self._bytes += batch.n
            for old in list(self._kept):
                if self._bytes <= self.limit:
                    break
                if old != key:
                    self._drop(old, self._kept[old])

    def _buffer(self, n: int) -> np.ndarray:
        """Memory for a batch, that of the last one dropped if it fits."""
        with self._lock:
            for k in reversed(range(len(self._spare))):
                if len(self._spare[k]) == n:
                    return self._spare.pop(k)
        return np.empty(n, np.uint8)

    def _drop(self, key: Any, batch: _Batch) -> None:
        """Forget a batch, if it can be spared; the lock is held."""
        if self._kept.get(key) is not batch or batch.users or not batch.data.done():
            return
        del self._kept[key]
        self._bytes -= batch.n
        self._spare.append(batch.data.result())
        while sum(map(len, self._spare)) > min(self.limit // 4, _SPARE * batch.n):
            del self._spare[0]

    def close(self) -> None:
        """Stop the background threads."""
        self._ahead.shutdown()
