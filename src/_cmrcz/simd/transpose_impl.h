/* Transposes: the bits of bytes as bit planes, the bytes of elements as byte planes (Blosc's shuffle), and back. */

/* ---- with vectors: the loops; load_planes and store_planes are the variant's ------------------------------------ */

#ifdef MZ_SIMD
#ifndef MZ_OWN_BIT_PLANES
/* Bit i of byte j of r[p] <-> bit p of byte j of r[i]: an 8 x 8 bit matrix for every byte position, transposed by
 * exchanging 4 x 4, 2 x 2, then single bits between vectors. */
static inline void vectors_transpose_bits(vec r[8]) {
#define EXCHANGE(a, b, shift, mask)                       \
    {                                                     \
        vec t = v_and(v_xor(v_shr16(a, shift), b), mask); \
        b = v_xor(b, t);                                  \
        a = v_xor(a, v_shl16(t, shift));                  \
    }
    const vec m4 = v_set8(0x0f), m2 = v_set8(0x33), m1 = v_set8(0x55);
    for (int i = 0; i < 4; i++) EXCHANGE(r[i], r[i + 4], 4, m4)
    for (int i = 0; i < 8; i += 4)
        for (int k = i; k < i + 2; k++) EXCHANGE(r[k], r[k + 2], 2, m2)
    for (int i = 0; i < 8; i += 2) EXCHANGE(r[i], r[i + 1], 1, m1)
#undef EXCHANGE
}
static inline void load_bit_planes(const uint8_t *in, vec r[8]) {
    load_planes8(in, r);
    vectors_transpose_bits(r);
}
static inline void store_bit_planes(uint8_t *out, vec r[8]) {
    vectors_transpose_bits(r);
    store_planes8(out, r);
}
#endif
static size_t simd_bit_transpose(const uint8_t *in, uint8_t *out, size_t plane) {
    size_t j = 0;
    for (; j + BYTES <= plane; j += BYTES) {
        vec r[8];
        load_bit_planes(in + 8 * j, r);
        for (int p = 0; p < 8; p++) ST(out + p * plane + j, r[p]);
    }
    return j;
}
static size_t simd_bit_untranspose(const uint8_t *in, uint8_t *out, size_t plane) {
    size_t j = 0;
    for (; j + BYTES <= plane; j += BYTES) {
        vec r[8];
        for (int p = 0; p < 8; p++) r[p] = LD(in + p * plane + j);
        store_bit_planes(out + 8 * j, r);
    }
    return j;
}
#define MZ_SHUFFLE_VECTORS(size)                                                    \
    static size_t simd_shuffle##size(const uint8_t *in, uint8_t *out, size_t n) {   \
        size_t i = 0;                                                               \
        for (; i + BYTES <= n; i += BYTES) {                                        \
            vec r[size];                                                            \
            load_planes##size(in + size * i, r);                                    \
            for (int p = 0; p < size; p++) ST(out + p * n + i, r[p]);               \
        }                                                                           \
        return i;                                                                   \
    }                                                                               \
    static size_t simd_unshuffle##size(const uint8_t *in, uint8_t *out, size_t n) { \
        size_t i = 0;                                                               \
        for (; i + BYTES <= n; i += BYTES) {                                        \
            vec r[size];                                                            \
            for (int p = 0; p < size; p++) r[p] = LD(in + p * n + i);               \
            store_planes##size(out + size * i, r);                                  \
        }                                                                           \
        return i;                                                                   \
    }
MZ_SHUFFLE_VECTORS(2)
MZ_SHUFFLE_VECTORS(4)
MZ_SHUFFLE_VECTORS(8)
#endif

/* ---- between words: an 8 x 8 bit matrix in 64 bits, byte k in bits 8 k to 8 k + 7 ------------------------------ */

/* exchanges the masked bits of b with those of a, shift higher */
#define MZ_EXCHANGE(a, b, shift, mask)                  \
    {                                                   \
        uint64_t t = (((a) >> (shift)) ^ (b)) & (mask); \
        (b) ^= t;                                       \
        (a) ^= t << (shift);                            \
    }
static inline uint64_t bits8x8(uint64_t x) {
    uint64_t t = (x ^ (x >> 7)) & 0x00aa00aa00aa00aaULL;
    x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & 0x0000cccc0000ccccULL;
    x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & 0x00000000f0f0f0f0ULL;
    return x ^ t ^ (t << 28);
}
/* Between eight words: the 8 x 8 matrix of their bytes, and the 8 x 8 bit matrix at each byte position. */
static inline void words_transpose_bytes(uint64_t r[8]) {
    for (int i = 0; i < 4; i++) MZ_EXCHANGE(r[i], r[i + 4], 32, 0x00000000ffffffffULL)
    for (int i = 0; i < 8; i += 4)
        for (int k = i; k < i + 2; k++) MZ_EXCHANGE(r[k], r[k + 2], 16, 0x0000ffff0000ffffULL)
    for (int i = 0; i < 8; i += 2) MZ_EXCHANGE(r[i], r[i + 1], 8, 0x00ff00ff00ff00ffULL)
}
static inline void words_transpose_bits(uint64_t r[8]) {
    for (int i = 0; i < 4; i++) MZ_EXCHANGE(r[i], r[i + 4], 4, 0x0f0f0f0f0f0f0f0fULL)
    for (int i = 0; i < 8; i += 4)
        for (int k = i; k < i + 2; k++) MZ_EXCHANGE(r[k], r[k + 2], 2, 0x3333333333333333ULL)
    for (int i = 0; i < 8; i += 2) MZ_EXCHANGE(r[i], r[i + 1], 1, 0x5555555555555555ULL)
}

/* ---- bit planes ------------------------------------------------------------------------------------------------ */

static void bit_transpose(const uint8_t *in, uint8_t *out, size_t n) {
    size_t plane = n / 8, j = SIMD(bit_transpose, (in, out, plane));
    for (; j + 8 <= plane; j += 8) {
        uint64_t r[8];
        for (int k = 0; k < 8; k++) r[k] = load8(in + 8 * (j + k));
        words_transpose_bytes(r);
        words_transpose_bits(r);
        for (int p = 0; p < 8; p++) store8(out + p * plane + j, r[p]);
    }
    for (; j < plane; j++) {
        uint64_t v = bits8x8(load8(in + 8 * j));
        for (int p = 0; p < 8; p++) out[p * plane + j] = (uint8_t)(v >> 8 * p);
    }
}
static void bit_untranspose(const uint8_t *in, uint8_t *out, size_t n) {
    size_t plane = n / 8, j = SIMD(bit_untranspose, (in, out, plane));
    for (; j + 8 <= plane; j += 8) {
        uint64_t r[8];
        for (int p = 0; p < 8; p++) r[p] = load8(in + p * plane + j);
        words_transpose_bits(r);
        words_transpose_bytes(r);
        for (int k = 0; k < 8; k++) store8(out + 8 * (j + k), r[k]);
    }
    for (; j < plane; j++) {
        uint64_t v = 0;
        for (int p = 0; p < 8; p++) v |= (uint64_t)in[p * plane + j] << 8 * p;
        store8(out + 8 * j, bits8x8(v));
    }
}

/* ---- byte shuffle ---------------------------------------------------------------------------------------------- */

/* ---- byte planes ----------------------------------------------------------------------------------------------- */

/* For a constant number of bytes an element; i elements are done. */
#define MZ_SHUFFLE(size)                                                                             \
    static void shuffle##size(const uint8_t *MZ_RESTRICT in, uint8_t *MZ_RESTRICT out, size_t n) {   \
        for (size_t i = SIMD(shuffle##size, (in, out, n)); i < n; i++)                               \
            for (int p = 0; p < size; p++) out[p * n + i] = in[size * i + p];                        \
    }                                                                                                \
    static void unshuffle##size(const uint8_t *MZ_RESTRICT in, uint8_t *MZ_RESTRICT out, size_t n) { \
        for (size_t i = SIMD(unshuffle##size, (in, out, n)); i < n; i++)                             \
            for (int p = 0; p < size; p++) out[size * i + p] = in[p * n + i];                        \
    }
MZ_SHUFFLE(2)
MZ_SHUFFLE(4)
static void shuffle8(const uint8_t *in, uint8_t *out, size_t n) {
    size_t i = SIMD(shuffle8, (in, out, n));
    for (; i + 8 <= n; i += 8) {
        uint64_t r[8];
        for (int k = 0; k < 8; k++) r[k] = load8(in + 8 * (i + k));
        words_transpose_bytes(r);
        for (int p = 0; p < 8; p++) store8(out + p * n + i, r[p]);
    }
    for (; i < n; i++)
        for (int p = 0; p < 8; p++) out[p * n + i] = in[8 * i + p];
}
static void unshuffle8(const uint8_t *in, uint8_t *out, size_t n) {
    size_t i = SIMD(unshuffle8, (in, out, n));
    for (; i + 8 <= n; i += 8) {
        uint64_t r[8];
        for (int p = 0; p < 8; p++) r[p] = load8(in + p * n + i);
        words_transpose_bytes(r);
        for (int k = 0; k < 8; k++) store8(out + 8 * (i + k), r[k]);
    }
    for (; i < n; i++)
        for (int p = 0; p < 8; p++) out[8 * i + p] = in[p * n + i];
}
static void shuffle(size_t size, const uint8_t *in, uint8_t *out, size_t nbytes) {
    if (size <= 1) {
        if (nbytes) memcpy(out, in, nbytes);
        return;
    }
    size_t n = nbytes / size, whole = n * size;
    switch (size) {
    case 2: shuffle2(in, out, n); break;
    case 4: shuffle4(in, out, n); break;
    case 8: shuffle8(in, out, n); break;
    default:
        for (size_t p = 0; p < size; p++)
            for (size_t i = 0; i < n; i++) out[p * n + i] = in[size * i + p];
    }
    if (nbytes > whole) memcpy(out + whole, in + whole, nbytes - whole);
}
static void unshuffle(size_t size, const uint8_t *in, uint8_t *out, size_t nbytes) {
    if (size <= 1) {
        if (nbytes) memcpy(out, in, nbytes);
        return;
    }
    size_t n = nbytes / size, whole = n * size;
    switch (size) {
    case 2: unshuffle2(in, out, n); break;
    case 4: unshuffle4(in, out, n); break;
    case 8: unshuffle8(in, out, n); break;
    default:
        for (size_t p = 0; p < size; p++)
            for (size_t i = 0; i < n; i++) out[size * i + p] = in[p * n + i];
    }
    if (nbytes > whole) memcpy(out + whole, in + whole, nbytes - whole);
}
