/* Picks the kernel variant at run time. */
#include "kernels.h"
#include <stdlib.h>
#include <string.h>

extern const mz_kernels mz_kernels_c;
#ifdef MZ_HAVE_AVX2
extern const mz_kernels mz_kernels_avx2;
#endif
#ifdef MZ_HAVE_AVX512
extern const mz_kernels mz_kernels_avx512;
#endif

const mz_kernels *mz_kernels_named(const char *name) {
    if (!strcmp(name, "c")) return &mz_kernels_c;
#if defined(MZ_HAVE_AVX2) || defined(MZ_HAVE_AVX512)
    __builtin_cpu_init();
#endif
#ifdef MZ_HAVE_AVX2
    if (!strcmp(name, "avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) return &mz_kernels_avx2;
#endif
#ifdef MZ_HAVE_AVX512
    if (!strcmp(name, "avx512") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("gfni"))
        return &mz_kernels_avx512;
#endif
    return NULL;
}

const mz_kernels *mz_get_kernels(void) {
    /* No lock: every thread that races here stores the same pointer. */
    static const mz_kernels *chosen;
    if (!chosen) {
        const char *forced = getenv("MRCZ_SIMD");
        const mz_kernels *k = NULL;
        if (forced && *forced) return chosen = mz_kernels_named(forced);
        if (!k) k = mz_kernels_named("avx512");
        if (!k) k = mz_kernels_named("avx2");
        if (!k) k = &mz_kernels_c;
        chosen = k;
    }
    return chosen;
}
