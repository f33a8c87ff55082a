/* LZW as TIFF 6.0 has it (section 13: the first bit of a byte first, codes a bit longer one text early): decoded, and
 * encoded so that the bytes are those of a given writer. The standard leaves open when the table is begun anew; that is
 * what differs. */
#ifndef MZ_LZW_H
#define MZ_LZW_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
  MZ_LZW_CLEAR = 256,
  MZ_LZW_END = 257,
  MZ_LZW_FIRST = 258,
  MZ_LZW_MOST = 4096, /* texts; of 12 bits each */
  MZ_LZW_SLOTS = 16384,
  MZ_LZW_READ = 5119, /* texts after which a table without a Clear is damage, to libtiff as well */
  MZ_LZW_LENGTH = 13  /* bits of the length of a text: each is a byte longer than another */
};

typedef struct {
  uint32_t full; /* number of the next text at which the table is begun anew: 259 to 4096 */
  uint32_t gap;  /* bytes between two looks at how well it compresses; 0: never looked at */
  int late;      /* the last code counts as a text: 1, so that the end may be a bit longer; 2, also follow a Clear */
  int pad;       /* a byte of zeros follows where the last one is full */
  int afresh;    /* looks begin with each table, also where codes become longer, and count what was written, in bytes */
} mz_lzw_way;

/* An entry of the encoder's table is one word: the text's prefix (12 bits), its last byte, its own code (12 bits), so that
 * a look costs one load. No entry is 0, as codes of texts begin at 258. */
typedef struct {
  uint32_t slots[MZ_LZW_SLOTS];
} mz_lzw_table;

/* Codes to bytes: those that fill no four bytes yet wait in `bits`, `count` of them. */
typedef struct {
  uint64_t bits;
  uint32_t count;
  uint8_t *at, *end;
} mz_lzw_out;

static inline int mz_lzw_put(mz_lzw_out *out, uint32_t code, uint32_t width) {
  out->bits = out->bits << width | code;
  out->count += width;
  if (out->count >= 32) {
    if (out->end - out->at < 4)
      return 0;
    uint32_t word = (uint32_t)(out->bits >> (out->count - 32));
    out->at[0] = (uint8_t)(word >> 24);
    out->at[1] = (uint8_t)(word >> 16);
    out->at[2] = (uint8_t)(word >> 8);
    out->at[3] = (uint8_t)word;
    out->at += 4;
    out->count -= 32;
  }
  return 1;
}

/* Whole bytes that are written by now. */
static inline uint64_t mz_lzw_bytes(const mz_lzw_out *out, const uint8_t *to) {
  return (uint64_t)(out->at - to) + out->count / 8;
}

/* What is left of the bits, with zeros up to the end of the byte. */
static inline int mz_lzw_flush(mz_lzw_out *out, int pad) {
  uint32_t rest = (8 - out->count % 8) % 8;
  if (rest == 0 && pad)
    rest = 8;
  uint64_t bits = out->bits << rest;
  for (uint32_t left = out->count + rest; left >= 8; left -= 8) {
    if (out->at == out->end)
      return 0;
    *out->at++ = (uint8_t)(bits >> (left - 8));
  }
  return 1;
}

/* Where a text is looked for: no two of one last byte meet, and of the bytes 0 to 3 none at all. What depends on the byte
 * is known before the prefix is, which is what each step waits for. */
static inline uint32_t mz_lzw_turn(uint32_t byte) { return (byte << 12 ^ (byte >> 2) * 0x2F1) & (MZ_LZW_SLOTS - 1); }

/* Encode n bytes; how many came of them, or SIZE_MAX where there was no room for them. */
static inline size_t mz_lzw_encode(const uint8_t *in, size_t n, uint8_t *to, size_t room, const mz_lzw_way *way,
                                   mz_lzw_table *table) {
  mz_lzw_out out = {0, 0, to, to + room};
  uint32_t width = 9, next = MZ_LZW_FIRST, longer = 512;
  /* What is counted since the table was begun: bytes read (up to `begun`), bits written (as those before `counted`). */
  uint64_t ratio = 0, check = way->gap, written = 0;
  const ptrdiff_t hand = way->afresh ? 1 : 0; /* the byte that was read and is in no code yet */
  uint64_t before = 0;                        /* bytes written when the table was begun */
  const uint8_t *begun = in, *end = in + n;
  if (!mz_lzw_put(&out, MZ_LZW_CLEAR, width))
    return SIZE_MAX;
  written = width;
  before = mz_lzw_bytes(&out, to);
  memset(table->slots, 0, sizeof table->slots);
  if (n == 0)
    goto finish;
  {
    uint32_t code = *in++;
    while (in < end) {
      uint32_t byte = *in++, at = code ^ mz_lzw_turn(byte), key = code << 8 | byte, found;
      while ((found = table->slots[at]) != 0 && found >> 12 != key)
        at = (at + 1) & (MZ_LZW_SLOTS - 1);
      if (found != 0) {
        code = found & 4095;
        continue;
      }
      if (!mz_lzw_put(&out, code, width))
        return SIZE_MAX;
      written += width;
      code = key & 255;
      table->slots[at] = key << 12 | next++;
      int clear = next == way->full;
      if (!clear) {
        int longer_now = next == longer && width < 12;
        if (longer_now) {
          width++;
          longer *= 2;
        }
        if (way->gap && (way->afresh || !longer_now)) {
          uint64_t read = (uint64_t)(in - hand - begun);
          if (read >= check) {
            check = read + way->gap;
            uint64_t parts = written >> 8, now;
            if (way->afresh)
              now = (read << 8) / (mz_lzw_bytes(&out, to) - before); /* a code of 9 bits ends a byte at least */
            else
              now = read <= 0x7FFFFF ? (read << 8) / written : parts ? read / parts : 0x7FFFFFFF;
            clear = now <= ratio;
            ratio = now;
          }
        }
      }
      if (clear) {
        if (!mz_lzw_put(&out, MZ_LZW_CLEAR, width))
          return SIZE_MAX;
        before = mz_lzw_bytes(&out, to);
        written = width; /* which counts for the table that it begins */
        ratio = 0;
        begun = in - hand;
        if (way->afresh)
          check = way->gap;
        width = 9;
        next = MZ_LZW_FIRST;
        longer = 512;
        memset(table->slots, 0, sizeof table->slots);
      }
    }
    if (!mz_lzw_put(&out, code, width))
      return SIZE_MAX;
    next++;
    if (way->late) {
      if (next == way->full && way->late > 1) {
        if (!mz_lzw_put(&out, MZ_LZW_CLEAR, width))
          return SIZE_MAX;
        width = 9;
      } else if (next == longer && width < 12) {
        width++;
      }
    }
  }
finish:
  if (!mz_lzw_put(&out, MZ_LZW_END, width) || !mz_lzw_flush(&out, way->pad))
    return SIZE_MAX;
  return (size_t)(out.at - to);
}

/* ---- decoded ---- */

/* The decoder's: a text is an earlier one and the byte that follows it, and these lie side by side in what came out. So an
 * entry is where it begins there, and its length. Texts of one byte lie in `bytes`, with room for copies of 16. */
typedef struct {
  uint64_t texts[MZ_LZW_READ];
  uint8_t bytes[256 + 16];
} mz_lzw_texts;

typedef struct {
  size_t made;   /* bytes that came out; one more than there is room for if codes go on */
  uint64_t bit;  /* where the wrong code begins */
  uint32_t code; /* it itself */
  int wrong;     /* 0; 1: no Clear at the beginning; 2: not in the table; 3: the table is full, and never begun anew */
} mz_lzw_end;

static inline uint64_t mz_lzw_load(const uint8_t *at, int reversed) {
  uint64_t word;
  memcpy(&word, at, 8);
  /* Compilers know this as one instruction; a machine on which the first byte is the highest needs the other. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  reversed = !reversed;
#endif
  if (!reversed) {
    word = (word & 0x00FF00FF00FF00FFu) << 8 | (word >> 8 & 0x00FF00FF00FF00FFu);
    word = (word & 0x0000FFFF0000FFFFu) << 16 | (word >> 16 & 0x0000FFFF0000FFFFu);
    word = word << 32 | word >> 32;
  }
  return word;
}

static inline void mz_lzw_copy16(uint8_t *to, const uint8_t *from) {
  uint64_t low, high; /* both before either is written: they may overlap, and what lies behind the text is of no use */
  memcpy(&low, from, 8);
  memcpy(&high, from + 8, 8);
  memcpy(to, &low, 8);
  memcpy(to + 8, &high, 8);
}

static inline uint32_t mz_lzw_code(uint64_t word, uint32_t shift, uint32_t width, int reversed) {
  return (uint32_t)(reversed ? word >> shift & ((1u << width) - 1) : word << shift >> (64 - width));
}

/* Decode n bytes, up to the End, or the last whole code, or as far as there is room. `reversed`: as before 1988, the lowest
 * bit of a byte first, and codes longer one text later. No text is read that was not written, whatever the codes say.
 *
 * Where the room is full an End or nothing has to follow. Libtiff before 4.0.10 did not count the last text, so that its
 * End may be a bit shorter than a decoder expects; libtiff since may write a Clear before it. */
static inline mz_lzw_end mz_lzw_decode_as(const uint8_t *in, size_t n, uint8_t *out, size_t room, mz_lzw_texts *table,
                                          int reversed) {
  mz_lzw_end end = {0, 0, 0, 0};
  const uint64_t bits = 8 * (uint64_t)n;
  const uint32_t early = reversed ? 0 : 1;
  /* The last bytes once more, with zeros behind them, as eight are loaded at a time. */
  uint8_t last[16] = {0};
  const size_t kept = n < 8 ? n : 8, from = n - kept;
  uint32_t width = 9, next = MZ_LZW_FIRST, longer = 512 - early;
  size_t at = 0, before = 0, length = 0; /* the text before: where it begins, its length; none after a Clear */
  uint64_t bit = 0;
  if (kept)
    memcpy(last, in + from, kept);
  for (uint32_t byte = 0; byte < 256; byte++) {
    table->bytes[byte] = (uint8_t)byte;
    table->texts[byte] = 1;
  }
  while (at < room && bit + width <= bits) {
    const size_t place = (size_t)(bit >> 3);
    const uint64_t word = mz_lzw_load(place < from ? in + place : last + (place - from), reversed);
    const uint32_t code = mz_lzw_code(word, (uint32_t)(bit & 7), width, reversed);
    if (bit == 0 && code != MZ_LZW_CLEAR) {
      end.wrong = 1;
      break;
    }
    if (code == MZ_LZW_END)
      break;
    if (code == MZ_LZW_CLEAR) {
      bit += width;
      width = 9;
      next = MZ_LZW_FIRST;
      longer = 512 - early;
      length = 0;
      continue;
    }
    if (length != 0 && next < MZ_LZW_READ) /* which this code may already mean */
      table->texts[next] = (uint64_t)before << MZ_LZW_LENGTH | (length + 1);
    if (next == MZ_LZW_READ || code > (length != 0 ? next : MZ_LZW_END)) {
      end.wrong = next == MZ_LZW_READ ? 3 : 2;
      end.code = code;
      break;
    }
    const uint64_t text = table->texts[code];
    const size_t count = text & ((1u << MZ_LZW_LENGTH) - 1);
    const uint8_t *source = code < 256 ? table->bytes + code : out + (text >> MZ_LZW_LENGTH);
    if (room - at >= count + 16) {
      mz_lzw_copy16(out + at, source);
      for (size_t k = 16; k < count; k += 16)
        mz_lzw_copy16(out + at + k, source + k);
      if (code == next) /* the text that has just begun: its last byte is the first that was copied */
        out[at + count - 1] = out[at];
    } else {
      const size_t left = count < room - at ? count : room - at;
      for (size_t k = 0; k < left; k++)
        out[at + k] = source[k];
    }
    next += length != 0;
    before = at;
    length = count;
    at += count;
    bit += width;
    if (next == longer && width < 12) {
      width++;
      longer = (1u << width) - early;
    }
  }
  end.made = at < room ? at : room;
  if (at == room && bit + width <= bits) {
    const size_t place = (size_t)(bit >> 3);
    const uint64_t word = mz_lzw_load(place < from ? in + place : last + (place - from), reversed);
    const uint32_t shift = (uint32_t)(bit & 7), code = mz_lzw_code(word, shift, width, reversed);
    const int grew = width > 9 && next == (1u << (width - 1)) - early; /* by the text that came last */
    const int ends = code == MZ_LZW_END ||
                     (grew && mz_lzw_code(word, shift, width - 1, reversed) == MZ_LZW_END) ||
                     (code == MZ_LZW_CLEAR && (bit + width + 9 > bits ||
                                               mz_lzw_code(word, shift + width, 9, reversed) == MZ_LZW_END));
    end.made += !ends;
  } else if (at > room) {
    end.made = room + 1;
  }
  end.bit = bit;
  return end;
}

static inline mz_lzw_end mz_lzw_decode(const uint8_t *in, size_t n, uint8_t *out, size_t room, mz_lzw_texts *table) {
  /* As libtiff tells them apart: a Clear is 256 in nine bits of either order. */
  const int reversed = n > 1 && in[0] == 0 && (in[1] & 1);
  return reversed ? mz_lzw_decode_as(in, n, out, room, table, 1) : mz_lzw_decode_as(in, n, out, room, table, 0);
}

#endif
