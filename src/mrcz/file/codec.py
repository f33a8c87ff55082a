"""How frames are compressed: one frozen choice of codec, level or profile, filter, block size and packing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from mrcz.container.modes import CODEC_NUMBERS, PixelFormat

__all__ = ["CODECS", "FILTERS", "PROFILES", "Codec"]

#: codecs that can be written, "none" for a plain MRC file
CODECS = ("none", "zstd", "lz4", "lz4hc", "zlib", "blosclz")
PROFILES = ("fast", "balanced", "small")
FILTERS = {"auto": -1, "none": 0, "shuffle": 1, "bitshuffle": 2}

_LEVELS = {"zstd": (1, 22), "lz4": (1, 9), "lz4hc": (1, 12), "zlib": (1, 9), "blosclz": (1, 9)}
_DEFAULT_LEVELS = {"lz4": 9, "lz4hc": 9, "zlib": 1, "blosclz": 9}


class CodecChoices(TypedDict, total=False):
    """What `Codec` takes besides a name and a level."""

    profile: str
    filter: str
    blocksize: int | None
    typesize: int | None
    split: bool
    checksum: bool
    pack: bool | str
    backend: str


@dataclass(frozen=True)
class Codec:
    """How to compress frames.

    Attributes
    ----------
    name : {"none", "zstd", "lz4", "lz4hc", "zlib", "blosclz"}
    level : int or None
        The codec's own level: zstd 1–22, lz4 and zlib 1–9 (more is smaller), lz4hc 1–12. None with zstd: by `profile`.
    profile : {"fast", "balanced", "small"}
        For zstd without a level: how each frame's method is chosen (docs/codec.md).
    filter : {"auto", "none", "shuffle", "bitshuffle"}
    blocksize : int or None
        Bytes of a Blosc block; None: what suits the frame.
    typesize : int or None
        Bytes the filters take as one item; None: of one pixel.
    split : bool
        One stream per byte of an item, as old Blosc versions split.
    checksum : bool
        zstd's content checksum in every block, which every zstd decoder verifies.
    pack : bool or "auto"
        4 bits a pixel. "auto": 8 bits if a pixel is above 15.
    backend : {"blosc", "blosc2"}
        "blosc2" writes version 5 chunks, which only mrcz 0.6 and later with blosc2 reads.
    """

    name: str = "zstd"
    level: int | None = None
    profile: str = "balanced"
    filter: str = "auto"
    blocksize: int | None = None
    typesize: int | None = None
    split: bool = False
    checksum: bool = True
    pack: bool | str = False
    backend: str = "blosc"

    def __post_init__(self) -> None:
        if self.name not in CODECS:
            raise ValueError(f"no codec is called {self.name!r}; there are {', '.join(CODECS)}")
        if self.profile not in PROFILES:
            raise ValueError(f"no profile is called {self.profile!r}; there are {', '.join(PROFILES)}")
        if self.filter not in FILTERS:
            raise ValueError(f"no filter is called {self.filter!r}; there are {', '.join(FILTERS)}")
        if self.backend not in ("blosc", "blosc2"):
            raise ValueError(f"backend is {self.backend!r}, expected 'blosc' or 'blosc2'")
        if self.pack not in (True, False, "auto"):
            raise ValueError(f"pack is {self.pack!r}, expected True, False or 'auto'")
        if self.level is not None and self.name != "none":
            low, high = _LEVELS[self.name]
            if not low <= self.level <= high:
                raise ValueError(f"{self.name} takes levels {low} to {high}, got {self.level}")
        if self.blocksize is not None and self.blocksize < 1:
            raise ValueError(f"blocksize must be positive, got {self.blocksize}")
        if self.typesize is not None and not 1 <= self.typesize <= 255:
            raise ValueError(f"typesize must be 1 to 255, got {self.typesize}")

    @classmethod
    def from_blosc(cls, name: str | None, clevel: int = 1, **choices: Unpack[CodecChoices]) -> Codec:
        """The codec of a Blosc name and compression level 0–9, as the old package takes them.

        Blosc's zstd levels 1 to 9 stand for zstd's 1, 3, 5, … 15 and 22; level 1 is our balanced profile, which is both
        smaller and faster. Level 0 stores without compressing, as the fastest there is: lz4 1.
        """
        if name in (None, "none"):
            return cls("none", **choices)
        clevel = int(clevel)
        if name == "zstd":
            if clevel <= 1:
                return cls("zstd", **choices)
            return cls("zstd", level=2 * clevel - 1 if clevel < 9 else 22, **choices)
        return cls(str(name), level=min(max(clevel, 1), 9), **choices)

    @property
    def is_compressed(self) -> bool:
        return self.name != "none"

    def blosc2_arguments(self, pixels: PixelFormat) -> dict[str, int]:
        """Arguments of `_cmrcz.chunk.encode_blosc2`."""
        level = self.level if self.level is not None else 1
        # Its levels are Blosc's 1 to 9; zstd's own levels are mapped back.
        if self.name == "zstd":
            level = 9 if level > 15 else (level + 1) // 2
        return {
            "codec": CODEC_NUMBERS[self.name] - 1,  # C-Blosc2 counts the same ones from 0
            "level": min(level, 9),
            "filter": 2 if self.filter == "auto" else FILTERS[self.filter],
            "typesize": self.typesize or _typesize(pixels),
            "blocksize": self.blocksize or 0,
        }

    def arguments(self, pixels: PixelFormat) -> dict[str, Any]:
        """Arguments of `_cmrcz.frames.write` for pixels stored like this."""
        if not self.is_compressed:
            return {"raw": True}
        level = self.level if self.level is not None else _DEFAULT_LEVELS.get(self.name, 1)
        if self.name == "lz4":
            level = 10 - level  # lz4 counts the other way round: acceleration
        elif self.name == "zlib":
            level = max(level, 2)  # zlib-ng's 1 is larger than any zlib's, its 2 smaller than zlib's 1 and quicker
        profile = PROFILES.index(self.profile) if self.name == "zstd" and self.level is None else -1
        return {
            "codec": CODEC_NUMBERS[self.name],
            "level": level,
            "profile": profile,
            "filter": FILTERS[self.filter],
            "typesize": self.typesize or _typesize(pixels),
            "split": self.split,
            "checksum": self.checksum,
            "blocksize": self.blocksize or 0,
        }


def _typesize(pixels: PixelFormat) -> int:
    """Bytes of one number of a pixel: both halves of a complex one look alike, so they are filtered alike."""
    if pixels.packed:
        return 1
    return pixels.stored.itemsize // (2 if pixels.stored.kind == "c" else 1)
