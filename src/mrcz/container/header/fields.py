"""What a header says: the fields as stored, and what follows from them. Frozen, and made by `parse.Parser` alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mrcz.container.header.layout import HEADER_NBYTES, IMOD_STAMP, default_mz, release_numbers
from mrcz.container.modes import PixelFormat

__all__ = ["Fields"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Fields:
    """What 1024 bytes say about a file.

    Attributes
    ----------
    raw : bytes
        The 1024 bytes as they are in the file.
    record : numpy.void
        Their fields, read-only, of `HEADER_DTYPE` in the byte order of the file.
    byteorder : {'<', '>'}
    nx, ny, nz : int
        Columns, rows and sections that are really there: 4-bit frames stored with their columns halved are widened, and
        nz counts the frames in the file where the header claims more (``permissive``).
    mode : int
        Without the codec. 101 for half-width 4-bit files, whose stored mode is 0.
    codec_number : int
        0: not compressed. Advisory: each chunk says what it holds.
    pixel_format : PixelFormat
    bytes_rule : str
        What decided that bytes are signed or not (mode 0); empty for other modes.
    nsymbt : int
        Bytes of extended header.
    mrcz_version : str or None
        Version in the MRCZ label; None without one.
    oddities : tuple of str
        What is unusual about this header, in words; empty for a file as the standard has it.
    """

    raw: bytes
    record: np.void
    byteorder: str
    nx: int
    ny: int
    nz: int
    mode: int
    codec_number: int
    pixel_format: PixelFormat
    bytes_rule: str
    nsymbt: int
    mrcz_version: str | None
    oddities: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(nz, ny, nx)"""
        return (self.nz, self.ny, self.nx)

    @property
    def frame_nbytes(self) -> int:
        """Stored bytes of one uncompressed frame."""
        return self.pixel_format.frame_nbytes(self.ny, self.nx)

    @property
    def compressed(self) -> bool:
        return self.codec_number > 0

    @property
    def data_offset(self) -> int:
        """Where the first frame (or chunk) begins."""
        return HEADER_NBYTES + self.nsymbt

    @property
    def exttyp(self) -> str:
        """Type of the extended header: CCP4, MRCO, SERI, AGAR, FEI1, FEI2, HDF5, json; empty where none is given."""
        return bytes(self.record["exttyp"]).decode("latin-1").strip("\0 ")

    @property
    def is_half_width(self) -> bool:
        """4-bit pixels stored as bytes with the columns halved (SerialEM)."""
        return self.pixel_format.packed and int(self.record["mode"]) % 1000 == 0

    @property
    def kind(self) -> str:
        """``"image"``, ``"stack"``, ``"volume"`` or ``"volume stack"``, by ISPG (and nz)."""
        ispg = int(self.record["ispg"])
        if 401 <= ispg <= 630:
            return "volume stack"
        if 1 <= ispg <= 400:
            return "volume"
        return "image" if self.nz == 1 else "stack"

    @property
    def mz(self) -> int:
        """MZ as the standard means it: sections of the cell, or of one volume of a stack.

        Compressed files keep the slices of a frame in that field and MZ itself elsewhere.
        """
        stored = int(self.record["mz"])
        if not self.mz_is_slices:
            return stored
        kept = int(self.record["mrcz_mz"])
        if self.mrcz_release >= (1,) and kept > 0:
            return kept
        return default_mz(self.kind, self.nz)

    @property
    def slices(self) -> int | None:
        """Slices a frame, if an MRCZ label makes that known: 0 one array, 1 a list of images, n of volumes."""
        release = self.mrcz_release
        if not release:
            return None
        if release < (0, 5):  # wrote NZ there
            return 1
        stored = int(self.record["mz" if self.mz_is_slices else "mrcz_slices"])
        return max(stored, 0)

    @property
    def pixel_size(self) -> tuple[float, float, float]:
        """Pixel size along x, y, z in Å: CELLA / (MX, MY, MZ); 0 where that is not defined.

        Where MX, MY and MZ of an MRCZ file do not hold the sampling (mrcz 0.6 writes 0, 0 and the slices a frame), the
        cell is divided by NX, NY, NZ, which is what those versions mean by it.
        """
        sizes = [size if math.isfinite(size) and size > 0 else 0.0 for size in self.spacing[0]]
        return (sizes[0], sizes[1], sizes[2])

    @property
    def sampling(self) -> list[int]:
        """MX, MY, MZ as the standard means them, for the true columns; 0 or less where not defined."""
        mx, my = int(self.record["mx"]), int(self.record["my"])
        if self.is_half_width and mx == int(self.record["nx"]):
            mx = self.nx
        return [mx, my, self.mz]

    @property
    def spacing(self) -> tuple[list[float], list[int]]:
        """CELLA / n along x, y, z with its sign, and the n: MX, MY, MZ, or what older versions of mrcz divide by."""
        divisors = [int(self.record[name]) for name in ("mx", "my", "mz")]
        if self.mrcz_version or self.compressed:
            size = [int(self.record["nx"]), self.ny, int(self.record["nz"])]
            divisors = [m if m > 0 else n for m, n in zip(divisors, size, strict=True)]
            if self.mz_is_slices:
                divisors[2] = size[2]
            elif self.cell_sections:
                divisors[2] = self.cell_sections
        cell = [float(edge) for edge in self.record["cella"]]
        return [edge / n if n > 0 else 0.0 for edge, n in zip(cell, divisors, strict=True)], divisors

    @property
    def origin(self) -> tuple[float, float, float]:
        """ORIGIN x, y, z in Å, as stored."""
        x, y, z = self.record["origin"].tolist()
        return (x, y, z)

    @property
    def axes(self) -> tuple[int, int, int]:
        """Axes of columns, rows and sections, 1 x, 2 y, 3 z; (1, 2, 3) where the fields are no permutation."""
        axes = tuple(int(self.record[name]) for name in ("mapc", "mapr", "maps"))
        return axes if sorted(axes) == [1, 2, 3] else (1, 2, 3)  # type: ignore[return-value]

    @property
    def stats(self) -> tuple[float, float, float, float]:
        """(DMIN, DMAX, DMEAN, RMS) as stored."""
        return tuple(float(self.record[name]) for name in ("dmin", "dmax", "dmean", "rms"))  # type: ignore[return-value]

    @property
    def labels(self) -> list[str]:
        """Labels with text, trailing blanks removed."""
        labels = []
        for raw in map(bytes, self.record["label"]):
            if raw.strip(b"\0 \t\r\n"):
                try:
                    text = raw.decode("utf-8")
                except UnicodeDecodeError:
                    text = raw.decode("latin-1")
                labels.append(text.rstrip("\0 \t\r\n"))
        return labels

    @property
    def is_mrcz(self) -> bool:
        """A label says that mrcz wrote this (which gives bytes 132 to 151 their meaning)."""
        return self.mrcz_version is not None

    @property
    def voltage(self) -> float | None:
        """Accelerating voltage in kV; None without an MRCZ label."""
        return float(self.record["voltage"]) if self.mrcz_version else None

    @property
    def c3(self) -> float | None:
        """Spherical aberration in mm; None without an MRCZ label."""
        return float(self.record["c3"]) if self.mrcz_version else None

    @property
    def gain(self) -> float | None:
        """Counts per electron; None without an MRCZ label."""
        return float(self.record["gain"]) if self.mrcz_version else None

    @property
    def packed_bytes(self) -> int | None:
        """Bytes of all chunks; None without an MRCZ label."""
        return int(self.record["packed_bytes"]) if self.mrcz_version else None

    @property
    def imod_flags(self) -> int | None:
        """IMOD's flags; None where its stamp is missing."""
        return int(self.record["imod_flags"]) if int(self.record["imod_stamp"]) == IMOD_STAMP else None

    @property
    def mrcz_release(self) -> tuple[int, ...]:
        return release_numbers(self.mrcz_version)

    @property
    def mz_is_slices(self) -> bool:
        """MZ follows mrcz 0.5's convention: any file that an older mrcz wrote, and every compressed one."""
        release = self.mrcz_release
        return bool(release) and (self.compressed or release < (1,))

    @property
    def cell_sections(self) -> int:
        """Sections CELLA z spans where that is not MZ; 0 where it is, as in all but files of the old surface."""
        if self.compressed or self.mrcz_release < (1,):
            return 0
        return max(int(self.record["mrcz_mz"]), 0)
