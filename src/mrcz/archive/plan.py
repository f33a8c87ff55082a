"""Which file becomes which, decided before any is touched: inputs -> jobs, and what is refused at once."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mrcz.archive.jobs import Job, Result
from mrcz.archive.walk import DIRECTORY, LeftOut, expand, foreign_suffixes
from mrcz.check.origin import Overwrite
from mrcz.container.names import compressed_name, old_compressed_name, restored_name
from mrcz.convert.foreign import SOURCE_FORMAT
from mrcz.errors import FormatWarning, MrczError
from mrcz.file.original import pieces_of, source_name
from mrcz.file.reader import Reader
from mrcz.filetypes import MRC_SUFFIXES
from mrcz.storage.disk import check_place

__all__ = ["Plan", "exists", "plan"]


@dataclass(frozen=True)
class Plan:
    """Jobs to run, what was refused while planning, in the order of the inputs, and what directories hold besides."""

    jobs: tuple[Job, ...]
    refused: tuple[Result, ...]
    left_out: tuple[LeftOut, ...] = ()


# Longer than 60 lines: half of it are its words.
def plan(
    action: str,
    inputs: Iterable[str | os.PathLike[str]],
    *,
    output: str | os.PathLike[str] | None = None,
    recursive: bool = False,
    foreign: bool = False,
    overwrite: Overwrite = False,
    skip_existing: bool = False,
    remove: bool = False,
    suffix: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Plan:
    """Decide which file becomes which, without touching any.

    Parameters
    ----------
    action : {"compress", "decompress"}
    inputs : iterable of path
        As `expand` takes them.
    output : path, optional
        A directory (existing, ending in ``/``, or needed because there are several inputs) or, for a single input,
        a file. By default each file is made beside its source.
    recursive : bool
        As `expand` takes it.
    foreign : bool
        Compress files of other formats in directories, too; those that are named are taken in any case.
    overwrite : bool or "any"
    skip_existing, remove : bool
        Of every `Job`.
    suffix : str, optional
        Of the new files; default ``.mrcz``, and for decompression the suffix the source had before it was compressed,
        else ``.mrc``.
    options : dict, optional
        Passed on in each job.

    Returns
    -------
    Plan
        Two inputs never share a destination, and none is the destination of another: those are refused. What stands
        at a destination is judged when the job is run, when it counts.

    Raises
    ------
    ValueError
        `output` names a file and there are several inputs.
    """
    if action not in ("compress", "decompress"):
        raise ValueError(f"action is {action!r}, expected 'compress' or 'decompress'")
    inputs = [os.fspath(item) for item in inputs]
    left_out: list[LeftOut] = []
    wanted: tuple[str, ...] = MRC_SUFFIXES if action == "compress" else (".mrcz",)
    if foreign and action == "compress":
        wanted += foreign_suffixes()
    found = list(expand(inputs, recursive=recursive, suffixes=wanted, left_out=left_out))
    folder = _output_folder(output, several=len(found) > 1 or (recursive and any(map(os.path.isdir, inputs))))
    places = _Places(action, found, may_exist=bool(overwrite or skip_existing))
    template = Job(action, "", "", dict(options or {}), overwrite, skip_existing, remove=remove)

    jobs: list[Job] = []
    refused: list[Result] = []
    for path, relative, problem in found:
        if problem is not None:
            reason = "directory" if problem == DIRECTORY else ""
            refused.append(Result(action, path, None, "refused", problem, reason))
            continue
        if places.named_before(path):
            left_out.append(LeftOut(path, "named before"))  # by a pattern and a directory, or a link beside its file
            continue
        if output is not None and folder is None:
            destination = os.fspath(output)
        else:
            destination = _new_name(action, path, relative, suffix, folder)
        if (refusal := places.take(path, destination)) is not None:
            refused.append(Result(action, path, destination, "refused", *refusal))
            continue
        job = replace(template, source=path, destination=destination)
        if action == "compress" and skip_existing and os.fspath(output or "") != destination:
            job = replace(job, earlier=_old_name(job))
        jobs.append(job)
    return Plan(tuple(jobs), tuple(refused), tuple(left_out))


class _Places:
    """Who makes what: which inputs there are, and which destinations are taken."""

    def __init__(self, action: str, found: list[tuple[str, str, str | None]], *, may_exist: bool) -> None:
        self.action, self.may_exist = action, may_exist
        files = [path for path, _, problem in found if problem is None]
        self.sources = {_key(path) for path in files}
        self.real = {_key(path) for path in files if not os.path.islink(path)}
        self.seen: set[str] = set()
        self.taken: dict[str, str] = {}

    def named_before(self, path: str) -> bool:
        """Whether this is an input once more, or a link to one that is named itself."""
        key = _key(path)
        if key in self.seen or (os.path.islink(path) and key in self.real):
            return True
        self.seen.add(key)
        return False

    def take(self, path: str, destination: str) -> tuple[str, str] | None:
        """Take a destination for an input; error and reason where it cannot be."""
        key = _key(destination)
        if key in self.taken:
            return f"would become {destination}, as {self.taken[key]} does", "same destination"
        if key == _key(path) and self.action == "decompress":
            return "is no .mrcz file and would replace itself", "its own destination"
        if key in self.sources:
            return f"would become {destination}, which is an input itself", "an input"
        if (refusal := _in_the_way(destination, self.may_exist)) is not None:
            return refusal
        self.taken[key] = path
        return None


def _in_the_way(destination: str, may_exist: bool) -> tuple[str, str] | None:
    """Why no file can be made there, and in a word."""
    try:
        check_place(destination)
    except FileNotFoundError:
        return None
    except (IsADirectoryError, MrczError) as error:
        return f"{destination} {error.strerror if isinstance(error, OSError) else error.message}", ""
    except OSError as error:
        return f"{destination}: {error.strerror}", ""
    return None if may_exist else exists(destination)


def exists(destination: str) -> tuple[str, str]:
    """That something stands where a file was to be made: error and reason."""
    with contextlib.suppress(OSError):
        if os.path.getsize(destination) == 0:
            return f"{destination} exists and is empty, as a killed run may leave it", "exists, empty"
    return f"{destination} exists", "exists"


def _key(path: str) -> str:
    """One string for one file, links and ``..`` resolved."""
    return os.path.normcase(os.path.realpath(path))


def _output_folder(output: str | os.PathLike[str] | None, *, several: bool) -> str | None:
    if output is None:
        return None
    name = os.fspath(output)
    if os.path.isdir(name) or name.endswith(("/", os.sep)):
        return name
    if several:
        if os.path.lexists(name) or os.path.splitext(name)[1]:
            raise ValueError(f"{name} names one file, but there are several inputs; end it in / for a directory")
        return name
    return None


def _new_name(action: str, path: str, relative: str, suffix: str | None, folder: str | None) -> str:
    """What becomes of a file that gets a name by rule: beside it, or at the same place below a folder."""
    below, name = os.path.split(relative)
    if action == "compress":
        new = compressed_name(name)
    else:
        new = restored_name(name, _source_name(path) if suffix is None else None)
    if suffix is not None:
        new = os.path.splitext(new)[0] + suffix
    return os.path.join(os.path.dirname(path), new) if folder is None else os.path.join(folder, below, new)


def _old_name(job: Job) -> tuple[str, ...]:
    """Where else it may be that a destination holds already: under the name that older versions gave it."""
    old = os.path.join(os.path.dirname(job.destination), old_compressed_name(os.path.basename(job.source)))
    return () if old == job.destination else (old,)


def _source_name(path: str) -> str | None:
    """What a compressed file says it was made from. What is wrong with it, the job will say."""
    with contextlib.suppress(OSError, MrczError, ValueError), warnings.catch_warnings():
        warnings.simplefilter("ignore", FormatWarning)
        with Reader(path) as reader:
            # An MRC file is made of it again, whatever it was: movie.tif.mrcz → movie.tif.mrc; or that very file.
            known = reader.footer is not None and SOURCE_FORMAT in reader.footer.extra
            return None if known and pieces_of(reader) is None else source_name(reader)
    return None
