/* 4-bit pixels: two a byte, the first in the low nibble. */

#ifdef MZ_SIMD
static size_t simd_pack4(const uint8_t *in, uint8_t *out, size_t n, int *over) {
    vec all = v_zero();
    size_t i = 0;
    for (; i + 2 * BYTES <= n; i += 2 * BYTES) ST(out + i / 2, pack_nibbles(in + i, &all));
    *over = v_any(v_and(all, v_set8(0xf0)));
    return i;
}
static size_t simd_unpack4(const uint8_t *in, uint8_t *out, size_t n) {
    const vec low = v_set8(15);
    size_t i = 0;
    for (; i + BYTES <= n; i += BYTES) {
        vec v = load_widened(in + i / 2);
        ST(out + i, v_and(v_or(v, v_shl16(v, 4)), low));
    }
    return i;
}
#endif

static int pack4(const uint8_t *in, uint8_t *out, size_t n) {
    int over = 0;
    size_t i = SIMD(pack4, (in, out, n, &over));
    uint64_t high = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t v = load8(in + i);
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
static void unpack4(const uint8_t *in, uint8_t *out, size_t n) {
    size_t i = SIMD(unpack4, (in, out, n));
    for (; i + 8 <= n; i += 8) {
        const uint8_t *b = in + i / 2;
        uint64_t v = b[0] | (uint64_t)b[1] << 16 | (uint64_t)b[2] << 32 | (uint64_t)b[3] << 48;
        store8(out + i, (v | v << 4) & 0x0f0f0f0f0f0f0f0fULL);
    }
    for (; i + 1 < n; i += 2) {
        uint8_t v = in[i / 2];
        out[i] = v & 15;
        out[i + 1] = v >> 4;
    }
    if (i < n) out[i] = in[i / 2] & 15;
}
