/* The decoder of zstd_frame.h, compiled once per instruction set like the encoder, and following its sections of RFC 8878.
 *
 * Every length and table is checked as strictly as libzstd does: what is not understood, or wrong, is left to it. Streams
 * of bits are read from their ends; the 8 bytes before a stream may be read too, as they are always inside the frame:
 * its headers come first. */

/* ---- bits ------------------------------------------------------------------------------------------------------------ */

/* The next bits are the top ones of b. Its lowest set bit is a mark that was put in at bit 0 when 8 bytes were read, so
 * that the zeros below it count the bits taken since: at least 55 can be, after a fill. */
typedef struct {
    uint64_t b;
    const uint8_t *p, *start; /* the 8 bytes in b are at p, the stream begins at start */
} K(stream);

static inline int K(open)(K(stream) *s, const uint8_t *start, const uint8_t *end) {
    if (end <= start || !end[-1]) return 0;
    s->start = start;
    s->p = end - 8;
    s->b = (K(load8)(s->p) | 1) << (8 - K(highbit)(end[-1])); /* the end's own mark */
    return 1;
}
static inline int K(fill)(K(stream) *s) {
    unsigned used = K(ctz)(s->b);
    s->p -= used >> 3;
    if (s->p + 8 < s->start) return 0;
    s->b = (K(load8)(s->p) | 1) << (used & 7);
    return 1;
}
static inline uint32_t K(take)(K(stream) *s, unsigned n) {
    uint64_t v = s->b >> 1 >> (63 - n);
    s->b <<= n;
    return (uint32_t)v;
}
/* Bits that are left; below 0 if more were taken than there are. */
static inline int64_t K(left)(const K(stream) *s) {
    return 8 * (s->p - s->start) + 64 - (int64_t)K(ctz)(s->b);
}

/* ---- finite state entropy (4.1) -------------------------------------------------------------------------------------- */

/* A table's description: norm[s] for the symbols up to *symbols, -1 for less than one. Returns its end, NULL if wrong. */
static const uint8_t *K(fse_counts)(const uint8_t *p, const uint8_t *end, int most_log, int *symbols, int *log,
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
static void K(fse_read_table)(const int16_t *norm, int symbols, int log, const uint32_t *base, const uint8_t *extra,
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
        int s = at[u], state = next[s]++, bits = log - K(highbit)((uint32_t)state);
        table[u] = (mz_step){base[s], (uint16_t)((state << bits) - size), (uint8_t)bits, extra[s]};
    }
}

/* ---- Huffman codes (4.2) --------------------------------------------------------------------------------------------- */

/* 4.2.1: a tree's description, to w->one. Returns its end, NULL if wrong. */
static const uint8_t *K(huffman_tree)(mz_zread *w, const uint8_t *p, const uint8_t *end) {
    uint8_t weight[256];
    int n = 0;
    if (p >= end) return NULL;
    int head = *p++;
    if (head >= 128) {
        n = head - 127;
        if (end - p < (n + 1) / 2) return NULL;
        for (int s = 0; s < n; s++) weight[s] = s & 1 ? p[s / 2] & 15 : p[s / 2] >> 4;
        p += (n + 1) / 2;
    } else { /* 4.2.1.2: two states take turns */
        static const uint32_t value[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        static const uint8_t none[16] = {0};
        int16_t norm[16];
        mz_step table[64], state[2];
        int symbols = 13, log;
        K(stream) s;
        if (!head || end - p < head) return NULL;
        const uint8_t *bits = K(fse_counts)(p, p + head, 6, &symbols, &log, norm);
        p += head;
        if (!bits || !K(open)(&s, bits, p)) return NULL;
        K(fse_read_table)(norm, symbols, log, value, none, table);
        state[0] = table[K(take)(&s, (unsigned)log)];
        state[1] = table[K(take)(&s, (unsigned)log)];
        if (K(left)(&s) < 0) return NULL;
        for (int k = 0;; k ^= 1) {
            unsigned more = state[k].bits;
            if (n >= 254) return NULL;
            weight[n++] = (uint8_t)state[k].base;
            if (K(left)(&s) < (int64_t)more) {
                weight[n++] = (uint8_t)state[k ^ 1].base;
                break;
            }
            if (!K(fill)(&s)) return NULL;
            state[k] = table[state[k].next + K(take)(&s, more)];
        }
    }
    /* The last weight is what is missing to a power of two. */
    uint32_t count[MZ_HUF_MAX + 2] = {0}, at[MZ_HUF_MAX + 2], total = 0;
    for (int s = 0; s < n; s++) {
        if (weight[s] > MZ_HUF_MAX) return NULL;
        count[weight[s]]++;
        total += weight[s] ? 1u << (weight[s] - 1) : 0;
    }
    if (!total) return NULL;
    int log = K(highbit)(total) + 1;
    uint32_t rest = (1u << log) - total;
    if (log > MZ_HUF_MAX || (rest & (rest - 1))) return NULL;
    weight[n] = (uint8_t)(K(highbit)(rest) + 1);
    count[weight[n++]]++;
    if (count[1] < 2 || count[1] & 1) return NULL;
    for (int k = 1, position = 0; k <= MZ_HUF_MAX; position += (int)(count[k] << (k - 1)), k++) at[k] = (uint32_t)position;
    w->length = 0;
    for (int s = 0; s < n; s++) {
        if (!weight[s]) continue;
        int length = log + 1 - weight[s], run = 1 << (weight[s] - 1);
        uint8_t(*to)[2] = w->one + at[weight[s]];
        at[weight[s]] += (uint32_t)run;
        w->length += run * length;
        for (int k = 0; k < run; k++) to[k][0] = (uint8_t)length, to[k][1] = (uint8_t)s;
    }
    w->log = log;
    w->has_tree = 1;
    w->has_many = 0;
    return p;
}
/* w->many: by the next 11 bits, all the codes that are whole in them, up to 4. Codes of one length stand together in
 * w->one, and what can follow them in the 11 bits is the same for all: that is looked up once for each length. */
static void K(huffman_many)(mz_zread *w) {
    uint64_t rest[1 << (MZ_HUF_MAX - 1)];
    int down = MZ_HUF_MAX - w->log, of = 0;
    for (uint32_t i = 0; i < 1 << MZ_HUF_MAX;) {
        uint32_t length = w->one[i >> down][0], first = w->one[i >> down][1], n = 1u << (MZ_HUF_MAX - length);
        if ((int)length != of) {
            of = (int)length;
            for (uint32_t r = 0; r < n; r++) {
                uint32_t v = r << length, bits = length, k = 1;
                uint64_t bytes = 0;
                for (; k < 4; k++) {
                    const uint8_t *e = w->one[v >> down];
                    if (bits + e[0] > MZ_HUF_MAX) break;
                    bytes |= (uint64_t)e[1] << 8 * k;
                    bits += e[0];
                    v = v << e[0] & ((1 << MZ_HUF_MAX) - 1);
                }
                rest[r] = bytes | (uint64_t)bits << 32 | (uint64_t)k << 40;
            }
        }
        for (uint32_t r = 0; r < n; r++) w->many[i + r] = rest[r] | first;
        i += n;
    }
    if (MZ_BIG_ENDIAN)
        for (uint32_t i = 0; i < 1 << MZ_HUF_MAX; i++) K(store8)((uint8_t *)&w->many[i], w->many[i]);
    w->has_many = 1;
}
/* m bytes from n streams (1 or 4) to out; nothing is written beyond. Returns whether all was right. */
static int K(huffman_read)(mz_zread *w, const uint8_t *p, const uint8_t *end, int n, uint8_t *out, size_t m) {
    K(stream) s[4];
    uint8_t *o[4], *stop[4];
    size_t quarter = n == 4 ? (m + 3) / 4 : m;
    if (n == 4) {
        if (end - p < 10 || m < 6 || 3 * quarter > m) return 0;
        const uint8_t *at = p + 6;
        for (int k = 0; k < 4; k++) {
            size_t length = k < 3 ? p[2 * k] | (size_t)p[2 * k + 1] << 8 : (size_t)(end - at);
            if (length > (size_t)(end - at) || !K(open)(&s[k], at, at + length)) return 0;
            at += length;
            o[k] = out + k * quarter;
            stop[k] = k < 3 ? o[k] + quarter : out + m;
        }
    } else {
        if (!K(open)(&s[0], p, end)) return 0;
        o[0] = out;
        stop[0] = out + m;
    }
    /* Are two codes often whole in 11 bits? Then look up several at a time. */
    int many = m >= 4096 && w->length * 10 < 74 << w->log;
    if (many && !w->has_many) K(huffman_many)(w);
    /* Fields are read apart, which is quicker than one read and shifts. */
    const uint8_t *table = (const uint8_t *)w->many;
    const uint8_t(*one)[2] = w->one;
    int down = 64 - w->log;
#define MZ_MANY(b, o)                             \
    {                                             \
        const uint8_t *e = table + 8 * (b >> 53); \
        b <<= e[4] & 63;                          \
        K(store4)(o, K(load4)(e));                \
        o += e[5];                                \
    }
#define MZ_ONE(b, o)                       \
    {                                      \
        const uint8_t *e = one[b >> down]; \
        b <<= e[0] & 63;                   \
        *o++ = e[1];                       \
    }
#define MZ_FILL(b, p)                        \
    {                                        \
        unsigned used = K(ctz)(b);           \
        p -= used >> 3;                      \
        b = (K(load8)(p) | 1) << (used & 7); \
    }
#define MZ_ALL(LOOK) LOOK(b0, o0) LOOK(b1, o1) LOOK(b2, o2) LOOK(b3, o3)
/* Five codes of up to 11 bits each, from each stream. */
#define MZ_FIVE(LOOK)                                                    \
    {                                                                    \
        MZ_ALL(LOOK) MZ_ALL(LOOK) MZ_ALL(LOOK) MZ_ALL(LOOK) MZ_ALL(LOOK) \
        MZ_FILL(b0, p0) MZ_FILL(b1, p1) MZ_FILL(b2, p2) MZ_FILL(b3, p3)  \
    }
    while (n == 4) {
        /* as often as is safe without a look, at 7 bytes in and `room` out for each stream */
        ptrdiff_t room = many ? 20 : 5, rounds = PTRDIFF_MAX;
        for (int k = 0; k < 4; k++) {
            ptrdiff_t in = (s[k].p - s[k].start) / 7, fit = (stop[k] - o[k]) / room;
            rounds = in < rounds ? in : rounds;
            rounds = fit < rounds ? fit : rounds;
        }
        if (rounds <= 0) break;
        uint64_t b0 = s[0].b, b1 = s[1].b, b2 = s[2].b, b3 = s[3].b;
        const uint8_t *p0 = s[0].p, *p1 = s[1].p, *p2 = s[2].p, *p3 = s[3].p;
        uint8_t *o0 = o[0], *o1 = o[1], *o2 = o[2], *o3 = o[3];
        if (many)
            while (rounds--) MZ_FIVE(MZ_MANY)
        else
            while (rounds--) MZ_FIVE(MZ_ONE)
        s[0].b = b0, s[1].b = b1, s[2].b = b2, s[3].b = b3;
        s[0].p = p0, s[1].p = p1, s[2].p = p2, s[3].p = p3;
        o[0] = o0, o[1] = o1, o[2] = o2, o[3] = o3;
    }
    for (int k = 0; k < n; k++) { /* the streams end at different times */
        uint64_t b = s[k].b;
        const uint8_t *q = s[k].p;
        uint8_t *x = o[k];
        while (many && stop[k] - x >= 20 && q >= s[k].start) {
            for (int i = 0; i < 5; i++) MZ_MANY(b, x)
            MZ_FILL(b, q)
        }
        while (stop[k] - x >= 5 && q >= s[k].start) {
            for (int i = 0; i < 5; i++) MZ_ONE(b, x)
            MZ_FILL(b, q)
        }
        s[k].b = b;
        s[k].p = q;
        while (x < stop[k]) {
            if (!K(fill)(&s[k])) return 0;
            for (int i = 0; i < 5 && x < stop[k]; i++) MZ_ONE(s[k].b, x)
        }
        if (K(left)(&s[k]) != 0) return 0;
    }
    return 1;
}
#undef MZ_MANY
#undef MZ_ONE
#undef MZ_FILL
#undef MZ_ALL
#undef MZ_FIVE

/* ---- a block's literals (3.1.1.3.1) ---------------------------------------------------------------------------------- */

/* Where the literals section ends, how many literals it holds; NULL if wrong. */
static const uint8_t *K(literals_size)(const uint8_t *p, const uint8_t *end, size_t *count, size_t *stored, int *header) {
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
static int K(literals_read)(mz_zread *w, const uint8_t *p, const uint8_t *end, int header, size_t count, uint8_t *out) {
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
        p = K(huffman_tree)(w, p, end);
        if (!p) return 0;
    } else if (!w->has_tree) {
        return 0;
    }
    /* a stream's first byte is at the 12th of the frame or later: see K(open) */
    return K(huffman_read)(w, p, end, form == 0 ? 1 : 4, out, count);
}

/* ---- a block's sequences (3.1.1.3.2) --------------------------------------------------------------------------------- */

static const uint32_t K(ll_base)[36] = {0,  1,  2,  3,  4,  5,  6,  7,   8,   9,   10,   11,   12,   13,   14,    15, 16, 18,
                                        20, 22, 24, 28, 32, 40, 48, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536};
static const uint32_t K(ml_base)[53] = {
    3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,  23,  24,  25,   26,   27,   28,   29,
    30, 31, 32, 33, 34, 35, 37, 39, 41, 43, 47, 51, 59, 67, 83, 99, 131, 259, 515, 1027, 2051, 4099, 8195, 16387, 32771, 65539};
/* of an offset's code: so many bits after a 1 */
static const uint32_t K(of_base)[32] = {1u << 0,  1u << 1,  1u << 2,  1u << 3,  1u << 4,  1u << 5,  1u << 6,  1u << 7,
                                        1u << 8,  1u << 9,  1u << 10, 1u << 11, 1u << 12, 1u << 13, 1u << 14, 1u << 15,
                                        1u << 16, 1u << 17, 1u << 18, 1u << 19, 1u << 20, 1u << 21, 1u << 22, 1u << 23,
                                        1u << 24, 1u << 25, 1u << 26, 1u << 27, 1u << 28, 1u << 29, 1u << 30, 1u << 31};
static const uint8_t K(of_bits)[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                       16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};

/* One of the three tables, of 1 << *log entries. *p moves beyond its description. */
static int K(read_table)(int mode, const uint8_t **p, const uint8_t *end, int symbols, int most_log, const int16_t *expected,
                         int usual, const uint32_t *base, const uint8_t *extra, mz_step *table, int *log) {
    int16_t norm[64];
    if (mode == 0) {
        *log = usual;
        K(fse_read_table)(expected, symbols, usual, base, extra, table);
        return 1;
    }
    if (mode == 1) {
        if (*p >= end || **p >= symbols) return 0;
        *log = 0;
        table[0] = (mz_step){base[**p], 0, 0, extra[**p]};
        *p += 1;
        return 1;
    }
    if (mode == 3) return 0; /* the tables of the block before: the encoder here does without */
    *p = K(fse_counts)(*p, end, most_log, &symbols, log, norm);
    if (!*p) return 0;
    K(fse_read_table)(norm, symbols, *log, base, extra, table);
    return 1;
}
/* Two copies of what follows are made, of which the one for runs of zeros in bit planes is the simpler. */
#if defined(__GNUC__) || defined(__clang__)
#define MZ_INLINE inline __attribute__((always_inline))
#else
#define MZ_INLINE inline
#endif
/* The sequences from the stream [p, end): n of them, over `count` literals in w->literals. Returns the block's length;
 * 0 if anything is wrong, or an offset is neither the one before, nor 1, nor at least 64. room: of out; before: bytes of
 * the frame in front of it. ones: every offset is 1. */
static MZ_INLINE size_t K(sequences_read)(mz_zread *w, const uint8_t *p, const uint8_t *end, size_t n, const int *log,
                                          size_t count, uint8_t *out, size_t room, size_t before, size_t *repeat, int ones) {
    K(stream) s;
    const uint8_t *literal = w->literals, *last = literal + count;
    uint8_t *o = out, *limit = out + room;
    size_t offset = ones ? 1 : *repeat;
    if (!K(open)(&s, p, end)) return 0;
    const mz_step *l = w->ll + K(take)(&s, (unsigned)log[0]);
    const mz_step *d = w->of + K(take)(&s, (unsigned)log[1]);
    const mz_step *m = w->ml + K(take)(&s, (unsigned)log[2]);
    for (size_t k = 0;; k++) {
        /* a sequence takes up to 18 bits where all offsets are 1, if it has no extra bits: two to a fill */
        if ((!ones || !(k & 1)) && !K(fill)(&s)) return 0;
        if (!ones && d->base != 1) {
            if (d->extra > 30) return 0;
            size_t v = d->base + K(take)(&s, d->extra);
            if (v <= 3) return 0; /* offsets used earlier: not here */
            offset = v - 3;
            if ((offset > 1 && offset < 64) || !K(fill)(&s)) return 0;
        } else if (!l->base) {
            return 0; /* without literals 1 would not stand for the offset before */
        }
        size_t run = m->base, plain = l->base;
        if (m->extra | l->extra) {
            run += K(take)(&s, m->extra);
            plain += K(take)(&s, l->extra);
            if (!K(fill)(&s)) return 0;
        }
        if (plain > (size_t)(last - literal)) return 0;
        if (offset > (size_t)(o - out) + plain + before) return 0;
        if (plain + run + 80 <= (size_t)(limit - o)) { /* in steps that may reach beyond */
            memcpy(o, literal, 16);
            for (size_t i = 16; i < plain; i += 16) memcpy(o + i, literal + i, 16);
            o += plain;
            literal += plain;
            if (offset == 1) {
                int v = o[-1];
                memset(o, v, 32);
                for (size_t i = 32; i < run; i += 32) memset(o + i, v, 32);
            } else {
                memcpy(o, o - offset, 32);
                for (size_t i = 32; i < run; i += 32) memcpy(o + i, o + i - offset, 32);
            }
        } else {
            if (plain + run > (size_t)(limit - o)) return 0;
            memcpy(o, literal, plain);
            o += plain;
            literal += plain;
            if (offset == 1) {
                memset(o, o[-1], run);
            } else {
                for (size_t i = 0, e; i < run; i += e) {
                    e = run - i < offset ? run - i : offset;
                    memcpy(o + i, o + i - offset, e);
                }
            }
        }
        o += run;
        if (k + 1 == n) break;
        l = w->ll + l->next + K(take)(&s, l->bits);
        m = w->ml + m->next + K(take)(&s, m->bits);
        if (!ones) d = w->of + d->next + K(take)(&s, d->bits);
    }
    if (K(left)(&s) != 0) return 0;
    size_t tail = (size_t)(last - literal);
    if (tail > (size_t)(limit - o)) return 0;
    memcpy(o, literal, tail);
    *repeat = offset;
    return (size_t)(o - out) + tail;
}
/* A compressed block; its decoded length, 0 if it is not for us. */
static size_t K(block_read)(mz_zread *w, const uint8_t *p, const uint8_t *end, uint8_t *out, size_t room, size_t before,
                            size_t *repeat) {
    size_t count, stored, n;
    int header, log[3];
    const uint8_t *q = K(literals_size)(p, end, &count, &stored, &header), *literals_end = q;
    if (room > MZ_ZBLOCK) room = MZ_ZBLOCK;
    if (!q || q >= end) return 0;
    n = *q++;
    if (n == 0) {
        if (q != end || count > room) return 0;
        return K(literals_read)(w, p, literals_end, header, count, out) ? count : 0;
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
    if (!K(read_table)(modes >> 6, &q, end, 36, 9, K(ll_expected), 6, K(ll_base), K(ll_bits), w->ll, &log[0]) ||
        !K(read_table)(modes >> 4 & 3, &q, end, modes >> 4 & 3 ? 32 : 29, 8, K(of_expected), 5, K(of_base), K(of_bits), w->of, &log[1]) ||
        !K(read_table)(modes >> 2 & 3, &q, end, 53, 9, K(ml_expected), 6, K(ml_base), K(ml_bits), w->ml, &log[2]) ||
        !K(literals_read)(w, p, literals_end, header, count, w->literals))
        return 0;
    return log[1] == 0 && w->of[0].base == 1 && *repeat == 1
               ? K(sequences_read)(w, q, end, n, log, count, out, room, before, repeat, 1)
               : K(sequences_read)(w, q, end, n, log, count, out, room, before, repeat, 0);
}

/* ---- the frame (3.1.1) ----------------------------------------------------------------------------------------------- */

static int K(zstd_read)(const uint8_t *p, size_t n, uint8_t *out, size_t length, int verify, mz_zread *w) {
    const uint8_t *end = p + n;
    size_t done = 0, repeat = 1;
    if (n < 9 || K(load4)(p) != 0xfd2fb528u) return 0;
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
            size_t got = K(block_read)(w, p, p + m, out + done, room, done, &repeat);
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
    return !sum || !verify || K(load4)(end) == (uint32_t)K(xxh64)(out, length, 0);
}
