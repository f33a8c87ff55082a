"""Detector corrections: outlier pixels, gain with gamma, the moving average of a session, and their pipeline.

Everything works on arrays, or on whatever gives frames one at a time, and never on files. Fitting returns a small
frozen value; applying is a separate call.
"""

from mrcz.correct.measures import clipping_bias, correlation, correlation_report, held_out_correlation, iciness
from mrcz.correct.outliers import OutlierModel, defect_model, fit_outliers, psf_kernel

__all__ = [
    "OutlierModel",
    "clipping_bias",
    "correlation",
    "correlation_report",
    "defect_model",
    "fit_outliers",
    "held_out_correlation",
    "iciness",
    "psf_kernel",
]
