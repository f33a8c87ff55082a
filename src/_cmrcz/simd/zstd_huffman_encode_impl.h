/* Huffman codes, the encoder's half (RFC 8878, 4.2): lengths from counts, the tree's description, the streams. */

/* The bytes that have a count, rarest first, as count << 8 | byte; how many there are. */
static int sort_counts(const uint32_t *count, uint32_t a[256]) {
    uint32_t b[256], most = 0;
    int n = 0;
    for (int s = 0; s < 256; s++) {
        if (!count[s]) continue;
        a[n++] = count[s] << 8 | (uint32_t)s;
        most |= count[s];
    }
    for (int shift = 8; shift < 32 && most >> (shift - 8); shift += 8) { /* radix sort */
        uint32_t at[256] = {0}, sum = 0;
        for (int i = 0; i < n; i++) at[a[i] >> shift & 255]++;
        for (int i = 0; i < 256; i++) {
            uint32_t c = at[i];
            at[i] = sum;
            sum += c;
        }
        for (int i = 0; i < n; i++) b[at[a[i] >> shift & 255]++] = a[i];
        memcpy(a, b, (size_t)n * sizeof *a);
    }
    return n;
}
/* Huffman's lengths, cut to MZ_HUF_MAX bits: how many codes there are of each. weight: n in rising order, and room for
 * n. */
static void cut_huffman(uint32_t weight[512], int n, uint16_t count_of[MZ_HUF_MAX + 1]) {
    uint16_t parent[512];
    uint8_t depth[512];
    /* Leaves 0 to n - 1 and inner nodes n to 2 n - 2 are both in order of weight: two queues. */
    for (int leaf = 0, inner = n, made = n; made < 2 * n - 1; made++) {
        weight[made] = 0;
        for (int k = 0; k < 2; k++) {
            int take = leaf < n && (inner == made || weight[leaf] <= weight[inner]) ? leaf++ : inner++;
            weight[made] += weight[take];
            parent[take] = (uint16_t)made;
        }
    }
    memset(count_of, 0, (MZ_HUF_MAX + 1) * sizeof *count_of);
    depth[2 * n - 2] = 0;
    for (int i = 2 * n - 3; i >= 0; i--) {
        depth[i] = (uint8_t)(depth[parent[i]] + 1);
        if (i < n) count_of[depth[i] < MZ_HUF_MAX ? depth[i] : MZ_HUF_MAX]++;
    }
}
/* Codes that were cut take too much room (Kraft's sum, in units of the longest code): lengthen others, each time where
 * a unit costs least. The bytes of each length stand together in order of count, so that only the rarest of each length
 * is worth looking at. */
static void fit_lengths(const uint32_t *weight, uint16_t count_of[MZ_HUF_MAX + 1]) {
    int excess = -(1 << MZ_HUF_MAX);
    for (int l = 1; l <= MZ_HUF_MAX; l++) excess += count_of[l] << (MZ_HUF_MAX - l);
    while (excess > 0) {
        uint64_t least = UINT64_MAX;
        int best = 0;
        for (int l = MZ_HUF_MAX - 1, rarest = count_of[MZ_HUF_MAX]; l > 0; rarest += count_of[l--]) {
            int freed = 1 << (MZ_HUF_MAX - 1 - l);
            if (!count_of[l]) continue;
            /* in 2048ths, which all of these divide */
            uint64_t cost = ((uint64_t)weight[rarest] << MZ_HUF_MAX) / (uint32_t)(freed < excess ? freed : excess);
            if (cost < least) least = cost, best = l;
        }
        count_of[best]--;
        count_of[best + 1]++;
        excess -= 1 << (MZ_HUF_MAX - 1 - best);
    }
    while (excess < 0) { /* more was freed than needed: the most frequent of some length may have a shorter code */
        uint64_t most = 0;
        int best = MZ_HUF_MAX;
        for (int l = MZ_HUF_MAX, above = count_of[l]; l > 1; above += count_of[--l]) {
            if (!count_of[l] || 1 << (MZ_HUF_MAX - l) > -excess) continue;
            uint64_t gain = ((uint64_t)weight[above - 1] << MZ_HUF_MAX) >> (MZ_HUF_MAX - l);
            if (gain > most) most = gain, best = l;
        }
        count_of[best]--;
        count_of[best - 1]++;
        excess += 1 << (MZ_HUF_MAX - best);
    }
}
/* Code lengths from counts (at least two of them not 0): Huffman's, limited to 11 bits. */
static void huffman_lengths(const uint32_t *count, uint8_t *length, mz_huffman *h) {
    uint32_t sorted[256], weight[512];
    int n = sort_counts(count, sorted);
    for (int i = 0; i < n; i++) weight[i] = sorted[i] >> 8;
    cut_huffman(weight, n, h->count_of);
    fit_lengths(weight, h->count_of);
    h->longest = MZ_HUF_MAX;
    while (!h->count_of[h->longest]) h->longest--;
    h->last = 255;
    while (!count[h->last]) h->last--;
    memset(length, 0, 256);
    for (int i = 0, l = h->longest, left = h->count_of[l]; i < n; i++) {
        while (!left) left = h->count_of[--l];
        length[sorted[i] & 255] = (uint8_t)l;
        left--;
    }
}
/* 4.2.1.2: codes in order of length, the longest first, then of byte */
static void huffman_codes(const uint8_t *length, mz_huffman *h) {
    uint32_t next[MZ_HUF_MAX + 1], v = 0;
    for (int l = h->longest; l > 0; l--) {
        next[l] = v;
        v = (v + h->count_of[l]) >> 1;
    }
    for (int s = 0; s < 256; s++) {
        uint32_t code = length[s] ? next[length[s]]++ : 0;
        h->low[s] = (uint8_t)code;
        h->high[s] = (uint8_t)(code >> 8 | (uint32_t)length[s] << 4);
    }
}
/* 4.2.1: the description of a tree; NULL if this one has none */
static uint8_t *huffman_describe(const uint8_t *length, const mz_huffman *h, uint8_t *out) {
    uint8_t weight[256];
    uint32_t count[MZ_HUF_MAX + 2] = {0}, most = 0;
    int n = h->last; /* the last weight follows from the others */
    for (int s = 0; s < n; s++) {
        weight[s] = (uint8_t)(length[s] ? h->longest + 1 - length[s] : 0);
        if (++count[weight[s]] > most) most = count[weight[s]];
    }
    if (n > 2 && most < (uint32_t)n && most > 1) { /* 4.2.1.2: two states take turns */
        int16_t norm[MZ_HUF_MAX + 2];
        fse_table t;
        int log = n >= 64 ? 6 : 5, i = n;
        fse_normalize(count, MZ_HUF_MAX + 2, (uint32_t)n, log, norm);
        fse_encoder(&t, norm, MZ_HUF_MAX + 2, log);
        mz_bits b = {0, 0, fse_describe(norm, MZ_HUF_MAX + 2, log, out + 1)};
        uint32_t one, two;
        if (i & 1) {
            one = fse_start(&t, weight[--i]);
            two = fse_start(&t, weight[--i]);
            one = fse_step(&t, &b, one, weight[--i]);
        } else {
            two = fse_start(&t, weight[--i]);
            one = fse_start(&t, weight[--i]);
        }
        while (i > 0) {
            two = fse_step(&t, &b, two, weight[--i]);
            one = fse_step(&t, &b, one, weight[--i]);
            bits_flush(&b);
        }
        bits_add(&b, two & ((1u << log) - 1), (unsigned)log);
        bits_add(&b, one & ((1u << log) - 1), (unsigned)log);
        uint8_t *end = bits_close(&b);
        if (end - out - 1 < 128 && end - out - 1 <= n / 2) {
            *out = (uint8_t)(end - out - 1);
            return end;
        }
    }
    if (n > 128) return NULL;
    *out++ = (uint8_t)(127 + n);
    for (int s = 0; s < n; s += 2) *out++ = (uint8_t)(weight[s] << 4 | (s + 1 < n ? weight[s + 1] : 0));
    return out;
}
/* A stream's first n bytes, from its last to its first; the end of the stream. Here and below every byte has a code. */
static uint8_t *huffman_stream(const uint8_t *x, size_t n, const mz_huffman *h, mz_bits b) {
    size_t i = n;
    while (i > 0) {
        size_t e = i & 3 ? i & 3 : 4;
        for (size_t k = 0; k < e; k++) {
            uint8_t s = x[--i], high = h->high[s];
            bits_add(&b, h->low[s] | (uint64_t)(high & 7) << 8, high >> 4);
        }
        bits_flush(&b);
    }
    return bits_close(&b);
}
/* Two streams side by side, 4 bytes of each at a time, from their ends x and y back: one alone waits for its last sum,
 * and four have too many numbers for the registers. Returns how many of the n bytes are done. entry: a code in the top
 * bits, its length in the low 6. */
#define MZ_TAKE(e, f)              \
    one = one >> ((e) & 63) | (e); \
    two = two >> ((f) & 63) | (f); \
    sum1 += (e);                   \
    sum2 += (f);
/* What was added last is at the top of one and two; what was flushed drops out below. The low bits
 * of the sums are how many bits were added. */
#define MZ_STORE                           \
    bits1 += sum1 & 63;                    \
    bits2 += sum2 & 63;                    \
    store8(p, one >> ((64 - bits1) & 63)); \
    store8(q, two >> ((64 - bits2) & 63)); \
    p += bits1 >> 3;                       \
    q += bits2 >> 3;                       \
    bits1 &= 7;                            \
    bits2 &= 7;
#define MZ_STREAMS                                             \
    *b = (mz_bits){bits1 ? one >> (64 - bits1) : 0, bits1, p}; \
    *c = (mz_bits){bits2 ? two >> (64 - bits2) : 0, bits2, q};
static size_t huffman_two(const uint8_t *x, const uint8_t *y, size_t n, const uint64_t *entry, mz_bits *b, mz_bits *c) {
    uint64_t one = 0, two = 0, bits1 = 0, bits2 = 0;
    uint8_t *p = b->p, *q = c->p;
    size_t done = n & ~(size_t)3;
    for (size_t i = 0; i < done; i += 4, x -= 4, y -= 4) {
        uint64_t sum1 = 0, sum2 = 0;
        MZ_TAKE(entry[x[-1]], entry[y[-1]])
        MZ_TAKE(entry[x[-2]], entry[y[-2]])
        MZ_TAKE(entry[x[-3]], entry[y[-3]])
        MZ_TAKE(entry[x[-4]], entry[y[-4]])
        MZ_STORE
    }
    MZ_STREAMS
    return done;
}
/* The same for bytes below 32, two of them by one entry of a table for pairs: the first in the low 5 bits of its
 * index. */
static size_t huffman_pairs(const uint8_t *x, const uint8_t *y, size_t n, const uint64_t *entry, mz_bits *b,
                            mz_bits *c) {
    uint64_t one = 0, two = 0, bits1 = 0, bits2 = 0;
    uint8_t *p = b->p, *q = c->p;
    size_t done = n & ~(size_t)3;
    for (size_t i = 4; i <= done; i += 4) {
        uint64_t sum1 = 0, sum2 = 0;
        uint32_t v = load4(x - i), w = load4(y - i);
        v = (v & 0x001f001f) | (v >> 3 & 0x03e003e0);
        w = (w & 0x001f001f) | (w >> 3 & 0x03e003e0);
        MZ_TAKE(entry[v >> 16], entry[w >> 16])
        MZ_TAKE(entry[v & 0xffff], entry[w & 0xffff])
        MZ_STORE
    }
    MZ_STREAMS
    return done;
}
#undef MZ_TAKE
#undef MZ_STORE
#undef MZ_STREAMS
/* 4.2.2: four streams behind the sizes of the first three; their end. Writes up to 11/8 n + 160 bytes: the four are
 * made at once, and moved together. */
static uint8_t *huffman_streams(const uint8_t *x, size_t n, const mz_huffman *h, uint8_t *out) {
    size_t quarter = (n + 3) / 4, room = quarter * MZ_HUF_MAX / 8 + 32, left[4];
    uint8_t *p = out + 6;
    mz_bits b[4];
    for (int k = 0; k < 4; k++) {
        left[k] = k < 3 ? quarter : n - 3 * quarter;
        b[k].acc = b[k].bits = 0;
        b[k].p = p + k * room;
    }
    size_t done = SIMD(huffman_streams, (x, quarter, left[3], h->low, h->high, b));
    if (done == 0) {
        uint64_t entry[256];
        for (int s = 0; s < 256; s++) {
            uint64_t length = h->high[s] >> 4, code = h->low[s] | (uint64_t)(h->high[s] & 7) << 8;
            entry[s] = length ? code << (64 - length) | length : 0;
        }
        if (h->last < 32) {
            uint64_t pair[1024];
            for (int s = 0; s < 32; s++)
                for (int t = 0; t < 32; t++) {
                    uint64_t e = entry[s], f = entry[t];
                    pair[s | t << 5] = (e & ~(uint64_t)511) | (f & ~(uint64_t)511) >> (e & 63) | ((e & 63) + (f & 63));
                }
            huffman_pairs(x + quarter, x + 2 * quarter, left[3], pair, b, b + 1);
            done = huffman_pairs(x + 3 * quarter, x + n, left[3], pair, b + 2, b + 3);
        } else {
            huffman_two(x + quarter, x + 2 * quarter, left[3], entry, b, b + 1);
            done = huffman_two(x + 3 * quarter, x + n, left[3], entry, b + 2, b + 3);
        }
    }
    for (int k = 0; k < 4; k++) {
        uint8_t *from = out + 6 + k * room, *end = huffman_stream(x + k * quarter, left[k] - done, h, b[k]);
        if (k < 3) put_bytes(out + 2 * k, (uint64_t)(end - from), 2);
        if (k > 0) memmove(p, from, (size_t)(end - from));
        p += end - from;
    }
    return p;
}
