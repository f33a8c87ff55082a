"""An archive on a dask cluster whose workers, and whose client, are killed at random, round after round.

A round is a tree of movies and other files, archived by `DaskExecutor` with the real store. Two threads of chance: a
worker process gets SIGKILL every so often, and the client (a process of its own, with its cluster) now and then, and is
then started again. At the end every file has one record that stored it, what lies there is what the record says and
gives the source back, and nothing is left beside it.

``python bench/stress/cluster.py [--rounds 20] [--files 60] [--workers 3] [--seed 1] [--json FILE]``

Exit code 1 if anything was seen that must not be.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

import mrcz
from mrcz.archive.journal import read_journal

CLIENT = """
import sys
from mrcz.archive.archiving import Archiving
from mrcz.archive.dask import DaskExecutor

if __name__ == "__main__":
    with Archiving(sys.argv[1], sys.argv[2]) as run:
        run.clean_up()
        outline = run.plan()
        with DaskExecutor("local", top=run.top, root=run.root, workers=int(sys.argv[3])) as executor:
            run.work(outline, executor)
        outline.close()
        run.write_bags()
    sys.exit(0 if run.outcome.ok else 1)
"""


def tree(folder: Path, files: int, rng: np.random.Generator) -> None:
    for number in range(files):
        path = folder / f"grid {number % 3}" / f"movie {number} %µ.mrc"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 5 == 0:
            path.with_suffix(".eer").write_bytes(rng.bytes(int(rng.integers(0, 4 << 20))))
        else:
            kind = np.uint8 if number % 2 else np.float32
            mrcz.write(path, rng.poisson(1, (int(rng.integers(1, 30)), 256, 256)).astype(kind), sync=False)


def workers_of(client: int) -> list[int]:
    """The worker processes of a client (Linux)."""
    found = []
    for children in Path(f"/proc/{client}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for process in map(int, children.read_text().split()):
                if b"spawn_main" in Path(f"/proc/{process}/cmdline").read_bytes():
                    found.append(process)
    return found


def records(archive: Path) -> int:
    """Bytes of the journal."""
    journal = archive / "mrcz-archive" / "journal.jsonl"
    return journal.stat().st_size if journal.exists() else 0


def one_round(folder: Path, arguments: argparse.Namespace, chance: random.Random) -> Counter[str]:
    source, archive = folder / "source", folder / "archive"
    tree(source, arguments.files, np.random.default_rng(chance.randrange(1 << 30)))
    seen: Counter[str] = Counter()
    clients = chance.randrange(3)  # that are killed
    command = [sys.executable, "-c", CLIENT, str(source), str(archive), str(arguments.workers)]
    while True:
        before = records(archive)
        with subprocess.Popen(command) as client:
            ends = time.monotonic() + chance.uniform(2, 12) if clients else None
            hung = time.monotonic() + 300
            while client.poll() is None:
                time.sleep(chance.uniform(0.3, 2))
                # As long as a cluster starts it can be killed, and does not have to survive.
                if records(archive) > before and (processes := workers_of(client.pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(chance.choice(processes), signal.SIGKILL)
                        seen["workers killed"] += 1
                if ends is not None and time.monotonic() > ends:
                    client.kill()
                    clients -= 1
                    seen["clients killed"] += 1
                    break
                if time.monotonic() > hung:
                    client.kill()
                    raise AssertionError("the client does not end")
        if client.returncode == 0:
            break
        if client.returncode != -signal.SIGKILL:
            raise AssertionError(f"the client ended with {client.returncode}")
    check(source, archive, seen)
    return seen


def check(source: Path, archive: Path, seen: Counter[str]) -> None:
    files = {path.relative_to(source).as_posix(): path for path in source.rglob("*") if path.is_file()}
    records = [one for one in read_journal(archive / "mrcz-archive" / "journal.jsonl") if one.event == "stored"]
    assert sorted(one.source for one in records) == sorted(files), "records that are missing, or two of a file"
    there = {path.relative_to(archive).as_posix() for path in archive.glob("*/data/**/*") if path.is_file()}
    parts = {part[0] for one in records for part in one.parts}
    assert there == {one.path for one in records} | parts, "files that nobody knows"
    for one in records:
        stored = (archive / one.path).read_bytes()
        assert hashlib.sha256(stored).hexdigest() == one.sha256_stored, one.path
        if one.form == "copy":
            assert stored == files[one.source].read_bytes(), one.path
        else:
            assert np.array_equal(mrcz.read(archive / one.path), mrcz.read(files[one.source])), one.path
    seen["files"] += len(records)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    chance, seen = random.Random(arguments.seed), Counter[str]()
    begun = time.monotonic()
    for number in range(arguments.rounds):
        folder = Path(tempfile.mkdtemp(prefix="mrcz-stress-cluster-"))
        try:
            seen += one_round(folder, arguments, chance)
        except AssertionError as error:
            print(f"round {number}, seed {arguments.seed}: {error}; it is left in {folder}", file=sys.stderr)
            return 1
        shutil.rmtree(folder)
        print(f"{number + 1} rounds, {dict(seen)}", flush=True)
    result = {"rounds": arguments.rounds, **seen, "seconds": round(time.monotonic() - begun, 1)}
    print(json.dumps(result))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
