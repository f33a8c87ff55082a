"""From a staging folder into an object store: files are made and proven here, sent, and read back there.

The journal stays on the disk of the machine that archives, because an object store has nothing that can be added to;
a copy goes up now and then, and at the end. What a killed run leaves is a file in staging, which is removed, an upload
that is not finished, which is aborted, or an object without a record, which is made again and replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mrcz.archive.clean import clean
from mrcz.archive.description import DESCRIPTION
from mrcz.archive.journal import FOLDER, JOURNAL, end_of_lines
from mrcz.archive.objects import ObjectStore, is_left_behind
from mrcz.archive.record import Record
from mrcz.archive.task import Task
from mrcz.errors import MrczError
from mrcz.storage.disk import Disk
from mrcz.storage.whole import make_folders, whole_file

__all__ = ["Mirror", "Upload", "staging_of", "state_folder", "sweep"]

_DAY = 86400.0
_TAIL = 1 << 20  # bytes at the end of a journal by which two are compared
_URL = "url.txt"


def state_folder(url: str) -> Path:
    """Where what belongs to an archive at a URL is kept on this machine: below ``$XDG_STATE_HOME`` or
    ``~/.local/state``."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(state) / "mrcz" / "archives" / _label(url)


def staging_of(folder: str | os.PathLike[str], url: str) -> Path:
    """The folder below a staging folder that belongs to one archive, made and marked as ours: only in such a one
    anything is ever removed.

    Raises
    ------
    MrczError
        Something else is called so.
    """
    root = Path(os.path.abspath(folder)) / f"mrcz-{_label(url)}"
    mark = root / FOLDER / _URL
    try:
        found = mark.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        if root.exists() and any(name != FOLDER for name in os.listdir(root)):
            raise MrczError("is not empty, and no staging folder of ours", path=root) from None
        make_folders(mark.parent)
        new = mark.with_name(f".{secrets.token_hex(8)}")  # several workers may begin at the same time
        new.write_text(_plain(url), encoding="utf-8")
        os.replace(new, mark)
    else:
        if found != _plain(url):
            raise MrczError(f"belongs to the archive {found[:200]}", path=root)
    return root


def sweep(root: str | os.PathLike[str]) -> None:
    """Remove what killed processes of this machine left in a staging folder."""
    for entry in list(os.scandir(root)):
        if entry.is_dir(follow_symlinks=False) and is_left_behind(entry.name.removeprefix("worker-")):
            shutil.rmtree(entry.path, ignore_errors=True)


def _plain(url: str) -> str:
    return url.rstrip("/") or url


def _label(url: str) -> str:
    readable = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in _plain(url))
    return f"{readable.strip('-')[-40:]}-{hashlib.sha256(_plain(url).encode()).hexdigest()[:12]}"


class Upload:
    """What is done with one file of an archive in an object store; takes the place of `mrcz.archive.store.store`, on
    threads and on a cluster, where each machine has a staging folder of its own.

    Parameters
    ----------
    place : ObjectStore
    staging : path, optional
        A folder on each worker's own disk; by default the task's root.
    store : callable, optional
        By default `mrcz.archive.store.store`.
    """

    def __init__(
        self,
        place: ObjectStore,
        staging: str | os.PathLike[str] | None = None,
        store: Callable[..., Record] | None = None,
    ) -> None:
        self.place, self.staging, self._store = place, staging, store
        self._there: set[tuple[str, str]] = set()
        self._process, self._root = 0, Path()
        self._notes: Path | None = None

    def __call__(self, task: Task, progress: Any = None, flow: Any = None) -> Record:
        """Store, send, read back, compare."""
        started = time.perf_counter()
        if self._store is None:
            from mrcz.archive.store import store

            self._store = store
        base = Record("refused", task.source, task.session, source_bytes=task.size, mtime_ns=task.mtime_ns)
        for path in filter(None, (task.path, task.packed_path)):
            if wrong := self.place.unfit(path):
                return replace(base, run=task.run, changed=task.changed, error=wrong, reason="name")
        if self.staging is not None:
            task = replace(task, root=self._own(self.staging))
        record = self._store(task, progress, flow)
        if record.event != "stored" or not record.path:
            if record.path:  # it was not sent: what there is of it lies here
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(task.root, record.path))
            return replace(record, path="")
        try:
            self._send(task, record, progress, flow)
        except (OSError, MrczError) as error:
            return replace(
                base,
                event="failed",
                error=str(error),
                reason=_why(error),
                changed=task.changed,
                run=task.run,
                **{name: getattr(record, name) for name in ("worker", "versions", "time", "format")},
            )
        finally:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(task.root, record.path))
        return replace(record, seconds=round(time.perf_counter() - started, 6))

    def _own(self, staging: str | os.PathLike[str]) -> str:
        """A folder for this process alone: one that was thought dead may still be at the same file."""
        if self._process != os.getpid():
            root = staging_of(staging, self.place.url)
            sweep(root)
            self.place.forget(root / FOLDER / "uploads")
            self._root = root / f"worker-{socket.gethostname()}-{os.getpid()}"
            self._notes = root / FOLDER / "uploads"
            self._process = os.getpid()
        return str(self._root)

    def _send(self, task: Task, record: Record, progress: Any, flow: Any) -> None:
        def sent(nbytes: int) -> None:
            if flow is not None:
                flow.write(nbytes)
            if progress is not None:  # it may want to end this
                progress(task.size, task.size)

        def came(nbytes: int) -> None:
            if flow is not None:
                flow.read(nbytes)
            if progress is not None:
                progress(task.size, task.size)

        for path, digest, size in record.parts:  # shared by several files: its copy stays in staging for them
            if (path, digest) not in self._there:
                if not self._is_there(path, digest, size, came):
                    self._sent(task.root, path, digest, size, sent, came)
                self._there.add((path, digest))
        self._sent(task.root, record.path, record.sha256_stored, record.stored_bytes, sent, came)

    def _is_there(self, path: str, digest: str, size: int, came: Callable[[int], None]) -> bool:
        try:
            return self.place.size(path) == size and self.place.sha256(path, came) == (digest, size)
        except FileNotFoundError:
            return False

    def _sent(
        self, root: str, path: str, digest: str, size: int, sent: Callable[[int], None], came: Callable[[int], None]
    ) -> None:
        source = os.path.join(root, path)
        for again in (True, False):
            self.place.upload(source, path, sent, self._notes or Path(root) / FOLDER / "uploads")
            found = self.place.sha256(path, came)
            if found == (digest, size):
                return
            if not again:
                raise MrczError(
                    f"the store gave back {found[1]} bytes with SHA-256 {found[0]}, and was given {size} with {digest}",
                    path=f"{self.place.name}/{path}",
                )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_there": set(), "_process": 0}


def _why(error: BaseException) -> str:
    if isinstance(error, PermissionError):
        return "permission"
    if isinstance(error, FileNotFoundError):
        return "gone"
    return "store" if isinstance(error, MrczError) else "disk"


class Mirror:
    """Keeps what an archive in an object store says of itself, journal and description, here and there.

    Parameters
    ----------
    place : ObjectStore
    root : path
        The staging folder (`staging_of`).
    journal : path
        The journal on this machine.
    every : float
        Seconds between two copies that go up.
    """

    def __init__(
        self,
        place: ObjectStore,
        root: str | os.PathLike[str],
        journal: str | os.PathLike[str],
        *,
        every: float = 900.0,
    ) -> None:
        self.place, self.root, self.journal, self.every = place, Path(root), Path(journal), every
        self._sent = -1  # bytes of the journal that the store has
        self._when = time.monotonic()

    def begin(self) -> None:
        """Before the archive is opened: try the store, and fetch journal and description where this machine has none.

        Raises
        ------
        MrczError
            The store cannot be written and read; or its journal is another than ours: somebody else archives there.
        """
        self.place.check()
        make_folders(self.journal.parent)
        if not self.journal.exists():
            self._fetch(f"{FOLDER}/{JOURNAL}", self.journal)
        if not (self.root / FOLDER / DESCRIPTION).exists():
            self._fetch(f"{FOLDER}/{DESCRIPTION}", self.root / FOLDER / DESCRIPTION)
        self._compare()

    def clean(self) -> None:
        """Once the journal is ours alone: remove what killed runs left, here and in the store. An upload of another
        machine is abandoned after a day."""
        for entry in list(os.scandir(self.root)):
            made = entry.name != FOLDER and not entry.name.startswith("worker-")
            if made and entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
        sweep(self.root)
        for _ in clean(self.root / FOLDER, older_than=0.0, unsaved=True):  # of what was fetched
            pass
        # Beside the journal other things may lie: its own alone.
        ours = re.compile(rf"\.{re.escape(self.journal.name)}\.(\d+\.sending|[0-9a-f]{{8}}\.part)")
        for name in os.listdir(self.journal.parent):
            if ours.fullmatch(name):
                with contextlib.suppress(OSError):
                    os.unlink(self.journal.with_name(name))
        self.place.forget(self.root / FOLDER / "uploads")
        with contextlib.suppress(OSError, MrczError):  # not every store lists them
            self.place.abort(self.place.unfinished(_DAY))

    def tick(self) -> None:
        """Send a copy up if the last one is old; call it often."""
        if time.monotonic() - self._when >= self.every:
            self.sync()

    def sync(self) -> None:
        """Send copies of journal and description up.

        Raises
        ------
        MrczError
            Somebody else has put another journal there meanwhile.
        """
        self._when = time.monotonic()
        size = self._whole_lines()
        if size != self._sent:
            self._compare()
            with self._snapshot(size) as copy:
                self.place.upload(copy, f"{FOLDER}/{JOURNAL}", notes=self.root / FOLDER / "uploads")
                self._believe(copy)
            self._sent = size
        with contextlib.suppress(FileNotFoundError):
            data = (self.root / FOLDER / DESCRIPTION).read_bytes()
            self.place.write(f"{FOLDER}/{DESCRIPTION}", data)

    def _believe(self, copy: str) -> None:
        with open(copy, "rb") as file:
            here = hashlib.file_digest(file, "sha256").hexdigest()
        if self.place.sha256(f"{FOLDER}/{JOURNAL}")[0] != here:
            raise MrczError("the store gives back another journal than it was given", path=self.place.name)

    def _whole_lines(self) -> int:
        """Bytes of the journal up to its last newline."""
        try:
            with open(self.journal, "rb") as file:
                return end_of_lines(file.fileno())
        except FileNotFoundError:
            return 0

    @contextlib.contextmanager
    def _snapshot(self, size: int) -> Any:
        """A copy of the journal's first bytes: it grows while it is sent."""
        copy = self.journal.with_name(f".{self.journal.name}.{os.getpid()}.sending")
        try:
            with open(self.journal, "rb") as file, open(copy, "wb") as out:
                with contextlib.suppress(OSError):  # or the store would know more than this machine after a power cut
                    os.fsync(file.fileno())
                left = size
                while left and (block := file.read(min(left, 1 << 20))):
                    out.write(block)
                    left -= len(block)
            yield str(copy)
        finally:
            copy.unlink(missing_ok=True)

    def _fetch(self, path: str, target: Path) -> None:
        try:
            self.place.size(path)
        except FileNotFoundError:
            return
        make_folders(target.parent)
        with self.place.local(path) as copy, contextlib.suppress(FileExistsError), whole_file(target) as file:
            with open(copy, "rb") as fetched:
                shutil.copyfileobj(fetched, file, 1 << 20)
        Disk().sync_folder(target.parent)

    def _compare(self) -> None:
        """The journal in the store is the beginning of ours, or there is none."""
        path = f"{FOLDER}/{JOURNAL}"
        try:
            there = self.place.size(path)
        except FileNotFoundError:
            return
        if there <= self._whole_lines():
            start = max(0, there - _TAIL)
            with open(self.journal, "rb") as mine, self.place.open(path) as theirs:
                mine.seek(start)
                theirs.seek(start)
                if mine.read(there - start) == theirs.read(there - start):
                    return
        raise MrczError(
            f"has a journal of {there} bytes that is not the beginning of {self.journal}: another machine archives "
            "there, or did. Go on where it did, or remove the journal here to fetch that one",
            path=self.place.name,
        )
