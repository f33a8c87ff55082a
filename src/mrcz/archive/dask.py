"""An archive on the processes of a dask cluster: on this machine, or on many that see the same folders.

One file is one task. Workers die, are killed at wall time, or lose the network: a task then runs again elsewhere, and
nothing is lost or counted twice, because a file is whole or absent, a task may run any number of times, and the journal
is written by the client alone, from the one record that it takes of each task. If the client itself dies, the next run
goes on from the journal.

Of a cluster is asked that its workers have this version of mrcz and see the source and the archive under the same
names. That is looked at before the first task, and again on each worker that joins.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from mrcz.archive.admission import admission, checker, sample_of
from mrcz.archive.journal import FOLDER
from mrcz.archive.pace import be_nice
from mrcz.archive.record import Record
from mrcz.archive.task import Options, Task
from mrcz.errors import MissingDependencyError, MrczError
from mrcz.storage.whole import make_folders

__all__ = ["DaskExecutor", "Store"]

Store = Callable[..., Record]
"""``store(task, progress, flow)``: stores one file and says what became of it. It crosses to other processes by its
name, or pickled."""

_FEWEST, _MOST = 32, 4000  # tasks at a time: enough for a cluster that grows with its queue, few enough for memory
_DEATHS = 10  # workers that may die over a task before it is tried alone: most deaths are no fault of its own
_TRIES = 3  # times that a task is given again whose future was cancelled or lost
_LOOK = 1.0  # seconds between two looks at the cluster
_PATIENCE = 20.0  # seconds until a process of our own that is missing is missed
_TELL = 1.0  # seconds between two words of a worker about one file


@dataclass
class _Given:
    """A task that is with the cluster."""

    task: Task
    future: Any = None
    tries: int = 0
    alone: bool = False
    worker: str = ""
    done: int = 0


class DaskExecutor:
    """Stores files on a dask cluster.

    Parameters
    ----------
    where : str or distributed.Client
        ``"local"``: a cluster of processes on this machine, that ends with this object, talks over encrypted
        connections to nobody else, and has a process for each ``n_threads`` cores. An address
        (``"tcp://host:8786"``, ``"tls://…"``), or a client that stays open.
    store : Store, optional
        By default `mrcz.archive.store.store`.
    top, root : path, optional
        Source and archive: every worker has to see them.
    options : Options
        Niceness and threads.
    flow : callable, optional
        ``flow(options)``: what slows `store` down, made once in each worker process: rates are those of a process.
    workers : int, optional
        Processes of a local cluster.
    slots : int, optional
        Tasks at a time; by default some for each thread of the cluster, and more when it grows.
    timeout : float
        Seconds to wait for the scheduler, at the beginning and whenever the connection is lost.

    Attributes
    ----------
    slots : int
    refused : list of str
        Workers that joined later and were sent away, and why.

    Raises
    ------
    MissingDependencyError
        distributed is not installed.
    MrczError
        There is no scheduler, or a worker does not see the folders or has another version.
    """

    def __init__(
        self,
        where: Any = "local",
        *,
        store: Store | None = None,
        top: str | os.PathLike[str] | None = None,
        root: str | os.PathLike[str] | None = None,
        options: Options | None = None,
        flow: Callable[[Options], Any] | None = None,
        workers: int | None = None,
        slots: int | None = None,
        timeout: float = 30.0,
    ) -> None:
        try:
            import distributed
        except ImportError as error:
            raise MissingDependencyError(f"a cluster needs dask ({error}): pip install 'mrcz[cluster]'") from error
        self._distributed: Any = distributed
        self._options = options or Options()
        if store is None:
            from mrcz.archive.store import store as usual

            store = usual
        self._store, self._flow = store, flow
        self._fixed = slots is not None
        self.slots = slots or _FEWEST
        self.refused: list[str] = []
        self._given: dict[str, _Given] = {}
        self._again: deque[_Given] = deque()
        self._suspects: deque[_Given] = deque()
        self._ready: deque[Record] = deque()
        self._number, self._looked = 0, 0.0
        self._mark = f"mrcz-archive-{secrets.token_hex(6)}"
        self._probe: Path | None = None
        self._plugin = False
        self._workers: dict[str, int] = {}
        self._cluster: Any = None  # of our own
        self._wanted, self._revived, self._complete = 0, 0, time.monotonic()
        self._closing = contextlib.ExitStack()
        try:
            self._client = self._connect(where, workers, timeout)
            self._client.subscribe_topic(self._mark, self._hear)
            self._closing.callback(_quietly, self._client.unsubscribe_topic, self._mark)
            self._done = self._distributed.as_completed(loop=self._client.loop, raise_errors=False)
            _quietly(self._client.run_on_scheduler, _allow_failures())
            self._admit(top, root)
            self._look()
        except BaseException:
            self.close()
            raise

    def _connect(self, where: Any, workers: int | None, timeout: float) -> Any:
        """The client, and what is to be closed with this object."""
        if not isinstance(where, str):
            return where
        if where == "local":
            return self._closing.enter_context(self._local(workers, timeout))
        try:
            client = self._distributed.Client(where, timeout=timeout, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise MrczError(f"there is no dask scheduler ({_said(error)})", path=where) from error
        self._closing.callback(_quietly, client.close)
        return client

    @contextlib.contextmanager
    def _local(self, workers: int | None, timeout: float) -> Iterator[Any]:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        try:
            # Whoever may connect to a scheduler may run programs as us: the certificates are of this run alone.
            security = self._distributed.Security.temporary()
        except ImportError as error:
            raise MissingDependencyError(f"{error}: pip install 'mrcz[cluster]'") from error
        make = partial(
            self._distributed.LocalCluster,
            n_workers=workers or max(1, cores // (self._options.n_threads or cores)),
            threads_per_worker=1,
            processes=True,
            protocol="tls",
            security=security,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            memory_limit=0,  # dask counts the pages of mapped files as memory, and would kill workers for them
            silence_logs=50,  # the deaths of workers are told in records
        )
        try:
            cluster = make()
        except RuntimeError:  # a process died before it was up
            try:
                cluster = make()
            except RuntimeError as error:
                raise MrczError(f"the processes of a local cluster do not start ({_said(error)})") from error
        self._cluster, self._wanted = cluster, len(cluster.worker_spec)
        try:
            client = self._distributed.Client(cluster, timeout=timeout, set_as_default=False)
            try:
                yield client
            finally:
                _quietly(client.close)
        finally:
            _quietly(cluster.close, timeout=10)

    def _admit(self, top: Any, root: Any) -> None:
        """Refuse workers that cannot do the work: those there now, and each that joins later."""
        folder = None
        if root is not None:
            folder = Path(os.path.abspath(root)) / FOLDER
            make_folders(folder)
            for left in folder.glob(".mrcz-archive-*.probe*"):  # by clients that were killed
                with contextlib.suppress(OSError):
                    if time.time() - left.stat().st_mtime > 30 * 86400.0:
                        left.unlink()
            self._probe = folder / f".{self._mark}.probe"
            with open(self._probe, "x", encoding="ascii") as file:
                file.write(self._mark)
        check = checker(
            self._mark,
            None if top is None else os.path.abspath(top),
            sample_of(top),
            None if folder is None else str(folder),
        )
        try:
            answers = self._client.run(check, on_error="return")
        except (OSError, ValueError) as error:
            raise MrczError(f"the workers do not answer ({_said(error)})") from error
        # One that died meanwhile is no reason: who takes its place looks at itself.
        wrong = {where: answer for where, answer in answers.items() if answer and not isinstance(answer, OSError)}
        if wrong:
            where, answer = min(wrong.items())
            text = answer if isinstance(answer, str) else f"worker {where}: {_said(answer)}"
            more = f"; {len(wrong)} of {len(answers)} workers are refused" if len(answers) > 1 else ""
            raise MrczError(text + more)
        self._plugin = True
        for again in (True, True, False):
            try:
                self._client.register_plugin(admission(check, self._mark), name=self._mark)
                return
            except OSError as error:
                if not again:
                    raise MrczError(f"the workers do not answer ({_said(error)})") from error

    # ---- the protocol ------------------------------------------------------------------------------------------------

    def submit(self, task: Task) -> None:
        """Give a task to the cluster."""
        self._give(_Given(task))

    def wait(self, timeout: float) -> list[Record]:
        """Records of the tasks that are done; none after *timeout* seconds.

        Raises
        ------
        MrczError
            The scheduler is gone, or every worker that came was refused: what is done is in the journal or will be done
            again, and another run goes on.
        """
        until = time.monotonic() + timeout
        while True:
            for future in self._done.next_batch(block=False):
                self._take(future)
            if self._ready:
                records = list(self._ready)
                self._ready.clear()
                return records
            self._look()
            if time.monotonic() >= until:
                return []
            with self._done.thread_condition:
                if not self._done.has_ready():
                    self._done.thread_condition.wait(min(0.1, max(0.001, until - time.monotonic())))

    def doing(self) -> list[tuple[str, str, int, int]]:
        """(worker, source, bytes done, bytes in all) of the files that workers are at, as far as they have said."""
        given = [one for one in list(self._given.values()) if one.worker]
        return sorted((one.worker, one.task.source, one.done, one.task.size) for one in given)

    def close(self) -> None:
        """End. Tasks that run are not waited for: on a cluster that stays they come to an end, and what they made is
        found by the next run."""
        if hasattr(self, "_done"):
            self._done.clear()
        # Released, not cancelled: a cancellation may overtake what was just submitted, and dask then takes it up again
        # while the files are under way.
        for one in self._given.values():
            if one.future is not None:
                _quietly(one.future.release)
        self._given.clear()
        self._again.clear()
        self._suspects.clear()
        if self._plugin:
            self._plugin = False
            _quietly(self._client.unregister_worker_plugin, self._mark)
        if self._probe is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._probe)
            self._probe = None
        self._closing.close()

    def __enter__(self) -> DaskExecutor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- one task ----------------------------------------------------------------------------------------------------

    def _give(self, given: _Given) -> None:
        if self._client.status != "running":
            self._again.append(given)
            return
        self._number += 1
        key = f"{self._mark}-{self._number}"
        given.worker, given.done = "", 0
        # Never the same key twice: the result of an earlier try would be taken for this one's.
        given.future = self._client.submit(
            _run, self._store, given.task, key, self._mark, given.alone, self._flow, key=key, pure=False
        )
        self._given[key] = given
        self._done.add(given.future)

    def _take(self, future: Any) -> None:
        """What became of a task: a record, another try, or a record that says why there is none."""
        given = self._given.get(future.key)
        if given is None:
            return
        failed = None
        if future.status == "finished":
            try:
                result = future.result(timeout=5)
            except TimeoutError:  # whoever has it does not answer; or is dead, and the task runs again
                self._done.add(future)
                return
            except Exception as error:
                failed = error
            else:
                del self._given[future.key]
                self._ready.append(_believed(result, given.task))
                return
        elif future.status == "error":
            try:
                failed = future.exception(timeout=5)
            except TimeoutError:
                self._done.add(future)
                return
            except Exception as error:
                failed = error
        elif future.status == "pending":  # its result was lost since
            self._done.add(future)
            return
        del self._given[future.key]
        self._fail(given, failed, future.status)

    def _fail(self, given: _Given, error: Any, status: str) -> None:
        """A task that ended without a record."""
        if error is None or isinstance(error, self._distributed.CancelledError):
            given.tries += 1
            if self._client.status != "running" or given.tries < _TRIES:
                self._again.append(given)
            else:
                self._ready.append(
                    _failure(given.task, f"dask dropped its task {given.tries} times ({status})", "dropped")
                )
            return
        killed = isinstance(error, self._distributed.scheduler.KilledWorker)
        if not given.alone:
            given.alone = True
            self._suspects.append(given)
        elif killed:
            last = getattr(getattr(error, "last_worker", None), "address", "")
            text = "every worker process died that stored it, also one that did nothing else: no memory, or our fault"
            self._ready.append(_failure(given.task, text, "workers died", last))
        else:
            self._ready.append(_failure(given.task, _said(error), type(error).__name__))

    # ---- the cluster -------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Is the scheduler there, which workers are, and what is to be given again?"""
        status = self._client.status
        if status in ("closed", "closing", "failed"):
            left = len(self._given) + len(self._again) + len(self._suspects)
            raise MrczError(
                f"the dask scheduler is gone, and with it {left} files that were under way; run the same command "
                "again, and it goes on with what is not in the journal"
            )
        if status != "running":  # the connection was lost, and is being made again
            return
        while self._again:
            self._give(self._again.popleft())
        # One at a time: two of them on one worker would accuse each other.
        if self._suspects and not any(given.alone for given in self._given.values()):
            self._give(self._suspects.popleft())
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        try:
            self._workers = self._client.nthreads()
        except (OSError, ValueError):
            return
        if self.refused and not self._workers:
            raise MrczError(f"no worker is left; {self.refused[-1]}")
        if self._cluster is not None:
            self._revive()
        if not self._fixed:
            self.slots = min(_MOST, max(_FEWEST, 3 * sum(self._workers.values())))

    def _revive(self) -> None:
        """Start processes of our own again that died before they were up, which dask does not."""
        missing = self._wanted - len(self._workers)
        if missing <= 0:
            self._revived, self._complete = 0, time.monotonic()
        elif time.monotonic() - self._complete > _PATIENCE:
            if not self._workers and self._revived >= 5:
                raise MrczError("the processes of the local cluster die before they are up")
            self._revived, self._complete = self._revived + 1, time.monotonic()
            _quietly(self._cluster.scale, len(self._cluster.worker_spec) + missing)

    def _hear(self, event: Any) -> None:
        """A word of a worker, in another thread."""
        _, message = event
        if isinstance(message, dict) and "refused" in message:
            self.refused.append(str(message["refused"]))
        elif isinstance(message, (list, tuple)) and len(message) == 3:
            given = self._given.get(message[0])
            if given is not None:
                given.worker, given.done = str(message[1]), int(message[2])


# ---- on a worker -----------------------------------------------------------------------------------------------------


class _Gate:
    """Many tasks of this process at a time, or one alone: one that killed a worker takes no other with it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside, self._alone = 0, 0

    @contextlib.contextmanager
    def passed(self, alone: bool) -> Iterator[None]:
        with self._changed:
            if alone:
                self._alone += 1  # nobody enters any more
                self._changed.wait_for(lambda: self._inside == 0)
            else:
                self._changed.wait_for(lambda: self._alone == 0)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._alone -= alone
                self._changed.notify_all()


_gate = _Gate()


def _run(store: Store, task: Task, key: str, topic: str, alone: bool, flow: Callable[[Options], Any] | None) -> Record:
    """What a worker does: one file."""
    be_nice(task.options.nice)
    with _gate.passed(alone):
        return store(task, _teller(key, topic), None if flow is None else _made(flow, task.options))


@lru_cache(maxsize=8)
def _made(flow: Callable[[Options], Any], options: Options) -> Any:
    return flow(options)


def _teller(key: str, topic: str) -> Callable[[int, int], None] | None:
    """Progress, told to the client now and then."""
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:
        return None
    name = f"{socket.gethostname()}:{os.getpid()}"
    next_time = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal next_time
        if time.monotonic() >= next_time:
            next_time = time.monotonic() + _TELL
            worker.log_event(topic, [key, name, done])

    tell(0, 0)
    return tell


def _believed(result: Any, task: Task) -> Record:
    """The record that a worker sent, if it is one of this task."""
    if isinstance(result, Record) and result.source == task.source:
        return result
    return _failure(task, f"the worker answered with {type(result).__name__}, no record of this file", "wrong answer")


def _failure(task: Task, error: str, reason: str, worker: str = "") -> Record:
    return Record(
        "failed",
        task.source,
        session=task.session,
        source_bytes=task.size,
        mtime_ns=task.mtime_ns,
        changed=task.changed,
        run=task.run,
        worker=worker,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        error=error,
        reason=reason,
    )


def _allow_failures() -> Callable[..., None]:
    deaths = _DEATHS

    def allow(dask_scheduler: Any = None) -> None:
        dask_scheduler.allowed_failures = max(dask_scheduler.allowed_failures, deaths)

    return allow


def _quietly(function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Something whose failure changes nothing: the scheduler may be gone."""
    with contextlib.suppress(Exception):
        function(*arguments, **options)


def _said(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
