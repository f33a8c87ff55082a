"""Jobs: what becomes of each, here and elsewhere, and what a result says."""

import json
import os
import pickle
import re

import numpy as np

import mrcz
from mrcz.archive import batch
from mrcz.cli._advice import advised


def test_looks_again_before_it_writes(session):
    """A file that appears between plan and job is safe, too."""
    mrcz.write(session / "a.mrc", np.zeros((2, 8, 8), "u1"), overwrite=True)
    (job,) = batch.plan("compress", [session / "a.mrc"]).jobs
    (session / "a.mrcz").write_bytes(b"mine")
    result = batch.run_job(job)
    assert result.status == "refused" and (session / "a.mrcz").read_bytes() == b"mine"


def test_jobs_and_results_are_plain_data(session):
    plan = batch.plan("compress", [session], recursive=True, options={"level": 3}, remove=True)
    assert pickle.loads(pickle.dumps(plan)) == plan
    results = list(batch.run(plan.jobs))
    assert [r.status for r in results] == ["failed"] * 4 and all(r.damaged for r in results)  # empty files
    assert pickle.loads(pickle.dumps(results)) == results
    json.dumps([r.asdict() for r in results])
    assert (session / "a.mrc").exists()


def test_jobs_run_elsewhere(tmp_path, rng):
    """Any executor will do; results come in the order of the jobs, failures included."""
    from concurrent.futures import ThreadPoolExecutor

    for i in range(4):
        mrcz.write(tmp_path / f"{i}.mrc", rng.poisson(1, (3, 16, 16)).astype("u1"))
    (tmp_path / "2.mrc").write_bytes(b"short")
    plan = batch.plan("compress", [tmp_path], recursive=True, options={"n_threads": 1})
    with ThreadPoolExecutor(2) as pool:
        results = list(batch.run(plan.jobs, executor=pool))
    assert [os.path.basename(r.source) for r in results] == ["0.mrc", "1.mrc", "2.mrc", "3.mrc"]
    assert [r.status for r in results] == ["done", "done", "failed", "done"]


def test_what_a_job_says(tmp_path, rng):
    """In no result are options of the command line; the command line adds them by the reason."""
    stack = rng.poisson(1, (3, 16, 16)).astype("u1")
    for name in ("a.mrc", "b.mrc", "c.mrc"):
        mrcz.write(tmp_path / name, stack)
    mrcz.write(tmp_path / "b.mrc", 1 - np.minimum(stack, 1), overwrite=True)
    mrcz.write(tmp_path / "d.mrc", stack)
    mrcz.compress(tmp_path / "b.mrc", tmp_path / "b.mrcz")
    (tmp_path / "c.mrc").write_bytes((tmp_path / "c.mrc").read_bytes() + b"more")
    whole = (tmp_path / "d.mrc").read_bytes()
    (tmp_path / "d.mrc").write_bytes(whole[: 1024 + 300])
    mrcz.compress(tmp_path / "a.mrc", tmp_path / "e.mrcz")
    broken = bytearray((tmp_path / "e.mrcz").read_bytes())
    broken[1024 + 40] ^= 255
    (tmp_path / "e.mrcz").write_bytes(broken)
    (tmp_path / "f.mrcz").write_bytes(b"")

    def reason(action, name, new, **options):
        result = batch.run_job(batch.Job(action, str(tmp_path / name), str(tmp_path / new), **options))
        assert not result.ok and not re.search(r"(^|\s)-{1,2}[a-z]", result.error), result.error
        told = advised(result).error
        assert told.startswith(result.error + "; ") and re.search(r"(^|\s)-{1,2}[a-z]|mrcz recover", told), told
        return result.reason

    assert reason("compress", "a.mrc", "b.mrcz", overwrite=True) == "of another source"
    assert reason("compress", "a.mrc", "b.mrcz", skip_existing=True) == "another file"
    assert reason("compress", "a.mrc", "b.mrcz") == "exists"
    assert reason("compress", "a.mrc", "f.mrcz") == "exists, empty"
    assert reason("compress", "c.mrc", "new.mrcz") == "trailing bytes"
    assert reason("compress", "d.mrc", "new.mrcz") == "contradictory"
    assert reason("decompress", "e.mrcz", "new.mrc") == "damaged frame"
    assert sorted(os.listdir(tmp_path)) == ["a.mrc", "b.mrc", "b.mrcz", "c.mrc", "d.mrc", "e.mrcz", "f.mrcz"]


def test_what_is_lost_is_a_note(tmp_path):
    mrcz.write(tmp_path / "b.mrc", np.zeros((2, 8, 8), "u1"))
    mrcz.compress(tmp_path / "b.mrc", tmp_path / "a.mrcz")
    with mrcz.open(tmp_path / "a.mrcz", "a", metadata={"drift": 1.0}):
        pass
    result = batch.run_job(batch.Job("decompress", str(tmp_path / "a.mrcz"), str(tmp_path / "a.mrc")))
    assert result.ok and result.error is None and result.n_frames == 2
    assert result.notes == ("a plain file has no place for the metadata drift",)
