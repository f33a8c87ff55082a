"""Detector corrections: outlier pixels, events of one frame, gain with gamma, the moving average of a session, and
their pipeline.

Everything works on arrays, or on whatever gives frames one at a time, and never on files. Fitting returns a small
frozen value; applying is a separate call.
"""

from mrcz.correct.events import EventModel, fit_events
from mrcz.correct.gain import (
    GammaCurve,
    GammaFit,
    Orientation,
    apply_gain,
    check_gain,
    fit_gamma,
    fit_gamma_curve,
    make_gain,
    orient,
    orientations,
    search_orientation,
)
from mrcz.correct.koma import Koma, KomaReference, contrast_score, koma_references
from mrcz.correct.measures import (
    clipping_bias,
    correlation,
    correlation_report,
    held_out_correlation,
    iciness,
    recurrence,
)
from mrcz.correct.outliers import OutlierModel, defect_model, fit_outliers, psf_kernel
from mrcz.correct.pipeline import Correction

__all__ = [
    "Correction",
    "EventModel",
    "GammaCurve",
    "GammaFit",
    "Koma",
    "KomaReference",
    "Orientation",
    "OutlierModel",
    "apply_gain",
    "check_gain",
    "clipping_bias",
    "contrast_score",
    "correlation",
    "correlation_report",
    "defect_model",
    "fit_events",
    "fit_gamma",
    "fit_gamma_curve",
    "fit_outliers",
    "held_out_correlation",
    "iciness",
    "koma_references",
    "make_gain",
    "orient",
    "orientations",
    "psf_kernel",
    "recurrence",
    "search_orientation",
]
