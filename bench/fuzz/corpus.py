"""Files to start from: every mode, codec, writer and wrapper, small enough that thousands are tried a second."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zstandard

import mrcz

WRAPPERS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


@dataclass
class Seed:
    """One file: its bytes, its pixels, where its chunks lie, and its footer's bytes (empty if there is none)."""

    name: str
    data: bytes
    pixels: np.ndarray
    chunks: list[tuple[int, int]] = field(default_factory=list)
    footer: bytes = b""
    wrapper: str = ""


def _seed(name: str, path: Path) -> Seed:
    data = path.read_bytes()
    with mrcz.open(path, permissive=True) as reader:
        chunks = [(int(o), int(s)) for o, s in zip(reader.index.offsets, reader.index.sizes, strict=True)]
        footer = data[int.from_bytes(data[-64:-56], "little") :] if reader.footer else b""  # the trailer's first field
        return Seed(name, data, reader.read(), chunks, footer)


def build() -> list[Seed]:
    """The corpus, the same on every run."""
    rng = np.random.default_rng(12)
    seeds: list[Seed] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seed.mrcz"

        def write(name: str, stack: np.ndarray, **options: object) -> None:
            mrcz.write(path, stack, sync=False, **options)
            seeds.append(_seed(name, path))
            path.unlink()

        def counts(dtype: str, shape: tuple[int, ...] = (3, 12, 14)) -> np.ndarray:
            return rng.poisson(1.0, shape).astype(dtype)

        for dtype in ("i1", "u1", "i2", "u2", "f2", "f4", "c8"):
            for codec in ("zstd", "lz4", "zlib", "none"):
                write(f"{dtype} {codec}", counts(dtype), codec=codec)
        for codec in ("zstd", "none"):
            write(f"packed {codec}", counts("u1"), codec=codec, pack=True)
            write(f"packed, odd {codec}", counts("u1", (2, 7, 9)), codec=codec, pack=True)
        for codec in ("lz4hc", "blosclz"):
            write(codec, counts("u2"), codec=codec)
        for codec in ("zstd", "lz4", "lz4hc", "zlib", "blosclz"):
            write(f"blosc2 {codec}", counts("u2"), codec=mrcz.Codec(codec, backend="blosc2"))
        write("blosc2 zeros", np.zeros((3, 12, 14), "u2"), codec=mrcz.Codec("zstd", backend="blosc2"))
        for name, choice in (
            ("split", {"split": True, "filter": "shuffle", "typesize": 2}),
            ("small", {"profile": "small"}),
            ("level", {"level": 5}),
            ("blocks", {"blocksize": 1024}),
            ("no checksum", {"checksum": False}),
        ):
            write(name, counts("u2", (2, 60, 70)), codec=mrcz.Codec("zstd", **choice))
        metadata = {"dose": 1.5, "name": "grid 3", "tilts": [1, 2.5, None], "gain": np.ones((2, 3)), "more": {"a": "x"}}
        for codec in ("zstd", "none"):
            write(f"metadata {codec}", counts("u1"), codec=codec, metadata=metadata, pixel_size=0.83)
        write("many", counts("u1", (40, 4, 5)), metadata={"frames": list(range(40))})
        write("one image", counts("u1", (12, 14)))
    golden = Path(__file__).resolve().parents[2] / "tests" / "golden"
    for file in sorted(golden.glob("*.mrc*")):
        if file.stat().st_size < 8000:
            seeds.append(_seed(f"golden {file.name}", file))
    for wrapper, compress in WRAPPERS.items():
        for seed in (s for s in list(seeds) if s.name in ("u1 zstd", "i2 none", "metadata zstd")):
            seeds.append(Seed(f"{seed.name} in {wrapper}", compress(seed.data), seed.pixels, wrapper=wrapper))
    return seeds
