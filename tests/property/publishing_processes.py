"""The processes of test_publishing.py: what each is to do, what comes between it and its calls, what it said."""

import errno
import gzip
import json
import os
import random
import re
import signal
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from publishing_contents import SHAPE, Contents, marks

import mrcz
from mrcz.cli import main as mrcz_main
from mrcz.storage import whole

LIMIT = 100.0  # seconds for a round: whoever takes longer hangs


class Violation(Exception):
    """Something that must never be was seen."""


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
