"""Names that every program which checks an archive reads alike.

Measured with bagit 1.9.0 and GNU sha256sum 9.1: spaces, ``%``, backslashes, leading ``*``, ``-`` and ``#``, tabs and
UTF-8 pass both as they are. A line of a sum file does not survive a line break of any kind (bagit takes those of
Unicode, too), white space at the end of a name, ``%0A`` and ``%0D`` (bagit makes a line break of them) and bytes that
are no UTF-8.
"""

from __future__ import annotations

import os
import re

__all__ = ["is_listable", "safe_path"]

_BREAKS = re.compile("%0[AD]", re.IGNORECASE)
_LONGEST = 255


def is_listable(path: str) -> bool:
    """Whether bagit and sha256sum both find a file by this path in a sum file."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return path.splitlines() == [path] and path == path.rstrip() and _BREAKS.search(path) is None


def safe_path(path: str) -> str:
    """A path for the archive whose every part is listable: what is not is written as ``=`` and two digits a byte, as in
    mail. The journal has the true name; two names can become one, so whoever gives names looks for clashes after this.
    """
    if is_listable(path) and not any(part != part.rstrip() for part in path.split("/")):
        return path
    return "/".join(map(_safe, path.split("/")))


def _safe(part: str) -> str:
    made = []
    for character in _BREAKS.sub(lambda found: "=25" + found[0][1:], part):
        odd = "\udc80" <= character <= "\udcff" or len(f"a{character}a".splitlines()) > 1
        made.append("".join(f"={byte:02X}" for byte in os.fsencode(character)) if odd else character)
    text = "".join(made)
    end = len(text.rstrip())
    text = text[:end] + "".join(f"={byte:02X}" for byte in text[end:].encode("utf-8"))
    if len(text.encode("utf-8")) > _LONGEST:  # a name of 255 bytes has no room for more
        from hashlib import sha256

        mark = f"={sha256(os.fsencode(part)).hexdigest()[:12]}"
        stem, suffix = os.path.splitext(text)
        suffix = suffix if len(suffix.encode("utf-8")) <= 16 else ""
        room = _LONGEST - len(mark) - len(suffix.encode("utf-8"))
        text = stem.encode("utf-8")[:room].decode("utf-8", "ignore") + mark + suffix
    return text
