/* One variant of the kernels: every template once, in the order in which they use each other, then the table.
 *
 * plain.c, avx2.c, avx512.c and neon.c include this, each compiled with the flags of its instructions. Before that they
 * say MZ_NAME, the variant's name, and, if they have vectors (MZ_SIMD), the words that the templates are written in:
 *
 *   vec, BYTES, LD, ST, v_...   a vector of integers, its length in bytes, and what is done with it
 *   vf, FLOATS; vd, DOUBLES     vectors of float32 and float64
 *   load_planes, store_planes   the transposes, which every processor does in its own way
 *
 * A template has its loop over vectors first, simd_X, which returns how far it came, and then X, in plain C, which does
 * what is left: all of it in plain.c. What a variant has no code for it defines as 0. All functions are static, so that
 * the variants' names do not meet. */
#include "kernels.h"
#include <math.h>
#include <string.h>

#define MZ_CAT2(a, b) a##b
#define MZ_CAT(a, b) MZ_CAT2(a, b)
#define MZ_STR2(x) #x
#define MZ_STR(x) MZ_STR2(x)

/* SIMD(f, args): how many units from the start the variant's own code has done; 0 where it has none. */
#ifdef MZ_SIMD
#define SIMD(f, args) simd_##f args
#else
#define SIMD(f, args) 0
#endif

#include "words_impl.h"

#include "transpose_impl.h"
#include "byteswap_impl.h"
#include "packing_impl.h"
#include "zeros_impl.h"
#include "histogram_impl.h"
#include "pixels_impl.h"
#include "stats_impl.h"
#include "sums_impl.h"
#include "xxh64_impl.h"

#include "zstd_bits_impl.h"
#include "zstd_codes_impl.h"
#include "zstd_fse_encode_impl.h"
#include "zstd_huffman_encode_impl.h"
#include "zstd_literals_encode_impl.h"
#include "zstd_sequences_encode_impl.h"
#include "zstd_encode_impl.h"
#include "zstd_fse_decode_impl.h"
#include "zstd_huffman_decode_impl.h"
#include "zstd_literals_decode_impl.h"
#include "zstd_sequences_decode_impl.h"
#include "zstd_decode_impl.h"

const mz_kernels MZ_CAT(mz_kernels_, MZ_NAME) = {
    MZ_STR(MZ_NAME), bit_transpose, bit_untranspose, pack4,   unpack4,     count_zero,  nonzero_mask, histogram8,
    stats,           to_float,      add_u16,         add_i64, add_f64,     shuffle,     unshuffle,    byteswap,
    xxh64,           xxh_start,     xxh_stripes,     xxh_end, zstd_encode, zstd_decode,
};
