"""A folder on a disk that fails, as the kernel tells of it: a FUSE file system through which the folder is seen.

`FailingDisk` mounts it over the folder itself, so that nobody who uses the folder knows; what is asked of the folder
then goes to the file system that lies below, or fails as the rules in force say. The file system is a process of its
own, this file run as a program; it needs libfuse3, mfusepy and the right to mount.

A rule is a dict:

``call``
    Names of requests: ``lookup`` (also of attributes), ``readdir``, ``open``, ``read``, ``create``, ``write``,
    ``truncate``, ``fsync``, ``close``, ``fsyncdir``, ``rename``, ``link``, ``unlink``, ``mkdir``, ``attributes``
    (their setting).
``error``
    ``"EIO"``, ``"ESTALE"``, …; of reads also ``"FLIP"``: other bytes than were written, without a word.
``path``
    Regular expression that the path below the folder matches somewhere.
``from``
    Offset in the file from which on reads and writes fail; what lies before is read, and written.
``after``, ``times``
    So many requests that match pass first, and so many fail; without the latter it stays so.
``chance``
    That a request that matches fails, seldom or always (1).
"""

import contextlib
import ctypes.util
import errno
import json
import os
import random
import re
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

_STATUS = ("st_atime", "st_ctime", "st_gid", "st_ino", "st_mode", "st_mtime", "st_nlink", "st_size", "st_uid")
_TIMES = ("st_atime", "st_ctime", "st_mtime")


def missing():
    """Why no disk can fail here; None where it can."""
    if not sys.platform.startswith("linux"):
        return "FUSE is asked for the way Linux has it"
    if ctypes.util.find_library("fuse3") is None:
        return "needs libfuse3"
    from mount.mounting import can_mount

    return None if can_mount else "fusermount3 mounts nothing on this machine"


class FailingDisk:
    """A folder that fails as long as the block lasts, once it is told to.

    Parameters
    ----------
    folder : path
        What it holds is seen as it was, and what is changed in it stays.
    rules : list of dict
        As the module tells; `fail` changes them.
    """

    def __init__(self, folder, rules=()):
        self.folder = Path(folder)
        self._about = Path(tempfile.mkdtemp(prefix="failing-disk-"))
        self.fail(*rules)

    def fail(self, *rules):
        """From now on these rules are in force; none: the disk is whole."""
        new = self._about / "rules.new"
        new.write_text(json.dumps(rules))
        os.replace(new, self._about / "rules")

    def failed(self):
        """What has failed so far: Counter of (call, error), and the paths."""
        try:
            lines = [json.loads(line) for line in (self._about / "failed").read_text().splitlines()]
        except FileNotFoundError:
            lines = []
        return Counter((call, error) for call, error, _ in lines), [path for _, _, path in lines]

    def __enter__(self):
        device = os.stat(self.folder).st_dev
        command = [sys.executable, "-B", __file__, self.folder, self._about]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 30
        while os.stat(self.folder).st_dev == device:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError(f"nothing was mounted: {self.process.communicate()[1]}")
            time.sleep(0.01)
        return self

    def __exit__(self, *exc):
        deadline = time.monotonic() + 5
        while subprocess.run(["fusermount3", "-u", "-q", self.folder], capture_output=True).returncode:
            if time.monotonic() > deadline:
                subprocess.run(["fusermount3", "-u", "-z", "-q", self.folder])
                break
            time.sleep(0.02)
        try:
            said = self.process.communicate(timeout=30)[1]
        except subprocess.TimeoutExpired:
            self.process.kill()
            said = self.process.communicate()[1]
        for name in os.listdir(self._about):
            os.unlink(self._about / name)
        os.rmdir(self._about)
        if "Traceback" in said and not exc[0]:
            raise AssertionError(said)


class Rules:
    """The rules in force, as the file has them, and how often each was asked."""

    def __init__(self, about):
        self._path, self._failed = about / "rules", about / "failed"
        self._version, self._rules, self._counts = None, [], []
        self._lock = threading.Lock()
        self._chance = random.Random(os.environ.get("FAILING_DISK_SEED", "1"))

    def ask(self, call, path, offset=0, size=0):
        """The error that a request gives; None if it passes, and for FLIP."""
        with self._lock:
            status = os.stat(self._path)
            if self._version != (version := (status.st_ino, status.st_mtime_ns)):
                self._rules = json.loads(self._path.read_text())
                self._version, self._counts = version, [0] * len(self._rules)
            for k, rule in enumerate(self._rules):
                calls = [rule["call"]] if isinstance(rule["call"], str) else rule["call"]
                if call not in calls or not re.search(rule.get("path", ""), path):
                    continue
                if size and offset + size <= rule.get("from", 0):
                    continue
                if self._chance.random() >= rule.get("chance", 1.0):
                    continue
                self._counts[k] += 1
                after = rule.get("after", 0)
                if self._counts[k] <= after or self._counts[k] > after + rule.get("times", 1 << 60):
                    continue
                with open(self._failed, "a") as file:
                    file.write(json.dumps([call, rule["error"], path]) + "\n")
                return rule
        return None

    def check(self, call, path):
        if (rule := self.ask(call, path)) is not None:
            fail(rule)


def fail(rule):
    number = getattr(errno, rule["error"])
    raise OSError(number, os.strerror(number))


def serve(folder, about):
    """Be the file system."""
    os.environ["FUSE_LIBRARY_NAME"] = "fuse3"  # the older one knows no rename that replaces nothing
    import mfusepy

    from mrcz.storage.disk import Disk

    rules = Rules(Path(about))
    below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # what lies under the mount is reached through this alone
    os.umask(0)

    class Through(mfusepy.Operations):
        use_ns = True

        def __init__(self):
            self.names = {}  # of open files

        def _at(self, path):
            return f"/proc/self/fd/{below}{path}"

        def _opened(self, fd, path):
            self.names[fd] = path
            return fd

        def getattr(self, path, fh=None):
            rules.check("lookup", self.names.get(fh, path) or "")
            found = os.fstat(fh) if fh is not None else os.lstat(self._at(path))
            return {name: getattr(found, f"{name}_ns" if name in _TIMES else name) for name in _STATUS}

        def readdir(self, path, fh):
            path = path or self.names.get(fh, "")
            rules.check("readdir", path)
            with os.scandir(self._at(path)) as entries:
                found = [(one.name, {"st_ino": one.inode(), "st_mode": _kind(one)}, 0) for one in entries]
            return [".", "..", *found]

        def opendir(self, path):
            rules.check("open", path)
            return self._opened(os.open(self._at(path), os.O_RDONLY | os.O_DIRECTORY), path)

        def releasedir(self, path, fh):
            return self.release(path, fh)

        def readlink(self, path):
            return os.readlink(self._at(path))

        def statfs(self, path):
            found = os.statvfs(self._at(path))
            return {name: getattr(found, name) for name in dir(found) if name.startswith("f_")}

        def open(self, path, flags):
            rules.check("open", path)
            return self._opened(os.open(self._at(path), flags & ~(os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)), path)

        def create(self, path, mode, flags):
            rules.check("create", path)
            return self._opened(os.open(self._at(path), flags | os.O_CREAT, mode), path)

        def read(self, path, size, offset, fh):
            rule = rules.ask("read", self.names[fh], offset, size)
            data = os.pread(fh, size, offset)
            if rule is not None:
                if rule["error"] != "FLIP":
                    fail(rule)
                start = max(0, rule.get("from", 0) - offset)
                return data[:start] + bytes([data[start] ^ 4]) + data[start + 1 :] if start < len(data) else data
            return data

        def write(self, path, data, offset, fh):
            if (rule := rules.ask("write", self.names[fh], offset, len(data))) is not None:
                start = rule.get("from", 0) - offset
                if start <= 0:
                    fail(rule)
                data = data[:start]
            return os.pwrite(fh, data, offset)

        def truncate(self, path, length, fh=None):
            rules.check("truncate", path or self.names.get(fh, ""))
            os.truncate(fh if fh is not None else self._at(path), length)

        def flush(self, path, fh):
            rules.check("close", self.names[fh])

        def release(self, path, fh):
            self.names.pop(fh, None)
            os.close(fh)

        def fsync(self, path, datasync, fh):
            rules.check("fsync", self.names[fh])

        def fsyncdir(self, path, datasync, fh):
            rules.check("fsyncdir", self.names[fh])

        def rename(self, old, new, flags=0):
            rules.check("rename", f"{old} {new}")
            if flags & 1:  # RENAME_NOREPLACE
                Disk().rename_new(self._at(old), self._at(new))
            elif flags:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            else:
                os.rename(self._at(old), self._at(new))

        def link(self, target, source):
            rules.check("link", target)
            os.link(self._at(source), self._at(target), follow_symlinks=False)

        def symlink(self, target, source):
            rules.check("create", target)
            os.symlink(source, self._at(target))

        def unlink(self, path):
            rules.check("unlink", path)
            os.unlink(self._at(path))

        def mkdir(self, path, mode):
            rules.check("mkdir", path)
            os.mkdir(self._at(path), mode)

        def rmdir(self, path):
            rules.check("unlink", path)
            os.rmdir(self._at(path))

        def chmod(self, path, mode):
            rules.check("attributes", path or "")
            os.chmod(self._at(path), mode)

        def chown(self, path, uid, gid):
            rules.check("attributes", path or "")
            os.chown(self._at(path), uid, gid, follow_symlinks=False)

        def utimens(self, path, times=None):
            rules.check("attributes", path or "")
            os.utime(self._at(path), ns=times, follow_symlinks=False)

    class Fuse(mfusepy.FUSE):
        def rename_fuse_3(self, old, new, flags):
            names = (name.decode(self.encoding, self.errors) for name in (old, new))
            return self.operations.rename(*names, flags)

    options = {
        "fsname": "failing-disk",
        "attr_timeout": 0,
        "entry_timeout": 0,
        "negative_timeout": 0,
        "max_threads": 8,
        "max_idle_threads": 8,
    }
    if os.geteuid() == 0:
        options |= {"allow_other": True, "default_permissions": True}
    Fuse(Through(), str(folder), foreground=True, hard_remove=True, use_ino=True, **options)


def _kind(entry):
    with contextlib.suppress(OSError):
        return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
    return 0


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2])
