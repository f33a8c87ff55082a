"""Wrote the golden files: run with a released mrcz (0.5.7, 0.6.0) in an environment of its own.

    python make.py FOLDER

Files are added, never written again: a later release gets names of its own. Beside the files, ``manifest-VERSION.json``
keeps for each of them the call, a hash of the pixels given, and what that version's own ``readMRC`` said of it.
"""

import hashlib
import json
import os
import sys

import numpy as np

import mrcz

SHAPE = (3, 17, 14)
CODECS = [None, "blosclz", "lz4", "lz4hc", "zlib", "zstd"]
DTYPES = ["int8", "int16", "uint16", "int32", "uint32", "float32", "complex64"]


def pixels(shape, dtype):
    """Small whole numbers that differ from frame to frame, row to row and column to column."""
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    values = (x * x + 5 * y + 11 * z) % 23
    if dtype == "complex64":
        return (values - 1j * ((x + 2 * y + 3 * z) % 19)).astype(dtype)
    if np.dtype(dtype).kind in "if":
        values = values - 9
    return values.astype(dtype)


def digest(image):
    frames = image if isinstance(image, list) else [image]
    joined = np.concatenate([np.asarray(frame).reshape(-1) for frame in frames])
    return hashlib.sha256(joined.astype(joined.dtype.newbyteorder("<")).tobytes()).hexdigest()


def described(value):
    """A header value as JSON can hold it."""
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, np.ndarray):
        return {"array": value.tolist()}
    if isinstance(value, np.generic):
        return value.item()
    return value


def structure(image):
    return [list(frame.shape) for frame in image] if isinstance(image, list) else list(image.shape)


def cases():
    for codec in CODECS:
        for dtype in DTYPES:
            if dtype in ("uint16", "float32") or codec in (None, "zstd"):
                yield f"{dtype}_{codec or 'raw'}", pixels(SHAPE, dtype), {"compressor": codec}
    for codec in (None, "zstd"):
        name = codec or "raw"
        stack = pixels((6, 17, 14), "int16")
        yield f"image_{name}", stack[0], {"compressor": codec}
        yield f"list2d_{name}", list(stack), {"compressor": codec}
        yield f"list3d_{name}", [stack[:2], stack[2:4], stack[4:]], {"compressor": codec}
        yield f"bigendian_{name}", stack, {"compressor": codec, "endian": "be"}
        meta = {"angles": [-60.0, 0.0, 60.0], "who": "Ångström", "nested": {"a": [1, 2], "b": None}, "voltage": "kept"}
        yield (
            f"meta_{name}",
            pixels(SHAPE, "float32"),
            {
                "compressor": codec,
                "meta": meta,
                "pixelsize": [1.5, 2.5, 3.5],
                "pixelunits": "nm",
                "voltage": 300.0,
                "C3": 2.7,
                "gain": 1.25,
            },
        )
    yield "level9_zstd", pixels((2, 64, 96), "float32"), {"compressor": "zstd", "clevel": 9}
    yield "uint4_raw", pixels(SHAPE, "int8") % 16, {"dtype": "uint4"}
    if mrcz.__version__ >= "0.6":
        for codec in ("blosclz", "lz4", "lz4hc", "zlib", "zstd"):
            yield f"blosc2_{codec}", pixels(SHAPE, "uint16"), {"compressor": codec, "backend": "blosc2"}


def main(folder):
    manifest = {}
    for name, image, call in cases():
        filename = f"{mrcz.__version__}_{name}.{'mrcz' if call.get('compressor') else 'mrc'}"
        path = os.path.join(folder, filename)
        options = dict(call)
        mrcz.writeMRC(image, path, n_threads=1, **options)
        manifest[filename] = record(path, image, call)
    filename = f"{mrcz.__version__}_appended.mrcs"
    path = os.path.join(folder, filename)
    stack = pixels(SHAPE, "float32")
    for index, frame in enumerate(stack):
        mrcz.writeMRC(frame, path, idx=index, pixelsize=[5.6, 3.4])
    manifest[filename] = record(path, stack, {"idx": "frame by frame", "pixelsize": [5.6, 3.4]})
    with open(os.path.join(folder, f"manifest-{mrcz.__version__}.json"), "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1, sort_keys=True)
        file.write("\n")


def record(path, image, call):
    given = {
        "call": call,
        "dtype": str(np.asarray(image[0]).dtype),
        "given": structure(image),
        "sha256": digest(image),
    }
    try:
        read, header = mrcz.readMRC(path, endian=call.get("endian", "le"))
    except IndexError as error:  # 0.5.7 and its own big-endian files
        return {**given, "read_fails": repr(error)}
    return {
        **given,
        "read": structure(read),
        "read_matches": digest(read) == digest(image),
        "header": {key: described(value) for key, value in header.items()},
    }


if __name__ == "__main__":
    main(sys.argv[1])
