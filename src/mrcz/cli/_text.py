"""Numbers and tables as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["duration", "plural", "ratio", "size", "table"]


def size(n_bytes: float) -> str:
    """Bytes in decimal units, three digits: ``'854 MB'``, ``'1.02 GB'``, ``'1024 B'``."""
    if n_bytes < 10_000:
        return f"{n_bytes:.0f} B"
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        n_bytes /= 1000
        # 999.5 would round to a fourth digit; the next unit says it in three.
        if n_bytes < 999.5 or unit == "PB":
            break
    digits = 2 if n_bytes < 9.995 else 1 if n_bytes < 99.95 else 0
    return f"{n_bytes:.{digits}f} {unit}"


def ratio(plain: float, stored: float) -> str:
    """How many times smaller: ``'4.25x'``; ``'-'`` where one is unknown."""
    return f"{plain / stored:.2f}x" if plain and stored else "-"


def duration(seconds: float) -> str:
    """``'0.42 s'``, ``'12 s'``, ``'3:07 min'``, ``'2:05 h'``."""
    if seconds < 9.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """``'1 file'``, ``'3 files'``."""
    return f"{count} {noun if count == 1 else nouns or noun + 's'}"


def table(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Rows of cells in columns: the first `left` columns to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
