"""Sizes and names as a report says them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mrcz.errors import printable

__all__ = ["counted", "plain", "size", "times"]


def size(n_bytes: float) -> str:
    """Bytes in decimal units, three digits: ``'854 MB'``, ``'1.02 GB'``."""
    if n_bytes < 1000:
        return f"{n_bytes:.0f} B"
    for unit in ("kB", "MB", "GB", "TB", "PB", "EB"):
        n_bytes /= 1000
        if n_bytes < 999.5 or unit == "EB":  # 999.5 would round to a fourth digit
            break
    digits = 2 if n_bytes < 9.995 else 1 if n_bytes < 99.95 else 0
    return f"{n_bytes:.{digits}f} {unit}"


def counted(number: int, noun: str) -> str:
    """ "1 file", "1,200 files"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def times(ratio: float) -> str:
    """How many times smaller: ``'4.25'``; ``'-'`` where that is unknown."""
    return f"{ratio:.2f}" if 0 < ratio < 9.995 else f"{ratio:.1f}" if 0 < ratio else "-"


def plain(value: Any) -> Any:
    """Values that every reader of JSON takes: bytes of names that are no UTF-8 become ``\\xNN``, mappings dicts,
    sequences lists, and what JSON does not know the text that it prints as."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return printable(value)
        return value
    if isinstance(value, Mapping):
        return {str(plain(str(key))): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return plain(str(value))
