/* The kernels in plain C, for every processor; what the other variants are compared with. */
#define MZ_NAME c
#include "variant_impl.h"
