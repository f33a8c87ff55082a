"""Many processes on the same and on colliding names, killed at random, on several file systems.

What happens in a round, and what must hold at every instant of it, is told in tests/property/publishing.py. Here it is
run for long, one file system after the other:

* ``here``: a folder of TMPDIR, on whatever file system that is;
* ``memory``: /dev/shm;
* ``links``: as ``here``, but the rename that replaces nothing fails, as it does on NFS, so that links are made;
* ``nothing``: as ``here``, but neither that rename nor links;
* ``exfat``, ``vfat``: an image on a loop device: no links, no such rename (with exfat-fuse), names without case. Needs
  root, mkfs.exfat or mkfs.vfat, and the kernel's file system or mount.exfat-fuse.

``python bench/stress/run.py [--on here,memory,…] [--rounds 1000] [--seed 1] [--json FILE]``

Exit code 1 if anything was seen that must not be; the whole story of that round is then on stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "tests" / "property" / "publishing.py"
WITHOUT = {"links": "rename", "nothing": "rename,link"}


class Missing(Exception):
    """This machine has no such file system; says why."""


@contextlib.contextmanager
def place(name: str) -> Iterator[Path]:
    """A folder on that file system, empty, and gone afterwards."""
    if name == "memory" and not os.path.isdir("/dev/shm"):
        raise Missing("no /dev/shm")
    folder = Path(tempfile.mkdtemp(prefix=f"mrcz-stress-{name}-", dir="/dev/shm" if name == "memory" else None))
    try:
        if name in ("exfat", "vfat"):
            with mounted(name, folder):
                yield folder / "mount"
        else:
            yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def mounted(kind: str, folder: Path) -> Iterator[None]:
    if os.geteuid() != 0:
        raise Missing("only root mounts images")
    if shutil.which(f"mkfs.{kind}") is None:
        raise Missing(f"no mkfs.{kind}")
    image, point = folder / "image", folder / "mount"
    with open(image, "wb") as file:
        file.truncate(256 << 20)
    point.mkdir()
    run(f"mkfs.{kind}", image)
    device = run("losetup", "--find", "--show", image).strip()
    try:
        known = kind in Path("/proc/filesystems").read_text().split()
        if not known and shutil.which("modprobe"):
            known = subprocess.run(["modprobe", "-q", kind], capture_output=True).returncode == 0
        if known:
            run("mount", "-t", kind, device, point)
        elif kind == "exfat" and shutil.which("mount.exfat-fuse"):
            run("mount.exfat-fuse", device, point)
        else:
            raise Missing(f"neither this kernel nor a program mounts {kind}")
        try:
            yield
        finally:
            run("umount", point)
    finally:
        run("losetup", "--detach", device)


def run(*words: str | os.PathLike) -> str:
    done = subprocess.run(list(map(os.fspath, words)), capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"{' '.join(map(os.fspath, words))}: {done.stderr.strip()}")
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", default="here,memory,links,nothing,exfat,vfat", help="default: all that there is")
    parser.add_argument("--rounds", type=int, default=1000, help="on each (default: 1000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write what happened to this file")
    args = parser.parse_args()
    reports, worst = {}, 0
    for name in args.on.split(","):
        try:
            with place(name) as folder:
                done = subprocess.run(
                    [sys.executable, PROGRAM, folder, str(args.rounds), str(args.seed), "--keep-going"]
                    + ["--without", WITHOUT.get(name, "")],
                    stdout=subprocess.PIPE,
                    text=True,
                )
        except Missing as reason:
            print(f"{name}: left out, {reason}", flush=True)
            continue
        worst = max(worst, done.returncode)
        if done.stdout:
            reports[name] = json.loads(done.stdout)
            totals = reports[name]
            seen = totals["violations"] or "all well"
            print(f"{name}: {totals['rounds']} rounds, {totals['seconds']} s, {seen}", flush=True)
        else:
            print(f"{name}: ended with {done.returncode}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(reports, indent=1) + "\n")
    return 1 if worst else 0


if __name__ == "__main__":
    sys.exit(main())
