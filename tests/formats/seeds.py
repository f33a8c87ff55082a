"""Small valid files of each format, for what damages them: one function a format, which gives their paths."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np


def packed_tiff(path: Path, stack: np.ndarray, bits: int, order: str = "<", compression: str | None = None) -> None:
    """A stack (nz, ny, nx) of samples of so many bits (TIFF 6.0 page 29): the first has the highest bits of a byte,
    and each row begins with a new one. tifffile writes the bytes, and the tags are set to what they are."""
    import tifffile

    nz, ny, nx = stack.shape
    raw = np.zeros((nz, ny, (nx * bits + 7) // 8), "u1")
    for row, out in zip(stack.reshape(-1, nx), raw.reshape(-1, raw.shape[-1]), strict=True):
        text = "".join(f"{value:0{bits}b}" for value in row.tolist())
        out[:] = [int(text[k : k + 8].ljust(8, "0"), 2) for k in range(0, len(text), 8)]
    tifffile.imwrite(path, raw, byteorder=order, compression=compression, photometric="minisblack", metadata=None)
    made = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        for page in file.pages:
            page = page.aspage()
            struct.pack_into(f"{order}HIH2x", made, page.tags[258].offset + 2, 3, 1, bits)
            struct.pack_into(f"{order}HII", made, page.tags[256].offset + 2, 4, 1, nx)
    path.write_bytes(made)


def seeds_tiff(folder: Path) -> list[Path]:
    """Movies of 3 frames: each compression, strips and tiles, both byte orders, BigTIFF, packed, ImageJ, OME, RGB."""
    import tifffile

    stack = np.random.default_rng(1).poisson(1, (3, 9, 11)).astype("u2")
    words = {"photometric": "minisblack", "metadata": None}
    made = {
        "plain": {**words, "resolution": (8e7, 8e7), "resolutionunit": 3, "datetime": "2024:05:06 07:08:09"},
        "lzw": {**words, "compression": "lzw", "rowsperstrip": 4},
        "deflate": {**words, "compression": "adobe_deflate", "predictor": 2, "byteorder": ">"},
        "zstd": {**words, "compression": "zstd", "bigtiff": True, "byteorder": ">"},
        "packbits": {**words, "compression": "packbits", "bigtiff": True},
        "tiles": {**words, "compression": "lzw", "tile": (16, 16)},
        "imagej": {"imagej": True, "resolution": (4, 4), "metadata": {"unit": "nm", "axes": "ZYX"}},
        "ome": {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1}},
        "truncated": {"photometric": "minisblack", "truncate": True},
    }
    paths = []
    for name, how in made.items():
        paths.append(folder / f"{name}.tif")
        tifffile.imwrite(paths[-1], stack, **how)
    paths.append(folder / "float.tif")
    tifffile.imwrite(paths[-1], stack.astype("f4"), compression="zstd", predictor=3, **words)
    paths.append(folder / "four.tif")
    packed_tiff(paths[-1], stack.astype("u1"), 4)
    paths.append(folder / "rgb.tif")
    tifffile.imwrite(paths[-1], np.stack([stack.astype("u1")] * 3, -1), photometric="rgb", metadata=None)
    return paths
