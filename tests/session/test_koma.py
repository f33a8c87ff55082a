"""A session that is saved and taken up again, and what is in the file."""

import os
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pytest

import mrcz
from mrcz.correct import Correction, Koma, koma_references
from mrcz.session.koma import KomaSession, koma_session


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


# ---- one call --------------------------------------------------------------------------------------------------------


def test_each_stack_gets_the_reference_of_the_others(tmp_path, stacks):
    """What the files give is what the arrays give, stack by stack, and said in the report."""
    fits = [Correction.fit(mrcz.read(path)) for path in stacks]
    frames = [mrcz.read(path) for path in stacks]
    means = [fit.correct_sum(s.sum(0), len(s)) / np.float32(len(s)) for fit, s in zip(fits, frames, strict=True)]
    references = koma_references(means, 1, frames=[4] * 5)
    results = {r.source: r for r in koma_session(stacks, Koma(1), outputs(tmp_path))}
    assert list(results) == stacks
    for number, (path, reference) in enumerate(zip(stacks, references, strict=True)):
        report = results[path].report
        assert (report["number"], report["reference_stacks"], report["frames"]) == (number, reference.stacks, 4)
        assert report["pattern_factors"] == reference.factors and "R_before" not in report
        correction = Correction(outliers=fits[number].outliers, koma=reference)
        made = mrcz.read(tmp_path / f"s{number}_sum.mrc")
        np.testing.assert_allclose(np.squeeze(made), correction.sum(frames[number]), rtol=1e-5)
        assert np.array_equal(results[path].correction.koma, reference.pattern)


def test_a_session_goes_on_where_stacks_wait(tmp_path, stacks):
    koma, waiting = Koma(1), {}
    first = list(koma_session(stacks[:4], koma, outputs(tmp_path), finish=False, waiting=waiting, method=None))
    assert [r.source for r in first] == stacks[:3] and waiting == {3: stacks[3]} and koma.pushed == 4
    rest = list(koma_session(stacks[4:], koma, outputs(tmp_path), waiting=waiting, method=None))
    assert [r.source for r in rest] == stacks[3:] and waiting == {}
    assert list(koma_session([], Koma(1), outputs(tmp_path))) == []


def test_no_product_replaces_a_stack_of_the_session(tmp_path, stacks):
    """Neither one that came before nor one that waits."""
    koma, waiting = Koma(1), {}
    before = {path: Path(path).read_bytes() for path in stacks}
    list(koma_session(stacks[:3], koma, lambda source: {}, finish=False, waiting=waiting))
    assert list(waiting.values()) == [stacks[2]]
    bad = list(
        koma_session(stacks[3:4], koma, lambda s: {"stack": stacks[2]}, finish=False, waiting=waiting, overwrite="any")
    )
    assert [r.error for r in bad] == [f"{stacks[2]} is a raw stack itself"] and koma.pushed == 3
    results = list(koma_session(stacks[:2], Koma(1), lambda s: {"stack": stacks[0]}, overwrite="any"))
    assert [r.ok for r in results] == [False, False] and not results[0].damaged
    assert {path: Path(path).read_bytes() for path in stacks} == before


def test_what_is_there_is_replaced_only_if_asked(tmp_path, stacks):
    assert all(r.ok for r in koma_session(stacks[:3], Koma(1), outputs(tmp_path), method=None))
    again = list(koma_session(stacks[:3], Koma(1), outputs(tmp_path), method=None))
    assert len(again) == 3 and all("exists" in r.error for r in again)
    assert all(r.ok for r in koma_session(stacks[:3], Koma(1), outputs(tmp_path), method=None, overwrite=True))


def test_excluded_by_number_and_source(stacks):
    asked = []

    def exclude(number, source):
        asked.append((number, source))
        return number == 1

    koma = Koma(2)
    results = list(koma_session(stacks, koma, lambda source: {}, exclude=exclude, method=None))
    assert asked == list(enumerate(stacks)) and koma.to_dict()["included"] == 4
    assert [r.report["reference_stacks"] for r in results] == [3] * 5


def test_progress_says_which_stack(tmp_path, stacks):
    told = []
    list(koma_session(stacks[:3], Koma(1), outputs(tmp_path), method=None, progress=lambda *args: told.append(args)))
    assert told == [(path, 4, 4) for path in stacks[:3]]


def test_a_stack_that_goes_while_it_waits(tmp_path, stacks):
    """It is told; it served in the references of the others, which go on."""
    results = []
    for result in koma_session(stacks, Koma(1), outputs(tmp_path), method=None):
        if not results:
            os.unlink(stacks[3])  # measured already, or measured next: either way it is gone when it is to be written
        results.append(result)
    assert {r.source for r in results if not r.ok} == {stacks[3]} and len(results) == 5


def test_what_is_asked_for_reaches_both_passes(tmp_path, stacks):
    """A stack that is cut short, and how the corrected ones are stored."""
    cut = str(tmp_path / "s5.mrc")
    mrcz.write(cut, mrcz.read(stacks[0]))
    os.truncate(cut, os.path.getsize(cut) - 40)

    def made(source):
        return {"stack": str(tmp_path / f"{os.path.basename(source)[:2]}_c.mrcz")}

    names = [*stacks[:2], cut]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mrcz.FormatWarning)  # it is no warning that stops the cut one
        results = list(koma_session(names, Koma(1), made, method=None))
    assert [r.source for r in results if not r.ok] == [cut] and len(results) == 3
    assert all(r.correction.outliers is None for r in results if r.ok)
    with pytest.warns(mrcz.FormatWarning):
        results = list(
            koma_session(names, Koma(1), made, permissive=True, overwrite=True, codec="lz4", measure=True, n_threads=1)
        )
    assert [r.n_frames for r in results] == [4, 4, 3] and all("R_before" in r.report for r in results)
    for name in ("s0_c.mrcz", "s5_c.mrcz"):
        with mrcz.open(tmp_path / name) as reader:
            assert reader.codec == "lz4" and len(reader) == (4 if name[1] == "0" else 3)


def test_bytes_without_a_sign(tmp_path, rng):
    """Mode 0 of other programs, whose counts go up to 255: they are read so in both passes."""
    frames = rng.integers(100, 150, (3, 8, 8)).astype("u1")
    names = [str(tmp_path / f"b{k}.mrc") for k in range(2)]
    for name in names:
        with mrcfile.new(name) as file:
            file.set_data(frames.view("i1"))
    (first, second) = koma_session(names, Koma(1), outputs(tmp_path), signed_bytes=False, method=None)
    assert first.ok and second.ok
    made = np.squeeze(mrcz.read(tmp_path / "b0_sum.mrc"))
    assert made.mean() == pytest.approx(frames.sum(0).mean(), rel=1e-6)


def test_a_url_is_read_with_its_options(stacks, monkeypatch):
    from mrcz.storage.remote import RemoteSource

    seen = []
    original = RemoteSource.__init__

    def watched(self, url, options=None):
        seen.append(options)
        original(self, url, options)

    monkeypatch.setattr(RemoteSource, "__init__", watched)
    urls = [f"file://{path}" for path in stacks[:2]]
    results = list(koma_session(urls, Koma(1), lambda source: {}, method=None, storage_options={"auto_mkdir": False}))
    assert [r.source for r in results] == urls and all(r.ok for r in results)
    assert len(seen) == 4 and all(options == {"auto_mkdir": False} for options in seen)  # two passes each


# ---- what is kept ----------------------------------------------------------------------------------------------------


def test_the_state_keeps_where_things_go(tmp_path, monkeypatch, stacks):
    monkeypatch.chdir(tmp_path)
    session = KomaSession(Koma(1), folders={"s1.mrcz": "made", "s2.mrcz": None})
    list(session.correct(["s0.mrcz", "s1.mrcz", "s2.mrcz"], lambda source: {}, finish=False))
    assert session.waiting == {2: "s2.mrcz"} and session.done == stacks[:3]
    session.waiting[1] = "s1.mrcz"
    session.save("koma.state")
    again = KomaSession.load("koma.state", n_threads=1)
    assert again.waiting == {1: stacks[1], 2: stacks[2]} and again.done == stacks[:3] and again.koma.pushed == 3
    assert again.folders == {stacks[1]: str(tmp_path / "made"), stacks[2]: None}
    assert again.unknown(["s0.mrcz", "s2.mrcz", "x.mrcz", "a/x.mrcz", "b.mrcz"], []) == ["b.mrcz", "x.mrcz"]
    assert again.new(["s0.mrcz", "s4.mrcz"]) == ["s4.mrcz"]


def test_names_to_exclude_may_have_folders(stacks):
    session = KomaSession(Koma(1))
    list(session.correct(stacks, lambda source: {}, exclude=["/elsewhere/s1.mrcz", "s2.mrcz"]))
    assert session.koma.to_dict()["included"] == 3
