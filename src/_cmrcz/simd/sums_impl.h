/* Sums of frames: plain loops, which compilers turn into the vectors of the variant. */

#define MZ_ADD(T, A)                 \
    for (size_t i = 0; i < n; i++) { \
        MZ_GET(T, v, in, i)          \
        MZ_GET(A, a, acc, i)         \
        a = (A)(a + (A)v);           \
        MZ_PUT(A, a, acc, i)         \
    }                                \
    break;
/* RUN(a, e) for 4-bit pixels a to a + e, unpacked in t */
#define MZ_UNPACKED(RUN)                                \
    {                                                   \
        uint8_t t[MZ_CHUNK];                            \
        for (size_t a = 0; a < n; a += MZ_CHUNK) {      \
            size_t e = MZ_MIN(n - a, MZ_CHUNK);         \
            unpack4((const uint8_t *)in + a / 2, t, e); \
            RUN;                                        \
        }                                               \
        break;                                          \
    }
static void add_u16(int pt, const void *MZ_RESTRICT in, uint16_t *MZ_RESTRICT acc, size_t n) {
    switch (pt) {
    case MZ_I8: MZ_ADD(int8_t, uint16_t)
    case MZ_U8: MZ_ADD(uint8_t, uint16_t)
    case MZ_U4: MZ_UNPACKED(add_u16(MZ_U8, t, acc + a, e))
    }
}
static void add_i64(int pt, const void *MZ_RESTRICT in, int64_t *MZ_RESTRICT acc, size_t n) {
    switch (pt) {
    case MZ_I8: MZ_ADD(int8_t, int64_t)
    case MZ_U8: MZ_ADD(uint8_t, int64_t)
    case MZ_I16: MZ_ADD(int16_t, int64_t)
    case MZ_U16: MZ_ADD(uint16_t, int64_t)
    case MZ_I32: MZ_ADD(int32_t, int64_t)
    case MZ_U32: MZ_ADD(uint32_t, int64_t)
    case MZ_U4: MZ_UNPACKED(add_i64(MZ_U8, t, acc + a, e))
    }
}
static void add_f64(int pt, const void *MZ_RESTRICT in, double weight, const float *MZ_RESTRICT gain,
                    double *MZ_RESTRICT acc, size_t n) {
#define ADD(T)                           \
    if (gain)                            \
        for (size_t i = 0; i < n; i++) { \
            MZ_GET(T, v, in, i)          \
            MZ_GET(float, g, gain, i)    \
            MZ_GET(double, a, acc, i)    \
            float f = (float)v;          \
            f *= g;                      \
            a += weight * (double)f;     \
            MZ_PUT(double, a, acc, i)    \
        }                                \
    else                                 \
        for (size_t i = 0; i < n; i++) { \
            MZ_GET(T, v, in, i)          \
            MZ_GET(double, a, acc, i)    \
            a += weight * (double)v;     \
            MZ_PUT(double, a, acc, i)    \
        }                                \
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
    case MZ_U4: MZ_UNPACKED(add_f64(MZ_U8, t, weight, gain ? gain + a : NULL, acc + a, e))
    case MZ_F16: {
        float t[MZ_CHUNK];
        for (size_t a = 0; a < n; a += MZ_CHUNK) {
            size_t e = MZ_MIN(n - a, MZ_CHUNK);
            to_float(MZ_F16, (const uint8_t *)in + 2 * a, NULL, t, e, 0);
            add_f64(MZ_F32, t, weight, gain ? gain + a : NULL, acc + a, e);
        }
    }
    }
#undef ADD
}
