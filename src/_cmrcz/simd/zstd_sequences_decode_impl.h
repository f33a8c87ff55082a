/* A block's sequences, the decoder's half (RFC 8878, 3.1.1.3.2). */

/* One of the three tables, of 1 << *log entries. *p moves beyond its description. */
static int read_code_table(int mode, const uint8_t **p, const uint8_t *end, int symbols, int most_log,
                           const int16_t *expected, int usual, const uint32_t *base, const uint8_t *extra,
                           mz_step *table, int *log) {
    int16_t norm[64];
    if (mode == 0) {
        *log = usual;
        fse_decoder(expected, symbols, usual, base, extra, table);
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
    *p = fse_read_counts(*p, end, most_log, &symbols, log, norm);
    if (!*p) return 0;
    fse_decoder(norm, symbols, *log, base, extra, table);
    return 1;
}
/* decode_sequences is made twice, of which the one for runs of zeros in bit planes is the simpler. */
#if defined(__GNUC__) || defined(__clang__)
#define MZ_INLINE inline __attribute__((always_inline))
#else
#define MZ_INLINE inline
#endif
/* `plain` literals and then the `run` bytes of a match, at o. Both have been checked to fit before limit, and the
 * match's offset to reach back to bytes that are there. Returns where they end. */
static MZ_INLINE uint8_t *copy_sequence(uint8_t *o, const uint8_t *limit, const uint8_t *literal, size_t plain,
                                        size_t run, size_t offset) {
    if (plain + run + 80 <= (size_t)(limit - o)) { /* in steps that may reach beyond */
        memcpy(o, literal, 16);
        for (size_t i = 16; i < plain; i += 16) memcpy(o + i, literal + i, 16);
        o += plain;
        if (offset == 1) {
            int v = o[-1];
            memset(o, v, 32);
            for (size_t i = 32; i < run; i += 32) memset(o + i, v, 32);
        } else {
            memcpy(o, o - offset, 32);
            for (size_t i = 32; i < run; i += 32) memcpy(o + i, o + i - offset, 32);
        }
        return o + run;
    }
    memcpy(o, literal, plain);
    o += plain;
    if (offset == 1) {
        memset(o, o[-1], run);
    } else {
        for (size_t i = 0, e; i < run; i += e) {
            e = run - i < offset ? run - i : offset;
            memcpy(o + i, o + i - offset, e);
        }
    }
    return o + run;
}
/* The sequences from the stream [p, end): n of them, over `count` literals in w->literals. Returns the block's length;
 * 0 if anything is wrong, or an offset is neither the one before, nor 1, nor at least 64. room: of out; before: bytes
 * of the frame in front of it. ones: every offset is 1. */
static MZ_INLINE size_t decode_sequences(mz_zread *w, const uint8_t *p, const uint8_t *end, size_t n, const int *log,
                                         size_t count, uint8_t *out, size_t room, size_t before, size_t *repeat,
                                         int ones) {
    bit_reader s;
    const uint8_t *literal = w->literals, *last = literal + count;
    uint8_t *o = out, *limit = out + room;
    size_t offset = ones ? 1 : *repeat;
    if (!reader_open(&s, p, end)) return 0;
    const mz_step *l = w->ll + reader_take(&s, (unsigned)log[0]);
    const mz_step *d = w->of + reader_take(&s, (unsigned)log[1]);
    const mz_step *m = w->ml + reader_take(&s, (unsigned)log[2]);
    for (size_t k = 0;; k++) {
        /* a sequence takes up to 18 bits where all offsets are 1, if it has no extra bits: two to a fill */
        if ((!ones || !(k & 1)) && !reader_fill(&s)) return 0;
        if (!ones && d->base != 1) {
            if (d->extra > 30) return 0;
            size_t v = d->base + reader_take(&s, d->extra);
            if (v <= 3) return 0; /* offsets used earlier: not here */
            offset = v - 3;
            if ((offset > 1 && offset < 64) || !reader_fill(&s)) return 0;
        } else if (!l->base) {
            return 0; /* without literals 1 would not stand for the offset before */
        }
        size_t run = m->base, plain = l->base;
        if (m->extra | l->extra) {
            run += reader_take(&s, m->extra);
            plain += reader_take(&s, l->extra);
            if (!reader_fill(&s)) return 0;
        }
        if (plain > (size_t)(last - literal)) return 0;
        if (offset > (size_t)(o - out) + plain + before) return 0;
        if (plain + run > (size_t)(limit - o)) return 0;
        o = copy_sequence(o, limit, literal, plain, run, offset);
        literal += plain;
        if (k + 1 == n) break;
        l = w->ll + l->next + reader_take(&s, l->bits);
        m = w->ml + m->next + reader_take(&s, m->bits);
        if (!ones) d = w->of + d->next + reader_take(&s, d->bits);
    }
    if (reader_left(&s) != 0) return 0;
    size_t tail = (size_t)(last - literal);
    if (tail > (size_t)(limit - o)) return 0;
    memcpy(o, literal, tail);
    *repeat = offset;
    return (size_t)(o - out) + tail;
}
