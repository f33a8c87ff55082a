"""Outliers beside specimens: scenes whose truth is known, at 512², judged beside other programs' rules.

Sums of Poisson counts do not show how many frames there were, so most scenes have four frames of a quarter of the dose:
two halves to hold out, and little to draw.
"""

from functools import cache

import numpy as np
import pytest
from correct import rules

from mrcz.simulate import SCENES, record

#: Recall of defects above 5σ at least, share of clean specimen pixels flagged at most.
LIMITS = {"fdr": (0.96, 0.002), "tails": (0.97, 0.005)}
SEEDS = (0, 1)
#: Hot pixels of each seed: from weak to stuck, log-uniformly; exponentially distributed, most of them weak.
EXCESS = ((3.0, 300.0), 8.7)

ORDINARY = [name for name, scene in SCENES.items() if scene.defects and not scene.one_pixel_structure]
#: Scene and dose (None: its own). Every scene at its own dose, and a few at the ends of the range.
CASES = [(name, None) for name in ORDINARY] + [
    (name, dose) for name in ("gold r8 fringes", "grid bar 20 %", "gradient", "carbon") for dose in (5.0, 200.0)
]
#: Frames where it matters how many there are.
FRAMES = {"binary counting": 50, "telegraph noise": 12}


class Case:
    """A scene recorded with each seed, and what each method made of it, found once."""

    def __init__(self, name, dose=None):
        up = 2 if SCENES[name].camera == "super-resolution" else 1
        own = dose is None
        dose = 3.0 if name == "binary counting" else dose
        shape, frames = (512 // up, 512 // up), FRAMES.get(name, 4)
        self.seen = [
            record(name, shape=shape, dose=dose, n_frames=frames, seed=seed, excess=excess)
            for seed, excess in list(zip(SEEDS, EXCESS, strict=True))[: 2 if own else 1]
        ]
        self.model = cache(lambda method, i: rules.model_of(self.seen[i], method))
        self.median = cache(lambda i: rules.median_score(rules.normalised(self.seen[i])))
        self.others = cache(lambda: {
            name: rules.held_out(self.seen[0], rules.by_rule(rule), ways=1) for name, rule in rules.RULES.items()})

    def counts(self, method, kind):
        """Of each seed: pixels of a kind (see `rules.counts`) that are flagged, and that there are."""
        return [rules.counts(seen, self.model(method, i).mask)[kind] for i, seen in enumerate(self.seen)]

    def lost(self, method):
        """Clean specimen pixels flagged: by us, and by a 5 × 5 median whose threshold gives it our recall.

        That threshold is set by the truth, which nobody has outside a simulation.
        """
        mine = theirs = 0
        for i, seen in enumerate(self.seen):
            found = rules.counts(seen, self.model(method, i).mask)
            mine += found["specimen"][0] // seen.super_resolution**2
            theirs += rules.median_at_recall(seen, rules.divide([found["recall of 3σ"]]), self.median(i))[0]
        return mine, theirs


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case[0] + (f", {case[1]:.0f} e-" if case[1] else ""))
def case(request):
    return Case(*request.param)


@pytest.mark.parametrize("method", LIMITS)
def test_the_specimen_is_left_alone(case, method):
    assert rules.divide(case.counts(method, "specimen")) <= LIMITS[method][1]


@pytest.mark.parametrize("method", LIMITS)
def test_defects_are_found(case, method):
    assert min(hit / of for hit, of in case.counts(method, "recall")) >= LIMITS[method][0]


@pytest.mark.parametrize("method", LIMITS)
def test_no_more_is_lost_than_with_a_median_of_the_same_recall(case, method):
    mine, theirs = case.lost(method)
    # Counts of a few pixels: three standard deviations of the median's, which is seldom certain of more.
    assert mine <= theirs + 3 * np.sqrt(theirs + 1)


@pytest.mark.parametrize("method", LIMITS)
def test_sums_over_beads_and_bars_are_those_of_the_specimen(case, method):
    filtered, true = np.sum([rules.sums(seen, case.model(method, i)) for i, seen in enumerate(case.seen)], 0)
    assert filtered == pytest.approx(true, rel=0.002)


@pytest.mark.parametrize("method", LIMITS)
def test_no_other_rule_leaves_less_of_the_pattern(case, method):
    seen = case.seen[0]
    mine = rules.held_out(seen, rules.ours(method), ways=1)
    assert mine <= min(case.others().values()), case.others()


@pytest.mark.parametrize("method", LIMITS)
@pytest.mark.parametrize("dose", [5.0, 48.0, 200.0])
def test_a_clean_image_stays_clean(method, dose):
    limit = {"fdr": 1e-4, "tails": LIMITS["tails"][1]}[method]
    flagged = [rules.model_of(record("clean", dose=dose, n_frames=2, seed=s), method).mask.mean() for s in SEEDS]
    assert max(flagged) <= limit


@pytest.mark.parametrize("method", LIMITS)
@pytest.mark.parametrize("dose", [5.0, 48.0, 200.0])
@pytest.mark.parametrize("name", [name for name, scene in SCENES.items() if scene.one_pixel_structure])
def test_structure_one_pixel_wide_is_left_alone(name, method, dose):
    seen = record(name, dose=dose, n_frames=2)
    with pytest.warns(UserWarning, match="structure|spots|lattice|lines|edge"):
        model = rules.model_of(seen, method)
    flagged, clean = rules.counts(seen, model.mask)["specimen"]
    assert flagged <= 1e-4 * clean
