"""Serving a tree through libfuse, where the kernel is not Linux: mfusepy carries the answers."""

from __future__ import annotations

import ctypes
import signal
import threading
from typing import Any

from mrcz.errors import MissingDependencyError, MrczError
from mrcz.mount.background import unmounted_at_the_end
from mrcz.mount.tree import Tree

__all__ = ["serve"]

# Reads answered at a time. More only wait for each other: the decoding behind them has threads of its own.
_THREADS = 4
_ENDED_BY_SIGNAL = 8  # what fuse_main returns after Ctrl-C or SIGTERM, having unmounted


def _fuse_class(mfusepy: Any) -> type:
    """mfusepy's FUSE, with a `read` that copies each byte once: it is called for every 128 KiB.

    And an `open` that says what the kernel may keep.
    """

    versions: dict[bytes, Any] = {}

    class FUSE(mfusepy.FUSE):
        def open(self, path: bytes, fip: Any) -> int:
            super().open(path, fip)
            # What was read stays in the kernel's memory until the file changes. libfuse's own look at that, auto_cache,
            # knows a file by time and size alone.
            version = self.operations.version(fip.contents.fh)
            fip.contents.keep_cache = int(version is not None and versions.get(path) == version)
            versions[path] = version
            return 0

        def read(self, path: bytes, buf: Any, size: int, offset: int, fip: Any) -> int:
            return int(self.operations.read_into(ctypes.addressof(buf.contents), size, offset, fip.contents.fh))

    return FUSE


def serve(folder: str, mountpoint: str, cache_bytes: int, foreground: bool) -> None:
    """Mount a folder and answer until it is unmounted; see `mrcz.mount.mount` for what it takes and raises."""
    try:
        import mfusepy
    except ImportError as error:
        raise MissingDependencyError(f"mounting needs mfusepy ({error}): pip install 'mrcz[mount]'") from error
    except OSError as error:
        raise MissingDependencyError(f"mounting needs the FUSE library ({error}): install macFUSE") from error
    tree = Tree(folder, cache_bytes)
    tree.mountpoint = mountpoint
    options: dict[str, Any] = {}
    if mfusepy.fuse_version_major == 3:
        # Its own number of idle threads is one that libfuse complains of.
        options |= {"max_threads": _THREADS, "max_idle_threads": _THREADS}
    # libfuse unmounts on these signals where nobody else handles them; Python's handlers could not run meanwhile.
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                handlers[name] = signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        with unmounted_at_the_end(mountpoint):
            _fuse_class(mfusepy)(
                tree,
                mountpoint,
                foreground=foreground,
                ro=True,
                fsname="mrcz",
                subtype="mrcz",
                attr_timeout=0,
                **options,
            )
    except RuntimeError as error:
        if error.args == (_ENDED_BY_SIGNAL,):
            return
        raise MrczError(f"the system refused to mount (FUSE error {error}); is {mountpoint} in use?") from None
    finally:
        for name, handler in handlers.items():
            signal.signal(getattr(signal, name), handler)
        tree.close()
