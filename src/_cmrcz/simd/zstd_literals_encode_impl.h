/* A block's literals, the encoder's half (RFC 8878, 3.1.1.3.1). */

#ifdef MZ_SIMD
/* Add each byte that unseen (256 bytes, 0xff or 0) marks to its count. */
static size_t simd_count_unseen(const uint8_t *x, size_t n, const uint8_t *unseen, uint32_t *count) {
    const byte_set set = set_of_marks(unseen);
    size_t i = 0;
    for (; i + BYTES <= n; i += BYTES)
        for (mask m = set_members(&set, LD(x + i)); m; m &= m - 1) count[x[i + mask_first(m)]]++;
    return i;
}
#endif

static uint8_t *write_literals_header(int type, size_t n, size_t stored, uint8_t *out) {
    if (type < 2) { /* raw, or one byte repeated */
        int bytes = n < 32 ? 1 : n < 4096 ? 2 : 3;
        put_bytes(out, bytes == 1 ? (uint64_t)type | n << 3 : (uint64_t)type | (bytes == 2 ? 4u : 12u) | n << 4, bytes);
        return out + bytes;
    }
    int streams = n < 1024 ? 0 : n < 16384 ? 2 : 3, bits = streams == 0 ? 10 : streams == 2 ? 14 : 18;
    put_bytes(out, (unsigned)type | (uint64_t)streams << 2 | (uint64_t)n << 4 | (uint64_t)stored << (4 + bits),
              (2 * bits + 4 + 7) / 8);
    return out + (2 * bits + 4 + 7) / 8;
}
static uint8_t *write_literals_raw(const uint8_t *x, size_t n, uint8_t *out) {
    out = write_literals_header(0, n, 0, out);
    if (n) memcpy(out, x, n);
    return out + n;
}
/* Counts of bytes to make codes by. sample: where there are many, a quarter of them in strips, spread unevenly so that
 * no period in the pixels is met by all; and every byte that those strips had not, so that each byte that is there has
 * a count. Not with many zeros: then many bytes are rare, and all their counts matter. */
static void count_bytes(mz_zwork *w, const uint8_t *x, size_t n, int sample, uint32_t *count) {
    enum { STRIP = 1024, EVERY = 4 * STRIP };
    size_t sampled = 0;
    uint8_t unseen[256];
    int some = 0;
    memset(count, 0, 256 * sizeof *count);
    if (sample && n >= MZ_ZBLOCK / 4) {
        for (size_t a = 0; a + EVERY <= n; a += EVERY, sampled += STRIP)
            memcpy(w->literals + sampled, x + a + a / EVERY * 1301 % (EVERY - STRIP), STRIP);
        histogram8(w->literals, sampled, count);
    }
    if (count[0] * 4 >= sampled) {
        memset(count, 0, 256 * sizeof *count);
        histogram8(x, n, count);
        return;
    }
    for (int s = 0; s < 256; s++) {
        unseen[s] = count[s] ? 0 : 0xff;
        some |= unseen[s];
        count[s] = (uint32_t)((uint64_t)count[s] * n / sampled);
    }
    if (!some) return;
    size_t i = SIMD(count_unseen, (x, n, unseen, count));
    for (; i + 8 <= n; i += 8) {
        int any = 0;
        for (int k = 0; k < 8; k++) any |= unseen[x[i + k]];
        for (int k = 0; any && k < 8; k++) count[x[i + k]] += unseen[x[i + k]] & 1;
    }
    for (; i < n; i++) count[x[i]] += unseen[x[i]] & 1;
}
/* The literals section; *gained tells whether they became smaller. The codes of the literals before serve again where
 * that is smaller than describing new ones. */
static uint8_t *encode_literals(mz_zwork *w, const uint8_t *x, size_t n, int sample, int min_gain, uint8_t *out,
                                int *gained) {
    uint32_t count[256];
    uint8_t length[256];
    mz_huffman h;
    *gained = 0;
    if (n < 64) return write_literals_raw(x, n, out);
    uint64_t bits = 0, of = 0, again = w->has_tree ? 0 : UINT64_MAX / 2;
    count_bytes(w, x, n, sample, count);
    for (int s = 0; s < 256; s++) of += count[s];
    if (count[x[0]] == of) {
        out = write_literals_header(1, n, 0, out);
        *out++ = x[0];
        *gained = 1;
        return out;
    }
    huffman_lengths(count, length, &h);
    for (int s = 0; s < 256; s++) {
        bits += (uint64_t)count[s] * length[s];
        again += count[s] && !w->tree.high[s] ? UINT64_MAX / 2048 : (uint64_t)count[s] * (w->tree.high[s] >> 4);
    }
    /* what was counted stands for all; a tree takes 100 bytes or so */
    if ((double)bits / 8 * n / of + 64 > (double)n - (double)n / min_gain) return write_literals_raw(x, n, out);
    uint8_t tree[256], *end = huffman_describe(length, &h, tree);
    if (!end) return write_literals_raw(x, n, out);
    size_t header = n < 1024 ? 3 : n < 16384 ? 4 : 5, described = (size_t)(end - tree);
    int repeated = again <= bits + 8 * described;
    uint8_t *p = out + header;
    if (repeated) {
        h = w->tree;
    } else {
        huffman_codes(length, &h);
        memcpy(p, tree, described);
        p += described;
    }
    if (n < 1024)
        p = huffman_stream(x, n, &h, (mz_bits){0, 0, p});
    else
        p = huffman_streams(x, n, &h, p);
    if ((size_t)(p - out) >= n) return write_literals_raw(x, n, out);
    write_literals_header(repeated ? 3 : 2, n, (size_t)(p - out) - header, out);
    w->tree = h;
    w->has_tree = 1;
    *gained = 1;
    return p;
}
