"""gzip, bzip2, xz and zstd around a file: what is inside, as a plain file.

An MRC file is read at many places (header, one frame, a window), which none of these formats allows without starting
over. So the inside is unpacked once, in small pieces, into an unnamed temporary file: memory stays bounded, every
later read is an ordinary one, and nothing is left behind when the file is closed or the process dies. ``TMPDIR`` says
where, as for any temporary file.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

from mrcz.errors import FormatError, MissingDependencyError
from mrcz.filetypes import wrapper_of

__all__ = ["is_wrapped", "open_plain", "open_regular"]

_PIECE = 1 << 20  # bytes unpacked at a time
_ZSTD_PIECE = 1024  # a zstd block of 4 bytes can stand for 128 KiB: 1 KiB of input is at most 32 MiB of output


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading by position; what cannot be read so (a pipe, a device) is refused at once.

    Raises
    ------
    OSError
        It is no regular file, or the system refused.
    """
    return open(path, "rb", opener=_opener)


def _opener(path: str, flags: int) -> int:
    # A FIFO would be waited for, and opening a device may do anything: so the kind is looked at first, and again after.
    _require_regular(os.stat(path).st_mode, path)
    fd = os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))
    try:
        _require_regular(os.fstat(fd).st_mode, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _require_regular(mode: int, path: str) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    kinds = {
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    raise OSError(errno.EINVAL, f"this is {kinds.get(stat.S_IFMT(mode), 'something else')}, not a regular file", path)


def is_wrapped(path: str | os.PathLike[str]) -> bool:
    """Whether the file at `path` begins as a gzip, bzip2, xz or zstd file does."""
    with open_regular(path) as file:
        return wrapper_of(file.read(6)) is not None


def open_plain(path: str | os.PathLike[str], *, check: Callable[[bytes], int | None] | None = None) -> BinaryIO:
    """Open a file for reading, unpacked if it is a gzip, bzip2, xz or zstd file.

    Parameters
    ----------
    path : path
        The file. Its first bytes decide, not its name.
    check : callable, optional
        Called with the first (at most 1024) plain bytes before the rest is unpacked; whatever it raises ends the work.
        It saves unpacking hundreds of gigabytes only to learn that they hold something else. A number it returns is
        the bytes that the file claims: where so many find no room nothing is unpacked, and many more are an error.

    Returns
    -------
    binary file
        Seekable and with a file descriptor, at position 0. For a plain file the file itself, otherwise an unnamed
        temporary file that disappears when closed.

    Raises
    ------
    FormatError
        The wrapper is damaged, the file ends before it does, or far more comes out of it than `check` says.
    MissingDependencyError
        The file is a zstd file and ``zstandard`` is not installed.
    OSError
        The file cannot be read or is no regular one, or the temporary directory has too little room.
    """
    source = open_regular(path)
    plain: BinaryIO | None = None
    try:
        wrapper = wrapper_of(source.read(6))
        source.seek(0)
        if wrapper is None:
            if check is not None:
                check(source.read(1024))
                source.seek(0)
            return source
        plain = tempfile.TemporaryFile(prefix="mrcz-")
        _unpack(_unpacked(source, wrapper, path), plain, check, path, os.fstat(source.fileno()).st_size, wrapper)
        plain.seek(0)
        source.close()
        return plain
    except BaseException:
        source.close()
        if plain is not None:
            plain.close()
        raise


# The most that a byte can stand for: deflate's matches of 258 bytes. The others have no such limit worth the name.
_MOST = {"gzip": 1032}
# What may come beyond what a header claims: bytes after the last frame, a footer with its metadata.
_SLACK = 256 << 20


def _unpack(
    pieces: Iterator[bytes],
    plain: BinaryIO,
    check: Callable[[bytes], int | None] | None,
    path: str | os.PathLike[str],
    packed: int,
    wrapper: str,
) -> None:
    """Write all pieces into the temporary file; `check` sees the first 1024 bytes before anything else happens."""
    head: bytes | None = b"" if check is not None else None
    limit, done = None, 0

    def judge(begin: bytes) -> int | None:
        claimed = check(begin[:1024]) if check is not None else None
        if claimed is None:
            return None
        expected = min(claimed, packed * _MOST.get(wrapper, claimed))
        # Not begun where it would only fill the disk.
        if expected > (room := shutil.disk_usage(tempfile.gettempdir()).free):
            raise _no_room(f"{os.fspath(path)} claims {claimed} bytes, {room} are free")
        return claimed + claimed // 8 + _SLACK

    for piece in pieces:
        if head is not None:
            head += piece
            if len(head) < 1024:
                continue
            piece, begin, head = head, head, None
            limit = judge(begin)
        done += len(piece)
        if limit is not None and done > limit:
            what = f"the {wrapper} data goes on after {limit} bytes, far more than its MRC header speaks of"
            raise FormatError(what, path=path)
        _write(plain, piece)
    if head is not None:  # fewer than 1024 bytes in all
        judge(head)
        _write(plain, head)
    try:
        plain.flush()
    except OSError as error:
        raise _no_room(error.strerror, error) from error


def _write(plain: BinaryIO, piece: bytes) -> None:
    try:
        plain.write(piece)
    except OSError as error:
        raise _no_room(error.strerror, error) from error


def _no_room(text: str | None, error: OSError | None = None) -> OSError:
    """An error of the temporary directory, which names it: the file that is read has nothing to do with it."""
    folder = tempfile.gettempdir()
    number = errno.ENOSPC if error is None or error.errno is None else error.errno
    return OSError(number, f"cannot unpack into the temporary directory (set TMPDIR to another one): {text}", folder)


def _unpacked(source: BinaryIO, wrapper: str, path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The plain bytes of `source`, in pieces; FormatError where the wrapper is damaged or cut short."""
    import zlib

    try:
        if wrapper == "zstd":
            yield from _unpacked_zstd(source, path)
            return
        # Imported here: `import mrcz` should not load three codecs for files that rarely need one.
        if wrapper == "gzip":
            import gzip

            file: BinaryIO = gzip.open(source)  # type: ignore[assignment]
        elif wrapper == "bzip2":
            import bz2

            file = bz2.open(source)  # type: ignore[assignment]
        else:
            import lzma

            file = lzma.open(source)  # type: ignore[assignment]
        with file:
            while piece := file.read(_PIECE):
                yield piece
    except EOFError:
        raise FormatError(f"the {wrapper} data ends too early: the file was cut short", path=path) from None
    except zlib.error as error:
        raise FormatError(f"the {wrapper} data is damaged: {error}", path=path) from error
    except OSError as error:
        # gzip and bz2 report damage as an OSError without a number; a real one (disk, permission) passes unchanged.
        if error.errno is not None:
            raise
        raise FormatError(f"the {wrapper} data is damaged: {error}", path=path) from error
    except Exception as error:
        # lzma.LZMAError and zstandard.ZstdError derive from Exception; naming them would import their modules.
        if type(error).__name__ not in ("LZMAError", "ZstdError"):
            raise
        raise FormatError(f"the {wrapper} data is damaged: {error}", path=path) from error


def _unpacked_zstd(source: BinaryIO, path: str | os.PathLike[str]) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise MissingDependencyError("a .zst file needs zstandard: pip install zstandard", path=path) from None
    # zstandard's own file reader cannot tell a file that was cut short from a whole one; a decompression object can.
    decoder = zstandard.ZstdDecompressor().decompressobj()
    pending, begun = b"", False
    while True:
        data = pending or source.read(_ZSTD_PIECE)
        pending = b""
        if not data:
            break
        if decoder.eof:
            decoder = zstandard.ZstdDecompressor().decompressobj()
        begun = True
        piece = decoder.decompress(data)
        if decoder.eof:
            pending = decoder.unused_data
        if piece:
            yield piece
    if begun and not decoder.eof:
        raise EOFError
