"""Small valid files of each format, for what damages them: one function a format, which gives their paths."""

from __future__ import annotations

from pathlib import Path

import numpy as np


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
    tifffile.imwrite(paths[-1], stack.astype("u1"), bitspersample=4, **words)
    paths.append(folder / "rgb.tif")
    tifffile.imwrite(paths[-1], np.stack([stack.astype("u1")] * 3, -1), photometric="rgb", metadata=None)
    return paths
