"""`mrcz archive` killed again and again while everything goes wrong that can, and what is left proven by other means.

A tree of sessions with movies of every kind (`sessions.py`) is archived by runs of the command that are killed at
random instants of their work. Between and during them sources grow, change, vanish, appear, get other names, cannot be
read; files of the archive are removed, cut, flipped; its journal loses its tail; its disk is full or read-only; two
processes come at once; source, archive, its journal and its bags lie on a disk that fails (a FUSE file system over the
folder: errors of reading, writing, flushing, closing, renaming, once or for good). At the end one quiet run, and then
the archive is compared with the tree by hashlib, `sha256sum -c`, the bagit package, `mrcz decompress`, `mrcz archive
--check` and `mrcz restore`.

Two campaigns: ``keep``, and ``remove``, in which originals are removed: after each kill every original that is gone
must be had from the archive right then.

``python bench/stress/archive.py [--movies 300] [--kills 100] [--seed 1] [--only keep|remove] [--json FILE]``

As root the archive lies on a small disk of its own (tmpfs), which is filled and made read-only, and the command runs
without the right to read everything; else RLIMIT_FSIZE and permissions stand for that. Exit code 1 if anything was seen
that must not be.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import sessions
from faults import DESTINATION, SOURCE, Faults
from proof import journal_lines, parsed, prove, recorded, restorable, tree

ROOT = os.name == "posix" and os.geteuid() == 0 and shutil.which("setpriv") is not None
COMMAND = [sys.executable, "-m", "mrcz", "archive", "--quiet"]


class Campaign:
    """One tree, one archive, many runs."""

    def __init__(self, folder: Path, args: argparse.Namespace, remove: bool) -> None:
        self.src, self.disk = folder / "source", folder / "disk"
        self.dst, self.work = self.disk / "archive", folder
        self.args, self.remove = args, remove
        self.chance = random.Random(f"{args.seed} {remove}")
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.src.mkdir()
        self.disk.mkdir()
        self.mounted = ROOT and not subprocess.call(
            ["mount", "-t", "tmpfs", "-o", "size=2g", "mrcz-stress", self.disk], stderr=subprocess.DEVNULL
        )
        sessions.make(self.src, args.movies)
        self.faults = Faults(self)
        self.faults.look()
        self.proven: dict[tuple[Any, ...], None] = {}

    def close(self) -> None:
        if self.mounted:
            subprocess.call(["umount", self.disk])

    @property
    def journal(self) -> Path:
        return self.dst / "mrcz-archive" / "journal.jsonl"

    def complain(self, text: str) -> None:
        self.wrong.append(text)
        print(f"WRONG: {text}", file=sys.stderr, flush=True)

    # --- runs

    def start(self, *more: str, limit: bool = False) -> subprocess.Popen[bytes]:
        words = [*COMMAND, "--cores", "2", *["--remove"] * self.remove, *more, self.src, self.dst]
        if ROOT:  # root without the right to read and write everything
            words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--", *words]
        self.counts["runs"] += 1
        small = None
        if limit:
            import resource

            def small() -> None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))

        return subprocess.Popen(words, stderr=subprocess.PIPE, preexec_fn=small)  # type: ignore[call-overload]

    def ended(self, process: subprocess.Popen[bytes], what: str) -> int:
        """A run that nobody kills: it ends by itself, and a traceback is none of its words."""
        try:
            _, said = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.kill()
            _, said = process.communicate()
            self.complain(f"{what}: hangs")
        if b"Traceback" in said or process.returncode not in (0, 1, 3, -9):
            self.complain(f"{what}: ends with {process.returncode}: {said[-1500:].decode(errors='replace')}")
        self.counts[f"ended {process.returncode}"] += 1
        return process.returncode

    def killed(self) -> bool:
        """A run that is killed once it works; whether it was, before it was done."""
        begun, bags = self._size(), self._bags()
        in_bags = self.chance.random() < 0.15
        process = self.start()
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            if (self._bags() - bags) if in_bags else self._size() > begun:
                break
            time.sleep(0.0005)
        wait = time.monotonic() + self.chance.random() * self.chance.choice((0.002, 0.02, 0.1, 0.1, 0.3, 1.0))
        if self.chance.random() < 0.4:
            self.faults.during(process, wait)
        time.sleep(max(0.0, wait - time.monotonic()))
        process.kill()
        code = self.ended(process, "a run")
        self.counts["kills"] += code == -9
        self.counts["kills at the bags"] += code == -9 and in_bags
        return code == -9

    def _size(self) -> int:
        try:
            return os.stat(self.journal).st_size
        except OSError:
            return 0

    def _bags(self) -> set[tuple[str, int]]:
        try:
            return {(str(p), p.stat().st_mtime_ns) for p in self.dst.glob("*/manifest-sha256.txt")}
        except OSError:
            return set()

    # --- the whole

    def run(self) -> dict[str, Any]:
        began, rounds = time.monotonic(), 0
        while self.counts["kills"] < self.args.kills and rounds < 4 * self.args.kills:
            rounds += 1
            before = len(self.wrong)
            if not self.killed():
                self.faults.more_work()
            self.originals()
            kinds = SOURCE if self.remove else SOURCE + DESTINATION
            for name in self.chance.sample(kinds, self.chance.choice((0, 1, 1, 2, 3))):
                if getattr(self.faults, name)():
                    self.counts[f"fault: {name.replace('_', ' ')}"] += 1
            self.originals()
            if len(self.wrong) > before:
                print(f"in round {rounds}", file=sys.stderr)
            if len(self.wrong) > 20:
                break
        self.counts["rounds"] = rounds
        self.quiet()
        return {
            "remove": self.remove,
            "seed": self.args.seed,
            "movies": self.args.movies,
            "own disk": self.mounted,
            "seconds": round(time.monotonic() - began, 1),
            **dict(sorted(self.counts.items())),
            "wrong": self.wrong,
        }

    def originals(self) -> None:
        """Every original that is gone, and not by our hand, can be had from the archive right now."""
        if not self.remove:
            return
        there = {source for source, kind in tree(self.src).items() if kind[0] == "file"}
        gone = {source: found for source, found in self.faults.live.items() if found[0] == "file"}
        gone = {source: found for source, found in gone.items() if source not in there and not self.aside(source)}
        known = recorded(self.journal)
        for source, found in gone.items():
            for sha256 in (found[1], *self.faults.written[source]):
                problem = self.problem(known, source, sha256)
                if problem is None:
                    self.faults.live[source] = ("file", sha256)
                    break
            else:
                self.complain(f"original {source!r} is gone: {problem}")
        self.counts["originals seen gone"] = max(self.counts["originals seen gone"], len(gone))

    def problem(self, known: dict[str, Any], source: str, sha256: str) -> str | None:
        """`restorable`, of what lies there as it did when it was looked at last without looking again."""
        key: tuple[Any, ...] | None = None
        record = known.get(source)
        first = record if record is None or record.get("form") != "same" else known.get(record["target"])
        if record is not None and first is not None and first.get("path"):
            paths = [first["path"], *(part[0] for part in first.get("parts", ()))]
            try:
                status = [os.stat(self.dst / path) for path in paths]
                key = (sha256, record["sha256_source"], first["sha256_source"], first["sha256_stored"], first["form"])
                key += (*paths, *((one.st_ino, one.st_mtime_ns, one.st_ctime_ns) for one in status))
            except OSError:
                pass
        if key is not None and key in self.proven:
            return None
        found = restorable(self.dst, known, source, sha256, self.work / "given back")
        if found is None and key is not None:
            self.proven[key] = None
        return found

    def aside(self, source: str) -> bool:
        """Whether an original was set aside by a run that was killed then."""
        folder, name = os.path.split(os.path.join(self.src, source))
        return os.path.isdir(folder) and any(
            other.startswith(f".{name}.") and other.endswith(".orig") for other in os.listdir(folder)
        )

    def quiet(self) -> None:
        """No more faults: one run, and everything is proven."""
        self.faults.end()
        self.faults.look()
        if self.remove:  # what nobody has removed yet goes now
            before = tree(self.src)
        code = self.ended(self.start(), "the last run")
        if code:
            self.complain(f"the last run ends with {code}")
        if self.remove:
            left = {s for s, kind in tree(self.src).items() if kind[0] == "file" and not s.endswith(".part")}
            if left:
                self.complain(f"{len(left)} of {len(before)} originals stay: {sorted(left)[:5]}")
            self.originals()
        size = self._size()
        if code := self.ended(self.start(), "a run with nothing to do"):
            self.complain(f"a run with nothing to do ends with {code}")
        if self._size() != size:
            new = [(line["event"], line["source"]) for line in parsed(journal_lines(self.journal)[-5:])]
            self.complain(f"a run with nothing to do wrote {self._size() - size} bytes into the journal: {new}")
        self.counts["files of the tree"] = len(self.faults.live)
        for text in prove(self):
            self.complain(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movies", type=int, default=300)
    parser.add_argument("--kills", type=int, default=100, help="of each campaign (default: 100)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("keep", "remove"))
    parser.add_argument("--json", type=Path, help="write what happened to this file, too")
    parser.add_argument("--keep", action="store_true", help="keep the folders, to look at what is wrong")
    args = parser.parse_args()
    reports = {}
    for name in ("keep", "remove") if args.only is None else (args.only,):
        folder = Path(tempfile.mkdtemp(prefix=f"mrcz-stress-archive-{name}-"))
        campaign = Campaign(folder, args, name == "remove")
        try:
            reports[name] = campaign.run()
            if args.keep:
                print(f"{name}: kept in {shutil.copytree(folder, f'{folder}-kept', symlinks=True)}", file=sys.stderr)
        finally:
            campaign.close()
            shutil.rmtree(folder, ignore_errors=True)
    text = json.dumps(reports, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")
    return 1 if any(report["wrong"] for report in reports.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
