"""Many files: a plan as plain data, then the jobs, then one result a file.

`plan` only looks at names and at what exists; `run` does the work. Between the two stands a list of picklable `Job`
objects that can be printed (``--dry-run``), sorted, cut in pieces or sent elsewhere. A file that fails is a `Result`
that says why; it never stops the others.
"""

from __future__ import annotations

import contextlib
import glob
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mrcz.container.names import compressed_name, old_compressed_name, original_name, restored_name, unfinished_name
from mrcz.errors import ChunkError, FormatError, HeaderError, MrczError, printable, system_error
from mrcz.file.reader import Reader
from mrcz.filetypes import MRC_SUFFIXES, plain_name
from mrcz.storage.remote import is_url
from mrcz.storage.whole import make_folders

__all__ = [
    "MRC_SUFFIXES",
    "SET_ASIDE",
    "UNFINISHED",
    "Job",
    "LeftOut",
    "Plan",
    "Result",
    "error_text",
    "expand",
    "plan",
    "run",
    "run_job",
]

#: Why a temporary file of ours, or an original that was set aside, is left out of a walk (`LeftOut.reason`).
UNFINISHED = "unfinished"
SET_ASIDE = "original set aside"


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
        Keyword arguments of `mrcz.convert.copy.compress` or `~mrcz.convert.copy.decompress`.
    overwrite : bool or "any"
        Replace a destination that is there, as `mrcz.compress` does.
    skip_existing : bool
        A destination that holds the source already is success, and left alone.
    earlier : tuple of str
        Other places where it may be: what older versions called the destination.
    remove : bool
        Remove the source once the copy was read back and found identical; implies ``options["check"]``.
    """

    action: str
    source: str
    destination: str
    options: Mapping[str, Any] = field(default_factory=dict)
    overwrite: bool | Literal["any"] = False
    skip_existing: bool = False
    earlier: tuple[str, ...] = ()
    remove: bool = False


@dataclass(frozen=True)
class Result:
    """What became of one file.

    Attributes
    ----------
    status : str
        ``"done"``, ``"planned"`` (a dry run), ``"skipped"`` (the destination holds the source already),
        ``"refused"`` (no such file, something else in the way) or ``"failed"``.
    error : str or None
        Why, where there is something to say.
    damaged : bool
        The error is in the bytes of the file (a `FormatError`), not in the disk or the command.
    plain_bytes, stored_bytes : int
        Size as a plain MRC file and as the compressed one; 0 where unknown.
    source_bytes, destination_bytes : int
        Sizes of both files on disk.
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
    source_bytes: int = 0
    destination_bytes: int = 0
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
    """Jobs to run, what was refused while planning, in the order of the inputs, and what directories hold besides."""

    jobs: tuple[Job, ...]
    refused: tuple[Result, ...]
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """Something in a directory that was searched and is no input.

    ``reason`` is one of few: ``"link to a folder"``, ``"hidden"``, ``"of another kind"``, ``"FIFO, device or socket"``,
    `UNFINISHED`, `SET_ASIDE`, and what a command adds.
    """

    path: str
    reason: str


def expand(
    inputs: Iterable[str | os.PathLike],
    *,
    recursive: bool = False,
    suffixes: tuple[str, ...] = MRC_SUFFIXES,
    left_out: list[LeftOut] | None = None,
) -> Iterator[tuple[str, str, str | None]]:
    """Resolve names, patterns and directories to files.

    Parameters
    ----------
    inputs : iterable of path
        Files, patterns (``*``, ``?``, ``[]``, ``**``; a file really called so comes first) and directories.
    recursive : bool
        Descend into directories, taking files with one of `suffixes` (also followed by ``.gz`` and the like). Links to
        files are taken, links to folders are not followed, and names that begin with a dot are left out.
    left_out : list, optional
        What was left out of directories is appended to it.

    Yields
    ------
    path : str
    relative : str
        Where the file belongs below an output directory: its name, or its path below the directory searched.
    problem : str or None
        Why this name gives nothing. A folder that cannot be entered is one.
    """
    for item in inputs:
        name = os.fspath(item)
        try:
            mode = _mode(name)
        except FileNotFoundError:
            if glob.has_magic(name):
                yield from _matches(name)
            else:
                url = "is a URL: fetch it first; Python's mrcz.open reads it where it is"
                yield name, os.path.basename(name), url if is_url(name) else "no such file"
        except OSError as error:
            yield name, os.path.basename(name), system_error(error, name)
        else:
            if not stat.S_ISDIR(mode):
                yield name, os.path.basename(name), _special(mode)
            elif not recursive:
                yield name, os.path.basename(name), "is a directory; -r takes the files in it"
            else:
                empty = True
                for path, problem in _walk(name, suffixes, [] if left_out is None else left_out):
                    yield path, os.path.relpath(path, name), problem
                    empty = False
                if empty:
                    wanted = ", ".join("*" + suffix for suffix in suffixes)
                    yield name, os.path.basename(name), f"holds no file called {wanted}"


def _mode(path: str) -> int:
    """Kind and permissions of what a name leads to; of the link itself where it leads nowhere."""
    try:
        return os.stat(path).st_mode
    except OSError:
        if os.path.islink(path):
            return stat.S_IFREG  # whoever opens it will say what is wrong with it
        raise


def _special(mode: int) -> str | None:
    """Why something that is no file is no input: reading it would wait for ever, or never end."""
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
    return f"is {kinds.get(stat.S_IFMT(mode), 'something else')}, not a file"


def _matches(pattern: str) -> Iterator[tuple[str, str, str | None]]:
    """`expand` for a pattern. `glob` passes over folders that it may not enter without a word."""
    parts = pattern.split("/")
    folders = {"/".join(parts[:i]) or "/" * (i > 0) for i, part in enumerate(parts) if glob.has_magic(part)}
    closed = set()
    for folder in sorted(folders):
        for name in glob.glob(folder, recursive=True) if folder else ["."]:
            if os.path.isdir(name) and name not in closed:
                try:
                    os.scandir(name).close()
                except OSError as error:
                    closed.add(name)
                    yield name, os.path.basename(name), system_error(error, name)
    found = sorted(path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path))
    if not (found or closed):
        yield pattern, pattern, "no file matches"
    for path in found:
        try:
            problem = _special(_mode(path))
        except OSError as error:  # gone already
            problem = system_error(error, path)
        yield path, os.path.basename(path), problem


def _walk(top: str, suffixes: tuple[str, ...], left_out: list[LeftOut]) -> Iterator[tuple[str, str | None]]:
    """(path, problem) of the files below a folder, those of a folder before those of the folders in it."""
    pending = [top]
    while pending:
        folder = pending.pop()
        below: list[str] = []
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield folder, system_error(error, folder)
            continue
        for entry in found:
            try:
                is_folder = entry.is_dir(follow_symlinks=False)
                reason = _reason(entry, is_folder, suffixes)
            except OSError as error:
                yield entry.path, system_error(error, entry.path)
                continue
            if reason is not None:
                left_out.append(LeftOut(entry.path, reason))
            elif is_folder:
                below.append(entry.path)
            else:
                yield entry.path, None
        pending += reversed(below)


def _reason(entry: os.DirEntry[str], is_folder: bool, suffixes: tuple[str, ...]) -> str | None:
    """Why a walk leaves something out; None if it is wanted."""
    if entry.name.startswith("."):
        if not is_folder and original_name(entry.name):
            return SET_ASIDE
        return UNFINISHED if unfinished_name(entry.name) and not is_folder else "hidden"
    if is_folder:
        return None
    if entry.is_symlink() and os.path.isdir(entry.path):
        return "link to a folder"
    if not plain_name(entry.name).lower().endswith(suffixes):
        return "of another kind"
    return "FIFO, device or socket" if _special(_mode(entry.path)) else None


def plan(
    action: str,
    inputs: Iterable[str | os.PathLike],
    *,
    output: str | os.PathLike | None = None,
    recursive: bool = False,
    overwrite: bool | Literal["any"] = False,
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
    recursive, skip_existing, remove : bool
    overwrite : bool or "any"
        See the command line: ``-r``, ``--skip-existing``, ``--remove``; ``--force`` and ``--replace-any``.
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
    wanted = MRC_SUFFIXES if action == "compress" else (".mrcz",)
    left_out: list[LeftOut] = []
    found = list(expand(inputs, recursive=recursive, suffixes=wanted, left_out=left_out))
    folder = _output_folder(output, several=len(found) > 1 or (recursive and any(map(os.path.isdir, inputs))))

    jobs: list[Job] = []
    refused: list[Result] = []
    taken: dict[str, str] = {}
    sources = {_key(path) for path, _, problem in found if problem is None}
    real = {_key(path) for path, _, problem in found if problem is None and not os.path.islink(path)}
    seen: set[str] = set()
    for path, relative, problem in found:
        destination: str | None = None
        status = "refused"
        if problem is None and (_key(path) in seen or (os.path.islink(path) and _key(path) in real)):
            left_out.append(LeftOut(path, "named before"))  # by a pattern and a directory, or a link beside its file
            continue
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
            elif (problem := _in_the_way(destination, overwrite or skip_existing)) is None:
                taken[key] = path
        if problem is not None:
            refused.append(Result(action, path, destination, status, error=problem))
        else:
            assert destination is not None
            earlier: tuple[str, ...] = ()
            if action == "compress" and skip_existing and os.fspath(output or "") != destination:
                old = os.path.join(os.path.dirname(destination), old_compressed_name(os.path.basename(path)))
                earlier = (old,) if old != destination else ()
            jobs.append(Job(action, path, destination, dict(options or {}), overwrite, skip_existing, earlier, remove))
    return Plan(tuple(jobs), tuple(refused), tuple(left_out))


def _in_the_way(destination: str, may_exist: bool | str) -> str | None:
    """Why no file can be made there."""
    from mrcz.storage.disk import check_place

    try:
        check_place(destination)
    except FileNotFoundError:
        return None
    except (IsADirectoryError, MrczError) as error:
        return f"{destination} {error.strerror if isinstance(error, OSError) else error.message}"
    except OSError as error:
        return f"{destination}: {error.strerror}"
    return None if may_exist else _exists(destination)


def _exists(destination: str) -> str:
    with contextlib.suppress(OSError):
        if os.path.getsize(destination) == 0:
            return f"{destination} exists and is empty, as a killed run may leave it; --force replaces it"
    return f"{destination} exists; -o writes elsewhere, --skip-existing leaves it, --force replaces it"


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
    folder, name = os.path.split(relative)
    if action == "compress":
        new = compressed_name(name)
    else:
        new = restored_name(name, _source_name(path) if suffix is None else None)
    if suffix is not None:
        new = os.path.splitext(new)[0] + suffix
    return os.path.join(folder, new)


def _source_name(path: str) -> str | None:
    """What a compressed file says it was made from. What is wrong with it, the job will say."""
    import warnings

    from mrcz.convert.copy import source_name
    from mrcz.errors import FormatWarning

    with contextlib.suppress(OSError, MrczError, ValueError), warnings.catch_warnings():
        warnings.simplefilter("ignore", FormatWarning)
        with Reader(path) as reader:
            return source_name(reader)
    return None


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
    from mrcz.convert import copy as mrc

    work = {"compress": mrc.compress, "decompress": mrc.decompress}[job.action]
    options = dict(job.options)
    started = time.perf_counter()

    def result(status: str, message: str | None = None, *, damaged: bool = False) -> Result:
        seconds = time.perf_counter() - started
        return Result(job.action, job.source, job.destination, status, message, damaged, seconds=seconds)

    try:
        if job.skip_existing and (found := _done_already(job)) is not None:
            return result(*found)
        make_folders(os.path.dirname(job.destination) or ".")
        try:
            report = work(
                job.source, job.destination, overwrite=job.overwrite, remove=job.remove, progress=progress, **options
            )
        except FileExistsError as error:
            # It appeared while we worked, or stood there when nothing was said of it.
            found = _done_already(job) if job.skip_existing else None
            if found is None or not os.path.lexists(job.destination):
                return result("refused", _exists(job.destination) if "exists; " in str(error) else str(error))
            return result(*found)
    except (OSError, MrczError, ValueError, TypeError, OverflowError, MemoryError) as error:
        text = error_text(error, job.source, job.destination)
        if isinstance(error, mrc.OtherSourceError):
            advice = "-o writes elsewhere, --replace-any replaces it"
            return result("refused", f"{job.destination} {error.message}; {advice}")
        if isinstance(error, HeaderError) and error.recoverable:
            text += "; --permissive takes the whole frames that are there"
        elif isinstance(error, mrc.TrailingBytesError):
            text += "; --permissive drops them"
        elif isinstance(error, mrc.DamagedSourceError):
            text += "; `mrcz recover` saves every whole frame, --permissive copies what is there"
        elif isinstance(error, ChunkError) and error.recoverable:
            text += "; `mrcz recover` saves every whole frame"
        return result("failed", text, damaged=isinstance(error, FormatError))
    return Result(
        job.action,
        job.source,
        job.destination,
        "done",
        _remark(job, report),
        plain_bytes=report.plain_bytes,
        stored_bytes=report.stored_bytes,
        source_bytes=report.source_bytes,
        destination_bytes=report.destination_bytes,
        frames=report.frames,
        seconds=time.perf_counter() - started,
        checked=report.checked,
        removed=report.removed,
    )


def _remark(job: Job, report: Any) -> str | None:
    """What else there is to say of a copy that was made."""
    if report.lost:
        return f"a plain file has no place for the metadata {', '.join(report.lost)}"
    return "the original was gone already" if job.remove and not report.removed else None


def _done_already(job: Job) -> tuple[str, str] | None:
    """Status and reason where the destination, or what older versions called it, need not or must not be made; None
    where nothing stands there."""
    from mrcz.convert.copy import is_archive_of

    reading = {name: job.options[name] for name in ("permissive", "signed_bytes", "n_threads") if name in job.options}
    for place in (job.destination, *job.earlier):
        if not os.path.lexists(place):
            continue
        archive, plain = (place, job.source) if job.action == "compress" else (job.source, place)
        if os.path.getsize(place) == 0:
            return None if job.overwrite else ("refused", _exists(place))
        check = bool(job.options.get("check")) or job.remove
        try:
            reason = is_archive_of(archive, plain, check=check, **reading)
        except FormatError as error:
            reason = f"is damaged, or no MRC file ({error_text(error, place)})"
        if reason is None:
            what = f"{place} holds it already" if job.action == "compress" else f"{place} is that file"
            return "skipped", what + ("; the original stays" if job.remove else "")
        if place == job.destination and not job.overwrite:
            if job.action == "decompress":
                reason = "is another file than it gives back"
            return "refused", f"{place} {reason}; -o writes elsewhere"
    return None


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


def error_text(error: BaseException, path: str, destination: str | None = None) -> str:
    """The text of an error about the file at `path`, without the path in front: whoever shows it names the file.

    `destination` is what was being made of it, if anything: errors of a full disk do not say.
    """
    if isinstance(error, OSError) and error.strerror:
        return system_error(error, path, destination)
    if isinstance(error, MemoryError) and not str(error):
        return "there is not enough memory"
    text = str(error) or type(error).__name__
    return text.removeprefix(f"{path}: ").removeprefix(f"{printable(path)}: ")
