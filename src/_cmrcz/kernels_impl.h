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
static inline void K(store4)(uint8_t *p, uint32_t v) {
    if (MZ_BIG_ENDIAN)
        for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> 8 * i);
    else
        memcpy(p, &v, 4);
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
        for (size_t p = 0; p < size; p++)
            for (size_t i = 0; i < n; i++) out[size * i + p] = in[p * n + i];
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

/* ---- histogram ------------------------------------------------------------------------------------------------- */

/* Several tables, because adding twice to one counter waits for the first addition to reach memory. */
static void K(histogram8)(const uint8_t *in, size_t n, uint32_t *h) {
    enum { TABLES = 4, BLOCK = 8128 }; /* a block is what fits counters of 8 bits, see simd_histogram8 */
    uint32_t t[TABLES][256];
    int used = 0;
    for (size_t a = 0; a < n; a += BLOCK) {
        const uint8_t *x = in + a;
        size_t e = n - a < BLOCK ? n - a : BLOCK, i = SIMD(histogram8, (x, e, h));
        if (i == 0 && e >= 64) {
            if (!used) memset(t, 0, sizeof t);
            used = 1;
            for (; i + 8 <= e; i += 8) {
                uint64_t v;
                memcpy(&v, x + i, 8);
                for (int k = 0; k < 8; k++) t[k % TABLES][v >> 8 * k & 255]++;
            }
        }
        for (; i < e; i++) h[x[i]]++;
    }
    if (used)
        for (int i = 0; i < 256; i++)
            for (int k = 0; k < TABLES; k++) h[i] += t[k][i];
}

/* ---- pixels of any type ---------------------------------------------------------------------------------------- */

static inline float K(half)(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h & 0x7c00, m = h & 0x3ff, special, normal, small;
    float f = (float)(int32_t)m * 5.9604644775390625e-8f; /* 2^-24, exact */
    memcpy(&small, &f, 4);
    normal = ((uint32_t)(h & 0x7fff) << 13) + (112u << 23);
    special = 0x7f800000u | m << 13 | (m ? 0x400000u : 0); /* a NaN comes out quiet, as the processor's own does */
    small = e == 0 ? small : normal;
    small = e == 0x7c00 ? special : small;
    small |= sign;
    memcpy(&f, &small, 4);
    return f;
}
/* pixel i of type T at any address */
#define MZ_GET(T, v, p, i) \
    T v;                   \
    memcpy(&v, (const uint8_t *)(p) + (i) * sizeof(T), sizeof(T));
#define MZ_PUT(T, v, p, i) memcpy((uint8_t *)(p) + (i) * sizeof(T), &(v), sizeof(T));
#define MZ_AS_IS(v) (v)
#define MZ_CHUNK 4096
#define MZ_MIN(a, b) ((a) < (b) ? (a) : (b))

/* ---- conversion to float --------------------------------------------------------------------------------------- */

static void K(to_float_range)(int pt, const uint8_t *MZ_RESTRICT in, const float *MZ_RESTRICT gain,
                              float *MZ_RESTRICT out, size_t begin, size_t end) {
#define CONVERT(T, AS)                                                            \
    if (gain)                                                                     \
        for (size_t i = begin; i < end; i++) {                                    \
            MZ_GET(T, v, in, i)                                                   \
            MZ_GET(float, g, gain, i)                                             \
            float f = (float)AS(v);                                               \
            f *= g;                                                               \
            MZ_PUT(float, f, out, i)                                              \
        }                                                                         \
    else                                                                          \
        for (size_t i = begin; i < end; i++) {                                    \
            MZ_GET(T, v, in, i)                                                   \
            float f = (float)AS(v);                                               \
            MZ_PUT(float, f, out, i)                                              \
        }                                                                         \
    break;
    switch (pt) {
    case MZ_I8: CONVERT(int8_t, MZ_AS_IS)
    case MZ_U8: CONVERT(uint8_t, MZ_AS_IS)
    case MZ_I16: CONVERT(int16_t, MZ_AS_IS)
    case MZ_U16: CONVERT(uint16_t, MZ_AS_IS)
    case MZ_I32: CONVERT(int32_t, MZ_AS_IS)
    case MZ_U32: CONVERT(uint32_t, MZ_AS_IS)
    case MZ_F16: CONVERT(uint16_t, K(half))
    case MZ_F32: CONVERT(float, MZ_AS_IS)
    case MZ_F64: CONVERT(double, MZ_AS_IS)
    }
#undef CONVERT
}
/* bytes a pixel, of every type but MZ_U4 */
static inline size_t K(pixel_size)(int pt) {
    switch (pt) {
    case MZ_I8:
    case MZ_U8: return 1;
    case MZ_I16:
    case MZ_U16:
    case MZ_F16: return 2;
    case MZ_F64: return 8;
    default: return 4;
    }
}
static void K(to_float)(int pt, const void *in, const float *gain, float *out, size_t n, int stream) {
    if (pt == MZ_U4) {
        uint8_t t[MZ_CHUNK];
        for (size_t a = 0; a < n; a += MZ_CHUNK) {
            size_t e = MZ_MIN(n - a, MZ_CHUNK);
            K(unpack4)((const uint8_t *)in + a / 2, t, e);
            K(to_float)(MZ_U8, t, gain ? gain + a : NULL, out + a, e, stream && a + e < n ? 2 : stream);
        }
        return;
    }
    /* Non-temporal stores fill whole lines: the pixels before the first are done here. */
    size_t i = 0;
    stream = (uintptr_t)out % sizeof(float) == 0 ? stream : 0;
    if (stream) {
        i = (64 - (uintptr_t)out % 64) % 64 / sizeof(float);
        i = MZ_MIN(i, n);
        K(to_float_range)(pt, in, gain, out, 0, i);
    }
    i += SIMD(to_float, (pt, (const uint8_t *)in + i * K(pixel_size)(pt), gain ? gain + i : NULL, out + i, n - i, stream));
    K(to_float_range)(pt, in, gain, out, i, n);
}

/* ---- statistics ------------------------------------------------------------------------------------------------ */

/* 8 and 16 bits: exact integers over a block, t = min, max, sum, sum of squares; only the totals are rounded. A block
 * is small enough for 32-bit sums of pixels, and of squares of 8-bit pixels. */
#define MZ_STATS_INTEGER(name, T, square_t)                                   \
    static void K(stats_##name)(const uint8_t *in, size_t n, mz_stats *s) {   \
        const size_t block = 16384;                                           \
        for (size_t a = 0; a < n; a += block) {                               \
            const uint8_t *x = in + a * sizeof(T);                            \
            size_t e = MZ_MIN(n - a, block);                                  \
            int64_t t[4] = {INT32_MAX, INT32_MIN, 0, 0};                      \
            size_t i = SIMD(stats_##name, (x, e, t));                         \
            if (i < e) {                                                      \
                MZ_GET(T, lo, x, i)                                           \
                T hi = lo;                                                    \
                int32_t sum = 0;                                              \
                square_t squares = 0;                                         \
                for (; i < e; i++) {                                          \
                    MZ_GET(T, v, x, i)                                        \
                    lo = v < lo ? v : lo;                                     \
                    hi = v > hi ? v : hi;                                     \
                    sum += v;                                                 \
                    squares += (uint32_t)((int32_t)v * (int64_t)v);           \
                }                                                             \
                t[0] = MZ_MIN(t[0], lo);                                      \
                t[1] = t[1] > hi ? t[1] : hi;                                 \
                t[2] += sum;                                                  \
                t[3] += (int64_t)squares;                                     \
            }                                                                 \
            if ((double)t[0] < s->min) s->min = (double)t[0];                 \
            if ((double)t[1] > s->max) s->max = (double)t[1];                 \
            s->sum += (double)t[2];                                           \
            s->sumsq += (double)t[3];                                         \
            s->n += e;                                                        \
        }                                                                     \
    }
MZ_STATS_INTEGER(i8, int8_t, uint32_t)
MZ_STATS_INTEGER(u8, uint8_t, uint32_t)
MZ_STATS_INTEGER(i16, int16_t, uint64_t)
MZ_STATS_INTEGER(u16, uint16_t, uint64_t)

/* Floats: pixel i of a chunk belongs to lane i % 16; each lane is accumulated in order, then the lanes are added in
 * pairs 8, 4, 2, 1 apart. Every variant adds in this order, so that all give the same bits. A NaN adds 0. */
typedef struct {
    double lo[16], hi[16], sum[16], squares[16];
    size_t nan;
} K(lanes);

static void K(reduce)(K(lanes) *l, size_t n, mz_stats *s) {
    for (int w = 8; w; w /= 2)
        for (int k = 0; k < w; k++) {
            l->lo[k] = l->lo[k + w] < l->lo[k] ? l->lo[k + w] : l->lo[k];
            l->hi[k] = l->hi[k + w] > l->hi[k] ? l->hi[k + w] : l->hi[k];
            l->sum[k] += l->sum[k + w];
            l->squares[k] += l->squares[k + w];
        }
    if (l->lo[0] < s->min) s->min = l->lo[0];
    if (l->hi[0] > s->max) s->max = l->hi[0];
    s->sum += l->sum[0];
    s->sumsq += l->squares[0];
    s->n += n - l->nan;
}
#define MZ_LANE(T, k, i)                            \
    {                                               \
        MZ_GET(T, x, in, i)                         \
        double v = x, w = v == v ? v : 0;           \
        l.lo[k] = v < l.lo[k] ? v : l.lo[k];        \
        l.hi[k] = v > l.hi[k] ? v : l.hi[k];        \
        l.sum[k] += w;                              \
        l.squares[k] += w * w;                      \
        nan += v != v;                              \
    }
#define MZ_STATS_FLOAT(name, T)                                                                        \
    static void K(stats_##name)(const uint8_t *in, size_t n, mz_stats *s) {                            \
        K(lanes) l;                                                                                    \
        size_t i = 0, nan = 0;                                                                         \
        for (int k = 0; k < 16; k++) {                                                                 \
            l.lo[k] = INFINITY;                                                                        \
            l.hi[k] = -INFINITY;                                                                       \
            l.sum[k] = l.squares[k] = 0;                                                               \
        }                                                                                              \
        l.nan = 0;                                                                                     \
        i = SIMD(stats_##name, (in, n, l.lo, l.hi, l.sum, l.squares, &l.nan));                         \
        for (; i + 16 <= n; i += 16)                                                                   \
            for (int k = 0; k < 16; k++) MZ_LANE(T, k, i + k)                                          \
        for (int k = 0; i < n; i++, k++) MZ_LANE(T, k, i)                                              \
        l.nan += nan;                                                                                  \
        K(reduce)(&l, n, s);                                                                           \
    }
MZ_STATS_FLOAT(f32, float)
MZ_STATS_FLOAT(f64, double)

static void K(stats)(int pt, const void *in, size_t n, mz_stats *s) {
    const uint8_t *x = in;
    switch (pt) {
    case MZ_I8: K(stats_i8)(x, n, s); break;
    case MZ_U8: K(stats_u8)(x, n, s); break;
    case MZ_I16: K(stats_i16)(x, n, s); break;
    case MZ_U16: K(stats_u16)(x, n, s); break;
    case MZ_U4:
        for (size_t a = 0; a < n; a += MZ_CHUNK) {
            uint8_t t[MZ_CHUNK];
            size_t e = MZ_MIN(n - a, MZ_CHUNK);
            K(unpack4)(x + a / 2, t, e);
            K(stats_u8)(t, e, s);
        }
        break;
    case MZ_F32:
        for (size_t a = 0; a < n; a += MZ_CHUNK) K(stats_f32)(x + 4 * a, MZ_MIN(n - a, MZ_CHUNK), s);
        break;
    case MZ_F64:
        for (size_t a = 0; a < n; a += MZ_CHUNK) K(stats_f64)(x + 8 * a, MZ_MIN(n - a, MZ_CHUNK), s);
        break;
    case MZ_F16:
        for (size_t a = 0; a < n; a += MZ_CHUNK) {
            float t[MZ_CHUNK];
            size_t e = MZ_MIN(n - a, MZ_CHUNK);
            K(to_float)(MZ_F16, x + 2 * a, NULL, t, e, 0);
            K(stats_f32)((const uint8_t *)t, e, s);
        }
        break;
    case MZ_I32:
    case MZ_U32: /* squares do not fit integers: through float64, which holds the pixels exactly */
        for (size_t a = 0; a < n; a += MZ_CHUNK / 2) {
            double t[MZ_CHUNK / 2];
            size_t e = MZ_MIN(n - a, MZ_CHUNK / 2);
            if (pt == MZ_I32)
                for (size_t i = 0; i < e; i++) {
                    MZ_GET(int32_t, v, x, a + i)
                    t[i] = v;
                }
            else
                for (size_t i = 0; i < e; i++) {
                    MZ_GET(uint32_t, v, x, a + i)
                    t[i] = v;
                }
            K(stats_f64)((const uint8_t *)t, e, s);
        }
        break;
    }
}

/* ---- sums of frames: plain loops, which compilers turn into the vectors of the variant ------------------------- */

#define MZ_ADD(T, A)                   \
    for (size_t i = 0; i < n; i++) {   \
        MZ_GET(T, v, in, i)            \
        MZ_GET(A, a, acc, i)           \
        a = (A)(a + (A)v);             \
        MZ_PUT(A, a, acc, i)           \
    }                                  \
    break;
/* RUN(a, e) for 4-bit pixels a to a + e, unpacked in t */
#define MZ_UNPACKED(RUN)                                      \
    {                                                         \
        uint8_t t[MZ_CHUNK];                                  \
        for (size_t a = 0; a < n; a += MZ_CHUNK) {            \
            size_t e = MZ_MIN(n - a, MZ_CHUNK);               \
            K(unpack4)((const uint8_t *)in + a / 2, t, e);    \
            RUN;                                              \
        }                                                     \
        break;                                                \
    }
static void K(add_u16)(int pt, const void *MZ_RESTRICT in, uint16_t *MZ_RESTRICT acc, size_t n) {
    switch (pt) {
    case MZ_I8: MZ_ADD(int8_t, uint16_t)
    case MZ_U8: MZ_ADD(uint8_t, uint16_t)
    case MZ_U4: MZ_UNPACKED(K(add_u16)(MZ_U8, t, acc + a, e))
    }
}
static void K(add_i64)(int pt, const void *MZ_RESTRICT in, int64_t *MZ_RESTRICT acc, size_t n) {
    switch (pt) {
    case MZ_I8: MZ_ADD(int8_t, int64_t)
    case MZ_U8: MZ_ADD(uint8_t, int64_t)
    case MZ_I16: MZ_ADD(int16_t, int64_t)
    case MZ_U16: MZ_ADD(uint16_t, int64_t)
    case MZ_I32: MZ_ADD(int32_t, int64_t)
    case MZ_U32: MZ_ADD(uint32_t, int64_t)
    case MZ_U4: MZ_UNPACKED(K(add_i64)(MZ_U8, t, acc + a, e))
    }
}
static void K(add_f64)(int pt, const void *MZ_RESTRICT in, double weight, const float *MZ_RESTRICT gain,
                       double *MZ_RESTRICT acc, size_t n) {
#define ADD(T)                                \
    if (gain)                                 \
        for (size_t i = 0; i < n; i++) {      \
            MZ_GET(T, v, in, i)               \
            MZ_GET(float, g, gain, i)         \
            MZ_GET(double, a, acc, i)         \
            float f = (float)v;               \
            f *= g;                           \
            a += weight * (double)f;          \
            MZ_PUT(double, a, acc, i)         \
        }                                     \
    else                                      \
        for (size_t i = 0; i < n; i++) {      \
            MZ_GET(T, v, in, i)               \
            MZ_GET(double, a, acc, i)         \
            a += weight * (double)v;          \
            MZ_PUT(double, a, acc, i)         \
        }                                     \
    break;
    switch (pt) {
    case MZ_I8: ADD(int8_t)
    case MZ_U8: ADD(uint8_t)
    case MZ_I16: ADD(int16_t)
    case MZ_U16: ADD(uint16_t)
    case MZ_I32: ADD(int32_t)
    case MZ_U32: ADD(uint32_t)
    case MZ_F32: ADD(float)
    case MZ_F64: ADD(double)
    case MZ_U4: MZ_UNPACKED(K(add_f64)(MZ_U8, t, weight, gain ? gain + a : NULL, acc + a, e))
    case MZ_F16: {
        float t[MZ_CHUNK];
        for (size_t a = 0; a < n; a += MZ_CHUNK) {
            size_t e = MZ_MIN(n - a, MZ_CHUNK);
            K(to_float)(MZ_F16, (const uint8_t *)in + 2 * a, NULL, t, e, 0);
            K(add_f64)(MZ_F32, t, weight, gain ? gain + a : NULL, acc + a, e);
        }
    }
    }
#undef ADD
}

#include "zstd_frame_impl.h"
#include "zstd_decode_impl.h"

const mz_kernels MZ_CAT(mz_kernels_, MZ_NAME) = {
    MZ_STR(MZ_NAME), K(bit_transpose), K(bit_untranspose), K(pack4), K(unpack4), K(count_zero), K(nonzero_mask),
    K(histogram8), K(stats), K(to_float), K(add_u16), K(add_i64), K(add_f64), K(shuffle), K(unshuffle), K(byteswap), K(xxh64),
    K(xxh_start), K(xxh_stripes), K(xxh_end), K(zstd_frame), K(zstd_read),
};
