/* Pixels of any type at any address, and their conversion to float32. */

static inline float float_of_half(uint16_t h) {
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

#if defined(MZ_SIMD) && !defined(MZ_OWN_TO_FLOAT)
static size_t simd_to_float(int pt, const uint8_t *in, const float *gain, float *out, size_t n, int stream) {
    size_t i = 0;
#define CONVERT(size, VECTOR)                       \
    for (; i + FLOATS <= n; i += FLOATS) {          \
        vf v = VECTOR(in + i * size);               \
        if (gain) v = vf_mul(v, vf_load(gain + i)); \
        if (stream)                                 \
            vf_stream(out + i, v);                  \
        else                                        \
            vf_store(out + i, v);                   \
    }                                               \
    break;
    switch (pt) {
    case MZ_I8: CONVERT(1, vf_of_i8)
    case MZ_U8: CONVERT(1, vf_of_u8)
    case MZ_I16: CONVERT(2, vf_of_i16)
    case MZ_U16: CONVERT(2, vf_of_u16)
    case MZ_I32: CONVERT(4, vf_of_i32)
    case MZ_U32: CONVERT(4, vf_of_u32)
    case MZ_F16: CONVERT(2, vf_of_f16)
    case MZ_F32: CONVERT(4, vf_load)
    case MZ_F64: CONVERT(8, vf_of_f64)
    }
#undef CONVERT
    if (stream == 1) stream_end();
    return i;
}
#endif
static void to_float_range(int pt, const uint8_t *MZ_RESTRICT in, const float *MZ_RESTRICT gain, float *MZ_RESTRICT out,
                           size_t begin, size_t end) {
#define CONVERT(T, AS)                         \
    if (gain)                                  \
        for (size_t i = begin; i < end; i++) { \
            MZ_GET(T, v, in, i)                \
            MZ_GET(float, g, gain, i)          \
            float f = (float)AS(v);            \
            f *= g;                            \
            MZ_PUT(float, f, out, i)           \
        }                                      \
    else                                       \
        for (size_t i = begin; i < end; i++) { \
            MZ_GET(T, v, in, i)                \
            float f = (float)AS(v);            \
            MZ_PUT(float, f, out, i)           \
        }                                      \
    break;
    switch (pt) {
    case MZ_I8: CONVERT(int8_t, MZ_AS_IS)
    case MZ_U8: CONVERT(uint8_t, MZ_AS_IS)
    case MZ_I16: CONVERT(int16_t, MZ_AS_IS)
    case MZ_U16: CONVERT(uint16_t, MZ_AS_IS)
    case MZ_I32: CONVERT(int32_t, MZ_AS_IS)
    case MZ_U32: CONVERT(uint32_t, MZ_AS_IS)
    case MZ_F16: CONVERT(uint16_t, float_of_half)
    case MZ_F32: CONVERT(float, MZ_AS_IS)
    case MZ_F64: CONVERT(double, MZ_AS_IS)
    }
#undef CONVERT
}
/* bytes a pixel, of every type but MZ_U4 */
static inline size_t pixel_size(int pt) {
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
static void to_float(int pt, const void *in, const float *gain, float *out, size_t n, int stream) {
    if (pt == MZ_U4) {
        uint8_t t[MZ_CHUNK];
        for (size_t a = 0; a < n; a += MZ_CHUNK) {
            size_t e = MZ_MIN(n - a, MZ_CHUNK);
            unpack4((const uint8_t *)in + a / 2, t, e);
            to_float(MZ_U8, t, gain ? gain + a : NULL, out + a, e, stream && a + e < n ? 2 : stream);
        }
        return;
    }
    /* Non-temporal stores fill whole lines: the pixels before the first are done here. */
    size_t i = 0;
    stream = (uintptr_t)out % sizeof(float) == 0 ? stream : 0;
    if (stream) {
        i = (64 - (uintptr_t)out % 64) % 64 / sizeof(float);
        i = MZ_MIN(i, n);
        to_float_range(pt, in, gain, out, 0, i);
    }
    i += SIMD(to_float, (pt, (const uint8_t *)in + i * pixel_size(pt), gain ? gain + i : NULL, out + i, n - i, stream));
    to_float_range(pt, in, gain, out, i, n);
}
