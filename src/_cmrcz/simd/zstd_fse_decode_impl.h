/* Finite state entropy, the decoder's half (RFC 8878, 4.1). */

/* A table's description: norm[s] for the symbols up to *symbols, -1 for less than one. Returns its end, NULL if
 * wrong. */
static const uint8_t *fse_read_counts(const uint8_t *p, const uint8_t *end, int most_log, int *symbols, int *log,
                                      int16_t *norm) {
    int most = *symbols, n = 0, at = 4;
    if (p >= end) return NULL;
    *log = (*p & 15) + 5;
    if (*log > most_log) return NULL;
    int remaining = (1 << *log) + 1, threshold = 1 << *log, width = *log + 1;
    while (remaining > 1) {
        uint32_t v = 0;
        if (n >= most || p + at / 8 >= end) return NULL;
        for (int k = 0; k < 4 && p + at / 8 + k < end; k++) v |= (uint32_t)p[at / 8 + k] << 8 * k;
        v >>= at % 8;
        int limit = 2 * threshold - 1 - remaining, c;
        if ((int)(v & (uint32_t)(threshold - 1)) < limit) {
            c = (int)(v & (uint32_t)(threshold - 1));
            at += width - 1;
        } else {
            c = (int)(v & (uint32_t)(2 * threshold - 1));
            if (c >= threshold) c -= limit;
            at += width;
        }
        c--;
        remaining -= c < 0 ? 1 : c;
        norm[n++] = (int16_t)c;
        if (remaining < 1) return NULL;
        while (remaining < threshold) width--, threshold >>= 1;
        while (c == 0) { /* how many more zeros, 3 and on */
            if (p + at / 8 >= end) return NULL;
            uint32_t two = p[at / 8] | (p + at / 8 + 1 < end ? (uint32_t)p[at / 8 + 1] << 8 : 0);
            two = two >> at % 8 & 3;
            at += 2;
            for (uint32_t k = 0; k < two; k++) {
                if (n >= most) return NULL;
                norm[n++] = 0;
            }
            if (two < 3) break;
        }
    }
    *symbols = n;
    p += (at + 7) / 8;
    return p <= end ? p : NULL;
}
static void fse_decoder(const int16_t *norm, int symbols, int log, const uint32_t *base, const uint8_t *extra,
                        mz_step *table) {
    uint8_t at[1 << MZ_FSE_MAX];
    uint16_t next[64];
    int size = 1 << log, step = (size >> 1) + (size >> 3) + 3, position = 0, top = size - 1;
    for (int s = 0; s < symbols; s++) {
        next[s] = (uint16_t)(norm[s] < 0 ? 1 : norm[s]);
        if (norm[s] < 0) at[top--] = (uint8_t)s;
    }
    for (int s = 0; s < symbols; s++)
        for (int k = 0; k < norm[s]; k++) {
            at[position] = (uint8_t)s;
            do position = (position + step) & (size - 1);
            while (position > top);
        }
    for (int u = 0; u < size; u++) {
        int s = at[u], state = next[s]++, bits = log - highbit((uint32_t)state);
        table[u] = (mz_step){base[s], (uint16_t)((state << bits) - size), (uint8_t)bits, extra[s]};
    }
}
