"""A round of test_publishing.py: processes are started, stopped and killed, and what is there is judged."""

import faulthandler
import gzip
import os
import random
import re
import signal
import struct
import sys
import time
import traceback
from pathlib import Path

import numpy as np
from publishing_contents import SHAPE, Contents
from publishing_plots import Plot
from publishing_processes import (
    LIMIT,
    Between,
    Process,
    Violation,
    append,
    camera,
    is_fuse,
    parse,
    refuse,
    reserves,
    run_command,
    stopped,
)

import mrcz

TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-z_]{8}\.(part|tmp|orig)")
NEVER = (None, signal.SIGKILL)


class Round:
    """One folder, eight processes, one observer."""

    def __init__(self, top: Path, scratch: Path, seed: int, contents: Contents, without: list[str]) -> None:
        self.dice = random.Random(seed)
        self.seed, self.contents, self.without = seed, contents, without
        self.reserves = reserves(top, without)
        self.folder = top / f"round-{seed}"
        self.scratch = scratch
        self.folder.mkdir()
        caseless = (top / "PROBE").exists()
        self.fold = str.casefold if caseless else str
        # exfat-fuse 1.3 ends in a BUG() when a file that is open is replaced by a name in other letters.
        self.plot = Plot(self.dice, seed * 100, caseless and not is_fuse(top))
        self.camera_events: list[tuple[float, str, int]] = []  # time, name, content or -1: about to change
        self.processes: list[Process] = []
        self.last: dict[str, tuple[int | None, int]] = {}
        self.looks = 0
        self.log: list[str] = []
        self._told = b""

    # what there is before anybody begins

    def prepare(self) -> None:
        plot, contents = self.plot, self.contents
        for _, number, _ in plot.camera:
            contents.plain(number)  # to be known here, not in the camera's process alone
        for name, number in plot.plain.items():
            raw = contents.plain(number)
            (self.folder / name).write_bytes(gzip.compress(raw, 1) if name.endswith(".gz") else raw)
        for name, (number, source) in plot.archives.items():
            raw = contents.plain(number)
            with mrcz.Writer(
                self.folder / name,
                source_header=raw[:1024],
                source_name=source,
                n_threads=1,
                sync=False,
                header=mrcz.Header.parse(raw[:1024]),
            ) as writer:
                writer.extend(np.frombuffer(raw, "<i2", offset=1024).reshape(SHAPE))
        self.kept = {*plot.plain.values(), *(n for n, _ in plot.archives.values())} - plot.released

    # processes

    def start(self, name: str, argv: list[str], work, death=NEVER) -> Process:
        process = Process(name, argv)
        seed = self.dice.getrandbits(32)
        for suffix in ("out", "err"):
            (self.scratch / f"{name}.{suffix}").write_bytes(b"")
        process.pid = os.fork()
        if process.pid:
            return process
        code = 99
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            for number, suffix in ((1, "out"), (2, "err")):
                fd = os.open(self.scratch / f"{name}.{suffix}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(fd, number)
                os.close(fd)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
            faulthandler.enable(sys.stderr)
            faulthandler.dump_traceback_later(LIMIT * 0.8, file=sys.stderr)
            os.chdir(self.folder)
            refuse(self.without)
            Between(str(self.folder), random.Random(seed), *death).install()
            os.close(self._gate[1])
            os.read(self._gate[0], 1)  # until all are there
            code = work()
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def run(self) -> dict:
        self.prepare()
        dice = self.dice
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        self._pipe = read_end
        self._gate = os.pipe()
        self.look()
        deaths = {}
        if self.plot.camera:
            seed = dice.getrandbits(32)
            self.processes.append(
                self.start(
                    "camera",
                    ["camera"],
                    lambda: camera(str(self.folder), self.plot.camera, write_end, self.contents, random.Random(seed)),
                )
            )
        killing = dice.random() < 0.6
        for k, argv in enumerate(self.plot.commands):
            death = NEVER
            if killing and dice.random() < 0.35:
                by = dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
                if dice.random() < 0.7:
                    death = (dice.randint(1, 70), by)
                else:
                    deaths[k] = (dice.random() * 0.15, by)
            work = (lambda a=argv: append(a[1], 3)) if argv[0] == "append" else (lambda a=argv: run_command(a))
            process = self.start(f"p{k}", argv, work, death)
            process.terminated = death[1] == signal.SIGTERM and death[0] is not None
            self.processes.append(process)
            if k in deaths:
                deaths[k] = (*deaths[k], process)
        os.close(write_end)
        begun = time.monotonic()
        for process in self.processes:
            process.started = begun
        for end in self._gate:
            os.close(end)
        deadline = begun + LIMIT
        due = sorted(((begun + delay, by, p) for delay, by, p in deaths.values()), key=lambda entry: entry[0])
        while self.alive():
            time.sleep(dice.random() ** 2 * 0.008)
            while due and due[0][0] < time.monotonic():
                _, by, process = due.pop(0)
                if process.status is None:
                    process.terminated |= by == signal.SIGTERM
                    os.kill(process.pid, by)
            asked = self.reap()
            if asked or dice.random() < 0.15:
                self.freeze()
                try:
                    self.look()
                finally:
                    self.thaw()
            if time.monotonic() > deadline:
                self.freeze()
                for process in self.alive():
                    os.kill(process.pid, signal.SIGKILL)
                self.reap(block=True)
                raise Violation("hangs")
        self.look()
        self.leftovers()
        os.close(read_end)
        return {
            "kind": self.plot.kind,
            "looks": self.looks,
            "killed": sum(p.killed for p in self.processes),
            "done": sum(s.get("status") == "done" for p in self.processes for s in p.said),
            "removed": sum(bool(s.get("removed")) for p in self.processes for s in p.said),
            "skipped": sum(s.get("status") == "skipped" for p in self.processes for s in p.said),
            "failed": sum(p.status in (1, 3) for p in self.processes),
        }

    def alive(self) -> list[Process]:
        return [process for process in self.processes if process.status is None]

    def reap(self, block: bool = False) -> bool:
        """Take note of who ended; whether somebody stopped to be looked at."""
        asked = False
        for process in self.alive():
            pid, status = os.waitpid(process.pid, os.WUNTRACED | (0 if block else os.WNOHANG))
            if pid and os.WIFSTOPPED(status):
                asked = True
            elif pid:
                self.ended(process, status)
        return asked

    def freeze(self) -> None:
        waiting = self.alive()
        for process in waiting:
            os.kill(process.pid, signal.SIGSTOP)
        for process in waiting:
            # One that is stopped already tells it once only.
            while process.status is None and not stopped(process.pid):
                pid, status = os.waitpid(process.pid, os.WUNTRACED | os.WNOHANG)
                if pid and not os.WIFSTOPPED(status):
                    self.ended(process, status)

    def thaw(self) -> None:
        for process in self.alive():
            os.kill(process.pid, signal.SIGCONT)

    def ended(self, process: Process, status: int) -> None:
        process.status = os.waitstatus_to_exitcode(status)
        process.ended = time.monotonic()
        process.out = (self.scratch / f"{process.name}.out").read_text(errors="replace")
        process.err = (self.scratch / f"{process.name}.err").read_text(errors="replace")
        process.said = list(parse(process))
        self.log.append(f"{process.name} ended: {process.status}")
        if process.killed:
            if process.status not in (-signal.SIGKILL, -signal.SIGTERM):
                raise Violation(f"{process.name} died of signal {-process.status}")
            return
        # A signal that arrives in a __del__ is printed and forgotten by Python.
        faulty = "Traceback" in process.err and not process.terminated
        if faulty or process.status not in (0, 1, 3, 143):
            raise Violation(f"{process.name}: exit code {process.status}")
        if process.status == 143:
            if not process.terminated:
                raise Violation(f"{process.name} says 143, and nobody sent SIGTERM")
            return
        if process.action == "camera" or process.action == "append":
            return
        ok = all(entry["status"] in ("done", "skipped") for entry in process.said)
        if ok != (process.status == 0) or not process.said:
            raise Violation(f"{process.name}: exit code {process.status} does not fit what it said: {process.said}")
        if process.status and not process.err.strip():
            raise Violation(f"{process.name}: exit code {process.status} without a message")

    # looking

    def listen(self) -> None:
        """What the camera told until now."""
        size = struct.calcsize("<di32s")
        try:
            while part := os.read(self._pipe, 65536):
                self._told += part
        except BlockingIOError:
            pass
        while len(self._told) >= size:
            when, number, name = struct.unpack("<di32s", self._told[:size])
            self._told = self._told[size:]
            name = name.rstrip(b"\0").decode()
            if number < 0:
                # The content it had is no longer asked for, unless it is archived: then the archive stands.
                self.kept -= set(self.contents_of(name, 0.0, when))
            else:
                self.kept.add(number)
            self.camera_events.append((when, name, number))

    def contents_of(self, name: str, start: float, stop: float) -> set[int]:
        """What a plain file may have held between two instants."""
        found: set[int] = set()
        same = self.fold(name)
        for plain, number in self.plot.plain.items():
            if self.fold(plain) == same:
                found = {number}
        changing = [event for event in self.camera_events if self.fold(event[1]) == same]
        for k, (when, _, number) in enumerate(changing):
            if number < 0:
                continue
            begun = changing[k - 1][0]  # from then on it may have been there
            if begun > stop:
                break
            found = {number} if when < start else found | {number}
        for process in self.processes:
            if process.action == "decompress":
                for given in process.inputs:
                    found |= {n for a, (n, _) in self.plot.archives.items() if self.fold(a) == self.fold(given)}
        return found

    def look(self) -> None:
        """All processes are stopped, or none is left: what is there must be whole."""
        self.looks += 1
        self.listen()
        seen: dict[str, tuple[int | None, int]] = {}
        hidden: set[int | None] = set()
        for folder, folders, files in os.walk(self.folder, onerror=stop):
            folders.sort()
            for name in sorted(files):
                path = os.path.join(folder, name)
                if TEMPORARY.fullmatch(name):
                    # An original on its way out, or back because it changed: it has another name for an instant.
                    hidden.add(self.contents.look(path)[0])
                elif not name.startswith("."):
                    if self.reserves and not os.path.getsize(path):
                        continue
                    seen[os.path.relpath(path, self.folder)] = self.contents.look(path)
        self.now = seen
        if seen != self.last:
            self.log.append(f"look {self.looks}: {seen}")
        there = {number for number, _ in seen.values()}
        if not self.kept <= there | hidden:
            raise Violation(f"lost: {sorted(self.kept - there)}")
        if not self.kept <= there and not any(p.status is None or p.killed for p in self.processes):
            raise Violation(f"hidden: {sorted(self.kept - there)}")
        changing = {self.fold(name) for name in self.being_filmed()}
        for name, (number, _frames) in seen.items():
            if number is None and self.fold(name) not in changing:
                raise Violation(f"{name} is visible and not whole")
        for name, (number, frames) in self.last.items():
            if name.endswith(".mrcz") and not self.removers("decompress", name):
                if name not in seen:
                    raise Violation(f"the archive {name} of {number} is gone, and nobody was asked to remove it")
                if seen[name][0] != number or seen[name][1] < frames:
                    raise Violation(f"the archive {name} of {number}, {frames} frames, became one of {seen[name]}")
        self.last = seen
        for process in self.processes:
            if process.status is not None and process.action in ("compress", "decompress"):
                for entry in process.said:
                    self.judge(process, entry)

    def being_filmed(self) -> set[str]:
        names: set[str] = set()
        for _, name, number in self.camera_events:
            (names.add if number < 0 else names.discard)(name)
        return names

    def removers(self, action: str, name: str, but: Process | None = None) -> list[Process]:
        """Who was asked to remove this file, and did or may have done so."""
        return [
            p
            for p in self.processes
            if p is not but and p.action == action and p.removes and p.takes(name, self.fold) and p.may_have_done(name)
        ]

    def judge(self, process: Process, entry: dict) -> None:
        """Is what it said of one file true?"""
        source, status, destination = entry["source"], entry["status"], entry.get("destination")
        other = "decompress" if process.action == "compress" else "compress"

        def wrong(what: str) -> Violation:
            return Violation(f"{process.name} ({' '.join(process.argv)}), {entry}: {what}")

        place = {self.fold(name): value for name, value in self.now.items()}

        def at(name: str):
            return place.get(self.fold(os.path.normpath(name)))

        filmed = any(self.fold(event[1]) == self.fold(os.path.normpath(source)) for event in self.camera_events)
        if process.action == "compress":
            possible = self.contents_of(os.path.normpath(source), process.started, process.ended)
            if status == "done":
                found = at(destination)
                if not self.removers(other, os.path.normpath(destination)) and (
                    found is None or found[0] not in possible
                ):
                    raise wrong(f"{destination} is {found}, the source was {possible}")
            elif status == "skipped":
                if not any(number in possible and name.endswith(".mrcz") for name, (number, _) in self.now.items()):
                    archives = [name for name in self.plot.archives if self.removers(other, name)]
                    if not archives and not any(p.action == other and p.removes for p in self.processes):
                        raise wrong(f"no archive of {possible} is there: {self.now}")
        elif status == "done":
            found = at(destination)
            gone = self.removers(other, os.path.normpath(destination))
            forced = any(p.action == "decompress" and ("-f" in p.argv or "--force" in p.argv) for p in self.processes)
            if not gone and not forced and not filmed:
                known = {n for a, (n, _) in self.plot.archives.items() if self.fold(a) == self.fold(source)}
                if found is None or (known and found[0] not in known and not self.makers(source)):
                    raise wrong(f"{destination} is {found}, the archive was {known}")
        if entry.get("removed"):
            back = filmed or any(p.action in (other, process.action) and p is not process for p in self.makers(source))
            if at(source) is not None and not back:
                raise wrong("the source is there")
        if status not in ("done", "skipped"):
            began = {self.fold(name) for name in (*self.plot.plain, *self.plot.archives)}
            named = self.fold(os.path.normpath(source))
            if named in began and at(source) is None and not self.removers(process.action, source, process):
                raise wrong("the source is gone")

    def makers(self, name: str) -> list[Process]:
        """Who may have made a file of this name: compress for archives, decompress for plain files."""
        action = "compress" if name.endswith(".mrcz") else "decompress"
        return [p for p in self.processes if p.action == action]

    def leftovers(self) -> None:
        killed = [p for p in self.processes if p.status == -signal.SIGKILL or p.killed]
        left = []
        for folder, _, files in os.walk(self.folder, onerror=stop):
            for name in files:
                if name.startswith(".") and not name.startswith((".camera-", ".fuse_hidden")):
                    if not TEMPORARY.fullmatch(name):
                        raise Violation(f"{os.path.join(folder, name)} is no name of a temporary file")
                    left.append(name)
        if len(left) > 2 * len(killed):
            raise Violation(f"temporary files are left: {left}, killed: {[p.name for p in killed]}")

    def story(self) -> str:
        """All that is known of the round."""
        lines = [f"seed {self.seed}, {self.plot.kind}, kept {sorted(self.kept)}"]
        lines.append(f"plain {self.plot.plain}, archives {self.plot.archives}, camera {self.plot.camera}")
        for p in self.processes:
            lines.append(
                f"{p.name} [{p.started:.3f} to {p.ended:.3f}] {' '.join(p.argv)}: {p.status}"
                f"{' (SIGTERM)' if p.terminated else ''}\n    out: {p.out.strip()}\n    err: {p.err.strip()}"
            )
        lines += [f"camera {event}" for event in self.camera_events]
        lines += self.log
        return "\n".join(lines)


def stop(error: OSError) -> None:
    """A folder that cannot be read is no empty one."""
    raise error
