"""One file to archive, as plain data that can be sent to another machine."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Options", "Task"]


@dataclass(frozen=True)
class Options:
    """How files are stored.

    Attributes
    ----------
    to : str or None
        None: each in the smallest form that gives it back bit for bit. ``"copy"``: all byte by byte. ``"mrcz"``: also
        the movies of other formats, as pixels and what they say of themselves.
    integers : bool
        Look for counts in movies of floats.
    pack : bool
        4 bits a pixel where all pixels are below 16; only this program reads that.
    profile : str
        ``"fast"``, ``"balanced"`` or ``"small"``.
    n_threads : int or None
        Of each file.
    read_rate, write_rate : float
        Bytes a second that one worker may read and write; 0: as fast as it goes.
    nice : int
        Added to the niceness of worker processes.
    """

    to: str | None = None
    integers: bool = True
    pack: bool = False
    profile: str = "balanced"
    n_threads: int | None = 1
    read_rate: float = 0.0
    write_rate: float = 0.0
    nice: int = 0


@dataclass(frozen=True)
class Task:
    """One file to store: what is known before it is opened.

    Attributes
    ----------
    top : str
        The source folder, absolute.
    source : str
        Path below it.
    root : str
        Where the archive grows: a folder of this machine, or of all workers.
    session : str
    path : str
        Where it is to lie below the archive if it is copied.
    packed_path : str
        Where it is to lie if it is compressed; empty where disks would not take that name, and it is copied.
    size, mtime_ns : int
        As they were when the file was found.
    changed : bool
        An older version of it is in the archive, and is replaced.
    options : Options
    run : str
    """

    top: str
    source: str
    root: str
    session: str
    path: str
    packed_path: str
    size: int
    mtime_ns: int
    changed: bool = False
    options: Options = Options()
    run: str = ""
