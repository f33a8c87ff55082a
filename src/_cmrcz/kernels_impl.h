/* The kernels, compiled once per instruction set: MZ_NAME is the variant's name. */
#include "kernels.h"
#include <math.h>
#include <string.h>

#define MZ_CAT2(a, b) a##b
#define MZ_CAT(a, b) MZ_CAT2(a, b)
#define K(f) MZ_CAT(f##_, MZ_NAME)
#define MZ_STR2(x) #x
#define MZ_STR(x) MZ_STR2(x)

static void K(bit_transpose)(const uint8_t *in, uint8_t *out, size_t n) {
    size_t plane = n / 8;
    for (size_t j = 0; j < plane; j++)
        for (int p = 0; p < 8; p++) {
            unsigned b = 0;
            for (int i = 0; i < 8; i++) b |= ((in[8 * j + i] >> p) & 1u) << i;
            out[p * plane + j] = (uint8_t)b;
        }
}
static void K(bit_untranspose)(const uint8_t *in, uint8_t *out, size_t n) {
    size_t plane = n / 8;
    for (size_t j = 0; j < plane; j++)
        for (int i = 0; i < 8; i++) {
            unsigned v = 0;
            for (int p = 0; p < 8; p++) v |= ((in[p * plane + j] >> i) & 1u) << p;
            out[8 * j + i] = (uint8_t)v;
        }
}
static int K(pack4)(const uint8_t *in, uint8_t *out, size_t n) {
    uint8_t all = 0;
    size_t i = 0;
    for (; i + 1 < n; i += 2) {
        all |= in[i] | in[i + 1];
        out[i / 2] = (uint8_t)((in[i] & 15) | (in[i + 1] << 4));
    }
    if (i < n) {
        all |= in[i];
        out[i / 2] = in[i] & 15;
    }
    return all > 15;
}
static void K(unpack4)(const uint8_t *in, uint8_t *out, size_t n) {
    size_t i = 0;
    for (; i + 1 < n; i += 2) {
        out[i] = in[i / 2] & 15;
        out[i + 1] = in[i / 2] >> 4;
    }
    if (i < n) out[i] = in[i / 2] & 15;
}
static size_t K(count_zero)(const uint8_t *in, size_t n) {
    size_t c = 0;
    for (size_t i = 0; i < n; i++) c += in[i] == 0;
    return c;
}
static void K(nonzero_mask)(const uint8_t *in, uint64_t *out, size_t n) {
    for (size_t w = 0; w * 64 < n; w++) {
        uint64_t m = 0;
        size_t e = n - w * 64 < 64 ? n - w * 64 : 64;
        for (size_t i = 0; i < e; i++) m |= (uint64_t)(in[w * 64 + i] != 0) << i;
        out[w] = m;
    }
}
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
    K(histogram8), K(stats), K(to_float), K(add_u16), K(add_i64), K(add_f64),
};
