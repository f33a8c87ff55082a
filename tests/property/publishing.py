"""Many processes compress, restore, remove, replace and are killed in one folder; an observer looks for lost pixels.

A round is a folder with a few small files, each with pixels and a header of its own, and eight processes, forked from
this one, that run `mrcz.cli.main` on the same and on colliding names. A camera replaces sources meanwhile. Every few
milliseconds, or where a process asks for it between two calls to the system, all of them are stopped (SIGSTOP) and the
folder is looked at as it is at that instant. What must hold, always:

* the pixels and header of every source are there, verified, under a name that is not hidden;
* no visible file is half written;
* an archive stays what it is, unless somebody asked for it to be removed, and never has fewer frames than before;
* what a process said and its exit code are true: "done" means that an archive of the very source is there, "removed"
  that the source is gone, "skipped" that an archive of the very source was there, an error that the source still is;
* a process that was not killed with SIGKILL leaves no temporary file, and others only ``.NAME.XXXXXXXX.part|orig``.

Run by test_publishing.py for some seconds and by bench/stress for 1000 rounds on several file systems. A program of its
own because it forks: no thread may run in the process that does.

``python publishing.py FOLDER ROUNDS SEED [--seconds S] [--without link,rename] [--keep-going]``
"""

import argparse
import collections
import gzip
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from publishing_contents import SHAPE, Contents, marks
from publishing_plots import PLOTS
from publishing_processes import Violation
from publishing_round import Round

import mrcz
from mrcz.check.verify import verify
from mrcz.cli import main as mrcz_main


def warm(scratch: Path) -> None:
    """Import what the children need, before the first of them."""
    source = scratch / "warm.mrc"
    mrcz.write(source, np.zeros(SHAPE, np.int16))
    (scratch / "warm.mrc.gz").write_bytes(gzip.compress(source.read_bytes()))
    with open(os.devnull, "w") as null:
        out, err, sys.stdout, sys.stderr = sys.stdout, sys.stderr, null, null
        try:
            mrcz_main(["compress", "-n", "1", "-q", "--remove", str(scratch / "warm.mrc.gz")])
            mrcz_main(["compress", "-n", "1", "-q", "--json", "-f", str(source), "-o", str(scratch / "warm.mrcz")])
            mrcz_main(["decompress", "-n", "1", "-q", "-o", str(scratch / "w.mrc"), str(scratch / "warm.mrcz")])
            with mrcz.open(scratch / "warm.mrcz", "a", n_threads=1) as writer:
                writer.append(marks(0))
            verify(scratch / "warm.mrcz", n_threads=1)
        finally:
            sys.stdout, sys.stderr = out, err


def run(top: Path, rounds: int, seed: int, *, seconds: float, without: list[str], keep_going: bool, only: str) -> int:
    os.umask(0o022)
    scratch = Path(tempfile.mkdtemp(prefix="stress-"))
    (top / "probe").write_bytes(b"")
    warm(scratch)
    contents = Contents(scratch)
    totals: dict[str, collections.Counter] = {}
    violations: dict[str, int] = {}
    started = time.monotonic()
    done = 0
    if only:
        for kind in list(PLOTS):
            if kind not in only.split(","):
                del PLOTS[kind]
    for k in range(rounds):
        if time.monotonic() - started > seconds:
            break
        one = Round(top, scratch, seed + k, contents, without)
        try:
            facts = one.run()
            totals.setdefault(facts.pop("kind"), collections.Counter()).update(rounds=1, **facts)
        except Violation as what:
            one.freeze()
            for process in one.alive():
                os.kill(process.pid, signal.SIGKILL)
                os.waitpid(process.pid, 0)
            print(f"VIOLATION: {what}\n{one.story()}\n", file=sys.stderr, flush=True)
            short = re.sub(r"\d+", "N", f"{one.plot.kind}: {what!s}")[:60]
            violations[short] = violations.get(short, 0) + 1
            if not keep_going:
                return 1
        contents._seen.clear()
        shutil.rmtree(one.folder)
        done += 1
    shutil.rmtree(scratch)
    (top / "probe").unlink()
    report = {"rounds": done, "seconds": round(time.monotonic() - started, 1), "violations": violations}
    print(json.dumps({**report, "kinds": totals}))
    return 1 if violations else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("rounds", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--seconds", type=float, default=1e9, help="no new round after so long")
    parser.add_argument("--without", default="", help="link, rename: calls that fail as on lesser file systems")
    parser.add_argument("--keep-going", action="store_true", help="count violations instead of stopping at the first")
    parser.add_argument("--only", default="", help=f"some of {', '.join(PLOTS)}")
    args = parser.parse_args()
    return run(
        args.folder.resolve(),
        args.rounds,
        args.seed,
        seconds=args.seconds,
        without=[name for name in args.without.split(",") if name],
        keep_going=args.keep_going,
        only=args.only,
    )


if __name__ == "__main__":
    sys.exit(main())
