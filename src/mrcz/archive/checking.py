"""Is an archive all there? Every file is compared with what the journal says, and decoded to what it was."""

from __future__ import annotations

import hashlib
import random
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from mrcz.archive.bag import TAGS, bag_faults, is_known
from mrcz.archive.claims import contradiction, line_fault, shown_faults
from mrcz.archive.giving import pieces, read_pieces
from mrcz.archive.jobs import error_text
from mrcz.archive.journal import FOLDER, Journal
from mrcz.archive.lost import lost_text
from mrcz.archive.patterns import Patterns
from mrcz.archive.place import Folder, LinkError, Place
from mrcz.archive.record import Record
from mrcz.check.result import Result
from mrcz.container.names import unfinished_name
from mrcz.errors import FormatError, FormatWarning, system_error
from mrcz.file.calls import open as open_any
from mrcz.threads import default_threads

__all__ = ["FINDINGS", "Checked", "check", "proven"]

#: What can be found: all is as it was; the file is not there; it has another size or checksum than it was stored with;
#: it does not decode to what it was made from; it cannot be read; the journal does not know it; a line of the journal
#: is no record, or contradicts itself; the lists of a bag do not say what the journal does.
FINDINGS = ("whole", "missing", "changed", "damaged", "unreadable", "extra", "journal", "bag")


#: Fields that are the same of all names of a file.
_OF_BYTES = ("source_bytes", "sha256_pixels", "frames", "shape", "dtype")


@dataclass(frozen=True)
class Checked(Result):
    """What was found of one file of an archive.

    Attributes
    ----------
    path : str
        Below the archive.
    source : str
        What it was made from; empty for what is shared, extra or a list.
    finding : str
        One of `FINDINGS`.
    error : str or None
        That as a sentence.
    expected, found : str
        Sizes or checksums that differ.
    form : str
    decoded : bool
        It was decoded, and compared with its original's checksum (of the form ``"copy"``: its own is that).
    stored_bytes : int
    seconds : float
    """

    path: str
    source: str
    finding: str
    error: str | None = None
    expected: str = ""
    found: str = ""
    form: str = ""
    decoded: bool = False
    stored_bytes: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it is as it was stored."""
        return self.finding == "whole"

    @property
    def damaged(self) -> bool:
        """Whether something of the archive is lost or wrong: all but a disk that does not answer, and files that are
        none of the archive's, or lists that a next run writes."""
        return self.finding in ("missing", "changed", "damaged", "journal")


class _Stopped(BaseException):  # nobody is to take it for something that was found
    """Somebody does not want the rest."""


# Longer than 60 lines: half of it are its words.
def check(
    place: Place,
    journal: Journal,
    *,
    fast: bool = False,
    sample: float | None = None,
    seed: int = 0,
    pattern: str | Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    n_threads: int | None = None,
    workers: int | None = None,
) -> Iterator[Checked]:
    """Compare what lies in an archive with its journal.

    Of each file the size and the SHA-256 of what is stored, and whether its record contradicts itself; then, unless
    `fast`, it is decoded, and all that its record claims and that shows compared: size and SHA-256 of the original (of
    the form ``"pixels"`` neither shows), SHA-256 of the pixels, shape, dtype, form and what it needs. After them what
    files share, the lists of the bags, and files that the journal does not know; not so with a `sample` or a `pattern`.
    While another process adds to the archive, what it stored anew is judged by its newest record, and nothing is said
    of files that have none yet, nor of bags that are not written yet.

    Parameters
    ----------
    place : Place
    journal : Journal
    fast : bool
        Checksums of what is stored, nothing decoded.
    sample : float, optional
        Only so large a share of the files, from 0 to 1, at random; at least one.
    seed : int
        The same seed takes the same files.
    pattern : str or sequence of str, optional
        Only files whose source matches, as `Patterns` has it.
    progress : callable, optional
        Called as ``progress(done, total)`` in stored bytes, by the thread that iterates.
    n_threads : int, optional
        Of each file that is decoded.
    workers : int, optional
        Files at a time; default 2, or the processors there are if that is less.

    Yields
    ------
    Checked

    Raises
    ------
    ValueError
        `sample` is no share.
    """
    if sample is not None and not 0 < sample <= 1:
        raise ValueError(f"sample is {sample!r}, expected a share above 0 and up to 1")
    workers = workers or min(2, default_threads())
    whole = sample is None and pattern is None
    yield from (Checked(journal.path.name, "", "journal", text) for text in journal.damaged)
    chosen = _chosen(journal, Patterns(pattern), sample, seed)
    work = _Work(place, journal, fast, n_threads or max(1, default_threads() // workers))
    total = int(journal.state.totals()[1] * (sample or 1))
    yield from _in_order(chosen, work, workers, progress, total)
    if whole:
        for path, digest, size in journal.state.parts():
            yield work.stored(Checked(path, "", "whole", stored_bytes=size), digest, size)
        if journal.is_written():
            return
        for session in journal.state.sessions():
            for path, error, expected, found in bag_faults(place, journal, session):
                yield Checked(path, "", "bag", error, expected, found)
        if isinstance(place, Folder):
            for path, error in lost_text(place.root, journal):
                yield Checked(path, "", "journal", error)
        yield from _extra(place, journal)


def proven(
    place: Place, journal: Journal, records: Iterator[Record], tick: Callable[[], None] | None = None
) -> Iterator[Checked]:
    """What is found of some files, each decoded as by `check`, in their order.

    Parameters
    ----------
    place : Place
    journal : Journal
    records : iterator of Record
        ``"stored"``.
    tick : callable, optional
        Called some times a second, by the thread that iterates; what it raises ends the work.
    """
    workers = min(2, default_threads())
    work = _Work(place, journal, False, max(1, default_threads() // workers))

    def told(done: int, total: int) -> None:
        if tick is not None:
            tick()

    yield from _in_order(((record, None) for record in records), work, workers, told, 0)


def _chosen(
    journal: Journal, patterns: Patterns, sample: float | None, seed: int
) -> Iterator[tuple[Record, str | None]]:
    """The records of files to look at, and what is wrong with their lines: at least one, where there is one. Of those
    passed over one is remembered, each with the same chance. Links and folders are there only if something is."""
    rng = random.Random(seed)
    spare: tuple[bytes, Record] | None = None
    seen, taken = 0, False
    for line, record in journal.lines():
        if not patterns.match(record.source):
            continue
        if record.event != "stored":
            if sample is None and (fault := line_fault(line, record) or contradiction(record)) is not None:
                yield record, fault
        elif sample is None or rng.random() < sample:
            taken = True
            yield record, line_fault(line, record)
        elif not taken:
            seen += 1
            if rng.randrange(seen) == 0:
                spare = line, record
    if not taken and spare is not None:
        yield spare[1], line_fault(*spare)


def _in_order(
    records: Iterator[tuple[Record, str | None]],
    work: _Work,
    workers: int,
    progress: Callable[[int, int], None] | None,
    total: int,
) -> Iterator[Checked]:
    """What the work says of each record, in their order, some at a time."""
    waiting: deque[Future[Checked]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            more = True
            while more or waiting:
                while more and len(waiting) < 4 * workers:
                    record, fault = next(records, (None, None))
                    if record is None:
                        more = False
                    elif record.form == "same" or fault:  # asks the journal alone, which is this thread's
                        waiting.append(Future())
                        waiting[-1].set_result(work(record, fault))
                    else:
                        waiting.append(pool.submit(work, record))
                while waiting and (waiting[0].done() or not more or len(waiting) >= 4 * workers):
                    wait([waiting[0]], timeout=0.2)
                    if progress is not None:
                        progress(work.done, total)
                    if waiting[0].done():
                        yield work.again(waiting.popleft().result())
        except BaseException:  # also of somebody who does not want the rest
            work.stopped = True
            for future in waiting:
                future.cancel()
            raise


class _Work:
    """Looks at one file after another, on several threads."""

    def __init__(self, place: Place, journal: Journal, fast: bool, n_threads: int) -> None:
        self.place, self.journal, self.fast, self.n_threads = place, journal, fast, n_threads
        self.done = 0
        self.stopped = False
        self._lock = threading.Lock()

    def _tell(self, n_bytes: int) -> None:
        if self.stopped:
            raise _Stopped
        with self._lock:
            self.done += n_bytes

    def _watch(self, n_bytes: int) -> None:
        if self.stopped:
            raise _Stopped

    def __call__(self, record: Record, fault: str | None = None) -> Checked:
        started = time.perf_counter()
        found = Checked(
            record.path, record.source, "whole", form=record.form, stored_bytes=record.stored_bytes, notes=record.notes
        )
        fault = fault or contradiction(record)
        if fault is not None:
            found = replace(found, finding="journal", error=fault)
        else:
            found = self._second(record, found) if record.form == "same" else self._file(record, found)
        return replace(found, seconds=time.perf_counter() - started)

    def again(self, found: Checked) -> Checked:
        """What was found, or what is found now of a file that was stored anew meanwhile."""
        if not found.damaged or (newer := self.journal.newer(found.source)) is None:
            return found
        return self(newer)

    def _second(self, record: Record, found: Checked) -> Checked:
        """A second name says what its first one is; that lies somewhere, and is looked at itself."""
        first = self.journal.stored(record.target)
        found = replace(found, path=first.path if first is not None else "")
        if first is None or first.form == "same":
            return replace(found, finding="missing", error=f"is a second name of {record.target}, which is not stored")
        if first.sha256_source != record.sha256_source:
            error = f"is a second name of {record.target}, which was stored anew since, with other bytes"
            return replace(
                found, finding="changed", error=error, expected=record.sha256_source, found=first.sha256_source
            )
        for name in _OF_BYTES:
            said, known = getattr(record, name), getattr(first, name)
            if said and known and said != known:
                error = f"is a second name of {record.target}, of whose {name} its record says something else"
                return replace(found, finding="journal", error=error)
        return found

    def _file(self, record: Record, found: Checked) -> Checked:
        found = self.stored(found, record.sha256_stored, record.stored_bytes)
        if found.ok and record.form == "copy":
            return self._copied(record, replace(found, decoded=True))
        return found if self.fast or not found.ok else self._decoded(record, found)

    def stored(self, found: Checked, digest: str, size: int) -> Checked:
        """Whether what lies at a path has this size and checksum."""
        try:
            there = self.place.size(found.path)
            if there != size:
                return replace(
                    found,
                    finding="changed",
                    error=f"has {there} bytes, {size} were stored",
                    expected=f"{size} bytes",
                    found=f"{there} bytes",
                )
            is_sum = _sum(read_pieces(self.place, found.path, self._tell))
        except LinkError as error:
            return replace(found, finding="missing", error=system_error(error, found.path), expected=digest)
        except (FileNotFoundError, NotADirectoryError):
            return replace(found, finding="missing", error="is not there", expected=digest)
        except Exception as error:  # the packages that speak to stores raise what they like
            return replace(found, finding="unreadable", error=error_text(error, found.path))
        if is_sum != digest:
            return replace(
                found, finding="changed", error="has other bytes than were stored", expected=digest, found=is_sum
            )
        return found

    def _decoded(self, record: Record, found: Checked) -> Checked:
        pixels, nbytes, faults = hashlib.sha256(), 0, list[str]()

        def counted(given: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
            nonlocal nbytes
            for piece in given:
                nbytes += memoryview(piece).nbytes
                yield piece

        try:
            given = pieces(
                self.place,
                record,
                n_threads=self.n_threads,
                tell=self._watch,
                pixels=pixels if record.sha256_pixels else None,
                look=lambda reader: faults.extend(shown_faults(record, reader)),
            )
            is_sum = _sum(counted(given))
        except FormatError as error:
            return replace(found, finding="damaged", error=error_text(error, record.path))
        except Exception as error:
            return replace(found, finding="unreadable", error=error_text(error, record.path))
        expected = record.sha256_source
        if record.form == "pixels":
            is_sum, expected = pixels.hexdigest(), record.sha256_pixels
        if is_sum != expected:
            error_is = "does not decode to what it was made from"
            return replace(found, finding="damaged", error=error_is, expected=expected, found=is_sum)
        found = replace(found, decoded=True)
        if record.form != "pixels" and nbytes != record.source_bytes:
            faults.append(
                f"its record says that its source had {record.source_bytes} bytes, and it gives back {nbytes}"
            )
        if record.sha256_pixels and pixels.hexdigest() != record.sha256_pixels:
            faults.append("its record has the checksum of other pixels")
            found = replace(found, expected=record.sha256_pixels, found=pixels.hexdigest())
        return replace(found, finding="journal", error="; ".join(faults)) if faults else found

    def _copied(self, record: Record, found: Checked) -> Checked:
        """A copy is what its source was; what its record says of it besides shows where it is a file that opens."""
        if self.fast or not record.format or not isinstance(self.place, Folder):
            return found
        path = record.path
        try:
            path = str(self.place.at(path))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FormatWarning)
                with open_any(path, n_threads=self.n_threads) as reader:
                    faults = list(shown_faults(record, reader))
        except Exception as error:
            if record.format not in ("mrc", "mrcz") or not isinstance(error, FormatError):
                return found  # a package is missing, or what it names lies elsewhere: its bytes are right
            faults = [f"its record says that it is {record.format}, and it is not: {error_text(error, path)}"]
        return replace(found, finding="journal", error="; ".join(faults)) if faults else found


def _sum(parts: Iterator[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _extra(place: Place, journal: Journal) -> Iterator[Checked]:
    """Files that no record is of, the lists of bags and the archive's own folder aside."""
    sessions = set(journal.state.sessions())
    try:
        for path in place.files():
            folder, _, name = path.rpartition("/")
            if path.split("/", 1)[0] == FOLDER or (name in TAGS and folder in sessions) or is_known(journal, path):
                continue
            if unfinished_name(name) is not None:
                error = "is the temporary file of a run that goes on or was killed; the next one removes it"
            else:
                error = "is in no record of the journal: what a killed run left, or somebody put there"
            yield Checked(path, "", "extra", error)
    except OSError as error_of_disk:
        yield Checked("", "", "unreadable", error_text(error_of_disk, place.name))
