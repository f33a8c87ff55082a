"""The errors mrcz raises: one public tree, each naming what was wrong and where."""

from __future__ import annotations

from typing import Any

__all__ = [
    "ChunkError", "FormatError", "FormatWarning", "HeaderError", "MissingDependencyError", "MrczError", "RemoteError",
]  # fmt: skip


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
        self.path = None if path is None else str(path)

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message

    def __reduce__(self) -> tuple:
        # Keyword attributes are state, so that errors cross process boundaries whole.
        return (_rebuild, (type(self), self.args, self.__dict__.copy()))


def _rebuild(cls: type[MrczError], args: tuple, state: dict) -> MrczError:
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
    other frames may be whole (`mrcz.recover`).
    """

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
        return f"{self.path}: {text}" if self.path else text


class RemoteError(MrczError, OSError):
    """A server did not answer in time, or with something else than what was asked for."""


class MissingDependencyError(MrczError, ImportError):
    """An optional package is needed and not installed; the message names the extra to install."""


class FormatWarning(UserWarning):
    """A file breaks the format in a way that could be read around (``permissive=True``)."""
