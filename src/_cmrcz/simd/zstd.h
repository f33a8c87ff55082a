/* Plain zstd frames (RFC 8878) of bytes whose structure is known: literals and runs of zeros, without any search. */
#ifndef MZ_ZSTD_FRAME_H
#define MZ_ZSTD_FRAME_H
#include <stddef.h>
#include <stdint.h>

enum {
    MZ_ZBLOCK = 131072, /* the largest block of a zstd frame */
    /* The shortest run of zeros worth a match, two more where a zero must come before it: found by trial over the
     * doses. Also the shortest match that zstd has. */
    MZ_MIN_RUN = 3,
    /* A plane with at least this many zero bytes (per cent) is coded as runs, any other as literals only. */
    MZ_SPARSE = 70
};

/* A Huffman code. By byte: the low 8 bits of its code; the high 3 and, above them, the code's length, 0 for none. */
enum { MZ_HUF_MAX = 11 };
typedef struct {
    uint8_t low[256], high[256];
    uint16_t count_of[MZ_HUF_MAX + 1]; /* codes of each length */
    int longest, last;                 /* the longest code's length, the last byte that has a code */
} mz_huffman;

/* Memory of one encoder, about half a MB; what is in it does not matter between calls. */
typedef struct {
    /* a bit a byte; one word more, so that a run can be looked at beyond its word */
    uint64_t nonzero[MZ_ZBLOCK / 64 + 1];
    uint64_t matched[MZ_ZBLOCK / 64];
    uint32_t starts[MZ_ZBLOCK / 4 + 64]; /* of matches, and where they end */
    uint32_t ends[MZ_ZBLOCK / 4 + 64];
    uint8_t ll_codes[MZ_ZBLOCK / 4 + 64];
    uint8_t ml_codes[MZ_ZBLOCK / 4 + 64];
    uint8_t literals[MZ_ZBLOCK + 64];
    mz_huffman tree; /* of the literals before, if has_tree */
    int has_tree;
    uint8_t spare[3 * MZ_ZBLOCK + 4096]; /* a block is made here where it might not fit what is left of the output */
    uint8_t copy[MZ_ZBLOCK];             /* of a block, if plan.stable is 0 */
} mz_zwork;

/* A state of a decoder of finite state entropy: what its value begins at and how many bits are added to that; the same
 * for the state after it. */
typedef struct {
    uint32_t base;
    uint16_t next;
    uint8_t bits, extra; /* of the state, of the value */
} mz_step;

/* Memory of one decoder, likewise. */
typedef struct {
    /* Codes looked up several at a time, by 11 bits, if has_many: up to 4 bytes; then, a byte each, how many bits were
     * taken and how many bytes are valid. */
    uint64_t many[1 << MZ_HUF_MAX];
    uint8_t one[1 << MZ_HUF_MAX][2];   /* one at a time, by `log` bits: the code's length, and its byte */
    mz_step ll[512], ml[512], of[256]; /* of literals' lengths, matches' lengths and offsets */
    uint8_t literals[MZ_ZBLOCK + 64];
    int log, length; /* the longest code's length; the mean over the table, << log */
    int has_tree, has_many;
} mz_zread;

typedef struct {
    uint64_t acc, bits;
    uint8_t *p;
} mz_bits; /* a stream of bits being written */

/* How a frame is to be encoded. */
typedef struct {
    size_t plane; /* bytes that belong together: each plane is a zstd block of its own, or several if above 128 KiB */
    int sample;   /* codes may be made by counting a quarter of the bytes, which costs a thousandth of the size */
    /* 8 for bit planes of items longer than a byte: there the top plane of the byte before is often empty, and a match
     * into it needs no zero of its own before it. Else 0. */
    int planes_per_byte;
    int checksum;
    int min_gain; /* literals are compressed only if that saves at least 1/min_gain of them */
    /* Nobody writes to the bytes meanwhile. If 0, other threads may (they are an array of the user's): each is then
     * read once, and what was read becomes a frame that is right; all are one plane. Codes made of one look at bytes
     * and used on another would not even stay within the output. */
    int stable;
    /* What will be read after this, or NULL, and how many bytes of it for each byte here: it may be fetched into the
     * caches while the checksum waits for its sums. */
    const uint8_t *ahead;
    size_t ahead_step;
} mz_zplan;

#endif
