"""The errors mrcz raises: one public tree, each naming what was wrong and where."""

from __future__ import annotations

import errno
import os
from typing import Any

__all__ = [
    "ChunkError",
    "FormatError",
    "FormatWarning",
    "HeaderError",
    "MissingDependencyError",
    "MrczError",
    "OtherSourceError",
    "RemoteError",
    "StructureWarning",
    "printable",
    "system_error",
]

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: object) -> str:
    r"""The text with every character a terminal would act on, or not show, escaped: ``'a\nb'`` → ``'a\\nb'``.

    These are the control characters (ESC, newlines, C1, DEL), those that change the direction of writing or are
    invisible, and bytes of file names that are no UTF-8, which are shown as ``\xNN``. What comes from a file, its
    name or a server goes through this before a person sees it.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as Python carries it through (PEP 383)
        code -= 0xDC00
    if code <= 0xFF:
        return _SHORT.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def system_error(error: OSError, path: str | None = None, destination: str | None = None) -> str:
    """What the system said, without Python's numbers: ``'Permission denied'``, ``'/scratch is full (No space left on
    device)'``.

    Parameters
    ----------
    error : OSError
    path : str, optional
        The file this is about, which whoever shows the text names in front of it.
    destination : str, optional
        What was being written: what is full if the error itself does not say, as errors of writing do not.
    """
    if not error.strerror:
        return str(error) or type(error).__name__
    named = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes, os.PathLike)) else None
    if error.errno in _FULL and (place := named or destination):
        folder = place if os.path.isdir(place) else os.path.dirname(place) or "."
        return f"{folder} is full ({error.strerror})"
    if error.errno == errno.EFBIG:
        named = named or destination
    return f"{error.strerror}: {named}" if named and named != path else error.strerror


class MrczError(Exception):
    """Base of every error of this package.

    Parameters
    ----------
    message : str
        What is wrong.
    path : str, optional
        The file it was found in; shown in front of the message.
    """

    def __init__(self, message: str = "", *, path: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.path: str | None = None if path is None else str(path)

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.message}" if self.path else self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword attributes are state, so that errors cross process boundaries whole.
        return (_rebuild, (type(self), self.args, self.__dict__.copy()))


def _rebuild(cls: type[MrczError], args: tuple[Any, ...], state: dict[str, Any]) -> MrczError:
    error = cls.__new__(cls, *args)
    Exception.__init__(error, *args)
    error.__dict__.update(state)
    return error


class FormatError(MrczError, ValueError):
    """The bytes of a file contradict the format or each other."""


class HeaderError(FormatError):
    """A field of the header is wrong; ``field``, ``found`` and ``expected`` say which and how.

    ``recoverable``: with ``permissive=True`` the file opens, and there are frames in it.
    """

    field: str | None
    found: Any
    expected: Any

    def __init__(
        self,
        message: str = "",
        *,
        field: str | None = None,
        found: Any = None,
        expected: Any = None,
        path: Any = None,
        recoverable: bool = False,
    ) -> None:
        if not message:
            message = f"header field {field} is {found}, expected {expected}"
        super().__init__(message, path=path)
        self.field, self.found, self.expected = field, found, expected
        self.recoverable = recoverable


class ChunkError(FormatError):
    """The stored bytes of one frame are damaged.

    ``frame`` is its number (None if unknown), ``offset`` the byte of the file where its chunk starts; ``recoverable``:
    other frames may be whole (`mrcz.check.recover`).
    """

    frame: int | None
    offset: int | None

    def __init__(
        self,
        message: str = "",
        *,
        frame: int | None = None,
        offset: int | None = None,
        path: Any = None,
        recoverable: bool = True,
    ) -> None:
        super().__init__(message, path=path)
        self.frame, self.offset = frame, offset
        self.recoverable = recoverable

    def __str__(self) -> str:
        where = []
        if self.frame is not None:
            where.append(f"frame {self.frame}")
        if self.offset is not None:
            where.append(f"offset {self.offset}")
        text = f"{', '.join(where)}: {self.message}" if where else self.message
        return printable(f"{self.path}: {text}" if self.path else text)


class OtherSourceError(MrczError):
    """What would be replaced was made from something else, and may be the only copy of it."""


class RemoteError(MrczError, OSError):
    """A server did not answer in time, or with something else than what was asked for."""


class MissingDependencyError(MrczError, ImportError):
    """An optional package is needed and not installed; the message names the extra to install."""


class FormatWarning(UserWarning):
    """A file breaks the format in a way that could be read around (``permissive=True``)."""

    def __str__(self) -> str:
        return printable(super().__str__())


class StructureWarning(UserWarning):
    """What would be corrected looks like something in the microscope rather than like the detector."""

    def __str__(self) -> str:
        return printable(super().__str__())
