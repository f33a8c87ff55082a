/* Statistics of pixels: extremes, sum, sum of squares. */

#ifdef MZ_SIMD
/* Signed pixels are taken 128 higher where they are compared and summed. */
static inline size_t stats8(const uint8_t *in, size_t n, int64_t t[4], int is_signed) {
    const vec sign = v_set8(0x80);
    vec lo = v_set8(0xff), hi = v_zero(), sums = v_zero(), squares = v_zero();
    size_t i = 0;
    if (n < BYTES) return 0;
    for (; i + BYTES <= n; i += BYTES) {
        vec v = LD(in + i), shifted = is_signed ? v_xor(v, sign) : v;
        lo = v_min_u8(lo, shifted);
        hi = v_max_u8(hi, shifted);
        sums = v_add_sums8(sums, shifted);
        squares = v_add_squares8(squares, is_signed ? v_abs8(v) : v);
    }
    uint8_t los[BYTES], his[BYTES], least = 255, most = 0;
    ST(los, lo);
    ST(his, hi);
    for (int k = 0; k < BYTES; k++) {
        least = los[k] < least ? los[k] : least;
        most = his[k] > most ? his[k] : most;
    }
    int64_t offset = is_signed ? 128 : 0;
    t[0] = least - offset;
    t[1] = most - offset;
    t[2] = v_total8(sums) - offset * (int64_t)i;
    t[3] = (uint32_t)v_total32(squares);
    return i;
}
static size_t simd_stats_i8(const uint8_t *in, size_t n, int64_t t[4]) { return stats8(in, n, t, 1); }
static size_t simd_stats_u8(const uint8_t *in, size_t n, int64_t t[4]) { return stats8(in, n, t, 0); }

/* Unsigned pixels are taken 32768 lower: (w + 32768)^2 = w^2 + 65536 w + 2^30 */
static inline size_t stats16(const uint8_t *in, size_t n, int64_t t[4], int is_signed) {
    enum { PIXELS = BYTES / 2 };
    const vec sign = v_set16(0x8000);
    vec lo = v_set16(0x7fff), hi = sign, sums = v_zero(), squares = v_zero();
    size_t i = 0;
    if (n < PIXELS) return 0;
    for (; i + PIXELS <= n; i += PIXELS) {
        vec v = LD(in + 2 * i);
        if (!is_signed) v = v_xor(v, sign);
        lo = v_min_i16(lo, v);
        hi = v_max_i16(hi, v);
        sums = v_add_sums16(sums, v);
        squares = v_add_squares16(squares, v);
    }
    int16_t los[PIXELS], his[PIXELS], least = INT16_MAX, most = INT16_MIN;
    ST(los, lo);
    ST(his, hi);
    for (int k = 0; k < PIXELS; k++) {
        least = los[k] < least ? los[k] : least;
        most = his[k] > most ? his[k] : most;
    }
    int64_t offset = is_signed ? 0 : 32768, total = v_total32(sums), m = (int64_t)i;
    t[0] = least + offset;
    t[1] = most + offset;
    t[2] = total + offset * m;
    t[3] = v_total64(squares) + 2 * offset * total + offset * offset * m;
    return i;
}
static size_t simd_stats_i16(const uint8_t *in, size_t n, int64_t t[4]) { return stats16(in, n, t, 1); }
static size_t simd_stats_u16(const uint8_t *in, size_t n, int64_t t[4]) { return stats16(in, n, t, 0); }

/* Sixteen pixels a turn, summed in as many vectors of float64 as they fill: the lanes below. V is vf or vd, the pixels'
 * own vectors, in which the extremes are kept; V_min and V_max give their second argument where the first is NaN, and
 * for two zeros, as the plain C does. */
#define MZ_STATS_VECTORS(name, V, PIXELS)                                                                              \
    static size_t simd_stats_##name(const uint8_t *in, size_t n, double *lo, double *hi, double *sum, double *squares, \
                                    size_t *nan) {                                                                     \
        enum { VECTORS = 16 / PIXELS, HALVES = PIXELS / DOUBLES };                                                     \
        V least[VECTORS], most[VECTORS];                                                                               \
        vd s[16 / DOUBLES], q[16 / DOUBLES];                                                                           \
        V##_count good = V##_none();                                                                                   \
        size_t i = 0;                                                                                                  \
        for (int k = 0; k < 16 / DOUBLES; k++) s[k] = q[k] = vd_set(0);                                                \
        for (int k = 0; k < VECTORS; k++) {                                                                            \
            least[k] = V##_set(INFINITY);                                                                              \
            most[k] = V##_set(-INFINITY);                                                                              \
        }                                                                                                              \
        for (; i + 16 <= n; i += 16)                                                                                   \
            for (int k = 0; k < VECTORS; k++) {                                                                        \
                V v = V##_load(in + (i + PIXELS * k) * (16 / DOUBLES == VECTORS ? sizeof(double) : sizeof(float)));    \
                least[k] = V##_min(v, least[k]);                                                                       \
                most[k] = V##_max(v, most[k]);                                                                         \
                v = V##_without_nan(v, &good);                                                                         \
                for (int h = 0; h < HALVES; h++) {                                                                     \
                    vd d = V##_doubles(v, h);                                                                          \
                    s[HALVES * k + h] = vd_add(s[HALVES * k + h], d);                                                  \
                    q[HALVES * k + h] = vd_add(q[HALVES * k + h], vd_mul(d, d));                                       \
                }                                                                                                      \
            }                                                                                                          \
        for (int k = 0; k < 16 / DOUBLES; k++) {                                                                       \
            vd_store(lo + DOUBLES * k, V##_doubles(least[k / HALVES], k % HALVES));                                    \
            vd_store(hi + DOUBLES * k, V##_doubles(most[k / HALVES], k % HALVES));                                     \
            vd_store(sum + DOUBLES * k, s[k]);                                                                         \
            vd_store(squares + DOUBLES * k, q[k]);                                                                     \
        }                                                                                                              \
        *nan = i - V##_counted(good);                                                                                  \
        return i;                                                                                                      \
    }
MZ_STATS_VECTORS(f32, vf, FLOATS)
MZ_STATS_VECTORS(f64, vd, DOUBLES)
#endif

/* 8 and 16 bits: exact integers over a block, t = min, max, sum, sum of squares; only the totals are rounded. A block
 * is small enough for 32-bit sums of pixels, and of squares of 8-bit pixels. */
#define MZ_STATS_INTEGER(name, T, square_t)                              \
    static void stats_##name(const uint8_t *in, size_t n, mz_stats *s) { \
        const size_t block = 16384;                                      \
        for (size_t a = 0; a < n; a += block) {                          \
            const uint8_t *x = in + a * sizeof(T);                       \
            size_t e = MZ_MIN(n - a, block);                             \
            int64_t t[4] = {INT32_MAX, INT32_MIN, 0, 0};                 \
            size_t i = SIMD(stats_##name, (x, e, t));                    \
            if (i < e) {                                                 \
                MZ_GET(T, lo, x, i)                                      \
                T hi = lo;                                               \
                int32_t sum = 0;                                         \
                square_t squares = 0;                                    \
                for (; i < e; i++) {                                     \
                    MZ_GET(T, v, x, i)                                   \
                    lo = v < lo ? v : lo;                                \
                    hi = v > hi ? v : hi;                                \
                    sum += v;                                            \
                    squares += (uint32_t)((int32_t)v * (int64_t)v);      \
                }                                                        \
                t[0] = MZ_MIN(t[0], lo);                                 \
                t[1] = t[1] > hi ? t[1] : hi;                            \
                t[2] += sum;                                             \
                t[3] += (int64_t)squares;                                \
            }                                                            \
            if ((double)t[0] < s->min) s->min = (double)t[0];            \
            if ((double)t[1] > s->max) s->max = (double)t[1];            \
            s->sum += (double)t[2];                                      \
            s->sumsq += (double)t[3];                                    \
            s->n += e;                                                   \
        }                                                                \
    }
MZ_STATS_INTEGER(i8, int8_t, uint32_t)
MZ_STATS_INTEGER(u8, uint8_t, uint32_t)
MZ_STATS_INTEGER(i16, int16_t, uint64_t)
MZ_STATS_INTEGER(u16, uint16_t, uint64_t)

/* Floats: pixel i of a chunk belongs to lane i % 16; each lane is accumulated in order, then the lanes are added in
 * pairs 8, 4, 2, 1 apart. Every variant adds in this order, so that all give the same bits. A NaN adds 0. */
typedef struct {
    double lo[16], hi[16], sum[16], squares[16];
    size_t nan;
} float_lanes;

static void add_lanes(float_lanes *l, size_t n, mz_stats *s) {
    for (int w = 8; w; w /= 2)
        for (int k = 0; k < w; k++) {
            l->lo[k] = l->lo[k + w] < l->lo[k] ? l->lo[k + w] : l->lo[k];
            l->hi[k] = l->hi[k + w] > l->hi[k] ? l->hi[k + w] : l->hi[k];
            l->sum[k] += l->sum[k + w];
            l->squares[k] += l->squares[k + w];
        }
    if (l->lo[0] < s->min) s->min = l->lo[0];
    if (l->hi[0] > s->max) s->max = l->hi[0];
    s->sum += l->sum[0];
    s->sumsq += l->squares[0];
    s->n += n - l->nan;
}
#define MZ_LANE(T, k, i)                     \
    {                                        \
        MZ_GET(T, x, in, i)                  \
        double v = x, w = v == v ? v : 0;    \
        l.lo[k] = v < l.lo[k] ? v : l.lo[k]; \
        l.hi[k] = v > l.hi[k] ? v : l.hi[k]; \
        l.sum[k] += w;                       \
        l.squares[k] += w * w;               \
        nan += v != v;                       \
    }
#define MZ_STATS_FLOAT(name, T)                                                \
    static void stats_##name(const uint8_t *in, size_t n, mz_stats *s) {       \
        float_lanes l;                                                         \
        size_t i = 0, nan = 0;                                                 \
        for (int k = 0; k < 16; k++) {                                         \
            l.lo[k] = INFINITY;                                                \
            l.hi[k] = -INFINITY;                                               \
            l.sum[k] = l.squares[k] = 0;                                       \
        }                                                                      \
        l.nan = 0;                                                             \
        i = SIMD(stats_##name, (in, n, l.lo, l.hi, l.sum, l.squares, &l.nan)); \
        for (; i + 16 <= n; i += 16)                                           \
            for (int k = 0; k < 16; k++) MZ_LANE(T, k, i + k)                  \
        for (int k = 0; i < n; i++, k++) MZ_LANE(T, k, i)                      \
        l.nan += nan;                                                          \
        add_lanes(&l, n, s);                                                   \
    }
MZ_STATS_FLOAT(f32, float)
MZ_STATS_FLOAT(f64, double)

static void stats(int pt, const void *in, size_t n, mz_stats *s) {
    const uint8_t *x = in;
    switch (pt) {
    case MZ_I8: stats_i8(x, n, s); break;
    case MZ_U8: stats_u8(x, n, s); break;
    case MZ_I16: stats_i16(x, n, s); break;
    case MZ_U16: stats_u16(x, n, s); break;
    case MZ_U4:
        for (size_t a = 0; a < n; a += MZ_CHUNK) {
            uint8_t t[MZ_CHUNK];
            size_t e = MZ_MIN(n - a, MZ_CHUNK);
            unpack4(x + a / 2, t, e);
            stats_u8(t, e, s);
        }
        break;
    case MZ_F32:
        for (size_t a = 0; a < n; a += MZ_CHUNK) stats_f32(x + 4 * a, MZ_MIN(n - a, MZ_CHUNK), s);
        break;
    case MZ_F64:
        for (size_t a = 0; a < n; a += MZ_CHUNK) stats_f64(x + 8 * a, MZ_MIN(n - a, MZ_CHUNK), s);
        break;
    case MZ_F16:
        for (size_t a = 0; a < n; a += MZ_CHUNK) {
            float t[MZ_CHUNK];
            size_t e = MZ_MIN(n - a, MZ_CHUNK);
            to_float(MZ_F16, x + 2 * a, NULL, t, e, 0);
            stats_f32((const uint8_t *)t, e, s);
        }
        break;
    case MZ_I32:
    case MZ_U32: /* squares do not fit integers: through float64, which holds the pixels exactly */
        for (size_t a = 0; a < n; a += MZ_CHUNK / 2) {
            double t[MZ_CHUNK / 2];
            size_t e = MZ_MIN(n - a, MZ_CHUNK / 2);
            if (pt == MZ_I32)
                for (size_t i = 0; i < e; i++) {
                    MZ_GET(int32_t, v, x, a + i)
                    t[i] = v;
                }
            else
                for (size_t i = 0; i < e; i++) {
                    MZ_GET(uint32_t, v, x, a + i)
                    t[i] = v;
                }
            stats_f64((const uint8_t *)t, e, s);
        }
        break;
    }
}
