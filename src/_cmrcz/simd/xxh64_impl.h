/* XXH64, the checksum of zstd frames (RFC 8878, 3.1.1) and of what this package stores. */

#define MZ_P1 11400714785074694791ULL
#define MZ_P2 14029467366897019727ULL
#define MZ_P3 1609587929392839161ULL
#define MZ_P4 9650029242287828579ULL
#define MZ_P5 2870177450012600261ULL
#define MZ_ROTATE(x, r) ((x) << (r) | (x) >> (64 - (r)))

static inline uint64_t xxh_round(uint64_t acc, uint64_t v) {
    acc += v * MZ_P2;
    return MZ_ROTATE(acc, 31) * MZ_P1;
}
static void xxh_start(uint64_t v[4], uint64_t seed) {
    v[0] = seed + MZ_P1 + MZ_P2, v[1] = seed + MZ_P2, v[2] = seed, v[3] = seed - MZ_P1;
}
/* As many whole stripes of 32 bytes as there are; how many bytes that was. */
static size_t xxh_stripes(const uint8_t *p, size_t n, uint64_t v[4]) {
    size_t i = SIMD(xxh_stripes, (p, n, v));
    for (; i + 32 <= n; i += 32)
        for (int k = 0; k < 4; k++) v[k] = xxh_round(v[k], load8(p + i + 8 * k));
    return i;
}
/* The hash of `total` bytes: v holds those in front of the n at p, whole stripes. */
static uint64_t xxh_end(const uint8_t *p, size_t n, uint64_t total, uint64_t seed, uint64_t v[4]) {
    uint64_t h;
    size_t i = 0;
    if (total >= 32) {
        i = xxh_stripes(p, n, v);
        h = MZ_ROTATE(v[0], 1) + MZ_ROTATE(v[1], 7) + MZ_ROTATE(v[2], 12) + MZ_ROTATE(v[3], 18);
        for (int k = 0; k < 4; k++) h = (h ^ xxh_round(0, v[k])) * MZ_P1 + MZ_P4;
    } else {
        h = seed + MZ_P5;
    }
    h += total;
    for (; i + 8 <= n; i += 8) {
        h ^= xxh_round(0, load8(p + i));
        h = MZ_ROTATE(h, 27) * MZ_P1 + MZ_P4;
    }
    if (i + 4 <= n) {
        h ^= load4(p + i) * MZ_P1;
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
static uint64_t xxh64(const uint8_t *p, size_t n, uint64_t seed) {
    uint64_t v[4];
    xxh_start(v, seed);
    return xxh_end(p, n, n, seed, v);
}
/* How many of the n bytes at p are 0; whole stripes of them go into v, *hashed counts their bytes. A hash waits for its
 * sums most of the time: meanwhile the zeros are counted, `step` bytes for each of these are fetched from ahead, and
 * all are copied, if copy is not NULL: then it is the copy that is counted and hashed. */
static size_t count_and_hash(const uint8_t *p, size_t n, uint64_t v[4], size_t *hashed, const uint8_t *ahead,
                             size_t step, uint8_t *copy) {
    (void)ahead, (void)step; /* plain C has no use for them */
    size_t zeros = 0, i = SIMD(count_and_hash, (p, n, v, &zeros, ahead, step, copy));
    if (copy) {
        memcpy(copy + i, p + i, n - i);
        p = copy;
    }
    *hashed += i + xxh_stripes(p + i, n - i, v);
    return zeros + count_zero(p + i, n - i);
}
