"""What outliers look like, and that what is no detector's is left alone."""

import json
import warnings

import numpy as np
import pytest

from mrcz.correct import Correction, OutlierModel, fit_outliers
from mrcz.correct.structure import structure_of
from mrcz.errors import StructureWarning
from mrcz.simulate import record


def of(mask, hot=True):
    index = np.flatnonzero(mask.reshape(-1)).astype(np.int32)
    return structure_of(index, np.full(index.size, hot), mask.shape)


@pytest.fixture
def alone(rng):
    """Single pixels and pairs, as a detector has them."""
    mask = rng.random((256, 256)) < 0.004
    mask[100:102, 50] = True
    return mask


def test_single_pixels_clusters_lines_and_tracks_are_a_detector_s(alone):
    assert of(alone).looks_like == ""
    alone[40:42, 60:62] = True
    alone[:, 77] = True
    alone[33, 20:200] = True
    for k in range(30):
        alone[150 + k, 100 + k] = True
    found = of(alone)
    assert found.looks_like == "" and found.in_lines > 400


def test_few_pixels_are_nothing_whatever_they_look_like():
    mask = np.zeros((64, 64), bool)
    mask[10:16, 10:16] = True
    assert of(mask).looks_like == ""
    assert of(np.zeros((64, 64), bool)).n_pixels == 0


@pytest.mark.parametrize(("hot", "name"), [(True, "bright region"), (False, "dark region")])
def test_regions_edges_lines_and_lattices_have_their_names(alone, hot, name):
    y, x = np.mgrid[:256, :256]
    disc = np.hypot(y - 128, x - 128)
    assert of(alone | (disc < 30), hot).looks_like == name
    assert of(alone | (np.abs(disc - 80) < 2.5), hot).looks_like == "edge"
    assert of(alone | (np.abs(x - 60 - 0.01 * y) < 1.5), hot).looks_like == "line"
    lattice = ((y + 2 * (x // 17)) % 14 < 3) & (x % 17 < 3)
    assert of(alone | lattice, hot).looks_like == "lattice"
    rng = np.random.default_rng(3)
    spots = np.zeros_like(alone)
    for v, u in rng.integers(0, 253, (300, 2)):
        spots[v : v + 3, u : u + 3] = True
    assert of(alone | spots, hot).looks_like in ("spots", name)


@pytest.mark.parametrize(("scene", "kind"), [("Bragg", "lattice"), ("EELS", "line"), ("powder rings", "spots")])
def test_what_is_as_fine_as_a_pixel_is_left_alone_unless_forced(scene, kind):
    seen = record(scene, n_frames=4)
    with pytest.warns(StructureWarning, match="nothing is filtered"):
        model = fit_outliers(seen.stack)
    assert model.structure["looks_like"] == kind and model.structure["left_alone"]
    assert model.n_outliers == 0 and np.array_equal(model.apply(seen.stack), seen.stack)
    assert "left alone" in str(model)
    json.dumps(model.report(), allow_nan=False)
    again = OutlierModel.from_dict(model.to_dict())
    assert again.structure == model.structure and again.surroundings
    # Known defects are replaced all the same.
    known = np.zeros(seen.stack.shape[1:], bool)
    known[5, 5] = True
    with pytest.warns(StructureWarning):
        assert np.array_equal(fit_outliers(seen.stack, defects=known).mask, known)
    with pytest.warns(StructureWarning, match="filtered"):
        forced = Correction.fit(seen.stack, filter_structure=True).outliers
    assert forced.n_outliers > 500 and not forced.structure["left_alone"]


def test_models_of_version_1_are_read_and_broken_ones_refused(rng):
    model = fit_outliers(rng.poisson(9, (4, 32, 32)))
    state = model.to_dict()
    old = {k: v for k, v in state.items() if k not in ("surroundings", "structure")} | {"version": 1}
    assert OutlierModel.from_dict(old).structure == {}
    for wrong in ({"structure": 3}, {"structure": {"looks_like": [1]}}, {"structure": {1: 2}}, {"version": 3}):
        with pytest.raises(ValueError, match="OutlierModel"):
            OutlierModel.from_dict(state | wrong)


def test_flat_ice_gives_no_warning(rng):
    stack = rng.poisson(1.2, (40, 256, 256)).astype(np.uint8)
    stack[:, rng.random((256, 256)) < 0.005] += 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit_outliers(stack).structure["looks_like"] == ""
