"""Small valid files of each format, for what damages them: one function a format, which gives their paths."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
from made_dm import Maker
from reference import eer_plain


def mib_head(number=1, shape=(4, 64), kind="U08", depth=6, chips=1, arrangement="1x1", length=384, newer=True):
    """A frame's header of text, as Merlin software writes it (values of a real file)."""
    chip = "3RX,011,511,000,000,000,000,000,000,175,010,200,125,100,100,093,100,099,030,128,004,255,140,128,191,179,"
    chip += "511,511,"
    text = (
        f"MQ1,{number:06d},{length:05d},{chips:02d},{shape[1]:04d},{shape[0]:04d},{kind},   {arrangement},"
        f"{(1 << chips) - 1:02X},2021-04-15 14:43:09.{number:06d},0.001000,0,0,0,"
        + "2.000000E+0,5.110000E+2,"
        + "0.000000E+0," * 6
        + chip * chips
    )
    if newer:
        text += f"MQ1A,2021-04-15T13:43:09.{number:06d}701Z,1000000ns,{depth},"
    return text.encode().ljust(length, b"\0")


def mib_words(frame: np.ndarray, depth: int) -> bytes:
    """Rows of one chip as raw words of 64 bits, the first pixel in the lowest bits; frame (ny, nx)."""
    if depth == 24:
        return mib_words(frame >> 12, 12) + mib_words(frame & 0xFFF, 12)
    inside = {1: 64, 6: 8, 12: 4}[depth]
    shifts = np.arange(inside, dtype="u8") * np.uint64(64 // inside)
    words = (frame.reshape(-1, inside).astype("u8") << shifts).sum(1, dtype="u8")
    return words.astype(">u8").tobytes()


def mib_quad(frame: np.ndarray) -> np.ndarray:
    """A frame (2 ny, 2 nx) of 2 × 2 chips as their rows lie side by side in raw words, (ny, 4 nx)."""
    ny, nx = frame.shape[0] // 2, frame.shape[1] // 2
    below = frame[ny:][::-1, ::-1]  # turned by 180°: its left half is now the lower right chip
    return np.hstack([below[:, :nx], below[:, nx:], frame[:ny, nx:], frame[:ny, :nx]])


def seeds_mib(folder: Path) -> list[Path]:
    """Two frames each: processed, raw of one chip, raw of four."""
    rng = np.random.default_rng(15)
    found = []
    for name, kind, depth in [("u08", "U08", 6), ("u16", "U16", 12), ("r1", "R64", 1), ("r12", "R64", 12)]:
        raw = b""
        for number in (1, 2):
            frame = rng.integers(0, 1 << depth, (4, 64)).astype("u4")
            pixels = mib_words(frame, depth) if kind == "R64" else frame.astype(f">u{int(kind[1:]) // 8}").tobytes()
            raw += mib_head(number, (4, 64), kind, depth) + pixels
        (folder / f"{name}.mib").write_bytes(raw)
        found.append(folder / f"{name}.mib")
    quad = mib_quad(rng.integers(0, 64, (4, 32)).astype("u4"))
    head = mib_head(1, quad.shape, "R64", 6, 4, "2x2", 768)
    (folder / "quad.mib").write_bytes(head + mib_words(quad, 6))
    return [*found, folder / "quad.mib"]


def seq_bytes(frames, version=5, step=None, told=None, seconds=1435776075, change=()):
    """A .seq file of frames (nz, ny, nx); `change`: (form, place, value) of fields of the header."""
    nz, ny, nx = frames.shape
    bits = frames.dtype.itemsize * 8
    size = ny * nx * bits // 8
    step = step or size + 16
    head = bytearray(b"\xed\xfe\0\0" + "Norpix seq".encode("utf-16-le").ljust(24, b"\0"))
    head += struct.pack("<ii", version, 1024) + "made by hand".encode("utf-16-le").ljust(512, b"\0")
    head += struct.pack("<9Id", nx, ny, bits, bits, size, 100, nz if told is None else told, 0, step, 25.0)
    head = head.ljust(8192 if version >= 5 else 1024, b"\0")
    for form, at, value in change:
        struct.pack_into(form, head, at, value)
    body = b""
    for k, frame in enumerate(frames):
        time = struct.pack("<IHH", seconds + k, 775, 430) if version >= 5 else struct.pack("<IH", seconds + k, 775)
        body += (frame.astype(frame.dtype.newbyteorder("<")).tobytes() + time).ljust(step, b"\0")
    return bytes(head) + body


def seeds_seq(folder: Path) -> list[Path]:
    """Three small frames each: versions 3 and 5, 8 and 16 bits."""
    rng = np.random.default_rng(15)
    found = []
    for version in (3, 5):
        for dtype in ("u1", "u2"):
            path = folder / f"v{version}-{dtype}.seq"
            path.write_bytes(seq_bytes(rng.integers(0, 200, (3, 4, 5)).astype(dtype), version))
            found.append(path)
    return found


def seeds_dm(folder: Path) -> list[Path]:
    """Two small frames each: DM3 and DM4, both byte orders, complex pixels and colours, with some tags."""
    rng = np.random.default_rng(15)
    found = []
    for version, order in ((3, "<"), (4, "<"), (4, ">")):
        make = Maker(version, order)
        said = dm_tags(make, {("Microscope Info", "Voltage"): 3e5, ("Microscope Info", "Microscope"): "Titan"})
        pixels = rng.integers(0, 99, (2, 3, 4)).astype("i2")
        path = folder / f"v{version}{'le' if order == '<' else 'be'}.dm{version}"
        path.write_bytes(make.file(make.image(np.ones((2, 2), "i2")), make.image(pixels, said, data_type=1)))
        found.append(path)
    make = Maker()
    cube = rng.normal(size=(2, 2, 6)).astype("f4")
    path = folder / "complex.dm4"
    path.write_bytes(
        make.file(make.image(cube, data=make.value("Data", [20, 6, 24], cube.tobytes()), data_type=3, dims=[3, 2, 2]))
    )
    data = make.value("Data", [20, 5, 6], rng.integers(0, 1 << 24, 6).astype("<u4").tobytes())
    (folder / "rgb.dm4").write_bytes(make.file(make.image(cube, data=data, data_type=23, dims=[3, 2])))
    return [*found, path, folder / "rgb.dm4"]


def dm_tags(make: Maker, values, name="ImageTags"):
    """A group of tags from paths to numbers (stored as doubles) and texts."""
    inner = {}
    for where, value in values.items():
        inner.setdefault(where[0], {})[where[1:]] = value
    children = []
    for key, below in inner.items():
        if () in below:
            value = below[()]
            children.append(make.string(key, value) if isinstance(value, str) else make.scalar(key, 7, "d", value))
        else:
            children.append(dm_tags(make, below, key))
    return make.group(name, *children)


SER_TYPES = {"u1": 1, "u2": 2, "u4": 3, "i1": 4, "i2": 5, "i4": 6, "f4": 7, "f8": 8, "c8": 9, "c16": 10}


def ser_bytes(
    frames, version=0x220, total=None, steps=(2e-10, 3e-10), seconds=1318987126, dimensions=None, kind=0x4122
):
    """A .ser of images, top row first here as everywhere; `total` images planned, those that are there come first."""
    total = len(frames) if total is None else total
    number, width = ("i", 4) if version == 0x210 else ("q", 8)
    names = b""
    for size in dimensions or [total]:
        names += struct.pack("<iddii", size, 0, 1, 0, 6) + b"Number" + struct.pack("<i", 1) + b"s"
    start = 26 + width + len(names)
    head = struct.pack("<HHHIIii", 0x4949, 0x197, version, kind, 0x4152, total, len(frames))
    head += struct.pack("<" + number + "i", start, len(dimensions or [total])) + names
    at, offsets, tags, body = start + 2 * total * width, [], [], b""
    for k, frame in enumerate(frames):
        pixels = np.asarray(frame)[::-1]
        offsets.append(at + len(body))
        body += struct.pack("<ddiddi", -1e-9, steps[0], 0, -1e-9, steps[1], 0)
        body += struct.pack("<hii", SER_TYPES[pixels.dtype.str[1:]], pixels.shape[1], pixels.shape[0])
        body += pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
        tags.append(at + len(body))
        body += struct.pack("<HHI", 0x4152, 0, seconds + k)
    gap = [0] * (total - len(frames))
    return head + struct.pack(f"<{2 * total}{number}", *offsets, *gap, *tags, *gap) + body


def seeds_ser(folder: Path) -> list[Path]:
    """Three small images each: both versions, integers and complex; one of five planned."""
    rng = np.random.default_rng(15)
    found = []
    for name, version, dtype, total in (("a_1", 0x210, "u2", 3), ("b_1", 0x220, "c8", 3), ("c_1", 0x220, "i1", 5)):
        path = folder / f"{name}.ser"
        path.write_bytes(ser_bytes(rng.integers(0, 99, (3, 4, 5)).astype(dtype), version, total))
        found.append(path)
    return found


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


def seeds_hdf5(folder: Path) -> list[Path]:
    """Plain data sets of each kind of storage, and each of the layouts."""
    import h5py
    import hdf5plugin

    stack = np.random.default_rng(8).poisson(3, (3, 6, 5)).astype("<u2")
    one = (1, 6, 5)
    kinds = {
        "contiguous": {},
        "deflated": {"chunks": one, "compression": "gzip", "shuffle": True},
        "tiles": {"chunks": (2, 4, 3), "compression": "lzf", "fletcher32": True},
        "grows": {"maxshape": (None, 6, 5), "chunks": one},
        "blosc": {"chunks": one, **hdf5plugin.Blosc(cname="zstd")},
        "bitshuffle": {"chunks": one, **hdf5plugin.Bitshuffle(cname="lz4")},
    }
    made = []
    for libver in ("earliest", "latest"):
        for name, words in kinds.items():
            made.append(folder / f"{name}-{libver}.h5")
            with h5py.File(made[-1], "w", libver=libver) as file:
                file.create_dataset("entry/data", data=stack, **words)
    made.append(folder / "eman.hdf")
    with h5py.File(made[-1], "w") as file:
        for k, image in enumerate(stack.astype("u1")):
            group = file.create_group(f"MDF/images/{k}")
            group.create_dataset("image", data=image)
            said = {
                "apix_x": 1.5,
                "apix_y": 1.5,
                "stored_renderbits": 5,
                "stored_rendermin": 0.0,
                "stored_rendermax": 9.0,
            }
            group.attrs.update({f"EMAN.{name}": np.float32(value) for name, value in said.items()})
    made.append(folder / "velox.emd")
    with h5py.File(made[-1], "w") as file:
        file["Version"] = np.array([b'{"version": "8", "format": "Velox"}'], object)
        group = file.create_group("Data/Image/00")
        group.create_dataset("Data", data=np.moveaxis(stack, 0, -1), chunks=(6, 5, 1))
        text = b'{"BinaryResult": {"Detector": "Ceta", "PixelUnitX": "m", "PixelSize": {"width": "1e-9"}}}'
        group["Metadata"] = np.repeat(np.frombuffer(text + b"\0", "u1")[:, None], 3, 1)
        group["FrameLookupTable"] = np.arange(3, dtype="u4")
    made.append(folder / "berkeley.emd")
    with h5py.File(made[-1], "w") as file:
        file.attrs["version_major"] = 0
        group = file.create_group("data/movie")
        group.attrs["emd_group_type"] = 1
        group["data"] = stack
        for k, n in enumerate(stack.shape, 1):
            group[f"dim{k}"] = np.arange(n) * 0.5
            group[f"dim{k}"].attrs["units"] = "[n_m]"
    made.append(folder / "signal.hspy")
    with h5py.File(made[-1], "w") as file:
        group = file.create_group("Experiments/movie")
        group["data"] = stack
        for k in range(3):
            group.create_group(f"axis-{k}").attrs.update({"navigate": k == 0, "scale": 0.5, "units": "nm"})
    made.append(folder / "written.nxs")
    from types import SimpleNamespace

    from mrcz.formats.hdf5 import write_frames

    said = {"voltage": 300.0, "mine": [1, 2]}
    read = stack.__getitem__
    frames = SimpleNamespace(shape=stack.shape, dtype=stack.dtype, read=read, pixel_size=(1, 1, 1), metadata=said)
    write_frames(made[-1], frames)
    return made


def seeds_zarr(folder: Path) -> list[Path]:
    """Stores of both versions, each in a .zip, which is one file."""
    import zarr

    stack = np.random.default_rng(9).poisson(3, (3, 6, 5)).astype("<u2") + 1
    made = []
    for version in (2, 3):
        for name, words in {"frames": {"chunks": (1, 6, 5)}, "tiles": {"chunks": (2, 4, 3)}}.items():
            place = folder / f"{name}-{version}.zarr"
            zarr.create_array(place, shape=stack.shape, dtype="u2", zarr_format=version, **words)[...] = stack
            made.append(Path(shutil.make_archive(str(place), "zip", place)))
    return made
