"""An archive in an object store: ``s3://bucket/prefix``, or any other place that fsspec knows.

Nothing here trusts the store: what goes up is read back and hashed by whoever sent it (`mrcz.archive.uploading`). S3 is
spoken to in its own calls, so that an upload in parts can be given up, found again and taken away; other stores are
given whole files.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

from mrcz.archive.record import check_relative
from mrcz.errors import FormatError, MissingDependencyError, MrczError, RemoteError

__all__ = ["ObjectStore", "is_left_behind"]

_PASSWORD = re.compile(r"(://[^/@:]*:)[^/@]*@")
_PART = 16 << 20  # bytes of a part, of which a worker holds one; S3 takes 5 MiB to 5 GiB
_PARTS = 9000  # S3 takes 10 000
_LONGEST_KEY = 1024  # bytes, S3
_BLOCK = 4 << 20
_BELIEVED = 60.0  # seconds
_FOLDERS = 4  # listings that are kept
_PAUSES = (0.5, 2.0, 8.0)  # seconds before a request is sent again; fsspec and what is below it have tried by then

_FINAL = {errno.EINVAL, errno.ENAMETOOLONG, errno.EPERM, errno.EACCES, errno.ENOSYS, getattr(errno, "EMSGSIZE", 0)}


class ObjectStore:
    """A `mrcz.archive.place.Place` at a URL. It can be sent to other processes, with its options: keys are in them.

    Parameters
    ----------
    url : str
        ``s3://bucket/prefix``, and what else fsspec takes.
    options : dict, optional
        Storage options of the file system: keys, endpoints.
    folder : path, optional
        Where files are fetched to (`local`); by default the system's folder for temporary ones.
    pauses : tuple of float
        Seconds before a request that failed is sent again, each time.

    Attributes
    ----------
    url, name : str
        Without a slash at the end; the name also without a password that stands in it.

    Raises
    ------
    MissingDependencyError
        fsspec, or the package it needs for this protocol, is not installed.
    MrczError
        No such URL.
    """

    def __init__(
        self,
        url: str,
        options: dict[str, Any] | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
        pauses: tuple[float, ...] = _PAUSES,
    ) -> None:
        protocol, mark, rest = url.partition("://")
        if not (mark and rest.strip("/")):
            raise MrczError("names no bucket, or no place in one" if mark else "is no URL", path=url)
        self.url = f"{protocol}://{rest.rstrip('/')}"
        self.name = _PASSWORD.sub(r"\1***@", self.url)
        self.folder, self.pauses = folder, pauses
        self._options = dict(options or {})
        self._files: Any = None
        self._base = ""
        self._process = 0
        self._listed: dict[str, tuple[float, dict[str, Any]]] = {}
        self._connect()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": None, "_process": 0, "_listed": {}}

    def _connect(self) -> Any:
        """The file system; another one after a fork, which its threads do not survive."""
        if self._process != os.getpid():
            options = copy.deepcopy(self._options)  # botocore writes into what it is given
            if self._process:
                options["skip_instance_cache"] = True
            if self.url.startswith(("s3://", "s3a://", "gs://", "gcs://")):
                options.setdefault("use_listings_cache", False)  # others write there, too
            try:
                import fsspec

                self._files, self._base = fsspec.core.url_to_fs(self.url, **options)
            except ImportError as error:
                text = f"this URL needs another package ({error}): pip install 'mrcz[remote]' s3fs"
                raise MissingDependencyError(text, path=self.name) from error
            except (ValueError, TypeError) as error:
                raise MrczError(f"is no URL of a store that can be had ({error})", path=self.name) from error
            protocol = self._files.protocol
            names = (protocol,) if isinstance(protocol, str) else tuple(protocol)
            self._s3, self._disk = "s3" in names, "file" in names
            self._process = os.getpid()
        return self._files

    # ---- names -------------------------------------------------------------------------------------------------------

    def key(self, path: str) -> str:
        """Where a file lies, as fsspec takes it.

        Raises
        ------
        FormatError
            The path leads elsewhere, or is no name that the store takes.
        """
        check_relative(path)
        wrong = self.unfit(path)
        if wrong:
            raise FormatError(f"{path!r}: {wrong}", path=self.name)
        self._connect()
        return f"{self._base}/{path}"

    def unfit(self, path: str) -> str:
        """Why the store takes no file of this name; empty if it does."""
        try:
            key = path.encode()
        except UnicodeEncodeError:
            return "an object store takes names of UTF-8 only"
        self._connect()
        if not self._s3:
            return ""
        length = len(key) + len(self._base.partition("/")[2].encode()) + 1
        if length > _LONGEST_KEY:
            return f"the key would have {length} bytes, and S3 takes {_LONGEST_KEY}"
        if "?versionId=" in path:
            return "what follows ?versionId= would be taken for a version"
        if any(ord(letter) < 32 for letter in path):
            return "not all object stores take control characters in names"
        return ""

    # ---- Place -------------------------------------------------------------------------------------------------------

    def size(self, path: str) -> int:
        """Bytes of a file; FileNotFoundError where there is none."""
        key = self.key(path)
        found = self._asked(lambda: self._connect().info(key), path)
        if found.get("type") != "file" or found.get("size") is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.name}/{path}")
        return int(found["size"])

    def look(self, path: str) -> int:
        """`size` for somebody who asks for one file after the other: a folder is listed once, and the listing believed
        for a minute. A request for each of a million files would take hours."""
        folder, _, name = self.key(path).rpartition("/")
        listed = self._listed.get(folder)
        if listed is None or time.monotonic() - listed[0] > _BELIEVED:
            try:
                found = self._asked(lambda: self._connect().ls(folder, detail=True), path)
            except FileNotFoundError:
                found = []
            sizes = {one["name"].rpartition("/")[2]: one["size"] for one in found if one.get("type") == "file"}
            while len(self._listed) >= _FOLDERS:
                del self._listed[next(iter(self._listed))]
            listed = self._listed[folder] = time.monotonic(), sizes
        if listed[1].get(name) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.name}/{path}")
        return int(listed[1][name])

    def open(self, path: str) -> BinaryIO:
        """A file from its beginning on."""
        key = self.key(path)
        how: dict[str, Any] = {} if self._disk else {"block_size": _BLOCK, "cache_type": "readahead"}
        return cast(BinaryIO, self._asked(lambda: self._connect().open(key, "rb", **how), path))

    @contextlib.contextmanager
    def local(self, path: str) -> Iterator[str]:
        """A copy of a file on this machine, while the block lasts."""
        key = self.key(path)
        with tempfile.TemporaryDirectory(prefix="mrcz-", dir=self.folder) as folder:
            place = os.path.join(folder, path.rsplit("/", 1)[-1])
            self._asked(lambda: self._connect().get_file(key, place), path)
            yield place

    def write(self, path: str, data: bytes) -> None:
        """Make a small file; what stands there is replaced."""
        key = self.key(path)
        self._make_folder(key)
        self._asked(lambda: self._connect().pipe_file(key, data), path)

    def write_from(self, path: str, file: BinaryIO) -> None:
        """As `write`, with what an open file holds from where it stands."""
        with tempfile.TemporaryDirectory(prefix="mrcz-", dir=self.folder) as folder:
            copy = os.path.join(folder, "file")
            with open(copy, "wb") as new:
                shutil.copyfileobj(file, new, 1 << 18)
            self.upload(copy, path)

    def files(self, below: str = "") -> Iterator[str]:
        """Paths of all files below a folder; none where there is no such folder."""
        self._connect()
        top = f"{self._base}/{below}" if below else self._base
        try:
            for folder, _, names in self._connect().walk(top, on_error="raise"):
                inside = folder[len(self._base) :].strip("/")
                for name in names:
                    if name:
                        yield f"{inside}/{name}" if inside else name
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._error(error, below) from error

    def remove(self, path: str) -> None:
        """Take a file away that is there."""
        key = self.key(path)
        self.size(path)  # S3 says nothing of what is not there
        self._asked(lambda: self._connect().rm_file(key), path)

    # ---- more --------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Write, read and remove a small file.

        Raises
        ------
        MrczError
            That cannot be done.
        """
        path, data = f"mrcz-archive/probe-{secrets.token_hex(6)}", secrets.token_bytes(64)
        try:
            self.write(path, data)
            with self.open(path) as file:
                same = file.read() == data
            self.remove(path)
        except FileNotFoundError as error:
            raise MrczError("there is no such bucket", path=self.name) from error
        except PermissionError as error:
            raise MrczError(f"is not for us to write and read ({error})", path=self.name) from error
        except OSError as error:
            raise MrczError(f"cannot be written and read ({error})", path=self.name) from error
        if not same:
            raise MrczError("gives back other bytes than it was given", path=self.name)

    def sha256(self, path: str, told: Callable[[int], None] = lambda nbytes: None) -> tuple[str, int]:
        """SHA-256 and bytes of a file, as the store gives them back; ``told(nbytes)`` of each block."""
        for pause in (*self.pauses, None):
            digest, total = hashlib.sha256(), 0
            try:
                with self.open(path) as file:
                    while block := file.read(_BLOCK):
                        digest.update(block)
                        total += len(block)
                        told(len(block))
                return digest.hexdigest(), total
            except Exception as error:
                if pause is None or not _passes(error):
                    raise self._error(error, path) from error
                time.sleep(pause)
        raise AssertionError

    def upload(
        self,
        source: str | os.PathLike[str],
        path: str,
        told: Callable[[int], None] = lambda nbytes: None,
        notes: str | os.PathLike[str] | None = None,
    ) -> None:
        """Send a file; it is there as a whole, or not at all (other stores than S3: as good as they are).

        Parameters
        ----------
        source : path
        path : str
        told : callable
            Called with the bytes that are sent, block by block; what it raises ends the upload.
        notes : path, optional
            A folder in which is written down what is under way, so that `forget` finds it if this process is killed.
        """
        key = self.key(path)
        if not self._s3:
            self._make_folder(key)
            self._asked(lambda: self._connect().put_file(os.fspath(source), key), path)
            told(os.path.getsize(source))
            return
        bucket, _, name = key.partition("/")
        with open(source, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= _PART:
                data = file.read(_PART + 1)
                self._call("put_object", path, Bucket=bucket, Key=name, Body=data)
                told(len(data))
            else:
                self._in_parts(file, size, bucket, name, path, told, notes)

    def _in_parts(
        self, file: BinaryIO, size: int, bucket: str, name: str, path: str, told: Callable[[int], None], notes: Any
    ) -> None:
        part = max(_PART, -(-size // _PARTS))
        upload = self._call("create_multipart_upload", path, Bucket=bucket, Key=name)["UploadId"]
        note = None
        what = {"Bucket": bucket, "Key": name, "UploadId": upload}
        try:
            if notes is not None:
                os.makedirs(notes, exist_ok=True)
                note = Path(notes) / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.upload"
                note.write_text(f"{upload}\n{path}", encoding="utf-8")
            parts: list[dict[str, Any]] = []
            while data := file.read(part):
                answer = self._call("upload_part", path, PartNumber=len(parts) + 1, Body=data, **what)
                parts.append({"PartNumber": len(parts) + 1, "ETag": answer["ETag"]})
                told(len(data))
            try:
                self._call("complete_multipart_upload", path, MultipartUpload={"Parts": parts}, **what)
            except FileNotFoundError:
                # An answer was lost, and the call that was sent again finds no upload: it is complete, or was aborted.
                if self.size(path) != size:
                    raise
        except BaseException:
            with contextlib.suppress(Exception):
                self._call("abort_multipart_upload", path, **what)
            raise
        finally:
            if note is not None:
                with contextlib.suppress(OSError):
                    note.unlink()

    def unfinished(self, older_than: float = 0.0) -> list[tuple[str, str]]:
        """(key, id) of the uploads in parts below this URL that nobody finished, begun more than so many seconds ago.
        They take space, and no listing shows them."""
        self._connect()
        if not self._s3:
            return []
        bucket, _, prefix = self._base.partition("/")
        found: list[tuple[str, str]] = []
        where: dict[str, Any] = {}
        before = datetime.now(UTC) - timedelta(seconds=older_than)  # servers round theirs up
        while True:
            answer = self._call(
                "list_multipart_uploads", "", Bucket=bucket, Prefix=f"{prefix}/" if prefix else "", **where
            )
            for one in answer.get("Uploads") or ():
                begun = one.get("Initiated")
                if not older_than or (isinstance(begun, datetime) and begun.astimezone(UTC) <= before):
                    found.append((one["Key"], one["UploadId"]))
            later = {"KeyMarker": answer.get("NextKeyMarker"), "UploadIdMarker": answer.get("NextUploadIdMarker")}
            later = {name: value for name, value in later.items() if value}
            if not answer.get("IsTruncated") or not later or later == where:
                return found
            where = later

    def abort(self, uploads: list[tuple[str, str]]) -> int:
        """Take such uploads away; how many were."""
        bucket = self._base.partition("/")[0]
        done = 0
        for key, upload in uploads:
            with contextlib.suppress(FileNotFoundError):
                self._call("abort_multipart_upload", key, Bucket=bucket, Key=key, UploadId=upload)
                done += 1
        return done

    def forget(self, notes: str | os.PathLike[str]) -> int:
        """Take away the uploads in parts that processes of this machine noted down in a folder, and that are gone."""
        done = 0
        for note in Path(notes).glob("*.upload"):
            if not is_left_behind(note.name):
                continue
            upload, _, path = note.read_text(encoding="utf-8", errors="replace").partition("\n")
            with contextlib.suppress(OSError, MrczError):
                done += self.abort([(self.key(path).partition("/")[2], upload)])
                note.unlink()
        return done

    # ---- requests ----------------------------------------------------------------------------------------------------

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        return self._asked(lambda: self._connect().call_s3(method, **arguments), path)

    def _make_folder(self, key: str) -> None:
        if self._disk:
            os.makedirs(os.path.dirname(key), exist_ok=True)

    def _asked(self, request: Callable[[], Any], path: str) -> Any:
        """What the store answers; a request that may go through later is sent again."""
        for pause in (*self.pauses, None):
            try:
                return request()
            except Exception as error:
                if pause is None or not _passes(error):
                    raise self._error(error, path) from error
                time.sleep(pause)
        raise AssertionError

    def _error(self, error: Exception, path: str) -> Exception:
        """An error that names the file, and is one of ours or the system's."""
        if isinstance(error, MrczError):
            return error
        place = f"{self.name}/{path}" if path else self.name
        text = str(error).strip().split("\n")[0] or type(error).__name__
        if isinstance(error, FileNotFoundError):
            return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place)
        if isinstance(error, PermissionError):
            return PermissionError(errno.EACCES, text, place)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            return error
        return RemoteError(f"{type(error).__name__}: {text}", path=place)


def is_left_behind(name: str) -> bool:
    """Whether a name of the form ``HOST-PROCESS-…`` is of a process of this machine that is no more."""
    host, process = re.escape(socket.gethostname()), r"-(\d{1,9})(?![0-9])"
    found = re.match(host + process, name)
    if found is None or os.name == "nt":  # where asking for a process would end it
        return False
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _passes(error: Exception) -> bool:
    """Whether the same request may go through later."""
    if isinstance(error, (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)):
        return False
    if isinstance(error, RemoteError):
        return False  # it was tried again already
    if isinstance(error, OSError):
        return error.errno not in _FINAL and error.errno not in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    if type(error).__module__.startswith(("botocore", "aiobotocore", "aiohttp", "urllib3", "requests")):
        return "Credential" not in type(error).__name__ and "Validation" not in type(error).__name__
    return isinstance(error, EOFError)
