"""Many files: a plan as plain data, then the jobs, then one result a file.

`plan` only looks at names and at what exists; `run` does the work. Between the two stands a list of picklable `Job`
objects that can be printed (``--dry-run``), sorted, cut in pieces or sent elsewhere. A file that fails is a `Result`
that says why; it never stops the others.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mrcz.convert.streams import plain_name
from mrcz.errors import ChunkError, FormatError, HeaderError, MrczError

__all__ = ["MRC_SUFFIXES", "Job", "Plan", "Result", "error_text", "expand", "plan", "run", "run_job"]

#: Names taken from a directory for compression; any other file has to be named itself.
MRC_SUFFIXES = (".mrc", ".mrcs", ".map", ".ccp4", ".st", ".rec", ".ali", ".preali", ".msk")


@dataclass(frozen=True)
class Job:
    """One file to make from another.

    Attributes
    ----------
    action : str
        ``"compress"`` or ``"decompress"``.
    source, destination : str
        Paths.
    options : dict
        Keyword arguments of `mrcz.convert.mrc.compress` or `~mrcz.convert.mrc.decompress`.
    overwrite : bool
        Replace a destination that is there.
    remove : bool
        Remove the source once the copy was read back and found identical; implies ``options["check"]``.
    """

    action: str
    source: str
    destination: str
    options: Mapping[str, Any] = field(default_factory=dict)
    overwrite: bool = False
    remove: bool = False


@dataclass(frozen=True)
class Result:
    """What became of one file.

    Attributes
    ----------
    status : str
        ``"done"``, ``"planned"`` (a dry run), ``"skipped"`` (the destination was there and was to be left alone),
        ``"refused"`` (nothing was tried: no such file, destination in the way) or ``"failed"``.
    error : str or None
        Why, where there is something to say.
    damaged : bool
        The error is in the bytes of the file (a `FormatError`), not in the disk or the command.
    plain_bytes, stored_bytes : int
        Size as a plain MRC file and as the compressed one; 0 where unknown.
    seconds : float
        Wall time.
    checked, removed : bool
        The copy was read back and is identical; the source was then removed.
    """

    action: str
    source: str
    destination: str | None
    status: str
    error: str | None = None
    damaged: bool = False
    plain_bytes: int = 0
    stored_bytes: int = 0
    frames: int = 0
    seconds: float = 0.0
    checked: bool = False
    removed: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing went wrong with this file."""
        return self.status in ("done", "planned", "skipped")

    def asdict(self) -> dict[str, Any]:
        """The fields as a dict of plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Plan:
    """Jobs to run, and what was refused while planning, in the order of the inputs."""

    jobs: tuple[Job, ...]
    refused: tuple[Result, ...]


def expand(
    inputs: Iterable[str | os.PathLike], *, recursive: bool = False, suffixes: tuple[str, ...] = MRC_SUFFIXES
) -> Iterator[tuple[str, str, str | None]]:
    """Resolve names, patterns and directories to files.

    Parameters
    ----------
    inputs : iterable of path
        Files, patterns (``*``, ``?``, ``[]``, ``**``; a file really called so comes first) and directories.
    recursive : bool
        Descend into directories, taking files with one of `suffixes` (also followed by ``.gz`` and the like).

    Yields
    ------
    path : str
    relative : str
        Where the file belongs below an output directory: its name, or its path below the directory searched.
    problem : str or None
        Why this name gives nothing.
    """
    for item in inputs:
        name = os.fspath(item)
        if os.path.isdir(name):
            if not recursive:
                yield name, os.path.basename(name), "is a directory; -r takes the files in it"
                continue
            found = list(_walk(name, suffixes))
            if not found:
                yield name, os.path.basename(name), f"holds no file called {', '.join('*' + s for s in suffixes)}"
            for path in found:
                yield path, os.path.relpath(path, name), None
        elif os.path.lexists(name):
            yield name, os.path.basename(name), None
        elif glob.has_magic(name):
            matches = sorted(p for p in glob.glob(name, recursive=True) if not os.path.isdir(p))
            if not matches:
                yield name, name, "no file matches"
            for path in matches:
                yield path, os.path.basename(path), None
        else:
            yield name, os.path.basename(name), "no such file"


def _walk(top: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted(files):
            if plain_name(name).lower().endswith(suffixes) and not name.startswith("."):
                yield os.path.join(folder, name)


def plan(
    action: str,
    inputs: Iterable[str | os.PathLike],
    *,
    output: str | os.PathLike | None = None,
    recursive: bool = False,
    overwrite: bool = False,
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
    recursive, overwrite, skip_existing, remove : bool
        See the command line: ``-r``, ``--force``, ``--skip-existing``, ``--remove``.
    suffix : str, optional
        Of the new files; default ``.mrcz``, and for decompression the suffix the source had before it was compressed,
        else ``.mrc``.
    options : dict, optional
        Passed on in each job.

    Returns
    -------
    Plan
        Two inputs never share a destination, and none is the destination of another: those are refused.

    Raises
    ------
    ValueError
        `output` names a file and there are several inputs.
    """
    if action not in ("compress", "decompress"):
        raise ValueError(f"action is {action!r}, expected 'compress' or 'decompress'")
    inputs = [os.fspath(item) for item in inputs]
    wanted = MRC_SUFFIXES if action == "compress" else (".mrcz",)
    found = list(expand(inputs, recursive=recursive, suffixes=wanted))
    folder = _output_folder(output, several=len(found) > 1 or (recursive and any(map(os.path.isdir, inputs))))

    jobs: list[Job] = []
    refused: list[Result] = []
    taken: dict[str, str] = {}
    sources = {_key(path) for path, _, problem in found if problem is None}
    seen: set[str] = set()
    for path, relative, problem in found:
        destination: str | None = None
        status = "refused"
        if problem is None and _key(path) in seen:
            continue  # named twice, by a pattern and a directory for instance
        if problem is None:
            seen.add(_key(path))
            if output is not None and folder is None:
                destination = os.fspath(output)
            else:
                name = _new_name(action, path, relative, suffix)
                beside = os.path.join(os.path.dirname(path), os.path.basename(name))
                destination = beside if folder is None else os.path.join(folder, name)
        if destination is not None:
            key = _key(destination)
            if key in taken:
                problem = f"would become {destination}, as {taken[key]} does; give one of them another name with -o"
            elif key == _key(path) and action == "decompress":
                problem = "is no .mrcz file and would replace itself; -o writes a plain copy elsewhere"
            elif key in sources:
                problem = f"would become {destination}, which is an input itself; -o writes elsewhere"
            elif os.path.isdir(destination):
                problem = f"{destination} is a directory"
            elif os.path.lexists(destination) and not overwrite:
                problem = f"{destination} exists; --force replaces it"
                if skip_existing:
                    problem, status = f"{destination} exists", "skipped"
            else:
                taken[key] = path
        if problem is not None:
            refused.append(Result(action, path, destination, status, error=problem))
        else:
            assert destination is not None
            jobs.append(Job(action, path, destination, dict(options or {}), overwrite=overwrite, remove=remove))
    return Plan(tuple(jobs), tuple(refused))


def _key(path: str) -> str:
    """One string for one file, links and ``..`` resolved."""
    return os.path.normcase(os.path.realpath(path))


def _output_folder(output: str | os.PathLike | None, *, several: bool) -> str | None:
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


def _new_name(action: str, path: str, relative: str, suffix: str | None) -> str:
    stem, old = os.path.splitext(plain_name(relative))
    if action == "compress":
        if not old or old.lower() in (*MRC_SUFFIXES, ".mrcz"):
            return stem + (suffix or ".mrcz")
        return stem + old + (suffix or ".mrcz")  # data.2026 -> data.2026.mrcz
    if old.lower() in MRC_SUFFIXES:
        return stem + (suffix or old)  # plain already: movie.mrc.gz -> movie.mrc
    if old.lower() != ".mrcz":
        stem += old
    if suffix is None:
        from mrcz.convert.mrc import original_suffix

        suffix = ".mrc"
        with contextlib.suppress(OSError, MrczError):  # what is wrong with it, the job will say
            suffix = original_suffix(path)
    return stem + suffix


def run_job(job: Job, progress: Callable[[int, int], None] | None = None) -> Result:
    """Do one job.

    Parameters
    ----------
    job : Job
    progress : callable, optional
        Called as ``progress(done, total)`` in bytes of the plain file.

    Returns
    -------
    Result
        Errors of the file or the disk are in it; only `KeyboardInterrupt` and programming errors are raised. After
        either, the destination is what it was before.
    """
    from mrcz.convert import mrc

    work = {"compress": mrc.compress, "decompress": mrc.decompress}[job.action]
    options = dict(job.options)
    if job.remove:
        options["check"] = True
    started = time.perf_counter()

    def failed(message: str, *, status: str = "failed", damaged: bool = False) -> Result:
        seconds = time.perf_counter() - started
        return Result(job.action, job.source, job.destination, status, message, damaged, seconds=seconds)

    try:
        if os.path.lexists(job.destination) and not job.overwrite:
            # Planned a while ago perhaps: look again.
            return failed(f"{job.destination} exists; --force replaces it", status="refused")
        os.makedirs(os.path.dirname(job.destination) or ".", exist_ok=True)
        report = work(job.source, job.destination, progress=progress, **options)
        with contextlib.suppress(OSError):  # a file system without permissions or times is no reason to fail
            shutil.copystat(job.source, job.destination)
        if job.remove:
            if not report.checked:
                raise MrczError("the copy was not read back; the original stays", path=job.source)
            if report.lost:
                names = ", ".join(report.lost)
                raise MrczError(
                    f"a plain file has no place for the metadata {names}; the original stays beside {job.destination}",
                    path=job.source,
                )
            os.remove(job.source)
    except (OSError, MrczError, ValueError, TypeError, OverflowError, MemoryError) as error:
        text = error_text(error, job.source)
        if isinstance(error, HeaderError) and error.recoverable:
            text += "; --permissive takes the whole frames that are there"
        elif isinstance(error, ChunkError) and error.recoverable:
            text += "; `mrcz recover` saves every whole frame"
        return failed(text, damaged=isinstance(error, FormatError))
    return Result(
        job.action,
        job.source,
        job.destination,
        "done",
        plain_bytes=report.plain_bytes,
        stored_bytes=report.stored_bytes,
        frames=report.frames,
        seconds=time.perf_counter() - started,
        checked=report.checked,
        removed=job.remove,
    )


def run(
    jobs: Iterable[Job],
    *,
    progress: Callable[[Job, int, int], None] | None = None,
    executor: Any = None,
) -> Iterator[Result]:
    """Run jobs and yield a result for each, in their order.

    Parameters
    ----------
    jobs : iterable of Job
    progress : callable, optional
        Called as ``progress(job, done, total)`` in bytes, when run here.
    executor : optional
        Anything with ``submit(function, argument)`` returning an object with ``result()``: an executor of
        `concurrent.futures`, or a dask ``Client``. Without one the jobs run here one after the other, each on all its
        threads, which keeps a single disk busy without seeking.
    """
    if executor is None:
        for job in jobs:
            yield run_job(job, None if progress is None else _bound(progress, job))
        return
    futures = [executor.submit(run_job, job) for job in jobs]
    for future in futures:
        yield future.result()


def _bound(progress: Callable[[Job, int, int], None], job: Job) -> Callable[[int, int], None]:
    return lambda done, total: progress(job, done, total)


def error_text(error: BaseException, path: str) -> str:
    """The text of an error about the file at `path`, without the path in front: whoever shows it names the file."""
    if isinstance(error, OSError) and error.strerror:
        other = error.filename if error.filename is not None and os.fspath(error.filename) != path else None
        return f"{error.strerror}: {other}" if other else error.strerror
    text = str(error) or type(error).__name__
    return text.removeprefix(f"{path}: ")
