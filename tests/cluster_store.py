"""What other processes of the tests run, in a module of its own because they import it: a store that copies, slowly,
and says who is in the middle of what, and an upload."""

import hashlib
import os
import signal
import socket
import time
from pathlib import Path

from mrcz.archive.record import Record
from mrcz.archive.task import Task
from mrcz.storage.whole import NewFile, make_folders

STEP = 4096


def store(task, progress=None, flow=None):
    """Copy a file, whole or not at all. Names say what else is to happen."""
    source, target = Path(task.top) / task.source, Path(task.root) / task.path
    marks = Path(task.top).parent / "marks"
    mark = marks / f"{os.getpid()}-{target.name}"
    if source.name.startswith("poison"):
        os.kill(os.getpid(), signal.SIGKILL)
    if source.name.startswith("raises"):
        raise ValueError("a fault of the program")
    if source.name.startswith("stranger"):
        return Record("stored", "another file")
    make_folders(target.parent)
    digest, done = hashlib.sha256(), 0
    new = NewFile(target, overwrite=True, alone=False)
    try:
        with open(source, "rb") as file:
            while data := file.read(STEP):
                os.pwrite(new.fd, data, done)
                digest.update(data)
                done += len(data)
                if marks.is_dir():
                    mark.touch()
                    time.sleep(0.02)
                if progress is not None:
                    progress(done, task.size)
        new.publish()
    finally:
        new.abort()
        mark.unlink(missing_ok=True)
    return Record(
        "stored",
        task.source,
        session=task.session,
        path=task.path,
        form="copy",
        restores="file",
        source_bytes=done,
        stored_bytes=done,
        sha256_source=digest.hexdigest(),
        sha256_stored=digest.hexdigest(),
        worker=f"{socket.gethostname()}:{os.getpid()}",
        notes=() if flow is None else (str(flow),),
    )


def flow(options):
    return f"{options.read_rate:g} bytes a second in {os.getpid()}"


def task_of(folder, name="movie.tif", size=20_000, root=None):
    """A file and its task."""
    path = folder / "source" / "grid" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    block = hashlib.sha256(name.encode()).digest()
    path.write_bytes((block * (size // 32 + 1))[:size])
    status = path.stat()
    return Task(
        str(folder / "source"),
        f"grid/{name}",
        str(root or folder / "staging"),
        "grid",
        f"grid/data/{name}",
        "",
        status.st_size,
        status.st_mtime_ns,
        run="r1",
    )


def upload_slowly(place, path, notes):
    """Upload a file as ``big.eer`` in parts of 5 MiB, with time between them to be killed in."""
    import mrcz.archive.objects

    mrcz.archive.objects._PART = 5 << 20
    place.upload(path, "big.eer", lambda nbytes: time.sleep(0.3), notes)
