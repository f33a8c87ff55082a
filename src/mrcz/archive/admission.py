"""Which processes of a cluster may take part in an archive: those with this version that see both of its folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from mrcz._version import __version__

__all__ = ["admission", "checker", "sample_of"]


def sample_of(top: Any) -> list[tuple[str, bool]]:
    """Some names in the source, by which a worker knows it: folders first, they stay longest."""
    if top is None:
        return []
    found = []
    with os.scandir(top) as entries:
        for entry in entries:
            found.append((entry.name, entry.is_dir(follow_symlinks=False)))
            if len(found) == 1000:
                break
    return sorted(found, key=lambda one: (not one[1], one[0]))[:16]


def checker(mark: str, top: str | None, sample: list[tuple[str, bool]], folder: str | None) -> Callable[[], str]:
    """A function that says what is wrong with a worker, or nothing. It is one of a function, because such are sent
    whole: a worker without mrcz has to be able to say so."""
    version = __version__
    identity = os.stat(top).st_ino if top is not None else 0

    def check() -> str:
        import os
        import secrets
        import socket

        here = f"worker on {socket.gethostname()} (process {os.getpid()})"
        try:
            from mrcz._version import __version__ as found
        except Exception as error:
            return f"{here}: mrcz {version} is needed, and cannot be imported there ({error})"
        if found != version:
            return f"{here}: has mrcz {found}, and {version} is needed"
        if top is not None:
            if not os.path.isdir(top):
                return f"{here}: does not see the source {top}"
            known = not sample or any(os.path.lexists(os.path.join(top, name)) for name, _ in sample)
            if not known and os.stat(top).st_ino != identity:  # all of it may have been removed since
                return f"{here}: another folder is called {top} there, with nothing of the source in it"
        if folder is not None:
            probe = os.path.join(folder, f".{mark}.probe")
            try:
                with open(probe, encoding="ascii") as file:
                    same = file.read() == mark
            except OSError as error:
                return f"{here}: does not see the archive, {os.path.dirname(folder)} ({error.strerror})"
            if not same:
                return f"{here}: another folder is called {os.path.dirname(folder)} there"
            mine = f"{probe}.{secrets.token_hex(4)}"
            try:
                os.close(os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
                os.unlink(mine)
            except OSError as error:
                return f"{here}: cannot write to the archive, {os.path.dirname(folder)} ({error.strerror})"
        return ""

    return check


def admission(check: Callable[[], str], topic: str) -> Any:
    """Makes each worker that joins look at itself, and leave if it cannot help."""
    from distributed import WorkerPlugin

    class Admission(WorkerPlugin):
        async def setup(self, worker: Any) -> None:
            import asyncio

            wrong = check()
            if wrong:
                worker.log_event(topic, {"refused": wrong})
                await asyncio.sleep(0.5)  # or the word is lost with the connection
                await worker.close(executor_wait=False, reason=wrong)

    return Admission()
