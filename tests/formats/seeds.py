"""Small valid files of each format, for what damages them: one function a format, which gives their paths."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from reference import eer_plain


def seeds_eer(folder: Path) -> list[Path]:
    """Electron events: each compression and way, several strips, a final image, both containers and byte orders."""
    rng = np.random.default_rng(15)
    shape, total = (16, 40), 640
    about = eer_plain.metadata([("dose", "e/pixel", "0.05"), ("timestamp", None, "2023-03-03T10:11:12.345+01:00")])
    said = eer_plain.metadata(
        [
            ("exposureTime", "s", "0.5"),
            ("numberOfFrames", None, "4"),
            ("sensorPixelSize.width", "m", "7e-11"),
            ("sensorPixelSize.height", "m", "7e-11"),
            ("totalDose", "e/pixel", "0.2"),
        ]
    )
    kinds = [
        ("vendor", 65000, (8, 2, 2), {}, {}, {}),
        ("relion", 65000, (8, 2, 2), {"wasteful": True}, {}, {}),
        ("falcon4", 65001, (7, 2, 2), {}, {"strips": 3, "orientation": 2}, {}),
        ("falconc", 65002, (7, 1, 1), {}, {}, {}),
        ("big-endian", 65001, (7, 2, 2), {}, {}, {"order": ">"}),
        ("classic", 65001, (7, 2, 2), {}, {}, {"big": False}),
    ]
    paths = []
    for name, compression, code, stream, fields, container in kinds:
        directories = []
        for k in range(4):
            pixels = np.flatnonzero(rng.random(total) < 0.05).tolist()
            places = rng.integers(0, 2 ** sum(code[1:]), len(pixels)).tolist()
            frame = eer_plain.encode(pixels, places, total, code, **stream)
            stored = code if compression == 65002 else None
            acquisition = said if k == 0 else None
            directories.append(
                eer_plain.eer_fields(
                    frame, shape, compression, code=stored, about=about, acquisition=acquisition, **fields
                )
            )
        if name == "falcon4":
            image = rng.integers(0, 999, shape).astype("u2")
            directories.insert(0, eer_plain.final_fields(image, about=about, acquisition=said))
        path = folder / f"{name}.eer"
        path.write_bytes(eer_plain.directory_file(directories, **container))
        paths.append(path)
    return paths


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


def seeds_npy(folder: Path) -> list[Path]:
    """Arrays of each version of the header, in both orders of bytes and of axes."""
    rng = np.random.default_rng(3)
    stack = rng.poisson(3, (3, 7, 9))
    kinds = {
        "short": (stack.astype("<i2"), (1, 0)),
        "big": (stack.astype(">u2"), (1, 0)),
        "single": (stack.astype("f4"), (2, 0)),
        "double": (stack[0].astype("f8"), (3, 0)),
        "fortran": (np.asfortranarray(stack.astype("u1")), (1, 0)),
        "bool": (stack > 3, (1, 0)),
        "complex": (stack.astype("c8"), (1, 0)),
    }
    paths = []
    for name, (array, version) in kinds.items():
        paths.append(folder / f"{name}.npy")
        with open(paths[-1], "wb") as file:
            np.lib.format.write_array(file, array, version)
    return paths
