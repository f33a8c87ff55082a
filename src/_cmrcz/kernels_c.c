/* The kernels for this instruction set; see kernels_impl.h. */
#define MZ_NAME c
#include "kernels_impl.h"
