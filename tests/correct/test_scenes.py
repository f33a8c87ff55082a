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
#: Hot pixels of every other recording: from weak to stuck, log-uniformly; exponentially distributed, most of them weak.
#: Not at 5 e⁻: Poisson noise of the weak ones themselves leaves .952 of them to a false-discovery rate of .2, not .96,
#: even where the true mean of every pixel is known.
EXCESS = ((3.0, 300.0), 8.7)
#: Scenes judged together, each with a seed of its own. What is held out is judged on the first.
GROUPS = [
    ("flat ice", "flat ice"),
    *((f"gold r{r}", f"gold r{r} fringes") for r in (4, 8, 15, 30)),
    ("gold discs",),
    ("gold crowded", "gold crowded"),
    ("small gold crowded", "small gold crowded"),
    ("ice crystals", "ice crystals"),
    ("grid bar 20 %", "grid bar 5 %", "grid bar 40 %"),
    ("hole edge 40 %", "hole edge 10 %"),
    ("carbon", "carbon"),
    ("vignetting", "vignetting"),
    ("gradient", "gradient"),
    ("tilt", "tilt 70°"),
    ("particles", "particles"),
    ("charge sharing",),
    ("gain-normalised", "gain"),
    ("super-resolution", "super-resolution"),
    ("binary counting",),
    ("sCMOS", "sCMOS, floats"),
    ("columns and rows",),
    ("telegraph noise",),
    ("half shadow",),
    ("beam stop",),
    ("lamella",),
    ("sectors",),
    ("fibres",),
    ("moiré",),
    ("low magnification",),
]
#: The same, and some scenes at the ends of the range of doses.
CASES = [(group, None) for group in GROUPS] + [
    (("gold r8 fringes", "gradient"), 5.0),
    (("gold r8 fringes", "gradient"), 200.0),
    (("grid bar 20 %", "carbon"), 5.0),
    (("grid bar 20 %", "carbon"), 200.0),
]
#: Scenes that are harder: recall, share of the specimen and error of sums reached there, `fdr` and `tails`.
HARDER = {
    "moiré": ((0.96, 0.97), (0.005, 0.012), 0.002),
    "low magnification": ((0.95, 0.96), (0.002, 0.005), 0.02),
}
#: R of `fdr` over that of the best rule that flags as few good pixels. Where half of the frames have a few counts a
#: pixel, the mean of 24 neighbours knows less than the mean of the whole image, which even light would allow to use.
BEHIND = {"binary counting": 1.5, 5.0: 1.06}
#: Frames where it matters how many there are.
FRAMES = {"binary counting": 50, "telegraph noise": 12}


class Case:
    """Some scenes recorded, and what each method made of them, found once."""

    def __init__(self, names, dose):
        recall, share, sums = HARDER.get(names[0], (*zip(*LIMITS.values(), strict=True), 0.002))
        # `tails` flags one in four hundred good pixels of those that are high by chance: at 5 counts ½ % of the sum.
        self.sums = {"fdr": sums, "tails": 0.006 if dose == 5 else sums}
        self.recall, self.share = dict(zip(LIMITS, recall, strict=True)), dict(zip(LIMITS, share, strict=True))
        self.behind = {"fdr": BEHIND.get(names[0], BEHIND.get(dose, 1.02)), "tails": BEHIND.get(dose, 1.02)}
        self.seen = []
        for seed, name in enumerate(names):
            edge = 256 if SCENES[name].camera == "super-resolution" else 512
            self.seen.append(
                record(
                    name,
                    shape=(edge, edge),
                    dose=3.0 if name == "binary counting" else dose,
                    n_frames=FRAMES.get(name, 4),
                    seed=seed,
                    excess=EXCESS[seed % 2 if dose != 5 else 0],
                )
            )
        self.model = cache(lambda method, i: rules.model_of(self.seen[i], method))
        self.median = cache(lambda i: rules.median_score(rules.normalised(self.seen[i])))
        self.others = cache(lambda: {name: self._other(rules.by_rule(rule)) for name, rule in rules.RULES.items()})

    def _other(self, find):
        """Of another rule in half of the frames: precision, what it flags of the clean specimen; both R held out."""
        seen = self.seen[0]
        mask = find(seen, slice(0, len(seen.stack) // 2))
        found = rules.counts(seen, mask)
        return (
            *(rules.divide([found[kind]]) for kind in ("precision", "specimen")),
            *rules.held_out(seen, lambda *_: mask, ways=1),
        )

    def counts(self, method, kind):
        """Of each recording: pixels of a kind (see `rules.counts`) that are flagged, and that there are."""
        return [rules.counts(seen, self.model(method, i).mask)[kind] for i, seen in enumerate(self.seen)]

    def lost(self, method):
        """Clean specimen pixels flagged: by us, and by a 5 × 5 median whose threshold gives it our recall.

        That threshold is set by the truth, which nobody has outside a simulation.
        """
        mine = theirs = 0
        for i, seen in enumerate(self.seen):
            found = rules.counts(seen, self.model(method, i).mask)
            mine += found["specimen"][0] // seen.super_resolution**2
            hit, of = found["recall of 3σ"]
            # Of another few hundred defects as many more might have been found as this: one standard deviation.
            recall = min(1.0, (hit + (hit * (of - hit) / of) ** 0.5) / of)
            theirs += rules.median_at_recall(seen, recall, self.median(i))[0]
        return mine, theirs


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case[0][0] + (f", {case[1]:.0f} e-" if case[1] else ""))
def case(request):
    return Case(*request.param)


@pytest.mark.parametrize("method", LIMITS)
def test_the_specimen_is_left_alone(case, method):
    assert max(hit / max(of, 1) for hit, of in case.counts(method, "specimen")) <= case.share[method]


@pytest.mark.parametrize("method", LIMITS)
def test_defects_are_found(case, method):
    assert min(hit / of for hit, of in case.counts(method, "recall")) >= case.recall[method]


@pytest.mark.parametrize("method", LIMITS)
def test_no_more_is_lost_than_with_a_median_of_the_same_recall(case, method):
    mine, theirs = case.lost(method)
    # Three standard deviations of the difference of two counts.
    assert mine <= theirs + 3 * np.sqrt(mine + theirs + 1)


@pytest.mark.parametrize("method", LIMITS)
def test_sums_over_beads_and_bars_are_those_of_the_specimen(case, method):
    for i, seen in enumerate(case.seen):
        filtered, true = rules.sums(seen, case.model(method, i))
        # Of small sums half of their own shot noise beside it: a single pixel left in weighs more than .2 %.
        assert abs(filtered - true) <= case.sums[method] * true + 0.5 * true**0.5


@pytest.mark.parametrize("method", LIMITS)
def test_no_other_rule_leaves_less_of_the_pattern(case, method):
    smooth, residual = rules.held_out(case.seen[0], rules.ours(method), ways=1)
    # Some rules go lower by flagging good pixels at random, which `fdr` promises not to: more than a fifth (its α) of
    # what a 4σ clip flags at 5 counts a pixel, or a median in ice beside a dark bar, is good.
    others = [other for other in case.others().values() if method == "tails" or other[0] >= 0.8]
    # Rules that erase specimen lower the first R by it, and pay for it in the second.
    best = min(r for _, flagged, r, _ in others if flagged <= LIMITS["fdr"][1]), min(r for *_, r in others)
    for mine, least in zip((smooth, residual), best, strict=True):
        # Which of two that differ by a fiftieth or by 1e-4 is lower is chance.
        assert mine <= max(case.behind[method] * least, least + 1e-4)


@pytest.mark.parametrize("method", LIMITS)
@pytest.mark.parametrize("dose", [5.0, 48.0, 200.0])
def test_a_clean_image_stays_clean(method, dose):
    limit = {"fdr": 1e-4, "tails": LIMITS["tails"][1]}[method]
    flagged = [rules.model_of(record("clean", dose=dose, n_frames=2, seed=s), method).mask.mean() for s in range(2)]
    assert max(flagged) <= limit


@pytest.mark.parametrize("method", LIMITS)
@pytest.mark.parametrize("dose", [5.0, 48.0, 200.0])
@pytest.mark.parametrize("name", ["Bragg", "EELS"])
def test_structure_one_pixel_wide_is_left_alone_and_said(name, dose, method):
    seen = record(name, dose=dose, n_frames=4)
    with pytest.warns(UserWarning, match="structure|spots|lattice|line|edge"):
        model = rules.model_of(seen, method)
    flagged, clean = rules.counts(seen, model.mask)["specimen"]
    assert flagged <= 1e-4 * clean


@pytest.mark.filterwarnings("ignore:.*outliers look like:UserWarning")
@pytest.mark.parametrize("method", LIMITS)
@pytest.mark.parametrize("name", ["single atoms", "powder rings", "atoms"])
def test_structure_a_little_wider_than_a_defect_is_left_alone(name, method):
    # Said or not, and whatever is found of the defects.
    seen = record(name, n_frames=4)
    flagged, clean = rules.counts(seen, rules.model_of(seen, method).mask)["specimen"]
    assert flagged <= LIMITS[method][1] * clean


@pytest.mark.parametrize("method", LIMITS)
def test_flat_ice_and_gold_are_no_reason_to_warn(method):
    # Warnings are errors here; few defects and many.
    for name in ("clean", "flat ice", "gold r15", "gold crowded", "grid bar 20 %", "columns and rows"):
        rules.model_of(record(name, n_frames=2, seed=3), method)
    rules.model_of(record("flat ice", n_frames=2, hot=0.03), method)


def squares(rate, rng):
    for y, x in rng.integers(0, 510, (600, 2)):
        rate[y : y + 2, x : x + 2] += rng.uniform(12, 100, (2, 2))


def tracks(rate, rng):
    for y, x, angle in zip(*rng.integers(20, 490, (2, 60)), rng.uniform(0, 2 * np.pi, 60), strict=True):
        along = np.arange(16)
        rate[np.rint(y + along * np.sin(angle)).astype(int), np.rint(x + along * np.cos(angle)).astype(int)] += 100


def two_columns(rate, rng):
    rate[:, 200:202] = 0


def two_rows(rate, rng):
    rate[255:257] = 0


@pytest.mark.parametrize("method", LIMITS)
@pytest.mark.parametrize("damage", [squares, tracks, two_columns, two_rows])
def test_a_detectors_own_clusters_are_filtered(damage, method):
    # A damaged chip on flat ice is not taken for a specimen with structure one pixel wide: warnings are errors here.
    rng = np.random.default_rng(7)
    rate = np.full((512, 512), 12.0)
    rate[rng.random(rate.shape) < 0.002] += 40
    damage(rate, rng)
    mask = rules.fit_outliers(rng.poisson(rate, (4, 512, 512)).astype(np.uint16), method).mask
    assert mask[rate != 12].mean() >= LIMITS[method][0]
    assert mask[rate == 12].mean() <= LIMITS[method][1]
