"""Jobs are done, here or elsewhere, and each gives one result: a file that fails never stops the others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mrcz.archive.jobs import Job, Result, error_text
from mrcz.archive.plan import exists
from mrcz.check.origin import is_archive_of
from mrcz.convert.copy import (
    Copy,
    DamagedSourceError,
    OtherSourceError,
    TrailingBytesError,
    compress,
    decompress,
)
from mrcz.errors import ChunkError, FormatError, HeaderError, MrczError
from mrcz.storage.whole import make_folders

__all__ = ["run", "run_job"]


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
    options = dict(job.options)
    started = time.perf_counter()

    def result(status: str, error: str | None = None, reason: str = "", *, damaged: bool = False) -> Result:
        seconds = time.perf_counter() - started
        return Result(job.action, job.source, job.destination, status, error, reason, damaged, seconds=seconds)

    try:
        if job.skip_existing and (found := _done_already(job)) is not None:
            return result(*found)
        make_folders(os.path.dirname(job.destination) or ".")
        try:
            made = {"compress": compress, "decompress": decompress}[job.action](
                job.source, job.destination, overwrite=job.overwrite, remove=job.remove, progress=progress, **options
            )
        except FileExistsError as error:
            # It appeared while we worked, or stood there when nothing was said of it.
            found = _done_already(job) if job.skip_existing else None
            if found is None or not os.path.lexists(job.destination):
                what = exists(job.destination) if "exists; " in str(error) else (str(error), "")
                return result("refused", *what)
            return result(*found)
    except OtherSourceError as error:
        return result("refused", f"{job.destination} {error.message}", "of another source")
    except (OSError, MrczError, ValueError, TypeError, OverflowError, MemoryError) as error:
        text = error_text(error, job.source, job.destination)
        return result("failed", text, _reason(error), damaged=isinstance(error, FormatError))
    return Result(
        job.action,
        job.source,
        job.destination,
        "done",
        plain_bytes=made.plain_bytes,
        stored_bytes=made.stored_bytes,
        source_bytes=made.source_bytes,
        destination_bytes=made.destination_bytes,
        n_frames=made.n_frames,
        seconds=time.perf_counter() - started,
        checked=made.checked,
        removed=made.removed,
        notes=_notes(job, made),
        integers=made.integers,
        integers_reason=made.integers_reason,
        restores=made.restores,
    )


def _reason(error: BaseException) -> str:
    """Why a copy failed, as one of the words that `Result.reason` lists."""
    if isinstance(error, TrailingBytesError):
        return "trailing bytes"
    if isinstance(error, DamagedSourceError):
        return "damaged source"
    if isinstance(error, HeaderError) and error.recoverable:
        return "contradictory"
    return "damaged frame" if isinstance(error, ChunkError) and error.recoverable else ""


def _notes(job: Job, made: Copy) -> tuple[str, ...]:
    """What else there is to say of a copy that was made."""
    if not made.notes and job.remove and not made.removed:
        return ("the original was gone already",)
    return made.notes


def _done_already(job: Job) -> tuple[str, str, str] | None:
    """Status, error and reason where the destination, or what older versions called it, need not or must not be made;
    None where nothing stands there."""
    reading: dict[str, Any] = {
        name: job.options[name]
        for name in ("permissive", "signed_bytes", "n_threads", "dataset", "fraction", "upsampling")
        if name in job.options
    }
    for place in (job.destination, *job.earlier):
        if not os.path.lexists(place):
            continue
        archive, plain = (place, job.source) if job.action == "compress" else (job.source, place)
        if os.path.getsize(place) == 0:
            return None if job.overwrite else ("refused", *exists(place))
        check = bool(job.options.get("check")) or job.remove
        try:
            differs = is_archive_of(archive, plain, check=check, **reading)
        except FormatError as error:
            differs = f"is damaged, or no MRC file ({error_text(error, place)})"
        if differs is None:
            what = f"{place} holds it already" if job.action == "compress" else f"{place} is that file"
            return "skipped", what + ("; the original stays" if job.remove else ""), ""
        if place == job.destination and not job.overwrite:
            if job.action == "decompress":
                differs = "is another file than it gives back"
            return "refused", f"{place} {differs}", "another file"
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
