"""Detector corrections: outlier pixels, events of one frame, gain with gamma, the moving average of a session, and
their pipeline.

Everything works on arrays, or on whatever gives frames one at a time, and never on files. Fitting returns a small
frozen value; applying is a separate call.
"""

from mrcz.correct.event_model import EventModel
from mrcz.correct.events import fit_events
from mrcz.correct.gain import (
    Orientation,
    apply_gain,
    check_gain,
    make_gain,
    orient,
    orientations,
    search_orientation,
)
from mrcz.correct.gamma import GammaCurve, GammaFit, fit_gamma, fit_gamma_curve
from mrcz.correct.integers import Integers, NoIntegersError, Operation, SessionGain, recover_integers
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
from mrcz.correct.posterior import SessionReferences, session_references
from mrcz.correct.statistics import SessionStatistics, StackMoments, stack_moments

__all__ = [
    "Correction",
    "EventModel",
    "GammaCurve",
    "GammaFit",
    "Integers",
    "Koma",
    "KomaReference",
    "NoIntegersError",
    "Operation",
    "Orientation",
    "OutlierModel",
    "SessionGain",
    "SessionReferences",
    "SessionStatistics",
    "StackMoments",
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
    "recover_integers",
    "recurrence",
    "search_orientation",
    "session_references",
    "stack_moments",
]
