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


_FRAMES = """T = SerialEM: a microscope   08-Oct-21  07:38:24
Voltage = 300

[FrameSet = 0]
TiltAngle = 32.984
StagePosition = -142.82 -457.442
StageZ = -13.7196
ExposureDose = 7.65892
PixelSpacing = 1.2827
SpotSize = 9
Defocus = -5.08
Binning = 0.5
SubFramePath = X:\\\\frames\\\\frames.tif
NumSubFrames = 3
FrameDosesAndNumber = 0.6 2  0.7 1
DateTime = 08-Oct-21  07:39:08
RotationAndFlip = 7
UncroppedSize = -9 -7
"""
_SERIES = """PixelSpacing = 5.4
ImageFile = series.npy
ImageSize = 9 7
[T =     Tilt axis angle = 85.3, binning = 4  spot = 8  camera = 2]
""" + "".join(
    f"[ZValue = {k}]\nTiltAngle = {3 * k}\nSubFramePath = D:\\movies\\movie_{k}.mrc\nMinMaxMean = 5 6 7\n\n"
    for k in range(3)
)
_EPU = """<MicroscopeImage xmlns="http://schemas.datacontract.org/2004/07/Fei.SharedObjects"><CustomData
xmlns:a="http://schemas.microsoft.com/2003/10/Serialization/Arrays"><a:KeyValueOfstringanyType><a:Key>Dose</a:Key>
<a:Value>1.45E+21</a:Value></a:KeyValueOfstringanyType></CustomData><SpatialScale><pixelSize><x><numericValue>1.05E-10
</numericValue><unit><Symbol>m</Symbol></unit></x><y><numericValue>1.05E-10</numericValue><unit><Symbol>m</Symbol></unit>
</y></pixelSize></SpatialScale><microscopeData><acquisition><acquisitionDateTime>2025-01-08T15:49:21.1049704+00:00
</acquisitionDateTime><camera><Binning><x>2</x><y>2</y></Binning><ExposureTime>0.89</ExposureTime><ReadoutArea><height>7
</height><width>9</width></ReadoutArea></camera></acquisition><gun><AccelerationVoltage>300000</AccelerationVoltage></gun>
<optics><SpotIndex>5</SpotIndex></optics><stage><Position><A>-0.01</A><X>-9.7E-05</X><Y>1E-04</Y><Z>0</Z></Position>
</stage></microscopeData></MicroscopeImage>"""


def seeds_beside(folder: Path) -> list[Path]:
    """Movies beside which there are files that tell of them: an .mdoc of frames, one of a series, XML of EPU."""
    paths = [folder / f"{name}.npy" for name in ("frames", "series", "FoilHole_1_Fractions", "movie_1")]
    for path in paths:
        np.save(path, np.ones((3, 7, 9), "u1"))
    (folder / "frames.npy.mdoc").write_text(_FRAMES)
    (folder / "series.npy.mdoc").write_text(_SERIES)
    (folder / "movie_1.xml").write_text(_EPU)
    (folder / "FoilHole_1_Fractions.xml").write_text(_EPU)
    return paths


def seeds_mrc(folder: Path) -> list[Path]:
    """MRC files with an extended header of each kind that tells of the acquisition."""
    import mrcz
    from mrcz.container.extended import FEI1_DTYPE, FEI2_DTYPE

    paths = []
    for kind, dtype in (("FEI1", FEI1_DTYPE), ("FEI2", FEI2_DTYPE)):
        records = np.zeros(3, dtype)
        records["Metadata size"] = dtype.itemsize
        for mask in range(1, 5):
            records[f"Bitmask {mask}"] = 0xFFFFFFFF
        records["HT"], records["Dose"], records["Timestamp"], records["Pixel size X"] = 3e5, 5e21, 43018.5, 1e-10
        paths.append(folder / f"{kind}.mrc")
        mrcz.write(paths[-1], np.ones((3, 7, 9), "i2"), pixel_size=1.3)
        raw = bytearray(paths[-1].read_bytes())
        struct.pack_into("<i", raw, 92, records.nbytes)
        raw[104:108] = kind.encode()
        raw[1024:1024] = records.tobytes()
        paths[-1].write_bytes(raw)
    raw = bytearray(raw)
    del raw[1024 : 1024 + records.nbytes]
    raw[104:108] = b"SERI"
    sections = b"".join(struct.pack("<6h", tilt, 25, -50, 330, 320, -16 * 256) for tilt in (-6001, 7, 9))
    struct.pack_into("<i", raw, 92, len(sections))
    struct.pack_into("<2h", raw, 128, 12, 1 | 4 | 8 | 32)
    raw[1024:1024] = sections
    paths.append(folder / "SERI.mrc")
    paths[-1].write_bytes(raw)
    return paths
