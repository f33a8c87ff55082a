/* The kernels for this instruction set; see kernels_impl.h. */
#define MZ_NAME avx2
#include "kernels_impl.h"
