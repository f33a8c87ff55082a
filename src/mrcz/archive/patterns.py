"""Which files of an archive are meant: patterns of paths, as a shell has them."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["Patterns"]


class Patterns:
    """Patterns of source paths: ``*`` and ``?`` within a name, ``[a-z]``, ``**`` across folders.

    A pattern without ``/`` is of names, in any folder; one that matches a folder means all that is below it, and one
    that is the path of a file means that. Case counts.

    Parameters
    ----------
    patterns : str, sequence of str, or None
        None, or none: all files.

    Attributes
    ----------
    unmet : set of str
        The patterns that meant none of the paths so far.

    Examples
    --------
    >>> wanted = Patterns(["grid1/*.mrc", "**/gain", "*.mdoc"])
    >>> [wanted.match(path) for path in ("grid1/a.mrc", "grid1/x/a.mrc", "a/gain/1.mrc", "b/c/a.mdoc")]
    [True, False, True, True]
    """

    def __init__(self, patterns: str | Sequence[str] | None) -> None:
        given = [patterns] if isinstance(patterns, str) else list(patterns or ())
        self.patterns = tuple(given)
        self._matching = [(pattern, _compiled(pattern)) for pattern in given]
        self.unmet = set(given)

    def match(self, path: str) -> bool:
        """Whether one of them means this path."""
        found = not self._matching
        for pattern, one in self._matching:
            if (not found or pattern in self.unmet) and (pattern == path or one.match(path) is not None):
                self.unmet.discard(pattern)
                found = True
        return found


def _compiled(pattern: str) -> re.Pattern[str]:
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if len(parts) == 1 and "/" not in pattern:
        parts = ["**", *parts]
    parts = [part for k, part in enumerate(parts) if part != "**" or parts[k - 1 : k] != ["**"]]
    text = ""
    for k, part in enumerate(parts):
        last = k == len(parts) - 1
        if part == "**":
            text += ".+" if last else "(?:[^/]+/)*"
        else:
            text += _name(part) + ("" if last else "/")
    return re.compile(f"(?s:{text})(?:/|\\Z)")


def _name(part: str) -> str:
    """A part of a pattern as a regular expression; runs of ``*`` are one, so that none can take for ever."""
    made, k = "", 0
    while k < len(part):
        character = part[k]
        k += 1
        if character == "*":
            if not made.endswith("[^/]*"):
                made += "[^/]*"
        elif character == "?":
            made += "[^/]"
        elif character == "[" and (end := part.find("]", k + 1)) > 0:
            inside = part[k:end].replace("\\", "\\\\").replace("[", "\\[")
            if inside[0] in "!^":
                inside = "^/" + inside[1:] if inside[0] == "!" else "\\" + inside
            try:
                re.compile(f"[{inside}]")
                made, k = f"{made}[{inside}]", end + 1
            except re.error:
                made += "\\["
        else:
            made += re.escape(character)
    return made
