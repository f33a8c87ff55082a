"""What a Writer begins with: a new file by its keywords here, one that is continued in `appending`.

Both are one frozen value, so that the Writer has one constructor.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrcz._version import __version__
from mrcz.container.header.build import three_sizes
from mrcz.container.names import check_new_name
from mrcz.file.codec import Codec
from mrcz.file.encoding import Encoding, Wishes
from mrcz.file.growing import GrowingFile
from mrcz.file.metadata import WriterMetadata
from mrcz.file.options import WriteOptions
from mrcz.storage.whole import Judge

__all__ = ["Beginning", "new_file"]


@dataclass(frozen=True)
class Beginning:
    """A file as it is before its Writer adds a frame.

    Attributes
    ----------
    path : str
        Absolute.
    wishes : Wishes
        What the first frame is encoded by.
    metadata : WriterMetadata
        May change until the file is closed.
    about : mapping
        Arguments of `encode_footer` that stay: source_header, extra, compress.
    n_threads : int or None
    sync : bool
    overwrite : bool or Judge
    encoding : Encoding or None
        Settled already where there are frames.
    count : int
        Of the frames that are there.
    moments : tuple of (n, 5) ndarray
        Of these.
    """

    path: str
    wishes: Wishes
    metadata: WriterMetadata
    about: Mapping[str, Any] = field(default_factory=dict)
    n_threads: int | None = None
    sync: bool = True
    overwrite: bool | Judge = False
    encoding: Encoding | None = None
    count: int = 0
    moments: tuple[np.ndarray, ...] = ()

    def footer(self) -> dict[str, Any]:
        """Arguments of `encode_footer`, the metadata as they are now."""
        packed = self.metadata.packed() if self.wishes.codec.is_compressed else None
        return {"metadata": packed, "writer": f"mrcz {__version__}", **self.about}

    def open(self, *, alone: bool = True) -> GrowingFile:
        """Open the file for frames; *alone* as in `mrcz.storage.whole.NewFile`.

        Raises
        ------
        As `GrowingFile.create` and `GrowingFile.reopen`.
        """
        # The header follows with the first frame, which settles what it says.
        return GrowingFile.create(
            self.path,
            bytes(1024),
            self.wishes.extended[1],
            overwrite=self.overwrite,
            sync=self.sync,
            alone=alone,
            with_footer=self.wishes.codec.is_compressed,
            fields=self.footer(),
        )


def new_file(path: Any, options: WriteOptions) -> Beginning:
    """The beginning of a new file.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong, or the name says that it is another kind of file.
    """
    name = os.path.abspath(os.fspath(path))
    check_new_name(name)
    codec, header = options.codec_for(name), options.header
    values = dict(options.metadata) if options.metadata else {}
    if options.round_to is not None:
        values["round_to"] = float(options.round_to)
    metadata = WriterMetadata(values, name, plain=not codec.is_compressed)
    order = options.byteorder or (header.byteorder if header is not None else "<")
    build = {
        "pixel_size": options.pixel_size,
        "kind": options.kind,
        "like": header,
        "byteorder": order,
        "voltage": options.voltage,
        "c3": options.c3,
        "gain": options.counts_per_electron,
        "labels": tuple(options.labels),
        "slices": options.slices,
        "whole_cell": options.whole_cell,
        "mz": options.mz,
    }
    if build["pixel_size"] is not None:
        build["pixel_size"] = three_sizes(build["pixel_size"])  # told now, not at the first frame
    extended = _extended(options.extended_header, metadata, codec)
    return Beginning(
        name,
        Wishes(codec, options.dtype, options.mrc_mode, options.round_to, order, build, extended),
        metadata,
        about={
            "source_header": options.source_header,
            "extra": {} if options.source_name is None else {"source_name": options.source_name},
            "compress": options.metadata_codec,
        },
        n_threads=options.n_threads,
        sync=options.sync,
        overwrite=options.overwrite,
    )


def _extended(given: Any, metadata: WriterMetadata, codec: Codec) -> tuple[str, bytes]:
    """Type and bytes of the extended header: the one given, else the metadata as JSON."""
    if given is None:
        if not metadata:
            return "", b""
        from mrcz.container.metadata import encode_json, json_part

        try:
            raw = encode_json(dict(metadata))
        except TypeError:
            # A plain file has no other place for what JSON cannot say.
            if not codec.is_compressed:
                raise
            raw = encode_json(json_part(dict(metadata)))
        return "json", raw + b" " * (-len(raw) % 16)  # chunks begin on 16 bytes; JSON readers skip blanks
    if hasattr(given, "type") and hasattr(given, "raw"):
        exttyp, raw = given.type, given.raw
    elif isinstance(given, tuple) and len(given) == 2:
        exttyp, raw = given
    else:
        raise TypeError(
            f"extended_header is {type(given).__name__}, expected that of a Reader, or a type and bytes: "
            '("FEI1", b"...")'
        )
    if metadata and not codec.is_compressed:
        raise ValueError("a plain MRC file has one extended header: it holds metadata or extended_header, not both")
    return exttyp, bytes(raw)
