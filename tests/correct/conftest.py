"""Simulated stacks, recorded once for all tests of the corrections."""

import numpy as np
import pytest

from mrcz.correct import fit_outliers, held_out_correlation
from mrcz.simulate import Detector

DOSES = {"1.2 x 40": (1.2, 40), "4 x 50": (4.0, 50)}


@pytest.fixture(scope="session")
def recorded():
    """``recorded(dose, seed)``: a 512² stack, R held out without and with the true mask; each made once."""
    made = {}

    def get(dose, seed):
        if (dose, seed) not in made:
            rate, frames = DOSES[dose]
            stack = Detector(seed=seed).stack(frames, rate)
            nothing = np.zeros(stack.outliers.shape, bool)
            raw, true = (
                held_out_correlation(stack.frames, lambda h, d=d: fit_outliers(h, "defects", defects=d))
                for d in (nothing, stack.outliers)
            )
            made[dose, seed] = stack, raw, true
        return made[dose, seed]

    return get
