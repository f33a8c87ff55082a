/* A block's literals, the decoder's half (RFC 8878, 3.1.1.3.1). */

/* Where the literals section ends, how many literals it holds; NULL if wrong. */
static const uint8_t *read_literals_header(const uint8_t *p, const uint8_t *end, size_t *count, size_t *stored,
                                           int *header) {
    uint64_t v = 0;
    for (int k = 0; k < 5 && p + k < end; k++) v |= (uint64_t)p[k] << 8 * k;
    int type = v & 3, form = v >> 2 & 3;
    if (type < 2) {
        *header = form == 1 ? 2 : form == 3 ? 3 : 1;
        *count = (size_t)(form == 1 ? v >> 4 & 0xfff : form == 3 ? v >> 4 & 0xfffff : v >> 3 & 31);
        *stored = type == 0 ? *count : 1;
    } else {
        int bits = form == 3 ? 18 : form == 2 ? 14 : 10;
        *header = form == 3 ? 5 : form == 2 ? 4 : 3;
        *count = (size_t)(v >> 4 & (((uint64_t)1 << bits) - 1));
        *stored = (size_t)(v >> (4 + bits) & (((uint64_t)1 << bits) - 1));
        if (!*stored || !*count) return NULL;
    }
    if (*count > MZ_ZBLOCK || end - p < *header || *stored > (size_t)(end - p - *header)) return NULL;
    return p + *header + *stored;
}
static int decode_literals(mz_zread *w, const uint8_t *p, const uint8_t *end, int header, size_t count, uint8_t *out) {
    int type = *p & 3, form = *p >> 2 & 3;
    p += header;
    if (type == 0) {
        if (count) memcpy(out, p, count);
        return 1;
    }
    if (type == 1) {
        memset(out, *p, count);
        return 1;
    }
    if (type == 2) {
        p = huffman_read_tree(w, p, end);
        if (!p) return 0;
    } else if (!w->has_tree) {
        return 0;
    }
    /* a stream's first byte is at the 12th of the frame or later: see reader_open */
    return huffman_decode(w, p, end, form == 0 ? 1 : 4, out, count);
}
