/* What AVX-512 alone does for zstd frames: XXH64's products, closing up bytes, and Huffman's codes of 64 bytes at
 * once. */

/* XXH64's four lanes at once. AMD multiplies 64-bit lanes in one step; where that takes three, plain C is faster. */
static inline __m256i xxh_stripe(__m256i acc, __m256i x) {
    const __m256i p1 = _mm256_set1_epi64x((long long)11400714785074694791ULL);
    const __m256i p2 = _mm256_set1_epi64x((long long)14029467366897019727ULL);
    acc = _mm256_add_epi64(acc, _mm256_mullo_epi64(x, p2));
    return _mm256_mullo_epi64(_mm256_rol_epi64(acc, 31), p1);
}
static size_t simd_xxh_stripes(const uint8_t *p, size_t n, uint64_t v[4]) {
    size_t i = 0;
    if (!__builtin_cpu_is("amd")) return 0;
    __m256i acc = _mm256_loadu_si256((const void *)v);
    for (; i + 32 <= n; i += 32) acc = xxh_stripe(acc, _mm256_loadu_si256((const void *)(p + i)));
    _mm256_storeu_si256((void *)v, acc);
    return i;
}
static size_t simd_count_and_hash(const uint8_t *p, size_t n, uint64_t v[4], size_t *zeros, const uint8_t *ahead,
                                  size_t step, uint8_t *copy) {
    size_t i = 0, c = 0;
    if (!__builtin_cpu_is("amd")) return 0;
    __m256i acc = _mm256_loadu_si256((const void *)v);
    for (; i + 64 <= n; i += 64) {
        vec x = LD(p + i);
        if (copy) ST(copy + i, x);
        c += (size_t)_mm_popcnt_u64(_mm512_testn_epi8_mask(x, x));
        acc = xxh_stripe(acc, _mm512_castsi512_si256(x));
        acc = xxh_stripe(acc, _mm512_extracti64x4_epi64(x, 1));
        if (ahead)
            for (size_t k = 0; k < step; k++) _mm_prefetch((const char *)ahead + i * step + 64 * k, _MM_HINT_T1);
    }
    _mm256_storeu_si256((void *)v, acc);
    *zeros = c;
    return i;
}

/* The bytes whose bit in matched is 0, closed up; writes whole vectors. */
static size_t simd_gather(const uint8_t *x, const uint64_t *matched, size_t n, uint8_t **out) {
    size_t i = 0;
    uint8_t *q = *out;
    for (; i + 64 <= n; i += 64) {
        uint64_t keep = ~matched[i / 64];
        ST(q, _mm512_maskz_compress_epi8(keep, LD(x + i)));
        q += _mm_popcnt_u64(keep);
    }
    *out = q;
    return i;
}

/* Codes of 32 bytes, in 16 bits each, joined by fours: the later byte's code in the lower bits. */
static inline void join(vec code, vec length, vec *joined, vec *bits) {
    const vec low16 = _mm512_set1_epi32(0xffff), low32 = _mm512_set1_epi64(0xffffffffLL);
    vec later = _mm512_srli_epi32(length, 16);
    /* earlier * 2^later + later * 2^0 */
    vec pair = _mm512_madd_epi16(code, _mm512_sllv_epi16(_mm512_set1_epi16(1), later));
    vec both = _mm512_add_epi32(_mm512_and_si512(length, low16), later);
    later = _mm512_srli_epi64(both, 32);
    *joined = _mm512_or_si512(_mm512_srli_epi64(pair, 32), _mm512_sllv_epi64(_mm512_and_si512(pair, low32), later));
    *bits = _mm512_add_epi64(_mm512_and_si512(both, low32), later);
}
/* Four streams side by side, 64 bytes of each at a time, from their ends: the first three are `quarter` bytes long, the
 * fourth `last`. Returns how many bytes of each are done. In one piece, so that all four stay in registers. */
static size_t simd_huffman_streams(const uint8_t *x, size_t quarter, size_t last, const uint8_t *low,
                                   const uint8_t *high, mz_bits b[4]) {
    const vec three = _mm512_set1_epi8(7), four = _mm512_set1_epi8(15), zero = _mm512_setzero_si512();
    vec lows[4], highs[4], t;
    size_t done = 0;
    int eights = 1; /* whether the codes of 8 bytes fit 56 bits, which the first 64 of a stream tell well */
    uint64_t joined[4][16], bits[4][16];
    const uint8_t *ends[4] = {x + quarter, x + 2 * quarter, x + 3 * quarter, x + 3 * quarter + last};
    mz_bits s0 = b[0], s1 = b[1], s2 = b[2], s3 = b[3];
    for (int k = 0; k < 4; k++) {
        lows[k] = LD(low + 64 * k);
        highs[k] = LD(high + 64 * k);
    }
#define TAKE(s, k, i)                    \
    {                                    \
        s.acc |= joined[k][i] << s.bits; \
        s.bits += bits[k][i];            \
        memcpy(s.p, &s.acc, 8);          \
        s.p += s.bits >> 3;              \
        s.acc >>= s.bits & 56;           \
        s.bits &= 7;                     \
    }
#define TAKE4(i) TAKE(s0, 0, i) TAKE(s1, 1, i) TAKE(s2, 2, i) TAKE(s3, 3, i)
    for (; done + 64 <= last; done += 64) {
        vec lo[4], hi[4], lo_bits[4], hi_bits[4];
        __mmask8 wide = 0;
        for (int k = 0; k < 4; k++) {
            vec v = LD(ends[k] - done - 64), l = lookup(lows, v), h = lookup(highs, v);
            t = _mm512_and_si512(_mm512_srli_epi16(h, 4), four);
            h = _mm512_and_si512(h, three);
            /* bytes 0 to 7 of each lane of 16, then 8 to 15 */
            join(_mm512_unpacklo_epi8(l, h), _mm512_unpacklo_epi8(t, zero), &lo[k], &lo_bits[k]);
            join(_mm512_unpackhi_epi8(l, h), _mm512_unpackhi_epi8(t, zero), &hi[k], &hi_bits[k]);
            if (!eights) continue;
            /* two fours become an eight; the eights are in the order of the bytes */
            vec first = _mm512_unpacklo_epi64(lo_bits[k], hi_bits[k]),
                then = _mm512_unpackhi_epi64(lo_bits[k], hi_bits[k]);
            vec both = _mm512_add_epi64(first, then);
            wide |= _mm512_cmpgt_epu64_mask(both, _mm512_set1_epi64(56));
            ST(joined[k], _mm512_or_si512(_mm512_sllv_epi64(_mm512_unpacklo_epi64(lo[k], hi[k]), then),
                                          _mm512_unpackhi_epi64(lo[k], hi[k])));
            ST(bits[k], both);
        }
        if (eights && !wide) {
            for (int i = 7; i >= 0; i--) {
                TAKE4(i)
            }
            continue;
        }
        eights = eights && done;
        for (int k = 0; k < 4; k++) {
            ST(joined[k], lo[k]);
            ST(joined[k] + 8, hi[k]);
            ST(bits[k], lo_bits[k]);
            ST(bits[k] + 8, hi_bits[k]);
        }
        for (int lane = 6; lane >= 0; lane -= 2) {
            TAKE4(lane + 9)
            TAKE4(lane + 8)
            TAKE4(lane + 1)
            TAKE4(lane)
        }
    }
#undef TAKE4
#undef TAKE
    b[0] = s0, b[1] = s1, b[2] = s2, b[3] = s3;
    return done;
}
