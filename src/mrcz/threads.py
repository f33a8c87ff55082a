"""How many threads: an argument everywhere, never a global, and by default the processors this process may use."""

from __future__ import annotations

import os

__all__ = ["check_threads", "count_threads", "default_threads"]


def default_threads() -> int:
    """Processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity call
        return os.cpu_count() or 1


def check_threads(n_threads: int | None) -> None:
    """Refuse a number of threads that is none.

    Raises
    ------
    ValueError
        It is below 1.
    """
    if n_threads is not None and n_threads < 1:
        raise ValueError(f"n_threads must be at least 1, got {n_threads}")


def count_threads(n_threads: int | None, default: int | None = None) -> int:
    """The threads to use: those asked for, else *default*, else the processors this process may use.

    Raises
    ------
    ValueError
        Fewer than one are asked for.
    """
    check_threads(n_threads)
    return n_threads or default or default_threads()
