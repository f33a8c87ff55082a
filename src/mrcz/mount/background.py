"""Processes beside the one that serves a mount: the one in the background, and the one that unmounts should it die."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mrcz.errors import MrczError

__all__ = ["in_background", "unmounted_at_the_end"]


@contextmanager
def unmounted_at_the_end(mountpoint: str) -> Iterator[None]:
    """Have it unmounted should this process be killed meanwhile (Linux).

    fusermount3's own auto_unmount looks once whether the mount is dead. A killed process closes its socket to
    fusermount3 and its mount one after the other; one look in between, and a dead mount is left behind.
    """
    program = shutil.which("fusermount3") or shutil.which("fusermount")
    if program is None or not sys.platform.startswith("linux"):
        yield
        return
    # It waits for the end of a pipe, which comes with the end of this process, or for a line: all went well. In a
    # session of its own, so that Ctrl-C does not end it first.
    watcher = subprocess.Popen(
        ["/bin/sh", "-c", 'read -r line || exec "$0" -u -q -z -- "$1"', program, mountpoint],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    try:
        yield
    finally:
        with suppress(OSError):
            watcher.communicate(b"\n")


def in_background(serve: Callable[[Callable[[], None]], None]) -> None:
    """Call ``serve(ready)`` in a process of its own; returns when that calls ``ready()``, or raises what it raises."""
    receive, send = os.pipe()
    child = _fork()
    if child:
        os.close(send)
        os.waitpid(child, 0)
        with open(receive, "rb") as back:
            said = back.read()
        error = pickle.loads(said) if said else MrczError("the process in the background ended before it had mounted")
        if error is not None:
            raise error
        return
    try:
        os.setsid()
        # Twice: nobody has to wait for the end of a process whose parent has ended.
        if _fork() == 0:
            os.close(receive)
            pipe = open(send, "wb", buffering=0)

            def ready() -> None:
                pipe.write(pickle.dumps(None))
                pipe.close()
                null = os.open(os.devnull, os.O_RDWR)
                for stream in range(3):
                    os.dup2(null, stream)
                os.chdir("/")

            try:
                serve(ready)
            except BaseException as error:
                if not pipe.closed:
                    pipe.write(pickle.dumps(error))
    finally:
        os._exit(0)


def _fork() -> int:
    with warnings.catch_warnings():
        # Of threads that are not in the new process: those of NumPy's BLAS, which knows what to do.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()
