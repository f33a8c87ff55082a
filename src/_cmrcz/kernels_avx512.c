/* The kernels for AVX-512 with VBMI and GFNI: what is worth writing by hand; kernels_impl.h has the rest.
 *
 * Each simd_X handles a whole number of vectors from the start of its input and returns how far it came; the plain C
 * in kernels_impl.h does what is left. */
#include "kernels.h"
#include <immintrin.h>
#include <math.h>
#include <string.h>

#define MZ_NAME avx512
#define MZ_SIMD 1

#define LD(p) _mm512_loadu_si512((const void *)(p))
#define ST(p, v) _mm512_storeu_si512((void *)(p), v)

/* ---- transposes ------------------------------------------------------------------------------------------------ */

#define OCT(a, step) a, a + step, a + 2 * step, a + 3 * step, a + 4 * step, a + 5 * step, a + 6 * step, a + 7 * step
/* out byte 8 p + q = in byte 8 q + p */
static const uint8_t bytes_8x8[64] = {OCT(0, 8), OCT(1, 8), OCT(2, 8), OCT(3, 8), OCT(4, 8), OCT(5, 8), OCT(6, 8), OCT(7, 8)};
/* the same with each row of eight then reversed, the order in which GFNI numbers the rows of its bit matrix */
static const uint8_t bytes_8x8_reversed[64] = {OCT(56, -8), OCT(57, -8), OCT(58, -8), OCT(59, -8),
                                               OCT(60, -8), OCT(61, -8), OCT(62, -8), OCT(63, -8)};
/* every row of eight reversed */
static const uint8_t bytes_reversed[64] = {OCT(7, -1),  OCT(15, -1), OCT(23, -1), OCT(31, -1),
                                           OCT(39, -1), OCT(47, -1), OCT(55, -1), OCT(63, -1)};
/* out byte 16 p + q = in byte 4 q + p, and back */
static const uint8_t bytes_16x4[64] = {OCT(0, 4), OCT(32, 4), OCT(1, 4), OCT(33, 4), OCT(2, 4), OCT(34, 4), OCT(3, 4), OCT(35, 4)};
#define QUAD2(a) a, a + 16, a + 32, a + 48, a + 1, a + 17, a + 33, a + 49
static const uint8_t bytes_4x16[64] = {QUAD2(0), QUAD2(2), QUAD2(4), QUAD2(6), QUAD2(8), QUAD2(10), QUAD2(12), QUAD2(14)};
/* even bytes of a pair of vectors; odd ones are one further */
static const uint8_t bytes_even[64] = {OCT(0, 2),  OCT(16, 2), OCT(32, 2), OCT(48, 2),
                                       OCT(64, 2), OCT(80, 2), OCT(96, 2), OCT(112, 2)};
/* first half of two vectors interleaved; the second half is 32 further */
#define PAIR4(a) a, a + 64, a + 1, a + 65, a + 2, a + 66, a + 3, a + 67
static const uint8_t bytes_zip[64] = {PAIR4(0), PAIR4(4), PAIR4(8), PAIR4(12), PAIR4(16), PAIR4(20), PAIR4(24), PAIR4(28)};

#define BITS_IDENTITY _mm512_set1_epi64((long long)0x8040201008040201ULL)

/* 8 x 8 matrix of 64-bit words */
static inline void transpose_words(__m512i r[8]) {
    __m512i t[8], s[8];
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm512_unpacklo_epi64(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi64(r[2 * i], r[2 * i + 1]);
    }
    for (int h = 0; h < 2; h++) {
        s[4 * h] = _mm512_shuffle_i64x2(t[4 * h], t[4 * h + 2], 0x88);
        s[4 * h + 1] = _mm512_shuffle_i64x2(t[4 * h], t[4 * h + 2], 0xdd);
        s[4 * h + 2] = _mm512_shuffle_i64x2(t[4 * h + 1], t[4 * h + 3], 0x88);
        s[4 * h + 3] = _mm512_shuffle_i64x2(t[4 * h + 1], t[4 * h + 3], 0xdd);
    }
    r[0] = _mm512_shuffle_i64x2(s[0], s[4], 0x88);
    r[4] = _mm512_shuffle_i64x2(s[0], s[4], 0xdd);
    r[2] = _mm512_shuffle_i64x2(s[1], s[5], 0x88);
    r[6] = _mm512_shuffle_i64x2(s[1], s[5], 0xdd);
    r[1] = _mm512_shuffle_i64x2(s[2], s[6], 0x88);
    r[5] = _mm512_shuffle_i64x2(s[2], s[6], 0xdd);
    r[3] = _mm512_shuffle_i64x2(s[3], s[7], 0x88);
    r[7] = _mm512_shuffle_i64x2(s[3], s[7], 0xdd);
}
/* 4 x 4 matrix of 128-bit words */
static inline void transpose_quarters(__m512i r[4]) {
    __m512i a = _mm512_shuffle_i64x2(r[0], r[1], 0x44), b = _mm512_shuffle_i64x2(r[0], r[1], 0xee);
    __m512i c = _mm512_shuffle_i64x2(r[2], r[3], 0x44), d = _mm512_shuffle_i64x2(r[2], r[3], 0xee);
    r[0] = _mm512_shuffle_i64x2(a, c, 0x88);
    r[1] = _mm512_shuffle_i64x2(a, c, 0xdd);
    r[2] = _mm512_shuffle_i64x2(b, d, 0x88);
    r[3] = _mm512_shuffle_i64x2(b, d, 0xdd);
}

static size_t simd_bit_transpose(const uint8_t *in, uint8_t *out, size_t plane) {
    const __m512i order = LD(bytes_8x8), reverse = LD(bytes_reversed), identity = BITS_IDENTITY;
    size_t j = 0;
    for (; j + 64 <= plane; j += 64) {
        __m512i r[8];
        for (int k = 0; k < 8; k++) {
            __m512i v = _mm512_shuffle_epi8(LD(in + 8 * j + 64 * k), _mm512_and_si512(reverse, _mm512_set1_epi8(15)));
            r[k] = _mm512_permutexvar_epi8(order, _mm512_gf2p8affine_epi64_epi8(identity, v, 0));
        }
        transpose_words(r);
        for (int p = 0; p < 8; p++) ST(out + p * plane + j, r[p]);
    }
    return j;
}
static size_t simd_bit_untranspose(const uint8_t *in, uint8_t *out, size_t plane) {
    const __m512i order = LD(bytes_8x8_reversed), identity = BITS_IDENTITY;
    size_t j = 0;
    for (; j + 64 <= plane; j += 64) {
        __m512i r[8];
        for (int p = 0; p < 8; p++) r[p] = LD(in + p * plane + j);
        transpose_words(r);
        for (int k = 0; k < 8; k++)
            ST(out + 8 * j + 64 * k, _mm512_gf2p8affine_epi64_epi8(identity, _mm512_permutexvar_epi8(order, r[k]), 0));
    }
    return j;
}

static size_t simd_shuffle2(const uint8_t *in, uint8_t *out, size_t n) {
    const __m512i even = LD(bytes_even), odd = _mm512_add_epi8(even, _mm512_set1_epi8(1));
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512i a = LD(in + 2 * i), b = LD(in + 2 * i + 64);
        ST(out + i, _mm512_permutex2var_epi8(a, even, b));
        ST(out + n + i, _mm512_permutex2var_epi8(a, odd, b));
    }
    return i;
}
static size_t simd_unshuffle2(const uint8_t *in, uint8_t *out, size_t n) {
    const __m512i low = LD(bytes_zip), high = _mm512_add_epi8(low, _mm512_set1_epi8(32));
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512i a = LD(in + i), b = LD(in + n + i);
        ST(out + 2 * i, _mm512_permutex2var_epi8(a, low, b));
        ST(out + 2 * i + 64, _mm512_permutex2var_epi8(a, high, b));
    }
    return i;
}
static size_t simd_shuffle4(const uint8_t *in, uint8_t *out, size_t n) {
    const __m512i order = LD(bytes_16x4);
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512i r[4];
        for (int k = 0; k < 4; k++) r[k] = _mm512_permutexvar_epi8(order, LD(in + 4 * i + 64 * k));
        transpose_quarters(r);
        for (int p = 0; p < 4; p++) ST(out + p * n + i, r[p]);
    }
    return i;
}
static size_t simd_unshuffle4(const uint8_t *in, uint8_t *out, size_t n) {
    const __m512i order = LD(bytes_4x16);
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512i r[4];
        for (int p = 0; p < 4; p++) r[p] = LD(in + p * n + i);
        transpose_quarters(r);
        for (int k = 0; k < 4; k++) ST(out + 4 * i + 64 * k, _mm512_permutexvar_epi8(order, r[k]));
    }
    return i;
}
static size_t simd_shuffle8(const uint8_t *in, uint8_t *out, size_t n) {
    const __m512i order = LD(bytes_8x8);
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512i r[8];
        for (int k = 0; k < 8; k++) r[k] = _mm512_permutexvar_epi8(order, LD(in + 8 * i + 64 * k));
        transpose_words(r);
        for (int p = 0; p < 8; p++) ST(out + p * n + i, r[p]);
    }
    return i;
}
static size_t simd_unshuffle8(const uint8_t *in, uint8_t *out, size_t n) {
    const __m512i order = LD(bytes_8x8);
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512i r[8];
        for (int p = 0; p < 8; p++) r[p] = LD(in + p * n + i);
        transpose_words(r);
        for (int k = 0; k < 8; k++) ST(out + 8 * i + 64 * k, _mm512_permutexvar_epi8(order, r[k]));
    }
    return i;
}

/* ---- 4-bit pixels ---------------------------------------------------------------------------------------------- */

static size_t simd_pack4(const uint8_t *in, uint8_t *out, size_t n, int *over) {
    const __m512i even = LD(bytes_even), low = _mm512_set1_epi8(15), weights = _mm512_set1_epi16(0x1001);
    __m512i all = _mm512_setzero_si512();
    size_t i = 0;
    for (; i + 128 <= n; i += 128) {
        __m512i a = LD(in + i), b = LD(in + i + 64);
        all = _mm512_ternarylogic_epi64(all, a, b, 0xfe);
        a = _mm512_maddubs_epi16(_mm512_and_si512(a, low), weights);
        b = _mm512_maddubs_epi16(_mm512_and_si512(b, low), weights);
        ST(out + i / 2, _mm512_permutex2var_epi8(a, even, b));
    }
    *over = _mm512_test_epi8_mask(all, _mm512_set1_epi8((char)0xf0)) != 0;
    return i;
}
static size_t simd_unpack4(const uint8_t *in, uint8_t *out, size_t n) {
    const __m512i low = _mm512_set1_epi8(15);
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512i v = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)(in + i / 2)));
        ST(out + i, _mm512_and_si512(_mm512_or_si512(v, _mm512_slli_epi16(v, 4)), low));
    }
    return i;
}

/* ---- zeros ----------------------------------------------------------------------------------------------------- */

static size_t simd_count_zero(const uint8_t *in, size_t n, size_t *count) {
    size_t c = 0, i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512i v = LD(in + i);
        c += (size_t)_mm_popcnt_u64(_mm512_testn_epi8_mask(v, v));
    }
    *count = c;
    return i;
}
static size_t simd_nonzero_mask(const uint8_t *in, uint64_t *out, size_t n) {
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512i v = LD(in + i);
        out[i / 64] = _mm512_test_epi8_mask(v, v);
    }
    return i;
}

/* ---- histogram ------------------------------------------------------------------------------------------------- */

/* The bits of a byte that is one of the 16 most are: counts below 16, or, of packed pixels, pairs of counts below 4. */
static inline __mmask64 unusual(const uint8_t *in, int pairs) {
    return _mm512_test_epi8_mask(LD(in), _mm512_set1_epi8((char)(pairs ? 0xcc : 0xf0)));
}
static size_t histogram16(const uint8_t *in, size_t whole, size_t large, int pairs, uint32_t *h) {
    const __m512i one = _mm512_set1_epi8(1), zero = _mm512_setzero_si512();
    size_t found = 0;
    for (int first = 0; first < 16 && found + large < whole; first += 8) {
        __m512i count[8], values[8];
        for (int k = 0; k < 8; k++) {
            int value = first + k;
            values[k] = _mm512_set1_epi8((char)(pairs ? (value & 3) | value >> 2 << 4 : value));
            count[k] = zero;
        }
        for (size_t i = 0; i < whole; i += 64) {
            __m512i v = LD(in + i);
            for (int k = 0; k < 8; k++) count[k] = _mm512_mask_add_epi8(count[k], _mm512_cmpeq_epi8_mask(v, values[k]), count[k], one);
        }
        for (int k = 0; k < 8; k++) {
            uint32_t c = (uint32_t)_mm512_reduce_add_epi64(_mm512_sad_epu8(count[k], zero));
            h[pairs ? ((first + k) & 3) | (first + k) >> 2 << 4 : first + k] += c;
            found += c;
        }
    }
    for (size_t i = 0; large && i < whole; i += 64)
        for (uint64_t m = unusual(in + i, pairs); m; m &= m - 1, large--) h[in[i + _tzcnt_u64(m)]]++;
    return whole;
}
/* A block of at most 254 vectors of mostly small counts: compare with each of 16 values and count in 8 bits. 0, and
 * nothing done, where more than one byte in 32 (packed pixels: 16) is another. */
static size_t simd_histogram8(const uint8_t *in, size_t n, uint32_t *h) {
    size_t whole = n / 64 * 64, large = 0, pairs = 0;
    for (size_t i = 0; i < whole; i += 64) large += (size_t)_mm_popcnt_u64(unusual(in + i, 0));
    if (large <= n / 32) return histogram16(in, whole, large, 0, h);
    for (size_t i = 0; i < whole && pairs <= n / 16; i += 64) pairs += (size_t)_mm_popcnt_u64(unusual(in + i, 1));
    return pairs <= n / 16 ? histogram16(in, whole, pairs, 1, h) : 0;
}

/* ---- statistics ------------------------------------------------------------------------------------------------ */

static inline size_t stats8(const uint8_t *in, size_t n, int64_t t[4], int is_signed) {
    const __m512i zero = _mm512_setzero_si512(), sign = _mm512_set1_epi8((char)0x80);
    __m512i lo = _mm512_set1_epi8((char)0xff), hi = zero, sum = zero, squares = zero;
    size_t i = 0;
    if (n < 64) return 0;
    for (; i + 64 <= n; i += 64) {
        __m512i v = LD(in + i), shifted = is_signed ? _mm512_xor_si512(v, sign) : v;
        __m512i magnitude = is_signed ? _mm512_abs_epi8(v) : v;
        __m512i a = _mm512_unpacklo_epi8(magnitude, zero), b = _mm512_unpackhi_epi8(magnitude, zero);
        lo = _mm512_min_epu8(lo, shifted);
        hi = _mm512_max_epu8(hi, shifted);
        sum = _mm512_add_epi64(sum, _mm512_sad_epu8(shifted, zero));
        squares = _mm512_add_epi32(squares, _mm512_add_epi32(_mm512_madd_epi16(a, a), _mm512_madd_epi16(b, b)));
    }
    uint8_t los[64], his[64], least = 255, most = 0;
    ST(los, lo);
    ST(his, hi);
    for (int k = 0; k < 64; k++) {
        least = los[k] < least ? los[k] : least;
        most = his[k] > most ? his[k] : most;
    }
    int64_t offset = is_signed ? 128 : 0;
    t[0] = least - offset;
    t[1] = most - offset;
    t[2] = _mm512_reduce_add_epi64(sum) - offset * (int64_t)i;
    t[3] = (uint32_t)_mm512_reduce_add_epi32(squares);
    return i;
}
static size_t simd_stats_i8(const uint8_t *in, size_t n, int64_t t[4]) { return stats8(in, n, t, 1); }
static size_t simd_stats_u8(const uint8_t *in, size_t n, int64_t t[4]) { return stats8(in, n, t, 0); }

/* Unsigned pixels are taken 32768 lower: (w + 32768)^2 = w^2 + 65536 w + 2^30 */
static inline size_t stats16(const uint8_t *in, size_t n, int64_t t[4], int is_signed) {
    const __m512i one = _mm512_set1_epi16(1), sign = _mm512_set1_epi16((short)0x8000);
    const __m512i low = _mm512_set1_epi64(0xffffffffLL);
    __m512i lo = _mm512_set1_epi16(0x7fff), hi = sign, sum = _mm512_setzero_si512(), squares = sum;
    size_t i = 0;
    if (n < 32) return 0;
    for (; i + 32 <= n; i += 32) {
        __m512i v = LD(in + 2 * i);
        if (!is_signed) v = _mm512_xor_si512(v, sign);
        __m512i s = _mm512_madd_epi16(v, v); /* up to 2^31: an unsigned number */
        lo = _mm512_min_epi16(lo, v);
        hi = _mm512_max_epi16(hi, v);
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(v, one));
        squares = _mm512_add_epi64(squares, _mm512_add_epi64(_mm512_and_si512(s, low), _mm512_srli_epi64(s, 32)));
    }
    int16_t los[32], his[32], least = INT16_MAX, most = INT16_MIN;
    ST(los, lo);
    ST(his, hi);
    for (int k = 0; k < 32; k++) {
        least = los[k] < least ? los[k] : least;
        most = his[k] > most ? his[k] : most;
    }
    int64_t offset = is_signed ? 0 : 32768, total = _mm512_reduce_add_epi32(sum), m = (int64_t)i;
    t[0] = least + offset;
    t[1] = most + offset;
    t[2] = total + offset * m;
    t[3] = _mm512_reduce_add_epi64(squares) + 2 * offset * total + offset * offset * m;
    return i;
}
static size_t simd_stats_i16(const uint8_t *in, size_t n, int64_t t[4]) { return stats16(in, n, t, 1); }
static size_t simd_stats_u16(const uint8_t *in, size_t n, int64_t t[4]) { return stats16(in, n, t, 0); }

/* min and max give their second argument where the first is NaN, and for two zeros, as the plain C does */
static size_t simd_stats_f32(const uint8_t *in, size_t n, double *lo, double *hi, double *sum, double *squares,
                             size_t *nan) {
    __m512 least = _mm512_set1_ps(INFINITY), most = _mm512_set1_ps(-INFINITY);
    __m512d s0 = _mm512_setzero_pd(), s1 = s0, q0 = s0, q1 = s0;
    size_t i = 0, good = 0;
    for (; i + 16 <= n; i += 16) {
        __m512 v = _mm512_loadu_ps((const void *)(in + 4 * i));
        __mmask16 m = _mm512_cmp_ps_mask(v, v, _CMP_ORD_Q);
        least = _mm512_min_ps(v, least);
        most = _mm512_max_ps(v, most);
        good += (size_t)_mm_popcnt_u32(m);
        v = _mm512_maskz_mov_ps(m, v);
        __m512d a = _mm512_cvtps_pd(_mm512_castps512_ps256(v)), b = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
        s0 = _mm512_add_pd(s0, a);
        s1 = _mm512_add_pd(s1, b);
        q0 = _mm512_add_pd(q0, _mm512_mul_pd(a, a));
        q1 = _mm512_add_pd(q1, _mm512_mul_pd(b, b));
    }
    _mm512_storeu_pd(lo, _mm512_cvtps_pd(_mm512_castps512_ps256(least)));
    _mm512_storeu_pd(lo + 8, _mm512_cvtps_pd(_mm512_extractf32x8_ps(least, 1)));
    _mm512_storeu_pd(hi, _mm512_cvtps_pd(_mm512_castps512_ps256(most)));
    _mm512_storeu_pd(hi + 8, _mm512_cvtps_pd(_mm512_extractf32x8_ps(most, 1)));
    _mm512_storeu_pd(sum, s0);
    _mm512_storeu_pd(sum + 8, s1);
    _mm512_storeu_pd(squares, q0);
    _mm512_storeu_pd(squares + 8, q1);
    *nan = i - good;
    return i;
}
static size_t simd_stats_f64(const uint8_t *in, size_t n, double *lo, double *hi, double *sum, double *squares,
                             size_t *nan) {
    __m512d least[2], most[2], s[2], q[2];
    size_t i = 0, good = 0;
    for (int k = 0; k < 2; k++) {
        least[k] = _mm512_set1_pd(INFINITY);
        most[k] = _mm512_set1_pd(-INFINITY);
        s[k] = q[k] = _mm512_setzero_pd();
    }
    for (; i + 16 <= n; i += 16)
        for (int k = 0; k < 2; k++) {
            __m512d v = _mm512_loadu_pd((const void *)(in + 8 * i + 64 * k));
            __mmask8 m = _mm512_cmp_pd_mask(v, v, _CMP_ORD_Q);
            least[k] = _mm512_min_pd(v, least[k]);
            most[k] = _mm512_max_pd(v, most[k]);
            good += (size_t)_mm_popcnt_u32(m);
            v = _mm512_maskz_mov_pd(m, v);
            s[k] = _mm512_add_pd(s[k], v);
            q[k] = _mm512_add_pd(q[k], _mm512_mul_pd(v, v));
        }
    for (int k = 0; k < 2; k++) {
        _mm512_storeu_pd(lo + 8 * k, least[k]);
        _mm512_storeu_pd(hi + 8 * k, most[k]);
        _mm512_storeu_pd(sum + 8 * k, s[k]);
        _mm512_storeu_pd(squares + 8 * k, q[k]);
    }
    *nan = i - good;
    return i;
}

/* ---- conversion to float --------------------------------------------------------------------------------------- */

static size_t simd_to_float(int pt, const uint8_t *in, const float *gain, float *out, size_t n, int stream) {
    size_t i = 0;
#define CONVERT(size, VECTOR)                                                    \
    for (; i + 16 <= n; i += 16) {                                               \
        const void *x = in + i * size;                                           \
        __m512 v = VECTOR;                                                       \
        if (gain) v = _mm512_mul_ps(v, _mm512_loadu_ps((const void *)(gain + i))); \
        if (stream)                                                              \
            _mm512_stream_ps(out + i, v);                                        \
        else                                                                     \
            _mm512_storeu_ps((void *)(out + i), v);                              \
    }                                                                            \
    break;
    switch (pt) {
    case MZ_I8: CONVERT(1, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x))))
    case MZ_U8: CONVERT(1, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(x))))
    case MZ_I16: CONVERT(2, _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_loadu_si256(x))))
    case MZ_U16: CONVERT(2, _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(_mm256_loadu_si256(x))))
    case MZ_I32: CONVERT(4, _mm512_cvtepi32_ps(LD(x)))
    case MZ_U32: CONVERT(4, _mm512_cvtepu32_ps(LD(x)))
    case MZ_F16: CONVERT(2, _mm512_cvtph_ps(_mm256_loadu_si256(x)))
    case MZ_F32: CONVERT(4, _mm512_loadu_ps(x))
    case MZ_F64:
        CONVERT(8, _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(_mm512_loadu_pd(x))),
                                      _mm512_cvtpd_ps(_mm512_loadu_pd((const uint8_t *)x + 64)), 1))
    }
#undef CONVERT
    if (stream == 1) _mm_sfence();
    return i;
}

/* ---- zstd frames ------------------------------------------------------------------------------------------------- */

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
static size_t simd_count_and_hash(const uint8_t *p, size_t n, uint64_t v[4], size_t *zeros,
                                  const uint8_t *ahead, size_t step, uint8_t *copy) {
    size_t i = 0, c = 0;
    if (!__builtin_cpu_is("amd")) return 0;
    __m256i acc = _mm256_loadu_si256((const void *)v);
    for (; i + 64 <= n; i += 64) {
        __m512i x = LD(p + i);
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

/* Bytes through a table of 256. */
static inline __m512i lookup(const __m512i t[4], __m512i v) {
    __m512i a = _mm512_permutex2var_epi8(t[0], v, t[1]), b = _mm512_permutex2var_epi8(t[2], v, t[3]);
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(v), a, b);
}
/* Add each byte that unseen (256 bytes, 0xff or 0) marks to its count. */
static size_t simd_count_unseen(const uint8_t *x, size_t n, const uint8_t *unseen, uint32_t *count) {
    const __m512i t[4] = {LD(unseen), LD(unseen + 64), LD(unseen + 128), LD(unseen + 192)};
    size_t i = 0;
    for (; i + 64 <= n; i += 64)
        for (uint64_t m = _mm512_movepi8_mask(lookup(t, LD(x + i))); m; m &= m - 1) count[x[i + _tzcnt_u64(m)]]++;
    return i;
}
/* Codes of 32 bytes, in 16 bits each, joined by fours: the later byte's code in the lower bits. */
static inline void join(__m512i code, __m512i length, __m512i *joined, __m512i *bits) {
    const __m512i low16 = _mm512_set1_epi32(0xffff), low32 = _mm512_set1_epi64(0xffffffffLL);
    __m512i later = _mm512_srli_epi32(length, 16);
    /* earlier * 2^later + later * 2^0 */
    __m512i pair = _mm512_madd_epi16(code, _mm512_sllv_epi16(_mm512_set1_epi16(1), later));
    __m512i both = _mm512_add_epi32(_mm512_and_si512(length, low16), later);
    later = _mm512_srli_epi64(both, 32);
    *joined = _mm512_or_si512(_mm512_srli_epi64(pair, 32), _mm512_sllv_epi64(_mm512_and_si512(pair, low32), later));
    *bits = _mm512_add_epi64(_mm512_and_si512(both, low32), later);
}
/* Four streams side by side, 64 bytes of each at a time, from their ends: the first three are `quarter` bytes long, the
 * fourth `last`. Returns how many bytes of each are done. */
static size_t simd_huffman_streams(const uint8_t *x, size_t quarter, size_t last, const uint8_t *low, const uint8_t *high,
                                   mz_bits b[4]) {
    const __m512i three = _mm512_set1_epi8(7), four = _mm512_set1_epi8(15), zero = _mm512_setzero_si512();
    __m512i lows[4], highs[4], t;
    size_t done = 0;
    int eights = 1; /* whether the codes of 8 bytes fit 56 bits, which the first 64 of a stream tell well */
    uint64_t joined[4][16], bits[4][16];
    const uint8_t *ends[4] = {x + quarter, x + 2 * quarter, x + 3 * quarter, x + 3 * quarter + last};
    mz_bits s0 = b[0], s1 = b[1], s2 = b[2], s3 = b[3];
    for (int k = 0; k < 4; k++) {
        lows[k] = LD(low + 64 * k);
        highs[k] = LD(high + 64 * k);
    }
#define TAKE(s, k, i)                         \
    {                                         \
        s.acc |= joined[k][i] << s.bits;      \
        s.bits += bits[k][i];                 \
        memcpy(s.p, &s.acc, 8);               \
        s.p += s.bits >> 3;                   \
        s.acc >>= s.bits & 56;                \
        s.bits &= 7;                          \
    }
#define TAKE4(i) TAKE(s0, 0, i) TAKE(s1, 1, i) TAKE(s2, 2, i) TAKE(s3, 3, i)
    for (; done + 64 <= last; done += 64) {
        __m512i lo[4], hi[4], lo_bits[4], hi_bits[4];
        __mmask8 wide = 0;
        for (int k = 0; k < 4; k++) {
            __m512i v = LD(ends[k] - done - 64), l = lookup(lows, v), h = lookup(highs, v);
            t = _mm512_and_si512(_mm512_srli_epi16(h, 4), four);
            h = _mm512_and_si512(h, three);
            /* bytes 0 to 7 of each lane of 16, then 8 to 15 */
            join(_mm512_unpacklo_epi8(l, h), _mm512_unpacklo_epi8(t, zero), &lo[k], &lo_bits[k]);
            join(_mm512_unpackhi_epi8(l, h), _mm512_unpackhi_epi8(t, zero), &hi[k], &hi_bits[k]);
            if (!eights) continue;
            /* two fours become an eight; the eights are in the order of the bytes */
            __m512i first = _mm512_unpacklo_epi64(lo_bits[k], hi_bits[k]), then = _mm512_unpackhi_epi64(lo_bits[k], hi_bits[k]);
            __m512i both = _mm512_add_epi64(first, then);
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

#include "kernels_impl.h"
