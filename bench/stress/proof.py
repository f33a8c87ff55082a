"""What a tree and its archive are, told without the archive's own modules: for `archive.py`."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mrcz

#: ("file", SHA-256), ("link", target) or ("folder", "").
Kind = tuple[str, str]

TAGS = (
    *("bagit.txt", "bag-info.txt", "manifest-sha256.txt", "tagmanifest-sha256.txt", "README.txt"),
    *("originals-sha256.txt", "mrcz-records.jsonl", "mrcz-not-in-manifest-sha256.txt"),
)


def bag_names() -> tuple[str, ...]:
    return TAGS


def is_excused_name(source: str) -> bool:
    """Temporary names of the program itself: not archived."""
    name = source.rsplit("/", 1)[-1]
    return name.startswith(".") and name.endswith((".part", ".orig"))


def digest(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree(top: Path, sums: bool = True) -> dict[str, Kind]:
    """Files, links and empty folders below a folder."""
    found: dict[str, Kind] = {}
    for folder, folders, names in os.walk(top):
        below = os.path.relpath(folder, top)
        prefix = "" if below == "." else f"{below}/"
        for name in names + [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            path = os.path.join(folder, name)
            try:
                mode = os.lstat(path).st_mode
                if stat.S_ISLNK(mode):
                    found[prefix + name] = ("link", os.readlink(path))
                elif stat.S_ISREG(mode):
                    found[prefix + name] = ("file", digest(path) if sums else "")
            except FileNotFoundError:  # another run removes originals meanwhile
                continue
        if not names and not folders and prefix:
            found[prefix[:-1]] = ("folder", "")
    return found


def journal_lines(path: Path) -> list[bytes]:
    """Whole lines."""
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except OSError:
        return []


def records(path: Path) -> Iterator[dict[str, Any]]:
    """What a journal says, as its documentation has it; damaged lines are passed over."""
    yield from parsed(journal_lines(path))


def parsed(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
            for name in ("source", "path", "session", "target"):
                if f"{name}_base64" in record:
                    record[name] = os.fsdecode(base64.b64decode(record[f"{name}_base64"]))
            record.setdefault("target", "")
            for name in ("source_bytes", "stored_bytes", "mtime_ns", "mode"):
                record.setdefault(name, 0)
            yield record
        except (ValueError, TypeError):
            continue


def recorded(path: Path) -> dict[str, dict[str, Any]]:
    """The last record of each source that stored something."""
    return {record["source"]: record for record in records(path) if record["event"] in ("stored", "link", "folder")}


def restorable(dst: Path, known: dict[str, Any], source: str, sha256: str, out: Path) -> str | None:
    """Whether a file can be had from the archive as it was; if not, why."""
    record = known.get(source)
    if record is None or record["event"] != "stored":
        return "no record stored it"
    if record["sha256_source"] != sha256:
        return f"its record, of {record['time']}, is of another file"
    if record["form"] == "same":
        first = known.get(record["target"])
        if first is None or first["event"] != "stored" or first["form"] == "same":
            return f"is a second name of {record['target']!r}, which is not stored"
        if first["sha256_source"] != sha256:
            return f"is a second name of {record['target']!r}, which is another file by now"
        record = first
    path = dst / record["path"]
    try:
        if digest(path) != record["sha256_stored"]:
            return "what is stored has another checksum than its record says"
        if record["form"] == "copy":
            return None if digest(path) == sha256 else "its copy has other bytes"
        mrcz.decompress(path, out, overwrite=True)
        return None if digest(out) == sha256 else "it does not decompress to what it was"
    except (OSError, mrcz.MrczError) as error:
        return f"{type(error).__name__}: {error}"


def prove(campaign: Any) -> Iterator[str]:
    """Everything that is wrong with an archive at the end of a campaign."""
    src, dst, faults = campaign.src, campaign.dst, campaign.faults
    known = recorded(campaign.journal)
    full = {source.rsplit("/", k)[0] for source in known for k in range(1, source.count("/") + 1)}
    for source in [source for source, kind in faults.live.items() if kind[0] == "folder" and source in full]:
        faults.live.pop(source)  # emptied since: what was in it is in the archive
    for source, kind in faults.live.items():
        if kind[0] == "file":
            problem = restorable(dst, known, source, kind[1], campaign.work / "given back")
            if problem is not None:
                yield f"{source!r}: {problem}"
        elif (record := known.get(source)) is None or record["event"] != kind[0]:
            yield f"{source!r}: a {kind[0]}, and its record is {record}"
    yield from _on_disk(dst, known, campaign)
    yield from _twice(campaign)
    yield from _bags(dst, known)
    command = [sys.executable, "-m", "mrcz"]
    checked = subprocess.run([*command, "archive", "--check", dst], capture_output=True)
    if checked.returncode:
        yield f"--check ends with {checked.returncode}: {checked.stderr[-1500:].decode(errors='replace')}"
    out = campaign.work / "restored"
    restored = subprocess.run([*command, "restore", "--quiet", dst, out], capture_output=True)
    refused = [line for line in restored.stderr.splitlines() if b"restore it by its name, elsewhere" not in line]
    if restored.returncode and (restored.returncode != 1 or refused):
        yield f"restore ends with {restored.returncode}: {restored.stderr[-1500:].decode(errors='replace')}"
    yield from _restored(src, out, known, faults)
    shutil.rmtree(out, ignore_errors=True)


def _on_disk(dst: Path, known: dict[str, Any], campaign: Any) -> Iterator[str]:
    """Nothing lies there that no record tells of, and no two records tell of the same place."""
    expected: Counter[str] = Counter()
    for record in known.values():
        if record.get("path"):
            expected[record["path"]] += 1
    yield from (f"{path!r} is the place of {n} sources" for path, n in expected.items() if n > 1)
    places = set(expected)
    for record in records(campaign.journal):  # also those of older versions, which are kept
        places |= {part[0] for part in record.get("parts", ())}
    for session in {record["session"] for record in known.values()}:
        places |= {f"{session}/{name}" for name in TAGS}
    there = {source for source, kind in tree(dst, sums=False).items() if kind[0] == "file"}
    there = {path for path in there if not path.startswith("mrcz-archive/")}
    campaign.counts["files of the archive"] = len(there)
    if extra := sorted(there - places):
        yield f"{len(extra)} files that no record tells of: {extra[:5]}"
    hidden = [str(p) for p in (dst / "mrcz-archive").rglob("*") if p.name.endswith((".part", ".tmp", ".orig"))]
    if hidden:
        yield f"temporary files beside the journal: {hidden}"


def _twice(campaign: Any) -> Iterator[str]:
    """A file is stored again only if it changed, or if something was done to the archive."""
    seen: Counter[tuple[str, str, int, str]] = Counter()
    told = defaultdict(list)
    for record in records(campaign.journal):
        if record["event"] == "stored":
            # A second name may become a first one, or that of another.
            second = record["target"] if record["form"] == "same" else ""
            seen[record["source"], record["sha256_source"], record["mtime_ns"], second] += 1
            told[record["source"]].append(" ".join(record.get(name) or "" for name in ("time", "form", "target")))
    again = [key[0] for key, n in seen.items() if n > 1]
    campaign.counts["stored"] = sum(seen.values())
    campaign.counts["stored again"] = len(again)
    again = [source for source in again if source not in campaign.faults.again]
    if again:
        yield f"{len(again)} files were stored twice: {[(source, told[source]) for source in again[:5]]}"


def _bags(dst: Path, known: dict[str, Any]) -> Iterator[str]:
    """Each session is a bag: for `sha256sum`, and for the bagit package where it is installed."""
    try:
        import bagit
    except ImportError:
        bagit = None
    for session in sorted({record["session"] for record in known.values()}):
        bag = dst / session
        for name in ("manifest-sha256.txt", "tagmanifest-sha256.txt"):
            if not (bag / name).exists():
                yield f"{session!r} has no {name}"
            elif (bag / name).stat().st_size:
                done = subprocess.run(["sha256sum", "--quiet", "-c", name], cwd=bag, capture_output=True)
                if done.returncode:
                    yield f"sha256sum of {session!r}: {(done.stdout + done.stderr)[-800:].decode(errors='replace')}"
        if bagit is not None:
            names = [os.path.relpath(p, bag) for p in (bag / "data").rglob("*")]
            if any("\r" in n or "\n" in n or not n.isprintable() for n in names):
                continue  # no list can name these for both programs
            try:
                bagit.Bag(str(bag)).validate()
            except Exception as error:
                yield f"bagit: {session!r}: {str(error)[:800]}"


def _restored(src: Path, out: Path, known: dict[str, Any], faults: Any) -> Iterator[str]:
    """What was given back is the tree: bytes, times, permissions, links, second names."""
    given = tree(out)
    for source, kind in faults.live.items():
        if given.get(source) != kind:
            yield f"restored {source!r} is {given.get(source)}, was {kind}"
    for source in sorted(set(given) - set(faults.live)):
        if given[source] not in faults.versions.get(source, ()):
            yield f"restored {source!r}, {given[source]}, never was there"
    inodes: dict[tuple[int, str], set[str]] = defaultdict(set)
    for source, kind in tree(src, sums=False).items():
        if is_excused_name(source) or kind[0] == "folder" or source not in given:
            continue
        was, now = os.lstat(src / source), os.lstat(out / source)
        if was.st_mtime_ns != now.st_mtime_ns:
            yield f"restored {source!r} has another time"
        if kind[0] == "file" and stat.S_IMODE(was.st_mode) != stat.S_IMODE(now.st_mode):
            yield f"restored {source!r} has mode {now.st_mode:o}, had {was.st_mode:o}"
        if was.st_nlink > 1 and kind[0] == "file" and known[source]["form"] == "same":
            inodes[was.st_ino, known[source]["session"]] |= {source, known[source]["target"]}
    for names in inodes.values():
        if len({os.lstat(out / name).st_ino for name in names}) != 1:
            yield f"restored {sorted(names)} are no second names any more"
