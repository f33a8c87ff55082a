/* The encoder of zstd.h: frames and their blocks (RFC 8878, 3.1.1). All variants write the same bytes. */

/* A frame that is being written. */
typedef struct {
    const mz_zplan *plan;
    mz_zwork *w;
    uint8_t *p, *end, *last; /* where it goes on, where its room ends, the header of the last block */
    uint32_t repeat;         /* the offset that zstd remembers */
    uint64_t sum[4];         /* of the first `hashed` bytes; those after them are at unhashed */
    size_t hashed;
    const uint8_t *unhashed;
} frame_writer;

/* 3.1.1.1; the window is all of the content */
static uint8_t *write_frame_header(size_t n, int checksum, uint8_t *p) {
    int width = n < 256 ? 1 : n < 65536 + 256 ? 2 : 4; /* of the content's size */
    put_bytes(p, 0xfd2fb528u, 4);
    p[4] = (uint8_t)((width == 1 ? 0 : width == 2 ? 0x40 : 0x80) | 0x20 | (checksum ? 4 : 0));
    put_bytes(p + 5, width == 2 ? n - 256 : n, width);
    return p + 5 + width;
}
/* How many of the m bytes at *y, the frame's from `at`, are 0; they are hashed on the way, and copied if others may
 * write to them: then *y is the copy. Blocks that end inside a stripe of the hash leave it for later. */
static size_t look_through(frame_writer *f, const uint8_t **y, size_t m, size_t at) {
    const mz_zplan *plan = f->plan;
    uint8_t *copy = plan->stable ? NULL : f->w->copy;
    if (plan->checksum && f->hashed == at) {
        const uint8_t *ahead = plan->ahead ? plan->ahead + at * plan->ahead_step : NULL;
        size_t zeros = count_and_hash(*y, m, f->sum, &f->hashed, ahead, plan->ahead_step, copy);
        if (copy) *y = copy;
        f->unhashed = *y + (f->hashed - at);
        return zeros;
    }
    if (copy) *y = memcpy(copy, *y, m);
    return count_zero(*y, m);
}
/* A compressed block's content (3.1.1.3) at q, its end; *gained: is it smaller than the m bytes at y? distance: of a
 * match, if the bytes are mostly zeros. */
static uint8_t *compress_block(frame_writer *f, const uint8_t *y, size_t m, size_t zeros, uint32_t distance, uint8_t *q,
                               int *gained) {
    const mz_zplan *plan = f->plan;
    mz_zwork *w = f->w;
    uint8_t *block = q;
    if (zeros * 100 < m * MZ_SPARSE) {
        q = encode_literals(w, y, m, plan->sample, plan->min_gain, q, gained);
        *q++ = 0; /* no sequences */
        *gained = *gained && q < block + m;
    } else {
        uint32_t used = f->repeat;
        nonzero_mask(y, w->nonzero, m);
        size_t matches = find_runs(w, m, distance == 1), count = gather_literals(w, y, m, matches);
        q = encode_literals(w, w->literals, count, 0, plan->min_gain, q, gained);
        q = encode_sequences(w, matches, distance, &used, q);
        *gained = q < block + m;
        if (*gained) f->repeat = used;
    }
    return q;
}
/* A block (3.1.1.2) of the m bytes at y; 0 if there is no room for it. */
static int write_block(frame_writer *f, const uint8_t *y, size_t m, size_t zeros, uint32_t distance) {
    uint8_t *p = f->p;
    size_t room = (size_t)(f->end - p);
    if (zeros == m && f->last) { /* one byte repeated: not the first, at which zstd 1.4.3 stumbles */
        if (room < 4) return 0;
        put_bytes(p, (uint64_t)1 << 1 | m << 3, 3);
        p[3] = 0;
        f->last = p;
        f->p = p + 4;
        return 1;
    }
    int direct = room >= sizeof f->w->spare + 3, gained;
    uint8_t *block = direct ? p + 3 : f->w->spare;
    size_t size = (size_t)(compress_block(f, y, m, zeros, distance, block, &gained) - block);
    if (!gained) {
        size = m;
        f->w->has_tree = 0; /* what was made for this block is not in the frame */
        block = (uint8_t *)y;
    }
    if (room < size + 3) return 0;
    if (block != p + 3) memcpy(p + 3, block, size);
    put_bytes(p, (gained ? (uint64_t)2 << 1 : 0) | size << 3, 3);
    f->last = p;
    f->p = p + size + 3;
    return 1;
}
/* n bytes as one zstd frame; its length, or 0 if it does not fit cap. */
static size_t zstd_encode(const uint8_t *x, size_t n, const mz_zplan *plan, mz_zwork *w, uint8_t *out, size_t cap) {
    frame_writer f = {.plan = plan, .w = w, .end = out + cap, .repeat = 1, .unhashed = x};
    size_t plane = plan->plane < 512 || !plan->stable ? n : plan->plane;
    int per_byte = plane == plan->plane ? plan->planes_per_byte : 0, top_empty = 0, index = 0;
    xxh_start(f.sum, 0);
    w->has_tree = 0;
    if (cap < 32) return 0;
    f.p = write_frame_header(n, plan->checksum, out);
    for (size_t a0 = 0; a0 < n; a0 += plane, index++) {
        size_t a1 = n - a0 < plane ? n : a0 + plane, counted = 0;
        for (size_t at = a0; at < a1; at += MZ_ZBLOCK) {
            const uint8_t *y = x + at;
            size_t m = a1 - at < MZ_ZBLOCK ? a1 - at : MZ_ZBLOCK, zeros = look_through(&f, &y, m, at);
            uint32_t distance = 1;
            if (top_empty && per_byte && zeros < m) distance = (uint32_t)(((size_t)index % per_byte + 1) * plane);
            counted += m - zeros;
            if (!write_block(&f, y, m, zeros, distance)) return 0;
        }
        if (per_byte && index % per_byte == per_byte - 1) top_empty = counted == 0;
    }
    *f.last |= 1;
    if (plan->checksum) {
        if (f.end - f.p < 4) return 0;
        put_bytes(f.p, xxh_end(f.unhashed, n - f.hashed, n, 0, f.sum), 4);
        f.p += 4;
    }
    return (size_t)(f.p - out);
}
