/* Huffman codes, the decoder's half (RFC 8878, 4.2): the tree's description, then one or four streams. */

/* 4.2.1: the weights in a tree's description, of which the last is not said; *count is how many. Returns the
 * description's end, NULL if it is wrong. */
static const uint8_t *huffman_read_weights(const uint8_t *p, const uint8_t *end, uint8_t weight[256], int *count) {
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
        bit_reader s;
        if (!head || end - p < head) return NULL;
        const uint8_t *bits = fse_read_counts(p, p + head, 6, &symbols, &log, norm);
        p += head;
        if (!bits || !reader_open(&s, bits, p)) return NULL;
        fse_decoder(norm, symbols, log, value, none, table);
        state[0] = table[reader_take(&s, (unsigned)log)];
        state[1] = table[reader_take(&s, (unsigned)log)];
        if (reader_left(&s) < 0) return NULL;
        for (int k = 0;; k ^= 1) {
            unsigned more = state[k].bits;
            if (n >= 254) return NULL;
            weight[n++] = (uint8_t)state[k].base;
            if (reader_left(&s) < (int64_t)more) {
                weight[n++] = (uint8_t)state[k ^ 1].base;
                break;
            }
            if (!reader_fill(&s)) return NULL;
            state[k] = table[state[k].next + reader_take(&s, more)];
        }
    }
    *count = n;
    return p;
}
/* A tree's description, to w->one. Returns its end, NULL if wrong. */
static const uint8_t *huffman_read_tree(mz_zread *w, const uint8_t *p, const uint8_t *end) {
    uint8_t weight[256];
    int n;
    p = huffman_read_weights(p, end, weight, &n);
    if (!p) return NULL;
    /* The last weight is what is missing to a power of two. */
    uint32_t count[MZ_HUF_MAX + 2] = {0}, at[MZ_HUF_MAX + 2], total = 0;
    for (int s = 0; s < n; s++) {
        if (weight[s] > MZ_HUF_MAX) return NULL;
        count[weight[s]]++;
        total += weight[s] ? 1u << (weight[s] - 1) : 0;
    }
    if (!total) return NULL;
    int log = highbit(total) + 1;
    uint32_t rest = (1u << log) - total;
    if (log > MZ_HUF_MAX || (rest & (rest - 1))) return NULL;
    weight[n] = (uint8_t)(highbit(rest) + 1);
    count[weight[n++]]++;
    if (count[1] < 2 || count[1] & 1) return NULL;
    for (int k = 1, position = 0; k <= MZ_HUF_MAX; position += (int)(count[k] << (k - 1)), k++)
        at[k] = (uint32_t)position;
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
static void huffman_look_up_many(mz_zread *w) {
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
        for (uint32_t i = 0; i < 1 << MZ_HUF_MAX; i++) store8((uint8_t *)&w->many[i], w->many[i]);
    w->has_many = 1;
}
/* A stream that is being decoded: its bits, where its bytes go, and where they end. */
typedef struct {
    bit_reader in;
    uint8_t *out, *stop;
} huffman_source;

/* m bytes in n streams (1 or 4) [p, end), which are to go to out. Returns whether that can be. */
static int huffman_open(huffman_source s[4], const uint8_t *p, const uint8_t *end, int n, uint8_t *out, size_t m) {
    size_t quarter = (m + 3) / 4;
    if (n == 1) {
        s[0].out = out;
        s[0].stop = out + m;
        return reader_open(&s[0].in, p, end);
    }
    if (end - p < 10 || m < 6 || 3 * quarter > m) return 0;
    const uint8_t *at = p + 6;
    for (int k = 0; k < 4; k++) {
        size_t length = k < 3 ? p[2 * k] | (size_t)p[2 * k + 1] << 8 : (size_t)(end - at);
        if (length > (size_t)(end - at) || !reader_open(&s[k].in, at, at + length)) return 0;
        at += length;
        s[k].out = out + k * quarter;
        s[k].stop = k < 3 ? s[k].out + quarter : out + m;
    }
    return 1;
}
/* The next codes of b to o: up to 4 of them, or one. Fields of the table are read apart, which is quicker than one read
 * and shifts. */
#define MZ_MANY(b, o)                             \
    {                                             \
        const uint8_t *e = table + 8 * (b >> 53); \
        b <<= e[4] & 63;                          \
        store4(o, load4(e));                      \
        o += e[5];                                \
    }
#define MZ_ONE(b, o)                       \
    {                                      \
        const uint8_t *e = one[b >> down]; \
        b <<= e[0] & 63;                   \
        *o++ = e[1];                       \
    }
#define MZ_FILL(b, p)                     \
    {                                     \
        unsigned used = ctz(b);           \
        p -= used >> 3;                   \
        b = (load8(p) | 1) << (used & 7); \
    }
#define MZ_ALL(LOOK) LOOK(b0, o0) LOOK(b1, o1) LOOK(b2, o2) LOOK(b3, o3)
/* Five codes of up to 11 bits each, from each stream. */
#define MZ_FIVE(LOOK)                                                                                                 \
    {MZ_ALL(LOOK) MZ_ALL(LOOK) MZ_ALL(LOOK) MZ_ALL(LOOK) MZ_ALL(LOOK) MZ_FILL(b0, p0) MZ_FILL(b1, p1) MZ_FILL(b2, p2) \
         MZ_FILL(b3, p3)}
/* Four streams side by side, as far as is safe without a look at where each ends. */
static void huffman_decode_four(const mz_zread *w, huffman_source s[4], int many) {
    const uint8_t *table = (const uint8_t *)w->many;
    const uint8_t(*one)[2] = w->one;
    int down = 64 - w->log;
    for (;;) {
        /* at 7 bytes in and `room` out for each stream */
        ptrdiff_t room = many ? 20 : 5, rounds = PTRDIFF_MAX;
        for (int k = 0; k < 4; k++) {
            ptrdiff_t in = (s[k].in.p - s[k].in.start) / 7, fit = (s[k].stop - s[k].out) / room;
            rounds = in < rounds ? in : rounds;
            rounds = fit < rounds ? fit : rounds;
        }
        if (rounds <= 0) return;
        uint64_t b0 = s[0].in.b, b1 = s[1].in.b, b2 = s[2].in.b, b3 = s[3].in.b;
        const uint8_t *p0 = s[0].in.p, *p1 = s[1].in.p, *p2 = s[2].in.p, *p3 = s[3].in.p;
        uint8_t *o0 = s[0].out, *o1 = s[1].out, *o2 = s[2].out, *o3 = s[3].out;
        if (many)
            while (rounds--) MZ_FIVE(MZ_MANY)
        else
            while (rounds--) MZ_FIVE(MZ_ONE)
        s[0].in.b = b0, s[1].in.b = b1, s[2].in.b = b2, s[3].in.b = b3;
        s[0].in.p = p0, s[1].in.p = p1, s[2].in.p = p2, s[3].in.p = p3;
        s[0].out = o0, s[1].out = o1, s[2].out = o2, s[3].out = o3;
    }
}
/* What is left of a stream. Returns whether it ends where its bytes do. */
static int huffman_decode_rest(const mz_zread *w, huffman_source *s, int many) {
    const uint8_t *table = (const uint8_t *)w->many, *q = s->in.p;
    const uint8_t(*one)[2] = w->one;
    int down = 64 - w->log;
    uint64_t b = s->in.b;
    uint8_t *x = s->out;
    while (many && s->stop - x >= 20 && q >= s->in.start) {
        for (int i = 0; i < 5; i++) MZ_MANY(b, x)
        MZ_FILL(b, q)
    }
    while (s->stop - x >= 5 && q >= s->in.start) {
        for (int i = 0; i < 5; i++) MZ_ONE(b, x)
        MZ_FILL(b, q)
    }
    s->in.b = b;
    s->in.p = q;
    while (x < s->stop) {
        if (!reader_fill(&s->in)) return 0;
        for (int i = 0; i < 5 && x < s->stop; i++) MZ_ONE(s->in.b, x)
    }
    return reader_left(&s->in) == 0;
}
#undef MZ_MANY
#undef MZ_ONE
#undef MZ_FILL
#undef MZ_ALL
#undef MZ_FIVE
/* m bytes from n streams (1 or 4) to out; nothing is written beyond. Returns whether all was right. */
static int huffman_decode(mz_zread *w, const uint8_t *p, const uint8_t *end, int n, uint8_t *out, size_t m) {
    huffman_source s[4];
    if (!huffman_open(s, p, end, n, out, m)) return 0;
    /* Are two codes often whole in 11 bits? Then look up several at a time. */
    int many = m >= 4096 && w->length * 10 < 74 << w->log;
    if (many && !w->has_many) huffman_look_up_many(w);
    if (n == 4) huffman_decode_four(w, s, many);
    for (int k = 0; k < n; k++) /* the streams end at different times */
        if (!huffman_decode_rest(w, &s[k], many)) return 0;
    return 1;
}
