/* Byte order: elements of 2, 4 or 8 bytes reversed. */

static void byteswap(size_t size, const uint8_t *in, uint8_t *out, size_t n) {
    switch (size) {
    case 2:
        for (size_t i = 0; i < n; i++) {
            uint16_t v;
            memcpy(&v, in + 2 * i, 2);
            v = (uint16_t)(v << 8 | v >> 8);
            memcpy(out + 2 * i, &v, 2);
        }
        break;
    case 4:
        for (size_t i = 0; i < n; i++) {
            uint32_t v;
            memcpy(&v, in + 4 * i, 4);
            v = v >> 24 | (v >> 8 & 0xff00u) | (v << 8 & 0xff0000u) | v << 24;
            memcpy(out + 4 * i, &v, 4);
        }
        break;
    case 8:
        for (size_t i = 0; i < n; i++) {
            uint64_t v;
            memcpy(&v, in + 8 * i, 8);
            v = (v >> 8 & 0x00ff00ff00ff00ffULL) | (v & 0x00ff00ff00ff00ffULL) << 8;
            v = (v >> 16 & 0x0000ffff0000ffffULL) | (v & 0x0000ffff0000ffffULL) << 16;
            v = v >> 32 | v << 32;
            memcpy(out + 8 * i, &v, 8);
        }
    }
}
