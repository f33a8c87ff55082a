/* Bytes and words: what every other template needs. Numbers are little endian in memory, at any address. */

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define MZ_BIG_ENDIAN 1
#else
#define MZ_BIG_ENDIAN 0
#endif
#ifdef _MSC_VER
#define MZ_RESTRICT __restrict
#else
#define MZ_RESTRICT restrict
#endif

static inline uint64_t load8(const uint8_t *p) {
    uint64_t v = 0;
    if (MZ_BIG_ENDIAN)
        for (int i = 0; i < 8; i++) v |= (uint64_t)p[i] << 8 * i;
    else
        memcpy(&v, p, 8);
    return v;
}
static inline void store8(uint8_t *p, uint64_t v) {
    if (MZ_BIG_ENDIAN)
        for (int i = 0; i < 8; i++) p[i] = (uint8_t)(v >> 8 * i);
    else
        memcpy(p, &v, 8);
}
static inline void store4(uint8_t *p, uint32_t v) {
    if (MZ_BIG_ENDIAN)
        for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> 8 * i);
    else
        memcpy(p, &v, 4);
}

static inline uint32_t load4(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline int highbit(uint32_t v) {
#if defined(__GNUC__) || defined(__clang__)
    return 31 - __builtin_clz(v);
#else
    int b = 0;
    while (v >>= 1) b++;
    return b;
#endif
}
static inline unsigned ctz(uint64_t v) {
#if defined(__GNUC__) || defined(__clang__)
    return (unsigned)__builtin_ctzll(v);
#else
    unsigned b = 0;
    while (!(v & 1)) v >>= 1, b++;
    return b;
#endif
}
static inline void put_bytes(uint8_t *p, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) p[i] = (uint8_t)(v >> 8 * i);
}
