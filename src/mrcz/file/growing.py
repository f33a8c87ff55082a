"""The order of writes that keeps a growing file readable whatever instant its writer dies.

A `GrowingFile` knows bytes, places and footers; what the bytes mean is the Writer's business. ``docs/container.md`` §6
gives the protocol with its reasons.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from mrcz.container.chunks import CHUNK_HEADER_SIZE
from mrcz.container.footer import FooterFields, encode_footer, move_footer
from mrcz.container.index import FrameIndex
from mrcz.errors import MrczError
from mrcz.storage.disk import Disk, check_regular, lock, release
from mrcz.storage.whole import Judge, NewFile

__all__ = ["FULL", "GrowingFile"]

_GAP = 4 << 20
"""Least room, in bytes, made for frames to come before a footer is moved: a hole, which takes no disk space."""

_LARGEST_GAP = 256 << 20
FULL = frozenset((errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)))
"""Errors of a disk, a quota or a file system that has no more room."""


class GrowingFile:
    """A file that frames are added to; `create` starts a new one, `reopen` continues a finished one.

    A new file grows under a temporary name beside *path* (``temporary``) and takes its place at the first `flush` or at
    `close`, so whatever stood there stays whole until then. From then on, and in a reopened file from the start, every
    instant leaves a file that opens with the frames of the last `flush` at least.

    To add frames: ``room(n)``, write the n bytes at ``end`` (with `pwrite`, or through ``fd``), then `added`.

    Attributes
    ----------
    path : Path
        The name asked for, symbolic links resolved.
    new : NewFile or None
        The file as one that has yet to get its name, or got it here; None for one that was continued.
    fd : int
        Its file descriptor.
    end : int
        Byte after the last frame: where the next one goes.
    fields : dict
        Keyword arguments for `mrcz.container.footer.encode_footer`: metadata, source_header, extra, writer, compress.

    In a forked child everything but closing is refused, and closing touches nothing: the file is the parent's.
    """

    disk: Disk = Disk()

    def __init__(
        self,
        path: str | os.PathLike[str],
        fd: int,
        *,
        new: NewFile | None = None,
        header: bytes,
        extended: bytes,
        index: FrameIndex,
        end: int,
        with_footer: bool,
        sync: bool,
        fields: Mapping[str, Any] | None,
    ) -> None:
        self.path: Path = Path(path)
        self.new = new
        self.fd: int = fd
        self.end: int = end
        self.fields: dict[str, Any] = dict(fields or {})
        self._header, self._extended = header, extended
        self._parts = [index]
        self._with_footer, self._sync = with_footer, sync
        self._footer: bytes | None = None  # the valid footer the file ends in, and where it starts
        self._footer_start = 0
        self._foreign = False  # that footer is of another version: it cannot be moved on
        self._size = end
        # What the last flush promised: a footer of later frames must not be believed before these are on disk.
        self._flushed_end, self._flushed_index, self._flushed_header = end, index, header
        self._touched = new is not None
        self._process = os.getpid()

    # --- opening ---

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        header: bytes,
        extended: bytes = b"",
        *,
        overwrite: bool | Judge = False,
        with_footer: bool = True,
        sync: bool = True,
        alone: bool = True,
        fields: Mapping[str, Any] | None = None,
    ) -> GrowingFile:
        """Start a new file with these header bytes; with *overwrite* an existing file of that name is replaced when
        this one is flushed or closed, if a Judge has no objection, and keeps its permissions. *alone* as in `NewFile`.

        Raises
        ------
        FileExistsError, MrczError, OSError
            As `mrcz.storage.whole.NewFile`.
        """
        new = NewFile(path, overwrite=overwrite, sync=sync, alone=alone, disk=cls.disk)
        file = cls(
            new.path,
            new.fd,
            new=new,
            header=header,
            extended=extended,
            index=FrameIndex.from_sizes([], 0),
            end=len(header) + len(extended),
            with_footer=with_footer,
            sync=sync,
            fields=fields,
        )
        try:
            file.pwrite(0, header + extended)
        except BaseException:
            file.abort()
            raise
        return file

    # Long because what stands in the file is given and explained piece by piece.
    @classmethod
    def reopen(
        cls,
        path: str | os.PathLike[str],
        header: bytes,
        extended: bytes,
        index: FrameIndex,
        *,
        end: int,
        footer: bytes | None = None,
        footer_start: int | None = None,
        size: int | None = None,
        foreign: bool = False,
        with_footer: bool = True,
        sync: bool = True,
        fields: Mapping[str, Any] | None = None,
    ) -> GrowingFile:
        """Continue a file in place.

        Parameters
        ----------
        path : path-like
        header, extended : bytes
            As they stand in the file.
        index : FrameIndex
            Its frames.
        end : int
            Byte after the last of them.
        footer : bytes, optional
            The valid footer of the file, from byte *footer_start* on (default *end*).
        size : int, optional
            Bytes of the file, if more follow, which are then given up; by default it ends with its footer, or, without
            one, at *end*. See `settle`.
        foreign : bool
            The footer is of a version that is not known here.

        Raises
        ------
        MrczError
            If other bytes follow the last frame (left by a writer that was killed: see ``mrcz recover``), or another
            process is writing the file.
        """
        target = Path(os.path.realpath(path))
        check_regular(target)
        fd = cls.disk.open_existing(target)
        try:
            lock(fd, target)
            if not os.path.samestat(os.fstat(fd), os.stat(target)):
                raise MrczError("another process has just replaced this file", path=target)
            there = os.fstat(fd).st_size
            footer_start = end if footer_start is None else footer_start
            stop = footer_start + len(footer or b"")
            if size is None and there != stop:
                raise MrczError(f"{there - stop} bytes follow the last frame: see `mrcz recover`", path=target)
            with os.fdopen(os.dup(fd), "rb") as file:
                same = file.read(len(header)) == header and size in (None, there)
                file.seek(footer_start)
                same = same and (footer is None or file.read(len(footer)) == footer)
            if not same:  # what the caller knows of the file was read before it was locked
                raise MrczError("another process has just changed this file; try again", path=target)
        except BaseException:
            release(fd)
            raise
        old = cls(
            target,
            fd,
            header=header,
            extended=extended,
            index=index,
            end=end,
            with_footer=with_footer,
            sync=sync,
            fields=fields,
        )
        old._footer, old._footer_start, old._size, old._foreign = footer, footer_start, there, foreign
        return old

    def settle(self, header: bytes) -> None:
        """Make a file whose last writer was killed one that ends with its footer, behind the frames it was opened with.

        By the steps of `flush` and `close`, so that it holds these frames at least, whatever instant this is killed at.
        """
        self.give_up_begun()
        self._touched = True
        self.flush(header)
        self._compact()

    def give_up_begun(self) -> None:
        """Cut off a footer that was only begun; the one before it is the valid one."""
        stop = self._footer_start + len(self._footer or b"")
        if self._footer is not None and self._size != stop:
            self._cut(stop)
            self._barrier()

    # --- growing ---

    @property
    def closed(self) -> bool:
        return self.fd < 0

    @property
    def temporary(self) -> Path | None:
        """Where the file lies as long as it is not published under *path*."""
        return self.new.temporary if self.new is not None else None

    @property
    def index(self) -> FrameIndex:
        """All frames added so far."""
        if len(self._parts) > 1:
            self._parts = [FrameIndex.concatenate(self._parts)]
        return self._parts[0]

    def pwrite(self, offset: int, data: Any) -> None:
        """Write all of *data* at *offset*; short writes are continued.

        Raises
        ------
        OSError
            As the system says; the file keeps what the last flush promised.
        """
        self._own()
        self._touched = True
        view = memoryview(data).cast("B")
        while view:  # what is there counts, should the disk refuse the rest
            done = self.disk.pwrite(self.fd, view, offset)
            view, offset = view[done:], offset + done
            self._size = max(self._size, offset)

    def room(self, nbytes: int) -> None:
        """Make bytes ``end`` to ``end + nbytes`` free to be written, by moving the footer on if it is in the way."""
        self._own()
        self._touched = True
        footer = self._footer
        if self._foreign or (footer is None and self._with_footer and self.new is None):
            # None that could be moved on. With one of ours, whoever finds the file after a kill knows what is in it.
            footer = self._encode(self.index, self.end)
        elif footer is None or self.end + nbytes <= self._footer_start:
            return
        gap = min(max(_GAP, self.end // 8), _LARGEST_GAP)
        try:
            self._put_footer(footer, max(self._size, self.end + nbytes + gap))
        except OSError as error:
            if error.errno not in FULL:
                raise
            # A file system without holes gives the gap real bytes, for which it has no room.
            self._put_footer(footer, max(self._size, self.end + nbytes))

    def added(
        self, sizes: Sequence[int] | np.ndarray, hashes: Sequence[int] | np.ndarray | None = None, stats: Any = None
    ) -> None:
        """Take frames into the index that were written back to back at ``end``.

        Parameters
        ----------
        sizes : sequence of int, shape (n,)
            Stored bytes of each.
        hashes : sequence of int, shape (n,), optional
            XXH64 of the stored bytes of each.
        stats : array_like of float, shape (n, 4), optional
            Minimum, maximum, mean, standard deviation of each.
        """
        part = FrameIndex.from_sizes(sizes, self.end, hashes, stats)
        if len(part):
            self._parts.append(part)
            self.end = part.end

    def describe(self, **fields: Unpack[FooterFields]) -> None:
        """Change what the next footer says besides the frames (`fields`), even if no frame is added."""
        changed = {name: value for name, value in fields.items() if self.fields.get(name) != value}
        if changed:
            self._own()
            self.fields.update(changed)
            self._touched = True

    def append(self, stored: Any, hash: int | None = None, stats: Any = None) -> None:
        """Write one frame's stored bytes and take it into the index."""
        view = memoryview(stored).cast("B")
        nbytes = view.nbytes
        self.room(nbytes)
        # A chunk's header goes last: a chunk that is only begun is then no chunk to a walk.
        self.pwrite(self.end + CHUNK_HEADER_SIZE, view[CHUNK_HEADER_SIZE:])
        self.pwrite(self.end, view[:CHUNK_HEADER_SIZE])
        self.added([nbytes], None if hash is None else [hash], None if stats is None else np.reshape(stats, (1, 4)))

    # --- keeping ---

    def flush(self, header: bytes) -> None:
        """Make the frames added so far, and *header*, which says how many there are, durable and visible.

        Raises
        ------
        OSError
            If the disk refuses; the previous flush still holds, and another try may succeed.
        """
        self._own()
        published = self.temporary is None
        self._barrier()  # the frames, before anything that says they are there
        if header != self._header or not published:
            self.pwrite(0, header)
            self._header = header
            self._barrier()
        if self._with_footer:
            index = self.index
            footer = self._encode(index, self.end)
            if self._footer is None:
                self._put_footer(footer, self.end)
            elif footer != self._footer or self._footer_start != self.end:
                # In the gap if the file can end there afterwards, else behind everything.
                inside = self._footer_start - self.end >= _GAP // 2 + len(footer)
                start = self._footer_start - len(footer) if inside else self._size
                self._put_footer(self._encode(index, start), start)
                self._cut(start + len(footer))
        else:
            self._cut(self.end)
        self._flushed_end, self._flushed_index, self._flushed_header = self.end, self.index, header
        if not published:
            self._publish_or_keep()

    def close(self, header: bytes) -> None:
        """`flush`, leave nothing behind the last frame but the footer, and close."""
        if self.closed:
            return
        self.finish(header)
        self._publish_or_keep()
        self.release()

    def _publish_or_keep(self) -> None:
        try:
            self.publish()
        except (FileExistsError, MrczError) as error:
            # Somebody was quicker, or writes what was to be replaced. These frames may be all there is of what a camera
            # saw.
            kept = f"these {len(self.index)} frames are whole, in {self.temporary}"
            self.release()
            if isinstance(error, MrczError):
                error.message = f"{error.message}; {kept}"
                raise
            raise FileExistsError(f"{error}; {kept}") from None

    def finish(self, header: bytes) -> None:
        """Complete the file. A new one keeps its temporary name, so that it can be judged before `publish`, which
        brings it to the disk first."""
        self._own()
        if self.temporary is None:
            if self._touched or header != self._header:
                self.flush(header)
                self._compact()
            return
        # Nobody has seen it yet, so the order of writes is free until it gets its name.
        self.pwrite(0, header)
        self._header = header
        size = self.end
        if self._with_footer:
            footer = self._encode(self.index, self.end)
            self.pwrite(self.end, footer)
            size += len(footer)
        if self._size != size:
            self._cut(size)

    def publish(self) -> None:
        """Give a new file that was finished its name; see `mrcz.storage.whole.NewFile.publish`."""
        self._own()
        if self.new is not None and self.temporary is not None:
            self.new.publish()

    def release(self) -> None:
        """Close the descriptor, and give up the lock, if this process has it."""
        fd, self.fd = self.fd, -1
        if self.new is not None:
            self.new.close()
        elif self._process == os.getpid():
            release(fd)
        else:
            os.close(fd)

    def abort(self) -> None:
        """Drop what was added since the last flush; a new file that was never flushed disappears. Never raises because
        of the disk: what the last flush promised holds without it."""
        if self.closed:
            return
        with contextlib.suppress(OSError):
            if self.temporary is None and self._touched and self._process == os.getpid():
                self._parts, self.end = [self._flushed_index], self._flushed_end
                # First the header, which a failed flush may have left half written: the frames it speaks of go next.
                self._header = self._flushed_header
                self.pwrite(0, self._header)
                self._barrier()
                self._compact()
        if self.new is not None:
            self.new.abort()
            self.fd = -1
        else:
            self.release()

    # --- steps ---

    def _encode(self, index: FrameIndex, start: int) -> bytes:
        return encode_footer(
            index, header_bytes=self._header, extended_header_bytes=self._extended, start=start, **self.fields
        )

    def _put_footer(self, footer: bytes, start: int) -> None:
        """Write a footer where nothing valid lies, and rely on it from then on."""
        footer = move_footer(footer, start)
        before = self._size
        try:
            self.pwrite(start, footer)
            self._barrier()
        except OSError:
            # The file must again end in the footer it had.
            if self._size > before:
                with contextlib.suppress(OSError):
                    self._cut(before)
            raise
        old_start, old_stop = self._footer_start, self._footer_start + len(self._footer or b"")
        had = self._footer is not None
        self._footer, self._footer_start, self._foreign = footer, start, False
        if had and old_start < self._size and old_stop <= start:
            # Remnants of the old footer must not pass for the beginnings of a frame.
            self.pwrite(old_start, bytes(old_stop - old_start))

    def _compact(self) -> None:
        """Put the footer directly behind the last frame and end the file there."""
        size = self.end
        if self._footer is not None:
            footer = self._encode(self.index, self.end)
            if footer != self._footer:
                if self.end + len(footer) > self._footer_start:
                    self._put_footer(self._footer, max(self._size, self.end + len(footer)))
                self.pwrite(self.end, footer)
                self._barrier()
                self._footer, self._footer_start, self._foreign = footer, self.end, False
            size += len(footer)
        # What was written through `fd`, the Writer's frames, is not counted in _size.
        if self._size != size or os.fstat(self.fd).st_size != size:
            self._cut(size)
            self._barrier()

    def _cut(self, size: int) -> None:
        self.disk.truncate(self.fd, size)
        self._size = size

    def _barrier(self) -> None:
        if self._sync:
            self.disk.fsync(self.fd)

    def _own(self) -> None:
        """Refuse to touch the file of another process: a forked child has all of this, and a position in the file."""
        if self._process != os.getpid():
            raise MrczError(f"is written by process {self._process}, not by its child {os.getpid()}", path=self.path)
