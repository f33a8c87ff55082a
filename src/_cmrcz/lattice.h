/* Floats that are counts times a gain: the gain found from the floats, counts from floats, floats from counts.
 *
 * A producer makes x = float32(float32(float32(n a) g) b), or divides by g; a and b are scales of the whole movie, 1
 * where there are none. x is a count if that very expression gives its bits back. Nothing here is approximate but the
 * first guess of n. */
#ifndef MZ_LATTICE_H
#define MZ_LATTICE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MZ_MOST_COUNTS 65535.0f
#define MZ_MOST_PARTS 64.0 /* largest denominator of a ratio of two values: chance finds one in .06 % of random pairs */

typedef struct {
  double before, after; /* a and b */
  int divide;           /* by the gain */
  int wide;             /* the gain is float64, and the product is rounded once */
} mz_operation;

static inline uint32_t mz_bits(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}

static inline float mz_float(uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}

/* The float that a producer makes of n counts of a pixel with this gain. No counts are +0, whatever the gain is. */
static inline float mz_make(int32_t n, double gain, const mz_operation *op) {
  if (n == 0)
    return 0.0f;
  if (op->wide) {
    double x = (double)n * op->before;
    x = op->divide ? x / gain : x * gain;
    return (float)(x * op->after);
  }
  const float x = (float)n * (float)op->before; /* nothing is added: no compiler fuses two roundings into one */
  const float y = op->divide ? x / (float)gain : x * (float)gain;
  return y * (float)op->after;
}

/* Floats to counts. Where a float is none, its count is 0 and its place is noted, as long as there is room; returns how
 * many there are. `most` becomes the largest count. */
static inline size_t mz_to_counts(const float *x, const double *gain, size_t n, const mz_operation *op, uint16_t *counts,
                                  int64_t *places, size_t room, uint32_t *most) {
  size_t wrong = 0;
  uint32_t top = *most;
  const double scale = op->before * op->after;
  for (size_t i = 0; i < n; i++) {
    const float value = x[i];
    if (mz_bits(value) == 0) {
      counts[i] = 0;
      continue;
    }
    const double g = gain[i];
    const double guess = op->divide ? (double)value * g / scale : (double)value / (g * scale);
    int32_t k = 0;
    if (guess > 0.5 && guess < MZ_MOST_COUNTS + 0.5) /* false for NaN */
      k = (int32_t)(guess + 0.5);
    if (k > 0 && mz_bits(mz_make(k, g, op)) == mz_bits(value)) {
      counts[i] = (uint16_t)k;
      if ((uint32_t)k > top)
        top = (uint32_t)k;
    } else {
      counts[i] = 0;
      if (wrong < room)
        places[wrong] = (int64_t)i;
      wrong++;
    }
  }
  *most = top;
  return wrong;
}

/* The usual operation, float32 counts times float32 gain and nothing else, in a form that compilers vectorise: blocks
 * in which a float is no count are done again by the one above. */
static inline size_t mz_to_counts_plain(const float *x, const double *gain, const float *gain32, size_t n,
                                        const mz_operation *op, uint16_t *counts, int64_t *places, size_t room,
                                        uint32_t *most) {
  enum { BLOCK = 1024 };
  size_t wrong = 0;
  for (size_t at = 0; at < n; at += BLOCK) {
    const size_t m = n - at < BLOCK ? n - at : BLOCK;
    const float *restrict v = x + at;
    const float *restrict g = gain32 + at;
    uint16_t *restrict c = counts + at;
    float made[BLOCK];
    uint16_t top = 0;
    for (size_t i = 0; i < m; i++) {
      float q = v[i] / g[i];
      q = q < MZ_MOST_COUNTS ? q : MZ_MOST_COUNTS; /* NaN becomes that, too */
      q = q > 0.0f ? q : 0.0f;
      const int32_t k = (int32_t)(q + 0.5f);
      made[i] = (float)k * g[i];
      c[i] = (uint16_t)k;
    }
    for (size_t i = 0; i < m; i++)
      top = c[i] > top ? c[i] : top;
    if (memcmp(made, v, m * sizeof *v)) { /* bits, so that -0 is no count */
      const size_t left = wrong < room ? room - wrong : 0;
      const size_t more = mz_to_counts(v, gain + at, m, op, c, places + (wrong < room ? wrong : room), left, most);
      for (size_t i = 0; i < more && i < left; i++)
        places[wrong + i] += (int64_t)at;
      wrong += more;
    } else if (top > *most) {
      *most = top;
    }
  }
  return wrong;
}

static inline void mz_to_floats(const uint16_t *counts, const double *gain, size_t n, const mz_operation *op, float *x) {
  for (size_t i = 0; i < n; i++)
    x[i] = mz_make(counts[i], gain[i], op);
}

/* One frame more: for each pixel the interval [lo, hi] that its gain lies in narrows, or is divided.
 *
 * A value x stands for all reals that round to it, [x - ulp/2, x + ulp/2]. The first value of a pixel is taken for one
 * count. A later one is k counts if [lo, hi] and the interval over k meet; else the ratio of both is looked for among
 * the convergents of its continued fraction, which is Euclid's algorithm on reals that are known to an ulp: j/m means
 * that what was one count is m, and this value j. What has no such ratio is a misfit and changes nothing.
 * Returns how many values fit that differ from what was one count: the evidence that this is a lattice. */
static inline size_t mz_scan(const float *x, double *lo, double *hi, uint16_t *hits, uint16_t *misfits, size_t n) {
  size_t different = 0;
  for (size_t i = 0; i < n; i++) {
    const uint32_t u = mz_bits(x[i]);
    if (u == 0)
      continue;
    if (u >= 0x7f7fffffu || u < 0x00800000u) { /* negative, infinite, NaN, or so small that it has no ulp of its own */
      misfits[i] += misfits[i] < UINT16_MAX;
      continue;
    }
    const double value = x[i];
    const double a = 0.5 * (value + (double)mz_float(u - 1)), b = 0.5 * (value + (double)mz_float(u + 1));
    if (hi[i] == 0.0) {
      lo[i] = a, hi[i] = b, hits[i] = 1;
      continue;
    }
    const double g = 0.5 * (lo[i] + hi[i]);
    const double ratio = value / g;
    int fits = 0;
    /* Convergents p/q of the ratio; just below a whole number the first is one short, the second that number over 1. */
    double p0 = 0, q0 = 1, p1 = 1, q1 = 0, rest = ratio;
    for (int step = 0; step < 40; step++) {
      const double whole = floor(rest);
      const double p = whole * p1 + p0, q = whole * q1 + q0;
      p0 = p1, q0 = q1, p1 = p, q1 = q;
      if (q > MZ_MOST_PARTS || p > 65535.0)
        break;
      if (p >= 1.0) {
        const double low = a / p > lo[i] / q ? a / p : lo[i] / q, high = b / p < hi[i] / q ? b / p : hi[i] / q;
        if (low <= high) {
          lo[i] = low, hi[i] = high;
          fits = 1;
          different += p != q;
          break;
        }
      }
      const double fraction = rest - whole;
      if (fraction < 1e-9)
        break;
      rest = 1.0 / fraction;
    }
    if (fits)
      hits[i] += hits[i] < UINT16_MAX;
    else
      misfits[i] += misfits[i] < UINT16_MAX;
  }
  return different;
}

#endif
