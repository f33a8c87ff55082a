/* Streams of bits in zstd frames (RFC 8878, 4.1): written from their beginning, read from their end. */

/* A stream of bits, little endian (4.1: decoders read it from its end). Up to 56 bits between flushes, of which each
 * writes 8 bytes. */
static inline void bits_add(mz_bits *b, uint64_t v, unsigned n) {
    b->acc |= v << b->bits;
    b->bits += n;
}
static inline void bits_flush(mz_bits *b) {
    store8(b->p, b->acc);
    b->p += b->bits >> 3;
    b->acc >>= b->bits & 56;
    b->bits &= 7;
}
/* The end of a stream is marked by a 1; returns the byte after it. */
static inline uint8_t *bits_close(mz_bits *b) {
    bits_add(b, 1, 1);
    bits_flush(b);
    return b->p + (b->bits > 0);
}

/* The next bits are the top ones of b. Its lowest set bit is a mark that was put in at bit 0 when 8 bytes were read, so
 * that the zeros below it count the bits taken since: at least 55 can be, after a fill. */
typedef struct {
    uint64_t b;
    const uint8_t *p, *start; /* the 8 bytes in b are at p, the stream begins at start */
} bit_reader;

static inline int reader_open(bit_reader *s, const uint8_t *start, const uint8_t *end) {
    if (end <= start || !end[-1]) return 0;
    s->start = start;
    s->p = end - 8;
    s->b = (load8(s->p) | 1) << (8 - highbit(end[-1])); /* the end's own mark */
    return 1;
}
static inline int reader_fill(bit_reader *s) {
    unsigned used = ctz(s->b);
    s->p -= used >> 3;
    if (s->p + 8 < s->start) return 0;
    s->b = (load8(s->p) | 1) << (used & 7);
    return 1;
}
static inline uint32_t reader_take(bit_reader *s, unsigned n) {
    uint64_t v = s->b >> 1 >> (63 - n);
    s->b <<= n;
    return (uint32_t)v;
}
/* Bits that are left; below 0 if more were taken than there are. */
static inline int64_t reader_left(const bit_reader *s) { return 8 * (s->p - s->start) + 64 - (int64_t)ctz(s->b); }
