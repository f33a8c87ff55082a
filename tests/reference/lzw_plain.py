"""LZW of TIFF 6.0 as it is written down there, both ways, and what its writers add: when the table is begun anew. Plain
and slow.

Codes of 9 to 12 bits, the first bit of a byte first; 256 is Clear, 257 the end, texts from 258 on. A code becomes a bit
longer one text before that is needed ("early change").
"""

from __future__ import annotations

CLEAR, END, FIRST = 256, 257, 258


def encode(
    data: bytes, *, full: int = 4094, gap: int = 10000, late: int = 2, pad: bool = False, afresh: bool = False
) -> bytes:
    """LZW of some bytes.

    Parameters
    ----------
    full : int
        The number of the next text at which the table is begun anew.
    gap : int
        So many bytes after the last look it is compared how well it compresses, and the table begun anew if that is no
        better than it was then; 0: never.
    late : int
        1: the last code counts as a text, so that the end may be a bit longer; 2: and may follow a Clear.
    pad : bool
        A byte of zeros follows where the codes end with a byte.
    afresh : bool
        The first look at each table comes after `gap` bytes of it; a byte counts once it is in a code that was written,
        and of what was written since the Clear the whole bytes. Codes that make codes longer are looked at, too.
    """
    bits = ""
    written = read = ratio = 0
    width, free, table, code, check = 9, FIRST, {}, -1, gap

    def put(value: int) -> None:
        nonlocal bits, written
        bits += format(value, f"0{width}b")
        written += width

    put(CLEAR)
    begun = len(bits)
    for byte in data:
        read += 1
        if code < 0:
            code = byte
            continue
        if (code, byte) in table:
            code = table[code, byte]
            continue
        put(code)
        table[code, byte] = free
        free, code = free + 1, byte
        anew = free == full
        if not anew and free == 1 << width and width < 12:
            width += 1
            if not afresh:
                continue
        if not anew and gap and read - afresh >= check:
            check = read - afresh + gap
            now = (read << 8) // written
            if afresh:
                now = ((read - 1) << 8) // (len(bits) // 8 - begun // 8)
            anew, ratio = now <= ratio, now
        if anew:
            written = ratio = 0
            read = 1 if afresh else 0  # the byte in hand
            check = gap if afresh else check
            put(CLEAR)
            begun = len(bits)
            width, free, table = 9, FIRST, {}
    if code >= 0:
        put(code)
        free += 1
        if late and free == full:
            if late > 1:
                put(CLEAR)
                width = 9
        elif late and free == 1 << width and width < 12:
            width += 1
    put(END)
    if pad and len(bits) % 8 == 0:
        bits += "0" * 8
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[k : k + 8], 2) for k in range(0, len(bits), 8))


def pack(codes: list[int], *, reversed_: bool = False) -> bytes:
    """Codes as bytes, each as wide as it is where a decoder meets it.

    Parameters
    ----------
    reversed_ : bool
        As before 1988: the lowest bit of a byte first, and longer codes one text later.
    """
    bits, size = "", 0
    for code in codes:
        text = format(code, f"0{_width(size, reversed_)}b")
        bits += text[::-1] if reversed_ else text
        size = _after(size, code)
    bits += "0" * (-len(bits) % 8)
    parts = [bits[k : k + 8] for k in range(0, len(bits), 8)]
    return bytes(int(part[::-1] if reversed_ else part, 2) for part in parts)


def _width(size: int, reversed_: bool) -> int:
    """Bits of the next code; *size* as `_after` gives it."""
    later = 0 if reversed_ else 1
    return 9 + sum(size + later >= most for most in (512, 1024, 2048))


def _after(size: int, code: int) -> int:
    """Texts of the table once a code was read: the first after a Clear makes none. 0: a Clear was read."""
    if code == CLEAR:
        return 0
    return size + 1 if size else FIRST


def decode(data: bytes, room: int) -> tuple[bytes, bool]:
    """What some bytes of LZW stand for: up to the end, the last whole code, or as far as there is room; and whether
    there is more, as neither an end nor nothing follows. An end may be a bit too short after the text that makes codes
    longer, or stand behind a Clear.

    Raises
    ------
    ValueError
        A code that stands for nothing: which, and at which bit.
    """
    reversed_ = len(data) > 1 and data[0] == 0 and data[1] & 1 == 1
    bits = "".join(format(byte, "08b")[:: -1 if reversed_ else 1] for byte in data)
    out, at, size, table, before = b"", 0, 0, {}, b""

    def read(place: int, width: int) -> int | None:
        text = bits[place : place + width]
        return int(text[::-1] if reversed_ else text, 2) if len(text) == width else None

    while len(out) < room and (code := read(at, width := _width(size, reversed_))) is not None:
        if at == 0 and code != CLEAR:
            raise ValueError("it does not begin with a CLEAR")
        if code == END:
            break
        if code == CLEAR:
            table, before = {}, b""
        else:
            if size == 5119:
                raise ValueError(f"code {code} at bit {at} stands where a CLEAR must: the table is full")
            found = bytes([code]) if code < CLEAR else table.get(code)
            if found is None and before and code == size:
                found = before + before[:1]
            if found is None:
                raise ValueError(f"code {code} at bit {at} is in no table yet")
            if before:
                table[size] = before + found[:1]
            out += found
            before = found
        size, at = _after(size, code), at + width
    if len(out) < room:
        return out, False
    width = _width(size, reversed_)
    code = read(at, width)
    short = size > FIRST and _width(size - 1, reversed_) < width and read(at, width - 1) == END
    cleared = code == CLEAR and read(at + width, 9) in (None, END)
    return out[:room], len(out) > room or not (code in (None, END) or short or cleared)
