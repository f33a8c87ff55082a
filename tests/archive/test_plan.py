"""Plans: which file becomes which, and what is refused before anything is touched."""

import os

import pytest

from mrcz.archive import batch


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
    assert plan.jobs == () and problems(plan) == ["is a directory"]
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
    assert plan.jobs == () and problems(plan)[0] == f"{session / 'a.mrcz'} exists"
    assert plan.refused[0].reason == "exists" and plan.refused[0].destination == str(session / "a.mrcz")
    assert plan.refused[0].status == "refused" and not plan.refused[0].ok
    assert len(batch.plan("compress", [session / "a.mrc"], overwrite=True).jobs) == 1
    (job,) = batch.plan("compress", [session / "a.mrc"], skip_existing=True).jobs
    assert batch.run_job(job).status == "refused"  # what stands there is no archive of it


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


def test_unknown_action():
    with pytest.raises(ValueError, match="action"):
        batch.plan("explode", [])
