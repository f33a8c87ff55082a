"""NeXus files and the masters of Dectris detectors: ``/entry/data``, and what an NXdetector says.

Layouts: the NeXus manual, "NXdata", "NXdetector" and "NXmx"; for masters Dectris' "EIGER2 HDF5 data format": links
``data_000001`` and so on in ``/entry/data`` lead to files beside the master, whose data sets have attributes
``image_nr_low`` and ``image_nr_high`` that count from 1 through all of them. What `mrcz.formats.hdf5.write_frames`
makes is such a file, with ``pixel_size`` in Å and the metadata as JSON beside it.
"""

from __future__ import annotations

import json
import math
import os
import re
from typing import Any

import h5py

from mrcz.errors import FormatError
from mrcz.formats._h5file import H5File, MissingLink, attributes, scalar, scalars
from mrcz.formats._h5stack import H5Frames, Stack, is_stack
from mrcz.formats._units import in_unit
from mrcz.formats._words import as_written, frames_as_written
from mrcz.formats.base import FormatOptions
from mrcz.formats.metadata import checked

__all__ = ["open_layout"]

_LINKED = re.compile(r"data_(\d+)")


def open_layout(file: H5File, options: FormatOptions) -> H5Frames | None:
    """The movie of the default entry; None for a file that has no NXentry, or whose data are not found."""
    entry = _entry(file)
    if entry is None:
        return None
    name, owner, group = entry
    warnings: list[str] = []
    if options.dataset is not None:
        path = "/" + options.dataset.strip("/")
        holder, found = file.find(path)
        parts = [(path, holder, found)]
        if isinstance(found, h5py.Group):
            parts = _linked(file, path, holder, found, options.permissive, warnings)
    else:
        parts = _signal(file, name, owner, group, options.permissive, warnings)
    if not parts:
        return None
    stacks = [Stack(holder, found, path, permissive=options.permissive) for path, holder, found in parts]
    _check_numbers(file, stacks, options.permissive, warnings)
    said = scalars(owner, group)
    stated, oddities = _stated(file, owner, group, said, 0 if options.dataset else sum(stack.count for stack in stacks))
    own = _written(file, group, stacks[0])
    size = own.get("pixel_size", (0.0, 0.0, 0.0))
    if any(size[:2]):
        stated["pixel_size"] = list(size[:2])
    metadata = {**checked(stated, {"nexus": said}), **own.get("metadata", {})}
    return H5Frames(
        file,
        stacks,
        layout="nexus",
        metadata=metadata,
        pixel_size=size,
        kind=own.get("kind"),
        frame_metadata=lambda: _of_frames(file, group, sum(stack.count for stack in stacks)),
        oddities=oddities,
        warnings=warnings,
    )


def _entry(file: H5File) -> tuple[str, H5File, Any] | None:
    """The default entry: the one that the root names, or the first NXentry."""
    named = attributes(file.root, file).get("default")
    names = ([named] if isinstance(named, str) else []) + list(file.root)[:1000]
    for name in names:
        try:
            owner, group = file.find(name)
        except FormatError:
            continue
        if isinstance(group, h5py.Group) and attributes(group, owner).get("NX_class") == "NXentry":
            return name.strip("/"), owner, group
    return None


Part = tuple[str, H5File, Any]


def _linked(file: H5File, path: str, owner: H5File, group: Any, permissive: bool, warnings: list[str]) -> list[Part]:
    """The data sets ``data_000001`` … of a group, in their order; each has to be there."""
    numbers = sorted((int(match[1]), name) for name in group if (match := _LINKED.fullmatch(name)))
    parts, missing = [], []
    for _, name in numbers:
        try:
            holder, found = owner.find(name, group)
        except MissingLink as error:
            missing.append(error)
            continue
        parts.append((f"{path}/{name}", holder, found))
    found_numbers = [number for number, _ in numbers]
    gaps = [k for k in range(found_numbers[0], found_numbers[-1]) if k not in set(found_numbers)] if numbers else []
    if gaps:
        missing.append(MissingLink(f"there is no data_{gaps[0]:06d} in {path}", path=file.path))
    if missing:
        if not permissive or not parts:
            more = f"; {len(missing) - 1} more are missing" if len(missing) > 1 else ""
            raise MissingLink(f"{missing[0].message}{more}", path=file.path)
        warnings.append(
            f"{len(missing)} of the movie's files are missing, their frames are left out: {missing[0].message}"
        )
    return parts


def _signal(file: H5File, name: str, owner: H5File, entry: Any, permissive: bool, warnings: list[str]) -> list[Part]:
    """The data of an entry: linked files, the signal of the default NXdata, that of any, or an NXdetector's."""
    groups = []
    for path, holder, thing, _ in owner.walk(entry):
        if isinstance(thing, h5py.Group):
            groups.append((path, holder, thing, attributes(thing, holder)))
    default = str(attributes(entry, owner).get("default", ""))
    data = [one for one in groups if one[3].get("NX_class") == "NXdata" or one[0] == "/data"]
    data.sort(key=lambda one: one[0].strip("/") != default.strip("/"))
    for path, holder, group, _ in data:
        if any(_LINKED.fullmatch(one) for one in group):
            return _linked(file, f"/{name}{path}", holder, group, permissive, warnings)
    detectors = [one for one in groups if one[3].get("NX_class") == "NXdetector"]
    for path, holder, group, said in data + detectors:
        signal = said.get("signal", "data")
        if isinstance(signal, str) and signal in group:
            there, found = holder.find(signal, group)
            if is_stack(found):
                return [(f"/{name}{path}/{signal}", there, found)]
    return []


def _check_numbers(file: H5File, stacks: list[Stack], permissive: bool, warnings: list[str]) -> None:
    """The numbers of the images run on from file to file, and are as many as the images."""
    last = 0
    for stack in stacks:
        said = attributes(stack.found, stack.file)
        low, high = said.get("image_nr_low"), said.get("image_nr_high")
        if not isinstance(low, int) or not isinstance(high, int):
            return
        words = ""
        if high - low + 1 != stack.count:
            words = f"{stack.path} has the images {low} to {high} by its attributes, and {stack.count} of them"
        elif low != last + 1 and last:
            words = f"{stack.path} begins with image {low}, the one before it ended with image {last}"
        if words and not permissive:
            raise FormatError(words, path=file.path)
        if words:
            warnings.append(words)
        last = high


def _stated(
    file: H5File, owner: H5File, entry: Any, said: dict[str, Any], count: int
) -> tuple[dict[str, Any], list[str]]:
    """What an NXdetector says, under our names."""
    stated: dict[str, Any] = {}
    oddities: list[str] = []
    base = next(
        (
            path
            for path, holder, thing, _ in owner.walk(entry)
            if isinstance(thing, h5py.Group) and attributes(thing, holder).get("NX_class") == "NXdetector"
        ),
        None,
    )
    stated["timestamp"] = said.get("/start_time") if isinstance(said.get("/start_time"), str) else None
    if base is None:
        return stated, oddities
    special = f"{base}/detectorSpecific"

    def value(path: str, wanted: str, default: str) -> float | None:
        return in_unit(said.get(path), said.get(f"{path}@units", default), wanted)

    # NXdetector gives times in s; NXmx the threshold in eV.
    stated["frame_time"] = value(f"{base}/frame_time", "s", "s")
    threshold = value(f"{base}/threshold_energy", "keV", "eV")
    stated["threshold"] = None if threshold is None else [threshold]
    stated["counter_depth"] = said.get(f"{base}/bit_depth_readout")
    stated["camera"] = said.get(f"{base}/description")
    stated["timestamp"] = said.get(f"{special}/data_collection_date") or stated["timestamp"]
    if not isinstance(stated["counter_depth"], int):
        stated["counter_depth"] = None
    images, triggers = said.get(f"{special}/nimages"), said.get(f"{special}/ntrigger", 1)
    if isinstance(images, int) and isinstance(triggers, int) and images * triggers > 0:
        stated["frames"] = images * triggers
        if count and images * triggers != count:
            oddities.append(f"{images * triggers} images were to be taken, {count} are there")
    name = os.path.basename(file.path)
    for ours, theirs in (("gain_file", "flatfield"), ("defect_file", "pixel_mask")):
        for place in (f"{base}/{theirs}", f"{special}/{theirs}"):
            if place.strip("/") in entry:
                stated[ours] = f"{name}:{entry.name}{place}"
                break
    return stated, oddities


def _written(file: H5File, entry: Any, stack: Stack) -> dict[str, Any]:
    """What `write_frames` put beside the data: pixel size, kind and metadata."""
    said = attributes(stack.found, stack.file)
    own: dict[str, Any] = {}
    size = said.get("pixel_size")
    if isinstance(size, list) and len(size) == 3 and said.get("pixel_size_unit") == "angstrom":
        if all(isinstance(one, (int, float)) and math.isfinite(one) and one >= 0 for one in size):
            own["pixel_size"] = (float(size[0]), float(size[1]), float(size[2]))
    if said.get("mrcz_kind") in ("image", "stack", "volume"):
        own["kind"] = said["mrcz_kind"]
    metadata = _note(file, entry, "mrcz_metadata")
    if isinstance(metadata, dict):
        own["metadata"] = as_written(metadata)
    return own


def _note(file: H5File, entry: Any, name: str) -> Any:
    """What the JSON of a note of ours says; None where there is none."""
    try:
        owner, note = file.find(f"{name}/data", entry)
        words = scalar(note, owner)
        return json.loads(words) if isinstance(words, str) else None
    except (FormatError, OSError, ValueError, TypeError, RuntimeError, RecursionError):
        return None


def _of_frames(file: H5File, entry: Any, count: int) -> list[dict[str, Any]]:
    """The metadata of the frames that `write_frames` kept."""
    said = _note(file, entry, "mrcz_frame_metadata")
    return frames_as_written(said, count)
