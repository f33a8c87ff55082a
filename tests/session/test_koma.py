"""A session that is saved and taken up again, and what is in the file."""

import os

import numpy as np
import pytest

import mrcz
from mrcz.correct import Koma
from mrcz.session.koma import KomaSession


@pytest.fixture
def stacks(tmp_path, rng):
    pattern = rng.normal(0, 2, (32, 40))
    names = []
    for number in range(5):
        frames = rng.poisson(40.0, (4, 32, 40)) + pattern
        names.append(str(tmp_path / f"s{number}.mrcz"))
        mrcz.write(names[-1], np.round(frames).astype("i2"))
    return names


def outputs(folder):
    return lambda source: {"sum": str(folder / f"{os.path.basename(source)[:2]}_sum.mrc")}


def test_taken_up_again_it_makes_the_same(tmp_path, stacks):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = KomaSession(Koma(1))
    assert all(result.ok for result in whole.correct(stacks, outputs(tmp_path / "whole")))
    state = tmp_path / "koma.state"
    KomaSession(Koma(1)).save(state)
    for part in (stacks[:3], stacks[:4], stacks):
        session = KomaSession.load(state)
        last = part is stacks
        assert all(result.ok for result in session.correct(part, outputs(tmp_path / "parts"), finish=last))
        assert session.new(part) == [] and [os.path.basename(p) for p in session.done] == [
            os.path.basename(p) for p in part
        ]
        session.save(state)
    made = sorted(os.listdir(tmp_path / "whole"))
    assert made == sorted(os.listdir(tmp_path / "parts")) == [f"s{k}_sum.mrc" for k in range(5)]
    for name in made:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_a_stack_that_cannot_be_read_is_no_part_of_it(tmp_path, stacks):
    with open(stacks[2], "wb") as file:
        file.write(b"nothing")
    session = KomaSession(Koma(1))
    results = list(session.correct(stacks, lambda source: {}))
    assert {os.path.basename(r.source): r.ok for r in results} == {f"s{k}.mrcz": k != 2 for k in range(5)}
    bad = next(r for r in results if not r.ok)
    assert bad.damaged and bad.n_frames == 0 and all(r.n_frames == 4 for r in results if r.ok)
    assert session.new(stacks) == [stacks[2]]


def test_excluded_stacks(tmp_path, stacks):
    session = KomaSession(Koma(1))
    assert session.unknown(["s1.mrcz", "/elsewhere/s9.mrcz"], stacks) == ["s9.mrcz"]
    results = {r.source: r for r in session.correct(stacks, lambda source: {}, exclude=["s4.mrcz"])}
    assert results[stacks[4]].report["reference_stacks"] == 2  # it gets a reference, and serves in none
    assert session.koma.to_dict()["included"] == 4


def test_too_few_stacks_are_in_all_the_same(tmp_path, stacks):
    session = KomaSession(Koma(2))
    with pytest.raises(ValueError, match="two stacks"):
        list(session.correct(stacks[:1], lambda source: {}))
    assert session.new(stacks) == stacks[1:] and list(session.waiting.values()) == stacks[:1]


def test_the_state_is_whole_or_as_it_was(tmp_path, monkeypatch):
    state = tmp_path / "koma.state"
    KomaSession(Koma(3)).save(state)
    before = state.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mrcz.session.koma.pack", full)
    with pytest.raises(OSError, match="No space"):
        KomaSession(Koma(4)).save(state)
    assert state.read_bytes() == before and os.listdir(tmp_path) == ["koma.state"]
    assert KomaSession.load(state).koma.radius == 3


@pytest.mark.parametrize("content", [b"", b"no state", b"\x80", b"\x81\xa4koma\x80"])
def test_anything_else_is_no_state(tmp_path, content):
    (tmp_path / "koma.state").write_bytes(content)
    with pytest.raises(mrcz.FormatError, match="is no state of mrcz koma"):
        KomaSession.load(tmp_path / "koma.state")
