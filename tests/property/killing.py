"""Kill a writer process again and again; after each kill, open and recover what it left. Run by test_kill.py.

A program of its own because it forks: a writer then costs milliseconds, and pytest's threads are not copied.
"""

import json
import os
import random
import signal
import struct
import sys
import time
import warnings
from pathlib import Path

import numpy as np

import mrcz
from mrcz.check.recover import recover

SHAPE = (96, 128)


def frame(k):
    return np.random.default_rng(k).poisson(1.0, SHAPE).astype(np.uint8)


FRAMES = [frame(k) for k in range(60)]


def write(path, mode, first, report, choices):
    """The child: frames from `first` on, a flush now and then, each reported once it is done; never ends by itself."""
    dice = random.Random(choices)
    options = {"n_threads": 2, "sync": dice.random() < 0.3, "codec": dice.choice(("zstd", "lz4")), "overwrite": True}
    with mrcz.open(path, mode, **options) as writer:
        k = first
        while k < len(FRAMES):
            n = dice.choice((1, 1, 3))
            writer.extend(np.stack(FRAMES[k : k + n]))
            k = min(k + n, len(FRAMES))
            if dice.random() < 0.4:
                writer.flush()
                os.write(report, struct.pack("<i", k))
    os.write(report, struct.pack("<i", len(FRAMES)))
    time.sleep(10)


def check(frames, what):
    for k, got in enumerate(frames):
        assert np.array_equal(got, FRAMES[k]), f"{what}: frame {k} is wrong"


def one(folder, round_number, dice):
    path = folder / f"{round_number}.mrcz"
    kind = dice.choice(("append", "append", "new", "over"))
    had = 0
    if kind != "new":
        had = dice.randrange(1, 5)
        mrcz.write(path, np.stack(FRAMES[:had]), metadata={"round": round_number})
    before = path.read_bytes() if had else None
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        try:
            write(path, "a" if kind == "append" else "w", had if kind == "append" else 0, write_end, round_number)
        finally:
            os._exit(1)
    os.close(write_end)
    time.sleep(dice.random() ** 2 * 0.06)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    told = b""
    while part := os.read(read_end, 4096):
        told += part
    os.close(read_end)
    flushed = struct.unpack_from("<i", told, len(told) - 4)[0] if told else 0
    floor = max(flushed, had if kind == "append" else 0)
    salvaged = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if path.exists():
            with mrcz.open(path) as reader:
                assert len(reader) >= floor, f"{kind}: {len(reader)} frames, {floor} were promised"
                check(reader, kind)
                if kind == "append" or (kind == "over" and not flushed and path.read_bytes() == before):
                    assert reader.metadata["round"] == round_number
            saved = recover(path, folder / "saved.mrcz", overwrite=True)
            assert not saved.lost, saved
            salvaged = saved.n_frames
            assert salvaged >= floor
            with mrcz.open(folder / "saved.mrcz") as reader:
                assert len(reader) == salvaged
                check(reader, f"recovered {kind}")
        else:
            assert not flushed
        for part in folder.glob(f".{path.name}.*.part"):
            if part.stat().st_size > 2048:
                try:
                    saved = recover(part, folder / "saved.mrcz", overwrite=True)
                except mrcz.MrczError as error:
                    assert "no frame" in str(error), error  # killed within the first one
                    part.unlink()
                    continue
                # Threads finish in any order, so the last batch may have a hole; nothing that is saved is wrong.
                with mrcz.open(folder / "saved.mrcz") as reader:
                    for got, number in zip(reader, saved.numbers, strict=True):
                        assert number is None or np.array_equal(got, FRAMES[number])
                salvaged = max(salvaged, saved.n_frames)
            part.unlink()
    if kind == "over" and path.exists() and not flushed and path.read_bytes() != before:
        # Published at that instant, before it could tell: then it is whole, as checked above.
        assert len(mrcz.read(path)) >= 1
    if path.exists():
        path.unlink()
    return {"kind": kind, "flushed": flushed, "salvaged": salvaged, "finished": flushed == len(FRAMES)}


def main():
    folder, rounds, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dice = random.Random(seed)
    # Everything the children import is there before the first fork.
    mrcz.write(folder / "warm.mrcz", FRAMES[0])
    with mrcz.open(folder / "warm.mrcz", "a") as writer:
        writer.append(FRAMES[1])
    recover(folder / "warm.mrcz", folder / "warm2.mrcz")
    print(json.dumps([one(folder, k, dice) for k in range(rounds)]))


main()
