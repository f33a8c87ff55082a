"""Where an archive lies: a folder, or a prefix of an object store, behind the few questions that are asked of it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from mrcz.archive.record import check_relative
from mrcz.storage.disk import CLOEXEC, NONBLOCK
from mrcz.storage.whole import make_folders, whole_file

__all__ = ["Folder", "LinkError", "Place", "refuse_links"]


class LinkError(FileNotFoundError):
    """A symbolic link is where a file of an archive, or a folder on the way to it, is to be: what it leads to is none
    of the archive's."""


def refuse_links(root: str | os.PathLike[str], path: str) -> None:
    """Refuse a path below a folder on which a symbolic link lies.

    Raises
    ------
    LinkError
    """
    here = os.fspath(root)
    for part in path.split("/"):
        here = os.path.join(here, part)
        try:
            mode = os.lstat(here).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return
        if stat.S_ISLNK(mode):
            raise LinkError(errno.ENOENT, "is a symbolic link, and links in an archive are not followed", here)


class Place(Protocol):
    """The files of an archive by their paths below it, ``/`` between the parts."""

    name: str

    def size(self, path: str) -> int:
        """Bytes of a file; FileNotFoundError where there is none."""
        ...

    def open(self, path: str) -> BinaryIO:
        """A file from its beginning on, to be read once, for instance to be hashed."""
        ...

    def local(self, path: str) -> contextlib.AbstractContextManager[str]:
        """A file as one of this machine while the block lasts, fetched where it is not."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Make a small file (of a bag), whole or not at all; what stands there is replaced."""
        ...

    def write_from(self, path: str, file: BinaryIO) -> None:
        """As `write`, with what an open file of this machine holds from where it stands: for what is not small."""
        ...

    def remove(self, path: str) -> None:
        """Take a file away that is there."""
        ...

    def files(self, below: str = "") -> Iterator[str]:
        """Paths of all files below a folder at any depth, in no order; none where there is no such folder."""
        ...


class Folder:
    """An archive in a folder. Symbolic links in it are not followed (LinkError): they lead to what is none of it."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(os.path.abspath(root))
        self.name = str(self.root)
        self._looked = ""

    def at(self, path: str) -> Path:
        """Where a file lies. Paths come from a journal, and lead nowhere else."""
        check_relative(path)
        folder, _, name = path.rpartition("/")
        if folder != self._looked:  # of a million files, the folders of most were just looked at
            refuse_links(self.root, folder)
            self._looked = folder
        place = self.root / path
        refuse_links(place.parent, name)
        return place

    def size(self, path: str) -> int:
        status = os.stat(self.at(path))
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(errno.ENOENT, "no file is there", str(self.at(path)))
        return status.st_size

    def open(self, path: str) -> BinaryIO:
        # A FIFO in the place of a file would be waited for.
        fd = os.open(self.at(path), os.O_RDONLY | NONBLOCK | CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise FileNotFoundError(errno.ENOENT, "no file is there", str(self.at(path)))
            return os.fdopen(fd, "rb")
        except BaseException:
            os.close(fd)
            raise

    @contextlib.contextmanager
    def local(self, path: str) -> Iterator[str]:
        yield str(self.at(path))

    def write(self, path: str, data: bytes) -> None:
        place = self.at(path)
        make_folders(place.parent)
        with whole_file(place, overwrite=True) as file:
            file.write(data)

    def write_from(self, path: str, file: BinaryIO) -> None:
        place = self.at(path)
        make_folders(place.parent)
        with whole_file(place, overwrite=True) as new:
            shutil.copyfileobj(file, new, 1 << 18)

    def remove(self, path: str) -> None:
        folder, _, name = path.rpartition("/")
        check_relative(path)
        os.unlink((self.at(folder) if folder else self.root) / name)  # a link itself may go

    def files(self, below: str = "") -> Iterator[str]:
        pending = [below]
        while pending:
            folder = pending.pop()
            try:
                entries = os.scandir(self.at(folder) if folder else self.root)
            except FileNotFoundError:  # gone meanwhile, or never there
                continue
            with entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(path)
                    else:
                        yield path
