"""Plans: which file becomes which, and what is refused before anything is touched."""

import json
import os
import pickle

import numpy as np
import pytest

import mrcz
from mrcz.archive import batch


@pytest.fixture
def session(tmp_path):
    for name in ["a.mrc", "b.mrcs", "sub/c.map", "sub/d.mrc.gz", "sub/notes.txt", "sub/.hidden.mrc", "old.mrcz"]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def pairs(plan, top):
    return {os.path.relpath(j.source, top): os.path.relpath(j.destination, top) for j in plan.jobs}


def problems(plan):
    return [result.error for result in plan.refused]


def test_beside_the_input(session):
    plan = batch.plan("compress", [session / "a.mrc", session / "sub/d.mrc.gz"])
    assert pairs(plan, session) == {"a.mrc": "a.mrcz", "sub/d.mrc.gz": "sub/d.mrc.gz.mrcz"}
    assert plan.refused == ()


def test_directories_need_recursive(session):
    plan = batch.plan("compress", [session])
    assert plan.jobs == () and "-r" in problems(plan)[0]
    plan = batch.plan("compress", [session], recursive=True)
    assert pairs(plan, session) == {
        "a.mrc": "a.mrcz",
        "b.mrcs": "b.mrcs.mrcz",
        "sub/c.map": "sub/c.map.mrcz",
        "sub/d.mrc.gz": "sub/d.mrc.gz.mrcz",
    }


def test_output_directory_keeps_the_tree(session):
    plan = batch.plan("compress", [session], recursive=True, output=session / "out")
    assert set(pairs(plan, session).values()) == {
        "out/a.mrcz",
        "out/b.mrcs.mrcz",
        "out/sub/c.map.mrcz",
        "out/sub/d.mrc.gz.mrcz",
    }


def test_output_for_one_input(session):
    assert pairs(batch.plan("compress", [session / "a.mrc"], output=session / "x.y"), session) == {"a.mrc": "x.y"}
    (session / "there").mkdir()
    assert pairs(batch.plan("compress", [session / "a.mrc"], output=session / "there"), session) == {
        "a.mrc": "there/a.mrcz"
    }
    new = f"{session / 'new'}/"
    assert pairs(batch.plan("compress", [session / "a.mrc"], output=new), session) == {"a.mrc": "new/a.mrcz"}


def test_one_file_for_many_inputs_is_a_usage_error(session):
    with pytest.raises(ValueError, match="several inputs"):
        batch.plan("compress", [session / "a.mrc", session / "b.mrcs"], output=session / "x.mrcz")


def test_patterns(session):
    plan = batch.plan("compress", [session / "*.mrc*"])
    assert pairs(plan, session) == {"a.mrc": "a.mrcz", "b.mrcs": "b.mrcs.mrcz"}
    assert "input itself" in problems(plan)[0]  # old.mrcz -> old.mrcz
    assert problems(batch.plan("compress", [session / "*.nothing"])) == ["no file matches"]
    odd = session / "x[1].mrc"  # a name, not a pattern
    odd.write_bytes(b"")
    assert pairs(batch.plan("compress", [odd]), session) == {"x[1].mrc": "x[1].mrcz"}


def test_nothing_is_overwritten(session):
    (session / "a.mrcz").write_bytes(b"mine")
    plan = batch.plan("compress", [session / "a.mrc"])
    assert plan.jobs == () and "--force" in problems(plan)[0]
    assert plan.refused[0].status == "refused" and not plan.refused[0].ok
    assert len(batch.plan("compress", [session / "a.mrc"], overwrite=True).jobs) == 1
    (job,) = batch.plan("compress", [session / "a.mrc"], skip_existing=True).jobs
    assert batch.run_job(job).status == "refused"  # what stands there is no archive of it


def test_looks_again_before_it_writes(session):
    """A file that appears between plan and job is safe, too."""
    mrcz.write(session / "a.mrc", np.zeros((2, 8, 8), "u1"), overwrite=True)
    (job,) = batch.plan("compress", [session / "a.mrc"]).jobs
    (session / "a.mrcz").write_bytes(b"mine")
    result = batch.run_job(job)
    assert result.status == "refused" and (session / "a.mrcz").read_bytes() == b"mine"


def test_two_inputs_never_share_a_destination(session):
    (session / "a").write_bytes(b"")
    plan = batch.plan("compress", [session / "a.mrc", session / "a"])
    assert pairs(plan, session) == {"a.mrc": "a.mrcz"}
    assert "as" in problems(plan)[0] and "a.mrc" in problems(plan)[0]


def test_an_input_is_never_an_output(session):
    for output in ["a.mrc", "sub/../a.mrc"]:
        plan = batch.plan("compress", [session / "a.mrc"], output=session / output, overwrite=True)
        assert plan.jobs == () and "input itself" in problems(plan)[0]
    link = session / "link.mrcz"
    link.symlink_to(session / "a.mrc")
    plan = batch.plan("compress", [session / "a.mrc"], output=link, overwrite=True)
    assert plan.jobs == () and "input itself" in problems(plan)[0]


def test_named_twice_is_done_once(session):
    plan = batch.plan("compress", [session / "a.mrc", session / "a.m*c", session / "sub/../a.mrc"])
    assert len(plan.jobs) == 1 and plan.refused == ()


def test_missing_and_directory(session):
    plan = batch.plan("compress", [session / "none.mrc"])
    assert problems(plan) == ["no such file"]
    plan = batch.plan("decompress", [session / "sub"], recursive=True)
    assert "holds no file" in problems(plan)[0]


def test_decompress_names(session):
    plan = batch.plan("decompress", [session / "old.mrcz"])
    assert pairs(plan, session) == {"old.mrcz": "old.mrc"}
    plan = batch.plan("decompress", [session / "old.mrcz"], suffix=".st")
    assert pairs(plan, session) == {"old.mrcz": "old.st"}


def test_dotted_names(tmp_path):
    for name in ["x.mrc.mdoc", "stack.0001", "plain"]:
        (tmp_path / name).write_bytes(b"")
    plan = batch.plan("compress", [tmp_path / "x.mrc.mdoc", tmp_path / "stack.0001", tmp_path / "plain"])
    assert set(pairs(plan, tmp_path).values()) == {"x.mrc.mdoc.mrcz", "stack.0001.mrcz", "plain.mrcz"}


def test_jobs_and_results_are_plain_data(session):
    plan = batch.plan("compress", [session], recursive=True, options={"level": 3}, remove=True)
    assert pickle.loads(pickle.dumps(plan)) == plan
    results = list(batch.run(plan.jobs))
    assert [r.status for r in results] == ["failed"] * 4 and all(r.damaged for r in results)  # empty files
    assert pickle.loads(pickle.dumps(results)) == results
    json.dumps([r.asdict() for r in results])
    assert (session / "a.mrc").exists()


def test_unknown_action():
    with pytest.raises(ValueError, match="action"):
        batch.plan("explode", [])


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
