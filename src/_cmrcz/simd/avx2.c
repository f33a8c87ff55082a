/* The kernels for AVX2: the words in which the templates are written, see variant_impl.h. */
#include "kernels.h"
#include <immintrin.h>

#define MZ_NAME avx2
#define MZ_SIMD 1

/* ---- bytes ----------------------------------------------------------------------------------------------------- */

typedef __m256i vec;
enum { BYTES = 32 };
#define LD(p) _mm256_loadu_si256((const void *)(p))
#define ST(p, v) _mm256_storeu_si256((void *)(p), v)

static inline vec v_zero(void) { return _mm256_setzero_si256(); }
static inline vec v_set8(uint8_t x) { return _mm256_set1_epi8((char)x); }
static inline vec v_set16(uint16_t x) { return _mm256_set1_epi16((short)x); }
#define v_and _mm256_and_si256
#define v_or _mm256_or_si256
#define v_xor _mm256_xor_si256
#define v_shl16 _mm256_slli_epi16
#define v_shr16 _mm256_srli_epi16
#define v_abs8 _mm256_abs_epi8
#define v_min_u8 _mm256_min_epu8
#define v_max_u8 _mm256_max_epu8
#define v_min_i16 _mm256_min_epi16
#define v_max_i16 _mm256_max_epi16

/* A mask has a bit a byte. */
typedef uint32_t mask;
#define mask_count(m) ((size_t)_mm_popcnt_u32(m))
#define mask_first _tzcnt_u32
static inline mask is_zero(vec v) { return (mask)_mm256_movemask_epi8(_mm256_cmpeq_epi8(v, v_zero())); }
static inline mask v_test(vec a, vec b) { return ~is_zero(v_and(a, b)); }
static inline int v_any(vec v) { return !_mm256_testz_si256(v, v); }
static inline uint64_t zeros64(const uint8_t *in) { return is_zero(LD(in)) | (uint64_t)is_zero(LD(in + 32)) << 32; }
static inline size_t zeros_of_64(const uint8_t *in) { return (size_t)_mm_popcnt_u64(zeros64(in)); }
static inline uint64_t nonzero_of_64(const uint8_t *in) { return ~zeros64(in); }
/* count + 1 in the bytes where v is value */
static inline vec v_count_equal(vec count, vec v, vec value) {
    return _mm256_sub_epi8(count, _mm256_cmpeq_epi8(v, value));
}

/* Sums of what a vector holds, kept in parts until v_total. Of bytes, and of their squares: */
static inline vec v_add_sums8(vec sums, vec v) { return _mm256_add_epi64(sums, _mm256_sad_epu8(v, v_zero())); }
static inline vec v_add_squares8(vec sums, vec v) {
    vec a = _mm256_unpacklo_epi8(v, v_zero()), b = _mm256_unpackhi_epi8(v, v_zero());
    return _mm256_add_epi32(sums, _mm256_add_epi32(_mm256_madd_epi16(a, a), _mm256_madd_epi16(b, b)));
}
/* of signed numbers of 16 bits, and of their squares, of which two are up to 2^31: an unsigned number */
static inline vec v_add_sums16(vec sums, vec v) { return _mm256_add_epi32(sums, _mm256_madd_epi16(v, v_set16(1))); }
static inline vec v_add_squares16(vec sums, vec v) {
    vec s = _mm256_madd_epi16(v, v);
    return _mm256_add_epi64(sums,
                            _mm256_add_epi64(v_and(s, _mm256_set1_epi64x(0xffffffffLL)), _mm256_srli_epi64(s, 32)));
}
static inline int64_t v_total64(vec v) {
    __m128i s = _mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    return _mm_cvtsi128_si64(s) + _mm_extract_epi64(s, 1);
}
static inline int32_t v_total32(vec v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}
#define v_total8 v_total64

/* ---- transposes ------------------------------------------------------------------------------------------------
 * AVX2 shuffles within halves of 128 bits. Loading the halves from two places at once (and storing them so) makes
 * each half a transpose of its own, and no instruction is spent on crossing. */

static inline vec load_halves(const uint8_t *low, const uint8_t *high) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const void *)low)),
                                   _mm_loadu_si128((const void *)high), 1);
}
static inline void store_halves(uint8_t *low, uint8_t *high, vec v) {
    _mm_storeu_si128((void *)low, _mm256_castsi256_si128(v));
    _mm_storeu_si128((void *)high, _mm256_extracti128_si256(v, 1));
}
#define TWICE(...) _mm256_broadcastsi128_si256(_mm_setr_epi8(__VA_ARGS__))

/* 8 x 8 matrix of 16-bit words in each half */
static inline void transpose_words(vec r[8]) {
    vec a[8], b[8];
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
/* 4 x 4 matrix of 32-bit words in each half */
static inline void transpose_dwords(vec r[4]) {
    vec a = _mm256_unpacklo_epi32(r[0], r[1]), b = _mm256_unpackhi_epi32(r[0], r[1]);
    vec c = _mm256_unpacklo_epi32(r[2], r[3]), d = _mm256_unpackhi_epi32(r[2], r[3]);
    r[0] = _mm256_unpacklo_epi64(a, c);
    r[1] = _mm256_unpackhi_epi64(a, c);
    r[2] = _mm256_unpacklo_epi64(b, d);
    r[3] = _mm256_unpackhi_epi64(b, d);
}
#define BYTES_4X4 TWICE(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)

/* BYTES elements of N bytes <-> N vectors, one for each byte of the element */
static inline void load_planes2(const uint8_t *in, vec r[2]) {
    const vec low = v_set16(255);
    vec a = load_halves(in, in + 32), b = load_halves(in + 16, in + 48);
    r[0] = _mm256_packus_epi16(v_and(a, low), v_and(b, low));
    r[1] = _mm256_packus_epi16(v_shr16(a, 8), v_shr16(b, 8));
}
static inline void store_planes2(uint8_t *out, vec r[2]) {
    store_halves(out, out + 32, _mm256_unpacklo_epi8(r[0], r[1]));
    store_halves(out + 16, out + 48, _mm256_unpackhi_epi8(r[0], r[1]));
}
static inline void load_planes4(const uint8_t *in, vec r[4]) {
    for (int k = 0; k < 4; k++) r[k] = _mm256_shuffle_epi8(load_halves(in + 16 * k, in + 64 + 16 * k), BYTES_4X4);
    transpose_dwords(r);
}
static inline void store_planes4(uint8_t *out, vec r[4]) {
    transpose_dwords(r);
    for (int k = 0; k < 4; k++) store_halves(out + 16 * k, out + 64 + 16 * k, _mm256_shuffle_epi8(r[k], BYTES_4X4));
}
static inline void load_planes8(const uint8_t *in, vec r[8]) {
    const vec zip = TWICE(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    for (int k = 0; k < 8; k++) r[k] = _mm256_shuffle_epi8(load_halves(in + 16 * k, in + 128 + 16 * k), zip);
    transpose_words(r);
}
static inline void store_planes8(uint8_t *out, vec r[8]) {
    const vec unzip = TWICE(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    transpose_words(r);
    for (int k = 0; k < 8; k++) store_halves(out + 16 * k, out + 128 + 16 * k, _mm256_shuffle_epi8(r[k], unzip));
}

/* ---- 4-bit pixels ---------------------------------------------------------------------------------------------- */

/* 2 BYTES pixels in a vector; *all collects their bits */
static inline vec pack_nibbles(const uint8_t *in, vec *all) {
    const vec low = v_set8(15), weights = v_set16(0x1001);
    vec a = load_halves(in, in + 32), b = load_halves(in + 16, in + 48);
    *all = v_or(*all, v_or(a, b));
    return _mm256_packus_epi16(_mm256_maddubs_epi16(v_and(a, low), weights),
                               _mm256_maddubs_epi16(v_and(b, low), weights));
}
/* BYTES / 2 bytes, each in 16 bits */
static inline vec load_widened(const uint8_t *in) { return _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)in)); }

/* ---- sets of bytes ---------------------------------------------------------------------------------------------
 * A byte is looked up by its low half in a table whose bits are for the high half: 0 to 7, or 8 to 15. */

typedef struct {
    vec low, high;
} byte_set;
static inline byte_set set_of_marks(const uint8_t *marks) { /* 256 bytes, 0xff or 0 */
    uint8_t rows[2][16] = {{0}};
    for (int s = 0; s < 256; s++) rows[s >> 7][s & 15] |= (uint8_t)((marks[s] & 1) << (s >> 4 & 7));
    return (byte_set){_mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)rows[0])),
                      _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)rows[1]))};
}
static inline mask set_members(const byte_set *s, vec v) {
    const vec bit = _mm256_set1_epi64x((long long)0x8040201008040201ULL);
    vec l = v_and(v, v_set8(0x8f)), h = v_and(v_shr16(v, 4), v_set8(7));
    /* an index of 0x80 and more gives 0 */
    vec row = v_or(_mm256_shuffle_epi8(s->low, l), _mm256_shuffle_epi8(s->high, v_xor(l, v_set8(0x80))));
    return v_test(row, _mm256_shuffle_epi8(bit, h));
}

/* ---- floats ---------------------------------------------------------------------------------------------------- */

typedef __m256 vf;
typedef __m256d vd;
enum { FLOATS = 8, DOUBLES = 4 };
static inline vf vf_load(const void *p) { return _mm256_loadu_ps(p); }
static inline vd vd_load(const void *p) { return _mm256_loadu_pd(p); }
static inline void vf_store(float *p, vf v) { _mm256_storeu_ps((void *)p, v); }
#define vd_store _mm256_storeu_pd
#define vf_stream _mm256_stream_ps
#define stream_end _mm_sfence
#define vf_set _mm256_set1_ps
#define vd_set _mm256_set1_pd
#define vf_mul _mm256_mul_ps
#define vd_mul _mm256_mul_pd
#define vd_add _mm256_add_pd
#define vf_min _mm256_min_ps
#define vf_max _mm256_max_ps
#define vd_min _mm256_min_pd
#define vd_max _mm256_max_pd

static inline vd vf_doubles(vf v, int half) {
    return _mm256_cvtps_pd(half ? _mm256_extractf128_ps(v, 1) : _mm256_castps256_ps128(v));
}
static inline vd vd_doubles(vd v, int half) { return (void)half, v; }
/* NaN as 0; *good counts the others. */
typedef vec vf_count, vd_count;
#define vf_none v_zero
#define vd_none v_zero
static inline vf vf_without_nan(vf v, vec *good) {
    vf is_number = _mm256_cmp_ps(v, v, _CMP_ORD_Q);
    *good = _mm256_sub_epi32(*good, _mm256_castps_si256(is_number));
    return _mm256_and_ps(is_number, v);
}
static inline vd vd_without_nan(vd v, vec *good) {
    vd is_number = _mm256_cmp_pd(v, v, _CMP_ORD_Q);
    *good = _mm256_sub_epi64(*good, _mm256_castpd_si256(is_number));
    return _mm256_and_pd(is_number, v);
}
static inline size_t vf_counted(vec good) { return (size_t)v_total32(good); }
static inline size_t vd_counted(vec good) { return (size_t)v_total64(good); }

#define OF_INT(load) _mm256_cvtepi32_ps(load)
static inline vf vf_of_i8(const void *p) { return OF_INT(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p))); }
static inline vf vf_of_u8(const void *p) { return OF_INT(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p))); }
static inline vf vf_of_i16(const void *p) { return OF_INT(_mm256_cvtepi16_epi32(_mm_loadu_si128(p))); }
static inline vf vf_of_u16(const void *p) { return OF_INT(_mm256_cvtepu16_epi32(_mm_loadu_si128(p))); }
static inline vf vf_of_i32(const void *p) { return OF_INT(LD(p)); }
/* both halves are exact, so that only their sum is rounded */
static inline vf vf_of_u32(const void *p) {
    vf high = OF_INT(_mm256_srli_epi32(LD(p), 16)), low = OF_INT(v_and(LD(p), _mm256_set1_epi32(0xffff)));
    return _mm256_add_ps(_mm256_mul_ps(high, vf_set(65536.0f)), low);
}
static inline vf vf_of_f16(const void *p) { return _mm256_cvtph_ps(_mm_loadu_si128(p)); }
static inline vf vf_of_f64(const uint8_t *p) {
    return _mm256_set_m128(_mm256_cvtpd_ps(vd_load(p + 32)), _mm256_cvtpd_ps(vd_load(p)));
}

/* ---- zstd frames: plain C with bit instructions is as fast ------------------------------------------------------ */

#define simd_xxh_stripes(p, n, v) 0
#define simd_count_and_hash(p, n, v, zeros, ahead, step, copy) 0
#define simd_gather(x, matched, n, out) 0
#define simd_huffman_streams(x, quarter, last, low, high, b) 0

#include "variant_impl.h"
