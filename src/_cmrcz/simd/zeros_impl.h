/* Zero bytes: how many there are, and where. */

#ifdef MZ_SIMD
static size_t simd_count_zero(const uint8_t *in, size_t n, size_t *count) {
    size_t c = 0, i = 0;
    for (; i + 64 <= n; i += 64) c += zeros_of_64(in + i);
    *count = c;
    return i;
}
static size_t simd_nonzero_mask(const uint8_t *in, uint64_t *out, size_t n) {
    size_t i = 0;
    for (; i + 64 <= n; i += 64) out[i / 64] = nonzero_of_64(in + i);
    return i;
}
#endif

/* bit 7 of each byte of the result is set where that byte of v is not zero; no carry leaves a byte */
static inline uint64_t nonzero8(uint64_t v) {
    const uint64_t low = 0x7f7f7f7f7f7f7f7fULL;
    return (((v & low) + low) | v) & ~low;
}
static size_t count_zero(const uint8_t *in, size_t n) {
    size_t c = 0, i = SIMD(count_zero, (in, n, &c));
    while (n - i >= 8) { /* up to 255 flags fit the bytes of a word, and four pairs of bytes their sum */
        size_t words = (n - i) / 8 < 255 ? (n - i) / 8 : 255;
        uint64_t flags = 0;
        for (size_t k = 0; k < words; k++) flags += nonzero8(load8(in + i + 8 * k)) >> 7;
        flags = (flags & 0x00ff00ff00ff00ffULL) + (flags >> 8 & 0x00ff00ff00ff00ffULL);
        c += 8 * words - (size_t)(flags * 0x0001000100010001ULL >> 48);
        i += 8 * words;
    }
    for (; i < n; i++) c += in[i] == 0;
    return c;
}
static void nonzero_mask(const uint8_t *in, uint64_t *out, size_t n) {
    size_t i = SIMD(nonzero_mask, (in, out, n));
    for (; i < n; i += 64) {
        uint64_t m = 0;
        size_t e = n - i < 64 ? n - i : 64, k = 0;
        /* the product gathers the eight flags in the top byte, in order */
        for (; k + 8 <= e; k += 8) m |= ((nonzero8(load8(in + i + k)) >> 7) * 0x0102040810204080ULL >> 56) << k;
        for (; k < e; k++) m |= (uint64_t)(in[i + k] != 0) << k;
        out[i / 64] = m;
    }
}
