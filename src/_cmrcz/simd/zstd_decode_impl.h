/* The decoder of zstd.h: frames and their blocks (RFC 8878, 3.1.1).
 *
 * Every length and table is checked as strictly as libzstd does: what is not understood, or wrong, is left to it.
 * Streams of bits are read from their ends; the 8 bytes before a stream may be read too, as they are always inside the
 * frame: its headers come first. */

/* A compressed block; its decoded length, 0 if it is not for us. */
static size_t decode_block(mz_zread *w, const uint8_t *p, const uint8_t *end, uint8_t *out, size_t room, size_t before,
                           size_t *repeat) {
    size_t count, stored, n;
    int header, log[3];
    const uint8_t *q = read_literals_header(p, end, &count, &stored, &header), *literals_end = q;
    if (room > MZ_ZBLOCK) room = MZ_ZBLOCK;
    if (!q || q >= end) return 0;
    n = *q++;
    if (n == 0) {
        if (q != end || count > room) return 0;
        return decode_literals(w, p, literals_end, header, count, out) ? count : 0;
    }
    if (n >= 128) {
        int more = n < 255 ? 1 : 2;
        if (end - q < more) return 0;
        n = more == 1 ? (n - 128) << 8 | q[0] : 0x7f00u + (q[0] | (size_t)q[1] << 8);
        q += more;
    }
    if (!n || q >= end) return 0;
    int modes = *q++;
    if (modes & 3) return 0;
    if (!read_code_table(modes >> 6, &q, end, 36, 9, ll_expected, 6, ll_base, ll_bits, w->ll, &log[0]) ||
        !read_code_table(modes >> 4 & 3, &q, end, modes >> 4 & 3 ? 32 : 29, 8, of_expected, 5, of_base, of_bits, w->of,
                         &log[1]) ||
        !read_code_table(modes >> 2 & 3, &q, end, 53, 9, ml_expected, 6, ml_base, ml_bits, w->ml, &log[2]) ||
        !decode_literals(w, p, literals_end, header, count, w->literals))
        return 0;
    return log[1] == 0 && w->of[0].base == 1 && *repeat == 1
               ? decode_sequences(w, q, end, n, log, count, out, room, before, repeat, 1)
               : decode_sequences(w, q, end, n, log, count, out, room, before, repeat, 0);
}

static int zstd_decode(const uint8_t *p, size_t n, uint8_t *out, size_t length, int verify, mz_zread *w) {
    const uint8_t *end = p + n;
    size_t done = 0, repeat = 1;
    if (n < 9 || load4(p) != 0xfd2fb528u) return 0;
    int form = p[4], width = 1 << (form >> 6), sum = form & 4;
    /* one segment, no dictionary, nothing reserved */
    if ((form & 0x3b) != 0x20 || n < (size_t)(5 + width + sum)) return 0;
    uint64_t size = 0;
    for (int k = 0; k < width; k++) size |= (uint64_t)p[5 + k] << 8 * k;
    if (size + (width == 2 ? 256 : 0) != length) return 0;
    p += 5 + width;
    end -= sum;
    w->has_tree = 0;
    for (int last = 0; !last;) {
        if (end - p < 3) return 0;
        uint32_t head = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;
        size_t m = head >> 3, room = length - done;
        int type = head >> 1 & 3;
        last = head & 1;
        p += 3;
        if (m > MZ_ZBLOCK || type == 3 || (size_t)(end - p) < (type == 1 ? 1 : m)) return 0;
        if (type == 2) {
            size_t got = decode_block(w, p, p + m, out + done, room, done, &repeat);
            if (!got) return 0;
            p += m;
            done += got;
            continue;
        }
        if (m > room) return 0;
        if (type == 1)
            memset(out + done, *p, m);
        else
            memcpy(out + done, p, m);
        p += type == 1 ? 1 : m;
        done += m;
    }
    if (p != end || done != length) return 0;
    return !sum || !verify || load4(end) == (uint32_t)xxh64(out, length, 0);
}
