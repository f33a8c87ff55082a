/* The kernels for AVX-512 with VBMI and GFNI: the words in which the templates are written, see variant_impl.h. */
#include "kernels.h"
#include <immintrin.h>
#include <string.h>

#define MZ_NAME avx512
#define MZ_SIMD 1

/* ---- bytes ----------------------------------------------------------------------------------------------------- */

typedef __m512i vec;
enum { BYTES = 64 };
#define LD(p) _mm512_loadu_si512((const void *)(p))
#define ST(p, v) _mm512_storeu_si512((void *)(p), v)

static inline vec v_zero(void) { return _mm512_setzero_si512(); }
static inline vec v_set8(uint8_t x) { return _mm512_set1_epi8((char)x); }
static inline vec v_set16(uint16_t x) { return _mm512_set1_epi16((short)x); }
#define v_and _mm512_and_si512
#define v_or _mm512_or_si512
#define v_xor _mm512_xor_si512
#define v_shl16 _mm512_slli_epi16
#define v_abs8 _mm512_abs_epi8
#define v_min_u8 _mm512_min_epu8
#define v_max_u8 _mm512_max_epu8
#define v_min_i16 _mm512_min_epi16
#define v_max_i16 _mm512_max_epi16

/* A mask has a bit a byte. */
typedef uint64_t mask;
#define mask_count(m) ((size_t)_mm_popcnt_u64(m))
#define mask_first _tzcnt_u64
static inline mask v_test(vec a, vec b) { return _mm512_test_epi8_mask(a, b); }
static inline int v_any(vec v) { return _mm512_test_epi8_mask(v, v) != 0; }
static inline size_t zeros_of_64(const uint8_t *in) {
    vec v = LD(in);
    return (size_t)_mm_popcnt_u64(_mm512_testn_epi8_mask(v, v));
}
static inline uint64_t nonzero_of_64(const uint8_t *in) {
    vec v = LD(in);
    return _mm512_test_epi8_mask(v, v);
}
/* count + 1 in the bytes where v is value */
static inline vec v_count_equal(vec count, vec v, vec value) {
    return _mm512_mask_add_epi8(count, _mm512_cmpeq_epi8_mask(v, value), count, v_set8(1));
}

/* Sums of what a vector holds, kept in parts until v_total. Of bytes, and of their squares: */
static inline vec v_add_sums8(vec sums, vec v) { return _mm512_add_epi64(sums, _mm512_sad_epu8(v, v_zero())); }
static inline vec v_add_squares8(vec sums, vec v) {
    vec a = _mm512_unpacklo_epi8(v, v_zero()), b = _mm512_unpackhi_epi8(v, v_zero());
    return _mm512_add_epi32(sums, _mm512_add_epi32(_mm512_madd_epi16(a, a), _mm512_madd_epi16(b, b)));
}
/* of signed numbers of 16 bits, and of their squares, of which two are up to 2^31: an unsigned number */
static inline vec v_add_sums16(vec sums, vec v) { return _mm512_add_epi32(sums, _mm512_madd_epi16(v, v_set16(1))); }
static inline vec v_add_squares16(vec sums, vec v) {
    vec s = _mm512_madd_epi16(v, v);
    return _mm512_add_epi64(sums,
                            _mm512_add_epi64(v_and(s, _mm512_set1_epi64(0xffffffffLL)), _mm512_srli_epi64(s, 32)));
}
#define v_total64 _mm512_reduce_add_epi64
#define v_total32 _mm512_reduce_add_epi32
#define v_total8 v_total64

/* ---- transposes ------------------------------------------------------------------------------------------------ */

#define OCT(a, step) a, a + step, a + 2 * step, a + 3 * step, a + 4 * step, a + 5 * step, a + 6 * step, a + 7 * step
/* out byte 8 p + q = in byte 8 q + p */
static const uint8_t bytes_8x8[64] = {OCT(0, 8), OCT(1, 8), OCT(2, 8), OCT(3, 8),
                                      OCT(4, 8), OCT(5, 8), OCT(6, 8), OCT(7, 8)};
/* the same with each row of eight then reversed, the order in which GFNI numbers the rows of its bit matrix */
static const uint8_t bytes_8x8_reversed[64] = {OCT(56, -8), OCT(57, -8), OCT(58, -8), OCT(59, -8),
                                               OCT(60, -8), OCT(61, -8), OCT(62, -8), OCT(63, -8)};
/* every row of eight reversed */
static const uint8_t bytes_reversed[64] = {OCT(7, -1),  OCT(15, -1), OCT(23, -1), OCT(31, -1),
                                           OCT(39, -1), OCT(47, -1), OCT(55, -1), OCT(63, -1)};
/* out byte 16 p + q = in byte 4 q + p, and back */
static const uint8_t bytes_16x4[64] = {OCT(0, 4), OCT(32, 4), OCT(1, 4), OCT(33, 4),
                                       OCT(2, 4), OCT(34, 4), OCT(3, 4), OCT(35, 4)};
#define QUAD2(a) a, a + 16, a + 32, a + 48, a + 1, a + 17, a + 33, a + 49
static const uint8_t bytes_4x16[64] = {QUAD2(0), QUAD2(2),  QUAD2(4),  QUAD2(6),
                                       QUAD2(8), QUAD2(10), QUAD2(12), QUAD2(14)};
/* even bytes of a pair of vectors; odd ones are one further */
static const uint8_t bytes_even[64] = {OCT(0, 2),  OCT(16, 2), OCT(32, 2), OCT(48, 2),
                                       OCT(64, 2), OCT(80, 2), OCT(96, 2), OCT(112, 2)};
/* first half of two vectors interleaved; the second half is 32 further */
#define PAIR4(a) a, a + 64, a + 1, a + 65, a + 2, a + 66, a + 3, a + 67
static const uint8_t bytes_zip[64] = {PAIR4(0),  PAIR4(4),  PAIR4(8),  PAIR4(12),
                                      PAIR4(16), PAIR4(20), PAIR4(24), PAIR4(28)};

#define BITS_IDENTITY _mm512_set1_epi64((long long)0x8040201008040201ULL)

/* 8 x 8 matrix of 64-bit words */
static inline void transpose_words(vec r[8]) {
    vec t[8], s[8];
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
static inline void transpose_quarters(vec r[4]) {
    vec a = _mm512_shuffle_i64x2(r[0], r[1], 0x44), b = _mm512_shuffle_i64x2(r[0], r[1], 0xee);
    vec c = _mm512_shuffle_i64x2(r[2], r[3], 0x44), d = _mm512_shuffle_i64x2(r[2], r[3], 0xee);
    r[0] = _mm512_shuffle_i64x2(a, c, 0x88);
    r[1] = _mm512_shuffle_i64x2(a, c, 0xdd);
    r[2] = _mm512_shuffle_i64x2(b, d, 0x88);
    r[3] = _mm512_shuffle_i64x2(b, d, 0xdd);
}

/* BYTES elements of N bytes <-> N vectors, one for each byte of the element */
static inline void load_planes2(const uint8_t *in, vec r[2]) {
    const vec even = LD(bytes_even), odd = _mm512_add_epi8(even, v_set8(1));
    vec a = LD(in), b = LD(in + 64);
    r[0] = _mm512_permutex2var_epi8(a, even, b);
    r[1] = _mm512_permutex2var_epi8(a, odd, b);
}
static inline void store_planes2(uint8_t *out, vec r[2]) {
    const vec low = LD(bytes_zip), high = _mm512_add_epi8(low, v_set8(32));
    ST(out, _mm512_permutex2var_epi8(r[0], low, r[1]));
    ST(out + 64, _mm512_permutex2var_epi8(r[0], high, r[1]));
}
static inline void load_planes4(const uint8_t *in, vec r[4]) {
    for (int k = 0; k < 4; k++) r[k] = _mm512_permutexvar_epi8(LD(bytes_16x4), LD(in + 64 * k));
    transpose_quarters(r);
}
static inline void store_planes4(uint8_t *out, vec r[4]) {
    transpose_quarters(r);
    for (int k = 0; k < 4; k++) ST(out + 64 * k, _mm512_permutexvar_epi8(LD(bytes_4x16), r[k]));
}
static inline void load_planes8(const uint8_t *in, vec r[8]) {
    for (int k = 0; k < 8; k++) r[k] = _mm512_permutexvar_epi8(LD(bytes_8x8), LD(in + 64 * k));
    transpose_words(r);
}
static inline void store_planes8(uint8_t *out, vec r[8]) {
    transpose_words(r);
    for (int k = 0; k < 8; k++) ST(out + 64 * k, _mm512_permutexvar_epi8(LD(bytes_8x8), r[k]));
}
/* 8 BYTES bytes <-> 8 vectors, one for each bit: GFNI transposes the bits of every eight bytes at once */
#define MZ_OWN_BIT_PLANES 1
static inline void load_bit_planes(const uint8_t *in, vec r[8]) {
    for (int k = 0; k < 8; k++) {
        vec v = _mm512_shuffle_epi8(LD(in + 64 * k), v_and(LD(bytes_reversed), v_set8(15)));
        r[k] = _mm512_permutexvar_epi8(LD(bytes_8x8), _mm512_gf2p8affine_epi64_epi8(BITS_IDENTITY, v, 0));
    }
    transpose_words(r);
}
static inline void store_bit_planes(uint8_t *out, vec r[8]) {
    transpose_words(r);
    for (int k = 0; k < 8; k++) {
        vec v = _mm512_permutexvar_epi8(LD(bytes_8x8_reversed), r[k]);
        ST(out + 64 * k, _mm512_gf2p8affine_epi64_epi8(BITS_IDENTITY, v, 0));
    }
}

/* ---- 4-bit pixels ---------------------------------------------------------------------------------------------- */

/* 2 BYTES pixels in a vector; *all collects their bits */
static inline vec pack_nibbles(const uint8_t *in, vec *all) {
    const vec low = v_set8(15), weights = v_set16(0x1001);
    vec a = LD(in), b = LD(in + 64);
    *all = _mm512_ternarylogic_epi64(*all, a, b, 0xfe);
    a = _mm512_maddubs_epi16(v_and(a, low), weights);
    b = _mm512_maddubs_epi16(v_and(b, low), weights);
    return _mm512_permutex2var_epi8(a, LD(bytes_even), b);
}
/* BYTES / 2 bytes, each in 16 bits */
static inline vec load_widened(const uint8_t *in) { return _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)in)); }

/* ---- sets of bytes --------------------------------------------------------------------------------------------- */

/* Bytes through a table of 256. */
static inline vec lookup(const vec t[4], vec v) {
    vec a = _mm512_permutex2var_epi8(t[0], v, t[1]), b = _mm512_permutex2var_epi8(t[2], v, t[3]);
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(v), a, b);
}
typedef struct {
    vec t[4];
} byte_set;
static inline byte_set set_of_marks(const uint8_t *marks) { /* 256 bytes, 0xff or 0 */
    return (byte_set){{LD(marks), LD(marks + 64), LD(marks + 128), LD(marks + 192)}};
}
static inline mask set_members(const byte_set *s, vec v) { return _mm512_movepi8_mask(lookup(s->t, v)); }

/* ---- floats ---------------------------------------------------------------------------------------------------- */

typedef __m512 vf;
typedef __m512d vd;
enum { FLOATS = 16, DOUBLES = 8 };
#define vf_load(p) _mm512_loadu_ps((const void *)(p))
#define vd_load(p) _mm512_loadu_pd((const void *)(p))
#define vf_store(p, v) _mm512_storeu_ps((void *)(p), v)
#define vd_store _mm512_storeu_pd
#define vf_stream _mm512_stream_ps
#define stream_end _mm_sfence
#define vf_set _mm512_set1_ps
#define vd_set _mm512_set1_pd
#define vf_mul _mm512_mul_ps
#define vd_mul _mm512_mul_pd
#define vd_add _mm512_add_pd
#define vf_min _mm512_min_ps
#define vf_max _mm512_max_ps
#define vd_min _mm512_min_pd
#define vd_max _mm512_max_pd

static inline vd vf_doubles(vf v, int half) {
    return _mm512_cvtps_pd(half ? _mm512_extractf32x8_ps(v, 1) : _mm512_castps512_ps256(v));
}
static inline vd vd_doubles(vd v, int half) { return (void)half, v; }
/* NaN as 0; *good counts the others. */
typedef size_t vf_count, vd_count;
#define vf_none() 0
#define vd_none() 0
static inline vf vf_without_nan(vf v, size_t *good) {
    __mmask16 m = _mm512_cmp_ps_mask(v, v, _CMP_ORD_Q);
    *good += (size_t)_mm_popcnt_u32(m);
    return _mm512_maskz_mov_ps(m, v);
}
static inline vd vd_without_nan(vd v, size_t *good) {
    __mmask8 m = _mm512_cmp_pd_mask(v, v, _CMP_ORD_Q);
    *good += (size_t)_mm_popcnt_u32(m);
    return _mm512_maskz_mov_pd(m, v);
}
#define vf_counted(good) (good)
#define vd_counted(good) (good)

#define OF_INT(load) _mm512_cvtepi32_ps(load)
static inline vf vf_of_i8(const void *p) { return OF_INT(_mm512_cvtepi8_epi32(_mm_loadu_si128(p))); }
static inline vf vf_of_u8(const void *p) { return OF_INT(_mm512_cvtepu8_epi32(_mm_loadu_si128(p))); }
static inline vf vf_of_i16(const void *p) { return OF_INT(_mm512_cvtepi16_epi32(_mm256_loadu_si256(p))); }
static inline vf vf_of_u16(const void *p) { return OF_INT(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p))); }
static inline vf vf_of_i32(const void *p) { return OF_INT(LD(p)); }
static inline vf vf_of_u32(const void *p) { return _mm512_cvtepu32_ps(LD(p)); }
static inline vf vf_of_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256(p)); }
static inline vf vf_of_f64(const uint8_t *p) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(vd_load(p))), _mm512_cvtpd_ps(vd_load(p + 64)), 1);
}

#include "avx512_zstd.h"
#include "variant_impl.h"
