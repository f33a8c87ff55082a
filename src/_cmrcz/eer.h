/* Electron events of a Falcon camera: runs of empty pixels, each followed by an electron, in a stream of bits.
 *
 * "EER File Format" 3.0, Thermo Fisher Scientific. A code is `skip` bits of run and `across + down` bits that say where
 * in its pixel the electron lies, lowest bits first, the first code in the lowest bits of the first byte. A run of all
 * ones is that many empty pixels and no electron; what follows it goes on counting. The frame ends where its runs have
 * gone through its last pixel: after the electron that lies there, or with a run that has no electron behind it. */
#ifndef MZ_EER_H
#define MZ_EER_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The widths of a code's parts; skip <= 16, across + down <= 8. wasteful: a run of all ones is followed by place bits
 * that mean nothing, as RELION reads compression 65000; otherwise by the next run, as the vendor reads it. */
typedef struct {
    int skip, across, down, wasteful;
} mz_eer_code;

/* Where the reading of a frame has come to. */
typedef struct {
    const uint8_t *bytes;
    uint64_t bits;   /* of the frame */
    uint64_t bit;    /* the next one */
    uint64_t pixel;  /* the next one */
    uint64_t pixels; /* of the frame */
    uint64_t full;   /* runs of all ones so far */
    int closed;      /* the last run has no electron behind it */
} mz_eer;

enum { MZ_EER_OK, MZ_EER_SHORT, MZ_EER_PAST, MZ_EER_REST };
/* Bits of an event that say where in its pixel it lies; above them is the number of the pixel. */
enum { MZ_EER_PLACE = 8 };
/* Bits of a window that are there wherever it begins; those of the words in which the camera writes. */
enum { MZ_EER_WINDOW = 57, MZ_EER_WORD = 64 };

/* The bits from bit on, MZ_EER_WINDOW of them and more; 8 bytes are there from its own on. */
static inline uint64_t mz_eer_window(const uint8_t *bytes, uint64_t bit) {
    const uint8_t *p = bytes + (bit >> 3);
    uint64_t w;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    w = 0;
    for (int i = 0; i < 8; i++) w |= (uint64_t)p[i] << 8 * i;
#else
    memcpy(&w, p, 8);
#endif
    return w >> (bit & 7);
}
/* n bits from bit on, n <= 24, all within the frame. */
static inline uint32_t mz_eer_bits(const mz_eer *s, uint64_t bit, int n) {
    uint64_t w = 0, last = (bit + (uint64_t)n + 7) >> 3;
    int k = 0;
    for (uint64_t i = bit >> 3; i < last; i++, k += 8) w |= (uint64_t)s->bytes[i] << k;
    return (uint32_t)(w >> (bit & 7)) & (((uint32_t)1 << n) - 1);
}

/* Pixels that a reading up to one may go beyond it. */
static inline uint64_t mz_eer_slack(const mz_eer_code *c) {
    return (uint64_t)(MZ_EER_WINDOW / (c->skip + c->across + c->down) + 1) << c->skip;
}

/* Codes by the window full, while none can reach the end of the frame or of its bits. How far the next code is depends
 * on whether this one has an electron, which nobody can guess where a run of all ones is common: both are made and one
 * is taken, so that there is no branch to be wrong. */
static inline size_t mz_eer_many(mz_eer *s, int skip, int place, int wasteful, uint64_t until, uint64_t *events,
                                 size_t room) {
    const int codes = MZ_EER_WINDOW / (skip + place);
    const uint64_t all = ((uint64_t)1 << skip) - 1, places = ((uint64_t)1 << place) - 1;
    const uint64_t most = (uint64_t)codes << skip;
    uint64_t lowest = 0; /* the lowest bit of each code of a window */
    for (int k = 0; k < codes; k++) lowest |= (uint64_t)1 << k * (skip + place);
    uint64_t bit = s->bit, pixel = s->pixel, full = s->full;
    size_t n = 0;
    if (s->bits < 64 || s->pixels <= most) return 0;
    if (until > s->pixels - most) until = s->pixels - most;
    while (pixel < until && bit <= s->bits - 64 && room - n >= (size_t)codes) {
        uint64_t w = mz_eer_window(s->bytes, bit);
        const size_t before = n;
        if (place && !(((w & lowest * all) + lowest) & lowest << skip)) {
            /* no run is all ones, or it would carry: each code is where it seems to be */
            for (int k = 0; k < codes; k++) {
                pixel += w & all;
                events[n++] = pixel++ << MZ_EER_PLACE | (w >> skip & places);
                w >>= skip + place;
            }
            bit += (uint64_t)codes * (uint64_t)(skip + place);
            continue;
        }
        for (int k = 0; k < codes; k++) {
            const uint64_t run = w & all, hit = run != all, take = (uint64_t)0 - hit;
            pixel += run;
            events[n] = pixel << MZ_EER_PLACE | (w >> skip & places);
            pixel += hit;
            n += hit;
            w = wasteful ? w >> (skip + place) : ((w >> (skip + place)) & take) | ((w >> skip) & ~take);
        }
        full += (uint64_t)codes - (n - before);
        bit += (uint64_t)codes * (uint64_t)skip + (wasteful ? (uint64_t)codes : n - before) * (uint64_t)place;
    }
    s->bit = bit;
    s->pixel = pixel;
    s->full = full;
    return n;
}

/* Events of a frame, to where its pixel `until` is reached, which may be passed by mz_eer_slack, or there is no room for
 * more; room is at least 64. */
static inline int mz_eer_read(mz_eer *s, const mz_eer_code *c, uint64_t until, uint64_t *events, size_t room,
                              size_t *count) {
    const int place = c->across + c->down;
    const uint32_t all = ((uint32_t)1 << c->skip) - 1;
    size_t n;
    /* written out for what cameras write */
    if (c->wasteful)
        n = mz_eer_many(s, c->skip, place, 1, until, events, room);
    else if (c->skip == 7 && place == 4)
        n = mz_eer_many(s, 7, 4, 0, until, events, room);
    else if (c->skip == 7 && place == 2)
        n = mz_eer_many(s, 7, 2, 0, until, events, room);
    else if (c->skip == 8 && place == 4)
        n = mz_eer_many(s, 8, 4, 0, until, events, room);
    else
        n = mz_eer_many(s, c->skip, place, 0, until, events, room);
    *count = n;
    if (n) return MZ_EER_OK;
    /* the last codes, one by one */
    while (n < room && s->pixel < until) {
        const uint64_t left = s->bits - s->bit;
        uint32_t run;
        if (left < (uint64_t)c->skip) return MZ_EER_SHORT;
        run = mz_eer_bits(s, s->bit, c->skip);
        if (run > s->pixels - s->pixel) {
            s->pixel += run;
            return MZ_EER_PAST;
        }
        s->pixel += run;
        s->bit += (uint64_t)c->skip;
        if (s->pixel == s->pixels) {
            s->closed = 1;
            break;
        }
        if (run == all) {
            s->full++;
            if (c->wasteful) s->bit += left - (uint64_t)c->skip < (uint64_t)place ? left - (uint64_t)c->skip : (uint64_t)place;
            continue;
        }
        if (left < (uint64_t)(c->skip + place)) return MZ_EER_SHORT;
        events[n++] = s->pixel << MZ_EER_PLACE | (place ? mz_eer_bits(s, s->bit, place) : 0);
        s->bit += (uint64_t)place;
        s->pixel++;
    }
    *count = n;
    return MZ_EER_OK;
}

/* After the last pixel: nothing but what fills the camera's last word, or the same bit again and again. An electron in
 * the last pixel may have an empty run behind it. */
static inline int mz_eer_end(mz_eer *s, const mz_eer_code *c) {
    uint64_t i;
    uint8_t fill;
    if (!s->closed && s->bits - s->bit >= (uint64_t)c->skip && !mz_eer_bits(s, s->bit, c->skip))
        s->bit += (uint64_t)c->skip;
    if (s->bits - s->bit < MZ_EER_WORD) return MZ_EER_OK;
    fill = s->bytes[s->bits / 8 - 1];
    if ((fill != 0 && fill != 0xff) || (uint8_t)(s->bytes[s->bit >> 3] ^ fill) >> (s->bit & 7)) return MZ_EER_REST;
    for (i = (s->bit >> 3) + 1; i < s->bits / 8; i++)
        if (s->bytes[i] != fill) return MZ_EER_REST;
    return MZ_EER_OK;
}
#endif
