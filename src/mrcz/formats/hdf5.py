"""HDF5: plain data sets by path, and the layouts that programs of electron microscopy make of it.

What a file is, its groups say: EMAN2's image stacks (`mrcz.formats._eman`), Velox and Berkeley EMD (`._emd`), NeXus,
Dectris masters and what `write_frames` here makes (`._nexus`), HyperSpy (`._hspy`); all else is a file of data sets, of
which ``dataset="/path"`` chooses one. Rows are given in the order in which they are stored, and a scan of four axes
(y, x, ky, kx) as its frames in C order.
"""

from __future__ import annotations

from mrcz.errors import FormatError
from mrcz.formats import _eman, _emd, _hspy, _nexus
from mrcz.formats._h5file import H5File, attributes
from mrcz.formats._h5stack import H5Frames, Stack, is_stack
from mrcz.formats._h5write import write_frames
from mrcz.formats._words import in_our_words
from mrcz.formats.base import Bytes, FormatOptions, Frames
from mrcz.formats.metadata import checked

__all__ = ["open_frames", "write_frames"]

_LAYOUTS = (_eman.open_layout, _emd.open_velox, _emd.open_berkeley, _hspy.open_layout, _nexus.open_layout)
_SHOWN = 20  # data sets that an error lists


def open_frames(source: Bytes, options: FormatOptions) -> Frames:
    """Open an HDF5 file of any layout.

    Raises
    ------
    FormatError
        The file is damaged, holds no frames, holds several that are equally good, or leads to a file that is missing.
    MissingDependencyError
        A filter is not installed: the extra ``hdf5`` has it.
    """
    file = H5File(source)
    try:
        with in_our_words("this HDF5 file cannot be read", file.path):
            for layout in _LAYOUTS:
                frames = layout(file, options)
                if frames is not None:
                    return frames
            return _plain(file, options)
    except BaseException:
        file.close()
        raise


def _plain(file: H5File, options: FormatOptions) -> H5Frames:
    """The data set that is asked for, or the largest."""
    oddities: list[str] = []
    if options.dataset is not None:
        path = "/" + options.dataset.strip("/")
        owner, found = file.find(path)
    else:
        path, owner, found, oddities = _largest(file)
    stack = Stack(owner, found, path, permissive=options.permissive)
    said = {"attributes": attributes(owner.root, owner), path: attributes(found, owner)}
    original = {"hdf5": {"path": path, "shape": list(stack.shape), **{k: v for k, v in said.items() if v}}}
    return H5Frames(file, [stack], metadata=checked({}, original), oddities=oddities)


def _largest(file: H5File) -> tuple[str, H5File, object, list[str]]:
    """The data set of the most pixels, and what to say of the others."""
    stacks, missing = [], []
    for path, owner, found, error in file.walk():
        if error is not None:
            missing.append(error)
        elif is_stack(found):
            stacks.append((path, owner, found))
    if not stacks:
        if missing:
            raise missing[0]
        raise FormatError("there is no data set of 2 to 4 axes of numbers in this file", path=file.path)
    stacks.sort(key=lambda one: -one[2].size)
    most = [one for one in stacks if one[2].size == stacks[0][2].size]
    if len(most) > 1:
        names = ", ".join(f"{path} {found.shape} {found.dtype}" for path, _, found in most[:_SHOWN])
        raise FormatError(
            f"{len(most)} data sets are equally large: {names}; say which with dataset=, as dataset={most[0][0]!r}",
            path=file.path,
        )
    oddities = [str(error.message) for error in missing]
    if len(stacks) > 1:
        names = ", ".join(f"{path} {found.shape}" for path, _, found in stacks[1 : _SHOWN + 1])
        oddities.append(f"{stacks[0][0]} is the largest data set; dataset= opens the others: {names}")
    return (*stacks[0], oddities)
