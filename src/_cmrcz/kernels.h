/* Pixel and byte kernels: one table of functions, filled by the variant that suits the processor.
 *
 * Every kernel works on any length and any alignment unless it says otherwise, reads nothing beyond its input and
 * writes nothing beyond its output. The variants agree to the last bit. */
#ifndef MZ_KERNELS_H
#define MZ_KERNELS_H
#include "simd/zstd.h"
#include <stddef.h>
#include <stdint.h>

/* Pixel types. MZ_U4 is two pixels a byte, the first in the low nibble. */
enum { MZ_I8, MZ_U8, MZ_I16, MZ_U16, MZ_I32, MZ_U32, MZ_F16, MZ_F32, MZ_U4, MZ_F64 };

/* Running statistics; NaN pixels are skipped and not counted. Start from n = 0, min = +inf, max = -inf, sums 0. */
typedef struct {
    double min, max, sum, sumsq;
    uint64_t n;
} mz_stats;

typedef struct {
    const char *name;
    /* out[p * n/8 + j] bit i = bit p of in[8 j + i]; n is a multiple of 8 (bytes). in and out do not overlap. */
    void (*bit_transpose)(const uint8_t *in, uint8_t *out, size_t n);
    void (*bit_untranspose)(const uint8_t *in, uint8_t *out, size_t n);
    /* n pixels -> (n + 1) / 2 bytes; returns nonzero if any pixel is above 15 (its high bits are then dropped). */
    int (*pack4)(const uint8_t *in, uint8_t *out, size_t n);
    void (*unpack4)(const uint8_t *in, uint8_t *out, size_t n);
    /* number of bytes that are zero */
    size_t (*count_zero)(const uint8_t *in, size_t n);
    /* bit i of out (little endian, (n + 63) / 64 words) = in[i] != 0; unused bits of the last word are 0 */
    void (*nonzero_mask)(const uint8_t *in, uint64_t *out, size_t n);
    /* adds to h[256] */
    void (*histogram8)(const uint8_t *in, size_t n, uint32_t *h);
    /* Adds n pixels of type pt to s. Sums of integers are exact while below 2^53; those of floats are accumulated in
     * float64 in a fixed order (simd/stats_impl.h), so that they depend on how the pixels are divided between calls,
     * but not on the variant. */
    void (*stats)(int pt, const void *in, size_t n, mz_stats *s);
    /* out[i] = (float)in[i], times gain[i] if gain is not NULL: one float32 multiplication, as NumPy does it. MZ_U4:
     * starts at the low nibble of in[0]. stream 1: may use non-temporal stores (out is not read again soon); 2: the
     * same, and a call with 1 is to follow, which waits until all are seen by others. */
    void (*to_float)(int pt, const void *in, const float *gain, float *out, size_t n, int stream);
    /* acc[i] += in[i], for integer pt of 1 byte (or MZ_U4) into uint16/int16; the caller keeps it from overflowing */
    void (*add_u16)(int pt, const void *in, uint16_t *acc, size_t n);
    /* acc[i] += in[i] in int64 for integer pt */
    void (*add_i64)(int pt, const void *in, int64_t *acc, size_t n);
    /* acc[i] += weight * in[i] (* gain[i]) in float64: the product in float64 from float32 values */
    void (*add_f64)(int pt, const void *in, double weight, const float *gain, double *acc, size_t n);
    /* Blosc's byte shuffle of n = nbytes / size elements: out[k * n + i] = byte k of element i; the nbytes % size bytes
     * left over are copied to the end as they are. in and out do not overlap. */
    void (*shuffle)(size_t size, const uint8_t *in, uint8_t *out, size_t nbytes);
    void (*unshuffle)(size_t size, const uint8_t *in, uint8_t *out, size_t nbytes);
    /* reverses the bytes of n elements of 2, 4 or 8 bytes; out may be in itself */
    void (*byteswap)(size_t size, const uint8_t *in, uint8_t *out, size_t n);
    uint64_t (*xxh64)(const uint8_t *p, size_t n, uint64_t seed);
    /* The same bit by bit: start, then whole stripes of 32 bytes as they come (how many bytes those were is returned),
     * then the n bytes that are left of `total`. */
    void (*xxh_start)(uint64_t v[4], uint64_t seed);
    size_t (*xxh_stripes)(const uint8_t *p, size_t n, uint64_t v[4]);
    uint64_t (*xxh_end)(const uint8_t *p, size_t n, uint64_t total, uint64_t seed, uint64_t v[4]);
    /* n bytes as one zstd frame; its length, or 0 if that is more than cap. Any cap is safe. */
    size_t (*zstd_encode)(const uint8_t *x, size_t n, const mz_zplan *plan, mz_zwork *w, uint8_t *out, size_t cap);
    /* The zstd frame of n bytes at p to exactly length bytes: 1 if that was done, 0 if the frame is wrong or not of the
     * kind that zstd_encode makes; what libzstd reads otherwise. verify: compare the content checksum, if it has one.
     * Any input is safe. */
    int (*zstd_decode)(const uint8_t *p, size_t n, uint8_t *out, size_t length, int verify, mz_zread *w);
} mz_kernels;

/* The table in use. Chosen once, at first call, by the processor and the environment variable MRCZ_SIMD
 * ("c", "avx2", "avx512", "neon"; an unknown or unsupported name is an error reported as NULL, which kernels_in_use of
 * kernels.pxd makes an ImportError). */
const mz_kernels *mz_get_kernels(void);
/* A named variant, or NULL if this processor or build has none. */
const mz_kernels *mz_kernels_named(const char *name);

#endif
