"""HyperSpy's signals in HDF5 (``.hspy``): ``/Experiments/NAME/data``, with a group ``axis-k`` for each axis.

Layout: HyperSpy's user guide, "HSpy - HyperSpy's HDF5 specification": the axes in the order of the array, each with
attributes name, scale, offset, size, units and navigate; metadata in groups of attributes.
"""

from __future__ import annotations

from typing import Any

import h5py

from mrcz.errors import FormatError
from mrcz.formats._h5file import H5File, attributes
from mrcz.formats._h5stack import H5Frames, Stack
from mrcz.formats._units import angstrom
from mrcz.formats.base import FormatOptions
from mrcz.formats.metadata import checked

__all__ = ["open_layout"]


def open_layout(file: H5File, options: FormatOptions) -> H5Frames | None:
    """The signal of a HyperSpy file, or the one whose name `dataset` is; None for any other file."""
    if options.dataset is not None and "/" in options.dataset:
        return None
    try:
        owner, experiments = file.find("/Experiments")
    except FormatError:
        return None
    if not isinstance(experiments, h5py.Group):
        return None
    found = {}
    for path, holder, thing, _ in owner.walk(experiments):
        if path.count("/") == 2 and path.endswith("/data") and isinstance(thing, h5py.Dataset):
            found[path[1:-5]] = (holder, thing)
    if not found:
        return None
    name = _chosen(found, options.dataset, file.path)
    holder, thing = found[name]
    path = f"/Experiments/{name}/data"
    axes = _axes(owner, experiments[name], len(thing.shape or ()))
    # Where the file says that a signal has one axis, it is no frame: a spectrum.
    seen = [axis for axis in axes if not axis.get("navigate", True)]
    if axes and (len(seen) != 2 or any(not axis.get("navigate", True) for axis in axes[:-2])):
        raise FormatError(
            f"the signal {name} has {len(seen)} signal axes, frames have the last two; dataset={path!r} opens it",
            path=file.path,
        )
    stack = Stack(holder, thing, path, permissive=options.permissive)
    sizes = [angstrom(axis.get("scale"), axis.get("units")) for axis in axes[-2:]]
    size = (sizes[1], sizes[0], 0.0) if len(sizes) == 2 and all(sizes) else (0.0, 0.0, 0.0)
    metadata = {
        where: said
        for where, _, group, _ in owner.walk(experiments[name])
        if isinstance(group, h5py.Group) and (said := attributes(group, owner))
    }
    tem = metadata.get("/metadata/Acquisition_instrument/TEM", {})
    stage = metadata.get("/metadata/Acquisition_instrument/TEM/Stage", {})
    stated = {
        "pixel_size": list(size[:2]) if all(size[:2]) else None,
        "voltage": _number(tem.get("beam_energy")),
        "magnification": _number(tem.get("magnification")),
        "microscope": tem.get("microscope"),
        "tilt": _number(stage.get("tilt_alpha")),
    }
    return H5Frames(file, [stack], layout="hyperspy", metadata=checked(stated, {"hyperspy": metadata}), pixel_size=size)


def _chosen(found: dict[str, Any], wanted: str | None, path: str) -> str:
    if wanted is not None:
        if wanted not in found:
            raise FormatError(f"there is no signal {wanted!r}; there are {', '.join(sorted(found))}", path=path)
        return wanted
    if len(found) > 1:
        raise FormatError(f"there are {len(found)} signals, say which with dataset=: {', '.join(found)}", path=path)
    return next(iter(found))


def _axes(owner: H5File, experiment: Any, count: int) -> list[dict[str, Any]]:
    """What the file says of each axis of the array; an empty list where it does not say it of all."""
    axes = []
    for k in range(count):
        try:
            _, group = owner.find(f"axis-{k}", experiment)
        except FormatError:
            return []
        axes.append(attributes(group, owner))
    return axes


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
