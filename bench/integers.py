"""Integers out of floats: how long it takes and how small a session becomes, beside mrcz 0.6.0 and RELION.

  python bench/integers.py speed --frames 40 --size 4096
  python bench/integers.py session --movies 2 --frames 10 --old OLDENV/bin/python --relion

A session is of a K2: 3710 × 3838, a gain of 5 %, one electron a pixel and frame, 5000 pixels filled from their
neighbours. Sizes count the gain reference once for 100 movies. RELION's are of the same movies, all its TIFF files and
the gain it estimates, which counts as ours does. Results are printed as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

K2 = (3710, 3838)
DEFECTS = 5000
SESSION = 100  # movies that share a gain

OLD = """
import sys, time, mrcz
data, meta = mrcz.readMRC(sys.argv[1])
began = time.perf_counter()
mrcz.writeMRC(data, sys.argv[2], meta=None, compressor="zstd", clevel=1, n_threads=int(sys.argv[3]))
print(time.perf_counter() - began)
"""


def gain_reference(shape: tuple[int, int]) -> np.ndarray:
    return (1 + 0.05 * np.random.default_rng(1).standard_normal(shape)).astype(np.float32)


def frames(count: int, gain: np.ndarray, seed: int, defects: int) -> Any:
    """Frames of a movie, one by one, so that it need not fit into memory."""
    rng = np.random.default_rng(seed)
    ny, nx = gain.shape
    places = np.random.default_rng(2).choice(ny * nx - 2, defects, replace=False) + 1
    for _ in range(count):
        frame = rng.poisson(1.0, gain.shape).astype(np.float32) * gain
        flat = frame.reshape(-1)
        flat[places] = (flat[places - 1] + flat[places + 1]) / 2
        yield frame


def timed(work: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def speed(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds to find the counts of a movie in memory, its gain not known, known, known from another movie, or 1."""
    from mrcz.correct.integers import recover_integers

    gain = gain_reference((args.size, args.size))
    movie = np.empty((args.frames, *gain.shape), np.float32)
    for k, frame in enumerate(frames(args.frames, gain, 3, DEFECTS)):
        movie[k] = frame
    nbytes, found = movie.nbytes, {}
    cases = [("unknown", {}), ("known", {"gain": gain}), ("of the session", {})]
    for name, more in cases:
        if name == "of the session":
            more = {"session": [first.session]}  # noqa: F821
        cpu = time.process_time()
        seconds, result = timed(lambda more=more: recover_integers(movie, n_threads=args.threads, **more))
        cpu = time.process_time() - cpu
        found[name] = {"seconds": seconds, "GB/s": nbytes / seconds / 1e9, "cpu seconds": cpu, "by": result.found_by}
        if name == "unknown":
            first = result  # noqa: F841
            found[name]["exceptions"] = len(result.exceptions)
    np.rint(movie, out=movie)
    seconds, result = timed(lambda: recover_integers(movie, n_threads=args.threads))
    found["gain = 1"] = {"seconds": seconds, "GB/s": nbytes / seconds / 1e9, "by": result.found_by}
    found["peak GB over the movie"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6 - nbytes / 1e9
    return {"shape": movie.shape, "threads": args.threads, **found}


def session(args: argparse.Namespace) -> dict[str, Any]:
    """Sizes and seconds of a session, ours, that of mrcz 0.6.0 and RELION's."""
    import mrcz

    shape = K2 if args.crop is None else (args.crop, args.crop)
    gain = gain_reference(shape)
    defects = DEFECTS * shape[0] * shape[1] // (K2[0] * K2[1])
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        paths = [folder / f"{k}.mrc" for k in range(args.movies)]
        for k, path in enumerate(paths):
            with mrcz.open(path, "w", sync=False) as writer:
                for frame in frames(args.frames, gain, 10 + k, defects):
                    writer.append(frame)
        plain = sum(path.stat().st_size for path in paths)
        found: dict[str, Any] = {"shape": shape, "movies": args.movies, "frames": args.frames, "float32 bytes": plain}
        for label, codec in (("balanced", {}), ("small", {"profile": "small"}), ("packed", {"pack": "auto"})):
            found[f"mrcz {label}"] = ours(mrcz, paths, folder / label, plain, args.threads, codec)
        if args.old:
            found["mrcz 0.6.0"] = old(args, paths[0], folder)
        if args.relion:
            found["relion_convert_to_tiff"] = relion(args, paths, folder, plain)
    return found


def figures(nbytes: int, gain_bytes: int, plain: int, movies: int, seconds: Any) -> dict[str, Any]:
    shared = nbytes + gain_bytes * movies / SESSION
    return {"bytes": nbytes, "gain bytes": gain_bytes, "times smaller": plain / shared, "seconds": seconds}


def ours(mrcz: Any, paths: list[Path], folder: Path, plain: int, threads: int, codec: dict[str, Any]) -> dict[str, Any]:
    folder.mkdir()
    seconds = []
    for path in paths:
        took, made = timed(
            lambda path=path: mrcz.compress(
                path,
                folder / f"{path.stem}.mrcz",
                recover_integers=True,
                gain_store=folder / "gains",
                n_threads=threads,
                **codec,
            )
        )
        assert made.checked and made.integers is not None, made.integers_reason
        seconds.append(took)
    nbytes = sum(path.stat().st_size for path in folder.glob("*.mrcz"))
    gain = sum(path.stat().st_size for path in (folder / "gains").iterdir())
    reading, _ = timed(lambda: mrcz.read(folder / f"{paths[0].stem}.mrcz", n_threads=threads))
    return {**figures(nbytes, gain, plain, len(paths), seconds), "seconds to read a movie": reading}


def old(args: argparse.Namespace, path: Path, folder: Path) -> dict[str, Any]:
    words = [args.old, "-c", OLD, str(path), str(folder / "old.mrcz"), str(args.threads)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    nbytes = (folder / "old.mrcz").stat().st_size
    return figures(nbytes, 0, path.stat().st_size, 1, [float(done.stdout.split()[-1])])


def relion(args: argparse.Namespace, paths: list[Path], folder: Path, plain: int) -> dict[str, Any]:
    """Gain estimated from the movies, then each converted, as RELION's documentation says."""
    (folder / "all.lst").write_text("".join(f"{path.name}\n" for path in paths))
    common = ["relion_convert_to_tiff", "--i", "all.lst", "--o", "tiff", "--j", str(args.threads)]
    thresh = ["--thresh", str(min(50, args.movies * args.frames // 3))]
    estimate, _ = timed(lambda: subprocess.run([*common, *thresh, "--estimate_gain"], cwd=folder, check=True, stdout=2))
    extra = ["--gain", "tiff/gain_estimate.bin", *thresh]
    convert, code = timed(lambda: subprocess.run([*common, *extra], cwd=folder, stdout=2).returncode)
    if code:  # its minimum rule was wrong for a pixel: go on, though values are rounded then, and bits lost
        extra.append("--ignore_error")
        convert, _ = timed(lambda: subprocess.run([*common, *extra], cwd=folder, check=True, stdout=2))
    tiffs = list((folder / "tiff").rglob("*.tif*"))
    gains = [path for path in tiffs if "gain" in path.name]
    if not gains:
        shutil.copy(folder / "tiff" / "gain_estimate.bin", folder / "gain")
        gains = [folder / "gain"]
    nbytes = sum(path.stat().st_size for path in tiffs if path not in gains)
    gain = sum(path.stat().st_size for path in gains)
    made = figures(nbytes, gain, plain, len(paths), {"estimate": estimate, "convert": convert})
    return {**made, "values rounded": bool(code)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "session"))
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--crop", type=int, help="a smaller sensor, square, with as many defects a pixel")
    parser.add_argument("--movies", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", help="for the files of a session")
    parser.add_argument("--old", metavar="PYTHON", help="the Python of an environment with mrcz 0.6.0")
    parser.add_argument("--relion", action="store_true", help="relion_convert_to_tiff, too")
    args = parser.parse_args()
    load = os.getloadavg()
    found = {"speed": speed, "session": session}[args.what](args)
    json.dump({"load before": load, "load after": os.getloadavg(), **found}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
