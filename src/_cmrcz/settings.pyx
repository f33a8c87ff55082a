"""An encoder's settings, checked once, at the border to Python."""
from libc.stdint cimport int64_t

from _cmrcz.header cimport BIT_SHUFFLE, BLOSCLZ, LZ4, LZ4HC, MAX_CHUNK, ZLIB, ZSTD
from _cmrcz.streams cimport has_blosclz_encoder, highest_level

CODEC_NUMBERS = {"blosclz": BLOSCLZ, "lz4": LZ4, "lz4hc": LZ4HC, "zlib": ZLIB, "zstd": ZSTD}

cdef enum:
    MAX_BLOCK = MAX_CHUNK // 3 - 4 * 255    # Blosc's own limit


cdef Params make_params(codec, level, profile, filter, typesize, split, checksum, blocksize) except *:
    """Settings for a Blosc 1 chunk; ValueError where they make no sense."""
    cdef Params p
    p.version = 2
    p.codec = codec
    p.level = level
    p.profile = profile
    p.filter = filter
    p.typesize = typesize
    p.split = bool(split)
    p.checksum = bool(checksum)
    p.blocksize = blocksize
    if p.codec not in (BLOSCLZ, LZ4, LZ4HC, ZLIB, ZSTD):
        raise ValueError(f"codec number {codec} cannot be written; use one of {CODEC_NUMBERS}")
    if p.codec == BLOSCLZ and not has_blosclz_encoder():
        raise ValueError("this build links a C-Blosc2 that exports no blosclz encoder; use lz4")
    if not 1 <= p.typesize <= 255:
        raise ValueError(f"typesize must be 1 to 255, got {typesize}")
    if not -1 <= p.filter <= BIT_SHUFFLE:
        raise ValueError(f"filter must be -1 (chosen), 0 (none), 1 (byte shuffle) or 2 (bit shuffle), got {filter}")
    if not 0 <= p.blocksize <= MAX_BLOCK:
        raise ValueError(f"blocksize must be 0 (chosen) to {MAX_BLOCK}, got {blocksize}")
    if not BY_LEVEL <= p.profile <= SMALL:
        raise ValueError(f"profile must be -1 (level counts), 0, 1 or 2, got {profile}")
    if p.codec == ZSTD and p.profile == BY_LEVEL and not -50 <= p.level <= highest_level():
        raise ValueError(f"zstd level must be -50 to {highest_level()}, got {level}")
    if p.codec == LZ4:
        p.level = max(p.level, 1)  # lz4's acceleration
    if p.codec in (BLOSCLZ, ZLIB) and not 0 <= p.level <= 9:
        raise ValueError(f"level must be 0 to 9, got {level}")
    return p


cdef Params make_params_blosc2(int codec, int level, int filter, int typesize, int64_t blocksize) except *:
    """Settings for a Blosc 2 chunk, by C-Blosc2's codec number and Blosc's level, 0 (not compressed) to 9."""
    cdef Params p
    if codec + 1 not in (BLOSCLZ, LZ4, LZ4HC, ZLIB, ZSTD) or not 0 <= level <= 9 or not 0 <= filter <= BIT_SHUFFLE:
        raise ValueError(f"cannot encode with codec {codec}, level {level}, filter {filter}, typesize {typesize}")
    if codec + 1 == ZSTD:
        level = 2 * level - 1 if level < 9 else highest_level()
    elif codec + 1 == LZ4:
        level = 10 - level      # lz4 counts the other way round: acceleration
    p = make_params(codec + 1, level, BY_LEVEL, filter, typesize, False, True, blocksize)
    p.version = 5
    return p
