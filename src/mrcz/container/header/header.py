"""1024 bytes <-> Header.

A header is never changed in place: it is parsed from bytes or built from values, and :meth:`Header.tobytes` gives the
bytes back exactly as they were. Nothing in it is believed until compared with the size of the file.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Unpack, cast

import numpy as np

from mrcz.container.chunks import FRAME_MAX
from mrcz.container.header.build import (
    NOT_COMPUTED,
    add_labels,
    build_order,
    drop_counts_label,
    first_given,
    label_bytes,
    set_axes,
    set_cell,
    set_extended,
    set_imod,
    set_kind,
    set_labels,
)
from mrcz.container.header.fields import Fields
from mrcz.container.header.layout import (
    DTYPES,
    FIXED,
    HEADER_DTYPE,
    HEADER_NBYTES,
    KINDS,
    MRCZ_LABEL,
    writable,
)
from mrcz.container.header.parse import RULE_ARGUMENT, Parser
from mrcz.container.header.words import StoredFields
from mrcz.container.modes import PixelFormat, mode_word
from mrcz.errors import FormatWarning, HeaderError
from mrcz.filetypes import identify

__all__ = ["HEADER_DTYPE", "HEADER_NBYTES", "KINDS", "MRCZ_LABEL", "Header", "claimed_nbytes"]


class Header(Fields):
    """The header of one MRC or MRCZ file: its bytes, and what follows from them.

    Made by :meth:`parse` or :meth:`build`. ``header["mx"]`` gives a field as stored (names in `HEADER_DTYPE`);
    the attributes give what it means. It does not change: assigning to any of them is an error. :meth:`replace` gives
    another header, `mrcz.edit_header` changes that of a file. All attributes are those of
    `mrcz.container.header.fields.Fields`.
    """

    __slots__ = ()

    # ---- reading -------------------------------------------------------------------------------------------------

    @classmethod
    def parse(
        cls,
        raw: bytes,
        *,
        file_size: int | None = None,
        permissive: bool = False,
        signed_bytes: bool | None = None,
        path: Any = None,
    ) -> Header:
        """Understand the first 1024 bytes of a file.

        Parameters
        ----------
        raw : bytes-like
            At least 1024 bytes; the first 1024 are used.
        file_size : int, optional
            Bytes of the whole file. Without it no size is checked against what is there.
        permissive : bool
            Give what can be given of a damaged file: each defect becomes a `FormatWarning` and an entry of `oddities`,
            and nz the number of frames that are there.
        signed_bytes : bool, optional
            Mode 0 is signed (True) or unsigned (False), whatever the header says.
        path : path-like, optional
            Named in errors.

        Raises
        ------
        HeaderError
            A field is impossible, contradicts another, or promises more than the file holds.
        FormatError
            This is not an MRC file at all.
        """
        raw = bytes(raw[:HEADER_NBYTES])
        if len(raw) < HEADER_NBYTES:
            what = identify(raw)
            raise HeaderError(
                f"the file ends inside the header: {len(raw)} bytes found, {HEADER_NBYTES} expected"
                + (f" (it looks like {what})" if what else ""),
                field="header",
                found=len(raw),
                expected=HEADER_NBYTES,
                path=path,
            )
        found = Parser(raw, file_size, permissive, signed_bytes, path).fields()
        return cls(*(getattr(found, name) for name in _FIELDS))

    def tobytes(self) -> bytes:
        """The 1024 bytes, exactly as read or built."""
        return self.raw

    def replace(self, **fields: Unpack[StoredFields]) -> Header:
        """A new header with some stored fields changed (names of `HEADER_DTYPE`); `label` takes a list of strings.

        The result is parsed again, without a file to compare with. A clipped `nz` stays clipped unless given.

        Raises
        ------
        KeyError
            No such field.
        HeaderError
            The fields contradict each other.
        """
        record = writable(self.record.tobytes(), self.byteorder)
        for name, value in cast(Mapping[str, Any], fields).items():
            if name not in (HEADER_DTYPE.names or ()):
                raise KeyError(f"no header field is called {name!r}")
            if name == "label":
                set_labels(record, [label_bytes(text) for text in value])
            elif HEADER_DTYPE[name].kind == "S" and isinstance(value, str):
                record[name] = value.encode("latin-1")
            elif HEADER_DTYPE[name].kind == "V" and HEADER_DTYPE[name].subdtype is None:
                record[name] = np.void(bytes(value).ljust(HEADER_DTYPE[name].itemsize, b"\0"))
            else:
                record[name] = value
        signed = None
        if self.bytes_rule == RULE_ARGUMENT:
            signed = self.pixel_format.dtype.kind == "i"
        new = Header.parse(record.tobytes(), signed_bytes=signed)
        if "nz" not in fields and self.nz != int(self.record["nz"]):
            new = dataclasses.replace(new, nz=self.nz)
        return new

    # ---- assignment, which would do nothing to any file --------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(_instead(name))

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(_instead(name))

    def __setitem__(self, name: str, value: Any) -> NoReturn:
        raise TypeError(_instead(name))

    # ---- fields as stored ----------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Any:
        if name == "label":
            return tuple(bytes(label) for label in self.record["label"])
        if name not in self:
            raise KeyError(f"no header field is called {name!r}")
        value = self.record[name]
        if isinstance(value, np.ndarray):
            return tuple(value.tolist())
        return value.tobytes() if isinstance(value, np.void) else value.item()

    if not TYPE_CHECKING:  # a type checker should not take every name for one of ours

        def __getattr__(self, name: str) -> Any:
            """Fields without a property of their own, as users of mrcfile write them: ``header.dmin``."""
            if name.startswith("_") or name not in (HEADER_DTYPE.names or ()):
                raise AttributeError(f"no header field is called {name!r}")
            return self[name]

    def __contains__(self, name: object) -> bool:
        return name in (HEADER_DTYPE.names or ())

    def keys(self) -> tuple[str, ...]:
        """Names of the stored fields, in their order."""
        return HEADER_DTYPE.names or ()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Header):
            return NotImplemented
        return self.raw == other.raw and self.shape == other.shape and self.pixel_format == other.pixel_format

    def __hash__(self) -> int:
        return hash(self.raw)

    def __reduce__(self) -> tuple[Any, ...]:
        # A record as its bytes: NumPy would pickle its dtype with it, field by field.
        rest = {name: getattr(self, name) for name in _FIELDS if name not in ("raw", "record")}
        return (_restore, (self.raw, self.record.tobytes(), rest))

    def __repr__(self) -> str:
        word = int(self.record["mode"])
        return f"<Header {self.kind} nz={self.nz} ny={self.ny} nx={self.nx} mode={word} {self.pixel_format.dtype.str}>"

    # ---- writing -------------------------------------------------------------------------------------------------

    # Over 60 lines for what it takes and says of it; the steps stand in build.py.
    @classmethod
    def build(
        cls,
        shape: Sequence[int],
        pixel_format: PixelFormat,
        *,
        pixel_size: float | Sequence[float] | None = None,
        kind: str | None = None,
        codec: str | int | None = None,
        stats: Sequence[float] | None = None,
        labels: Iterable[str] = (),
        exttyp: str | None = None,
        nsymbt: int | None = None,
        byteorder: str | None = None,
        like: Header | None = None,
        mz: int | None = None,
        slices: int = 0,
        whole_cell: bool = False,
        voltage: float | None = None,
        c3: float | None = None,
        gain: float | None = None,
        packed_bytes: int = 0,
        origin: Sequence[float] | None = None,
    ) -> Header:
        """A header for new pixels, as MRC2014 (20141) wants it.

        Parameters
        ----------
        shape : (nz, ny, nx)
        pixel_format : PixelFormat
        pixel_size : float or (x, y, z), optional
            Å. Default: that of `like`, else not known (CELLA 0).
        kind : {"image", "stack", "volume", "volume stack"}, optional
            Default: that of `like`, else an image or stack.
        codec : str or int, optional
            Name or number; None writes an uncompressed file.
        stats : (dmin, dmax, dmean, rms), optional
            Of all pixels. Default: marked as not computed. Those of `like` are of other pixels unless the caller says
            that they are not (``stats=like.stats``).
        labels : iterable of str
            Added after the labels of `like` and ours, up to ten.
        exttyp, nsymbt : str, int, optional
            Type and bytes of the extended header. Default: those of `like`.
        byteorder : {'<', '>'}, optional
            Default: that of the pixels, of `like`, then little-endian.
        like : Header, optional
            Every field that describes the specimen is taken from it: cell, sampling, start, axes, angles, origin, space
            group, labels, IMOD's fields, extra space.
        mz : int, optional
            Sections of one volume, for a volume stack; else MZ follows from `kind` or `like`.
        slices : int
            What older versions of mrcz return: 0 one array, 1 a list of images, n a list of volumes of n sections.
        whole_cell : bool
            CELLA z spans all sections even of an image stack, whose MZ is 1: mrcz before 1.0 divides it by NZ.
        voltage, c3, gain : float, optional
            kV, mm, counts per electron.
        packed_bytes : int
            Bytes of all chunks; written again with :meth:`replace` once known.
        origin : (x, y, z), optional
            Å. Default: that of `like`, else 0.

        Raises
        ------
        ValueError
            A wrong argument.
        """
        nz, ny, nx = (int(n) for n in shape)
        if min(nx, ny, nz) < 1 or max(nx, ny, nz) > 2**31 - 1:
            raise ValueError(f"shape {(nz, ny, nx)} does not fit into a header: each axis takes 1 to 2147483647")
        word = mode_word(pixel_format.mode, codec)
        compressed = word >= 1000
        frame_nbytes = pixel_format.frame_nbytes(ny, nx)
        if compressed and frame_nbytes > FRAME_MAX:
            raise ValueError(f"a frame of {frame_nbytes} bytes is too large to compress: one chunk takes {FRAME_MAX}")
        order = build_order(byteorder, pixel_format, like)
        record = np.zeros((), DTYPES[order])
        if like is not None:
            record = writable(like.record.tobytes(), like.byteorder).astype(DTYPES[order])

        record["nx"], record["ny"], record["nz"], record["mode"] = nx, ny, nz, word
        set_axes(record, like)
        kind = set_kind(record, kind, nz, like)
        true_mz = set_cell(record, (nx, ny, nz), kind, mz, pixel_size, compressed or whole_cell, like)
        record["map"] = b"MAP "
        record["machst"] = (0x44, 0x44, 0, 0) if order == "<" else (0x11, 0x11, 0, 0)
        # IMOD takes FEI files of version 20140 as upside down, so that number is kept where it was.
        if int(record["nversion"]) not in (20140, 20141):
            record["nversion"] = 20141
        if origin is not None:
            record["origin"] = tuple(float(v) for v in origin)
        with np.errstate(over="ignore"):
            record["dmin"], record["dmax"], record["dmean"], record["rms"] = NOT_COMPUTED if stats is None else stats
        set_extended(record, exttyp, nsymbt)
        set_imod(record, pixel_format)
        if pixel_format.dtype.kind == "f":
            drop_counts_label(record)
        if add_labels(record, list(labels), compressed):
            old = like if like is not None and like.is_mrcz else None
            record["voltage"] = first_given(voltage, old and old.voltage, 0.0)
            record["c3"] = first_given(c3, old and old.c3, 0.0)
            record["gain"] = first_given(gain, old and old.gain, 1.0)
            record["packed_bytes"] = packed_bytes if compressed else 0
            record["mrcz_mz"] = true_mz if compressed else nz if whole_cell and true_mz != nz else 0
            record["mrcz_slices"] = 0 if compressed else slices
        if compressed:
            record["mz"] = slices
        return cls.parse(record.tobytes())


def claimed_nbytes(head: bytes, path: Any) -> int:
    """Bytes of the file that begins with these 1024, at most; FormatError if it is no MRC file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FormatWarning)
        header = Header.parse(head, permissive=True, path=path)
    # A chunk that does not shrink is its frame, a header and a table of blocks.
    frame = header.frame_nbytes + (header.frame_nbytes // 64 + 4096 if header.compressed else 0)
    return header.data_offset + max(header.nz, 1) * frame


_FIELDS = tuple(field.name for field in dataclasses.fields(Fields))


def _restore(raw: bytes, record: bytes, rest: dict[str, Any]) -> Header:
    return Header(raw=raw, record=np.frombuffer(record, DTYPES[rest["byteorder"]])[0], **rest)


def _instead(name: str) -> str:
    """What to do where somebody assigns to a header."""
    text = f"a Header does not change ({name!r})"
    stored = name in (HEADER_DTYPE.names or ())
    if stored:
        text += f": header.replace({name}=...) gives another one"
    if name in FIXED:
        return f"{text}; mrcz.edit_header does not set it by itself: {FIXED[name]}"
    meant = {"stats": "statistics", "voxel_size": "pixel_size", "nstart": "start"}.get(name, name)
    if not (stored or meant in ("labels", "statistics", "pixel_size", "kind", "start")):
        return f"{text}: header.replace(...) gives another one, mrcz.edit_header(path, ...) changes the one in a file"
    return f"{text}{',' if stored else ':'} mrcz.edit_header(path, {meant}=...) changes the one in a file"
