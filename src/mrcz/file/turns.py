"""A lock that is given in the order in which it was asked for.

`threading.Lock` lets any of those who wait be the next. Frames that several threads append have an order, that of the
calls, so here each waits for the one before.
"""

from __future__ import annotations

import threading
from collections import deque

__all__ = ["Turns"]


class Turns:
    """``with turns:`` one thread at a time, first come, first served.

    Parameters
    ----------
    name : str
        Of what is done in turns, for the error.

    Raises
    ------
    RuntimeError
        On entering: the thread has its turn already, and would wait for itself for ever.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._guard = threading.Lock()
        self._owner: int | None = None
        self._waiting: deque[tuple[int, threading.Lock]] = deque()

    def is_mine(self) -> bool:
        """Whether the calling thread has its turn."""
        return self._owner == threading.get_ident()

    def waiting(self) -> int:
        """How many threads wait."""
        return len(self._waiting)

    def __enter__(self) -> Turns:
        if self.is_mine():
            raise RuntimeError(f"{self._name}: called from within a call of its own, which is not done yet")
        gate = threading.Lock()
        gate.acquire()
        mine = (threading.get_ident(), gate)
        with self._guard:
            if self._owner is None:
                self._owner = mine[0]
                return self
            self._waiting.append(mine)
        try:
            gate.acquire()  # released by the one before, who made this thread the owner
        except BaseException:  # Ctrl-C while it waits: it gives its place up
            with self._guard:
                if mine in self._waiting:
                    self._waiting.remove(mine)
                else:
                    self._pass_on()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        with self._guard:
            self._pass_on()

    def _pass_on(self) -> None:
        self._owner = None
        if self._waiting:
            self._owner, gate = self._waiting.popleft()
            gate.release()
