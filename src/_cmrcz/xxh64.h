/* XXH64 (the hash of the zstd frame format, RFC 8878 and the xxHash specification) for builds against system libraries,
 * whose zstd keeps its own copy private. */
#ifndef MZ_XXH64_H
#define MZ_XXH64_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MZ_P1 11400714785074694791ULL
#define MZ_P2 14029467366897019727ULL
#define MZ_P3 1609587929392839161ULL
#define MZ_P4 9650029242287828579ULL
#define MZ_P5 2870177450012600261ULL
static inline uint64_t mz_rotl(uint64_t x, int r) { return (x << r) | (x >> (64 - r)); }
static inline uint64_t mz_read64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline uint64_t mz_xxround(uint64_t acc, uint64_t v) { return mz_rotl(acc + v * MZ_P2, 31) * MZ_P1; }
static inline uint64_t mz_xxmerge(uint64_t h, uint64_t v) { return (h ^ mz_xxround(0, v)) * MZ_P1 + MZ_P4; }
static inline uint64_t mz_xxh64(const void *data, size_t n, uint64_t seed) {
    const uint8_t *p = data, *end = p + n;
    uint64_t h;
    if (n >= 32) {
        uint64_t v1 = seed + MZ_P1 + MZ_P2, v2 = seed + MZ_P2, v3 = seed, v4 = seed - MZ_P1;
        for (; end - p >= 32; p += 32) {
            v1 = mz_xxround(v1, mz_read64(p));
            v2 = mz_xxround(v2, mz_read64(p + 8));
            v3 = mz_xxround(v3, mz_read64(p + 16));
            v4 = mz_xxround(v4, mz_read64(p + 24));
        }
        h = mz_rotl(v1, 1) + mz_rotl(v2, 7) + mz_rotl(v3, 12) + mz_rotl(v4, 18);
        h = mz_xxmerge(mz_xxmerge(mz_xxmerge(mz_xxmerge(h, v1), v2), v3), v4);
    } else h = seed + MZ_P5;
    h += n;
    for (; end - p >= 8; p += 8) h = mz_rotl(h ^ mz_xxround(0, mz_read64(p)), 27) * MZ_P1 + MZ_P4;
    if (end - p >= 4) {
        uint32_t v;
        memcpy(&v, p, 4);
        h = mz_rotl(h ^ v * MZ_P1, 23) * MZ_P2 + MZ_P3;
        p += 4;
    }
    for (; p < end; p++) h = mz_rotl(h ^ *p * MZ_P5, 11) * MZ_P1;
    h = (h ^ (h >> 33)) * MZ_P2;
    h = (h ^ (h >> 29)) * MZ_P3;
    return h ^ (h >> 32);
}
#endif
