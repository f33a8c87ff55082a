"""The kernel's FUSE protocol, as far as a read-only file system needs it, spoken on /dev/fuse itself (Linux only).

Every read of /dev/fuse gives one request, every write takes one answer; the structures are those of linux/fuse.h, the
names below its names in lower case. libfuse does the same with two drawbacks that matter to files made on demand: every
answer is copied once more, and direct I/O, which spares the copy through the kernel's page cache, excludes mmap.

What is shown is up to a tree: an object with ``getattr``, ``readdir``, ``open``, ``decoded``, ``version``, ``parts``,
``release`` and ``statfs``, which raise OSError.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from mrcz.errors import MissingDependencyError, MrczError
from mrcz.threads import default_threads

__all__ = ["Nodes", "Server", "serve"]

_WORKERS = 8  # threads that answer requests, at most
_PAGES = 256  # of 4 KiB, the most the kernel asks for at once
_REQUEST = 1 << 16  # bytes; every request without data to write fits
_MAX_WRITE = 4096  # the least the protocol knows; nothing is written
_MINOR = 40  # of protocol version 7: what is known here
# auto_unmount: fusermount3 stays and unmounts when its socket closes, however this process ends.
_OPTIONS = "ro,nosuid,nodev,fsname=mrcz,subtype=mrcz,auto_unmount"

_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _STATFS, _RELEASE = 1, 2, 3, 14, 15, 17, 18
_INIT, _OPENDIR, _READDIR, _RELEASEDIR, _BATCH_FORGET = 26, 27, 28, 29, 42
_ROOT = 1
_UNKNOWN_INO = 0xFFFFFFFF

_ASYNC_READ, _ASYNC_DIO, _PARALLEL_DIROPS, _MAX_PAGES, _INIT_EXT = 1 << 0, 1 << 15, 1 << 18, 1 << 22, 1 << 30
_DIRECT_IO_ALLOW_MMAP = 1 << 36  # Linux 6.6
_WANTED = _ASYNC_READ | _ASYNC_DIO | _PARALLEL_DIROPS | _MAX_PAGES | _INIT_EXT | _DIRECT_IO_ALLOW_MMAP
_FOPEN_DIRECT_IO, _FOPEN_KEEP_CACHE = 1 << 0, 1 << 1

_IN_HEADER = struct.Struct("=IIQQIIIHH")  # len opcode unique nodeid uid gid pid total_extlen padding
_OUT_HEADER = struct.Struct("=IiQ")  # len error unique
_INIT_IN = struct.Struct("=IIII")  # major minor max_readahead flags
_INIT_OUT = struct.Struct("=IIIIHHIIHHI28x")  # ... max_background congestion max_write time_gran max_pages ... flags2
_FORGET_ONE = struct.Struct("=QQ")  # nodeid nlookup
_OPEN_OUT = struct.Struct("=QII")  # fh open_flags padding
_READ_IN = struct.Struct("=QQI")  # fh offset size ...
_ENTRY_OUT = struct.Struct("=QQQQII")  # nodeid generation entry_valid attr_valid and their nanoseconds
_ATTR_OUT = struct.Struct("=QII")  # attr_valid, nanoseconds, dummy
_ATTR = struct.Struct("=6Q10I")
_KSTATFS = struct.Struct("=5Q4I24x")
_DIRENT = struct.Struct("=QQII")  # ino off namelen type


@dataclass
class _Node:
    path: str
    lookups: int = 0
    stamp: Any = None  # of the file when it was looked up
    version: Any = None  # of the file when it was last opened: is what the kernel kept of it still right?


class Nodes:
    """Numbers the kernel knows files by. It counts how often it was told a number and gives that many back."""

    def __init__(self) -> None:
        self._nodes = {_ROOT: _Node("/")}
        self._numbers = {"/": _ROOT}
        self._next = _ROOT + 1
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, number: int) -> _Node:
        node = self._nodes.get(number)
        if node is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return node

    def lookup(self, path: str, stamp: Any = None) -> int:
        """The number of a path, which the kernel will know once more; with another stamp it is another file's."""
        with self._lock:
            number = self._numbers.get(path)
            if number is not None and self._nodes[number].stamp != stamp:
                # The kernel keeps pages by number: those of the file before stay with whoever has it open.
                number = None
            if number is None:
                # Never used again, so a number means one path for as long as the mount stands.
                number, self._next = self._next, self._next + 1
                self._numbers[path], self._nodes[number] = number, _Node(path, stamp=stamp)
            self._nodes[number].lookups += 1
            return number

    def forget(self, number: int, lookups: int) -> None:
        """The kernel gives so many of its lookups back; with the last the number ends."""
        with self._lock:
            node = self._nodes.get(number)
            if node is None or number == _ROOT:
                return
            node.lookups -= lookups
            if node.lookups <= 0:
                del self._nodes[number]
                if self._numbers.get(node.path) == number:
                    del self._numbers[node.path]


class Server:
    """Answers the kernel's requests.

    Parameters
    ----------
    tree : object
        What is shown, see the module.
    device : int
        The mount's /dev/fuse.
    page_cache : bool
        Have the kernel keep decoded files too.
    """

    def __init__(self, tree: Any, device: int, page_cache: bool = False) -> None:
        self.tree = tree
        self.nodes: Nodes = Nodes()
        self._device = device
        self._direct_io = not page_cache
        self._listings: dict[int, list[bytes]] = {}
        self._handles = itertools.count(1)
        self._answers: dict[int, Callable[[int, memoryview], bytes]] = {
            _INIT: self._init,
            _LOOKUP: self._lookup,
            _GETATTR: self._getattr,
            _OPEN: self._open,
            _RELEASE: self._release,
            _OPENDIR: self._opendir,
            _READDIR: self._readdir,
            _RELEASEDIR: self._releasedir,
            _STATFS: self._statfs,
        }

    def work(self) -> None:
        """Answer requests until the mount is gone."""
        buffer = memoryview(bytearray(_REQUEST))
        while True:
            try:
                n = os.readv(self._device, [buffer])
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                # ENOENT: the request was called off while we fetched it.
                if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                    continue
                raise
            _, opcode, unique, number, *_ = _IN_HEADER.unpack_from(buffer)
            with suppress(OSError):  # of the answer: ENOENT where nobody waits for it any more
                self.answer(opcode, unique, number, buffer[_IN_HEADER.size : n])

    def answer(self, opcode: int, unique: int, number: int, body: memoryview) -> None:
        """Answer one request; whatever goes wrong is the answer's error."""
        failure = errno.EIO
        try:
            if opcode in (_FORGET, _BATCH_FORGET):  # the two that get no answer
                self._forget(opcode, number, body)
                return
            if opcode == _READ:
                handle, offset, size = _READ_IN.unpack_from(body)
                with self.tree.parts(handle, offset, size) as parts:
                    self._reply(unique, parts)
                return
            # The kernel does not ask again what is not known here, and makes do without.
            make = self._answers.get(opcode)
            if make is not None:
                self._reply(unique, [make(number, body)])
                return
            failure = errno.ENOSYS
        except OSError as error:
            failure = error.errno or errno.EIO
        except Exception:
            pass
        os.write(self._device, _OUT_HEADER.pack(_OUT_HEADER.size, -failure, unique))

    def _reply(self, unique: int, parts: Sequence[Any]) -> None:
        size = _OUT_HEADER.size + sum(len(part) for part in parts)
        # One write is one answer, whose pieces the kernel copies to the reading program from where they are.
        os.writev(self._device, [_OUT_HEADER.pack(size, 0, unique), *parts])

    # --- requests ---

    def _init(self, number: int, body: memoryview) -> bytes:
        _, minor, readahead, flags = _INIT_IN.unpack_from(body)
        if flags & _INIT_EXT and len(body) >= _INIT_IN.size + 4:
            flags |= struct.unpack_from("=I", body, _INIT_IN.size)[0] << 32
        flags &= _WANTED
        # Without mmap programs would fail that work with files on disk: then rather the page cache.
        self._direct_io = self._direct_io and bool(flags & _DIRECT_IO_ALLOW_MMAP)
        return _INIT_OUT.pack(
            7, min(minor, _MINOR), readahead, flags & 0xFFFFFFFF, 0, 0, _MAX_WRITE, 1, _PAGES, 0, flags >> 32
        )

    def _lookup(self, number: int, body: memoryview) -> bytes:
        path = os.path.join(self.nodes[number].path, os.fsdecode(bytes(body).partition(b"\0")[0]))
        about = self.tree.getattr(path)
        names = ("st_ino", "st_mtime", "st_ctime", "st_size")
        stamp = tuple(about[name] for name in names) if stat.S_ISREG(about["st_mode"]) else None
        # Valid for no time: a file replaced below shows at once.
        return _ENTRY_OUT.pack(self.nodes.lookup(path, stamp), 0, 0, 0, 0, 0) + _attributes(about)

    def _forget(self, opcode: int, number: int, body: memoryview) -> None:
        if opcode == _FORGET:
            self.nodes.forget(number, struct.unpack_from("=Q", body)[0])
            return
        count = struct.unpack_from("=I", body)[0]
        for k in range(count):
            self.nodes.forget(*_FORGET_ONE.unpack_from(body, 8 + k * _FORGET_ONE.size))

    def _getattr(self, number: int, body: memoryview) -> bytes:
        return _ATTR_OUT.pack(0, 0, 0) + _attributes(self.tree.getattr(self.nodes[number].path))

    def _open(self, number: int, body: memoryview) -> bytes:
        node = self.nodes[number]
        handle = self.tree.open(node.path, struct.unpack_from("=I", body)[0])
        version = self.tree.version(handle)
        # Even with direct I/O the kernel keeps pages, those of mappings.
        flags = _FOPEN_KEEP_CACHE if version is not None and node.version == version else 0
        node.version = version
        if self._direct_io and self.tree.decoded(handle):
            flags |= _FOPEN_DIRECT_IO
        return _OPEN_OUT.pack(handle, flags, 0)

    def _release(self, number: int, body: memoryview) -> bytes:
        self.tree.release("", struct.unpack_from("=Q", body)[0])
        return b""

    def _opendir(self, number: int, body: memoryview) -> bytes:
        # Kept until the folder is closed: places in it stay what they were while it is read in pieces.
        names = [os.fsencode(name) for name in self.tree.readdir(self.nodes[number].path)]
        records = []
        for k, name in enumerate(names, 1):
            record = _DIRENT.pack(_UNKNOWN_INO, k, len(name), 0) + name
            records.append(record + bytes(-len(record) % 8))
        handle = next(self._handles)
        self._listings[handle] = records
        return _OPEN_OUT.pack(handle, 0, 0)

    def _readdir(self, number: int, body: memoryview) -> bytes:
        handle, offset, size = _READ_IN.unpack_from(body)
        answer = bytearray()
        for record in self._listings[handle][offset:]:
            if len(answer) + len(record) > size:
                break
            answer += record
        return bytes(answer)

    def _releasedir(self, number: int, body: memoryview) -> bytes:
        del self._listings[struct.unpack_from("=Q", body)[0]]
        return b""

    def _statfs(self, number: int, body: memoryview) -> bytes:
        about = self.tree.statfs(self.nodes[number].path)
        names = ("blocks", "bfree", "bavail", "files", "ffree", "bsize", "namemax", "frsize")
        return _KSTATFS.pack(*(about[f"f_{name}"] for name in names), 0)


def _attributes(about: dict[str, Any]) -> bytes:
    times = [divmod(about[name], 10**9) for name in ("st_atime", "st_mtime", "st_ctime")]
    return _ATTR.pack(
        about["st_ino"],
        about["st_size"],
        about["st_blocks"],
        *(seconds % (1 << 64) for seconds, _ in times),
        *(nanoseconds for _, nanoseconds in times),
        about["st_mode"],
        about["st_nlink"],
        about["st_uid"],
        about["st_gid"],
        0,
        about["st_blksize"],
        0,
    )


def _mount(mountpoint: str) -> tuple[int, socket.socket, list[str], subprocess.Popen[bytes]]:
    """Mount: /dev/fuse, and for the end the socket, the command and the process of fusermount3."""
    if not os.path.exists("/dev/fuse"):
        raise MissingDependencyError("mounting needs /dev/fuse: load the kernel's fuse module (modprobe fuse)")
    program = shutil.which("fusermount3") or shutil.which("fusermount")
    if program is None:
        raise MissingDependencyError("mounting needs fusermount3: apt install fuse3")
    control, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [program, "-o", _OPTIONS, "--", mountpoint],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    devices = socket.recv_fds(control, 1, 1)[1]
    if not devices:
        control.close()
        said = os.fsdecode(process.communicate()[1]).strip().removeprefix(f"{os.path.basename(program)}: ")
        raise MrczError(f"the system refused to mount: {said or 'fusermount3 does not say why'}")
    if process.stderr is not None:
        process.stderr.close()
    return devices[0], control, [program, "-u", "-q", "-z", "--", mountpoint], process


@contextmanager
def _on_signals(do: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP do that meanwhile, in the thread that gets signals."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before[number] = signal.signal(number, lambda *_: do())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve(tree: Any, mountpoint: str, ready: Callable[[], None] | None = None, *, page_cache: bool = False) -> None:
    """Mount a tree and answer until it is unmounted, from outside or by Ctrl-C, SIGTERM or SIGHUP.

    Parameters
    ----------
    tree : object
        What is shown, see the module.
    mountpoint : str
        An empty folder.
    ready : callable, optional
        Called as soon as the mount stands.
    page_cache : bool
        Have the kernel keep decoded files too.

    Raises
    ------
    MissingDependencyError
        /dev/fuse or fusermount3 is missing.
    MrczError
        fusermount3 refused to mount; the message is its own.
    """
    device, control, unmount, process = _mount(mountpoint)
    server = Server(tree, device, page_cache)
    gone = threading.Event()

    def end() -> None:
        # fusermount3 answers by closing its end. It unmounts by itself only where nobody serves any more.
        with suppress(OSError):
            control.shutdown(socket.SHUT_WR)

    def work() -> None:
        try:
            server.work()
            gone.set()
        finally:
            end()

    # Most of an answer is decoding and copying, both without the GIL. Two at least: one may wait for a slow disk.
    workers = min(max(2, default_threads()), _WORKERS)
    threads = [threading.Thread(target=work, name=f"mrcz-fuse-{k}", daemon=True) for k in range(workers)]
    try:
        with _on_signals(end):
            for thread in threads:
                thread.start()
            if ready is not None:
                ready()
            while control.recv(1):
                pass
    finally:
        end()
        if not gone.is_set():
            subprocess.run(unmount, stderr=subprocess.DEVNULL)
        control.close()
        process.wait()
        # A program that still has a file open keeps the threads: they end with that, or with this process.
        for thread in threads:
            if thread.ident is not None:
                thread.join(0.1)
        if not any(thread.is_alive() for thread in threads):
            os.close(device)
