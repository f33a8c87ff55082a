"""What flush, close and --remove promise holds when the power goes: tried on a model disk, at every instant.

`model_disk` tells what may be left of a file that was being written: any part of what was not synchronised.
"""

import contextlib
import io
import os
import random
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mrcz
from mrcz import cli
from mrcz.file import growing as growth
from mrcz.storage import whole

from .model_disk import Ledger

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
FRAMES = {
    series: [np.random.default_rng((ord(series), k)).poisson(1.0, (6, 40)).astype(np.uint8) for k in range(40)]
    for series in "ab"
}
METADATA = {"kept": b"as it was"}  # bytes find no place in JSON, so that it is the footer that has to be there


@pytest.fixture
def disk(monkeypatch):
    """Put a model disk in place."""

    def put(existing=(), names="rename"):
        ledger = Ledger(existing, names=names)
        monkeypatch.setattr(growth, "_GAP", 2000)  # bytes, so that it is used up now and then
        monkeypatch.setattr(growth.GrowingFile, "disk", ledger)
        monkeypatch.setattr(whole.NewFile, "disk", ledger)
        real = os.mkdir
        monkeypatch.setattr(os, "mkdir", lambda path, *rest: (real(path, *rest), ledger.folder(path)))
        return ledger

    return put


def frames_in(data):
    """Frames a reader gets, those it may not get left out; the metadata are there too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mrcz.FormatWarning)
        with mrcz.open(io.BytesIO(data), n_threads=1) as reader:
            frames = []
            assert reader.metadata == (METADATA if reader.is_compressed else {})
            for k in range(len(reader)):
                try:
                    frames.append(reader[k])
                except mrcz.MrczError:
                    break
            return frames


class Judge:
    """Looks at what is left, each content once."""

    def __init__(self):
        self.known = {}
        self.looks = 0

    def series_and_count(self, data):
        """Which frames are in a file; none may be wrong."""
        if data not in self.known:
            self.looks += 1
            frames = frames_in(data)
            found = None
            for series, wanted in FRAMES.items():
                if frames and np.array_equal(frames[0], wanted[0]):
                    found = series
            for k, frame in enumerate(frames):
                assert found is not None and np.array_equal(frame, FRAMES[found][k]), f"frame {k} is wrong"
            self.known[data] = found, len(frames)
        return self.known[data]

    def check(self, promised, outcome, path, replacing=None):
        """*promised*: (series, frames) at least, or None; *replacing*: another series that may have taken its place."""
        data = outcome.get(str(path))
        if promised is None and (data is None or not data):
            return
        assert data is not None, f"{promised} were promised, there is no file"
        series, count = self.series_and_count(data)
        if series == replacing and replacing is not None:
            assert count
            return
        assert promised is None or (series == promised[0] and count >= promised[1]), (promised, series, count)


def live(path, ledger, series, had, actions, end, *, mode, dtype=np.uint8, **options):
    """Write frames as told; returns how many were promised in the end."""
    k = had
    frames = FRAMES[series]
    kept = had
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with mrcz.open(path, mode, n_threads=1, **options) as writer:
                for action in actions:
                    if action == "flush":
                        if k:
                            writer.flush()
                            ledger.promise((series, k))
                            kept = k
                    else:
                        writer.extend(np.stack(frames[k : k + action]).astype(dtype))
                        k += action
                if end == "abort":
                    raise KeyError
        except KeyError:
            return kept
    ledger.promise((series, k))
    return k


FIRST = {
    "one frame": [1],
    "flushed": [2, "flush", 1],
    "flushed often": [1, "flush", 1, "flush", 2, "flush", 1],
}
LATER = {
    "nothing": [],
    "one": [1],
    "flushed": [1, "flush", 2],
    "flushed often": [2, "flush", 1, "flush", "flush", 3, "flush"],
}


@pytest.mark.parametrize("names", ["rename", "link", "neither"])
@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("actions", sorted(FIRST))
def test_new_file(tmp_path, disk, names, actions, end):
    path = tmp_path / "a.mrcz"
    ledger, judge = disk(names=names), Judge()
    live(path, ledger, "a", 0, FIRST[actions], end, mode="w", metadata=METADATA)
    for promised, outcome in ledger.after_power_loss(random.Random(1), 200):
        judge.check(promised, outcome, path)
    assert judge.looks or (end == "abort" and "flush" not in FIRST[actions])


@pytest.mark.parametrize("codec", ["zstd", "none"])
@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("actions", sorted(LATER))
def test_appending(tmp_path, disk, actions, end, codec):
    path = tmp_path / ("a.mrcz" if codec == "zstd" else "a.mrc")
    mrcz.write(path, np.stack(FRAMES["a"][:3]), codec=codec, metadata=METADATA if codec == "zstd" else None)
    ledger, judge = disk([path]), Judge()
    ledger.promise(("a", 3))
    live(path, ledger, "a", 3, LATER[actions], end, mode="a")
    for promised, outcome in ledger.after_power_loss(random.Random(1), 200):
        judge.check(promised or ("a", 3), outcome, path)


@pytest.mark.parametrize("actions", ["flushed", "flushed often"])
def test_appending_after_the_power_went(tmp_path, disk, actions):
    """The next append takes what was promised and what is whole behind it, whatever instant that one ends at."""
    path, again = tmp_path / "a.mrcz", tmp_path / "b.mrcz"
    mrcz.write(path, np.stack(FRAMES["a"][:3]), metadata=METADATA)
    ledger, judge, dice = disk([path]), Judge(), random.Random(1)
    ledger.promise(("a", 3))
    live(path, ledger, "a", 3, LATER[actions], "close", mode="a")
    seen, refused, found = set(), 0, 0
    for promised, outcome in ledger.after_power_loss(random.Random(1), 200):
        data = outcome[str(path)]
        if data in seen:
            continue
        seen.add(data)
        had = max((promised or ("a", 3))[1], judge.series_and_count(data)[1])
        again.write_bytes(data)
        second = disk([again])
        second.promise(("a", had))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", mrcz.FormatWarning)
                writer = mrcz.open(again, "a", n_threads=1)
        except mrcz.MrczError as error:
            # Rubbish where nothing was written: it could be anything, and stays for `mrcz recover`.
            assert "recover" in str(error) and again.read_bytes() == data
            refused += 1
            continue
        with writer:
            assert had <= len(writer) <= had + 3
            found += len(writer) - had
            kept = len(writer)
            second.promise(("a", kept))
            writer.append(FRAMES["a"][kept])
        second.promise(("a", kept + 1))
        closed = again.read_bytes()
        assert mrcz.verify(again).ok and judge.series_and_count(again.read_bytes()) == ("a", kept + 1)
        for promised_now, outcome_now in second.after_power_loss(dice, 6):
            judge.check(promised_now or ("a", had), outcome_now, again)
            assert promised_now != ("a", kept + 1) or outcome_now[str(again)] == closed
    assert len(seen) > 20 and refused < len(seen) / 4 and found


@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("actions", sorted(FIRST))
def test_overwriting(tmp_path, disk, actions, end):
    path = tmp_path / "a.mrcz"
    mrcz.write(path, np.stack(FRAMES["a"][:3]), metadata=METADATA)
    ledger, judge = disk([path]), Judge()
    ledger.promise(("a", 3))
    live(path, ledger, "b", 0, FIRST[actions], end, mode="w", overwrite=True, metadata=METADATA)
    seen = set()
    for promised, outcome in ledger.after_power_loss(random.Random(1), 200):
        judge.check(promised or ("a", 3), outcome, path, replacing="b")
        seen.add(judge.series_and_count(outcome[str(path)])[0])
    assert seen == ({"a", "b"} if end == "close" or "flush" in FIRST[actions] else {"a"})


def test_a_call_fails_and_then_the_power(tmp_path, disk):
    """A flush that the disk refused halfway, the Writer given up, and then the power goes."""
    judge = Judge()
    for fail_at in range(1, 60):
        path = tmp_path / f"{fail_at}.mrcz"
        mrcz.write(path, np.stack(FRAMES["a"][:3]), metadata=METADATA, sync=False)
        ledger = disk([path])
        ledger.promise(("a", 3))
        ledger.fail_at = fail_at
        with contextlib.suppress(OSError):
            live(path, ledger, "a", 3, [1, "flush", 30, "flush", 2, "flush"], "close", mode="a")
        if ledger.fail_at > 0:
            break  # there were no so many calls
        for promised, outcome in ledger.after_power_loss(random.Random(fail_at), 16):
            judge.check(promised or ("a", 3), outcome, path)
    assert 10 < fail_at < 59


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    lives=st.lists(
        st.tuples(
            st.lists(st.one_of(st.just("flush"), st.integers(1, 3)), min_size=1, max_size=5),
            st.sampled_from(["close", "close", "abort"]),
            st.booleans(),
        ),
        min_size=1,
        max_size=3,
    ),
    seed=st.integers(0, 1000),
)
def test_lives(tmp_path_factory, disk, lives, seed):
    path = tmp_path_factory.mktemp("lives") / "a.mrcz"
    dice, judge = random.Random(seed), Judge()
    series, had = "a", 0
    for actions, end, anew in lives:
        fresh = anew or not had
        before = (series, had) if had else None
        if fresh:
            series = "b" if series == "a" else "a"
        if not any(isinstance(action, int) for action in actions) and fresh:
            continue
        ledger = disk([path] if path.exists() else [])
        if before:
            ledger.promise(before)
        kept = live(
            path,
            ledger,
            series,
            0 if fresh else had,
            actions,
            end,
            mode="w" if fresh else "a",
            **({"overwrite": True, "metadata": METADATA} if fresh else {}),
        )
        for promised, outcome in ledger.after_power_loss(dice, 16):
            judge.check(promised or before, outcome, path, replacing=series if fresh else None)
        if fresh and not kept:
            series = before[0] if before else series
        else:
            had = kept


def test_starting_over_with_wider_pixels(tmp_path, disk):
    path = tmp_path / "a.mrcz"
    mrcz.write(path, np.stack(FRAMES["a"][:2]))
    ledger, judge = disk([path]), Judge()
    ledger.promise(("a", 2))
    with mrcz.Writer(path, n_threads=1, overwrite=True) as writer:
        writer.append(FRAMES["b"][0])
        writer.append(np.full_like(FRAMES["b"][0], 200))  # does not fit the bytes of the first frame
    ledger.promise(None)
    for _, outcome in ledger.after_power_loss(random.Random(1), 200):
        with mrcz.open(io.BytesIO(outcome[str(path)])) as reader:
            last = reader[-1]
        assert np.array_equal(last, FRAMES["a"][1]) or (last == 200).all()
    assert judge.looks == 0


@pytest.mark.parametrize("suffix", [".mrcz", ".mrc"])
def test_editing_a_header_in_place(tmp_path, disk, suffix):
    path = tmp_path / f"a{suffix}"
    metadata = METADATA if suffix == ".mrcz" else None
    mrcz.write(path, np.stack(FRAMES["a"][:3]), pixel_size=1.5, metadata=metadata)
    ledger, judge, sizes = disk([path]), Judge(), {}
    for size in (2.5, 3.5):
        mrcz.edit_header(path, pixel_size=size, label=f"pixels of {size} now")
        ledger.promise(size)
    for promised, outcome in ledger.after_power_loss(random.Random(1), 200):
        data = outcome[str(path)]
        assert judge.series_and_count(data) == ("a", 3)
        if data not in sizes:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", mrcz.FormatWarning)
                with mrcz.open(io.BytesIO(data)) as reader:
                    sizes[data] = reader.pixel_size[0]
        assert sizes[data] in {None: (1.5, 2.5), 2.5: (2.5, 3.5), 3.5: (3.5,)}[promised]
    assert set(sizes.values()) == {1.5, 2.5, 3.5}


# --- the original goes -------------------------------------------------------------------------------------------


def plain_of(data):
    """The plain file that is in these bytes."""
    if not data:
        return None
    with mrcz.open(io.BytesIO(data), n_threads=1) as reader:
        if not reader.is_compressed:
            return data
        return reader.footer.source_header + reader.read().tobytes()


@pytest.mark.parametrize("names", ["rename", "link", "neither"])
@pytest.mark.parametrize("where", ["beside", "there", "new folder", "new folders"])
@pytest.mark.parametrize("action", ["compress", "decompress"])
def test_an_original_goes_after_its_copy_is_safe(tmp_path, disk, action, where, names):
    plain = tmp_path / "TS.st"
    mrcz.write(plain, np.stack(FRAMES["a"][:3]).astype(np.int16), codec="none")
    wanted = plain.read_bytes()
    source = plain
    if action == "decompress":
        source = tmp_path / "TS.st.mrcz"
        mrcz.compress(plain, source)
        plain.unlink()
    folder = {"beside": "", "there": "there/", "new folder": "new/", "new folders": "new/and/newer/"}[where]
    if where == "there":
        (tmp_path / "there").mkdir()
    ledger = disk([source], names)
    words = ["-o", f"{tmp_path}/{folder}"] if folder else []
    assert cli.main([action, "--remove", "-q", "-n", "1", *words, str(source)]) == 0
    ledger.promise("removed")
    assert not source.exists()
    gone, known = 0, {}
    for promised, outcome in ledger.after_power_loss(random.Random(1), 200):
        there = [name for name in outcome if not os.path.basename(name).startswith(".")]
        for name in there:
            if outcome[name] not in known:
                known[outcome[name]] = plain_of(outcome[name])
        assert any(known[outcome[name]] == wanted for name in there), (promised, sorted(outcome))
        gone += str(source) not in outcome
    assert gone
