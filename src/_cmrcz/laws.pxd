# cython: language_level=3
"""Laws of noise by number, as `mrcz.correct.local` has them."""

cdef enum:
    POISSON = 0         # counts, so few that they are not Gaussian
    ROOT = 1            # σ grows as the root of the level
    LINEAR = 2          # σ is the same everywhere
