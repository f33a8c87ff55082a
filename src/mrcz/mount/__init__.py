"""Compressed files as plain ones, for programs that know only MRC: a read-only FUSE file system, decoded on demand.

Below the mount point lies the tree of a folder, with ``movie.mrcz`` shown as ``movie.mrc`` or ``movie.mrcs``: the name
it had before it was compressed, if it says so, else ``.mrcs`` for a stack and ``.mrc`` for anything else. Other files
are there as they are. Nothing is unpacked to disk; frames are decoded when they are read, in a cache of bounded size.

On Linux `mrcz.mount.fuse` carries the answers to the kernel; elsewhere mfusepy does, through libfuse.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from mrcz.mount import libfuse
from mrcz.mount.background import in_background, unmounted_at_the_end
from mrcz.mount.tree import Tree

__all__ = ["mount"]


def mount(
    folder: str | os.PathLike[str],
    mountpoint: str | os.PathLike[str],
    *,
    cache_bytes: int = 512 << 20,
    page_cache: bool = False,
    foreground: bool = True,
    _libfuse: bool = not sys.platform.startswith("linux"),
) -> None:
    """Show *folder* at *mountpoint*, with every compressed file below it as a plain one; returns when unmounted.

    Parameters
    ----------
    folder : path
    mountpoint : path
        An empty folder.
    cache_bytes : int
        Most bytes of decoded frames to keep.
    page_cache : bool
        Have the kernel keep what was read. It takes longer the first time; reading again, or in pieces below 64 KiB, is
        several times as fast. Always so where not Linux, and before Linux 6.6.
    foreground : bool
        Stay until unmounted (``fusermount3 -u``, Ctrl-C); else return when the mount stands, which a process in the
        background then serves.

    Raises
    ------
    MissingDependencyError
        /dev/fuse or fusermount3 is missing; where not Linux, mfusepy or the FUSE library. The message says which.
    MrczError
        The system refused to mount.
    NotADirectoryError
        One of the two is no folder.
    OSError
        The mount point is not empty.
    """
    for name in (folder, mountpoint):
        if not os.path.isdir(name):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(name))
    if os.listdir(mountpoint):
        # What is there would be out of reach meanwhile: of a mount over /proc or /home the system suffers.
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), os.fspath(mountpoint))
    folder, mountpoint = os.path.abspath(os.fspath(folder)), os.path.realpath(os.fspath(mountpoint))
    if _libfuse:
        libfuse.serve(folder, mountpoint, cache_bytes, foreground)
    elif foreground:
        _serve(folder, mountpoint, cache_bytes, page_cache)
    else:
        in_background(lambda ready: _serve(folder, mountpoint, cache_bytes, page_cache, ready))


def _serve(
    folder: str, mountpoint: str, cache_bytes: int, page_cache: bool, ready: Callable[[], None] | None = None
) -> None:
    from mrcz.mount import fuse

    tree = Tree(folder, cache_bytes)
    tree.mountpoint = mountpoint

    def mounted() -> None:
        tree.init("/")
        if ready is not None:
            ready()

    try:
        with unmounted_at_the_end(mountpoint):
            fuse.serve(tree, mountpoint, mounted, page_cache=page_cache)
    finally:
        tree.close()
