/* The kernels, compiled once per instruction set: MZ_NAME is the variant's name. */
#include "kernels.h"
#include <math.h>
#include <string.h>

#define MZ_CAT2(a, b) a##b
#define MZ_CAT(a, b) MZ_CAT2(a, b)
#define K(f) MZ_CAT(f##_, MZ_NAME)
#define MZ_STR2(x) #x
#define MZ_STR(x) MZ_STR2(x)

/* SIMD(f, args): how many units from the start the variant's own code has done; 0 where it has none. */
#ifdef MZ_SIMD
#define SIMD(f, args) simd_##f args
#else
#define SIMD(f, args) 0
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define MZ_BIG_ENDIAN 1
#else
#define MZ_BIG_ENDIAN 0
#endif
#ifdef _MSC_VER
#define MZ_RESTRICT __restrict
#else
#define MZ_RESTRICT restrict
#endif

/* ---- bit transposes: an 8 x 8 bit matrix in a 64-bit word, byte k in bits 8 k to 8 k + 7 ---------------------- */

static inline uint64_t K(load8)(const uint8_t *p) {
    uint64_t v = 0;
    if (MZ_BIG_ENDIAN)
        for (int i = 0; i < 8; i++) v |= (uint64_t)p[i] << 8 * i;
    else
        memcpy(&v, p, 8);
    return v;
}
static inline void K(store8)(uint8_t *p, uint64_t v) {
    if (MZ_BIG_ENDIAN)
        for (int i = 0; i < 8; i++) p[i] = (uint8_t)(v >> 8 * i);
    else
        memcpy(p, &v, 8);
}
/* exchanges the masked bits of b with those of a, shift higher */
#define MZ_EXCHANGE(a, b, shift, mask)           \
    {                                            \
        uint64_t t = (((a) >> (shift)) ^ (b)) & (mask); \
        (b) ^= t;                                \
        (a) ^= t << (shift);                     \
    }
static inline uint64_t K(bits8x8)(uint64_t x) {
    uint64_t t = (x ^ (x >> 7)) & 0x00aa00aa00aa00aaULL;
    x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & 0x0000cccc0000ccccULL;
    x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & 0x00000000f0f0f0f0ULL;
    return x ^ t ^ (t << 28);
}
/* Between eight words: the 8 x 8 matrix of their bytes, and the 8 x 8 bit matrix at each byte position. */
static inline void K(transpose_bytes)(uint64_t r[8]) {
    for (int i = 0; i < 4; i++) MZ_EXCHANGE(r[i], r[i + 4], 32, 0x00000000ffffffffULL)
    for (int i = 0; i < 8; i += 4)
        for (int k = i; k < i + 2; k++) MZ_EXCHANGE(r[k], r[k + 2], 16, 0x0000ffff0000ffffULL)
    for (int i = 0; i < 8; i += 2) MZ_EXCHANGE(r[i], r[i + 1], 8, 0x00ff00ff00ff00ffULL)
}
static inline void K(transpose_bits)(uint64_t r[8]) {
    for (int i = 0; i < 4; i++) MZ_EXCHANGE(r[i], r[i + 4], 4, 0x0f0f0f0f0f0f0f0fULL)
    for (int i = 0; i < 8; i += 4)
        for (int k = i; k < i + 2; k++) MZ_EXCHANGE(r[k], r[k + 2], 2, 0x3333333333333333ULL)
    for (int i = 0; i < 8; i += 2) MZ_EXCHANGE(r[i], r[i + 1], 1, 0x5555555555555555ULL)
}
static void K(bit_transpose)(const uint8_t *in, uint8_t *out, size_t n) {
    size_t plane = n / 8, j = SIMD(bit_transpose, (in, out, plane));
    for (; j + 8 <= plane; j += 8) {
        uint64_t r[8];
        for (int k = 0; k < 8; k++) r[k] = K(load8)(in + 8 * (j + k));
        K(transpose_bytes)(r);
        K(transpose_bits)(r);
        for (int p = 0; p < 8; p++) K(store8)(out + p * plane + j, r[p]);
    }
    for (; j < plane; j++) {
        uint64_t v = K(bits8x8)(K(load8)(in + 8 * j));
        for (int p = 0; p < 8; p++) out[p * plane + j] = (uint8_t)(v >> 8 * p);
    }
}
static void K(bit_untranspose)(const uint8_t *in, uint8_t *out, size_t n) {
    size_t plane = n / 8, j = SIMD(bit_untranspose, (in, out, plane));
    for (; j + 8 <= plane; j += 8) {
        uint64_t r[8];
        for (int p = 0; p < 8; p++) r[p] = K(load8)(in + p * plane + j);
        K(transpose_bits)(r);
        K(transpose_bytes)(r);
        for (int k = 0; k < 8; k++) K(store8)(out + 8 * (j + k), r[k]);
    }
    for (; j < plane; j++) {
        uint64_t v = 0;
        for (int p = 0; p < 8; p++) v |= (uint64_t)in[p * plane + j] << 8 * p;
        K(store8)(out + 8 * j, K(bits8x8)(v));
    }
}

/* ---- byte shuffle ---------------------------------------------------------------------------------------------- */

/* For a constant number of bytes an element; i elements are done. */
#define MZ_SHUFFLE(size)                                                                               \
    static void K(shuffle##size)(const uint8_t *MZ_RESTRICT in, uint8_t *MZ_RESTRICT out, size_t n) {  \
        for (size_t i = SIMD(shuffle##size, (in, out, n)); i < n; i++)                                 \
            for (int p = 0; p < size; p++) out[p * n + i] = in[size * i + p];                          \
    }                                                                                                  \
    static void K(unshuffle##size)(const uint8_t *MZ_RESTRICT in, uint8_t *MZ_RESTRICT out, size_t n) { \
        for (size_t i = SIMD(unshuffle##size, (in, out, n)); i < n; i++)                               \
            for (int p = 0; p < size; p++) out[size * i + p] = in[p * n + i];                          \
    }
MZ_SHUFFLE(2)
MZ_SHUFFLE(4)
static void K(shuffle8)(const uint8_t *in, uint8_t *out, size_t n) {
    size_t i = SIMD(shuffle8, (in, out, n));
    for (; i + 8 <= n; i += 8) {
        uint64_t r[8];
        for (int k = 0; k < 8; k++) r[k] = K(load8)(in + 8 * (i + k));
        K(transpose_bytes)(r);
        for (int p = 0; p < 8; p++) K(store8)(out + p * n + i, r[p]);
    }
    for (; i < n; i++)
        for (int p = 0; p < 8; p++) out[p * n + i] = in[8 * i + p];
}
static void K(unshuffle8)(const uint8_t *in, uint8_t *out, size_t n) {
    size_t i = SIMD(unshuffle8, (in, out, n));
    for (; i + 8 <= n; i += 8) {
        uint64_t r[8];
        for (int p = 0; p < 8; p++) r[p] = K(load8)(in + p * n + i);
        K(transpose_bytes)(r);
        for (int k = 0; k < 8; k++) K(store8)(out + 8 * (i + k), r[k]);
    }
    for (; i < n; i++)
        for (int p = 0; p < 8; p++) out[8 * i + p] = in[p * n + i];
}
static void K(shuffle)(size_t size, const uint8_t *in, uint8_t *out, size_t nbytes) {
    if (size <= 1) {
        if (nbytes) memcpy(out, in, nbytes);
        return;
    }
    size_t n = nbytes / size, whole = n * size;
    switch (size) {
    case 2: K(shuffle2)(in, out, n); break;
    case 4: K(shuffle4)(in, out, n); break;
    case 8: K(shuffle8)(in, out, n); break;
    default:
        for (size_t p = 0; p < size; p++)
            for (size_t i = 0; i < n; i++) out[p * n + i] = in[size * i + p];
    }
    if (nbytes > whole) memcpy(out + whole, in + whole, nbytes - whole);
}
static void K(unshuffle)(size_t size, const uint8_t *in, uint8_t *out, size_t nbytes) {
    if (size <= 1) {
        if (nbytes) memcpy(out, in, nbytes);
        return;
    }
    size_t n = nbytes / size, whole = n * size;
    switch (size) {
    case 2: K(unshuffle2)(in, out, n); break;
    case 4: K(unshuffle4)(in, out, n); break;
    case 8: K(unshuffle8)(in, out, n); break;
    default:
        for (size_t i = 0; i < n; i++)
            for (size_t p = 0; p < size; p++) out[size * i + p] = in[p * n + i];
    }
    if (nbytes > whole) memcpy(out + whole, in + whole, nbytes - whole);
}
static void K(byteswap)(size_t size, const uint8_t *in, uint8_t *out, size_t n) {
    switch (size) {
    case 2:
        for (size_t i = 0; i < n; i++) {
            uint16_t v;
            memcpy(&v, in + 2 * i, 2);
            v = (uint16_t)(v << 8 | v >> 8);
            memcpy(out + 2 * i, &v, 2);
        }
        break;
    case 4:
        for (size_t i = 0; i < n; i++) {
            uint32_t v;
            memcpy(&v, in + 4 * i, 4);
            v = v >> 24 | (v >> 8 & 0xff00u) | (v << 8 & 0xff0000u) | v << 24;
            memcpy(out + 4 * i, &v, 4);
        }
        break;
    case 8:
        for (size_t i = 0; i < n; i++) {
            uint64_t v;
            memcpy(&v, in + 8 * i, 8);
            v = (v >> 8 & 0x00ff00ff00ff00ffULL) | (v & 0x00ff00ff00ff00ffULL) << 8;
            v = (v >> 16 & 0x0000ffff0000ffffULL) | (v & 0x0000ffff0000ffffULL) << 16;
            v = v >> 32 | v << 32;
            memcpy(out + 8 * i, &v, 8);
        }
    }
}

/* ---- 4-bit pixels ---------------------------------------------------------------------------------------------- */

static int K(pack4)(const uint8_t *in, uint8_t *out, size_t n) {
    int over = 0;
    size_t i = SIMD(pack4, (in, out, n, &over));
    uint64_t high = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t v = K(load8)(in + i);
        uint8_t *o = out + i / 2;
        high |= v;
        v &= 0x0f0f0f0f0f0f0f0fULL;
        v = (v | v >> 4) & 0x00ff00ff00ff00ffULL;
        v = (v | v >> 8) & 0x0000ffff0000ffffULL;
        v |= v >> 16;
        o[0] = (uint8_t)v;
        o[1] = (uint8_t)(v >> 8);
        o[2] = (uint8_t)(v >> 16);
        o[3] = (uint8_t)(v >> 24);
    }
    uint8_t all = (high & 0xf0f0f0f0f0f0f0f0ULL) ? 16 : 0;
    for (; i + 1 < n; i += 2) {
        all |= in[i] | in[i + 1];
        out[i / 2] = (uint8_t)((in[i] & 15) | (in[i + 1] << 4));
    }
    if (i < n) {
        all |= in[i];
        out[i / 2] = in[i] & 15;
    }
    return over || all > 15;
}
static void K(unpack4)(const uint8_t *in, uint8_t *out, size_t n) {
    size_t i = SIMD(unpack4, (in, out, n));
    for (; i + 8 <= n; i += 8) {
        const uint8_t *b = in + i / 2;
        uint64_t v = b[0] | (uint64_t)b[1] << 16 | (uint64_t)b[2] << 32 | (uint64_t)b[3] << 48;
        K(store8)(out + i, (v | v << 4) & 0x0f0f0f0f0f0f0f0fULL);
    }
    for (; i + 1 < n; i += 2) {
        uint8_t v = in[i / 2];
        out[i] = v & 15;
        out[i + 1] = v >> 4;
    }
    if (i < n) out[i] = in[i / 2] & 15;
}

/* ---- zeros ----------------------------------------------------------------------------------------------------- */

/* bit 7 of each byte of the result is set where that byte of v is not zero; no carry leaves a byte */
static inline uint64_t K(nonzero8)(uint64_t v) {
    const uint64_t low = 0x7f7f7f7f7f7f7f7fULL;
    return (((v & low) + low) | v) & ~low;
}
static size_t K(count_zero)(const uint8_t *in, size_t n) {
    size_t c = 0, i = SIMD(count_zero, (in, n, &c));
    while (n - i >= 8) { /* up to 255 flags fit the bytes of a word, and four pairs of bytes their sum */
        size_t words = (n - i) / 8 < 255 ? (n - i) / 8 : 255;
        uint64_t flags = 0;
        for (size_t k = 0; k < words; k++) flags += K(nonzero8)(K(load8)(in + i + 8 * k)) >> 7;
        flags = (flags & 0x00ff00ff00ff00ffULL) + (flags >> 8 & 0x00ff00ff00ff00ffULL);
        c += 8 * words - (size_t)(flags * 0x0001000100010001ULL >> 48);
        i += 8 * words;
    }
    for (; i < n; i++) c += in[i] == 0;
    return c;
}
static void K(nonzero_mask)(const uint8_t *in, uint64_t *out, size_t n) {
    size_t i = SIMD(nonzero_mask, (in, out, n));
    for (; i < n; i += 64) {
        uint64_t m = 0;
        size_t e = n - i < 64 ? n - i : 64, k = 0;
        /* the product gathers the eight flags in the top byte, in order */
        for (; k + 8 <= e; k += 8)
            m |= ((K(nonzero8)(K(load8)(in + i + k)) >> 7) * 0x0102040810204080ULL >> 56) << k;
        for (; k < e; k++) m |= (uint64_t)(in[i + k] != 0) << k;
        out[i / 64] = m;
    }
}

/* ---- statistics ------------------------------------------------------------------------------------------------ */

static void K(histogram8)(const uint8_t *in, size_t n, uint32_t *h) {
    for (size_t i = 0; i < n; i++) h[in[i]]++;
}
static float K(half)(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 1023, u;
    if (e == 31) u = sign | 0x7f800000u | (m << 13);
    else if (e) u = sign | ((e + 112) << 23) | (m << 13);
    else {
        float f = (float)m * 5.9604644775390625e-8f;
        memcpy(&u, &f, 4);
        u |= sign;
    }
    float r;
    memcpy(&r, &u, 4);
    return r;
}
#define MZ_INT_STATS(T)                                            \
    {                                                              \
        const T *x = in;                                           \
        for (size_t a = 0; a < n; a += 4096) {                     \
            size_t e = n - a < 4096 ? n - a : 4096;                \
            int64_t sum = 0;                                       \
            double sq = 0;                                         \
            T lo = x[a], hi = x[a];                                \
            for (size_t i = a; i < a + e; i++) {                   \
                lo = x[i] < lo ? x[i] : lo;                        \
                hi = x[i] > hi ? x[i] : hi;                        \
                sum += x[i];                                       \
                sq += (double)x[i] * (double)x[i];                 \
            }                                                      \
            if (lo < s->min) s->min = lo;                          \
            if (hi > s->max) s->max = hi;                          \
            s->sum += (double)sum;                                 \
            s->sumsq += sq;                                        \
            s->n += e;                                             \
        }                                                          \
        break;                                                     \
    }
#define MZ_FLOAT_STATS(T, GET)                                     \
    {                                                              \
        const T *x = in;                                           \
        for (size_t i = 0; i < n; i++) {                           \
            double v = GET(x[i]);                                  \
            if (isnan(v)) continue;                                \
            if (v < s->min) s->min = v;                            \
            if (v > s->max) s->max = v;                            \
            s->sum += v;                                           \
            s->sumsq += v * v;                                     \
            s->n++;                                                \
        }                                                          \
        break;                                                     \
    }
#define MZ_ID(x) (x)
static void K(stats)(int pt, const void *in, size_t n, mz_stats *s) {
    switch (pt) {
    case MZ_I8: MZ_INT_STATS(int8_t)
    case MZ_U8: MZ_INT_STATS(uint8_t)
    case MZ_I16: MZ_INT_STATS(int16_t)
    case MZ_U16: MZ_INT_STATS(uint16_t)
    case MZ_I32: MZ_INT_STATS(int32_t)
    case MZ_U32: MZ_INT_STATS(uint32_t)
    case MZ_F16: MZ_FLOAT_STATS(uint16_t, K(half))
    case MZ_F32: MZ_FLOAT_STATS(float, MZ_ID)
    case MZ_F64: MZ_FLOAT_STATS(double, MZ_ID)
    case MZ_U4:
        for (size_t a = 0; a < n; a += 4096) {
            uint8_t t[4096];
            size_t e = n - a < 4096 ? n - a : 4096;
            K(unpack4)((const uint8_t *)in + a / 2, t, e);
            K(stats)(MZ_U8, t, e, s);
        }
    }
}
/* Runs BODY with the accessor X(i) for every pixel type but MZ_U4 */
#define MZ_EACH_TYPE(BODY)                                                                          \
    switch (pt) {                                                                                   \
    case MZ_I8: { const int8_t *x = in; BODY(x[i]) break; }                                         \
    case MZ_U8: { const uint8_t *x = in; BODY(x[i]) break; }                                        \
    case MZ_I16: { const int16_t *x = in; BODY(x[i]) break; }                                       \
    case MZ_U16: { const uint16_t *x = in; BODY(x[i]) break; }                                      \
    case MZ_I32: { const int32_t *x = in; BODY(x[i]) break; }                                       \
    case MZ_U32: { const uint32_t *x = in; BODY(x[i]) break; }                                      \
    case MZ_F16: { const uint16_t *x = in; BODY(K(half)(x[i])) break; }                             \
    case MZ_F32: { const float *x = in; BODY(x[i]) break; }                                         \
    case MZ_F64: { const double *x = in; BODY(x[i]) break; }                                        \
    }
static void K(to_float)(int pt, const void *in, const float *gain, float *out, size_t n, int stream) {
    if (pt == MZ_U4) {
        uint8_t t[4096];
        for (size_t a = 0; a < n; a += 4096) {
            size_t e = n - a < 4096 ? n - a : 4096;
            K(unpack4)((const uint8_t *)in + a / 2, t, e);
            K(to_float)(MZ_U8, t, gain ? gain + a : NULL, out + a, e, stream);
        }
        return;
    }
    if (gain) {
#define B(v) for (size_t i = 0; i < n; i++) out[i] = (float)(v) * gain[i];
        MZ_EACH_TYPE(B)
#undef B
    } else {
#define B(v) for (size_t i = 0; i < n; i++) out[i] = (float)(v);
        MZ_EACH_TYPE(B)
#undef B
    }
}
static void K(add_u16)(int pt, const void *in, uint16_t *acc, size_t n) {
    const uint8_t *u = in;
    const int8_t *c = in;
    if (pt == MZ_U4)
        for (size_t i = 0; i < n; i++) acc[i] = (uint16_t)(acc[i] + ((u[i / 2] >> (4 * (i & 1))) & 15));
    else if (pt == MZ_I8)
        for (size_t i = 0; i < n; i++) acc[i] = (uint16_t)(acc[i] + c[i]);
    else
        for (size_t i = 0; i < n; i++) acc[i] = (uint16_t)(acc[i] + u[i]);
}
static void K(add_i64)(int pt, const void *in, int64_t *acc, size_t n) {
    switch (pt) {
    case MZ_I8: for (size_t i = 0; i < n; i++) acc[i] += ((const int8_t *)in)[i]; break;
    case MZ_U8: for (size_t i = 0; i < n; i++) acc[i] += ((const uint8_t *)in)[i]; break;
    case MZ_I16: for (size_t i = 0; i < n; i++) acc[i] += ((const int16_t *)in)[i]; break;
    case MZ_U16: for (size_t i = 0; i < n; i++) acc[i] += ((const uint16_t *)in)[i]; break;
    case MZ_I32: for (size_t i = 0; i < n; i++) acc[i] += ((const int32_t *)in)[i]; break;
    case MZ_U32: for (size_t i = 0; i < n; i++) acc[i] += ((const uint32_t *)in)[i]; break;
    case MZ_U4: for (size_t i = 0; i < n; i++) acc[i] += (((const uint8_t *)in)[i / 2] >> (4 * (i & 1))) & 15; break;
    }
}
static void K(add_f64)(int pt, const void *in, double weight, const float *gain, double *acc, size_t n) {
    if (pt == MZ_U4) {
        uint8_t t[4096];
        for (size_t a = 0; a < n; a += 4096) {
            size_t e = n - a < 4096 ? n - a : 4096;
            K(unpack4)((const uint8_t *)in + a / 2, t, e);
            K(add_f64)(MZ_U8, t, weight, gain ? gain + a : NULL, acc + a, e);
        }
        return;
    }
    if (gain) {
#define B(v) for (size_t i = 0; i < n; i++) acc[i] += weight * (double)((float)(v) * gain[i]);
        MZ_EACH_TYPE(B)
#undef B
    } else {
#define B(v) for (size_t i = 0; i < n; i++) acc[i] += weight * (double)(v);
        MZ_EACH_TYPE(B)
#undef B
    }
}
const mz_kernels MZ_CAT(mz_kernels_, MZ_NAME) = {
    MZ_STR(MZ_NAME), K(bit_transpose), K(bit_untranspose), K(pack4), K(unpack4), K(count_zero), K(nonzero_mask),
    K(histogram8), K(stats), K(to_float), K(add_u16), K(add_i64), K(add_f64), K(shuffle), K(unshuffle), K(byteswap),
};
