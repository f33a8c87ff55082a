"""One command of the user's that hears how a run of the archive ended: the way to e-mail, chat and monitoring.

The command gets the summary as JSON on its standard input, and a few words in its environment. Nothing that comes from
a file, its name least of all, becomes part of the command: it is what the user wrote, and the same each time.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import IO, Any

from mrcz.archive.words import plain
from mrcz.errors import printable, system_error

__all__ = ["EVENTS", "TIMEOUT", "run_hook"]

#: What a hook hears of: all is in the archive; the run ended and some is not; it could not go on; somebody ended it.
EVENTS = ("finished", "incomplete", "failed", "interrupted")

TIMEOUT = 60.0  # seconds
_TAIL = 2000  # bytes of what it printed that are kept
_GRACE = 2.0  # seconds from asking it to end to ending it


def run_hook(
    command: str,
    event: str,
    archive: str,
    summary: Mapping[str, Any],
    *,
    subject: str = "",
    timeout: float = TIMEOUT,
) -> str | None:
    """Run a hook and wait for it.

    It is given to the shell as it stands (on Windows to the system, without a shell). Its environment has, beside ours:

    ``MRCZ_EVENT``
        One of `EVENTS`.
    ``MRCZ_ARCHIVE``
        Where the archive lies.
    ``MRCZ_SUBJECT``
        One line that says what happened, made printable: fit for the subject of a mail.
    ``MRCZ_STORED``, ``MRCZ_FAILED``, ``MRCZ_REFUSED``
        Numbers of files, where the summary has them.

    Parameters
    ----------
    command : str
    event : str
    archive : str
    summary : mapping
        As `Summary.asdict` or the numbers of a run give it; made what every reader of JSON takes.
    subject : str
        Default: event and archive.
    timeout : float
        Seconds; then it and all it started are ended.

    Returns
    -------
    str or None
        What went wrong, as one line; None if it ended with 0. A hook that fails is no reason for anything else to fail,
        so nothing is raised but what ends this process.
    """
    if event not in EVENTS:
        raise ValueError(f"event is {event!r}, expected one of {', '.join(EVENTS)}")
    environ = dict(os.environ)
    environ["MRCZ_EVENT"] = event
    environ["MRCZ_ARCHIVE"] = archive.replace("\0", "")
    environ["MRCZ_SUBJECT"] = printable(subject or f"mrcz archive {archive}: {event}")[:500]
    for name in ("stored", "failed", "refused"):
        environ.pop(f"MRCZ_{name.upper()}", None)
        if isinstance(summary.get(name), int):
            environ[f"MRCZ_{name.upper()}"] = str(summary[name])
    whole = plain({"event": event, "archive": archive, **summary})
    try:
        with tempfile.TemporaryFile() as file:  # no pipe: a hook need not read it
            file.write(json.dumps(whole, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n")
            file.seek(0)
            return _run(command, environ, file, timeout)
    except OSError as error:
        return f"the hook could not be run: {printable(system_error(error))}"
    except ValueError as error:  # a command that no system takes: with NUL in it
        return f"the hook could not be run: {printable(error)}"


def _run(command: str, environ: dict[str, str], file: IO[bytes], timeout: float) -> str | None:
    # A session of its own: a Ctrl-C is for us, and what the hook started can be ended with it.
    process = subprocess.Popen(
        command,
        shell=os.name != "nt",
        env=environ,
        stdin=file,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    said = bytearray()
    reader = threading.Thread(target=_read, args=(process.stdout, said), daemon=True)
    reader.start()
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        _end(process)
        return f"the hook was ended after {timeout:g} s{_said(said)}"
    except BaseException:
        _end(process)
        raise
    reader.join(0.5)  # what it left running in the background may hold its output open for hours
    if code == 0:
        return None
    how = f"ended with {code}" if code > 0 else f"was ended by signal {-code}"
    return f"the hook {how}{_said(said)}"


def _read(stream: IO[bytes], said: bytearray) -> None:
    """Take what it prints, however much, and keep the last of it."""
    with contextlib.suppress(OSError, ValueError):
        while data := os.read(stream.fileno(), 65536):
            said += data
            del said[:-_TAIL]
    stream.close()


def _said(said: bytearray) -> str:
    lines = bytes(said).decode("utf-8", "surrogateescape").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f": {printable(last[-300:])}" if last else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a hook and what it started."""
    if not hasattr(os, "killpg"):
        process.kill()
        process.wait()
        return
    for signum, wait in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, None)):
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
            if signum == signal.SIGTERM:  # the shell is gone; its children may need another moment
                time.sleep(0.05)
