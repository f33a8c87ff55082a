/* Compares every kernel of a variant with the plain C kernel: the same bytes, on random sizes, addresses and data.
 *
 *     compare VARIANT [SECONDS] [SEED]
 *
 * Linked with simd/dispatch.c and the variants it is to know; test_neon.py builds it for another processor and runs it
 * under an emulator, so it asks for nothing but the C library. Exit code 0: all the same; 1: the first difference is
 * printed; 2: there is no such variant. */
#include "kernels.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 300000, ROOM = 8 * MOST + 4096, GUARD = 64, KINDS = 7 };

static uint64_t state;
static uint64_t random64(void) { /* xorshift64* */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 2685821657736338717ULL;
}
static size_t below(size_t n) { return (size_t)(random64() >> 16) % n; }

/* Small ones, those about the lengths of vectors and of blocks, and any. */
static size_t random_size(size_t most) {
    static const size_t edges[] = {0, 8, 16, 32, 64, 128, 254 * 16, 4096, 8128, 16384, 32768, 131072};
    size_t n;
    switch (below(4)) {
    case 0: n = below(300); break;
    case 1:
        n = edges[below(sizeof edges / sizeof *edges)] + below(5);
        n -= n >= 2 ? 2 : 0;
        break;
    case 2: n = below(20000); break;
    default: n = below(most);
    }
    return n < most ? n : most;
}
/* Bytes as pixels have them: noise, counts of a few doses, mostly zero, one value, floats with NaN and infinities,
 * halves. */
static void fill(uint8_t *p, size_t n, int kind) {
    uint32_t rare = (uint32_t)below(50) + 1;
    for (size_t i = 0; i < n; i++) {
        uint64_t r = random64() >> 20;
        switch (kind) {
        case 0: p[i] = (uint8_t)r; break;
        case 1: p[i] = (uint8_t)((r & 1) + (r >> 1 & 1) + (r >> 2 & 1)); break;
        case 2: p[i] = r % 100 < rare ? (uint8_t)(1 + (r >> 8) % 3) : 0; break;
        case 3: p[i] = i ? p[0] : (uint8_t)r; break;
        case 4: p[i] = (uint8_t)((r & 15) + (r >> 4 & 15) + (r >> 8 & 15)); break;
        case 5: p[i] = r % 40 ? (uint8_t)((r >> 8 & 3) | (r >> 10 & 3) << 4) : (uint8_t)(r >> 12); break;
        default: p[i] = (uint8_t)(r & 15);
        }
    }
}
/* Floats of moderate size, some of them special; or zeros of both signs, which compare as the same, among NaN. */
static void fill_floats(uint8_t *p, size_t n, int pt) {
    int zeros = below(4) == 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t r = random64();
        double v = ((double)(int64_t)r) * 0x1p-58;
        if (zeros)
            v = r & 1024 ? NAN : r & 2048 ? -0.0 : 0.0;
        else if (r % 61 == 0)
            v = r & 1024 ? NAN : r & 2048 ? INFINITY : r & 4096 ? -INFINITY : r & 8192 ? -0.0 : 0.0;
        if (pt == MZ_F32) {
            float f = (float)v;
            memcpy(p + 4 * i, &f, 4);
        } else if (pt == MZ_F64) {
            memcpy(p + 8 * i, &v, 8);
        } else { /* any half there is */
            uint16_t h = (uint16_t)(r >> 17);
            memcpy(p + 2 * i, &h, 2);
        }
    }
}

static uint8_t *source, *gains, *left_room, *right_room;
static const char *now = "";
static uint64_t compared;
static void differ(const char *what, size_t n) {
    printf("%s: %s differs, n = %zu\n", now, what, n);
    exit(1);
}
/* The first n bytes of both outputs are the same, and what stands beyond was not touched. */
static void same(const uint8_t *a, const uint8_t *b, size_t n) {
    compared++;
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i]) {
            printf("%s: byte %zu of %zu is %d, not %d\n", now, i, n, b[i], a[i]);
            exit(1);
        }
    for (size_t i = 0; i < GUARD; i++)
        if (a[n + i] != 0xa7 || b[n + i] != 0xa7) differ("what stands beyond the output", n);
}
static size_t pixel_bytes(int pt, size_t n) {
    static const size_t bytes[] = {1, 1, 2, 2, 4, 4, 2, 4, 0, 8};
    return pt == MZ_U4 ? (n + 1) / 2 : n * bytes[pt];
}

/* Run a kernel of both tables: `k` is the table, `o` its output, of `bytes` bytes that begin as `before` says. */
#define BOTH(name, bytes, before, ...)        \
    {                                         \
        now = name;                           \
        memset(left, before, bytes);          \
        memset(right, before, bytes);         \
        memset(left + (bytes), 0xa7, GUARD);  \
        memset(right + (bytes), 0xa7, GUARD); \
        {                                     \
            const mz_kernels *k = plain;      \
            uint8_t *o = left;                \
            __VA_ARGS__;                      \
        }                                     \
        {                                     \
            const mz_kernels *k = other;      \
            uint8_t *o = right;               \
            __VA_ARGS__;                      \
        }                                     \
        same(left, right, bytes);             \
    }

static void compare_bytes(const mz_kernels *plain, const mz_kernels *other) {
    size_t n = random_size(MOST);
    uint8_t *in = source + below(70), *left = left_room + below(70), *right = right_room + below(70);
    fill(in, n, (int)below(KINDS));
    BOTH("bit_transpose", n / 8 * 8, 1, k->bit_transpose(in, o, n / 8 * 8))
    BOTH("bit_untranspose", n / 8 * 8, 1, k->bit_untranspose(in, o, n / 8 * 8))
    for (size_t size = 1; size <= 16; size++) {
        BOTH("shuffle", n, 1, k->shuffle(size, in, o, n))
        BOTH("unshuffle", n, 1, k->unshuffle(size, in, o, n))
    }
    for (size_t size = 2; size <= 8; size *= 2) BOTH("byteswap", n / size * size, 1, k->byteswap(size, in, o, n / size))
    BOTH("pack4, and whether a pixel is above 15", (n + 1) / 2 + 1, 1, o[(n + 1) / 2] = k->pack4(in, o, n) != 0)
    BOTH("unpack4", n, 1, k->unpack4(in, o, n))
    BOTH("count_zero", sizeof n, 1, size_t zeros = k->count_zero(in, n); memcpy(o, &zeros, sizeof zeros))
    left = left_room, right = right_room; /* numbers that stand where they belong, here and below */
    BOTH("nonzero_mask", (n + 63) / 64 * 8, 1, k->nonzero_mask(in, (void *)o, n))
    BOTH("histogram8", 1024, 1, k->histogram8(in, n, (void *)o))
    BOTH("xxh64", 8, 1, uint64_t h = k->xxh64(in, n, n); memcpy(o, &h, 8))
    BOTH("xxh in parts", 8, 1, uint64_t v[4]; k->xxh_start(v, 7); size_t done = k->xxh_stripes(in, n, v);
         uint64_t h = k->xxh_end(in + done, n - done, n, 7, v); memcpy(o, &h, 8))
}
static void compare_pixels(const mz_kernels *plain, const mz_kernels *other, int pt) {
    size_t n = random_size(MOST / 8);
    int is_float = pt == MZ_F16 || pt == MZ_F32 || pt == MZ_F64, with_gain = (int)below(2), stream = (int)below(2);
    uint8_t *in = source + below(70), *left = left_room, *right = right_room;
    float *gain = with_gain ? (float *)gains + below(7) : NULL;
    if (is_float)
        fill_floats(in, n, pt);
    else
        fill(in, pixel_bytes(pt, n), (int)below(KINDS));
    for (size_t i = 0; with_gain && i < n; i++) gain[i] = 0.5f + (float)below(1000) / 999;
    BOTH("stats", sizeof(mz_stats), 0, mz_stats s = {.min = INFINITY, .max = -INFINITY}; k->stats(pt, in, n, &s);
         memcpy(o, &s, sizeof s))
    BOTH("add_f64", 8 * n, 0, k->add_f64(pt, in, 1.7, gain, (void *)o, n))
    if (!is_float) BOTH("add_i64", 8 * n, 1, k->add_i64(pt, in, (void *)o, n))
    if (pt == MZ_I8 || pt == MZ_U8 || pt == MZ_U4) BOTH("add_u16", 2 * n, 1, k->add_u16(pt, in, (void *)o, n))
    size_t step = 4 * below(18);
    left += step, right += step;
    BOTH("to_float", 4 * n, 1, k->to_float(pt, in, gain, (void *)o, n, stream))
}
static void compare_zstd(const mz_kernels *plain, const mz_kernels *other) {
    static mz_zwork work;
    static mz_zread read;
    size_t n = random_size(MOST), lengths[2], at = 0, planes = below(3);
    uint8_t *in = source + below(70), *left = left_room, *right = right_room;
    mz_zplan plan = {.sample = (int)below(2),
                     .checksum = (int)below(2),
                     .min_gain = (int[]){8, 32, 64}[below(3)],
                     .planes_per_byte = planes == 2 ? 8 : 0,
                     .stable = below(4) != 0};
    n += n == 0;
    if (planes) plan.plane = n / (planes == 2 ? 16 : 8);
    fill(in, n, (int)below(KINDS));
    size_t cap = below(8) ? 2 * n + 1024 : below(n + 64);
    /* what a frame has no room for may have been begun */
    for (int v = 0; v < 2; v++) {
        uint8_t *o = v ? right : left;
        memset(o + cap, 0xa7, GUARD);
        lengths[at++] = (v ? other : plain)->zstd_encode(in, n, &plan, &work, o, cap);
        for (size_t i = 0; i < GUARD; i++)
            if (o[cap + i] != 0xa7) differ("what stands beyond the output", n);
    }
    now = "zstd_encode";
    if (lengths[0] != lengths[1]) differ("the length", n);
    if (memcmp(left, right, lengths[0])) differ("the frame", n);
    compared++;
    if (!lengths[0]) return;
    /* read it back, whole and with a byte changed: both must say the same of it */
    uint8_t *frame = gains;
    size_t length = lengths[0];
    memcpy(frame, left, length);
    for (int damaged = 0; damaged < 2; damaged++) {
        int said[2];
        if (damaged) frame[below(length)] ^= (uint8_t)(1 << below(8));
        now = "zstd_decode";
        memset(left, 0, n), memset(right, 0, n);
        said[0] = plain->zstd_decode(frame, length, left, n, 1, &read);
        said[1] = other->zstd_decode(frame, length, right, n, 1, &read);
        if (said[0] != said[1]) differ("whether it is a good frame", n);
        if (said[0] && memcmp(left, right, n)) differ("what was decoded", n);
        if (!damaged && said[1] && memcmp(right, in, n)) differ("what was decoded and what was encoded", n);
        if (!damaged && !said[1]) differ("what it says of its own frame", n);
        compared++;
    }
}

int main(int argc, char **argv) {
    const mz_kernels *plain = mz_kernels_named("c"), *other = argc > 1 ? mz_kernels_named(argv[1]) : NULL;
    double seconds = argc > 2 ? atof(argv[2]) : 5;
    state = (argc > 3 ? strtoull(argv[3], NULL, 10) : 1) * 0x9e3779b97f4a7c15ULL | 1;
    if (!plain || !other) {
        printf("no variant %s here\n", argc > 1 ? argv[1] : "(none named)");
        return 2;
    }
    if (argc > 1 && strcmp(other->name, argv[1])) return 2;
    source = calloc(1, ROOM), gains = calloc(1, ROOM), left_room = calloc(1, ROOM), right_room = calloc(1, ROOM);
    if (!source || !gains || !left_room || !right_room) return 2;
    clock_t start = clock();
    int rounds = 0;
    do {
        compare_bytes(plain, other);
        for (int pt = MZ_I8; pt <= MZ_F64; pt++) compare_pixels(plain, other, pt);
        for (int i = 0; i < 4; i++) compare_zstd(plain, other);
        rounds++;
    } while ((double)(clock() - start) < seconds * CLOCKS_PER_SEC);
    printf("%s is chosen, %s and plain C agree: %d rounds, %llu comparisons\n", mz_get_kernels()->name, other->name,
           rounds, (unsigned long long)compared);
    return 0;
}
