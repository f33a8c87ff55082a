/* The histogram of bytes. */

/* What fits counters of 8 bits, see simd_histogram8. */
#ifndef MZ_HISTOGRAM_BLOCK
#define MZ_HISTOGRAM_BLOCK 8128
#endif
#ifdef MZ_SIMD
/* The bits of a byte that is one of the 16 most are: counts below 16, or, of packed pixels, pairs of counts below 4. */
static inline mask unusual(const uint8_t *in, int pairs) {
    return v_test(LD(in), v_set8((uint8_t)(pairs ? 0xcc : 0xf0)));
}
static size_t histogram16(const uint8_t *in, size_t whole, size_t large, int pairs, uint32_t *h) {
    size_t found = 0;
    for (int first = 0; first < 16 && found + large < whole; first += 8) {
        vec count[8], values[8];
        for (int k = 0; k < 8; k++) {
            int value = first + k;
            values[k] = v_set8((uint8_t)(pairs ? (value & 3) | value >> 2 << 4 : value));
            count[k] = v_zero();
        }
        for (size_t i = 0; i < whole; i += BYTES) {
            vec v = LD(in + i);
            for (int k = 0; k < 8; k++) count[k] = v_count_equal(count[k], v, values[k]);
        }
        for (int k = 0; k < 8; k++) {
            uint32_t c = (uint32_t)v_total8(v_add_sums8(v_zero(), count[k]));
            h[pairs ? ((first + k) & 3) | (first + k) >> 2 << 4 : first + k] += c;
            found += c;
        }
    }
    for (size_t i = 0; large && i < whole; i += BYTES)
        for (mask m = unusual(in + i, pairs); m; m &= m - 1, large--) h[in[i + mask_first(m)]]++;
    return whole;
}
/* A block of at most 254 vectors of mostly small counts: compare with each of 16 values and count in 8 bits. 0, and
 * nothing done, where more than one byte in 32 (packed pixels: 16) is another. */
static size_t simd_histogram8(const uint8_t *in, size_t n, uint32_t *h) {
    size_t whole = n / BYTES * BYTES, large = 0, pairs = 0;
    for (size_t i = 0; i < whole; i += BYTES) large += mask_count(unusual(in + i, 0));
    if (large <= n / 32) return histogram16(in, whole, large, 0, h);
    for (size_t i = 0; i < whole && pairs <= n / 16; i += BYTES) pairs += mask_count(unusual(in + i, 1));
    return pairs <= n / 16 ? histogram16(in, whole, pairs, 1, h) : 0;
}
#endif

/* Several tables, because adding twice to one counter waits for the first addition to reach memory. */
static void histogram8(const uint8_t *in, size_t n, uint32_t *h) {
    enum { TABLES = 4, BLOCK = MZ_HISTOGRAM_BLOCK };
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
