"""What goes wrong in `archive.py`: with the sources, with the archive, while a run works and between two.

`Faults.live` is what the tree has, or, of originals that were removed by the archive, had: what must be in the archive
at the end. `Faults.versions` is all that a source ever was, which is what may be there of one that vanished.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from failing_disk import FailingDisk
from failing_disk import missing as no_failing_disk
from proof import Kind, bag_names, is_excused_name, journal_lines, parsed, recorded, tree

SOURCE = [
    *("grows", "rewritten", "rewritten_in_place", "vanishes", "appears", "renamed", "unreadable", "link_broken"),
    *("swapped", "set_aside", "two_at_once", "disk_full", "read_only", "torn_tail", "folder_and_file"),
    *("errors_of_source", "errors_of_archive", "errors_of_journal", "errors_of_bags"),
]
#: What a source does not read, or not give up; requests as `failing_disk` calls them.
READING = ("read", "read", "open", "lookup", "readdir", "close")
WRITING = (
    *("write", "write", "fsync", "fsync", "close", "rename", "create", "read", "open", "mkdir", "fsyncdir", "truncate"),
    *("readdir", "lookup", "unlink", "attributes"),
)
#: What a disk says, a full one, one that became read-only, a file system of a network.
ERRORS = ("EIO", "EIO", "EIO", "ENOSPC", "EROFS", "ESTALE")
#: Of a record of a file that a disk failed.
REASONS = {"disk", "full", "permission", "gone", "changing", "problem", "special"}
DESTINATION = ["stored_removed", "stored_cut", "stored_flipped", "tail_lost", "bag_damaged"]


class Faults:
    """All of them, with a memory of what they did."""

    def __init__(self, campaign: Any) -> None:
        self.of = campaign
        self.src, self.dst = Path(campaign.src), Path(campaign.dst)
        self.chance: random.Random = campaign.chance
        self.live: dict[str, Kind] = {}
        self.versions: dict[str, set[Kind]] = defaultdict(set)
        # Sources written a moment ago, as they are then: before we look, a run may have taken and removed them.
        self.written: dict[str, set[str]] = defaultdict(set)
        self.again: set[str] = set()  # sources that may be stored more than once, for what was done to the archive
        self.closed: list[tuple[Path, int]] = []
        self.number = 0

    # --- what there is

    def look(self) -> None:
        """Take down what the tree is now."""
        now = {source: kind for source, kind in tree(self.src).items() if not is_excused_name(source)}
        for source, kind in now.items():
            self.versions[source].add(kind)
            self.written.pop(source, None)
        if self.of.remove:  # what is gone by the archive's hand is still to be had; no folder was empty before
            had = {source.rsplit("/", k)[0] for source in self.live for k in range(1, source.count("/") + 1)}
            self.live.update({source: kind for source, kind in now.items() if source not in had})
        else:
            self.live = now

    def forget(self, source: str) -> None:
        self.live.pop(source, None)

    def some(self) -> Path | None:
        """A file of the tree."""
        files = [s for s, kind in tree(self.src, sums=False).items() if kind[0] == "file" and not is_excused_name(s)]
        return self.src / self.chance.choice(files) if files else None

    def name(self, path: Path) -> str:
        return path.relative_to(self.src).as_posix()

    # --- sources

    def writes(self, path: Path, data: bytes) -> None:
        """A source is about to be so."""
        if self.of.remove:
            self.written[self.name(path)].add(hashlib.sha256(data).hexdigest())

    def grows(self) -> bool:
        if (path := self.some()) is None or not os.access(path, os.W_OK):
            return False
        data = path.read_bytes() + self.chance.randbytes(self.chance.choice((1, 1000, 70000)))
        self.writes(path, data)
        with open(path, "r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(data[file.tell() :])
        self.look()
        return True

    def rewritten(self) -> bool:
        """Another file takes the name."""
        if (path := self.some()) is None:
            return False
        new = path.with_name("new one")
        data = self.chance.randbytes(path.stat().st_size)
        new.write_bytes(data)
        self.writes(path, data)
        os.replace(new, path)
        self.look()
        return True

    def rewritten_in_place(self) -> bool:
        if (path := self.some()) is None or path.stat().st_size == 0:
            return False
        path.chmod(0o644)
        data = path.read_bytes()
        at = self.chance.randrange(len(data))
        self.writes(path, data[:at] + b"other" + data[at + 5 :])
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(b"other")
        self.look()
        return True

    def vanishes(self) -> bool:
        if (path := self.some()) is None:
            return False
        path.unlink()
        self.forget(self.name(path))
        return True

    def appears(self) -> bool:
        self.number += 1
        folder = self.src / self.chance.choice(("deep", "odd", "söß ion", f"new {self.number}", "new/a/b"))
        folder.mkdir(parents=True, exist_ok=True)
        counts = np.random.default_rng(self.number).poisson(1, (6, 80, 80))
        mrcfile.write(folder / f"late{self.number}.mrc", counts.astype(self.chance.choice((np.int8, np.float32))))
        self.look()
        return True

    def renamed(self) -> bool:
        if (path := self.some()) is None:
            return False
        self.number += 1
        path.rename(path.with_name(f"renamed {self.number}{path.suffix}"))
        self.forget(self.name(path))
        self.look()
        return True

    def unreadable(self) -> bool:
        """For a run or two; see `more_work`."""
        if (path := self.some()) is None or any(path == other for other, _ in self.closed):
            return False
        mode = path.stat().st_mode & 0o777
        self.closed.append((path, mode))
        path.chmod(0)
        return True

    def link_broken(self) -> bool:
        """One of several names of a file gets a file of its own, and then the others vanish or not."""
        names = [self.src / s for s, kind in tree(self.src, sums=False).items() if kind[0] == "file"]
        names = [path for path in names if path.stat().st_nlink > 1]
        if not names:
            if (path := self.some()) is None or len(os.fsencode(path.name)) > 200:
                return False
            self.number += 1
            path.with_name(f"{self.number} again {path.name}").hardlink_to(path)
            self.look()
            return True
        path = self.chance.choice(names)
        new = path.with_name("new one")
        new.write_bytes(self.chance.randbytes(3000))
        os.replace(new, path)
        self.look()
        return True

    def swapped(self) -> bool:
        """Two files change names."""
        one, other = self.some(), self.some()
        if one is None or other is None or one == other:
            return False
        between = one.with_name("between")
        self.again |= {self.name(one), self.name(other)}
        one.rename(between)
        other.rename(one)
        between.rename(other)
        self.look()
        return True

    def folder_and_file(self) -> bool:
        """A folder stands where there was a file, and the other way round."""
        place = self.src / "odd" / "changeling"
        if place.is_dir():
            for path in place.iterdir():
                path.unlink()
                self.forget(self.name(path))
            place.rmdir()
            place.write_text(f"a file now {self.number}")
        else:
            if place.exists():
                place.unlink()
            self.forget(self.name(place))
            place.mkdir()
            (place / "inside.txt").write_text(f"inside {self.number}")
        self.number += 1
        for below in ("odd/changeling", "odd/changeling/inside.txt"):
            if not (self.src / below).is_file():
                self.forget(below)
        self.look()
        return True

    def set_aside(self) -> bool:
        """A run was killed between setting an original aside and removing it."""
        if not self.of.remove or (path := self.some()) is None or len(os.fsencode(path.name)) > 200:
            return False
        if any(path == other for other, _ in self.closed):  # no run sets aside what it cannot open
            return False
        known = recorded(self.of.journal).get(self.name(path))
        if known is None or (known["source_bytes"], known["mtime_ns"]) != (
            path.stat().st_size,
            path.stat().st_mtime_ns,
        ):
            return False
        path.rename(path.with_name(f".{path.name}.{self.chance.randrange(1 << 32):08x}.orig"))
        return True

    # --- the archive's disk and its processes

    def two_at_once(self) -> bool:
        first, second = self.of.start(), self.of.start()
        codes = {self.of.ended(first, "one of two"), self.of.ended(second, "the other of two")}
        self.of.counts["two at once, one refused"] += 1 if 1 in codes else 0
        return True

    def _mount(self, how: str) -> None:
        subprocess.check_call(["mount", "-o", f"remount,{how}", self.of.disk])

    def disk_full(self) -> bool:
        if self.of.mounted:
            used = int(subprocess.check_output(["du", "-s", "--block-size=1", self.of.disk]).split()[0])
            self._mount(f"size={used + self.chance.choice((0, 4096, 65536, 300000))}")
        self.of.ended(self.of.start(limit=not self.of.mounted), "a run on a full disk")
        if self.of.mounted:
            self._mount("size=2g")
        return True

    def read_only(self) -> bool:
        if not self.of.mounted:
            return False
        self._mount("ro")
        self.of.ended(self.of.start(), "a run on a read-only disk")
        self._mount("rw")
        return True

    # --- disks that fail

    def errors_of_source(self) -> bool:
        calls = (*READING, "rename", "unlink") if self.of.remove else READING
        return self._errors(self.src, "source", calls, ("EIO", "EIO", "ESTALE"), ("", "", r"\.mrc", "deep|odd", "late"))

    def errors_of_archive(self) -> bool:
        return self._errors(self.dst, "archive", WRITING, ERRORS, ("/data",))

    def errors_of_journal(self) -> bool:
        calls = ("write", "write", "fsync", "fsync", "truncate", "open", "read", "close", "create")
        return self._errors(self.dst, "journal", calls, ERRORS, ("mrcz-archive/journal",))

    def errors_of_bags(self) -> bool:
        places = (r"/[a-z0-9-]+\.txt|records\.jsonl", "mrcz-archive/")
        return self._errors(self.dst, "bags", WRITING, ERRORS, places)

    def _errors(self, folder: Path, what: str, calls: Any, errors: Any, places: Any) -> bool:
        """A run while a disk fails now and then, or always, which is killed or not."""
        if no_failing_disk() is not None or not folder.is_dir():
            return False
        rules = []
        for _ in range(self.chance.choice((1, 1, 2, 3))):
            rule = {"call": self.chance.choice(calls), "error": self.chance.choice(errors)}
            rule |= {"path": self.chance.choice(places), "from": self.chance.choice((0, 0, 4096, 20000))}
            rule |= {"chance": self.chance.choice((0.05, 0.3, 1.0)), "after": self.chance.choice((0, 0, 3, 10))}
            rules.append(rule | {"times": self.chance.choice((1, 3, 20, 1 << 30))})
        for _ in range(self.chance.choice((2, 5, 8))):  # so that there is something to fail
            self.appears()
        before = journal_lines(self.of.journal)
        with FailingDisk(folder) as disk:
            disk.fail(*rules)
            process = self.of.start()
            if self.chance.random() < 0.3:
                time.sleep(self.chance.random() * 4)
                process.kill()
            code = self.of.ended(process, f"a run with errors of the {what}")
            failed, _ = disk.failed()
        for (call, error), n in failed.items():
            self.of.counts[f"error of the {what}: {error} of {call}"] += n
        self._look_at_run(before, what, rules, code, failed)
        self.of.counts["runs on a failing disk"] += 1
        return True

    def _look_at_run(self, before: list[bytes], what: str, rules: Any, code: int, failed: Counter[Any]) -> None:
        """One record a file, with a reason that fits; and what was taken for missing is stored again."""
        lines = journal_lines(self.of.journal)
        if lines[: len(before)] != before and what not in ("journal", "bags"):  # a torn line of before is cut off
            self.of.complain(f"errors of the {what} {rules} changed lines of the journal")
        records = list(parsed(lines[len(before) :]))
        count = Counter(r["source"] for r in records if r["event"] in ("failed", "refused"))
        if twice := [source for source, n in count.items() if n > 1]:
            self.of.complain(f"errors of the {what} {rules}: more than one record of {twice[:3]}")
        for r in records:
            if r["event"] == "failed" and r["reason"] not in REASONS:
                self.of.complain(f"errors of the {what} {rules}: {r['source']!r} failed: {r['reason']}, {r['error']}")
        if code == 3:
            self.of.complain(f"errors of the {what} {rules}: are told as damage")
        if any(call in ("lookup", "open") for call, _ in failed) and what != "source":
            self.again |= {r["source"] for r in records if r["event"] == "stored"}

    # --- the journal and what is stored

    def torn_tail(self) -> bool:
        """A line that a machine did not finish when it stopped."""
        lines = journal_lines(self.of.journal)
        if not lines:
            return False
        torn = self.chance.choice((lines[-1][: self.chance.randrange(1, len(lines[-1]))], b"{", b"\0" * 700, b"\xff"))
        with open(self.of.journal, "ab") as file:
            file.write(torn)
        return True

    def tail_lost(self) -> bool:
        """Lines that had not reached the disk."""
        lines = journal_lines(self.of.journal)[-self.chance.randrange(1, 6) :]
        if not lines:
            return False
        self.again |= {source for source in recorded(self.of.journal) if self._in(source, lines)}
        size = self.of.journal.stat().st_size
        lost = sum(len(line) + 1 for line in lines)
        os.truncate(self.of.journal, max(0, size - lost + self.chance.randrange(len(lines[0]))))
        return True

    @staticmethod
    def _in(source: str, lines: list[bytes]) -> bool:
        return any(record["source"] == source for record in parsed(lines))

    def _stored(self) -> tuple[str, Path] | None:
        known = [r for r in recorded(self.of.journal).values() if r["event"] == "stored" and r.get("path")]
        known = [r for r in known if r["source"] in self.live and r["stored_bytes"] and self._given(r).exists()]
        if not known:
            return None
        record = self.chance.choice(known)
        self.again.add(record["source"])
        self.again |= {r["source"] for r in recorded(self.of.journal).values() if r["target"] == record["source"]}
        return record["source"], self._given(record)

    def _given(self, record: dict[str, Any]) -> Path:
        return self.dst / record["path"]

    def stored_removed(self) -> bool:
        if (found := self._stored()) is None:
            return False
        found[1].unlink()
        return True

    def stored_cut(self) -> bool:
        if (found := self._stored()) is None:
            return False
        found[1].chmod(0o644)
        os.truncate(found[1], self.chance.randrange(found[1].stat().st_size))
        return True

    def stored_flipped(self) -> bool:
        """A bit of a disk: a check has to find it, and what it finds is taken away, as the documentation says."""
        if (found := self._stored()) is None:
            return False
        source, path = found
        path.chmod(0o644)
        with open(path, "r+b") as file:
            at = self.chance.randrange(path.stat().st_size)
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 1 << self.chance.randrange(8)]))
        words = [*self.of_command(), "--check", "--fast", "--json", self.dst]
        said = subprocess.run(words, capture_output=True).stdout
        if os.fsencode(path.name) not in said and b'"changed"' not in said:
            self.of.complain(f"a flipped bit in the copy of {source!r} is not found")
        path.unlink()
        return True

    def of_command(self) -> list[str]:
        import sys

        return [sys.executable, "-m", "mrcz", "archive", "--quiet"]

    def bag_damaged(self) -> bool:
        bags = sorted(path for path in self.dst.glob("*/*.txt") if path.name in bag_names())
        if not bags:
            return False
        path = self.chance.choice(bags)
        self.chance.choice((path.unlink, lambda: os.truncate(path, path.stat().st_size // 2)))()
        return True

    # --- while a run works, and when there is nothing to do

    def during(self, process: subprocess.Popen[bytes], until: float) -> None:
        """A source grows, vanishes or changes under the hands of a run; or another run comes."""
        while process.poll() is None and time.monotonic() < until:
            name = self.chance.choice(("grows", "rewritten", "vanishes", "appears", "renamed", "rewritten_in_place"))
            try:
                if getattr(self, name)():
                    self.of.counts[f"during: {name.replace('_', ' ')}"] += 1
            except FileNotFoundError:  # the archive removed it meanwhile
                self.look()
            time.sleep(self.chance.random() * 0.05)

    def more_work(self) -> None:
        """So that the next run has something to be killed in."""
        self.open_all()
        for _ in range(12):
            self.appears()
            self.rewritten()

    def open_all(self) -> None:
        for path, mode in self.closed:
            if path.exists():
                path.chmod(mode)
        self.closed.clear()

    def end(self) -> None:
        """No fault is left."""
        self.open_all()
        for path in self.src.rglob("fifo"):
            path.unlink()
