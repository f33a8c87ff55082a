/* The encoder of zstd_frame.h, compiled once per instruction set like kernels_impl.h, which it follows in each.
 *
 * Section numbers are those of RFC 8878. Nothing here searches: matches are runs of zeros, found with masks of a bit a
 * byte. All variants write the same bytes. */

/* ---- XXH64, the checksum of zstd frames (3.1.1) and of what this package stores -------------------------------------- */

#define MZ_P1 11400714785074694791ULL
#define MZ_P2 14029467366897019727ULL
#define MZ_P3 1609587929392839161ULL
#define MZ_P4 9650029242287828579ULL
#define MZ_P5 2870177450012600261ULL
#define MZ_ROTATE(x, r) ((x) << (r) | (x) >> (64 - (r)))

static inline uint32_t K(load4)(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint64_t K(xxh_round)(uint64_t acc, uint64_t v) {
    acc += v * MZ_P2;
    return MZ_ROTATE(acc, 31) * MZ_P1;
}
static void K(xxh_start)(uint64_t v[4], uint64_t seed) {
    v[0] = seed + MZ_P1 + MZ_P2, v[1] = seed + MZ_P2, v[2] = seed, v[3] = seed - MZ_P1;
}
/* As many whole stripes of 32 bytes as there are; how many bytes that was. */
static size_t K(xxh_stripes)(const uint8_t *p, size_t n, uint64_t v[4]) {
    size_t i = SIMD(xxh_stripes, (p, n, v));
    for (; i + 32 <= n; i += 32)
        for (int k = 0; k < 4; k++) v[k] = K(xxh_round)(v[k], K(load8)(p + i + 8 * k));
    return i;
}
/* The hash of `total` bytes: v holds those in front of the n at p, whole stripes. */
static uint64_t K(xxh_end)(const uint8_t *p, size_t n, uint64_t total, uint64_t seed, uint64_t v[4]) {
    uint64_t h;
    size_t i = 0;
    if (total >= 32) {
        i = K(xxh_stripes)(p, n, v);
        h = MZ_ROTATE(v[0], 1) + MZ_ROTATE(v[1], 7) + MZ_ROTATE(v[2], 12) + MZ_ROTATE(v[3], 18);
        for (int k = 0; k < 4; k++) h = (h ^ K(xxh_round)(0, v[k])) * MZ_P1 + MZ_P4;
    } else {
        h = seed + MZ_P5;
    }
    h += total;
    for (; i + 8 <= n; i += 8) {
        h ^= K(xxh_round)(0, K(load8)(p + i));
        h = MZ_ROTATE(h, 27) * MZ_P1 + MZ_P4;
    }
    if (i + 4 <= n) {
        h ^= K(load4)(p + i) * MZ_P1;
        h = MZ_ROTATE(h, 23) * MZ_P2 + MZ_P3;
        i += 4;
    }
    for (; i < n; i++) {
        h ^= p[i] * MZ_P5;
        h = MZ_ROTATE(h, 11) * MZ_P1;
    }
    h = (h ^ h >> 33) * MZ_P2;
    h = (h ^ h >> 29) * MZ_P3;
    return h ^ h >> 32;
}
static uint64_t K(xxh64)(const uint8_t *p, size_t n, uint64_t seed) {
    uint64_t v[4];
    K(xxh_start)(v, seed);
    return K(xxh_end)(p, n, n, seed, v);
}
/* How many of the n bytes at p are 0; whole stripes of them go into v, *hashed counts their bytes. A hash waits for its sums
 * most of the time: meanwhile the zeros are counted, `step` bytes for each of these are fetched from ahead, and all are
 * copied, if copy is not NULL: then it is the copy that is counted and hashed. */
static size_t K(count_and_hash)(const uint8_t *p, size_t n, uint64_t v[4], size_t *hashed, const uint8_t *ahead,
                                size_t step, uint8_t *copy) {
    (void)ahead, (void)step; /* plain C has no use for them */
    size_t zeros = 0, i = SIMD(count_and_hash, (p, n, v, &zeros, ahead, step, copy));
    if (copy) {
        memcpy(copy + i, p + i, n - i);
        p = copy;
    }
    *hashed += i + K(xxh_stripes)(p + i, n - i, v);
    return zeros + K(count_zero)(p + i, n - i);
}

/* ---- bits ------------------------------------------------------------------------------------------------------------ */

static inline int K(highbit)(uint32_t v) {
#if defined(__GNUC__) || defined(__clang__)
    return 31 - __builtin_clz(v);
#else
    int b = 0;
    while (v >>= 1) b++;
    return b;
#endif
}
static inline unsigned K(ctz)(uint64_t v) {
#if defined(__GNUC__) || defined(__clang__)
    return (unsigned)__builtin_ctzll(v);
#else
    unsigned b = 0;
    while (!(v & 1)) v >>= 1, b++;
    return b;
#endif
}
static inline void K(put)(uint8_t *p, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) p[i] = (uint8_t)(v >> 8 * i);
}

/* A stream of bits, little endian (4.1: decoders read it from its end). Up to 56 bits between flushes, of which each
 * writes 8 bytes. */
static inline void K(add)(mz_bits *b, uint64_t v, unsigned n) {
    b->acc |= v << b->bits;
    b->bits += n;
}
static inline void K(flush)(mz_bits *b) {
    K(store8)(b->p, b->acc);
    b->p += b->bits >> 3;
    b->acc >>= b->bits & 56;
    b->bits &= 7;
}
/* The end of a stream is marked by a 1; returns the byte after it. */
static inline uint8_t *K(close)(mz_bits *b) {
    K(add)(b, 1, 1);
    K(flush)(b);
    return b->p + (b->bits > 0);
}

/* ---- finite state entropy (4.1) -------------------------------------------------------------------------------------- */

enum { MZ_FSE_MAX = 9 };
typedef struct {
    uint16_t next[1 << MZ_FSE_MAX];
    int32_t find[64];
    uint32_t bits[64];
    int log;
} K(fse);

/* Scale counts of `symbols` symbols to 1 << log in all, at least 1 where there is any. */
static void K(fse_normalize)(const uint32_t *count, int symbols, uint32_t total, int log, int16_t *norm) {
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
static uint8_t *K(fse_describe)(const int16_t *norm, int symbols, int log, uint8_t *out) {
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
static void K(fse_build)(K(fse) *t, const int16_t *norm, int symbols, int log) {
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
        int out = states == 1 ? log : log - K(highbit)((uint32_t)states - 1);
        t->bits[s] = ((uint32_t)out << 16) - ((uint32_t)states << out);
        t->find[s] = (int32_t)total - states;
        total += (uint32_t)states;
    }
    for (int u = 0; u < size; u++) t->next[first[at[u]]++] = (uint16_t)(size + u);
}
static inline uint32_t K(fse_start)(const K(fse) *t, int s) {
    uint32_t n = (t->bits[s] + (1u << 15)) >> 16;
    return t->next[(int32_t)(((n << 16) - t->bits[s]) >> n) + t->find[s]];
}
static inline uint32_t K(fse_step)(const K(fse) *t, mz_bits *b, uint32_t state, int s) {
    uint32_t n = (state + t->bits[s]) >> 16;
    K(add)(b, state & ((1u << n) - 1), n);
    return t->next[(int32_t)(state >> n) + t->find[s]];
}

/* ---- Huffman codes (4.2) --------------------------------------------------------------------------------------------- */

/* Code lengths from counts (at least two of them not 0): Huffman's, limited to 11 bits. */
static void K(huffman_lengths)(const uint32_t *count, uint8_t *length, mz_huffman *h) {
    uint32_t a[256], b[256], weight[512];
    uint16_t parent[512];
    uint8_t depth[512];
    int n = 0;
    uint32_t most = 0;
    for (int s = 0; s < 256; s++) {
        length[s] = 0;
        if (!count[s]) continue;
        a[n++] = count[s] << 8 | (uint32_t)s;
        most |= count[s];
        h->last = s;
    }
    for (int shift = 8; shift < 32 && most >> (shift - 8); shift += 8) { /* radix sort, rarest first */
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
    /* Leaves 0 to n - 1 and inner nodes n to 2 n - 2 are both in order of weight: two queues. */
    for (int i = 0; i < n; i++) weight[i] = a[i] >> 8;
    for (int leaf = 0, inner = n, made = n; made < 2 * n - 1; made++) {
        weight[made] = 0;
        for (int k = 0; k < 2; k++) {
            int take = leaf < n && (inner == made || weight[leaf] <= weight[inner]) ? leaf++ : inner++;
            weight[made] += weight[take];
            parent[take] = (uint16_t)made;
        }
    }
    memset(h->count_of, 0, sizeof h->count_of);
    depth[2 * n - 2] = 0;
    for (int i = 2 * n - 3; i >= 0; i--) {
        depth[i] = (uint8_t)(depth[parent[i]] + 1);
        if (i < n) h->count_of[depth[i] < MZ_HUF_MAX ? depth[i] : MZ_HUF_MAX]++;
    }
    /* Codes that were cut take too much room (Kraft's sum, in units of the longest code): lengthen others, each time
     * where a unit costs least. The bytes of each length stand together in order of count, so that only the rarest of
     * each length is worth looking at. */
    int excess = -(1 << MZ_HUF_MAX);
    for (int l = 1; l <= MZ_HUF_MAX; l++) excess += h->count_of[l] << (MZ_HUF_MAX - l);
    while (excess > 0) {
        uint64_t least = UINT64_MAX;
        int best = 0;
        for (int l = MZ_HUF_MAX - 1, rarest = h->count_of[MZ_HUF_MAX]; l > 0; rarest += h->count_of[l--]) {
            int freed = 1 << (MZ_HUF_MAX - 1 - l);
            if (!h->count_of[l]) continue;
            /* in 2048ths, which all of these divide */
            uint64_t cost = ((uint64_t)weight[rarest] << MZ_HUF_MAX) / (uint32_t)(freed < excess ? freed : excess);
            if (cost < least) least = cost, best = l;
        }
        h->count_of[best]--;
        h->count_of[best + 1]++;
        excess -= 1 << (MZ_HUF_MAX - 1 - best);
    }
    while (excess < 0) { /* more was freed than needed: the most frequent of some length may have a shorter code */
        uint64_t most = 0;
        int best = MZ_HUF_MAX;
        for (int l = MZ_HUF_MAX, above = h->count_of[l]; l > 1; above += h->count_of[--l]) {
            if (!h->count_of[l] || 1 << (MZ_HUF_MAX - l) > -excess) continue;
            uint64_t gain = ((uint64_t)weight[above - 1] << MZ_HUF_MAX) >> (MZ_HUF_MAX - l);
            if (gain > most) most = gain, best = l;
        }
        h->count_of[best]--;
        h->count_of[best - 1]++;
        excess += 1 << (MZ_HUF_MAX - best);
    }
    h->longest = MZ_HUF_MAX;
    while (!h->count_of[h->longest]) h->longest--;
    for (int i = 0, l = h->longest, left = h->count_of[l]; i < n; i++) {
        while (!left) left = h->count_of[--l];
        length[a[i] & 255] = (uint8_t)l;
        left--;
    }
}
/* 4.2.1.2: codes in order of length, the longest first, then of byte */
static void K(huffman_codes)(const uint8_t *length, mz_huffman *h) {
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
static uint8_t *K(huffman_describe)(const uint8_t *length, const mz_huffman *h, uint8_t *out) {
    uint8_t weight[256];
    uint32_t count[MZ_HUF_MAX + 2] = {0}, most = 0;
    int n = h->last; /* the last weight follows from the others */
    for (int s = 0; s < n; s++) {
        weight[s] = (uint8_t)(length[s] ? h->longest + 1 - length[s] : 0);
        if (++count[weight[s]] > most) most = count[weight[s]];
    }
    if (n > 2 && most < (uint32_t)n && most > 1) { /* 4.2.1.2: two states take turns */
        int16_t norm[MZ_HUF_MAX + 2];
        K(fse) t;
        int log = n >= 64 ? 6 : 5, i = n;
        K(fse_normalize)(count, MZ_HUF_MAX + 2, (uint32_t)n, log, norm);
        K(fse_build)(&t, norm, MZ_HUF_MAX + 2, log);
        mz_bits b = {0, 0, K(fse_describe)(norm, MZ_HUF_MAX + 2, log, out + 1)};
        uint32_t one, two;
        if (i & 1) {
            one = K(fse_start)(&t, weight[--i]);
            two = K(fse_start)(&t, weight[--i]);
            one = K(fse_step)(&t, &b, one, weight[--i]);
        } else {
            two = K(fse_start)(&t, weight[--i]);
            one = K(fse_start)(&t, weight[--i]);
        }
        while (i > 0) {
            two = K(fse_step)(&t, &b, two, weight[--i]);
            one = K(fse_step)(&t, &b, one, weight[--i]);
            K(flush)(&b);
        }
        K(add)(&b, two & ((1u << log) - 1), (unsigned)log);
        K(add)(&b, one & ((1u << log) - 1), (unsigned)log);
        uint8_t *end = K(close)(&b);
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
static uint8_t *K(huffman_stream)(const uint8_t *x, size_t n, const mz_huffman *h, mz_bits b) {
    size_t i = n;
    while (i > 0) {
        size_t e = i & 3 ? i & 3 : 4;
        for (size_t k = 0; k < e; k++) {
            uint8_t s = x[--i], high = h->high[s];
            K(add)(&b, h->low[s] | (uint64_t)(high & 7) << 8, high >> 4);
        }
        K(flush)(&b);
    }
    return K(close)(&b);
}
/* Two streams side by side, 4 bytes of each at a time, from their ends x and y back: one alone waits for its last sum,
 * and four have too many numbers for the registers. Returns how many of the n bytes are done. entry: a code in the top
 * bits, its length in the low 6. */
#define MZ_TAKE(e, f)            \
    one = one >> ((e) & 63) | (e); \
    two = two >> ((f) & 63) | (f); \
    sum1 += (e);                 \
    sum2 += (f);
/* What was added last is at the top of one and two; what was flushed drops out below. The low bits
 * of the sums are how many bits were added. */
#define MZ_STORE                                 \
    bits1 += sum1 & 63;                          \
    bits2 += sum2 & 63;                          \
    K(store8)(p, one >> ((64 - bits1) & 63));    \
    K(store8)(q, two >> ((64 - bits2) & 63));    \
    p += bits1 >> 3;                             \
    q += bits2 >> 3;                             \
    bits1 &= 7;                                  \
    bits2 &= 7;
#define MZ_STREAMS                                                  \
    *b = (mz_bits){bits1 ? one >> (64 - bits1) : 0, bits1, p};      \
    *c = (mz_bits){bits2 ? two >> (64 - bits2) : 0, bits2, q};
static size_t K(huffman_two)(const uint8_t *x, const uint8_t *y, size_t n, const uint64_t *entry, mz_bits *b, mz_bits *c) {
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
/* The same for bytes below 32, two of them by one entry of a table for pairs: the first in the low 5 bits of its index. */
static size_t K(huffman_pairs)(const uint8_t *x, const uint8_t *y, size_t n, const uint64_t *entry, mz_bits *b, mz_bits *c) {
    uint64_t one = 0, two = 0, bits1 = 0, bits2 = 0;
    uint8_t *p = b->p, *q = c->p;
    size_t done = n & ~(size_t)3;
    for (size_t i = 4; i <= done; i += 4) {
        uint64_t sum1 = 0, sum2 = 0;
        uint32_t v = K(load4)(x - i), w = K(load4)(y - i);
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
/* 4.2.2: four streams behind the sizes of the first three; their end. Writes up to 11/8 n + 160 bytes: the four are made
 * at once, and moved together. */
static uint8_t *K(huffman_streams)(const uint8_t *x, size_t n, const mz_huffman *h, uint8_t *out) {
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
            K(huffman_pairs)(x + quarter, x + 2 * quarter, left[3], pair, b, b + 1);
            done = K(huffman_pairs)(x + 3 * quarter, x + n, left[3], pair, b + 2, b + 3);
        } else {
            K(huffman_two)(x + quarter, x + 2 * quarter, left[3], entry, b, b + 1);
            done = K(huffman_two)(x + 3 * quarter, x + n, left[3], entry, b + 2, b + 3);
        }
    }
    for (int k = 0; k < 4; k++) {
        uint8_t *from = out + 6 + k * room, *end = K(huffman_stream)(x + k * quarter, left[k] - done, h, b[k]);
        if (k < 3) K(put)(out + 2 * k, (uint64_t)(end - from), 2);
        if (k > 0) memmove(p, from, (size_t)(end - from));
        p += end - from;
    }
    return p;
}

/* ---- a block's literals (3.1.1.3.1) ---------------------------------------------------------------------------------- */

static uint8_t *K(literals_header)(int type, size_t n, size_t stored, uint8_t *out) {
    if (type < 2) { /* raw, or one byte repeated */
        int bytes = n < 32 ? 1 : n < 4096 ? 2 : 3;
        K(put)(out, bytes == 1 ? (uint64_t)type | n << 3 : (uint64_t)type | (bytes == 2 ? 4u : 12u) | n << 4, bytes);
        return out + bytes;
    }
    int streams = n < 1024 ? 0 : n < 16384 ? 2 : 3, bits = streams == 0 ? 10 : streams == 2 ? 14 : 18;
    K(put)(out, (unsigned)type | (uint64_t)streams << 2 | (uint64_t)n << 4 | (uint64_t)stored << (4 + bits), (2 * bits + 4 + 7) / 8);
    return out + (2 * bits + 4 + 7) / 8;
}
static uint8_t *K(literals_raw)(const uint8_t *x, size_t n, uint8_t *out) {
    out = K(literals_header)(0, n, 0, out);
    if (n) memcpy(out, x, n);
    return out + n;
}
/* Counts of bytes to make codes by. sample: where there are many, a quarter of them in strips, spread unevenly so that no
 * period in the pixels is met by all; and every byte that those strips had not, so that each byte that is there has a
 * count. Not with many zeros: then many bytes are rare, and all their counts matter. */
static void K(count_bytes)(mz_zwork *w, const uint8_t *x, size_t n, int sample, uint32_t *count) {
    enum { STRIP = 1024, EVERY = 4 * STRIP };
    size_t sampled = 0;
    uint8_t unseen[256];
    int some = 0;
    memset(count, 0, 256 * sizeof *count);
    if (sample && n >= MZ_ZBLOCK / 4) {
        for (size_t a = 0; a + EVERY <= n; a += EVERY, sampled += STRIP)
            memcpy(w->literals + sampled, x + a + a / EVERY * 1301 % (EVERY - STRIP), STRIP);
        K(histogram8)(w->literals, sampled, count);
    }
    if (count[0] * 4 >= sampled) {
        memset(count, 0, 256 * sizeof *count);
        K(histogram8)(x, n, count);
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
static uint8_t *K(literals)(mz_zwork *w, const uint8_t *x, size_t n, int sample, int min_gain, uint8_t *out, int *gained) {
    uint32_t count[256];
    uint8_t length[256];
    mz_huffman h;
    *gained = 0;
    if (n < 64) return K(literals_raw)(x, n, out);
    uint64_t bits = 0, of = 0, again = w->has_tree ? 0 : UINT64_MAX / 2;
    K(count_bytes)(w, x, n, sample, count);
    for (int s = 0; s < 256; s++) of += count[s];
    if (count[x[0]] == of) {
        out = K(literals_header)(1, n, 0, out);
        *out++ = x[0];
        *gained = 1;
        return out;
    }
    K(huffman_lengths)(count, length, &h);
    for (int s = 0; s < 256; s++) {
        bits += (uint64_t)count[s] * length[s];
        again += count[s] && !w->tree.high[s] ? UINT64_MAX / 2048 : (uint64_t)count[s] * (w->tree.high[s] >> 4);
    }
    /* what was counted stands for all; a tree takes 100 bytes or so */
    if ((double)bits / 8 * n / of + 64 > (double)n - (double)n / min_gain) return K(literals_raw)(x, n, out);
    uint8_t tree[256], *end = K(huffman_describe)(length, &h, tree);
    if (!end) return K(literals_raw)(x, n, out);
    size_t header = n < 1024 ? 3 : n < 16384 ? 4 : 5, described = (size_t)(end - tree);
    int repeated = again <= bits + 8 * described;
    uint8_t *p = out + header;
    if (repeated) {
        h = w->tree;
    } else {
        K(huffman_codes)(length, &h);
        memcpy(p, tree, described);
        p += described;
    }
    if (n < 1024)
        p = K(huffman_stream)(x, n, &h, (mz_bits){0, 0, p});
    else
        p = K(huffman_streams)(x, n, &h, p);
    if ((size_t)(p - out) >= n) return K(literals_raw)(x, n, out);
    K(literals_header)(repeated ? 3 : 2, n, (size_t)(p - out) - header, out);
    w->tree = h;
    w->has_tree = 1;
    *gained = 1;
    return p;
}

/* ---- a block's sequences (3.1.1.3.2) --------------------------------------------------------------------------------- */

static const uint8_t K(ll_code)[64] = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 16, 17, 17, 18, 18,
    19, 19, 20, 20, 20, 20, 21, 21, 21, 21, 22, 22, 22, 22, 22, 22, 22, 22, 23, 23, 23, 23,
    23, 23, 23, 23, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24};
static const uint8_t K(ml_code)[128] = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
    26, 27, 28, 29, 30, 31, 32, 32, 33, 33, 34, 34, 35, 35, 36, 36, 36, 36, 37, 37, 37, 37, 38, 38, 38, 38,
    38, 38, 38, 38, 39, 39, 39, 39, 39, 39, 39, 39, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40,
    40, 40, 41, 41, 41, 41, 41, 41, 41, 41, 41, 41, 41, 41, 41, 41, 41, 41, 42, 42, 42, 42, 42, 42, 42, 42,
    42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42};
static const uint8_t K(ll_bits)[36] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  0,  0,  1,  1,
                                       1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static const uint8_t K(ml_bits)[53] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  0,  0,
                                       0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1,  1,  1,
                                       2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

/* The matches of a block from its mask of bytes that are not zero: starts and ends; returns how many. lead: a match
 * begins one zero late, which the distance of 1 then repeats. */
static size_t K(find_runs)(mz_zwork *w, size_t n, int lead) {
    size_t words = (n + 63) / 64, k = 0, ended = 0;
    uint64_t before = 0, runs_before = 0, match_before = 0; /* of the word before: starts of runs, runs, matches */
    w->nonzero[words] = ~(uint64_t)0; /* what is beyond ends a run */
    if (n % 64) w->nonzero[words - 1] |= ~(uint64_t)0 << n % 64;
    for (size_t i = 0; i <= words; i++) {
        uint64_t zero = i < words ? ~w->nonzero[i] : 0, after = i + 1 < words ? ~w->nonzero[i + 1] : 0;
        /* s: the zeros that begin 3 (lead: 5) of them; runs: all those zeros */
        uint64_t two = zero & (zero >> 1 | after << 63), s = two & (zero >> 2 | after << 62);
        if (lead) s = s & (zero >> 3 | after << 61) & (zero >> 4 | after << 60);
        uint64_t runs = s | (s << 1 | before >> 63) | (s << 2 | before >> 62);
        if (lead) runs |= (s << 3 | before >> 61) | (s << 4 | before >> 60);
        uint64_t match = lead ? runs & (runs << 1 | runs_before >> 63) : runs;
        uint64_t shifted = match << 1 | match_before >> 63, rise = match & ~shifted, fall = ~match & shifted;
        if (i < words) w->matched[i] = match;
        before = s;
        runs_before = runs;
        match_before = match;
        uint32_t at = (uint32_t)(64 * i);
        for (; rise; rise &= rise - 1) w->starts[k++] = at + K(ctz)(rise);
        for (; fall; fall &= fall - 1) w->ends[ended++] = at + K(ctz)(fall);
    }
    return k;
}
/* The bytes that no match covers. */
static size_t K(gather)(mz_zwork *w, const uint8_t *x, size_t n, size_t matches) {
    size_t i = 0, k = 0;
    uint8_t *out = w->literals;
    i = SIMD(gather, (x, w->matched, n, &out));
    /* what is left begins at i: a match may reach into it */
    while (k < matches && w->ends[k] <= i) k++;
    for (; k < matches; k++) {
        if (w->starts[k] > i) {
            size_t length = w->starts[k] - i;
            if (length <= 16 && i + 16 <= n)
                memcpy(out, x + i, 16); /* mostly so, and quicker than to look how many */
            else
                memcpy(out, x + i, length);
            out += length;
        }
        i = w->ends[k];
    }
    if (i < n) {
        memcpy(out, x + i, n - i);
        out += n - i;
    }
    return (size_t)(out - w->literals);
}
/* 3.1.1.3.2.2: what codes are expected to be, for blocks of few sequences */
static const int16_t K(ll_expected)[36] = {4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1,  1,  2,  2,
                                           2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1};
static const int16_t K(of_expected)[32] = {1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1,
                                           1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, 0, 0, 0};
static const int16_t K(ml_expected)[53] = {1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,  1,  1,  1,  1,  1,  1, 1,
                                           1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1};

/* Bits that codes take by a table, in 256ths and roughly: between powers of two the logarithm is taken as a line. */
static uint64_t K(fse_cost)(const uint32_t *count, const int16_t *norm, int symbols, int log) {
    uint64_t cost = 0;
    for (int s = 0; s < symbols; s++) {
        if (!count[s]) continue;
        if (!norm[s]) return UINT64_MAX;
        uint32_t v = norm[s] < 0 ? 1 : (uint32_t)norm[s];
        int h = K(highbit)(v);
        cost += (uint64_t)count[s] * (((uint32_t)(log - h) << 8) - ((v - (1u << h)) << 8 >> h));
    }
    return cost;
}
/* A code's table: its description goes to *out. Returns the compression mode. expected: of 1 << usual states */
static int K(code_table)(const uint32_t *count, int symbols, uint32_t total, int most, const int16_t *expected, int usual,
                         K(fse) *t, uint8_t **out) {
    int16_t norm[64];
    int different = 0, only = 0, log;
    for (int s = 0; s < symbols; s++)
        if (count[s]) different++, only = s;
    if (different == 1) {
        *(*out)++ = (uint8_t)only;
        return 1;
    }
    log = K(highbit)(total) - 2;
    log = log > most ? most : log < 5 ? 5 : log;
    if (different > 16 && log < 6) log = 6;
    K(fse_normalize)(count, symbols, total, log, norm);
    uint8_t *end = K(fse_describe)(norm, symbols, log, *out);
    if (total < 512) {
        uint64_t own = K(fse_cost)(count, norm, symbols, log) + ((uint64_t)(end - *out) << 11);
        if (K(fse_cost)(count, expected, symbols, usual) < own) {
            K(fse_build)(t, expected, symbols, usual);
            return 0;
        }
    }
    K(fse_build)(t, norm, symbols, log);
    *out = end;
    return 2;
}
/* The sequences section. Every match is at `distance`; *repeat is the offset that zstd remembers. */
static uint8_t *K(sequences)(mz_zwork *w, size_t n, uint32_t distance, uint32_t *repeat, uint8_t *out) {
    uint32_t lls[36] = {0}, mls[53] = {0}, ofs[32] = {0};
    K(fse) ll, ml, of;
    uint32_t end = 0;
    if (n < 128) {
        *out++ = (uint8_t)n;
    } else if (n < 0x7f00) {
        *out++ = (uint8_t)((n >> 8) + 128);
        *out++ = (uint8_t)n;
    } else {
        *out++ = 255;
        K(put)(out, n - 0x7f00, 2);
        out += 2;
    }
    if (!n) return out;
    for (size_t k = 0; k < n; k++) {
        uint32_t l = w->starts[k] - end, m = w->ends[k] - w->starts[k] - 3;
        end = w->ends[k];
        lls[w->ll_codes[k] = l < 64 ? K(ll_code)[l] : (uint8_t)(K(highbit)(l) + 19)]++;
        mls[w->ml_codes[k] = m < 128 ? K(ml_code)[m] : (uint8_t)(K(highbit)(m) + 36)]++;
    }
    /* 3.1.1.5: 1 stands for the offset used last, unless no literal comes before; the first match says its offset if it
     * must, after that all repeat it: a literal lies between any two. */
    uint32_t first = distance == *repeat && w->starts[0] > 0 ? 1 : distance + 3;
    int first_code = K(highbit)(first);
    *repeat = distance;
    ofs[0] = (uint32_t)n - 1;
    ofs[first_code]++;
    uint8_t *modes = out++;
    int a = K(code_table)(lls, 36, (uint32_t)n, 9, K(ll_expected), 6, &ll, &out);
    int b = K(code_table)(ofs, 32, (uint32_t)n, 8, K(of_expected), 5, &of, &out);
    int c = K(code_table)(mls, 53, (uint32_t)n, 9, K(ml_expected), 6, &ml, &out);
    *modes = (uint8_t)(a << 6 | b << 4 | c << 2);
    mz_bits s = {0, 0, out};
    uint32_t sl = 0, so = 0, sm = 0;
    for (size_t k = n; k-- > 0;) {
        int lc = w->ll_codes[k], mc = w->ml_codes[k], oc = k ? 0 : first_code;
        uint32_t from = k ? w->ends[k - 1] : 0, l = w->starts[k] - from, m = w->ends[k] - w->starts[k] - 3;
        if (k + 1 < n) {
            if (b != 1) so = K(fse_step)(&of, &s, so, oc);
            if (c != 1) sm = K(fse_step)(&ml, &s, sm, mc);
            if (a != 1) sl = K(fse_step)(&ll, &s, sl, lc);
        } else {
            if (c != 1) sm = K(fse_start)(&ml, mc);
            if (b != 1) so = K(fse_start)(&of, oc);
            if (a != 1) sl = K(fse_start)(&ll, lc);
        }
        /* at most 20 bits left from before, 26 of states and 16 here */
        K(add)(&s, l & ((1u << K(ll_bits)[lc]) - 1), K(ll_bits)[lc]);
        if (s.bits > 47) K(flush)(&s);
        K(add)(&s, m & ((1u << K(ml_bits)[mc]) - 1), K(ml_bits)[mc]);
        if (oc) {
            K(flush)(&s);
            K(add)(&s, first & ((1u << oc) - 1), (unsigned)oc);
        }
        if (s.bits > 20) K(flush)(&s);
    }
    K(flush)(&s);
    if (c != 1) K(add)(&s, sm & ((1u << ml.log) - 1), (unsigned)ml.log);
    if (b != 1) K(add)(&s, so & ((1u << of.log) - 1), (unsigned)of.log);
    if (a != 1) K(add)(&s, sl & ((1u << ll.log) - 1), (unsigned)ll.log);
    return K(close)(&s);
}

/* ---- the frame (3.1.1) ----------------------------------------------------------------------------------------------- */

/* n bytes as one zstd frame; its length, or 0 if it does not fit cap. */
static size_t K(zstd_frame)(const uint8_t *x, size_t n, const mz_zplan *plan, mz_zwork *w, uint8_t *out, size_t cap) {
    uint8_t *p = out, *end = out + cap, *last = NULL;
    size_t plane = plan->plane < 512 || !plan->stable ? n : plan->plane;
    int per_byte = plane == plan->plane ? plan->planes_per_byte : 0, top_empty = 0, index = 0;
    uint32_t repeat = 1;
    uint64_t sum[4];
    size_t hashed = 0;
    const uint8_t *unhashed = x; /* the bytes after those */
    K(xxh_start)(sum, 0);
    w->has_tree = 0;
    if (cap < 32) return 0;
    K(put)(p, 0xfd2fb528u, 4);
    int width = n < 256 ? 1 : n < 65536 + 256 ? 2 : 4; /* of the content's size; the window is all of it */
    p[4] = (uint8_t)((width == 1 ? 0 : width == 2 ? 0x40 : 0x80) | 0x20 | (plan->checksum ? 4 : 0));
    K(put)(p + 5, width == 2 ? n - 256 : n, width);
    p += 5 + width;
    for (size_t a0 = 0; a0 < n; a0 += plane, index++) {
        size_t a1 = n - a0 < plane ? n : a0 + plane, counted = 0;
        for (size_t at = a0; at < a1; at += MZ_ZBLOCK) {
            const uint8_t *y = x + at;
            size_t m = a1 - at < MZ_ZBLOCK ? a1 - at : MZ_ZBLOCK, size = 0;
            /* blocks that end inside a stripe of the hash leave it for later */
            const uint8_t *ahead = plan->ahead ? plan->ahead + at * plan->ahead_step : NULL;
            uint8_t *copy = plan->stable ? NULL : w->copy;
            size_t zeros;
            if (plan->checksum && hashed == at) {
                zeros = K(count_and_hash)(y, m, sum, &hashed, ahead, plan->ahead_step, copy);
                y = copy ? copy : y;
                unhashed = y + (hashed - at);
            } else {
                if (copy) y = memcpy(copy, y, m);
                zeros = K(count_zero)(y, m);
            }
            int direct = (size_t)(end - p) >= sizeof w->spare + 3, gained = 1;
            uint8_t *block = direct ? p + 3 : w->spare, *q = block;
            counted += m - zeros;
            if (zeros == m && last) {
                if (end - p < 4) return 0;
                K(put)(p, (uint64_t)1 << 1 | m << 3, 3);
                p[3] = 0;
                last = p;
                p += 4;
                continue;
            }
            if (zeros * 100 < m * MZ_SPARSE) {
                q = K(literals)(w, y, m, plan->sample, plan->min_gain, q, &gained);
                *q++ = 0; /* no sequences */
            } else {
                uint32_t distance = 1, used = repeat;
                if (top_empty && per_byte && zeros < m) distance = (uint32_t)(((size_t)index % per_byte + 1) * plane);
                K(nonzero_mask)(y, w->nonzero, m);
                size_t matches = K(find_runs)(w, m, distance == 1), count = K(gather)(w, y, m, matches);
                q = K(literals)(w, w->literals, count, 0, plan->min_gain, q, &gained);
                q = K(sequences)(w, matches, distance, &used, q);
                gained = q < block + m;
                if (gained) repeat = used;
            }
            size = (size_t)(q - block);
            if (!gained || size >= m) {
                size = m;
                w->has_tree = 0; /* what was made for this block is not in the frame */
                if ((size_t)(end - p) < m + 3) return 0;
                memcpy(p + 3, y, m);
                K(put)(p, m << 3, 3);
            } else {
                if (!direct) {
                    if ((size_t)(end - p) < size + 3) return 0;
                    memcpy(p + 3, block, size);
                }
                K(put)(p, (uint64_t)2 << 1 | size << 3, 3);
            }
            last = p;
            p += size + 3;
        }
        if (per_byte && index % per_byte == per_byte - 1) top_empty = counted == 0;
    }
    *last |= 1;
    if (plan->checksum) {
        if (end - p < 4) return 0;
        K(put)(p, K(xxh_end)(unhashed, n - hashed, n, 0, sum), 4);
        p += 4;
    }
    return (size_t)(p - out);
}
