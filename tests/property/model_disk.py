"""A disk that writes down what is done to it, and tells what may be left when the power goes at any instant.

What the model knows: bytes and size of a file are sure once the file was synchronised, a name once its folder was. Of
all else any part may be there and any part not: each 512-byte sector of each write, each change of a size, each name
made, moved or taken away, in any combination and whatever order they came in. A write beyond the end of a file may
leave the size and not the bytes, which are then zeros or rubbish. A rename is one step when it replaces a name; one
to a name that was free may leave both.
"""

import errno
import itertools
import os
import random
from collections.abc import Iterator

from mrcz.storage import whole

SECTOR = 512


class Ledger(whole.Disk):
    """Does what `mrcz.storage.disk.Disk` does, without waiting for a real disk.

    Parameters
    ----------
    existing : list of path
        Files and folders that are safely there.
    """

    def __init__(self, existing=(), *, names="rename"):
        self.steps = []
        self.way = names  # how names can be taken: rename, link, or neither
        self.fail_at = 0  # the number of the call that fails, once
        self.ids = itertools.count()
        self.open = {}  # file descriptor -> [number of the file, a descriptor of ours to read it, its bytes]
        self.names = {}
        self.files = {}  # number -> bytes, as they were in the beginning
        for path in map(str, existing):
            with open(path, "rb") as file:
                self.names[path] = next(self.ids)
                self.files[self.names[path]] = file.read()
        self.at_first = dict(self.names)

    # --- the calls ---

    def open_new(self, path, mode):
        fd = super().open_new(path, mode)
        number = self.names[str(path)] = next(self.ids)
        self.files[number] = b""
        self.steps.append(("name", str(path), number))
        self._watch(fd, number)
        return fd

    def open_existing(self, path):
        fd = super().open_existing(path)
        self._watch(fd, self.names[str(path)])
        return fd

    def _watch(self, fd, number):
        mine = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)  # a dup would hold the lock
        self.forget(fd)
        self.open[fd] = [number, mine, os.pread(mine, os.fstat(mine).st_size, 0)]

    def forget(self, fd):
        if fd in self.open:
            self.look(fd)
            os.close(self.open.pop(fd)[1])

    def look(self, *fds):
        """Take note of what changed; frames are written by the core, which does not ask us."""
        for fd in fds or list(self.open):
            number, mine, before = self.open[fd]
            now = os.pread(mine, os.fstat(mine).st_size, 0)
            if now == before:
                continue
            if len(now) < len(before):
                self.steps.append(("size", number, len(now)))
            grown = before[: len(now)].ljust(len(now), b"\0")
            reached = min(len(before), len(now))
            for start in range(0, len(now), SECTOR):
                old, new = grown[start : start + SECTOR], now[start : start + SECTOR]
                if old != new:
                    self.steps.append(("write", number, start, new))
                    reached = max(reached, start + len(new))
            if len(now) > reached:
                self.steps.append(("size", number, len(now)))
            self.open[fd][2] = now

    def _may_fail(self):
        self.look()
        self.fail_at -= 1
        if self.fail_at == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def pwrite(self, fd, data, offset):
        self._may_fail()
        done = super().pwrite(fd, data, offset)
        self.look()
        return done

    def truncate(self, fd, size):
        self._may_fail()
        super().truncate(fd, size)
        self.look()

    def fsync(self, fd):
        self._may_fail()
        self.steps.append(("sync", self.open[fd][0]))

    def rename_new(self, source, target):
        if self.way != "rename":
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.look()
        super().rename_new(source, target)
        self._moved(source, target, free=True)

    def link(self, source, target):
        if self.way == "neither":
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        self.look()
        super().link(source, target)
        self.names[str(target)] = self.names[str(source)]
        self.steps.append(("name", str(target), self.names[str(target)]))

    def replace(self, source, target):
        self.look()
        free = str(target) not in self.names
        super().replace(source, target)
        self._moved(source, target, free)

    def _moved(self, source, target, free):
        number = self.names.pop(str(source))
        self.names[str(target)] = number
        self.steps.append(("move", str(source), str(target), number, free))

    def unlink(self, path):
        self.look()
        super().unlink(path)
        self.steps.append(("unname", str(path), self.names.pop(str(path))))

    def sync_folder(self, path):
        self.look()
        self.steps.append(("sync folder", str(path)))

    def folder(self, path):
        """A new folder was made."""
        self.look()
        self.steps.append(("folder", os.path.abspath(path)))

    def promise(self, what):
        """From here on, this was promised."""
        self.look()
        self.steps.append(("promise", what))

    def close(self):
        for fd in list(self.open):
            self.forget(fd)

    # --- the power goes ---

    def after_power_loss(self, dice: random.Random, limit: int) -> Iterator[tuple[object, dict[str, bytes]]]:
        """(last promise, bytes by name) for every instant: all there may be, or `limit` of them where that is more."""
        self.close()
        sure_bytes, pending_bytes = dict(self.files), {number: [] for number in self.files}
        sure_names, pending_names = dict(self.at_first), []
        promised = None
        yield from self._outcomes(dice, limit, promised, sure_bytes, pending_bytes, sure_names, pending_names)
        for step in self.steps:
            kind = step[0]
            if kind in ("write", "size"):
                pending_bytes[step[1]].append(step)
            elif kind == "sync":
                for pending in pending_bytes[step[1]]:
                    sure_bytes[step[1]] = apply(sure_bytes[step[1]], pending, "kept")
                pending_bytes[step[1]] = []
            elif kind == "sync folder":
                here = [pending for pending in pending_names if os.path.dirname(pending[1]) == step[1]]
                pending_names = [pending for pending in pending_names if pending not in here]
                for pending in here:
                    rename(sure_names, pending, "kept")
            elif kind == "promise":
                promised = step[1]
            else:
                pending_names.append(step)
            yield from self._outcomes(dice, limit, promised, sure_bytes, pending_bytes, sure_names, pending_names)

    def _outcomes(self, dice, limit, promised, sure_bytes, pending_bytes, sure_names, pending_names):
        new_folders = {step[1] for step in self.steps if step[0] == "folder"}
        seen = set()
        for fates in choices([fates_of_name(pending) for pending in pending_names], dice, limit):
            names = dict(sure_names)
            for pending, fate in zip(pending_names, fates, strict=True):
                rename(names, pending, fate)
            there = {
                name: number
                for name, number in names.items()
                if number >= 0 and all(names.get(f) == -1 for f in new_folders if name.startswith(f + os.sep))
            }
            numbers = sorted(set(there.values()))
            flat = [(number, pending) for number in numbers for pending in pending_bytes[number]]
            for data_fates in choices([fates_of_bytes(pending) for _, pending in flat], dice, limit):
                content = {number: sure_bytes[number] for number in numbers}
                for (number, pending), fate in zip(flat, data_fates, strict=True):
                    content[number] = apply(content[number], pending, fate)
                outcome = {name: content[number] for name, number in there.items()}
                key = tuple(sorted(outcome.items()))
                if key not in seen:
                    seen.add(key)
                    yield promised, outcome


def fates_of_name(step):
    return ("lost", "kept", "both") if step[0] == "move" and step[4] else ("lost", "kept")


def fates_of_bytes(step):
    return ("lost", "kept") if step[0] == "size" else ("lost", "kept", "zeros", "rubbish")


def choices(fates, dice, limit):
    """All combinations, or so many of them: none, all, each alone, all but one, and some drawn."""
    count = 1
    for options in fates:
        count *= len(options)
    if count <= limit:
        yield from itertools.product(*fates)
        return
    n = len(fates)
    yield ("lost",) * n
    yield ("kept",) * n
    for k in dice.sample(range(n), min(n, limit // 4)):
        yield tuple("kept" if j == k else "lost" for j in range(n))
        yield tuple("lost" if j == k else "kept" for j in range(n))
    for _ in range(limit // 2):
        yield tuple(dice.choice(options) for options in fates)


def apply(data: bytes, step, fate: str) -> bytes:
    """The file after a step that was kept, or not, or only in part."""
    if fate == "lost":
        return data
    if step[0] == "size":
        return data[: step[2]].ljust(step[2], b"\0")
    _, _, start, new = step
    if fate == "kept":
        return data[:start].ljust(start, b"\0") + new + data[start + len(new) :]
    if start + len(new) <= len(data):
        return data
    return data + (b"\0" if fate == "zeros" else b"\xa5") * (start + len(new) - len(data))


def rename(names: dict[str, int], step, fate: str) -> None:
    """The names after a step that was kept, or not, or only in part. A folder is number -1."""
    if fate == "lost":
        return
    if step[0] == "name":
        names[step[1]] = step[2]
    elif step[0] == "folder":
        names[step[1]] = -1
    elif step[0] == "unname":
        if names.get(step[1]) == step[2]:
            del names[step[1]]
    else:
        _, source, target, number, _ = step
        names[target] = number
        if fate == "kept" and names.get(source) == number:
            del names[source]
