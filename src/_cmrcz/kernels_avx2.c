/* The kernels for AVX2: what is worth writing by hand; kernels_impl.h has the rest.
 *
 * Each simd_X handles a whole number of vectors from the start of its input and returns how far it came; the plain C
 * in kernels_impl.h does what is left. */
#include "kernels.h"
#include <immintrin.h>
#include <math.h>

#define MZ_NAME avx2
#define MZ_SIMD 1

#define LD(p) _mm256_loadu_si256((const void *)(p))
#define ST(p, v) _mm256_storeu_si256((void *)(p), v)

/* ---- transposes ------------------------------------------------------------------------------------------------
 * AVX2 shuffles within halves of 128 bits. Loading the halves from two places at once (and storing them so) makes
 * each half a transpose of its own, and no instruction is spent on crossing. */

static inline __m256i load_halves(const uint8_t *low, const uint8_t *high) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const void *)low)),
                                   _mm_loadu_si128((const void *)high), 1);
}
static inline void store_halves(uint8_t *low, uint8_t *high, __m256i v) {
    _mm_storeu_si128((void *)low, _mm256_castsi256_si128(v));
    _mm_storeu_si128((void *)high, _mm256_extracti128_si256(v, 1));
}
#define TWICE(...) _mm256_broadcastsi128_si256(_mm_setr_epi8(__VA_ARGS__))

/* 8 x 8 matrix of 16-bit words in each half */
static inline void transpose_words(__m256i r[8]) {
    __m256i a[8], b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm256_unpacklo_epi16(r[2 * i], r[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_epi16(r[2 * i], r[2 * i + 1]);
    }
    for (int h = 0; h < 8; h += 4) {
        b[h] = _mm256_unpacklo_epi32(a[h], a[h + 2]);
        b[h + 1] = _mm256_unpackhi_epi32(a[h], a[h + 2]);
        b[h + 2] = _mm256_unpacklo_epi32(a[h + 1], a[h + 3]);
        b[h + 3] = _mm256_unpackhi_epi32(a[h + 1], a[h + 3]);
    }
    for (int i = 0; i < 4; i++) {
        r[2 * i] = _mm256_unpacklo_epi64(b[i], b[i + 4]);
        r[2 * i + 1] = _mm256_unpackhi_epi64(b[i], b[i + 4]);
    }
}
/* 256 bytes, 32 elements of 8 <-> 8 vectors, one for each byte of the element */
static inline void load_planes8(const uint8_t *in, __m256i r[8]) {
    const __m256i zip = TWICE(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    for (int k = 0; k < 8; k++) r[k] = _mm256_shuffle_epi8(load_halves(in + 16 * k, in + 128 + 16 * k), zip);
    transpose_words(r);
}
static inline void store_planes8(uint8_t *out, __m256i r[8]) {
    const __m256i unzip = TWICE(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    transpose_words(r);
    for (int k = 0; k < 8; k++) store_halves(out + 16 * k, out + 128 + 16 * k, _mm256_shuffle_epi8(r[k], unzip));
}
/* Bit i of byte j of r[p] <-> bit p of byte j of r[i]: an 8 x 8 bit matrix for every byte position, transposed by
 * exchanging 4 x 4, 2 x 2, then single bits between vectors. */
static inline void transpose_bits(__m256i r[8]) {
#define EXCHANGE(a, b, shift, mask)                                                                   \
    {                                                                                                 \
        __m256i t = _mm256_and_si256(_mm256_xor_si256(_mm256_srli_epi16(a, shift), b), mask);         \
        b = _mm256_xor_si256(b, t);                                                                   \
        a = _mm256_xor_si256(a, _mm256_slli_epi16(t, shift));                                         \
    }
    const __m256i m4 = _mm256_set1_epi8(0x0f), m2 = _mm256_set1_epi8(0x33), m1 = _mm256_set1_epi8(0x55);
    for (int i = 0; i < 4; i++) EXCHANGE(r[i], r[i + 4], 4, m4)
    for (int i = 0; i < 8; i += 4)
        for (int k = i; k < i + 2; k++) EXCHANGE(r[k], r[k + 2], 2, m2)
    for (int i = 0; i < 8; i += 2) EXCHANGE(r[i], r[i + 1], 1, m1)
#undef EXCHANGE
}

static size_t simd_bit_transpose(const uint8_t *in, uint8_t *out, size_t plane) {
    size_t j = 0;
    for (; j + 32 <= plane; j += 32) {
        __m256i r[8];
        load_planes8(in + 8 * j, r);
        transpose_bits(r);
        for (int p = 0; p < 8; p++) ST(out + p * plane + j, r[p]);
    }
    return j;
}
static size_t simd_bit_untranspose(const uint8_t *in, uint8_t *out, size_t plane) {
    size_t j = 0;
    for (; j + 32 <= plane; j += 32) {
        __m256i r[8];
        for (int p = 0; p < 8; p++) r[p] = LD(in + p * plane + j);
        transpose_bits(r);
        store_planes8(out + 8 * j, r);
    }
    return j;
}

static size_t simd_shuffle2(const uint8_t *in, uint8_t *out, size_t n) {
    const __m256i low = _mm256_set1_epi16(255);
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i a = load_halves(in + 2 * i, in + 2 * i + 32), b = load_halves(in + 2 * i + 16, in + 2 * i + 48);
        ST(out + i, _mm256_packus_epi16(_mm256_and_si256(a, low), _mm256_and_si256(b, low)));
        ST(out + n + i, _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8)));
    }
    return i;
}
static size_t simd_unshuffle2(const uint8_t *in, uint8_t *out, size_t n) {
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i a = LD(in + i), b = LD(in + n + i);
        store_halves(out + 2 * i, out + 2 * i + 32, _mm256_unpacklo_epi8(a, b));
        store_halves(out + 2 * i + 16, out + 2 * i + 48, _mm256_unpackhi_epi8(a, b));
    }
    return i;
}
/* 4 x 4 matrix of 32-bit words in each half */
static inline void transpose_dwords(__m256i r[4]) {
    __m256i a = _mm256_unpacklo_epi32(r[0], r[1]), b = _mm256_unpackhi_epi32(r[0], r[1]);
    __m256i c = _mm256_unpacklo_epi32(r[2], r[3]), d = _mm256_unpackhi_epi32(r[2], r[3]);
    r[0] = _mm256_unpacklo_epi64(a, c);
    r[1] = _mm256_unpackhi_epi64(a, c);
    r[2] = _mm256_unpacklo_epi64(b, d);
    r[3] = _mm256_unpackhi_epi64(b, d);
}
#define BYTES_4X4 TWICE(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
static size_t simd_shuffle4(const uint8_t *in, uint8_t *out, size_t n) {
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i r[4];
        for (int k = 0; k < 4; k++)
            r[k] = _mm256_shuffle_epi8(load_halves(in + 4 * i + 16 * k, in + 4 * i + 64 + 16 * k), BYTES_4X4);
        transpose_dwords(r);
        for (int p = 0; p < 4; p++) ST(out + p * n + i, r[p]);
    }
    return i;
}
static size_t simd_unshuffle4(const uint8_t *in, uint8_t *out, size_t n) {
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i r[4];
        for (int p = 0; p < 4; p++) r[p] = LD(in + p * n + i);
        transpose_dwords(r);
        for (int k = 0; k < 4; k++)
            store_halves(out + 4 * i + 16 * k, out + 4 * i + 64 + 16 * k, _mm256_shuffle_epi8(r[k], BYTES_4X4));
    }
    return i;
}
static size_t simd_shuffle8(const uint8_t *in, uint8_t *out, size_t n) {
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i r[8];
        load_planes8(in + 8 * i, r);
        for (int p = 0; p < 8; p++) ST(out + p * n + i, r[p]);
    }
    return i;
}
static size_t simd_unshuffle8(const uint8_t *in, uint8_t *out, size_t n) {
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i r[8];
        for (int p = 0; p < 8; p++) r[p] = LD(in + p * n + i);
        store_planes8(out + 8 * i, r);
    }
    return i;
}

/* ---- 4-bit pixels ---------------------------------------------------------------------------------------------- */

static size_t simd_pack4(const uint8_t *in, uint8_t *out, size_t n, int *over) {
    const __m256i low = _mm256_set1_epi8(15), weights = _mm256_set1_epi16(0x1001);
    __m256i all = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m256i a = load_halves(in + i, in + i + 32), b = load_halves(in + i + 16, in + i + 48);
        all = _mm256_or_si256(all, _mm256_or_si256(a, b));
        a = _mm256_maddubs_epi16(_mm256_and_si256(a, low), weights);
        b = _mm256_maddubs_epi16(_mm256_and_si256(b, low), weights);
        ST(out + i / 2, _mm256_packus_epi16(a, b));
    }
    *over = !_mm256_testz_si256(all, _mm256_set1_epi8((char)0xf0));
    return i;
}
static size_t simd_unpack4(const uint8_t *in, uint8_t *out, size_t n) {
    const __m256i low = _mm256_set1_epi8(15);
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i v = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)(in + i / 2)));
        ST(out + i, _mm256_and_si256(_mm256_or_si256(v, _mm256_slli_epi16(v, 4)), low));
    }
    return i;
}

/* ---- zeros ----------------------------------------------------------------------------------------------------- */

static inline uint32_t zeros32(const uint8_t *in) {
    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(LD(in), _mm256_setzero_si256()));
}
static size_t simd_count_zero(const uint8_t *in, size_t n, size_t *count) {
    size_t c = 0, i = 0;
    for (; i + 64 <= n; i += 64) c += (size_t)_mm_popcnt_u64(zeros32(in + i) | (uint64_t)zeros32(in + i + 32) << 32);
    *count = c;
    return i;
}
static size_t simd_nonzero_mask(const uint8_t *in, uint64_t *out, size_t n) {
    size_t i = 0;
    for (; i + 64 <= n; i += 64) out[i / 64] = ~(zeros32(in + i) | (uint64_t)zeros32(in + i + 32) << 32);
    return i;
}

/* ---- histogram ------------------------------------------------------------------------------------------------- */

static inline int64_t sum_words(__m256i v) {
    __m128i s = _mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    return _mm_cvtsi128_si64(s) + _mm_extract_epi64(s, 1);
}
static inline int32_t sum_dwords(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}
/* The bits of a byte that is one of the 16 most are: counts below 16, or, of packed pixels, pairs of counts below 4. */
static inline uint32_t unusual(const uint8_t *in, int pairs) {
    __m256i bits = _mm256_and_si256(LD(in), _mm256_set1_epi8((char)(pairs ? 0xcc : 0xf0)));
    return ~(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(bits, _mm256_setzero_si256()));
}
static size_t histogram16(const uint8_t *in, size_t whole, size_t large, int pairs, uint32_t *h) {
    const __m256i zero = _mm256_setzero_si256();
    size_t found = 0;
    for (int first = 0; first < 16 && found + large < whole; first += 8) {
        __m256i count[8], values[8];
        for (int k = 0; k < 8; k++) {
            int value = first + k;
            values[k] = _mm256_set1_epi8((char)(pairs ? (value & 3) | value >> 2 << 4 : value));
            count[k] = zero;
        }
        for (size_t i = 0; i < whole; i += 32) {
            __m256i v = LD(in + i);
            for (int k = 0; k < 8; k++) count[k] = _mm256_sub_epi8(count[k], _mm256_cmpeq_epi8(v, values[k]));
        }
        for (int k = 0; k < 8; k++) {
            uint32_t c = (uint32_t)sum_words(_mm256_sad_epu8(count[k], zero));
            h[pairs ? ((first + k) & 3) | (first + k) >> 2 << 4 : first + k] += c;
            found += c;
        }
    }
    for (size_t i = 0; large && i < whole; i += 32)
        for (uint32_t m = unusual(in + i, pairs); m; m &= m - 1, large--) h[in[i + _tzcnt_u32(m)]]++;
    return whole;
}
/* A block of at most 254 vectors of mostly small counts: compare with each of 16 values and count in 8 bits. 0, and
 * nothing done, where more than one byte in 32 (packed pixels: 16) is another. */
static size_t simd_histogram8(const uint8_t *in, size_t n, uint32_t *h) {
    size_t whole = n / 32 * 32, large = 0, pairs = 0;
    for (size_t i = 0; i < whole; i += 32) large += (size_t)_mm_popcnt_u32(unusual(in + i, 0));
    if (large <= n / 32) return histogram16(in, whole, large, 0, h);
    for (size_t i = 0; i < whole && pairs <= n / 16; i += 32) pairs += (size_t)_mm_popcnt_u32(unusual(in + i, 1));
    return pairs <= n / 16 ? histogram16(in, whole, pairs, 1, h) : 0;
}

/* ---- statistics ------------------------------------------------------------------------------------------------ */

static inline size_t stats8(const uint8_t *in, size_t n, int64_t t[4], int is_signed) {
    const __m256i zero = _mm256_setzero_si256(), sign = _mm256_set1_epi8((char)0x80);
    __m256i lo = _mm256_set1_epi8((char)0xff), hi = zero, sum = zero, squares = zero;
    size_t i = 0;
    if (n < 32) return 0;
    for (; i + 32 <= n; i += 32) {
        __m256i v = LD(in + i), shifted = is_signed ? _mm256_xor_si256(v, sign) : v;
        __m256i magnitude = is_signed ? _mm256_abs_epi8(v) : v;
        __m256i a = _mm256_unpacklo_epi8(magnitude, zero), b = _mm256_unpackhi_epi8(magnitude, zero);
        lo = _mm256_min_epu8(lo, shifted);
        hi = _mm256_max_epu8(hi, shifted);
        sum = _mm256_add_epi64(sum, _mm256_sad_epu8(shifted, zero));
        squares = _mm256_add_epi32(squares, _mm256_add_epi32(_mm256_madd_epi16(a, a), _mm256_madd_epi16(b, b)));
    }
    uint8_t los[32], his[32], least = 255, most = 0;
    ST(los, lo);
    ST(his, hi);
    for (int k = 0; k < 32; k++) {
        least = los[k] < least ? los[k] : least;
        most = his[k] > most ? his[k] : most;
    }
    int64_t offset = is_signed ? 128 : 0;
    t[0] = least - offset;
    t[1] = most - offset;
    t[2] = sum_words(sum) - offset * (int64_t)i;
    t[3] = (uint32_t)sum_dwords(squares);
    return i;
}
static size_t simd_stats_i8(const uint8_t *in, size_t n, int64_t t[4]) { return stats8(in, n, t, 1); }
static size_t simd_stats_u8(const uint8_t *in, size_t n, int64_t t[4]) { return stats8(in, n, t, 0); }

/* Unsigned pixels are taken 32768 lower: (w + 32768)^2 = w^2 + 65536 w + 2^30 */
static inline size_t stats16(const uint8_t *in, size_t n, int64_t t[4], int is_signed) {
    const __m256i one = _mm256_set1_epi16(1), sign = _mm256_set1_epi16((short)0x8000);
    const __m256i low = _mm256_set1_epi64x(0xffffffffLL);
    __m256i lo = _mm256_set1_epi16(0x7fff), hi = sign, sum = _mm256_setzero_si256(), squares = sum;
    size_t i = 0;
    if (n < 16) return 0;
    for (; i + 16 <= n; i += 16) {
        __m256i v = LD(in + 2 * i);
        if (!is_signed) v = _mm256_xor_si256(v, sign);
        __m256i s = _mm256_madd_epi16(v, v); /* up to 2^31: an unsigned number */
        lo = _mm256_min_epi16(lo, v);
        hi = _mm256_max_epi16(hi, v);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(v, one));
        squares = _mm256_add_epi64(squares, _mm256_add_epi64(_mm256_and_si256(s, low), _mm256_srli_epi64(s, 32)));
    }
    int16_t los[16], his[16], least = INT16_MAX, most = INT16_MIN;
    ST(los, lo);
    ST(his, hi);
    for (int k = 0; k < 16; k++) {
        least = los[k] < least ? los[k] : least;
        most = his[k] > most ? his[k] : most;
    }
    int64_t offset = is_signed ? 0 : 32768, total = sum_dwords(sum), m = (int64_t)i;
    t[0] = least + offset;
    t[1] = most + offset;
    t[2] = total + offset * m;
    t[3] = sum_words(squares) + 2 * offset * total + offset * offset * m;
    return i;
}
static size_t simd_stats_i16(const uint8_t *in, size_t n, int64_t t[4]) { return stats16(in, n, t, 1); }
static size_t simd_stats_u16(const uint8_t *in, size_t n, int64_t t[4]) { return stats16(in, n, t, 0); }

/* Sixteen pixels a turn as four vectors of float64. min and max give their second argument where the first is NaN, and
 * for two zeros, as the plain C does. */
#define STATS_FLOAT(name, LOAD)                                                                                   \
    static size_t simd_stats_##name(const uint8_t *in, size_t n, double *lo, double *hi, double *sum,             \
                                    double *squares, size_t *nan) {                                               \
        __m256d s[4], q[4], least[4], most[4];                                                                    \
        __m256i bad = _mm256_setzero_si256();                                                                     \
        size_t i = 0;                                                                                             \
        for (int k = 0; k < 4; k++) {                                                                             \
            s[k] = q[k] = _mm256_setzero_pd();                                                                    \
            least[k] = _mm256_set1_pd(INFINITY);                                                                  \
            most[k] = _mm256_set1_pd(-INFINITY);                                                                  \
        }                                                                                                         \
        for (; i + 16 <= n; i += 16)                                                                              \
            for (int k = 0; k < 4; k++) {                                                                         \
                __m256d v = LOAD(i + 4 * k), is_nan = _mm256_cmp_pd(v, v, _CMP_UNORD_Q);                          \
                least[k] = _mm256_min_pd(v, least[k]);                                                            \
                most[k] = _mm256_max_pd(v, most[k]);                                                              \
                bad = _mm256_sub_epi64(bad, _mm256_castpd_si256(is_nan));                                         \
                v = _mm256_andnot_pd(is_nan, v);                                                                  \
                s[k] = _mm256_add_pd(s[k], v);                                                                    \
                q[k] = _mm256_add_pd(q[k], _mm256_mul_pd(v, v));                                                  \
            }                                                                                                     \
        for (int k = 0; k < 4; k++) {                                                                             \
            _mm256_storeu_pd(lo + 4 * k, least[k]);                                                               \
            _mm256_storeu_pd(hi + 4 * k, most[k]);                                                                \
            _mm256_storeu_pd(sum + 4 * k, s[k]);                                                                  \
            _mm256_storeu_pd(squares + 4 * k, q[k]);                                                              \
        }                                                                                                         \
        *nan = (size_t)sum_words(bad);                                                                            \
        return i;                                                                                                 \
    }
#define LOAD_F32(i) _mm256_cvtps_pd(_mm_loadu_ps((const void *)(in + 4 * (i))))
#define LOAD_F64(i) _mm256_loadu_pd((const void *)(in + 8 * (i)))
STATS_FLOAT(f32, LOAD_F32)
STATS_FLOAT(f64, LOAD_F64)

/* ---- conversion to float --------------------------------------------------------------------------------------- */

/* both halves are exact, so that only their sum is rounded */
static inline __m256 float_of_u32(__m256i v) {
    __m256 high = _mm256_cvtepi32_ps(_mm256_srli_epi32(v, 16));
    __m256 low = _mm256_cvtepi32_ps(_mm256_and_si256(v, _mm256_set1_epi32(0xffff)));
    return _mm256_add_ps(_mm256_mul_ps(high, _mm256_set1_ps(65536.0f)), low);
}
static size_t simd_to_float(int pt, const uint8_t *in, const float *gain, float *out, size_t n, int stream) {
    size_t i = 0;
#define CONVERT(size, VECTOR)                                                    \
    for (; i + 8 <= n; i += 8) {                                                 \
        const void *x = in + i * size;                                           \
        __m256 v = VECTOR;                                                       \
        if (gain) v = _mm256_mul_ps(v, _mm256_loadu_ps((const void *)(gain + i))); \
        if (stream)                                                              \
            _mm256_stream_ps(out + i, v);                                        \
        else                                                                     \
            _mm256_storeu_ps((void *)(out + i), v);                              \
    }                                                                            \
    break;
    switch (pt) {
    case MZ_I8: CONVERT(1, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(x))))
    case MZ_U8: CONVERT(1, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(x))))
    case MZ_I16: CONVERT(2, _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128(x))))
    case MZ_U16: CONVERT(2, _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(_mm_loadu_si128(x))))
    case MZ_I32: CONVERT(4, _mm256_cvtepi32_ps(LD(x)))
    case MZ_U32: CONVERT(4, float_of_u32(LD(x)))
    case MZ_F16: CONVERT(2, _mm256_cvtph_ps(_mm_loadu_si128(x)))
    case MZ_F32: CONVERT(4, _mm256_loadu_ps(x))
    case MZ_F64:
        CONVERT(8, _mm256_set_m128(_mm256_cvtpd_ps(_mm256_loadu_pd((const double *)x + 4)),
                                   _mm256_cvtpd_ps(_mm256_loadu_pd(x))))
    }
#undef CONVERT
    if (stream == 1) _mm_sfence();
    return i;
}

/* ---- zstd frames: plain C with bit instructions is as fast ------------------------------------------------------ */

/* Add each byte that unseen (256 bytes, 0xff or 0) marks to its count. A byte is looked up by its low half in a table
 * whose bits are for the high half: 0 to 7, or 8 to 15. */
static size_t simd_count_unseen(const uint8_t *x, size_t n, const uint8_t *unseen, uint32_t *count) {
    uint8_t rows[2][16] = {{0}};
    size_t i = 0;
    for (int s = 0; s < 256; s++) rows[s >> 7][s & 15] |= (uint8_t)((unseen[s] & 1) << (s >> 4 & 7));
    const __m256i low = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)rows[0]));
    const __m256i high = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)rows[1]));
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201ULL), top = _mm256_set1_epi8((char)0x80);
    const __m256i half = _mm256_set1_epi8((char)0x8f), seven = _mm256_set1_epi8(7), zero = _mm256_setzero_si256();
    for (; i + 32 <= n; i += 32) {
        __m256i v = LD(x + i), l = _mm256_and_si256(v, half), h = _mm256_and_si256(_mm256_srli_epi16(v, 4), seven);
        /* an index of 0x80 and more gives 0 */
        __m256i row = _mm256_or_si256(_mm256_shuffle_epi8(low, l), _mm256_shuffle_epi8(high, _mm256_xor_si256(l, top)));
        __m256i none = _mm256_cmpeq_epi8(_mm256_and_si256(row, _mm256_shuffle_epi8(bit, h)), zero);
        for (uint32_t m = ~(uint32_t)_mm256_movemask_epi8(none); m; m &= m - 1) count[x[i + _tzcnt_u32(m)]]++;
    }
    return i;
}

#define simd_xxh_stripes(p, n, v) 0
#define simd_count_and_hash(p, n, v, zeros, ahead, step, copy) 0
#define simd_gather(x, matched, n, out) 0
#define simd_huffman_streams(x, quarter, last, low, high, b) 0

#include "kernels_impl.h"
