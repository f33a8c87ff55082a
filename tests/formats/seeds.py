"""Small valid files of each format, for what damages them: one function a format, which gives their paths."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np


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
