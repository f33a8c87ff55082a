"""Small archives, made as the driver makes them: real files, their records, a journal."""

import contextlib
import hashlib
import io
import os
import tempfile
from pathlib import Path

import numpy as np

import mrcz
from mrcz.archive.journal import FOLDER, JOURNAL, Journal
from mrcz.archive.names import safe_path
from mrcz.archive.record import Record
from mrcz.container.names import compressed_name
from mrcz.convert.copy import compress

TIME = "2026-11-27T10:00:00.000+00:00"

ODD_NAMES = [
    "with space.txt",
    " leading.txt",
    "trailing ",
    "ärger 漢字.txt",
    "100%.txt",
    "a%25b.txt",
    "a%0Ab.txt",
    "line\nbreak.txt",
    "carriage\rreturn.txt",
    "ends\r",
    "nel\x85sep\u2028.txt",
    "back\\slash.txt",
    "*star.txt",
    "-dash.txt",
    "#hash.txt",
    "tab\tin.txt",
    "tab end\t",
    "not utf8 \udcff\udcfe.txt",
    "escape\x1b[31m.txt",
    "nbsp end\u00a0",
]


def sha256(data):
    """Of bytes or of a file."""
    return hashlib.sha256(data if isinstance(data, bytes) else Path(data).read_bytes()).hexdigest()


def movie(rng, shape=(4, 24, 32), dtype=np.uint8):
    """Counts."""
    return rng.poisson(2, shape).astype(dtype)


class Made:
    """A source tree and its archive, a file at a time."""

    def __init__(self, top):
        self.source, self.root = Path(top) / "src", Path(top) / "dst"
        self.source.mkdir(parents=True)
        (self.root / FOLDER).mkdir(parents=True)
        self.journal = Journal(self.root, write=True)

    def close(self):
        self.journal.close()

    @property
    def lines(self):
        return self.root / FOLDER / JOURNAL

    def file(self, source, data):
        """A file of the tree."""
        path = self.source / source
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if isinstance(data, np.ndarray):
            mrcz.write(path, data, codec="none")
        else:
            path.write_bytes(data)
        os.utime(path, ns=(1_764_000_000_123_456_789, 1_764_000_000_123_456_789))
        return path

    def base(self, source, path, form, restores="file", **more):
        session, _, rest = source.partition("/")
        if not rest:
            session, rest = "_loose", source
        status = os.lstat(self.source / source)
        place = self.root / path
        return Record(
            "stored",
            source,
            session,
            path,
            form,
            restores,
            source_bytes=status.st_size,
            stored_bytes=place.stat().st_size,
            mtime_ns=status.st_mtime_ns,
            mode=status.st_mode & 0o7777,
            sha256_source=sha256(self.source / source),
            sha256_stored=sha256(place),
            time=TIME,
            run="r1",
            worker="host:1",
            versions={"mrcz": "1.0"},
            **more,
        )

    def path_of(self, source, packed=False):
        session, _, rest = source.partition("/")
        if not rest:
            session, rest = "_loose", source
        rest = compressed_name(rest) if packed else rest
        path = safe_path(f"{session}/data/{rest}")
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        return path

    def add(self, record):
        self.journal.append(record)
        self.journal.sync()
        return record

    def copy(self, source, data, **more):
        original = self.file(source, data)
        path = self.path_of(source)
        (self.root / path).write_bytes(original.read_bytes())
        return self.add(self.base(source, path, "copy", **more))

    def packed(self, source, data, **more):
        original = self.file(source, data)
        path = self.path_of(source, packed=True)
        compress(original, self.root / path, check=True, overwrite="any")
        more = {"format": "mrc", "sha256_pixels": sha256(data.tobytes()), "frames": len(data), **more}
        return self.add(self.base(source, path, "mrcz", **more))

    def integers(self, source, counts, gain):
        """A movie of floats; its gain reference lies in the session, once."""
        original = self.file(source, (counts * gain).astype(np.float32))
        path = self.path_of(source, packed=True)
        store = self.root / source.split("/")[0] / "data" / "mrcz-gains"
        store.mkdir(exist_ok=True)
        np.save(self.source.parent / "gain.npy", gain)
        made = compress(
            original, self.root / path, recover_integers=True, gain=self.source.parent / "gain.npy", gain_store=store
        )
        assert made.integers is not None, made.integers_reason
        (reference,) = store.iterdir()
        part = (reference.relative_to(self.root).as_posix(), sha256(reference), reference.stat().st_size)
        return self.add(self.base(source, path, "integers", format="mrc", parts=(part,), frames=len(counts)))

    def pieces(self, source, data):
        """A movie of another format, as pixels and all other bytes."""
        original = self.source / source
        original.parent.mkdir(parents=True, exist_ok=True)
        np.save(original, data)
        path = self.path_of(source, packed=True)
        assert compress(original, self.root / path).restores == "file"
        return self.add(self.base(source, path, "pieces", format="npy", sha256_pixels=sha256(data.tobytes())))

    def pixels(self, source, data):
        """A movie of another format, kept as its pixels."""
        original = self.source / source
        original.parent.mkdir(parents=True, exist_ok=True)
        np.save(original, np.asfortranarray(data))  # frames in no one place: the very file does not come back
        path = self.path_of(source, packed=True)
        assert compress(original, self.root / path).restores == "pixels"
        digest = sha256(data.tobytes())
        return self.add(self.base(source, path, "pixels", "pixels", format="npy", sha256_pixels=digest))

    def same(self, source, first):
        path = self.source / source
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(self.source / first, path)
        return self.add(self.journal.stored(first).second_name(source, source.split("/")[0]))

    def link(self, source, target):
        path = self.source / source
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
        return self.add(Record("link", source, source.split("/")[0], target=target, time=TIME))

    def folder(self, source):
        (self.source / source).mkdir(parents=True)
        return self.add(Record("folder", source, source.split("/")[0], mode=0o755, time=TIME))

    def problem(self, source, event="failed", reason="permission", error="Permission denied"):
        return self.add(Record(event, source, source.split("/")[0], error=error, reason=reason, time=TIME))


def mixed(top, rng):
    """An archive of two sessions with a file of each form."""
    made = Made(top)
    made.packed("s1/grid/movie.mrc", movie(rng), camera="K3")
    made.packed("s1/grid/second.mrc", movie(rng, dtype=np.int16), camera="K3")
    gain = rng.uniform(0.5, 2, (24, 32)).astype(np.float32)
    made.integers("s1/counted.mrc", movie(rng, (6, 24, 32)), gain)
    made.pixels("s2/stack.npy", movie(rng, (3, 8, 8), np.uint16))
    made.copy("s2/notes.txt", b"notes\n")
    made.copy("s2/empty", b"")
    made.same("s1/again.mrc", "s1/grid/movie.mrc")
    made.link("s2/latest", "stack.npy")
    made.folder("s2/void")
    made.copy("loose.txt", b"loose\n")
    made.problem("s2/locked.mrc")
    return made


class Shelf:
    """A Place that is no folder: files are had by fetching them, under names that say nothing."""

    def __init__(self, root):
        self.name = "shelf://archive"
        self.held = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def size(self, path):
        return len(self._at(path))

    def _at(self, path):
        if path not in self.held:
            raise FileNotFoundError(2, "No such file", path)
        return self.held[path]

    def open(self, path):
        return io.BytesIO(self._at(path))

    @contextlib.contextmanager
    def local(self, path):
        data = self._at(path)
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "fetched"
            place.write_bytes(data)
            yield str(place)

    def write(self, path, data):
        self.held[path] = bytes(data)

    def write_from(self, path, file):
        self.held[path] = file.read()

    def remove(self, path):
        self._at(path)
        del self.held[path]

    def files(self, below=""):
        yield from [path for path in self.held if not below or path.startswith(f"{below}/")]
