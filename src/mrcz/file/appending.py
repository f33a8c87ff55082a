"""Continuing a file: what is in it, checked, as the beginning of a Writer that adds frames in place."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrcz.container.chunks import FOOTER_MARK
from mrcz.container.footer import TRAILER_MAGIC
from mrcz.container.header.header import Header
from mrcz.container.index import FrameIndex
from mrcz.container.modes import CODEC_NAMES
from mrcz.container.pieces import COLUMN, ENTRY
from mrcz.container.statistics import moments_of, total_stats
from mrcz.errors import FormatWarning, MrczError
from mrcz.file.beginning import Beginning
from mrcz.file.codec import CODECS, Codec
from mrcz.file.encoding import Encoding, Wishes
from mrcz.file.growing import GrowingFile
from mrcz.file.metadata import WriterMetadata
from mrcz.file.options import WriteOptions
from mrcz.file.reader import Reader
from mrcz.file.salvage import Left, left_by_a_kill
from mrcz.storage.wrapped import is_wrapped

__all__ = ["Continued", "continued"]

_LARGEST_KEPT = 64 << 20  # of a footer that is kept inside another
# What may be said of a file that is there; all else is as the file has it.
_MAY_BE_SAID = {
    "codec",
    "level",
    "profile",
    "filter",
    "blocksize",
    "checksum",
    "backend",
    "metadata",
    "metadata_codec",
    "n_threads",
    "overwrite",
    "sync",
}


@dataclass(frozen=True)
class Continued(Beginning):
    """A file that is there and has frames.

    Attributes
    ----------
    there : mapping
        Arguments of `GrowingFile.reopen` besides those every beginning has: what stands in the file.
    left : Left or None
        What its last writer, which was killed, left behind.
    more : mapping
        Metadata to add.
    """

    there: Mapping[str, Any] = field(default_factory=dict)
    left: Left | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def open(self, *, alone: bool = True) -> GrowingFile:
        """Lock the file and make it one that ends with its footer."""
        assert self.encoding is not None
        extended = self.wishes.extended[1]
        file = GrowingFile.reopen(
            self.path,
            extended=extended,
            sync=self.sync,
            with_footer=self.wishes.codec.is_compressed,
            fields=self.footer(),
            **self.there,
        )
        try:
            if self.left is None:
                file.give_up_begun()
            else:
                header = self.encoding.header(
                    self.count,
                    stats=total_stats(np.concatenate(self.moments)),
                    nbytes=file.end - 1024 - len(extended),
                    whole=False,
                )
                file.settle(header.tobytes())
                if self.left.text:
                    warnings.warn(f"{self.path}: {self.left.text}", FormatWarning, stacklevel=5)
            self.metadata.update(self.more)
        except BaseException:
            file.abort()
            raise
        return file


# Longer than 60 lines: what goes on is named piece by piece.
def continued(path: Any, options: WriteOptions) -> Continued:
    """The beginning of a Writer that adds frames to a file.

    Raises
    ------
    ValueError
        Something is said of the file that it has already, or frames cannot be added to it.
    MrczError
        Its footer, of a later version, is too large to be kept.
    FormatError
        It is damaged.
    """
    if refused := [name for name in options.given() if name not in _MAY_BE_SAID]:
        raise ValueError(f"{', '.join(refused)}: a file that is appended to keeps what it has")
    name = os.path.abspath(os.fspath(path))
    if is_wrapped(path):
        raise ValueError(f"{name} is inside gzip or the like, which is read, not written: unpack it first")
    with Reader(path) as old:
        header, footer, pixels = old.header, old.footer, old.pixel_format
        if header.is_half_width:
            raise ValueError(f"{path}: frames cannot be appended to a half-width 4-bit file; convert it first")
        if old.integers is not None:
            raise ValueError(f"{path} holds the counts of a float movie, with their gain: decompress it to add frames")
        if options.metadata and not header.compressed:
            raise ValueError(f"{name}: metadata of a plain MRC file is written first and stays as it is")
        left = left_by_a_kill(old)
        index = _hashed(old, old.index if left is None else left.index)
        values, extended, shape = _all_metadata(old), old.extended_bytes, (*old.shape[1:3], *old.shape[3:])
        there, extra = _tail(old, index, left)
        promised = len(old.index)
    codec = _codec(path, header, options, packed=pixels.packed)
    metadata = WriterMetadata(values, name, plain=not header.compressed)
    metadata.keep_frames(len(index))
    build = {
        "like": header,
        "kind": header.kind,
        "slices": header.slices or 0,
        "byteorder": header.byteorder,
        "mz": header.mz if header.kind == "volume stack" else None,
    }
    # Bytes above 127 may follow where there are some, else they would surprise other readers.
    mode = None if header.mode == 0 and header.stats[1] <= 127 else header.mode
    wishes = Wishes(codec, None, mode, None, header.byteorder, build, (header.exttyp, extended))
    known = footer is not None and index.stats is not None
    return Continued(
        name,
        wishes,
        metadata,
        about={
            "source_header": None if footer is None else footer.source_header,
            "extra": extra,
            "compress": options.metadata_codec,
        },
        n_threads=options.n_threads,
        sync=options.sync,
        encoding=Encoding(wishes, shape, pixels, codec),
        count=len(index),
        moments=_moments(header, index, left, promised=promised, pixels=shape[0] * shape[1], known=known),
        there={"header": header.tobytes(), "index": index, **there},
        left=left,
        more=options.metadata or {},
    )


def _all_metadata(old: Reader) -> dict[str, Any]:
    """The metadata, and with them what gives back the file of another format that it was: it stays where only metadata
    are added."""
    hidden = {}
    if old.footer is not None and ENTRY in old.footer.extra:
        found = old.footer.metadata(old.source.read) or {}
        hidden = {COLUMN: found[COLUMN]} if COLUMN in found else {}
    return {**old.metadata, **hidden}


def _codec(path: Any, header: Header, options: WriteOptions, *, packed: bool) -> Codec:
    """The codec of the frames to come; packed where those before them are."""
    codec = options.codec
    if not isinstance(codec, Codec):
        name = codec or (CODEC_NAMES[header.codec_number] if header.compressed else "none")
        # snappy can be read, not written
        choices: dict[str, Any] = {**options.choices(), "pack": packed}
        codec = Codec(name if name in CODECS else "zstd", **choices)
    if codec.is_compressed != header.compressed:
        raise ValueError(f"{path} is {'' if header.compressed else 'not '}compressed, codec is {codec.name!r}")
    return codec


def _hashed(old: Reader, index: FrameIndex) -> FrameIndex:
    """An index with checksums: all frames have one or none, so those of another program's file are read once."""
    if index.hashes is not None or not old.header.compressed or not len(index):
        return index
    return FrameIndex(index.offsets, index.sizes, old.hash_frames(), index.stats)


def _tail(old: Reader, index: FrameIndex, left: Left | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What follows the frames, for `GrowingFile.reopen`, and the further entries of the footer to come."""
    footer = old.footer
    end = index.end if len(index) else old.header.data_offset
    there: dict[str, Any] = {
        "end": end,
        "footer": None,
        "footer_start": None if left is None else left.footer_start,
        "size": None if left is None else left.size,
        "foreign": False,
    }
    if footer is not None:
        there["footer"] = old.source.read(footer.trailer.start, footer.trailer.end - footer.trailer.start)
        return there, footer.extra
    if (foreign := _foreign_footer(old, end)) is not None:
        # It is not understood, and may hold what is nowhere else.
        return there | {"footer": foreign, "size": old.file_nbytes, "foreign": True}, {"replaced_footer": foreign}
    return there, {}


def _moments(
    header: Header, index: FrameIndex, left: Left | None, *, promised: int, pixels: int, known: bool
) -> tuple[np.ndarray, ...]:
    """Moments of the frames there: of each where its footer knows them, else of all together by the header."""
    if known:
        return (moments_of(index.stats, pixels),)  # type: ignore[arg-type]
    together = moments_of(np.array([header.stats]), pixels * promised)
    if header.stats[1] < header.stats[0]:
        together[:] = np.nan  # not computed, and so it stays
    return (together,) if left is None else (together, left.moments)


def _foreign_footer(reader: Reader, end: int) -> bytes | None:
    """The bytes of a footer of another version that follows the last frame, which ends at *end*.

    Behind it may be one of ours that a killed writer had only begun.
    """
    if not reader.has_unknown_footer or not reader.is_compressed:
        return None
    size = reader.file_nbytes - end
    if size > _LARGEST_KEPT:
        raise MrczError(
            f"its footer, {size} bytes of a later version of mrcz, is too large to be kept in another: `mrcz recover` "
            "makes a file of the frames alone",
            path=reader.path,
        )
    found: bytes = reader.source.read(end, size)
    if not found.startswith(FOOTER_MARK):
        return None
    # Each footer may hold the magic of one that it replaced; behind the last byte comes nothing, or zeros and the mark.
    for magic in re.finditer(re.escape(TRAILER_MAGIC) + rb"\0*", found):
        if FOOTER_MARK.startswith(found[magic.end() : magic.end() + len(FOOTER_MARK)]):
            return found[: magic.start() + len(TRAILER_MAGIC)]
    return None
