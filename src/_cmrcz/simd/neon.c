/* The kernels for NEON, which every 64-bit ARM processor has: the words in which the templates are written, see
 * variant_impl.h.
 *
 * Built for little-endian machines only: the pairs and halves taken here are those of little-endian memory. Loads and
 * stores take any address, as the plain C does. */
#include "kernels.h"
#include <arm_neon.h>
#include <string.h>

#define MZ_NAME neon
#define MZ_SIMD 1

/* ---- bytes ----------------------------------------------------------------------------------------------------- */

typedef uint8x16_t vec;
enum { BYTES = 16 };
static inline vec LD(const void *p) { return vld1q_u8(p); }
static inline void ST(void *p, vec v) { vst1q_u8(p, v); }
#define U16(v) vreinterpretq_u16_u8(v)
#define U32(v) vreinterpretq_u32_u8(v)
#define U64(v) vreinterpretq_u64_u8(v)
#define S16(v) vreinterpretq_s16_u8(v)
#define S32(v) vreinterpretq_s32_u8(v)
#define OF_U16(v) vreinterpretq_u8_u16(v)
#define OF_U32(v) vreinterpretq_u8_u32(v)
#define OF_U64(v) vreinterpretq_u8_u64(v)
#define OF_S16(v) vreinterpretq_u8_s16(v)
#define OF_S32(v) vreinterpretq_u8_s32(v)

static inline vec v_zero(void) { return vdupq_n_u8(0); }
static inline vec v_set8(uint8_t x) { return vdupq_n_u8(x); }
static inline vec v_set16(uint16_t x) { return OF_U16(vdupq_n_u16(x)); }
#define v_and vandq_u8
#define v_or vorrq_u8
#define v_xor veorq_u8
static inline vec v_shl16(vec v, int n) { return OF_U16(vshlq_u16(U16(v), vdupq_n_s16((int16_t)n))); }
static inline vec v_shr16(vec v, int n) { return OF_U16(vshlq_u16(U16(v), vdupq_n_s16((int16_t)-n))); }
static inline vec v_abs8(vec v) { return vreinterpretq_u8_s8(vabsq_s8(vreinterpretq_s8_u8(v))); }
#define v_min_u8 vminq_u8
#define v_max_u8 vmaxq_u8
static inline vec v_min_i16(vec a, vec b) { return OF_S16(vminq_s16(S16(a), S16(b))); }
static inline vec v_max_i16(vec a, vec b) { return OF_S16(vmaxq_s16(S16(a), S16(b))); }

/* A mask has four bits a byte, of which the lowest may be set. */
typedef uint64_t mask;
#define mask_count(m) ((size_t)__builtin_popcountll(m))
#define mask_first(m) (__builtin_ctzll(m) / 4)
static inline mask v_test(vec a, vec b) {
    uint8x8_t nibbles = vshrn_n_u16(U16(vtstq_u8(a, b)), 4);
    return vget_lane_u64(vreinterpret_u64_u8(nibbles), 0) & 0x1111111111111111ULL;
}
static inline int v_any(vec v) { return vmaxvq_u8(v) != 0; }
static inline size_t zeros_of_64(const uint8_t *in) {
    vec c = v_zero();
    for (int k = 0; k < 64; k += 16) c = vsubq_u8(c, vceqzq_u8(LD(in + k)));
    return vaddvq_u8(c);
}
static inline uint64_t nonzero_of_64(const uint8_t *in) {
    const vec bit = OF_U64(vdupq_n_u64(0x8040201008040201ULL));
    vec m[4];
    for (int k = 0; k < 4; k++) {
        vec v = LD(in + 16 * k);
        m[k] = v_and(vtstq_u8(v, v), bit);
    }
    vec pairs = vpaddq_u8(vpaddq_u8(m[0], m[1]), vpaddq_u8(m[2], m[3])); /* each of four, of the eight bits of a byte */
    return vgetq_lane_u64(U64(vpaddq_u8(pairs, pairs)), 0);
}
/* count + 1 in the bytes where v is value */
static inline vec v_count_equal(vec count, vec v, vec value) { return vsubq_u8(count, vceqq_u8(v, value)); }
/* A block of the histogram: 254 vectors */
#define MZ_HISTOGRAM_BLOCK 4064

/* Sums of what a vector holds, kept in parts until v_total. Of bytes, and of their squares: */
static inline vec v_add_sums8(vec sums, vec v) { return OF_U32(vpadalq_u16(U32(sums), vpaddlq_u8(v))); }
static inline vec v_add_squares8(vec sums, vec v) {
    uint32x4_t s = vpadalq_u16(U32(sums), vmull_u8(vget_low_u8(v), vget_low_u8(v)));
    return OF_U32(vpadalq_u16(s, vmull_high_u8(v, v)));
}
/* of signed numbers of 16 bits, and of their squares */
static inline vec v_add_sums16(vec sums, vec v) { return OF_S32(vpadalq_s16(S32(sums), S16(v))); }
static inline vec v_add_squares16(vec sums, vec v) {
    int32x4_t low = vmull_s16(vget_low_s16(S16(v)), vget_low_s16(S16(v))), high = vmull_high_s16(S16(v), S16(v));
    return OF_U64(vpadalq_u32(vpadalq_u32(U64(sums), vreinterpretq_u32_s32(low)), vreinterpretq_u32_s32(high)));
}
static inline int64_t v_total64(vec v) { return (int64_t)vaddvq_u64(U64(v)); }
static inline int32_t v_total32(vec v) { return vaddvq_s32(S32(v)); }
static inline int64_t v_total8(vec v) { return (int64_t)vaddlvq_u32(U32(v)); }

/* ---- transposes: loads and stores take structures of up to four elements apart ---------------------------------- */

/* BYTES elements of N bytes <-> N vectors, one for each byte of the element */
static inline void load_planes2(const uint8_t *in, vec r[2]) {
    uint8x16x2_t v = vld2q_u8(in);
    for (int p = 0; p < 2; p++) r[p] = v.val[p];
}
static inline void store_planes2(uint8_t *out, vec r[2]) { vst2q_u8(out, ((uint8x16x2_t){{r[0], r[1]}})); }
static inline void load_planes4(const uint8_t *in, vec r[4]) {
    uint8x16x4_t v = vld4q_u8(in);
    for (int p = 0; p < 4; p++) r[p] = v.val[p];
}
static inline void store_planes4(uint8_t *out, vec r[4]) { vst4q_u8(out, ((uint8x16x4_t){{r[0], r[1], r[2], r[3]}})); }
/* By bytes 0 and 4, 1 and 5 and so on of the elements, of which two make one structure: then those pairs apart */
static inline void load_planes8(const uint8_t *in, vec r[8]) {
    uint8x16x4_t a = vld4q_u8(in), b = vld4q_u8(in + 64);
    for (int p = 0; p < 4; p++) {
        r[p] = vuzp1q_u8(a.val[p], b.val[p]);
        r[p + 4] = vuzp2q_u8(a.val[p], b.val[p]);
    }
}
static inline void store_planes8(uint8_t *out, vec r[8]) {
    uint8x16x4_t a, b;
    for (int p = 0; p < 4; p++) {
        a.val[p] = vzip1q_u8(r[p], r[p + 4]);
        b.val[p] = vzip2q_u8(r[p], r[p + 4]);
    }
    vst4q_u8(out, a);
    vst4q_u8(out + 64, b);
}

/* ---- 4-bit pixels ---------------------------------------------------------------------------------------------- */

/* 2 BYTES pixels in a vector; *all collects their bits */
static inline vec pack_nibbles(const uint8_t *in, vec *all) {
    uint8x16x2_t v = vld2q_u8(in);
    *all = v_or(*all, v_or(v.val[0], v.val[1]));
    return vsliq_n_u8(v.val[0], v.val[1], 4); /* which keeps the four bits below those it puts in */
}
/* BYTES / 2 bytes, each in 16 bits */
static inline vec load_widened(const uint8_t *in) { return OF_U16(vmovl_u8(vld1_u8(in))); }

/* ---- sets of bytes ---------------------------------------------------------------------------------------------
 * A byte is looked up by its low half in a table whose bits are for the high half: 0 to 7, or 8 to 15. */

typedef struct {
    vec low, high;
} byte_set;
static inline byte_set set_of_marks(const uint8_t *marks) { /* 256 bytes, 0xff or 0 */
    uint8_t rows[2][16] = {{0}};
    for (int s = 0; s < 256; s++) rows[s >> 7][s & 15] |= (uint8_t)((marks[s] & 1) << (s >> 4 & 7));
    return (byte_set){LD(rows[0]), LD(rows[1])};
}
static inline mask set_members(const byte_set *s, vec v) {
    const vec bit = OF_U64(vdupq_n_u64(0x8040201008040201ULL));
    vec l = v_and(v, v_set8(0x8f)), h = v_and(vshrq_n_u8(v, 4), v_set8(7));
    /* an index of 16 and more gives 0 */
    vec row = v_or(vqtbl1q_u8(s->low, l), vqtbl1q_u8(s->high, v_xor(l, v_set8(0x80))));
    return v_test(row, vqtbl1q_u8(bit, h));
}

/* ---- floats ---------------------------------------------------------------------------------------------------- */

typedef float32x4_t vf;
typedef float64x2_t vd;
enum { FLOATS = 4, DOUBLES = 2 };
static inline vf vf_load(const uint8_t *p) { return vreinterpretq_f32_u8(LD(p)); }
static inline vd vd_load(const uint8_t *p) { return vreinterpretq_f64_u8(LD(p)); }
#define vd_store vst1q_f64
#define vf_set vdupq_n_f32
#define vd_set vdupq_n_f64
#define vd_mul vmulq_f64
#define vd_add vaddq_f64
/* NEON's own would give NaN, and tell the zeros apart. */
static inline vf vf_min(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
static inline vf vf_max(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vd vd_min(vd a, vd b) { return vbslq_f64(vcltq_f64(a, b), a, b); }
static inline vd vd_max(vd a, vd b) { return vbslq_f64(vcgtq_f64(a, b), a, b); }

static inline vd vf_doubles(vf v, int half) { return half ? vcvt_high_f64_f32(v) : vcvt_f64_f32(vget_low_f32(v)); }
static inline vd vd_doubles(vd v, int half) { return (void)half, v; }
/* NaN as 0; *good counts the others. */
typedef uint32x4_t vf_count;
typedef uint64x2_t vd_count;
static inline vf_count vf_none(void) { return vdupq_n_u32(0); }
static inline vd_count vd_none(void) { return vdupq_n_u64(0); }
static inline vf vf_without_nan(vf v, vf_count *good) {
    uint32x4_t is_number = vceqq_f32(v, v);
    *good = vsubq_u32(*good, is_number);
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), is_number));
}
static inline vd vd_without_nan(vd v, vd_count *good) {
    uint64x2_t is_number = vceqq_f64(v, v);
    *good = vsubq_u64(*good, is_number);
    return vreinterpretq_f64_u64(vandq_u64(vreinterpretq_u64_f64(v), is_number));
}
static inline size_t vf_counted(vf_count good) { return (size_t)vaddvq_u32(good); }
static inline size_t vd_counted(vd_count good) { return (size_t)vaddvq_u64(good); }

/* Compilers vectorize the plain loops for NEON; what they do not know is that there is an instruction for halves. It
 * has no stores that pass the caches by. */
#define MZ_OWN_TO_FLOAT 1
static size_t simd_to_float(int pt, const uint8_t *in, const float *gain, float *out, size_t n, int stream) {
    size_t i = 0;
    (void)stream;
    if (pt != MZ_F16) return 0;
    for (; i + FLOATS <= n; i += FLOATS) {
        vf v = vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(in + 2 * i)));
        if (gain) v = vmulq_f32(v, vf_load((const uint8_t *)(gain + i)));
        ST(out + i, vreinterpretq_u8_f32(v));
    }
    return i;
}

/* ---- zstd frames: plain C with bit instructions, as NEON multiplies no 64-bit numbers ---------------------------- */

#define simd_xxh_stripes(p, n, v) 0
#define simd_count_and_hash(p, n, v, zeros, ahead, step, copy) 0
#define simd_gather(x, matched, n, out) 0
#define simd_huffman_streams(x, quarter, last, low, high, b) 0

#include "variant_impl.h"
