# cython: language_level=3
"""The types that the kernels of `outlier`, `events`, `session` and `surroundings` are compiled for."""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t

# Pixels of a frame.
ctypedef fused pixel_t:
    uint8_t
    int8_t
    uint16_t
    int16_t
    uint32_t
    int32_t
    float
    double

# Sums of frames.
ctypedef fused sum_t:
    uint16_t
    int16_t
    uint32_t
    int32_t
    int64_t
    float
    double

# Frames or sums where sums of bytes come as int32.
ctypedef fused image_t:
    int32_t
    float
    double

# References, which are never whole numbers.
ctypedef fused reference_t:
    float
    double
