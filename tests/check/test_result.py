"""The functions that check and make files take the same words, and their results are one family."""

import dataclasses
import inspect
import json

import numpy as np
import pytest

import mrcz
from mrcz.archive.clean import clean
from mrcz.archive.jobs import Job
from mrcz.archive.run import run_job
from mrcz.check.compare import compare
from mrcz.check.describe import describe
from mrcz.check.recover import recover
from mrcz.check.result import Result
from mrcz.check.validate import validate
from mrcz.check.verify import verify
from mrcz.convert.copy import compress, decompress
from mrcz.convert.zarr import write_references
from mrcz.session.correct import correct_file

FUNCTIONS = [compress, decompress, verify, describe, recover, compare, validate, correct_file, write_references]

#: Words that all share, in the order in which they come, with their defaults.
COMMON = {
    "overwrite": False,
    "permissive": False,
    "signed_bytes": None,
    "n_threads": None,
    "progress": None,
    "storage_options": None,
}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_the_same_words_in_the_same_order_with_the_same_defaults(function):
    parameters = inspect.signature(function).parameters.values()
    places = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert places[0] in ("path", "source")
    assert places[1:] in ([], ["other"], ["destination"], ["destinations"])
    words = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    shared = [name for name in words if name in COMMON and name != "overwrite"]
    assert shared == [name for name in COMMON if name in shared] and "storage_options" in shared
    assert {name: words[name] for name in words if name in COMMON}.items() <= COMMON.items()


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_urls_and_their_options_wherever_paths_are(function, tmp_path):
    """The file system of the URL gets the options: this one refuses a wrong one by its name, before it asks anybody."""
    url, more = "http://127.0.0.1:9/a.mrcz", []
    if function is compare:
        more = [url]
    elif function is correct_file:
        more = [{}]
    elif "destination" in inspect.signature(function).parameters:
        more = [tmp_path / "b.mrc"]
    with pytest.raises(TypeError, match="redirects must be a whole number"):
        function(url, *more, storage_options={"redirects": "many"})


@pytest.fixture
def results(tmp_path, rng):
    """One result of each kind, of a file without fault."""
    movie = rng.poisson(2.0, (6, 32, 48)).astype("u1")
    plain, packed = tmp_path / "a.mrc", tmp_path / "a.mrcz"
    mrcz.write(plain, movie, pixel_size=1.5)
    (tmp_path / f".b.mrcz.{'0' * 8}.part").write_bytes(b"")
    return [
        compress(plain, packed),
        decompress(packed, tmp_path / "b.mrc"),
        verify(packed),
        describe(packed),
        validate(plain),
        compare(plain, packed),
        recover(packed, tmp_path / "c.mrcz"),
        correct_file(plain, {"sum": str(tmp_path / "sum.mrc")}),
        run_job(Job("compress", str(plain), str(tmp_path / "d.mrcz"))),
        *clean(tmp_path, older_than=0),
    ]


def test_results_are_one_family(results):
    assert len({type(result) for result in results}) == 9
    for result in results:
        assert isinstance(result, Result) and dataclasses.is_dataclass(result)
        assert result.ok is True and result.notes == (), result
        with pytest.raises(dataclasses.FrozenInstanceError):
            result.notes = ("mine",)
        found = result.asdict()
        assert found["ok"] is True and list(found["notes"]) == []
        assert json.loads(json.dumps(found))["ok"] is True


def test_counts_are_named_alike(results):
    counts = [result.n_frames for result in results if hasattr(result, "n_frames")]
    assert counts == [6] * 7 + [0]  # validation and comparison count none; the leftover holds none
    for result in results:
        names = {field.name for field in dataclasses.fields(result)}
        assert not names & {"frames", "pixels", "file_nbytes", "same", "complete", "oddities", "target"}, type(result)


def test_what_is_wrong_is_not_ok(tmp_path, rng):
    movie = rng.poisson(2.0, (6, 32, 48)).astype("u1")
    path, other = tmp_path / "a.mrcz", tmp_path / "b.mrcz"
    mrcz.write(path, movie)
    mrcz.write(other, movie + np.uint8(1))
    with mrcz.open(path) as reader:
        at = int(reader.index.offsets[2]) + 20
    data = bytearray(path.read_bytes())
    data[at] ^= 255
    path.write_bytes(data)
    assert not verify(path).ok and verify(path).faults[0].frame == 2
    saved = recover(path, tmp_path / "c.mrcz")
    assert not saved.ok and saved.n_frames == 5 and saved.asdict()["n_frames"] == 5 and saved.n_expected == 6
    differs = compare(other, tmp_path / "c.mrcz")
    assert not differs.ok and differs.n_pixels == -1
    assert not run_job(Job("compress", str(tmp_path / "none.mrc"), str(tmp_path / "d.mrcz"))).ok
