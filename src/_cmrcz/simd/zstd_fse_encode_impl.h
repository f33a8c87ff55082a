/* Finite state entropy, the encoder's half (RFC 8878, 4.1). */

enum { MZ_FSE_MAX = 9 };
typedef struct {
    uint16_t next[1 << MZ_FSE_MAX];
    int32_t find[64];
    uint32_t bits[64];
    int log;
} fse_table;

/* Scale counts of `symbols` symbols to 1 << log in all, at least 1 where there is any. */
static void fse_normalize(const uint32_t *count, int symbols, uint32_t total, int log, int16_t *norm) {
    int left = 1 << log;
    for (int s = 0; s < symbols; s++) {
        uint32_t v = (uint32_t)(((uint64_t)count[s] << log) / total);
        norm[s] = (int16_t)(count[s] && !v ? 1 : v);
        left -= norm[s];
    }
    while (left) {
        /* one up or down where it changes the code lengths least: relative to what is there, so at the largest, or
         * where rounding down took most */
        int best = -1;
        double most = -1;
        for (int s = 0; s < symbols; s++) {
            if (!norm[s] || (left < 0 && norm[s] == 1)) continue;
            double ideal = (double)count[s] * (1 << log) / total;
            double score = left > 0 ? ideal / norm[s] : norm[s] / ideal;
            if (score > most) most = score, best = s;
        }
        norm[best] = (int16_t)(norm[best] + (left > 0 ? 1 : -1));
        left += left > 0 ? -1 : 1;
    }
}
/* 4.1.1: the description of a table */
static uint8_t *fse_describe(const int16_t *norm, int symbols, int log, uint8_t *out) {
    uint64_t acc = (uint64_t)(log - 5);
    int bits = 4, width = log + 1, threshold = 1 << log, remaining = threshold + 1, zeros = 0;
    for (int s = 0; s < symbols && remaining > 1;) {
        if (zeros) {
            int start = s;
            while (!norm[s]) s++; /* ends: some symbol holds what remains */
            for (; s >= start + 3; start += 3) {
                acc |= (uint64_t)3 << bits;
                for (bits += 2; bits >= 8; bits -= 8, acc >>= 8) *out++ = (uint8_t)acc;
            }
            acc |= (uint64_t)(s - start) << bits;
            bits += 2;
        }
        int v = norm[s++], most = 2 * threshold - 1 - remaining;
        remaining -= v;
        zeros = v == 0;
        if (++v >= threshold) v += most;
        acc |= (uint64_t)v << bits;
        bits += width - (v < most);
        while (remaining < threshold) width--, threshold >>= 1;
        for (; bits >= 8; bits -= 8, acc >>= 8) *out++ = (uint8_t)acc;
    }
    if (bits) *out++ = (uint8_t)acc;
    return out;
}
/* norm: -1 for less than one state, as zstd's own tables have it, which still takes one, at the end of the table */
static void fse_encoder(fse_table *t, const int16_t *norm, int symbols, int log) {
    uint8_t at[1 << MZ_FSE_MAX];
    uint32_t first[64];
    int size = 1 << log, step = (size >> 1) + (size >> 3) + 3, position = 0, top = size - 1;
    uint32_t total = 0;
    t->log = log;
    for (int s = 0; s < symbols; s++)
        if (norm[s] < 0) at[top--] = (uint8_t)s;
    for (int s = 0; s < symbols; s++) {
        int states = norm[s] < 0 ? 1 : norm[s];
        first[s] = total;
        if (states == 0) continue;
        for (int k = 0; k < norm[s]; k++) {
            at[position] = (uint8_t)s;
            do position = (position + step) & (size - 1);
            while (position > top);
        }
        int out = states == 1 ? log : log - highbit((uint32_t)states - 1);
        t->bits[s] = ((uint32_t)out << 16) - ((uint32_t)states << out);
        t->find[s] = (int32_t)total - states;
        total += (uint32_t)states;
    }
    for (int u = 0; u < size; u++) t->next[first[at[u]]++] = (uint16_t)(size + u);
}
static inline uint32_t fse_start(const fse_table *t, int s) {
    uint32_t n = (t->bits[s] + (1u << 15)) >> 16;
    return t->next[(int32_t)(((n << 16) - t->bits[s]) >> n) + t->find[s]];
}
static inline uint32_t fse_step(const fse_table *t, mz_bits *b, uint32_t state, int s) {
    uint32_t n = (state + t->bits[s]) >> 16;
    bits_add(b, state & ((1u << n) - 1), n);
    return t->next[(int32_t)(state >> n) + t->find[s]];
}
