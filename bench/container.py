"""The container's figures: one frame at random, opening, requests, size of the index, the mount; and metadata (Figure 3
of McLeod et al. 2018).

    python bench/container.py --directory /dev/shm --frames 60 --json bench/results/container.json

Random frames: the same movie (2048², λ 1) written by each program with zstd 1 and chunks of one frame; every program
reads the same random frames, programs taking turns, each in an open file. Medians, page cache.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe, median

import mrcz


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# --- one frame at random -------------------------------------------------------------------------------------------


def openers(movie: np.ndarray, folder: Path) -> Iterator[tuple[str, Path, Callable[[], Any]]]:
    """(program, its file, a call that gives ``frame(k)`` of the open file)."""
    path = folder / "a.mrcz"
    mrcz.write(path, movie, sync=False)

    def ours() -> Any:
        return mrcz.open(path).__getitem__

    yield "mrcz", path, ours
    try:
        import h5py
        import hdf5plugin

        for name, options in (
            ("h5py + Blosc", hdf5plugin.Blosc(cname="zstd", clevel=1, shuffle=2)),
            ("h5py + bitshuffle", hdf5plugin.Bitshuffle(cname="zstd", clevel=1)),
        ):
            path5 = folder / f"{name.split()[-1]}.h5"
            with h5py.File(path5, "w") as file:
                file.create_dataset("d", data=movie, chunks=(1, *movie.shape[1:]), **options)
            yield name, path5, lambda path5=path5: h5py.File(path5)["d"].__getitem__
    except ImportError as error:
        print(f"h5py left out: {error}", file=sys.stderr)
    try:
        import tifffile

        tif = folder / "a.tif"
        how = {"compression": "zstd", "compressionargs": {"level": 1}, "rowsperstrip": 256}
        tifffile.imwrite(tif, movie, photometric="minisblack", **how)  # four frames are no RGBA image
        yield "tifffile", tif, lambda: (lambda pages: lambda k: pages[k].asarray())(tifffile.TiffFile(tif).pages)
    except (ImportError, ValueError) as error:
        print(f"tifffile left out: {error}", file=sys.stderr)
    try:
        import zarr
        from zarr.codecs import BloscCodec

        store = folder / "a.zarr"
        codec = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
        array = zarr.create_array(
            store, shape=movie.shape, chunks=(1, *movie.shape[1:]), dtype=movie.dtype, compressors=codec
        )
        array[:] = movie
        yield "zarr", store, lambda: zarr.open_array(store, mode="r").__getitem__
    except ImportError as error:
        print(f"zarr left out: {error}", file=sys.stderr)
    try:
        import blosc2

        b2 = folder / "a.b2nd"
        params = {"codec": blosc2.Codec.ZSTD, "clevel": 1, "filters": [blosc2.Filter.BITSHUFFLE]}
        blosc2.asarray(movie, chunks=(1, *movie.shape[1:]), urlpath=str(b2), cparams=params, mode="w")
        yield "blosc2", b2, lambda: blosc2.open(str(b2)).__getitem__
    except ImportError as error:
        print(f"blosc2 left out: {error}", file=sys.stderr)


def random_frames(movie: np.ndarray, folder: Path, repeats: int) -> list[dict[str, Any]]:
    programs = [(name, path, opener, opener()) for name, path, opener in openers(movie, folder)]
    order = np.random.default_rng(3).integers(0, len(movie), repeats).tolist()
    times: dict[str, list[float]] = {name: [] for name, *_ in programs}
    for name, _, _, frame in programs:
        assert np.array_equal(np.asarray(frame(order[0])), movie[order[0]]), name
    for k in order:
        for name, _, _, frame in programs:
            times[name].append(timed(lambda frame=frame, k=k: frame(k)))
    rows = []
    for name, path, opener, _ in programs:
        size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
        rows.append(
            {
                "program": name,
                "frame_ms": 1000 * median(times[name]),
                "open_ms": 1000 * median([timed(opener) for _ in range(9)]),
                "ratio": movie.nbytes / size,
            }
        )
    return rows


# --- requests and size of the index --------------------------------------------------------------------------------


@contextmanager
def server(folder: Path) -> Iterator[Any]:
    path = Path(__file__).resolve().parent.parent / "tests" / "servers.py"
    spec = importlib.util.spec_from_file_location("servers", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["servers"] = module
    spec.loader.exec_module(module)
    with module.RangeServer(folder) as running:
        yield running


def requests(folder: Path) -> dict[str, int]:
    """Requests to open a file over HTTP, and for one frame of it."""
    with server(folder) as running, mrcz.open(f"{running.url}/a.mrcz") as reader:
        opened = len(running.requests)
        _ = reader[len(reader) // 2]
        return {"open": opened, "frame": len(running.requests) - opened}


def overhead(folder: Path) -> dict[str, float]:
    with mrcz.open(folder / "a.mrcz") as reader:
        trailer = reader.footer.trailer
        whole = trailer.end
        return {
            "footer_bytes": whole - trailer.start,
            "bytes_a_frame": (whole - trailer.start) / len(reader),
            "percent_of_file": 100 * (whole - trailer.start) / whole,
        }


# --- through the mount ---------------------------------------------------------------------------------------------


def mounted(folder: Path, repeats: int = 9) -> dict[str, float] | None:
    """Reading the movie from front to back: with our reader, frame by frame, and as a plain file through `mrcz mount`:
    a frame at a time, a MiB at a time, and again by frames. Milliseconds; None where FUSE is missing."""
    if not os.path.exists("/dev/fuse") or shutil.which("fusermount3") is None:
        print("mrcz mount left out: no FUSE", file=sys.stderr)
        return None
    archive, point = folder / "archive", folder / "mounted"
    archive.mkdir()
    point.mkdir()
    movie = archive / "a.mrcz"
    os.link(folder / "a.mrcz", movie)
    process = subprocess.Popen([sys.executable, "-m", "mrcz", "mount", str(archive), str(point)])
    try:
        while not os.path.ismount(point) and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.5)
        with mrcz.open(movie) as reader:
            frame = np.empty(reader.shape[1:], reader.dtype)
        piece = bytearray(1 << 20)

        def through(buffer: Any) -> None:
            with open(point / "a.mrcs", "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

        def directly() -> None:
            with mrcz.open(movie) as reader:
                for _ in reader:
                    pass

        times: dict[str, list[float]] = {"reader_ms": [], "mount_ms": [], "mount_mib_ms": [], "mount_again_ms": []}
        for _ in range(repeats):
            times["reader_ms"].append(timed(directly))
            for name, buffer in (("mount_ms", frame), ("mount_mib_ms", piece)):
                os.utime(movie)  # a new file, as far as the mount and the kernel know
                # The kernel drops what it kept of the old one when the new one is opened: no part of reading.
                open(point / "a.mrcs", "rb", buffering=0).close()
                times[name].append(timed(lambda buffer=buffer: through(buffer)))
            times["mount_again_ms"].append(timed(lambda: through(frame)))
        return {name: 1000 * median(values) for name, values in times.items()}
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


# --- metadata ------------------------------------------------------------------------------------------------------


def dictionary(megabytes: float) -> dict[str, Any]:
    """Random metadata of about that size as JSON: numbers, texts and lists in nested dicts, as in the paper."""
    rng = np.random.default_rng(11)
    groups: dict[str, Any] = {}
    size = 0.0
    while size < megabytes * 1e6:
        group = {
            "name": f"tile {len(groups)}",
            "stage": {axis: float(value) for axis, value in zip("xyzab", rng.normal(size=5), strict=True)},
            "shifts": rng.normal(size=100).tolist(),
            "counts": rng.integers(0, 1 << 20, 100).tolist(),
            "words": ["".join(chr(c) for c in rng.integers(97, 123, 12)) for _ in range(20)],
        }
        size += len(json.dumps(group)) + 15
        groups[f"group{len(groups):06d}"] = group
    return groups


def metadata_rows(megabytes: float, repeats: int) -> list[dict[str, Any]]:
    import lz4.block
    import zstandard

    from mrcz.container.metadata import pack, unpack

    data = dictionary(megabytes)
    encoders: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {
        "json": (lambda d: json.dumps(d).encode(), json.loads),
        "MessagePack": (pack, unpack),
    }
    for name in ("ujson", "orjson", "rapidjson"):
        if importlib.util.find_spec(name):
            module = importlib.import_module(name)
            encoders[name] = (
                lambda d, m=module: m.dumps(d) if isinstance(m.dumps(0), bytes) else m.dumps(d).encode(),
                module.loads,
            )
    compressors: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes, int], bytes]]] = {
        "": (lambda b: b, lambda b, n: b),
        " + lz4": (
            lambda b: lz4.block.compress(b, store_size=False),
            lambda b, n: lz4.block.decompress(b, uncompressed_size=n),
        ),
        " + zstd 1": (
            lambda b: zstandard.ZstdCompressor(level=1).compress(b),
            lambda b, n: zstandard.ZstdDecompressor().decompress(b),
        ),
    }
    rows = []
    for encoder, (dump, load) in encoders.items():
        for compressor, (squeeze, unsqueeze) in compressors.items():
            writes, reads = [], []
            stored = b""
            for _ in range(repeats):
                start = time.perf_counter()
                raw = dump(data)
                stored = squeeze(raw)
                middle = time.perf_counter()
                back = load(unsqueeze(stored, len(raw)))
                writes.append(middle - start)
                reads.append(time.perf_counter() - middle)
            assert back == data, encoder
            rows.append(
                {
                    "method": encoder + compressor,
                    "write_ms": 1000 * median(writes),
                    "read_ms": 1000 * median(reads),
                    "megabytes": len(stored) / 1e6,
                }
            )
    return rows


def table(rows: list[dict[str, Any]]) -> None:
    names = list(rows[0])
    print(" | ".join(f"{name:>18}" for name in names))
    for row in rows:
        cells = (f"{row[n]:18.3f}" if isinstance(row[n], float) else f"{row[n]:>18}" for n in names)
        print(" | ".join(cells))
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", help="where files go while measuring (default: the temporary folder)")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=100, help="random frames read by each program")
    parser.add_argument("--metadata", type=float, default=25.0, metavar="MB")
    parser.add_argument("--json", type=Path, metavar="PATH")
    args = parser.parse_args()
    movie = np.random.default_rng(1).poisson(1.0, (args.frames, args.size, args.size)).astype(np.uint8)
    with tempfile.TemporaryDirectory(dir=args.directory) as name:
        folder = Path(name)
        frames = random_frames(movie, folder, args.repeats)
        table(frames)
        asked, index, mount = requests(folder), overhead(folder), mounted(folder)
    print(f"requests to open over HTTP {asked['open']}, for a frame {asked['frame']}")
    share = f"{index['percent_of_file']:.5f} %"
    print(f"footer {index['footer_bytes']} bytes, {index['bytes_a_frame']:.1f} a frame, {share}\n")
    if mount is not None:
        table([mount])
    meta = metadata_rows(args.metadata, 3)
    table(meta)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        result = {
            "environment": describe(),
            "threads": threading.active_count(),
            "frames": frames,
            "requests": asked,
            "index": index,
            "mount": mount,
            "metadata": meta,
        }
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
