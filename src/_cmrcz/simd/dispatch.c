/* Picks the kernel variant at run time. */
#include "kernels.h"
#include <stdlib.h>
#include <string.h>

/* The variants for x86-64 are built with GCC and Clang only (see meson.build), so that their builtins are there. */
#if defined(MZ_HAVE_AVX2) || defined(MZ_HAVE_AVX512)
#include <cpuid.h>
#define MZ_X86_64 1
#endif

extern const mz_kernels mz_kernels_c;
#ifdef MZ_HAVE_AVX2
extern const mz_kernels mz_kernels_avx2;
#endif
#ifdef MZ_HAVE_AVX512
extern const mz_kernels mz_kernels_avx512;
#endif
#ifdef MZ_HAVE_NEON
extern const mz_kernels mz_kernels_neon;
#endif

#ifdef MZ_X86_64
/* Every flag meson.build compiles with is asked for. The builtin also knows whether the system saves the registers;
 * what older compilers' builtin does not know is F16C. Virtual machines take microseconds for a cpuid: once is
 * enough. */
static int has_f16c(void) {
    static int known; /* 0: not asked yet, 1: no, 2: yes */
    int k = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (!k) {
        unsigned a, b, c, d;
        k = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) ? 2 : 1;
        __atomic_store_n(&known, k, __ATOMIC_RELAXED);
    }
    return k == 2;
}
static int has_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("popcnt") && has_f16c();
}
#endif
#ifdef MZ_HAVE_AVX512
static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
           __builtin_cpu_supports("gfni");
}
#endif

const mz_kernels *mz_kernels_named(const char *name) {
    if (!strcmp(name, "c")) return &mz_kernels_c;
#ifdef MZ_HAVE_AVX2
    if (!strcmp(name, "avx2") && has_avx2()) return &mz_kernels_avx2;
#endif
#ifdef MZ_HAVE_AVX512
    if (!strcmp(name, "avx512") && has_avx512()) return &mz_kernels_avx512;
#endif
#ifdef MZ_HAVE_NEON
    if (!strcmp(name, "neon")) return &mz_kernels_neon; /* every 64-bit ARM processor has it */
#endif
    return NULL;
}

static const mz_kernels *choose(void) {
    static const char *const best_first[] = {"avx512", "avx2", "neon", "c"};
    const char *forced = getenv("MRCZ_SIMD");
    if (forced && *forced) return mz_kernels_named(forced);
    const mz_kernels *k = NULL;
    for (int i = 0; !k; i++) k = mz_kernels_named(best_first[i]);
    return k;
}

/* No lock: threads that race here store the same pointer, to constants, and the store is atomic. An extension that
 * calls this while it is imported reads the environment before threads of its own could be changing it. */
const mz_kernels *mz_get_kernels(void) {
#if defined(__GNUC__) || defined(__clang__)
    static const mz_kernels *chosen;
    const mz_kernels *k = __atomic_load_n(&chosen, __ATOMIC_RELAXED);
    if (!k) __atomic_store_n(&chosen, k = choose(), __ATOMIC_RELAXED);
#else
    static const mz_kernels *volatile chosen;
    const mz_kernels *k = chosen;
    if (!k) chosen = k = choose();
#endif
    return k;
}
