"""A tree of microscope sessions for `archive.py`: small movies of every kind, what lies beside them, names and files of
the kinds that break programs."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import tifffile

import mrcz

TESTS = Path(__file__).resolve().parents[2] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "formats")]

import seeds  # noqa: E402 - of the tests
from reference import eer_plain  # noqa: E402

SESSIONS = ("2026-11-27 grid 1", "söß ion", "100%25 % done", "deep", "Case", "case", "_loose", "mrcz-archive")
ODD = (
    *("a b", "é", "e\u0301", "100%", "%25", "%0A", "new\nline", "cr\rlf\r\n", "-rf", "*", "A", "a", "'\"", "\\x", "~"),
    *("a~2", "con", "nul.mrc", "x" * 255, "y" * 251 + ".mrc", "é" * 127, " lead", "trail ", "dot.", "#", "data"),
    *("manifest-sha256.txt", "bagit.txt", ".hidden", "._m.mrc", "same.mrc", "same.mrcz", "same.mrc.mrcz", "Same.mrc"),
    *(".half.mrc.0123abcd.part", "\u202eright", "tab\there", "\x7f", "wide\U0001f52c"),
)
KINDS = 13


def movie(path: Path, k: int, gain: np.ndarray) -> Path:
    """A movie of the kind that a number says, as no other movie is; `path` gets the suffix."""
    rng = np.random.default_rng(k)
    counts = rng.poisson(0.8, (10, 96, 96))
    kind = k % KINDS
    suffix = (".mrc .mrc .mrcs .tif .eer .npy .mib .mrc .mrc .mrcz .tif .st .mrc".split())[kind]
    path = path.with_name(path.name + suffix)
    if kind == 0:  # counts × gain
        mrcfile.write(path, rng.poisson(0.8, (40, *gain.shape)).astype(np.float32) * gain)
    elif kind in (1, 7, 8):
        mrcfile.write(path, counts.astype(np.int8))
    elif kind == 2:
        mrcfile.write(path, (counts * 100).astype(np.int16))
    elif kind == 3:
        tifffile.imwrite(path, counts.astype(np.uint8), compression="lzw", photometric="minisblack", metadata=None)
    elif kind == 4:
        path.write_bytes(events(rng))
    elif kind == 5:
        np.save(path, counts.astype(np.uint16))
    elif kind == 6:
        frames = rng.integers(0, 4096, (4, 64, 64)).astype(">u2")
        head = [seeds.mib_head(n + 1, (64, 64), "U16", 12) for n in range(4)]
        path.write_bytes(b"".join(h + f.tobytes() for h, f in zip(head, frames, strict=True)))
    elif kind == 9:
        mrcz.write(path, counts.astype(np.uint8))
    elif kind == 10:
        tifffile.imwrite(path, counts.astype(np.uint16), compression="adobe_deflate", predictor=2)
    elif kind == 11:
        mrcfile.write(path, counts.astype(np.uint16))
    else:  # floats of nothing
        mrcfile.write(path, rng.standard_normal((4, 96, 96)).astype(np.float32))
    if kind == 7:  # as a detector leaves it that lost its disk
        os.truncate(path, path.stat().st_size * 2 // 3)
    if kind == 8:
        with open(path, "ab") as file:
            file.write(b"what nobody told us of" * 9)
    return path


def events(rng: np.random.Generator) -> bytes:
    """A small EER file."""
    shape, total, code = (16, 40), 640, (7, 2, 2)
    about = eer_plain.metadata([("dose", "e/pixel", "0.05"), ("timestamp", None, "2023-03-03T10:11:12.345+01:00")])
    directories = []
    for _ in range(4):
        pixels = np.flatnonzero(rng.random(total) < 0.05).tolist()
        frame = eer_plain.encode(pixels, rng.integers(0, 16, len(pixels)).tolist(), total, code)
        directories.append(eer_plain.eer_fields(frame, shape, 65001, about=about))
    return eer_plain.directory_file(directories)


def make(top: Path, movies: int) -> None:
    """The tree."""
    warnings.simplefilter("ignore")
    gain = (1 + 0.05 * np.random.default_rng(7).standard_normal((96, 96))).astype(np.float32)
    for k in range(movies):
        folder = top / SESSIONS[k % len(SESSIONS)]
        if k % len(SESSIONS) == 3:
            folder = folder / f"sub {k % 5}" / "Movies"
        folder.mkdir(parents=True, exist_ok=True)
        made = movie(folder / f"m{k:04d}", k, gain)
        (folder / f"{made.name}.mdoc").write_text(f"PixelSpacing = 0.{k}\nImageFile = {made.name}\n")
    for name in SESSIONS:
        folder = top / name
        folder.mkdir(exist_ok=True)
        mrcfile.write(folder / "gain.mrc", gain)
        (folder / "GridSquare.xml").write_text(f"<MicroscopeImage><name>{name}</name></MicroscopeImage>\n")
        (folder / "session.log").write_text("exposure\n" * 50)
    odd(top, gain)


def odd(top: Path, gain: np.ndarray) -> None:
    """What breaks programs."""
    for folder in (top / "odd", top / "odd\nsession"):
        folder.mkdir()
        for name in ODD:
            (folder / name).write_text(f"this is {name!r}")
        for raw in (b"\xff", b"m\xe9.mrc"):
            with open(os.path.join(os.fsencode(folder), raw), "wb") as file:
                file.write(raw)
    here = top / "odd"
    (here / "mrcz-gains").mkdir()  # as our own folder is called
    mrcfile.write(here / "mrcz-gains/gain.mrc", gain)
    for name, target in (("dangling", "nowhere"), ("absolute", "/etc/hostname"), ("loop", "loop"), ("up", "..")):
        (here / name).symlink_to(target)
    (here / "to movie").symlink_to("../deep")
    (top / "a link").symlink_to("odd/a b")
    (top / "deep/empty/below").mkdir(parents=True)
    (top / "empty session").mkdir()
    (top / "nothing.mrc").write_bytes(b"")
    (top / "loose.log").write_text("log\n" * 100)
    with open(here / "sparse.raw", "wb") as file:
        file.truncate(9 << 20)
        file.seek(5 << 20)
        file.write(b"in the middle")
    mrcfile.write(here / "first.mrc", np.random.default_rng(5).poisson(1, (8, 64, 64)).astype(np.int8))
    for name in ("odd/second.mrc", "odd/third", "deep/fourth.mrc"):
        (top / name).hardlink_to(here / "first.mrc")
    (here / "read only.txt").write_text("mine")
    (here / "read only.txt").chmod(0o440)
    os.mkfifo(here / "fifo")
