"""Writing: frames to a file that is whole or absent.

array -> ``Writer.append`` -> the `Encoding`, settled by the first frame -> chunks -> their place in the file; on close
footer, header, fsync, rename. A file grows under a temporary name beside its own until `flush` or `close` has made it
complete.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcz.container.header.header import Header
from mrcz.container.index import FrameIndex
from mrcz.container.statistics import total_stats
from mrcz.errors import MrczError
from mrcz.file.batches import BATCH, batches, refuse_masked
from mrcz.file.beginning import Beginning, new_file
from mrcz.file.codec import Codec
from mrcz.file.encoding import Encoding, settle
from mrcz.file.growing import GrowingFile
from mrcz.file.options import WriteOptions
from mrcz.file.reader import Reader
from mrcz.file.storing import copy_frames, store
from mrcz.file.turns import Turns
from mrcz.file.wrong_names import WRITER, right_keywords, right_name
from mrcz.storage.disk import is_same_place
from mrcz.storage.whole import Judge, NewFile

__all__ = ["Writer"]


class Writer:
    """Write frames one by one or many at a time; the file appears when it is complete.

    Parameters
    ----------
    path : path
        Its suffix chooses compression if `codec` is not given: ``.mrc`` and the like are plain, all others zstd.
    codec : str or Codec, optional
        "none", "zstd", "lz4", "lz4hc", "zlib" or "blosclz", or a ready `Codec`.
    level, profile, filter, blocksize, checksum, pack, backend
        See `Codec`, whose defaults they have; not together with a ready one.
    dtype : dtype, optional
        Frames are cast to it; default theirs.
    mrc_mode : int, optional
        MODE number to use in place of the table in docs/modes.md: 0 keeps uint8 as bytes, 3 stores complex integers, 16
        takes (ny, nx, 3) uint8 frames as RGB.
    round_to : float, optional
        Round float pixels to multiples of this power of two below it, which makes them compressible; the error is at
        most half of `round_to`. Never a default. Recorded in the metadata.
    pixel_size : float or (x, y, z), optional
        Å.
    kind : {"image", "stack", "volume", "volume stack"}, optional
        Default: that of `header`, else an image or a stack.
    mz : int, optional
        Sections of one volume of a volume stack.
    metadata : dict, optional
        Goes into the footer of compressed files, and as JSON into the extended header unless one is given. See also the
        attribute `metadata`, which may change until the file is closed.
    metadata_codec : {"zstd", "lz4", None}
        How the footer is compressed, metadata and index.
    extended_header : ExtendedHeader or (type, bytes), optional
        Written as it is.
    header : Header, optional
        Every field that describes the specimen is taken from it.
    byteorder : {"<", ">"}, optional
    voltage, c3, counts_per_electron : float, optional
        kV, mm, and the header's `gain`.
    n_threads : int, optional
        Most threads; default: the processors this process may use.
    source_header : bytes, optional
        The 1024 header bytes of the file these frames come from, kept so that converting back restores it exactly.
    source_name : str, optional
        Name of that file, without folders; kept in the footer, so that converting back gives it the same suffix.
    labels : sequence of str
        Added to those of `header`.
    slices : int
        What older versions of this package return: 0 one array, 1 a list of images, n a list of n-section volumes.
    whole_cell : bool
        CELLA z spans all sections, as mrcz before 1.0 divides it, even of an image stack.
    overwrite : bool
        Replace a file of that name, once this one is complete. Never a file that somebody writes. A function
        (`mrcz.storage.whole.Judge`) is asked first.
    sync : bool
        Flush to the disk before the file appears under its name.

    Raises
    ------
    FileExistsError
        There is a file of that name.
    ValueError
        An argument is wrong, or the name says that it is another kind of file (``.mrc.gz``, ``.tif``).
    MrczError
        Another process writes the file, or it is a device.

    Notes
    -----
    Several threads may call at once: what they append is written whole, in the order of the calls. A forked child has
    no part in the file of its parent: there every call is refused, and closing or losing the Writer touches nothing.

    An exception that leaves ``with``, Ctrl-C included, keeps what was flushed and nothing else; a note on the exception
    says which.
    """

    # Long because every keyword is spelt out, here and below: so that editors and type checkers know them.
    @right_keywords
    def __init__(
        self,
        path: Any,
        *,
        codec: str | Codec | None = None,
        level: int | None = None,
        profile: str | None = None,
        filter: str | None = None,
        blocksize: int | None = None,
        checksum: bool | None = None,
        pack: bool | str | None = None,
        backend: str | None = None,
        dtype: Any = None,
        mrc_mode: int | None = None,
        round_to: float | None = None,
        pixel_size: float | Sequence[float] | None = None,
        kind: str | None = None,
        mz: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        metadata_codec: str | None = "zstd",
        extended_header: Any = None,
        header: Header | None = None,
        labels: Sequence[str] = (),
        byteorder: str | None = None,
        voltage: float | None = None,
        c3: float | None = None,
        counts_per_electron: float | None = None,
        source_header: bytes | None = None,
        source_name: str | None = None,
        slices: int = 0,
        whole_cell: bool = False,
        n_threads: int | None = None,
        overwrite: bool | Judge = False,
        sync: bool = True,
    ) -> None:
        options = WriteOptions(
            codec, level, profile, filter, blocksize, checksum, pack, backend, dtype, mrc_mode, round_to, pixel_size,
            kind, mz, metadata, metadata_codec, extended_header, header, labels, byteorder, voltage, c3,
            counts_per_electron, source_header, source_name, slices, whole_cell, n_threads, overwrite, sync,
        )  # fmt: skip
        self._begin(new_file(path, options))

    # Longer than 60 lines: every keyword is spelt out.
    @classmethod
    @right_keywords
    def append_to(
        cls,
        path: Any,
        *,
        codec: str | Codec | None = None,
        level: int | None = None,
        profile: str | None = None,
        filter: str | None = None,
        blocksize: int | None = None,
        checksum: bool | None = None,
        pack: bool | str | None = None,
        backend: str | None = None,
        dtype: Any = None,
        mrc_mode: int | None = None,
        round_to: float | None = None,
        pixel_size: float | Sequence[float] | None = None,
        kind: str | None = None,
        mz: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        metadata_codec: str | None = "zstd",
        extended_header: Any = None,
        header: Header | None = None,
        labels: Sequence[str] = (),
        byteorder: str | None = None,
        voltage: float | None = None,
        c3: float | None = None,
        counts_per_electron: float | None = None,
        source_header: bytes | None = None,
        source_name: str | None = None,
        slices: int = 0,
        whole_cell: bool = False,
        n_threads: int | None = None,
        overwrite: bool | Judge = False,
        sync: bool = True,
    ) -> Writer:
        """Continue a finished file in place; see `mrcz.open` with mode ``"a"``.

        Parameters
        ----------
        path : path
            A file of this package's making or another's. One that is not there is begun, as by `Writer`.
        codec, level, profile, filter, blocksize, checksum, backend, metadata_codec, n_threads, sync
            As for a new file; the default codec is that of the file.
        metadata : dict, optional
            Added to what is there.
        overwrite : bool
            Does not matter: a file that is there is continued.

        Raises
        ------
        ValueError
            Another keyword for a file that is there, which keeps what it has; or pixels that cannot be appended to
            (half-width 4-bit files).
        MrczError
            Another process writes the file, or bytes that are not of a killed writer follow its last frame
            (``mrcz recover``).

        Warns
        -----
        FormatWarning
            The last writer was killed: how many whole frames were found behind those it had promised, and how many
            bytes of what it had begun are given up. The footer is of a later version: it is kept inside the new one.
        """
        options = WriteOptions(
            codec, level, profile, filter, blocksize, checksum, pack, backend, dtype, mrc_mode, round_to, pixel_size,
            kind, mz, metadata, metadata_codec, extended_header, header, labels, byteorder, voltage, c3,
            counts_per_electron, source_header, source_name, slices, whole_cell, n_threads, overwrite, sync,
        )  # fmt: skip
        writer = cls.__new__(cls)
        if os.path.exists(path):
            from mrcz.file.appending import continued

            writer._begin(continued(path, options))
        else:
            writer._begin(new_file(path, replace(options, overwrite=False)))
        return writer

    def _begin(self, beginning: Beginning) -> None:
        """All that a Writer has, of a new file and of one that is continued."""
        self.path: str = beginning.path
        self._file: GrowingFile | None = None
        self._process = os.getpid()
        self._turns = Turns(self.path)
        self._beginning = beginning
        self._metadata = beginning.metadata
        self._encoding = beginning.encoding
        self._moments = list(beginning.moments)  # (n, 5) a batch: min, max, sum, sum of squares, count
        self._count = self._kept = beginning.count  # frames there, and those that stay whatever happens from here on
        self._flushed = False
        self._file = beginning.open()

    # ---- state ---------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Frames written so far."""
        return self._count

    @property
    def encoding(self) -> Encoding | None:
        """How frames are stored; None before the first one, which settles it."""
        return self._encoding

    @property
    def codec(self) -> str:
        """Name of the codec, ``"none"`` for a plain file, as `Reader.codec`; with all it was told, `encoding.codec`."""
        return self._beginning.wishes.codec.name

    @property
    def n_threads(self) -> int | None:
        """Most threads, as asked for."""
        return self._beginning.n_threads

    @property
    def shape(self) -> tuple[int, ...]:
        """(nz, ny, nx) so far, (nz, ny, nx, 3) of RGB; (0, 0, 0) before the first frame."""
        return (self._count, *((0, 0) if self._encoding is None else self._encoding.shape))

    @property
    def dtype(self) -> np.dtype | None:
        """Of the pixels as a reader will give them; None before the first frame."""
        return None if self._encoding is None else self._encoding.pixels.dtype

    @property
    def metadata(self) -> MutableMapping[str, Any]:
        """A dict that may change until the file is closed, and is stored with every `flush`.

        Of a plain MRC file it is settled when the file is opened: changing it is a ValueError.
        """
        return self._metadata

    @metadata.setter
    def metadata(self, values: Mapping[str, Any]) -> None:
        new = dict(values)
        for key in [key for key in self._metadata if key not in new]:
            del self._metadata[key]
        for key, value in new.items():
            if self._metadata.get(key) is not value or key not in self._metadata:
                self._metadata[key] = value

    # ---- turns ---------------------------------------------------------------------------------------------------

    def _own(self) -> None:
        if self._process != os.getpid():
            raise MrczError(
                f"the Writer belongs to process {self._process}; this is its child {os.getpid()}", path=self.path
            )

    @contextmanager
    def _turn(self) -> Iterator[GrowingFile]:
        """The open file, for one thread at a time in the order of the calls."""
        self._own()
        with self._turns:
            yield self._open_file()

    # ---- writing -------------------------------------------------------------------------------------------------

    def append(self, frame: Any, metadata: Mapping[str, Any] | None = None) -> None:
        """Write one frame.

        Parameters
        ----------
        frame : (ny, nx) array
        metadata : dict, optional
            What belongs to this frame (a time, a stage position, a dose): `Reader.frame_metadata`. Compressed files
            only.

        Raises
        ------
        As `extend`.
        """
        refuse_masked(frame)
        frame = np.asarray(frame)
        with self._turn():
            packed = None if metadata is None else self._metadata.frame(metadata)
            self._extend(frame[np.newaxis])
            self._metadata.set_frame(self._count - 1, packed)

    def extend(self, frames: Any) -> None:
        """Write many frames.

        Parameters
        ----------
        frames : (n, ny, nx) array, array-like that slices (dask, h5py, zarr, a Reader), or iterable of (ny, nx) arrays
            Arrays in memory are compressed from where they are; others are brought in a bounded batch at a time.

        Raises
        ------
        ValueError
            A frame's shape differs from the first one's, or a pixel does not fit.
        TypeError
            MRC has no mode for the dtype.
        MrczError
            This is a forked child of the process the Writer belongs to.
        RuntimeError
            `frames` is an iterable that itself calls the Writer.

        Notes
        -----
        Frames of one call stay together, also while other threads write: they wait until the last of them has come.
        """
        if isinstance(frames, Reader) and is_same_place(frames.path, self.path):
            raise ValueError(f"{self.path} is the source itself; a copy needs a name of its own")
        with self._turn():
            self._extend(frames)

    def _extend(self, frames: Any) -> None:
        for batch in batches(frames):
            self._open_file()  # `frames` may have aborted it
            self._put(batch)

    def _open_file(self) -> GrowingFile:
        if self._file is None:
            raise ValueError(f"{self.path}: the Writer is closed")
        return self._file

    def _put(self, batch: Any) -> None:
        """Encode and write a batch at the tail; where a pixel does not fit, start over with an encoding it fits."""
        if not len(batch):
            return
        encoding = self._encoding or self._settle(np.asarray(batch[0]))
        step, first = len(batch), batch[0]
        if not (encoding.takes(first) and first.flags.c_contiguous):
            step = max(1, BATCH // max(1, encoding.frame_nbytes))
        for a in range(0, len(batch), step):
            piece, before = batch[a : a + step], self._count
            if not self._store(encoding, piece):
                a += self._count - before
                self._start_over(encoding.wider(piece[0].dtype, self.path))
                self._put(batch[a:])
                return

    def _settle(self, frame: np.ndarray) -> Encoding:
        """Settle the encoding by the first frame."""
        self._encoding = settle(frame, self._beginning.wishes)
        # What the frames are, should this process die before the true header is written: `mrcz recover` counts them.
        self._open_file().pwrite(0, self._header(1, whole=False).tobytes())
        return self._encoding

    def _store(self, encoding: Encoding, piece: Any) -> bool:
        """Write frames at the tail; False if a pixel does not fit the encoding, and some of them are not there."""
        stored = encoding.stored(piece, self._count)
        if stored is None:
            return False
        taken: list[np.ndarray] = []
        try:
            return store(self._open_file(), encoding, stored, self.n_threads, taken)
        except OSError as error:
            error.filename = error.filename or self.path
            raise
        finally:
            self._moments += taken
            self._count += sum(map(len, taken))

    def _start_over(self, encoding: Encoding) -> None:
        """Write the frames so far anew, by another encoding, into another file under the same temporary name."""
        old_file, old = self._open_file(), self._encoding
        assert old is not None
        if old_file.temporary is None:
            raise ValueError(f"{self.path} is in use: its frames cannot change their pixel format any more")
        before = self._moments, self._count
        try:
            self._encoding, self._moments, self._count = encoding, [], 0
            self._file = self._beginning.open(alone=False)
            self._file.pwrite(0, self._header(1, whole=False).tobytes())
            for frame in copy_frames(old_file, old):
                self._put(frame)
        except BaseException:
            # The frames so far are as safe as they were.
            if self._file is not old_file:
                self._drop()
                self._file = old_file
            self._encoding, (self._moments, self._count) = old, before
            raise
        old_file.abort()

    # ---- finishing -----------------------------------------------------------------------------------------------

    @property
    def index(self) -> FrameIndex:
        """Where the frames written so far are, with checksums and statistics."""
        if self._turns.is_mine():
            return self._open_file().index
        with self._turn() as file:
            return file.index

    def _header(self, count: int | None = None, *, whole: bool = True) -> Header:
        """Of the frames so far, or of `count`; not `whole`: more will follow, so the last volume may be incomplete."""
        assert self._encoding is not None
        nbytes = self._open_file().end - 1024 - len(self._beginning.wishes.extended[1])
        stats = total_stats(np.concatenate(self._moments)) if self._moments else None
        return self._encoding.header(count or self._count, stats=stats, nbytes=nbytes, whole=whole)

    def flush(self) -> None:
        """Make the frames written so far durable and visible: the file opens under its name from now on, and can grow.

        At every instant from then on, should this process be killed or the disk fill up, the file opens with these
        frames at least (docs/container.md §6).
        """
        with self._turn() as file:
            self._check_count()
            file.describe(metadata=self._beginning.footer()["metadata"])
            try:
                file.flush(self._header(whole=False).tobytes())
            finally:
                if file.closed:  # somebody took the name: the error says where the frames are
                    self._file = None
            self._kept, self._flushed = self._count, True

    def close(self) -> None:
        """Complete the file and close it; without a frame there is no file.

        Raises
        ------
        FileExistsError
            Somebody made a file of this name meanwhile; the error says where these frames are.
        ValueError
            No frame was written.
        TypeError
            Some metadata was changed to what cannot be stored: the file is complete, without it.
        """
        if self._process != os.getpid():
            self._drop()
            return
        with self._turns:
            if self._file is None:
                return
            dropped: list[str] = []
            try:
                self._check_count()
                try:
                    fields = self._beginning.footer()
                except (TypeError, ValueError):  # metadata are no reason to lose frames
                    dropped = self._metadata.drop_unstorable()
                    fields = self._beginning.footer()
                self._file.describe(metadata=fields["metadata"])
                self._file.close(self._header().tobytes())
            except BaseException as error:
                self._give_up(error)
                raise
            self._file = None
        if dropped:
            raise TypeError(f"{self.path} is complete, but its metadata {', '.join(dropped)} cannot be stored")

    def finish(self, extra: Mapping[str, Any] | None = None) -> NewFile:
        """Complete a new file and hand it over without its name, for a caller that proves it before it publishes it.

        Parameters
        ----------
        extra : mapping, optional
            Further entries of the footer.
        """
        with self._turn() as file:
            if file.new is None or file.temporary is None:
                raise ValueError(f"{self.path} has its name already")
            self._check_count()
            about = self._beginning.footer()
            file.describe(metadata=about["metadata"], extra={**about["extra"], **(extra or {})})
            file.finish(self._header().tobytes())
            self._file = None
            return file.new

    def abort(self) -> None:
        """Give up: what was written since the last flush is not in the file; without a flush there is no file."""
        # A thread that has its turn is one whose own call was interrupted, or whose frames end the work they are for.
        if self._process != os.getpid() or self._turns.is_mine():
            self._drop()
            return
        with self._turns:
            self._drop()

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.abort()  # touches nothing in a forked child

    def _give_up(self, error: BaseException) -> None:
        """Abort because of an error, and tell with it what is left."""
        ours = self._process == os.getpid() and self._file is not None and not self._file.closed
        self.abort()
        if ours and self._kept:
            which = "of the last flush" if self._flushed else "it had"
            error.add_note(f"{self.path} keeps the {self._kept} frames {which}")
        elif ours and self._count:
            error.add_note(f"nothing was written to {self.path}")

    def _check_count(self) -> None:
        if not self._count:
            raise ValueError(f"{self.path}: no frame was written")

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is None:
            self.close()
        else:
            self._give_up(error)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(right_name("a Writer", name, WRITER))

    def __del__(self) -> None:
        if getattr(self, "_file", None) is None:
            return
        ours, lost = self._process == os.getpid(), self._count - self._kept
        self._drop()
        if ours and lost:
            warnings.warn(f"{self.path}: its Writer was never closed, and {lost} frames are lost", RuntimeWarning, 2)
