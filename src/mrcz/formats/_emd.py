"""The two kinds of ``.emd``: Velox's (Thermo Fisher), and that of the Molecular Foundry in Berkeley.

Velox: ``/Data/Image/UUID`` with ``Data`` (ny, nx, n), the frames along the last axis, and ``Metadata`` (bytes, n), a
JSON text for each of them that ends with NUL; lengths in m, angles in rad, voltages in V. No page of Thermo Fisher's
describes it: what is read here is what stands in files of Velox 2 (see tests/formats/test_emd.py).

Berkeley: https://emdatasets.com/format/: groups with the attribute ``emd_group_type`` 1 hold ``data`` and ``dim1`` to
``dimN``, the coordinates along each of its axes; EMD 1.0 (py4DSTEM) calls such groups ``"array"`` and counts from
``dim0``.
"""

from __future__ import annotations

import datetime
import json
import math
from typing import Any

import h5py
import numpy as np

from mrcz.errors import FormatError
from mrcz.formats._h5file import H5File, attributes, scalar
from mrcz.formats._h5stack import H5Frames, Stack, is_stack
from mrcz.formats._units import angstrom
from mrcz.formats._words import in_our_words
from mrcz.formats.base import FormatOptions
from mrcz.formats.metadata import checked

__all__ = ["open_berkeley", "open_velox"]

_MOST_JSON = 16 << 20  # bytes of one frame's metadata


# ---- Velox ---------------------------------------------------------------------------------------------------


def open_velox(file: H5File, options: FormatOptions) -> H5Frames | None:
    """The images of one detector of a Velox file; None for any other file.

    `dataset` is the detector's name, or the path of its group or data. Without it there has to be one image, or one
    that is the largest.
    """
    try:
        owner, images = file.find("/Data/Image")
        holder, found = file.find("/Version")
        version = scalar(found, holder)
    except FormatError:
        return None
    if not isinstance(images, h5py.Group) or "Velox" not in str(version):
        return None
    found = {}
    for name in images:
        try:
            holder, data = owner.find(f"{name}/Data", images)
        except FormatError:
            continue
        if is_stack(data):
            found[name] = (holder, data, _velox_json(owner, images, name, 0))
    if not found:
        raise FormatError("there are no images in /Data/Image of this Velox file", path=file.path)
    name, oddities = _velox_choice(found, options.dataset, file.path)
    holder, data, said = found[name]
    path = f"/Data/Image/{name}"
    stack = Stack(holder, data, f"{path}/Data", last=True, permissive=options.permissive)
    stated, size = _velox_stated(said, stack.count)
    try:
        _, lookup = owner.find(f"{name}/FrameLookupTable", images)
        order = np.asarray(lookup[()]).reshape(-1) if lookup.size <= 1 << 20 else np.arange(stack.count)
        if not np.array_equal(order, np.arange(stack.count)):
            oddities.append("FrameLookupTable has another order: frames are given as they are stored")
    except (FormatError, OSError, ValueError, TypeError, RuntimeError, AttributeError):
        oddities.append("there is no FrameLookupTable")

    def of_frames() -> list[dict[str, Any]]:
        return [checked(_velox_stated(_velox_json(owner, images, name, k), 1)[0]) for k in range(stack.count)]

    return H5Frames(
        file,
        [stack],
        layout="velox",
        metadata=checked(stated, {"velox": said} if said else None),
        pixel_size=size,
        kind="image" if stack.count == 1 else "stack",
        oddities=oddities,
        frame_metadata=of_frames if stack.count <= 100_000 else None,
    )


def _detector(said: dict[str, Any]) -> str:
    return str(_deep(said, "BinaryResult", "Detector") or "")


def _velox_choice(found: dict[str, Any], wanted: str | None, path: str) -> tuple[str, list[str]]:
    """Which image, and what to say of the others."""
    names = {name: _detector(said) or name for name, (_, _, said) in found.items()}
    listed = ", ".join(f"{names[name]} {data.shape} (/Data/Image/{name})" for name, (_, data, _) in found.items())
    if wanted is not None:
        last = wanted.strip("/").removeprefix("Data/Image/").removesuffix("/Data")
        fit = [name for name in found if last in (name, names[name])]
        if len(fit) != 1:
            said = "there is no image of" if not fit else f"there are {len(fit)} images of"
            raise FormatError(f"{said} {wanted!r} in this Velox file; there are {listed}", path=path)
        return fit[0], []
    most = max(data.size for _, data, _ in found.values())
    best = [name for name, (_, data, _) in found.items() if data.size == most]
    if len(best) > 1:
        raise FormatError(
            f"{len(best)} images of this Velox file are equally large: {listed}; say which with dataset=", path=path
        )
    return best[0], [f"{names[best[0]]} has the largest images; dataset= opens others: {listed}"] * (len(found) > 1)


def _velox_json(owner: H5File, images: Any, name: str, k: int) -> dict[str, Any]:
    """What Velox says of frame k; nothing where it cannot be read."""
    try:
        _, found = owner.find(f"{name}/Metadata", images)
        if found.chunks is not None and math.prod(found.chunks) > _MOST_JSON:
            return {}
        if found.ndim != 2 or found.shape[0] > _MOST_JSON or found.dtype != np.uint8 or k >= found.shape[1]:
            return {}
        said = json.loads(found[:, k].tobytes().split(b"\0")[0].decode("utf-8", "replace"))
    except (FormatError, OSError, ValueError, TypeError, RuntimeError, AttributeError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _deep(said: Any, *names: str) -> Any:
    for name in names:
        said = said.get(name) if isinstance(said, dict) else None
    return said


def _number(value: Any) -> float | None:
    """Velox writes numbers as texts."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _times(value: Any, factor: float) -> float | None:
    number = _number(value)
    return None if number is None else number * factor


def _velox_stated(said: dict[str, Any], count: int) -> tuple[dict[str, Any], tuple[float, float, float]]:
    """What Velox says under our names, and the pixel size (x, y, 0) in Å; 0 of a diffraction pattern."""
    result, optics, stage = said.get("BinaryResult"), said.get("Optics"), said.get("Stage")
    x, y = (
        angstrom(_number(_deep(result, "PixelSize", side)), _deep(result, f"PixelUnit{axis}"))
        for side, axis in (("width", "X"), ("height", "Y"))
    )
    size = (x, y, 0.0) if x and y else (0.0, 0.0, 0.0)
    detectors = said.get("Detectors")
    own: dict[str, Any] = {}
    for one in detectors.values() if isinstance(detectors, dict) else ():
        if isinstance(one, dict) and one.get("DetectorName") == _detector(said) != "":
            own = one
    binning = {_number(_deep(own, "Binning", side)) for side in ("width", "height")}
    place = [_times(_deep(stage, "Position", axis), 1e6) for axis in "xyz"]
    tilt = _number(_deep(stage, "AlphaTilt"))
    began = _number(_deep(said, "Acquisition", "AcquisitionStartDatetime", "DateTime"))
    instrument = said.get("Instrument")
    model = [str(_deep(instrument, name) or "") for name in ("InstrumentModel", "InstrumentId")]
    return {
        "pixel_size": [x, y] if any(size) else None,
        "voltage": _times(_deep(optics, "AccelerationVoltage"), 1e-3),
        "magnification": _number(_deep(optics, "NominalMagnification")),
        "spot_size": _number(_deep(optics, "SpotIndex")),
        "defocus": _times(_deep(optics, "Defocus"), 1e6),
        "tilt": None if tilt is None else math.degrees(tilt),
        "stage": None if any(value is None for value in place) else place,
        "timestamp": _iso(began),
        "camera": _detector(said),
        "microscope": " ".join(part for part in model if part),
        "binning": binning.pop() if len(binning) == 1 else None,
        # Of each frame: that of the exposure where there is one.
        "exposure_time": _number(own.get("ExposureTime")) if count == 1 else None,
    }, size


def _iso(seconds: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601, in UTC."""
    if seconds is None or not 0 < seconds < 1e11:
        return None
    return (datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=seconds)).isoformat()


# ---- Berkeley ------------------------------------------------------------------------------------------------


def open_berkeley(file: H5File, options: FormatOptions) -> H5Frames | None:
    """The data of an EMD group, chosen by the group's name or path, or the data's path; None for any other file."""
    found: dict[str, tuple[H5File, Any, Any]] = {}
    if not _says_emd(file):
        return None
    for path, owner, thing, _ in file.walk():
        if isinstance(thing, h5py.Group) and "emd_group_type" in thing.attrs and _is_array(owner, thing):
            holder, data = owner.find("data", thing)
            if is_stack(data):
                found[path] = (holder, data, thing)
    if not found:
        return None
    if options.dataset is not None:
        wanted = options.dataset.strip("/").removesuffix("/data")
        fit = [path for path in found if wanted in (path.strip("/"), path.rsplit("/", 1)[1])]
        if len(fit) != 1:
            return None  # a path of any other data set
    else:
        most = max(data.size for _, data, _ in found.values())
        fit = [path for path, (_, data, _) in found.items() if data.size == most]
        if len(fit) > 1:
            listed = ", ".join(f"{path} {found[path][1].shape}" for path in fit[:20])
            raise FormatError(
                f"{len(fit)} EMD groups are equally large: {listed}; say which with dataset=", path=file.path
            )
    path = fit[0]
    holder, data, group = found[path]
    stack = Stack(holder, data, f"{path}/data", permissive=options.permissive)
    y, x = (_step(holder, group, len(data.shape), axis) for axis in (-2, -1))
    size = (x, y, 0.0) if x and y else (0.0, 0.0, 0.0)
    original: dict[str, Any] = {"group": path, "attributes": attributes(file.root, file)}
    for name in ("microscope", "sample", "user", "comments"):
        try:
            _, of = file.find(f"/{name}")
        except FormatError:
            continue
        original[name] = attributes(of, file)
    others = [f"{one} {found[one][1].shape}" for one in found if one != path]
    oddities = [f"{path} is the largest EMD group; dataset= opens the others: {', '.join(others)}"] if others else []
    stated = {"pixel_size": [x, y] if any(size) else None}
    return H5Frames(
        file, [stack], layout="emd", metadata=checked(stated, {"emd": original}), pixel_size=size, oddities=oddities
    )


def _says_emd(file: H5File) -> bool:
    """Whether the root, or a group two levels below it, is of EMD: other files are not searched for it."""
    said = attributes(file.root, file)
    if "emd_group_type" in said or "version_major" in said:
        return True
    with in_our_words("the groups of this file cannot be read", file.path):
        groups = _groups(file.root)
        below = [inner for group in groups for inner in _groups(group)]
        return any("emd_group_type" in group.attrs for group in groups + below)


def _groups(group: Any) -> list[Any]:
    """The groups right below one, without those that links lead to."""
    names = [name for name in list(group)[:100] if isinstance(group.get(name, getlink=True), h5py.HardLink)]
    return [found for name in names if isinstance(found := group[name], h5py.Group)]


def _is_array(owner: H5File, group: Any) -> bool:
    value = attributes(group, owner).get("emd_group_type")
    if value != 1 and value != "array":
        return False
    return "data" in group


def _step(owner: H5File, group: Any, count: int, axis: int) -> float:
    """The pixel size along an axis in Å, from its coordinates; 0 where they are not even, or of no length."""
    first = 0 if "dim0" in group else 1
    with in_our_words("the axes of an EMD group cannot be read", owner.path):
        try:
            _, dim = owner.find(f"dim{count + axis + first}", group)
        except FormatError:
            return 0.0
        if (
            not isinstance(dim, h5py.Dataset)
            or dim.ndim != 1
            or not 2 <= dim.size <= 1 << 20
            or dim.dtype.kind not in "iuf"
        ):
            return 0.0
        if dim.id.get_storage_size() < dim.size:
            return 0.0
        places = np.asarray(dim[()], np.float64)
        unit = attributes(dim, owner).get("units", "")
    steps = np.diff(places)
    if not np.isfinite(steps).all() or np.ptp(steps) > 1e-3 * abs(steps[0]):
        return 0.0
    return angstrom(float((places[-1] - places[0]) / steps.size), unit)
