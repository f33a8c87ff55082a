"""Many processes compress, restore, remove, replace and are killed in one folder; an observer looks for lost pixels.

A round is a folder with a few small files, each with pixels and a header of its own, and eight processes, forked from
this one, that run `mrcz.cli.main` on the same and on colliding names. A camera replaces sources meanwhile. Every few
milliseconds, or where a process asks for it between two calls to the system, all of them are stopped (SIGSTOP) and the
folder is looked at as it is at that instant. What must hold, always:

* the pixels and header of every source are there, verified, under a name that is not hidden;
* no visible file is half written;
* an archive stays what it is, unless somebody asked for it to be removed, and never has fewer frames than before;
* what a process said and its exit code are true: "done" means that an archive of the very source is there, "removed"
  that the source is gone, "skipped" that an archive of the very source was there, an error that the source still is;
* a process that was not killed with SIGKILL leaves no temporary file, and others only ``.NAME.XXXXXXXX.part|orig``.

Run by test_publishing.py for some seconds and by bench/stress for 1000 rounds on several file systems. A program of its
own because it forks: no thread may run in the process that does.

``python publishing.py FOLDER ROUNDS SEED [--seconds S] [--without link,rename] [--keep-going]``
"""

import argparse
import collections
import errno
import faulthandler
import gzip
import json
import os
import random
import re
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import mrcz
from mrcz.check.verify import verify
from mrcz.cli import main as mrcz_main
from mrcz.storage import whole

SHAPE = (4, 32, 32)
TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-z_]{8}\.(part|tmp|orig)")
LIMIT = 100.0  # seconds for a round: whoever takes longer hangs


# --- contents ----------------------------------------------------------------------------------------------------


class Contents:
    """Plain MRC files by number; each with pixels and a label of its own, all of one size."""

    def __init__(self, scratch: Path) -> None:
        template = scratch / "template.mrc"
        mrcz.write(template, np.zeros(SHAPE, np.int16), pixel_size=1.5, labels=["source 00000000"])
        self._template = template.read_bytes()
        self._label = self._template.index(b"source 00000000")
        self._plain: dict[int, bytes] = {}
        self._numbers: dict[bytes, int] = {}
        self._seen: dict[bytes, tuple[int | None, int]] = {}

    def plain(self, number: int) -> bytes:
        if number not in self._plain:
            raw = bytearray(self._template)
            raw[self._label : self._label + 15] = b"source %08d" % number
            raw[1024:] = np.random.default_rng(number).poisson(6.0, SHAPE).astype("<i2").tobytes()
            self._plain[number] = bytes(raw)
            self._numbers[bytes(raw)] = number
        return self._plain[number]

    def look(self, path: str) -> tuple[int | None, int]:
        """Number of the content in a file, None if it is whole in none; and how many frames it has."""
        with open(path, "rb") as file:
            raw = file.read()
        if raw not in self._seen:
            self._seen[raw] = self._look(path, raw)
        return self._seen[raw]

    def _look(self, path: str, raw: bytes) -> tuple[int | None, int]:
        if raw[:2] == b"\x1f\x8b":
            try:
                raw = gzip.decompress(raw)
            except (OSError, EOFError):
                return None, 0
        if raw in self._numbers:
            return self._numbers[raw], SHAPE[0]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with mrcz.open(path, n_threads=1) as reader:
                    header = reader.footer.source_header
                    stored = reader.read().astype("<i2", copy=False)
                if not verify(path, n_threads=1).ok:
                    return None, 0
        except (mrcz.MrczError, Warning, OSError, AttributeError):
            return None, 0
        if any((frame != marks(k)).any() for k, frame in enumerate(stored[SHAPE[0] :])):
            return None, 0
        return self._numbers.get(header + stored[: SHAPE[0]].tobytes()), len(stored)


def marks(k: int) -> np.ndarray:
    """What an appender adds as the k-th frame after those of the source."""
    return np.full(SHAPE[1:], 1000 + k, np.int16)


# --- processes ---------------------------------------------------------------------------------------------------


@dataclass
class Process:
    """One of those that work at the same time."""

    name: str
    argv: list[str]
    pid: int = 0
    started: float = 0.0
    ended: float = 0.0
    status: int | None = None  # as waitstatus_to_exitcode tells it
    terminated: bool = False  # SIGTERM was sent
    out: str = ""
    err: str = ""
    said: list[dict] = field(default_factory=list)

    @property
    def action(self) -> str:
        return self.argv[0]

    @property
    def killed(self) -> bool:
        """Its end could not be managed by the program."""
        return self.status is not None and self.status < 0

    @property
    def inputs(self) -> list[str]:
        names, skip = [], False
        for word in self.argv[1:]:
            if skip:
                skip = False
            elif word in ("-o", "-n"):
                skip = True
            elif not word.startswith("-"):
                names.append(word)
        return names

    @property
    def removes(self) -> bool:
        return "--remove" in self.argv

    def may_have_done(self, name: str) -> bool:
        """Whether it worked on this file, or may have, or still will; False where it said that it failed."""
        return self.status != 1 or len(self.inputs) > 1 or "-r" in self.argv

    def takes(self, name: str, fold) -> bool:
        """Whether this file is, or may be, one of its inputs."""
        wanted = fold(os.path.normpath(name))
        return any(fold(os.path.normpath(given)) == wanted or "-r" in self.argv for given in self.inputs)


class Between:
    """Comes between a process and the calls it makes: sleeps, asks to be looked at, dies."""

    EVENTS = frozenset(
        ("open", "os.rename", "os.link", "os.remove", "os.truncate", "os.chmod", "os.utime", "os.mkdir", "fcntl.flock")
    )

    def __init__(self, folder: str, dice: random.Random, death: int | None, by: int) -> None:
        self.folder, self.dice, self.left, self.by = folder, dice, death, by
        self.slow = dice.choice([0.04, 0.2, 0.5])
        # One long sleep, in which everybody else gets by.
        self.nap = dice.randint(1, 60) if dice.random() < 0.3 else 0
        self.nap_before = dice.choice(["unlink", "replace", "rename_new", "link"]) if dice.random() < 0.3 else None

    def __call__(self, event: str, arguments: tuple) -> None:
        if event not in self.EVENTS:
            return
        if event == "open":
            path = arguments[0]
            if not isinstance(path, (str, bytes, os.PathLike)):
                return
            path = os.fsdecode(path)
            if path.startswith("/") and not path.startswith(self.folder):
                return
        self.pass_by()

    def pass_by(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.by)
        self.nap -= 1
        luck = self.dice.random()
        if self.nap == 0:
            time.sleep(0.03 + self.dice.random() * 0.05)
        elif luck < 0.04:
            os.kill(os.getpid(), signal.SIGSTOP)
        elif luck < self.slow:
            time.sleep(self.dice.random() * 0.004)

    def install(self) -> None:
        sys.addaudithook(self)
        for name, call in vars(whole.Disk).items():
            if not name.startswith("_"):
                setattr(whole.Disk, name, self._wrapped(name, call))

    def _wrapped(self, name: str, call):
        def wrapper(*arguments):
            if name == self.nap_before:
                self.nap = 1
            self.pass_by()
            try:
                return call(*arguments)
            finally:
                self.pass_by()

        return wrapper


def refuse(names: list[str]) -> None:
    """As a file system that knows no hard links ("link"), or no rename that replaces nothing ("rename")."""

    def refusing(number):
        def call(*arguments):
            raise OSError(number, os.strerror(number))

        return call

    if "link" in names:
        whole.Disk.link = refusing(errno.EPERM)
    if "rename" in names:
        whole.Disk.rename_new = refusing(errno.EINVAL)


def reserves(folder: Path, without: list[str]) -> bool:
    """Whether this file system has neither call, so that an empty file reserves a name (docs/container.md)."""
    old, new = folder / "probe", folder / "probe2"
    for name, call in (("rename", whole.Disk().rename_new), ("link", os.link)):
        if name in without:
            continue
        try:
            call(old, new)
        except OSError:
            continue
        if old.exists():
            new.unlink()
        else:
            new.rename(old)
        return False
    return True


def is_fuse(folder: Path) -> bool:
    """Whether a program is the file system."""
    point = max(
        (line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()),
        key=lambda entry: len(entry[0]) if folder.is_relative_to(entry[0]) else 0,
    )
    return point[1].startswith("fuse")


def run_command(argv: list[str]) -> int:
    return mrcz_main(argv)


def append(path: str, frames: int) -> int:
    """Append to an archive, looking after each flush whether its frames are there under the name."""
    try:
        writer = mrcz.open(path, "a", n_threads=1, codec="lz4")
    except (OSError, mrcz.MrczError) as error:
        print(f"mrcz: {path}: {error}", file=sys.stderr)
        return 1
    with writer:
        for _ in range(frames):
            writer.append(marks(len(writer) - SHAPE[0]))
            writer.flush()
            with mrcz.open(path, n_threads=1) as reader:
                assert len(reader) == len(writer), f"{len(reader)} frames, {len(writer)} were flushed"
                assert np.array_equal(reader[-1], marks(len(writer) - SHAPE[0] - 1)), "not my frames"
    print(json.dumps({"source": path, "status": "appended"}))
    return 0


def camera(folder: str, actions: list, pipe: int, contents: Contents, dice: random.Random) -> int:
    """Give sources new contents: ``(name, number, how)``. What was there may go, the new one is to be kept."""
    for k, (name, number, how) in enumerate(actions):
        time.sleep(dice.random() * 0.1)
        tell = struct.pack("<di32s", time.monotonic(), -1, name.encode())
        raw = contents.plain(number)
        if name.endswith(".gz"):
            raw = gzip.compress(raw, 1)
        done = False
        if how == "in place":
            try:
                with open(name, "r+b") as file:
                    os.write(pipe, tell)
                    file.write(raw)
                    file.truncate()
                    file.flush()
                    os.fsync(file.fileno())
                    # A program that writes over a file finds out whether its name was taken away meanwhile.
                    done = os.path.exists(name) and os.path.samestat(os.stat(name), os.fstat(file.fileno()))
            except FileNotFoundError:
                pass
        if not done:
            temporary = f".camera-{k}"
            with open(temporary, "wb") as file:
                file.write(raw)
            os.write(pipe, struct.pack("<di32s", time.monotonic(), -1, name.encode()))
            os.replace(temporary, name)
        os.write(pipe, struct.pack("<di32s", time.monotonic(), number, name.encode()))
    return 0


# --- a round -----------------------------------------------------------------------------------------------------

SIBLINGS = ["TS_01.st", "TS_01.ali", "TS_01.rec", "TS_01.mrc", "TS_01.mrcs", "TS_01"]
FORCE = ["--force"]
NEVER = (None, signal.SIGKILL)


class Plot:
    """What a round begins with and who does what in it."""

    def __init__(self, dice: random.Random, first: int, caseless: bool) -> None:
        self.dice = dice
        self.next = first
        self.plain: dict[str, int] = {}  # sources by name
        self.archives: dict[str, tuple[int, str]] = {}  # name -> content, name of its source
        self.commands: list[list[str]] = []
        self.camera: list[tuple[str, int, str]] = []
        self.released: set[int] = set()  # may be lost, because somebody asks for it
        self.kind = dice.choice(sorted(PLOTS))
        PLOTS[self.kind](self)
        for words in self.commands:
            if caseless and dice.random() < 0.15 and words[-1] != ".":
                words[-1] = dice.choice([words[-1].lower(), words[-1].upper()])

    def new(self) -> int:
        self.next += 1
        return self.next

    def flags(self, *, force: float = 0.25, remove: float = 0.5, skip: float = 0.25) -> list[str]:
        dice = self.dice
        words = ["-n", "1"]
        if dice.random() < force:
            words.append(dice.choice(["--force", "-f"]))
        if dice.random() < remove:
            words.append("--remove")
        elif dice.random() < 0.3:
            words.append("--check")
        if dice.random() < skip:
            words.append("--skip-existing")
        words += dice.choice([[], [], ["-q"], ["--json"], ["--json"]])
        words += dice.choice([[], ["-c", "lz4"]])
        return words

    def old_archive(self, stem: str, source: str, number: int) -> None:
        self.archives[stem + ".mrcz"] = (number, source)

    def siblings(self) -> None:
        """`ls TS_01.* | xargs -P8 mrcz compress`."""
        names = self.dice.sample(SIBLINGS, self.dice.randint(2, 5))
        for name in names:
            self.plain[name] = self.new()
        if self.dice.random() < 0.4:  # one is archived already, by whatever version, perhaps as it was before
            name = self.dice.choice(names)
            same = self.plain[name] if self.dice.random() < 0.5 else self.new()
            self.archives[self.dice.choice([os.path.splitext(name)[0], name]) + ".mrcz"] = (same, name)
        settled = self.flags() if self.dice.random() < 0.5 else None
        for _ in range(8):
            self.commands.append(["compress", *(settled or self.flags()), self.dice.choice(names)])

    def one(self) -> None:
        """The same source eight times."""
        name = self.dice.choice([*SIBLINGS, "movie.mrc.gz"])
        self.plain[name] = self.new()
        self.commands = [["compress", *self.flags(), name] for _ in range(8)]

    def wrapped(self) -> None:
        """movie.mrc and movie.mrc.gz, the same movie or not."""
        number = self.new()
        self.plain["movie.mrc"] = number
        self.plain["movie.mrc.gz"] = number if self.dice.random() < 0.5 else self.new()
        if self.dice.random() < 0.5:
            self.plain["movie.map"] = self.new()
        names = sorted(self.plain)
        self.commands = [["compress", *self.flags(), self.dice.choice(names)] for _ in range(8)]

    def explicit(self) -> None:
        """Different sources, one destination."""
        for name in SIBLINGS[:4]:
            self.plain[name] = self.new()
        if self.dice.random() < 0.3:
            self.archives["same.mrcz"] = (self.new(), "other.mrc")
        for _ in range(8):
            self.commands.append(["compress", *self.flags(), "-o", "same.mrcz", self.dice.choice(SIBLINGS[:4])])

    def folders(self) -> None:
        """A whole folder by several at once, beside the sources or elsewhere."""
        for name in SIBLINGS[:4]:
            self.plain[name] = self.new()
        for _ in range(8):
            words = self.flags(skip=0.5)
            if self.dice.random() < 0.5:
                words += ["-o", "out/"]
            if self.dice.random() < 0.5:
                words += ["-r", "."]
            else:
                words += self.dice.sample(SIBLINGS[:4], 3)
            self.commands.append(["compress", *words])

    def back(self) -> None:
        """Compressed by some and restored by others."""
        names = self.dice.sample(SIBLINGS[:4], 2)
        for name in names:
            self.plain[name] = self.new()
            if self.dice.random() < 0.6:
                archive = os.path.splitext(name)[0] if name.endswith(".mrc") or self.dice.random() < 0.3 else name
                self.archives[archive + ".mrcz"] = (self.plain[name], name)
                if self.dice.random() < 0.5:
                    del self.plain[name]
        archives = sorted(self.archives) + [f"{n}.mrcz" for n in names if not n.endswith(".mrc")]
        for _ in range(8):
            if self.dice.random() < 0.5:
                self.commands.append(["compress", *self.flags(), self.dice.choice(names)])
            else:
                words = [word for word in self.flags(force=0) if word not in ("-c", "lz4")]
                if self.dice.random() < 0.2:
                    words += ["-o", "restored.mrc"]
                elif self.dice.random() < 0.3:
                    words += FORCE  # the same content comes back
                self.commands.append(["decompress", *words, self.dice.choice(archives)])

    def restored(self) -> None:
        """Different archives, one destination, replaced by request: only the last one has to be there."""
        for k in range(3):
            number = self.new()
            self.archives[f"m{k}.mrc.mrcz"] = (number, f"m{k}.mrc")
        forced = removed = False
        for _ in range(8):
            words = [word for word in self.flags(force=0.5) if word not in ("-c", "lz4")]
            forced |= "-f" in words or "--force" in words
            removed |= "--remove" in words
            self.commands.append(["decompress", *words, "-o", "one.mrc", self.dice.choice(sorted(self.archives))])
        if forced and removed:
            self.released.update(number for number, _ in self.archives.values())

    def filmed(self) -> None:
        """A camera gives the sources new contents while they are compressed."""
        names = self.dice.sample([*SIBLINGS[:4], "movie.mrc.gz"], 2)
        for name in names:
            self.plain[name] = self.new()
        for _ in range(self.dice.randint(1, 6)):
            self.camera.append((self.dice.choice(names), self.new(), self.dice.choice(CAMERA)))
        self.commands = [["compress", *self.flags(), self.dice.choice(names)] for _ in range(8)]

    def appended(self) -> None:
        """Frames are added to an archive that others want to make anew."""
        number = self.new()
        self.plain["grow.mrc"] = number
        self.plain["other.mrc"] = self.new()
        self.archives["grow.mrcz"] = (number, "grow.mrc")
        for k in range(8):
            if k < 3:
                self.commands.append(["append", "grow.mrcz"])
            else:
                source = self.dice.choice(["grow.mrc", "grow.mrc", "other.mrc"])
                self.commands.append(["compress", *self.flags(force=0.8), "-o", "grow.mrcz", source])
        self.dice.shuffle(self.commands)


PLOTS = {
    "siblings": Plot.siblings,
    "one": Plot.one,
    "wrapped": Plot.wrapped,
    "explicit": Plot.explicit,
    "folders": Plot.folders,
    "back": Plot.back,
    "restored": Plot.restored,
    "filmed": Plot.filmed,
    "appended": Plot.appended,
}
CAMERA = ["replace", "in place"]


class Violation(Exception):
    """Something that must never be was seen."""


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


def stopped(pid: int) -> bool:
    """Whether a child is stopped now; threads and all."""
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] not in "TtZX":
                    return False
    except (FileNotFoundError, ProcessLookupError):
        return False  # ended: waitpid will tell
    return True


def parse(process: Process):
    """What a process said of each file."""
    if process.action not in ("compress", "decompress"):
        return
    if "--json" in process.argv:
        for line in process.out.splitlines():
            if line.endswith("}"):
                entry = json.loads(line)
                if "source" in entry and "status" in entry:
                    yield entry
        return
    for line in process.out.splitlines():
        if found := re.fullmatch(r"(.+?) -> (.+?)  \d.*?(, original removed)?", line):
            yield {"source": found[1], "destination": found[2], "status": "done", "removed": found[3] is not None}
        elif found := re.fullmatch(r"(.+?): skipped, (.*)", line):
            yield {"source": found[1], "status": "skipped", "error": found[2]}
        elif process.status is not None and process.status >= 0:
            raise Violation(f"{process.name} said {line!r}")
    for line in process.err.splitlines():
        if found := re.fullmatch(r"mrcz: (.+?): (.*)", line):
            if found[1] != "note":
                yield {"source": found[1], "status": "failed", "error": found[2]}


# --- all rounds --------------------------------------------------------------------------------------------------


def warm(scratch: Path) -> None:
    """Import what the children need, before the first of them."""
    source = scratch / "warm.mrc"
    mrcz.write(source, np.zeros(SHAPE, np.int16))
    (scratch / "warm.mrc.gz").write_bytes(gzip.compress(source.read_bytes()))
    with open(os.devnull, "w") as null:
        out, err, sys.stdout, sys.stderr = sys.stdout, sys.stderr, null, null
        try:
            mrcz_main(["compress", "-n", "1", "-q", "--remove", str(scratch / "warm.mrc.gz")])
            mrcz_main(["compress", "-n", "1", "-q", "--json", "-f", str(source), "-o", str(scratch / "warm.mrcz")])
            mrcz_main(["decompress", "-n", "1", "-q", "-o", str(scratch / "w.mrc"), str(scratch / "warm.mrcz")])
            with mrcz.open(scratch / "warm.mrcz", "a", n_threads=1) as writer:
                writer.append(marks(0))
            verify(scratch / "warm.mrcz", n_threads=1)
        finally:
            sys.stdout, sys.stderr = out, err


def run(top: Path, rounds: int, seed: int, *, seconds: float, without: list[str], keep_going: bool, only: str) -> int:
    os.umask(0o022)
    scratch = Path(tempfile.mkdtemp(prefix="stress-"))
    (top / "probe").write_bytes(b"")
    warm(scratch)
    contents = Contents(scratch)
    totals: dict[str, collections.Counter] = {}
    violations: dict[str, int] = {}
    started = time.monotonic()
    done = 0
    if only:
        for kind in list(PLOTS):
            if kind not in only.split(","):
                del PLOTS[kind]
    for k in range(rounds):
        if time.monotonic() - started > seconds:
            break
        one = Round(top, scratch, seed + k, contents, without)
        try:
            facts = one.run()
            totals.setdefault(facts.pop("kind"), collections.Counter()).update(rounds=1, **facts)
        except Violation as what:
            one.freeze()
            for process in one.alive():
                os.kill(process.pid, signal.SIGKILL)
                os.waitpid(process.pid, 0)
            print(f"VIOLATION: {what}\n{one.story()}\n", file=sys.stderr, flush=True)
            short = re.sub(r"\d+", "N", f"{one.plot.kind}: {what!s}")[:60]
            violations[short] = violations.get(short, 0) + 1
            if not keep_going:
                return 1
        contents._seen.clear()
        shutil.rmtree(one.folder)
        done += 1
    shutil.rmtree(scratch)
    (top / "probe").unlink()
    report = {"rounds": done, "seconds": round(time.monotonic() - started, 1), "violations": violations}
    print(json.dumps({**report, "kinds": totals}))
    return 1 if violations else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("rounds", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--seconds", type=float, default=1e9, help="no new round after so long")
    parser.add_argument("--without", default="", help="link, rename: calls that fail as on lesser file systems")
    parser.add_argument("--keep-going", action="store_true", help="count violations instead of stopping at the first")
    parser.add_argument("--only", default="", help=f"some of {', '.join(PLOTS)}")
    args = parser.parse_args()
    return run(
        args.folder.resolve(),
        args.rounds,
        args.seed,
        seconds=args.seconds,
        without=[name for name in args.without.split(",") if name],
        keep_going=args.keep_going,
        only=args.only,
    )


if __name__ == "__main__":
    sys.exit(main())
