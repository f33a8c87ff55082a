/* The encoder of zstd.h: frames and their blocks (RFC 8878, 3.1.1). All variants write the same bytes. */

/* n bytes as one zstd frame; its length, or 0 if it does not fit cap. */
static size_t zstd_encode(const uint8_t *x, size_t n, const mz_zplan *plan, mz_zwork *w, uint8_t *out, size_t cap) {
    uint8_t *p = out, *end = out + cap, *last = NULL;
    size_t plane = plan->plane < 512 || !plan->stable ? n : plan->plane;
    int per_byte = plane == plan->plane ? plan->planes_per_byte : 0, top_empty = 0, index = 0;
    uint32_t repeat = 1;
    uint64_t sum[4];
    size_t hashed = 0;
    const uint8_t *unhashed = x; /* the bytes after those */
    xxh_start(sum, 0);
    w->has_tree = 0;
    if (cap < 32) return 0;
    put_bytes(p, 0xfd2fb528u, 4);
    int width = n < 256 ? 1 : n < 65536 + 256 ? 2 : 4; /* of the content's size; the window is all of it */
    p[4] = (uint8_t)((width == 1 ? 0 : width == 2 ? 0x40 : 0x80) | 0x20 | (plan->checksum ? 4 : 0));
    put_bytes(p + 5, width == 2 ? n - 256 : n, width);
    p += 5 + width;
    for (size_t a0 = 0; a0 < n; a0 += plane, index++) {
        size_t a1 = n - a0 < plane ? n : a0 + plane, counted = 0;
        for (size_t at = a0; at < a1; at += MZ_ZBLOCK) {
            const uint8_t *y = x + at;
            size_t m = a1 - at < MZ_ZBLOCK ? a1 - at : MZ_ZBLOCK, size = 0;
            /* blocks that end inside a stripe of the hash leave it for later */
            const uint8_t *ahead = plan->ahead ? plan->ahead + at * plan->ahead_step : NULL;
            uint8_t *copy = plan->stable ? NULL : w->copy;
            size_t zeros;
            if (plan->checksum && hashed == at) {
                zeros = count_and_hash(y, m, sum, &hashed, ahead, plan->ahead_step, copy);
                y = copy ? copy : y;
                unhashed = y + (hashed - at);
            } else {
                if (copy) y = memcpy(copy, y, m);
                zeros = count_zero(y, m);
            }
            int direct = (size_t)(end - p) >= sizeof w->spare + 3, gained = 1;
            uint8_t *block = direct ? p + 3 : w->spare, *q = block;
            counted += m - zeros;
            if (zeros == m && last) {
                if (end - p < 4) return 0;
                put_bytes(p, (uint64_t)1 << 1 | m << 3, 3);
                p[3] = 0;
                last = p;
                p += 4;
                continue;
            }
            if (zeros * 100 < m * MZ_SPARSE) {
                q = encode_literals(w, y, m, plan->sample, plan->min_gain, q, &gained);
                *q++ = 0; /* no sequences */
            } else {
                uint32_t distance = 1, used = repeat;
                if (top_empty && per_byte && zeros < m) distance = (uint32_t)(((size_t)index % per_byte + 1) * plane);
                nonzero_mask(y, w->nonzero, m);
                size_t matches = find_runs(w, m, distance == 1), count = gather_literals(w, y, m, matches);
                q = encode_literals(w, w->literals, count, 0, plan->min_gain, q, &gained);
                q = encode_sequences(w, matches, distance, &used, q);
                gained = q < block + m;
                if (gained) repeat = used;
            }
            size = (size_t)(q - block);
            if (!gained || size >= m) {
                size = m;
                w->has_tree = 0; /* what was made for this block is not in the frame */
                if ((size_t)(end - p) < m + 3) return 0;
                memcpy(p + 3, y, m);
                put_bytes(p, m << 3, 3);
            } else {
                if (!direct) {
                    if ((size_t)(end - p) < size + 3) return 0;
                    memcpy(p + 3, block, size);
                }
                put_bytes(p, (uint64_t)2 << 1 | size << 3, 3);
            }
            last = p;
            p += size + 3;
        }
        if (per_byte && index % per_byte == per_byte - 1) top_empty = counted == 0;
    }
    *last |= 1;
    if (plan->checksum) {
        if (end - p < 4) return 0;
        put_bytes(p, xxh_end(unhashed, n - hashed, n, 0, sum), 4);
        p += 4;
    }
    return (size_t)(p - out);
}
