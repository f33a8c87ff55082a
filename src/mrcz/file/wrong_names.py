"""Names that users of mrcfile and of older versions try first, and what they are called here.

docs/mrcfile.md is the page about it; the errors made here point into it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["MODES", "MODULE", "READER", "WRITER", "right_keywords", "right_name"]

_PAGE = "docs/mrcfile.md"

#: Names of the module -> what to use.
MODULE = {
    "new": "mrcz.write(path, array), or mrcz.open(path, 'w') and append frames",
    "new_mmap": "mrcz.open(path, 'w') and append frames as they come",
    "mmap": "mrcz.open(path), which reads only what is asked for; its memmap() maps a plain file",
    "open_async": "mrcz.open(path), which reads no pixels until they are asked for",
    "load": "mrcz.read(path)",
    "save": "mrcz.write(path, array)",
    "imread": "mrcz.read(path, squeeze=True)",
    "imwrite": "mrcz.write(path, array)",
    "validate_all": "mrcz.validate(path), a file at a time",
    "MrcFile": "mrcz.open(path)",
}

#: Attributes of a Reader -> what to use.
READER = {
    "set_data": "mrcz.write(path, array, header=reader.header)",
    "set_extended_header": "mrcz.write(path, array, extended_header=(type, bytes))",
    "indexed_extended_header": "reader.extended_header.decoded",
    "set_image_stack": "mrcz.edit_header(path, kind='stack')",
    "set_volume": "mrcz.edit_header(path, kind='volume')",
    "add_label": "mrcz.edit_header(path, label='...')",
    "get_labels": "reader.header.labels",
    "labels": "reader.header.labels",
    "nstart": "reader.header.nxstart, nystart and nzstart",
    "update_header_from_data": "nothing: a header is written with its pixels",
    "update_header_stats": "mrcz.edit_header(path, statistics='compute')",
    "reset_header_stats": "mrcz.edit_header(path, statistics='unknown')",
    "print_header": "mrcz header FILE, or reader.header",
    "validate": "mrcz.validate(path)",
    "verify": "reader.options.verify, or mrcz.verify(path), which looks at the whole file",
    "gain": "reader.header.gain, counts per electron",
    "flush": "nothing: a Reader does not write; mrcz.edit_header(path, ...) and mrcz.open(path, 'a') do",
    "append": "mrcz.open(path, 'a'), which adds frames",
}

#: Attributes of a Writer -> what to use.
WRITER = {
    "set_data": "writer.extend(frames)",
    "write": "writer.append(frame), or writer.extend(frames)",
    "data": "mrcz.read(path), once the Writer is closed",
    "set_extended_header": "mrcz.open(path, 'w', extended_header=(type, bytes))",
    "voxel_size": "mrcz.open(path, 'w', pixel_size=...)",
    "pixel_size": "mrcz.open(path, 'w', pixel_size=...)",
    "set_image_stack": "mrcz.open(path, 'w', kind='stack')",
    "set_volume": "mrcz.open(path, 'w', kind='volume')",
    "add_label": "mrcz.open(path, 'w', labels=[...])",
    "update_header_from_data": "nothing: the header is written with the pixels",
    "update_header_stats": "nothing: statistics are added up while frames are written",
    "validate": "mrcz.validate(path), once the Writer is closed",
    "gain": "mrcz.open(path, 'w', counts_per_electron=...)",
    "mode": "writer.encoding.pixels.mode",
}

#: Modes of mrcfile -> what to use.
MODES = {
    "r+": "mrcz.edit_header(path, ...) changes the header in place, mrcz.open(path, 'a') adds frames, "
    "mrcz.open(path).memmap('r+') changes the pixels of a plain file",
    "w+": "mrcz.open(path, 'w') makes a new file, frame by frame; mrcz.write(path, array) does it at once",
    "rb": "mrcz.open(path)",
    "wb": "mrcz.open(path, 'w')",
    "x": "mrcz.open(path, 'w'), which replaces no file unless overwrite=True",
}

# Of several meanings the first that the function has, else the last.
_KEYWORDS: dict[str, str | tuple[str, ...]] = {
    "voxel_size": "pixel_size",
    "apix": "pixel_size",
    "pixelsize": "pixel_size",
    "compression": "codec",
    "compressor": "codec",
    "clevel": "level",
    "header_only": "mrcz.open(path).header, which reads no pixels",
    "exttyp": "extended_header=(type, bytes)",
    "mode": "mrc_mode",
    "gain": ("counts_per_electron", "gain= of its read and sum, or a correction"),
    "pixel_mode": "mrc_mode",
    "meta": "metadata",
    "pixelunits": "pixel_size, in Å",
    "C3": "c3",
    "kv": "voltage",
    "data": "the array as the second argument",
    "fill": "an array, such as numpy.full(shape, value)",
    "shape": "frames: a Writer takes its shape from the first one",
    "useMemmap": "mrcz.open(path).memmap()",
    "threads": "n_threads",
}

F = TypeVar("F", bound=Callable[..., Any])


def right_name(what: str, name: str, table: dict[str, str]) -> str:
    """Text of an AttributeError; what to use is in it where it is known."""
    text = f"{what} has no attribute {name!r}"
    return f"{text}; use {table[name]} ({_PAGE})" if name in table else text


def right_keywords(function: F) -> F:
    """Let a function that is called with a keyword it does not know say which one is meant."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise  # not the call itself, but something inside
            text = _wrong_keyword(function, args, kwargs)
            if text is None:
                raise
            raise TypeError(text) from None

    return call  # type: ignore[return-value]


def _wrong_keyword(function: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> str | None:
    import difflib

    parameters = inspect.signature(function).parameters
    known = [name for name in parameters if name not in ("self", "cls")]
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in given:
        if name in list(parameters)[: len(args)]:
            return f"{name} is given twice" + ("; the number of MRC's MODE is mrc_mode" if name == "mode" else "")
        if name in known or (takes_any and name not in _KEYWORDS):
            continue
        meant = _KEYWORDS.get(name) or next(iter(difflib.get_close_matches(name, known, 1)), None)
        if isinstance(meant, tuple):
            meant = next((word for word in meant if word in known), meant[-1])
        return f"unexpected keyword {name!r}" + (f"; did you mean {meant}?" if meant else "")
    return None
