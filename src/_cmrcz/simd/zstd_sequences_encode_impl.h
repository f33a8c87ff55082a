/* A block's sequences, the encoder's half (RFC 8878, 3.1.1.3.2): every match is a run of zeros, found with masks of a
 * bit a byte; nothing here searches. */

/* The matches of a block from its mask of bytes that are not zero: starts and ends; returns how many. lead: a match
 * begins one zero late, which the distance of 1 then repeats. */
static size_t find_runs(mz_zwork *w, size_t n, int lead) {
    size_t words = (n + 63) / 64, k = 0, ended = 0;
    uint64_t before = 0, runs_before = 0, match_before = 0; /* of the word before: starts of runs, runs, matches */
    w->nonzero[words] = ~(uint64_t)0;                       /* what is beyond ends a run */
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
        for (; rise; rise &= rise - 1) w->starts[k++] = at + ctz(rise);
        for (; fall; fall &= fall - 1) w->ends[ended++] = at + ctz(fall);
    }
    return k;
}
/* The bytes that no match covers. */
static size_t gather_literals(mz_zwork *w, const uint8_t *x, size_t n, size_t matches) {
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

/* Bits that codes take by a table, in 256ths and roughly: between powers of two the logarithm is taken as a line. */
static uint64_t fse_cost(const uint32_t *count, const int16_t *norm, int symbols, int log) {
    uint64_t cost = 0;
    for (int s = 0; s < symbols; s++) {
        if (!count[s]) continue;
        if (!norm[s]) return UINT64_MAX;
        uint32_t v = norm[s] < 0 ? 1 : (uint32_t)norm[s];
        int h = highbit(v);
        cost += (uint64_t)count[s] * (((uint32_t)(log - h) << 8) - ((v - (1u << h)) << 8 >> h));
    }
    return cost;
}
/* A code's table: its description goes to *out. Returns the compression mode. expected: of 1 << usual states */
static int write_code_table(const uint32_t *count, int symbols, uint32_t total, int most, const int16_t *expected,
                            int usual, fse_table *t, uint8_t **out) {
    int16_t norm[64];
    int different = 0, only = 0, log;
    for (int s = 0; s < symbols; s++)
        if (count[s]) different++, only = s;
    if (different == 1) {
        *(*out)++ = (uint8_t)only;
        return 1;
    }
    log = highbit(total) - 2;
    log = log > most ? most : log < 5 ? 5 : log;
    if (different > 16 && log < 6) log = 6;
    fse_normalize(count, symbols, total, log, norm);
    uint8_t *end = fse_describe(norm, symbols, log, *out);
    if (total < 512) {
        uint64_t own = fse_cost(count, norm, symbols, log) + ((uint64_t)(end - *out) << 11);
        if (fse_cost(count, expected, symbols, usual) < own) {
            fse_encoder(t, expected, symbols, usual);
            return 0;
        }
    }
    fse_encoder(t, norm, symbols, log);
    *out = end;
    return 2;
}
/* 3.1.1.3.2.1.1: how many sequences there are */
static uint8_t *write_sequence_count(size_t n, uint8_t *out) {
    if (n < 128) {
        *out++ = (uint8_t)n;
    } else if (n < 0x7f00) {
        *out++ = (uint8_t)((n >> 8) + 128);
        *out++ = (uint8_t)n;
    } else {
        *out++ = 255;
        put_bytes(out, n - 0x7f00, 2);
        out += 2;
    }
    return out;
}
/* The tables of the codes, and for each how it is coded: with 1 there is but one code, which takes no bits. */
typedef struct {
    fse_table ll, of, ml;
    int ll_mode, of_mode, ml_mode;
} sequence_tables;

/* The stream of sequences, from the last to the first. first: the offset of the first match, of the code first_code;
 * that of all others is 0. */
static uint8_t *write_sequences(const mz_zwork *w, size_t n, const sequence_tables *t, uint32_t first, int first_code,
                                uint8_t *out) {
    mz_bits s = {0, 0, out};
    uint32_t sl = 0, so = 0, sm = 0;
    int a = t->ll_mode, b = t->of_mode, c = t->ml_mode;
    for (size_t k = n; k-- > 0;) {
        int lc = w->ll_codes[k], mc = w->ml_codes[k], oc = k ? 0 : first_code;
        uint32_t from = k ? w->ends[k - 1] : 0, l = w->starts[k] - from, m = w->ends[k] - w->starts[k] - 3;
        if (k + 1 < n) {
            if (b != 1) so = fse_step(&t->of, &s, so, oc);
            if (c != 1) sm = fse_step(&t->ml, &s, sm, mc);
            if (a != 1) sl = fse_step(&t->ll, &s, sl, lc);
        } else {
            if (c != 1) sm = fse_start(&t->ml, mc);
            if (b != 1) so = fse_start(&t->of, oc);
            if (a != 1) sl = fse_start(&t->ll, lc);
        }
        /* at most 20 bits left from before, 26 of states and 16 here */
        bits_add(&s, l & ((1u << ll_bits[lc]) - 1), ll_bits[lc]);
        if (s.bits > 47) bits_flush(&s);
        bits_add(&s, m & ((1u << ml_bits[mc]) - 1), ml_bits[mc]);
        if (oc) {
            bits_flush(&s);
            bits_add(&s, first & ((1u << oc) - 1), (unsigned)oc);
        }
        if (s.bits > 20) bits_flush(&s);
    }
    bits_flush(&s);
    if (c != 1) bits_add(&s, sm & ((1u << t->ml.log) - 1), (unsigned)t->ml.log);
    if (b != 1) bits_add(&s, so & ((1u << t->of.log) - 1), (unsigned)t->of.log);
    if (a != 1) bits_add(&s, sl & ((1u << t->ll.log) - 1), (unsigned)t->ll.log);
    return bits_close(&s);
}
/* The sequences section. Every match is at `distance`; *repeat is the offset that zstd remembers. */
static uint8_t *encode_sequences(mz_zwork *w, size_t n, uint32_t distance, uint32_t *repeat, uint8_t *out) {
    uint32_t lls[36] = {0}, mls[53] = {0}, ofs[32] = {0};
    sequence_tables t;
    uint32_t end = 0;
    out = write_sequence_count(n, out);
    if (!n) return out;
    for (size_t k = 0; k < n; k++) {
        uint32_t l = w->starts[k] - end, m = w->ends[k] - w->starts[k] - 3;
        end = w->ends[k];
        lls[w->ll_codes[k] = l < 64 ? ll_code[l] : (uint8_t)(highbit(l) + 19)]++;
        mls[w->ml_codes[k] = m < 128 ? ml_code[m] : (uint8_t)(highbit(m) + 36)]++;
    }
    /* 3.1.1.5: 1 stands for the offset used last, unless no literal comes before; the first match says its offset if it
     * must, after that all repeat it: a literal lies between any two. */
    uint32_t first = distance == *repeat && w->starts[0] > 0 ? 1 : distance + 3;
    int first_code = highbit(first);
    *repeat = distance;
    ofs[0] = (uint32_t)n - 1;
    ofs[first_code]++;
    uint8_t *modes = out++;
    t.ll_mode = write_code_table(lls, 36, (uint32_t)n, 9, ll_expected, 6, &t.ll, &out);
    t.of_mode = write_code_table(ofs, 32, (uint32_t)n, 8, of_expected, 5, &t.of, &out);
    t.ml_mode = write_code_table(mls, 53, (uint32_t)n, 9, ml_expected, 6, &t.ml, &out);
    *modes = (uint8_t)(t.ll_mode << 6 | t.of_mode << 4 | t.ml_mode << 2);
    return write_sequences(w, n, &t, first, first_code, out);
}
