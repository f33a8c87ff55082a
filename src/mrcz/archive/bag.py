"""A session of an archive as a BagIt 1.0 bag (RFC 8493), made from the journal: no file of it is read again.

A bag can be checked without this program, by any that knows BagIt and by ``sha256sum -c``. It is valid, or it has no
manifest: the manifest goes first when something is to change, and comes last.

One deviation from the RFC, which wants ``%`` in names written as ``%25``: bagit and sha256sum both take that for three
characters, so ``%`` stands as it is. Names that neither reads back (`mrcz.archive.names`) are not given to files of
an archive; where there are some, a list of their own has them, which sha256sum checks.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import BinaryIO

from mrcz._version import __version__
from mrcz.archive.journal import Journal
from mrcz.archive.names import is_listable
from mrcz.archive.place import Place
from mrcz.check.result import Result
from mrcz.errors import printable

__all__ = [
    "LEFT_OUT",
    "MANIFEST",
    "ORIGINALS",
    "RECORDS",
    "TAGS",
    "Bag",
    "bag_faults",
    "orphans",
    "unseal",
    "write_bag",
]

MANIFEST = "manifest-sha256.txt"
TAG_MANIFEST = "tagmanifest-sha256.txt"
ORIGINALS = "originals-sha256.txt"
RECORDS = "mrcz-records.jsonl"
LEFT_OUT = "mrcz-not-in-manifest-sha256.txt"
INFO = "bag-info.txt"

#: All files that are ours in the folder of a session, beside ``data``.
TAGS = ("bagit.txt", INFO, "README.txt", MANIFEST, ORIGINALS, RECORDS, LEFT_OUT, TAG_MANIFEST)

_BAGIT = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
_KEPT = ("Bagging-Date", "Bag-Software-Agent")  # of a bag that stands, as long as nothing else changes
_MOST = 1 << 20  # bytes of a small tag file that are read

_README = """\
This folder is a BagIt bag (RFC 8493): below data/ lie the files of one session at an electron microscope, archived by
mrcz. What is here can be checked without that program, in this folder:

    sha256sum -c manifest-sha256.txt          the files as they are stored
    sha256sum -c tagmanifest-sha256.txt       the lists themselves

(% stands in names as it is, which RFC 8493 wants written as %25 and the programs that check bags do not.)

mrcz-records.jsonl has a line of JSON for each file: its path before it was archived (source) and here (path), sizes,
times, permissions, SHA-256 of both files, and its form:

    copy        the file itself
    mrcz        an MRC file, compressed; the 1024 bytes of its header are those of the file it was made from
    integers    the same, of floats that are counts times a gain reference, which "parts" names
    pieces      the pixels of a file of another format, compressed, and all its other bytes
    pixels      the pixels of such a file, and what it said of itself
    same        a second name of the file that "target" names

A line whose event is "removed" says that the original was removed once its copy was proven: what is here is all there
is of it.

    mrcz archive --check DST        checks all of it, DST being the folder of mrcz-archive/
    mrcz restore DST OUT            gives the files back

originals-sha256.txt has the checksums of the files before they were archived; in OUT,
`sha256sum -c .../originals-sha256.txt` compares what was given back. Lines that begin with # are of files that come
back as their pixels alone.

Compressed files (.mrcz) are an MRC2014 header, a Blosc chunk for each frame and a footer; McLeod et al., J. Struct.
Biol. 201 (2018), doi:10.1016/j.jsb.2017.11.012, describe the format, https://github.com/em-MRCZ has programs.
"""


@dataclass(frozen=True)
class Bag(Result):
    """What became of the bag of a session.

    Attributes
    ----------
    session : str
    status : str
        ``"written"``, ``"unchanged"``, or ``"empty"``: no file of the session is stored, and there is no bag.
    files, payload_bytes : int
        What lies below ``data``.
    left_out : int
        Files that no manifest can name; where there are some, no program takes the bag for valid.
    n_orphans : int
        The same of files that are in no record; looked for when the bag is written.
    notes : tuple of str
    """

    session: str
    status: str
    files: int = 0
    payload_bytes: int = 0
    left_out: int = 0
    n_orphans: int = 0
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it is a valid bag, or none is needed."""
        return not (self.left_out or self.n_orphans)


class _Tag:
    """A file of a bag, made on the disk of this machine, with its checksum."""

    def __init__(self, data: bytes = b"") -> None:
        self.file: BinaryIO = tempfile.TemporaryFile("w+b", buffering=1 << 16)  # type: ignore[assignment]
        self._digest = hashlib.sha256()
        self.size = 0
        self.add(data)

    def add(self, data: bytes) -> None:
        self.file.write(data)
        self._digest.update(data)
        self.size += len(data)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


@dataclass
class _Draft:
    """All files of a bag, and what is in it."""

    tags: dict[str, _Tag]
    files: int = 0
    payload_bytes: int = 0
    left_out: int = 0
    source_files: int = 0
    source_bytes: int = 0

    def close(self) -> None:
        for tag in self.tags.values():
            tag.file.close()


def write_bag(place: Place, journal: Journal, session: str, *, date: str | None = None) -> Bag:
    """Make the bag of a session, if something of it changed since.

    Parameters
    ----------
    place : Place
    journal : Journal
        What it says is stored is taken to be there: `mrcz.archive.checking` looks.
    session : str
    date : str, optional
        ``Bagging-Date``, as 2026-11-27; today (UTC).

    Returns
    -------
    Bag

    Raises
    ------
    OSError, MrczError
        It cannot be written; there is no manifest then.
    """
    draft = _drawn(journal, session)
    try:
        if not draft.files:
            unseal(place, session)
            return Bag(session, "empty")
        _finish(draft, session, _info(place, session, _KEPT))
        different = [name for name in TAGS if _is_other(place, f"{session}/{name}", draft.tags.get(name))]
        notes = []
        if draft.left_out:
            notes.append(f"{draft.left_out} files have names that no manifest can hold; {LEFT_OUT} has them")
        result = Bag(session, "unchanged", draft.files, draft.payload_bytes, draft.left_out, 0, tuple(notes))
        if not different:
            return result
        _finish(draft, session, {"Bagging-Date": date or datetime.now(UTC).date().isoformat()})
        unseal(place, session)
        for name in TAGS:
            if name != MANIFEST and _is_other(place, f"{session}/{name}", draft.tags.get(name)):
                _put(place, f"{session}/{name}", draft.tags.get(name))
        _put(place, f"{session}/{MANIFEST}", draft.tags[MANIFEST])
        count = 0
        for path in orphans(place, journal, session):
            count += 1
            if count == 1:
                notes.append(f"{path} is in no record, and the bag not valid with it")
        return replace(result, status="written", n_orphans=count, notes=tuple(notes))
    finally:
        draft.close()


def unseal(place: Place, session: str) -> None:
    """Take the manifest of a session away, so that nobody takes for a valid bag what is about to change."""
    with contextlib.suppress(FileNotFoundError):
        place.remove(f"{session}/{MANIFEST}")


def _drawn(journal: Journal, session: str) -> _Draft:
    """Manifest, originals and records, from the journal."""
    draft = _Draft({name: _Tag() for name in (MANIFEST, ORIGINALS, RECORDS, LEFT_OUT)})
    try:
        _draw(draft, journal, session)
    except BaseException:
        draft.close()
        raise
    return draft


def _draw(draft: _Draft, journal: Journal, session: str) -> None:
    tags, inside = draft.tags, f"{session}/data/"
    for line, record in journal.lines(session):
        tags[RECORDS].add(line)
        if record.event != "stored":
            continue
        draft.source_files += 1
        draft.source_bytes += record.source_bytes
        comment = b"" if record.restores == "file" else b"# "
        tags[ORIGINALS].add(comment + _line(record.sha256_source, record.source, escape=True))
        if record.form != "same" and record.path.startswith(inside):
            _list(draft, record.path[len(session) + 1 :], record.sha256_stored, record.stored_bytes)
    for line, _ in journal.lines(session, stored=False):
        tags[RECORDS].add(line)
    for path, digest, size in journal.state.parts():
        # A gain reference that is itself a file of the tree is there already.
        if path.startswith(inside) and not _is_of_record(journal, path):
            _list(draft, path[len(session) + 1 :], digest, size)
    if not draft.left_out:
        tags.pop(LEFT_OUT).file.close()


def _is_of_record(journal: Journal, path: str) -> bool:
    """Whether a file of the tree lies at this path."""
    source = journal.state.taken(path)
    found = None if source is None else journal.state.stored(source)
    return found is not None and _composed(found[3]) == _composed(path)


def _composed(path: str) -> str:
    return unicodedata.normalize("NFC", path)  # macOS lists names decomposed


def _list(draft: _Draft, path: str, digest: str, size: int) -> None:
    draft.files += 1
    draft.payload_bytes += size
    if is_listable(path):
        draft.tags[MANIFEST].add(_line(digest, path))
    else:
        draft.left_out += 1
        draft.tags[LEFT_OUT].add(_line(digest, path, escape=True))


def _line(digest: str, path: str, *, escape: bool = False) -> bytes:
    """A line of a sum file; with `escape` in GNU's way, for names that have line breaks."""
    name = os.fsencode(path)
    if escape and any(one in name for one in (b"\\", b"\n", b"\r")):
        name = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
        return b"\\" + digest.encode("ascii") + b"  " + name + b"\n"
    return digest.encode("ascii") + b"  " + name + b"\n"


def _finish(draft: _Draft, session: str, known: dict[str, str]) -> None:
    """Add the files that describe the bag, and the list of all of them."""
    info = {
        "Bag-Software-Agent": known.get("Bag-Software-Agent") or f"mrcz {__version__}",
        "Bagging-Date": known.get("Bagging-Date", ""),
        "External-Identifier": printable(session),
        "External-Description": "A session at an electron microscope, archived by mrcz; see README.txt",
        "Bag-Size": f"{draft.payload_bytes / 1e9:.3f} GB",
        "Payload-Oxum": f"{draft.payload_bytes}.{draft.files}",
        "Mrcz-Source-Files": str(draft.source_files),
        "Mrcz-Source-Bytes": str(draft.source_bytes),
    }
    if draft.left_out:
        info["Mrcz-Not-In-Manifest"] = f"{draft.left_out} files, listed in {LEFT_OUT}"
    for name, data in (
        ("bagit.txt", _BAGIT),
        (INFO, "".join(f"{key}: {value}\n" for key, value in info.items()).encode("utf-8")),
        ("README.txt", _README.encode("utf-8")),
        (TAG_MANIFEST, b""),
    ):
        if name in draft.tags:
            draft.tags[name].file.close()
        draft.tags[name] = _Tag(data)
    for name in TAGS:
        if name in draft.tags and name != TAG_MANIFEST:
            draft.tags[TAG_MANIFEST].add(_line(draft.tags[name].sha256, name))


def _info(place: Place, session: str, wanted: tuple[str, ...]) -> dict[str, str]:
    """What a bag that stands says of itself."""
    try:
        with place.open(f"{session}/{INFO}") as file:
            text = file.read(_MOST).decode("utf-8", "replace")
    except OSError:  # what is not there, or cannot be read, is made anew
        return {}
    pairs = (line.split(": ", 1) for line in text.splitlines() if ": " in line)
    return {key: value for key, value in pairs if key in wanted}


def _differs(place: Place, path: str, tag: _Tag | None) -> bool:
    """Whether what stands at a path is not this; None: whether something stands there."""
    try:
        size = place.size(path)
        return tag is None or size != tag.size or _sum(place, path) != tag.sha256
    except FileNotFoundError:
        return tag is not None


def _is_other(place: Place, path: str, tag: _Tag | None) -> bool:
    """`_differs`; what a disk does not give back is to be made anew."""
    try:
        return _differs(place, path, tag)
    except OSError:
        return True


def _sum(place: Place, path: str) -> str:
    with place.open(path) as file:
        digest = hashlib.sha256()
        while data := file.read(1 << 18):
            digest.update(data)
    return digest.hexdigest()


def _put(place: Place, path: str, tag: _Tag | None) -> None:
    if tag is None:
        with contextlib.suppress(FileNotFoundError):
            place.remove(path)
        return
    tag.file.seek(0)
    place.write_from(path, tag.file)


def bag_faults(place: Place, journal: Journal, session: str) -> Iterator[tuple[str, str, str, str]]:
    """What is wrong with the lists of a bag: (path, what, expected, found).

    The manifest, the list of originals and the records are compared with the journal, the other files with the list of
    them. A bag without its manifest is one that an interrupted run did not come to.
    """
    draft = _drawn(journal, session)
    try:
        manifest = f"{session}/{MANIFEST}"
        if not draft.files:
            return
        if _differs(place, manifest, None) is False:
            yield manifest, "is missing: the run was interrupted, or goes on; the next one writes it", "", ""
            return
        listed = _read_tags(place, session)
        if listed is None:
            yield f"{session}/{TAG_MANIFEST}", "is missing, or no list of checksums", "", ""
            listed = {}
        for name in (MANIFEST, ORIGINALS, RECORDS, LEFT_OUT):
            if name not in draft.tags:
                continue
            try:
                found = _sum(place, f"{session}/{name}")
            except FileNotFoundError:
                yield f"{session}/{name}", "is missing", draft.tags[name].sha256, ""
                continue
            if found != draft.tags[name].sha256:
                yield f"{session}/{name}", "is not what the journal says", draft.tags[name].sha256, found
            listed.pop(name, None)
        for name in ("bagit.txt", INFO, "README.txt"):
            if name not in listed:
                yield f"{session}/{name}", f"is not in {TAG_MANIFEST}", "", ""
        oxum = f"{draft.payload_bytes}.{draft.files}"
        said = _info(place, session, ("Payload-Oxum",)).get("Payload-Oxum", "")
        if said != oxum:
            yield f"{session}/{INFO}", "is not what the journal says of its payload", oxum, said[:100]
        for name, expected in listed.items():
            try:
                found = _sum(place, f"{session}/{name}")
            except FileNotFoundError:
                found = "nothing"
            if found != expected:
                yield f"{session}/{name}", f"is not what {TAG_MANIFEST} says", expected, found
    finally:
        draft.close()


def _read_tags(place: Place, session: str) -> dict[str, str] | None:
    """Checksums of the tag files, of which only our own names are believed."""
    try:
        with place.open(f"{session}/{TAG_MANIFEST}") as file:
            lines = file.read(_MOST).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return None
    pairs = [line.split(None, 1) for line in lines]
    found = {pair[1]: pair[0] for pair in pairs if len(pair) == 2 and pair[1] in TAGS}
    return found if MANIFEST in found else None


def orphans(place: Place, journal: Journal, session: str) -> Iterator[str]:
    """Paths of files that lie in the bag of a session and are no file of the journal: what a killed run left, what an
    older version of a file was called, what somebody put there. A bag with one is not valid. None is touched.
    """
    for path in place.files(f"{session}/data"):
        if not is_known(journal, path):
            yield path


def is_known(journal: Journal, path: str) -> bool:
    """Whether the journal has a file at this path."""
    return _is_of_record(journal, path) or journal.state.is_part(path)
