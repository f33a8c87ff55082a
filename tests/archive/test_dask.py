"""Archives on a cluster of real processes, which die."""

import contextlib
import hashlib
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cluster_store
import numpy as np
import pytest

from mrcz.archive.admission import checker, sample_of
from mrcz.archive.dask import DaskExecutor, _Gate
from mrcz.archive.task import Options, Task
from mrcz.errors import MrczError
from mrcz.storage.whole import make_folders

pytest.importorskip("distributed")

pytestmark = [
    # A scheduler whose workers are killed, and that is killed, leaves sockets to the collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif(os.name == "nt", reason="kills by signals"),
]


def tree(folder, names, size=20_000):
    """A source of files with these names, and a task for each."""
    source, root = folder / "source", folder / "archive"
    tasks = []
    for number, name in enumerate(names):
        path = source / "grid" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(hashlib.sha256(str(number).encode()).digest() * (size // 32))
        status = path.stat()
        tasks.append(
            Task(str(source), f"grid/{name}", str(root), "grid", f"grid/data/{name}", f"grid/data/{name}.mrcz",
                 status.st_size, status.st_mtime_ns)
        )  # fmt: skip
    make_folders(root)
    return tasks


def run(executor, tasks, seconds=60.0, meanwhile=lambda: None):
    """All records, as a driver would get them: with never more tasks under way than there are slots."""
    waiting, records, under_way, most = list(tasks), [], 0, 0
    until = time.monotonic() + seconds
    while (waiting or under_way) and time.monotonic() < until:
        while waiting and under_way < executor.slots:
            executor.submit(waiting.pop(0))
            under_way += 1
            most = max(most, under_way)
        came = executor.wait(0.2)
        under_way -= len(came)
        records += came
        meanwhile()
    records += executor.wait(0.3)  # one too many would come now
    return records, most


def check_whole(tasks, records):
    assert sorted(record.source for record in records) == sorted(task.source for task in tasks)
    for record in records:
        assert record.event == "stored", record
    for task in tasks:
        assert (Path(task.root) / task.path).read_bytes() == (Path(task.top) / task.source).read_bytes()


@pytest.fixture
def cluster(client):
    """The same, with both workers there: the tests before may have killed one."""
    begun, revive = time.monotonic(), reviving(client)
    while len(client.nthreads()) < 2 and time.monotonic() - begun < 30:
        time.sleep(0.1)
        revive()
    return client


def reviving(client):
    """What is to be called now and then: it starts workers again that were killed before they were up, which dask does
    not. Without any nobody would ever be done, and that is told after minutes."""
    begun = complete = time.monotonic()

    def revive():
        nonlocal complete
        now = time.monotonic()
        assert now - begun < 240, "it takes for ever"
        if len(client.nthreads()) >= 2:
            complete = now
        elif now - complete > 6:
            client.cluster.scale(len(client.cluster.worker_spec) + 1)
            complete = now

    return revive


@pytest.fixture(scope="module")
def client():
    """A cluster of two processes whose workers come back, and a client."""
    import distributed

    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1", silence_logs=50
        ) as here,
        distributed.Client(here, set_as_default=False) as client,
    ):
        yield client


def kill_in_mid_file(marks, times, killed, stop):
    """Kill a worker process that is in the middle of a file, again and again."""
    while len(killed) < times and not stop.is_set():
        for mark in marks.iterdir():
            process = int(mark.name.split("-")[0])
            if process not in killed:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
                mark.unlink(missing_ok=True)
                stop.wait(0.7)
                break
        stop.wait(0.01)


def test_workers_killed_in_mid_file(cluster, tmp_path):
    tasks = tree(tmp_path, [f"movie {number} µ%.tif" for number in range(40)])
    marks = tmp_path / "marks"
    marks.mkdir()
    killed, stop = [], threading.Event()
    killer = threading.Thread(target=kill_in_mid_file, args=(marks, 3, killed, stop))
    with DaskExecutor(cluster, store=cluster_store.store, top=tasks[0].top, root=tasks[0].root) as executor:
        killer.start()
        try:
            records, _ = run(executor, tasks, meanwhile=reviving(cluster))
        finally:
            stop.set()
            killer.join()
    assert len(killed) == 3
    check_whole(tasks, records)
    left = [path.name for path in (tmp_path / "archive").rglob("*") if path.is_file() and path.suffix != ".tif"]
    assert all(re.fullmatch(r"\.movie .*\.[0-9a-f]{8}\.part", name) for name in left)
    assert len(left) <= 3


def test_an_archive_whose_workers_are_killed(cluster, tmp_path):
    """The whole of it: real files, the real store, journal and bags."""
    import mrcz
    from mrcz.archive.archiving import Archiving
    from mrcz.archive.journal import read_journal

    source, rng = tmp_path / "source", np.random.default_rng(3)
    for number in range(14):
        path = source / f"grid {number % 2}" / f"movie {number} %µ.mrc"
        path.parent.mkdir(parents=True, exist_ok=True)
        mrcz.write(path, rng.poisson(1, (8, 256, 256)).astype(np.uint8 if number % 3 else np.float32), sync=False)
    killed, stop = [], threading.Event()

    def kill():
        while len(killed) < 2 and not stop.wait(0.3):
            for process in cluster.run(os.getpid, on_error="ignore").values():
                if process not in killed:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                        killed.append(process)
                    break

    killer = threading.Thread(target=kill)
    with Archiving(source, tmp_path / "archive") as run:
        outline = run.plan()
        with DaskExecutor(cluster, top=run.top, root=run.root) as executor:
            killer.start()
            try:
                run.work(outline, executor, tick=reviving(cluster))
            finally:
                stop.set()
                killer.join()
                outline.close()
        run.write_bags()
    assert run.outcome.ok and run.outcome.stored == 14 and killed
    records = [one for one in read_journal(tmp_path / "archive/mrcz-archive/journal.jsonl") if one.event == "stored"]
    assert len(records) == len({one.source for one in records}) == 14
    for record in records:
        assert np.array_equal(mrcz.read(tmp_path / "archive" / record.path), mrcz.read(source / record.source))
    assert not list((tmp_path / "archive").rglob("*.part"))
    with Archiving(source, tmp_path / "archive") as again:
        again.plan().close()
        assert again.outcome.already == 14


def test_a_file_that_kills_workers_is_a_record(cluster, tmp_path):
    """It is tried alone once, and its neighbours, which died with it, are stored."""
    tasks = tree(tmp_path, ["a.tif", "poison.tif", *(f"{letter}.tif" for letter in "bcdefgh")])
    (tmp_path / "marks").mkdir()
    with DaskExecutor(cluster, store=cluster_store.store) as executor:
        before = cluster.run_on_scheduler(lambda dask_scheduler: dask_scheduler.allowed_failures)
        assert before >= 10
        cluster.run_on_scheduler(set_failures, 0)  # as if each of the workers had died ten times before
        records, _ = run(executor, tasks, meanwhile=reviving(cluster))
        cluster.run_on_scheduler(set_failures, before)
    (bad,) = [record for record in records if record.event == "failed"]
    assert (bad.source, bad.reason, bad.source_bytes) == ("grid/poison.tif", "workers died", tasks[1].size)
    assert "also one that did nothing else" in bad.error
    check_whole([task for task in tasks if "poison" not in task.source], [one for one in records if one is not bad])


def set_failures(number, dask_scheduler=None):
    dask_scheduler.allowed_failures = number


def test_errors_and_wrong_answers_are_records(cluster, tmp_path):
    tasks = tree(tmp_path, ["good.tif", "raises.tif", "stranger.tif"], size=64)
    with DaskExecutor(cluster, store=cluster_store.store) as executor:
        records, _ = run(executor, tasks)
    found = {record.source: (record.event, record.reason) for record in records}
    assert found == {
        "grid/good.tif": ("stored", ""),
        "grid/raises.tif": ("failed", "ValueError"),
        "grid/stranger.tif": ("failed", "wrong answer"),
    }
    assert next(record for record in records if "raises" in record.source).error == "a fault of the program"


def test_slots_bound_what_is_under_way_and_limits_are_those_of_a_process(cluster, tmp_path):
    tasks = tree(tmp_path, [f"{number}.log" for number in range(60)], size=64)
    options = Options(read_rate=1e6)
    tasks = [Task(**{**task.__dict__, "options": options}) for task in tasks]
    with DaskExecutor(cluster, store=cluster_store.store, flow=cluster_store.flow, slots=7) as executor:
        records, most = run(executor, tasks)
    check_whole(tasks, records)
    assert most == 7
    for record in records:
        assert record.notes == (f"1e+06 bytes a second in {record.worker.split(':')[1]}",)


def test_dropped_futures_are_given_again_and_then_failed(cluster, tmp_path):
    tasks = tree(tmp_path, ["a.tif", "b.tif"])
    (tmp_path / "marks").mkdir()
    with DaskExecutor(cluster, store=cluster_store.store) as executor:
        for task in tasks:
            executor.submit(task)
        cluster.cancel([given.future for given in executor._given.values()], force=True)
        records, _ = run(executor, [], seconds=0)
        until = time.monotonic() + 20
        while len(records) < 2 and time.monotonic() < until:
            records += executor.wait(0.5)
        check_whole(tasks, records)

        executor.submit(tasks[0])
        records, until = [], time.monotonic() + 20
        while not records and time.monotonic() < until:
            cluster.cancel([given.future for given in list(executor._given.values())], force=True)
            records += executor.wait(0.05)
        assert [(one.source, one.event, one.reason) for one in records] == [("grid/a.tif", "failed", "dropped")]


def test_what_each_worker_does(cluster, tmp_path):
    tasks = tree(tmp_path, ["a.tif", "b.tif"], size=400_000)
    (tmp_path / "marks").mkdir()
    seen = set()
    with DaskExecutor(cluster, store=cluster_store.store) as executor:
        records, _ = run(executor, tasks, meanwhile=lambda: seen.update(executor.doing()))
        assert executor.doing() == []
    assert {source for _, source, _, _ in seen} == {"grid/a.tif", "grid/b.tif"}
    assert {worker for worker, _, _, _ in seen} <= {record.worker for record in records}
    assert any(0 < done < total for _, _, done, total in seen)
    assert all(total == 400_000 for _, _, _, total in seen)


def test_a_client_that_ends_early_leaves_the_cluster_as_it_was(cluster, tmp_path):
    tasks = tree(tmp_path, [f"{number}.tif" for number in range(6)])
    (tmp_path / "marks").mkdir()
    executor = DaskExecutor(cluster, store=cluster_store.store, top=tasks[0].top, root=tasks[0].root)
    for task in tasks:
        executor.submit(task)
    executor.close()
    executor.close()
    until = time.monotonic() + 10
    while any(cluster.processing().values()) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(cluster.processing().values())
    assert cluster.status == "running"
    plugins = cluster.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.worker_plugins))
    assert not any(name.startswith("mrcz") for name in plugins)
    assert not list((tmp_path / "archive").rglob(".mrcz-archive*"))


# ---- who may take part ---------------------------------------------------------------------------------------------


def test_a_worker_that_cannot_help_is_refused(cluster, tmp_path, monkeypatch):
    with pytest.raises(MrczError, match=r"worker on .* does not see the archive"):
        # The workers are told of another folder than the one where the probe was laid.
        monkeypatch.setattr("mrcz.archive.dask.FOLDER", "elsewhere")
        make_folders(tmp_path / "source")
        monkeypatch.setattr(
            "mrcz.archive.dask.checker", lambda mark, top, sample, folder: checker(mark, top, sample, folder + "-not")
        )
        DaskExecutor(cluster, store=cluster_store.store, top=tmp_path / "source", root=tmp_path / "archive")
    assert not list(tmp_path.rglob(".mrcz*"))  # the probe is gone
    monkeypatch.undo()
    monkeypatch.setattr("mrcz.archive.admission.__version__", "1.99")
    with pytest.raises(MrczError, match=r"has mrcz .*, and 1\.99 is needed(; (\d) of \2 workers are refused)?$"):
        DaskExecutor(cluster, store=cluster_store.store)


def test_what_a_worker_looks_at(tmp_path):
    source, folder = tmp_path / "source", tmp_path / "archive" / "mrcz-archive"
    for name in ("grid", "other"):
        (source / name).mkdir(parents=True)
    folder.mkdir(parents=True)
    (folder / ".m.probe").write_text("m")
    sample = sample_of(source)
    assert sample == [("grid", True), ("other", True)]
    check = checker("m", str(source), sample, str(folder))
    assert check() == ""
    (source / "grid").rmdir()
    assert check() == ""  # things go away: one of them is enough
    source.rename(tmp_path / "was")
    assert "does not see the source" in check()
    source.mkdir()
    (source / "strange").mkdir()
    assert "another folder is called" in check()
    source.joinpath("other").mkdir()
    (folder / ".m.probe").write_text("x")
    assert "another folder is called" in check()
    (folder / ".m.probe").unlink()
    assert "does not see the archive" in check()
    assert sorted(path.name for path in folder.iterdir()) == []


SCHEDULER = """
import sys, distributed, asyncio
async def main():
    where = {"port": 0, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "dashboard": False}
    async with distributed.Scheduler(**where) as scheduler:
        print(scheduler.address, flush=True)
        await scheduler.finished()
asyncio.run(main())
"""
WORKER = """
import sys, distributed, asyncio
async def main():
    if sys.argv[2] == "foreign":
        sys.modules["mrcz"] = None
    async with distributed.Worker(sys.argv[1], nthreads=1, host="127.0.0.1") as worker:
        await worker.finished()
if __name__ == "__main__":
    asyncio.run(main())
"""


@contextlib.contextmanager
def program(text, *arguments):
    path = os.pathsep.join(filter(None, [str(Path(cluster_store.__file__).parent), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-c", text, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_cluster_elsewhere_whose_scheduler_dies(tmp_path):
    """Workers of other processes; one joins later and cannot help; then the scheduler is gone."""
    tasks = tree(tmp_path, [f"{number}.tif" for number in range(30)])
    (tmp_path / "marks").mkdir()
    with program(SCHEDULER) as scheduler:
        address = scheduler.stdout.readline().strip()
        with program(WORKER, address, "foreign") as worker:
            wait_for(address, 1)
            with pytest.raises(MrczError, match="cannot be imported there"):
                DaskExecutor(address, store=cluster_store.store)
        with program(WORKER, address, "good"):
            wait_for(address, 1)
            where = {"top": tasks[0].top, "root": tasks[0].root}
            with DaskExecutor(address, store=cluster_store.store, timeout=1, **where) as executor:
                with program(WORKER, address, "foreign") as worker:
                    records, _ = run(executor, tasks[:12])
                    check_whole(tasks[:12], records)
                    worker.wait(timeout=20)
                assert len(executor.refused) == 1 and "cannot be imported there" in executor.refused[0]
                for task in tasks[12:]:
                    executor.submit(task)
                executor.wait(0.3)
                scheduler.kill()
                with pytest.raises(MrczError, match=r"scheduler is gone, and with it \d+ files") as caught:
                    until = time.monotonic() + 30
                    while time.monotonic() < until:
                        executor.wait(0.5)
                assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def wait_for(address, workers):
    import distributed

    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=20)
        while len(client.nthreads()) != workers:
            time.sleep(0.05)


def test_no_scheduler_is_told():
    with pytest.raises(MrczError, match="there is no dask scheduler"):
        DaskExecutor("tcp://127.0.0.1:9", store=cluster_store.store, timeout=0.5)


def test_local_cluster(tmp_path):
    """Its processes are its own, encrypted, polite, and gone when it is."""
    tasks = tree(tmp_path, [f"{number}.log" for number in range(10)], size=64)
    options = Options(nice=3)
    tasks = [Task(**{**task.__dict__, "options": options}) for task in tasks]
    with DaskExecutor(
        "local", store=cluster_store.store, workers=1, options=options, top=tasks[0].top, root=tasks[0].root
    ) as executor:
        client = executor._client
        assert client.scheduler.address.startswith("tls://127.0.0.1:")
        records, _ = run(executor, tasks)
        check_whole(tasks, records)
        processes = list(client.run(os.getpid).values())
        niceness = client.submit(os.getpriority, os.PRIO_PROCESS, 0).result()
        assert niceness >= max(3, os.getpriority(os.PRIO_PROCESS, 0))
    for process in processes:
        until = time.monotonic() + 10
        while Path(f"/proc/{process}/cmdline").exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert not Path(f"/proc/{process}/cmdline").exists()


def test_processes_of_a_local_cluster_that_do_not_come_back(tmp_path, monkeypatch):
    """Killed together with the nanny that would start it again."""
    monkeypatch.setattr("mrcz.archive.dask._PATIENCE", 0.5)
    tasks = tree(tmp_path, [f"{number}.tif" for number in range(4)])
    with DaskExecutor("local", store=cluster_store.store, workers=1) as executor:
        cluster = executor._cluster
        (nanny,) = cluster.workers.values()
        cluster.sync(nanny.close)
        records, _ = run(executor, tasks, seconds=30)
        check_whole(tasks, records)


def test_one_alone():
    gate, inside, seen = _Gate(), [], []

    def enter(alone):
        with gate.passed(alone):
            inside.append(alone)
            time.sleep(0.01)
            seen.append(tuple(inside))
            inside.remove(alone)

    threads = [threading.Thread(target=enter, args=(number % 4 == 0,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(seen) == 16
    assert all(one == (True,) for one in seen if True in one)
    assert any(len(one) > 1 for one in seen)
