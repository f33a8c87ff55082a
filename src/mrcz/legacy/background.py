"""The background thread of the 0.x calls that return a future."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

__all__ = ["background_thread", "same_arguments"]

P = ParamSpec("P")
T = TypeVar("T")


def background_thread() -> ThreadPoolExecutor:
    """An executor of one thread, which starts with the first use, and anew in a forked child.

    Threads are not copied when a process forks: what the child submits would wait for them for ever.
    """
    executor = ThreadPoolExecutor(max_workers=1)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: executor.__init__(max_workers=executor._max_workers))  # type: ignore[misc]
    return executor


def same_arguments(function: Callable[P, Any]) -> Callable[[Callable[..., T]], Callable[P, T]]:
    """Tell type checkers that a call takes the arguments of `function`, which it passes on; nothing else is done."""
    return lambda call: call
