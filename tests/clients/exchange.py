"""Write files through the old surface, or read and compare those another version wrote: run by run.py.

    python exchange.py write FOLDER
    python exchange.py read FOLDER

Runs with any mrcz: 0.5.7, 0.6.0 or this one.
"""

import json
import os
import sys

import numpy as np

import mrcz

CODECS = [None, "blosclz", "lz4", "lz4hc", "zlib", "zstd"]
DTYPES = ["int8", "int16", "uint16", "int32", "uint32", "float32", "complex64"]
OURS = int(mrcz.__version__.split(".")[0]) >= 1
PIXEL_SIZE = [1.5, 2.5, 3.5]  # z, y, x in Å


def pixels(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.poisson(3.0, size=shape)
    if dtype == "complex64":
        return (values + 1j * rng.normal(size=shape)).astype(dtype)
    if dtype == "float32":
        return rng.normal(size=shape).astype(dtype)
    return (values - (0 if np.dtype(dtype).kind in "ub" else 2)).astype(dtype)


def cases():
    """Name, pixels, options of writeMRC, whether the endianness must be said on reading."""
    for codec in CODECS:
        for dtype in DTYPES:
            name = f"{dtype}-{codec}"
            yield name, pixels((3, 65, 130), dtype), {"compressor": codec}
    for codec in (None, "zstd", "lz4"):
        stack = pixels((6, 33, 47), "int16", seed=1)
        yield f"image-{codec}", stack[0], {"compressor": codec}
        yield f"one-pixel-{codec}", stack[:, :1, :1], {"compressor": codec}
        yield f"list2d-{codec}", list(stack), {"compressor": codec}
        yield f"list3d-{codec}", [stack[:2], stack[2:4], stack[4:]], {"compressor": codec}
        yield f"meta-{codec}", stack, {"compressor": codec, "meta": {"angles": [1.5, -2.5], "who": "Ångström"}}
        yield f"large-{codec}", pixels((2, 1024, 1100), "uint16", seed=2), {"compressor": codec, "clevel": 5}
        yield f"big-endian-{codec}", stack, {"compressor": codec, "endian": "be"}
    yield "uint4", pixels((3, 20, 30), "uint16", seed=3).astype("int8") % 16, {"dtype": "uint4"}
    if OURS:
        for dtype in ("uint8", "bool"):
            for codec in (None, "zstd"):
                yield f"{dtype}-{codec}", pixels((3, 20, 30), dtype, seed=4), {"compressor": codec}
        yield "bytes-above-127", np.arange(256, dtype="uint8").reshape(1, 16, 16).repeat(2, 0), {}
    if mrcz.__version__ >= "0.6":
        for codec in CODECS[1:]:
            yield f"blosc2-{codec}", pixels((2, 65, 130), "uint16"), {"compressor": codec, "backend": "blosc2"}


def joined(image):
    return np.concatenate([np.asarray(frame).reshape(-1) for frame in (image if isinstance(image, list) else [image])])


def write(folder):
    manifest = {}
    for name, image, options in cases():
        filename = name + (".mrcz" if options.get("compressor") else ".mrc")
        mrcz.writeMRC(
            image,
            os.path.join(folder, filename),
            n_threads=1,
            pixelsize=PIXEL_SIZE,
            voltage=300.0,
            C3=2.7,
            gain=1.25,
            **options,
        )
        values = joined(image)
        np.save(os.path.join(folder, filename + ".npy"), values)
        manifest[filename] = {
            "list": [list(frame.shape) for frame in image] if isinstance(image, list) else None,
            "options": options,
            "blosc2": "backend" in options,
        }
    with open(os.path.join(folder, "manifest.json"), "w", encoding="utf-8") as file:
        json.dump({"version": mrcz.__version__, "files": manifest}, file)
    print(f"{len(manifest)} files written by {mrcz.__version__}")


def read(folder):
    with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
        manifest = json.load(file)
    compared = 0
    for filename, facts in manifest["files"].items():
        options = facts["options"]
        old = mrcz.__version__.startswith("0.5")
        if old and (facts["blosc2"] or options.get("endian") == "be" or options.get("dtype") == "uint4"):
            continue  # 0.5.7 reads none of its own big-endian files, decodes 15 as 14, and knows no Blosc-2
        if not OURS and options.get("dtype") == "uint4" and manifest["version"].startswith("1"):
            continue  # older versions read 4-bit pixels only where MZ is 0, which is not MRC2014
        compared += 1
        path = os.path.join(folder, filename)
        image, header = mrcz.readMRC(path, endian=options.get("endian", "le"), n_threads=1)
        found, expected = joined(image), np.load(path + ".npy")
        np.testing.assert_array_equal(found, expected, err_msg=filename)
        np.testing.assert_allclose(header["pixelsize"], PIXEL_SIZE, rtol=1e-5, err_msg=filename)
        np.testing.assert_allclose(
            [header["voltage"], header["C3"], header["gain"]], [300, 2.7, 1.25], rtol=1e-6, err_msg=filename
        )
        for key, value in options.get("meta", {}).items():
            assert header[key] == value, (filename, key)
        # Uncompressed files of ours keep "array or list" where older versions do not look.
        if options.get("compressor") or OURS:
            assert isinstance(image, list) == (facts["list"] is not None), filename
            if isinstance(image, list):
                assert [list(frame.shape) for frame in image] == facts["list"], filename
    print(f"{compared} files written by {manifest['version']} are equal")


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](sys.argv[2])
