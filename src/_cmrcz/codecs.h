/* The codec libraries' functions we call. The bundled static library comes without zstd, lz4 and zlib headers, so their
 * prototypes are declared here; a build against system libraries includes the real headers and checks us.
 *
 * Of C-Blosc2 itself nothing is called: it loads plug-ins where a chunk names one. Linked from the static library are
 * zstd, lz4, zlib and blosclz alone; test_package.py looks that nothing else came with them. A build against system
 * libraries has no other way to blosclz than through C-Blosc2, with a chunk that we wrote the header of. */
#ifndef MZ_CODECS_H
#define MZ_CODECS_H
#include <blosc2.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef MZ_BUNDLED
typedef struct ZSTD_CCtx_s ZSTD_CCtx;
typedef struct ZSTD_DCtx_s ZSTD_DCtx;
unsigned ZSTD_versionNumber(void);
ZSTD_CCtx *ZSTD_createCCtx(void);
size_t ZSTD_freeCCtx(ZSTD_CCtx *);
size_t ZSTD_CCtx_setParameter(ZSTD_CCtx *, int, int);
size_t ZSTD_compress2(ZSTD_CCtx *, void *, size_t, const void *, size_t);
ZSTD_DCtx *ZSTD_createDCtx(void);
size_t ZSTD_freeDCtx(ZSTD_DCtx *);
size_t ZSTD_DCtx_setParameter(ZSTD_DCtx *, int, int);
size_t ZSTD_decompressDCtx(ZSTD_DCtx *, void *, size_t, const void *, size_t);
unsigned ZSTD_isError(size_t);
int ZSTD_maxCLevel(void);
int LZ4_compress_fast(const char *, char *, int, int, int);
int LZ4_compress_HC(const char *, char *, int, int, int);
int LZ4_decompress_safe(const char *, char *, int, int);
int32_t zng_compress2(uint8_t *, size_t *, const uint8_t *, size_t, int32_t);
int32_t zng_uncompress(uint8_t *, size_t *, const uint8_t *, size_t);
int blosclz_compress(int, const void *, int, void *, int, void *);
int blosclz_decompress(const void *, int, void *, int);
#else
#define ZSTD_STATIC_LINKING_ONLY
#include <lz4.h>
#include <lz4hc.h>
#include <zlib.h>
#include <zstd.h>
#endif

/* Parameters of zstd by number: the names of the experimental ones are not in zstd's stable header. */
enum { MZ_C_LEVEL = 100, MZ_C_CHECKSUM = 201, MZ_D_IGNORECHECKSUM = 1002 };

static inline size_t mz_zlib_compress(uint8_t *out, size_t cap, const uint8_t *in, size_t n, int level) {
#ifdef MZ_BUNDLED
    size_t len = cap;
    return zng_compress2(out, &len, in, n, level) == 0 ? len : 0;
#else
    uLongf len = (uLongf)cap;
    return compress2(out, &len, in, (uLong)n, level) == Z_OK ? (size_t)len : 0;
#endif
}
static inline size_t mz_zlib_decompress(uint8_t *out, size_t cap, const uint8_t *in, size_t n) {
#ifdef MZ_BUNDLED
    size_t len = cap;
    return zng_uncompress(out, &len, in, n) == 0 ? len : 0;
#else
    uLongf len = (uLongf)cap;
    return uncompress(out, &len, in, (uLong)n) == Z_OK ? (size_t)len : 0;
#endif
}
static inline int mz_blosclz_compress(int level, const uint8_t *in, int n, uint8_t *out, int cap) {
#ifdef MZ_BUNDLED
    return blosclz_compress(level, in, n, out, cap, NULL); /* the context is not used by this version */
#else
    (void)level; (void)in; (void)n; (void)out; (void)cap;
    return -1; /* not exported by C-Blosc2's shared library */
#endif
}
/* Decompresses n bytes to exactly cap; returns the number of bytes or <= 0. scratch: n + 24 bytes (system build). */
static inline int mz_blosclz_decompress(const uint8_t *in, int n, uint8_t *out, int cap, uint8_t *scratch) {
#ifdef MZ_BUNDLED
    (void)scratch;
    return blosclz_decompress(in, n, out, cap);
#else
    /* Wrap the stream into a one-block Blosc-1 chunk: the shared library exports no blosclz decoder of its own. */
    /* version 2, versionlz 1, flags 0x10 (not split), typesize 1 */
    uint32_t w[6] = {0x01100102u, (uint32_t)cap, (uint32_t)cap, (uint32_t)(n + 24), 20u, (uint32_t)n};
    memcpy(scratch, w, 24);
    memcpy(scratch + 24, in, (size_t)n);
    /* A context of its own: blosc2_decompress takes a global lock and heeds the environment. */
    blosc2_dparams one_thread = BLOSC2_DPARAMS_DEFAULTS;
    blosc2_context *context = blosc2_create_dctx(one_thread);
    if (!context) return -1;
    int got = blosc2_decompress_ctx(context, scratch, n + 24, out, cap);
    blosc2_free_ctx(context);
    return got;
#endif
}
static inline int mz_has_blosclz_encoder(void) {
#ifdef MZ_BUNDLED
    return 1;
#else
    return 0;
#endif
}
#endif
