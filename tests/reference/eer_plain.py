"""Electron-event (EER) frames and files the plain way, after "EER File Format" 3.0: code by code, bit by bit."""

import struct

import numpy as np

CODES = {65000: (8, 2, 2), 65001: (7, 2, 2)}


def encode(pixels, places, total, code, *, wasteful=False, word=8, close=True):
    """The bytes of a frame: pixels with an electron, ascending, and its place in each of them.

    word : bytes that the stream is filled up to. close : the last run is written though it is empty, as the vendor's
    reader expects it behind an electron in the last pixel.
    """
    skip, across, down = code
    full = 2**skip - 1
    bits = []

    def put(value, n):
        bits.extend(value >> k & 1 for k in range(n))

    def empty(n):
        while n >= full:
            put(full, skip)
            n -= full
            put(0, across + down if wasteful else 0)
        return n

    at = 0
    for pixel, place in zip(pixels, places, strict=True):
        put(empty(pixel - at), skip)
        put(place, across + down)
        at = pixel + 1
    left = empty(total - at)
    if left or (close and at == total):
        put(left, skip)
    bits += [0] * (-len(bits) % (8 * word))
    return np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes()


def decode(data, total, code, *, wasteful=False):
    """The electrons of a frame, [(pixel, place)]; ValueError where its bits and its pixels do not end together."""
    skip, across, down = code
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").tolist()
    bit = pixel = 0
    closed = False
    found = []

    def take(n):
        nonlocal bit
        if bit + n > len(bits):
            raise ValueError("short")
        value = sum(b << k for k, b in enumerate(bits[bit : bit + n]))
        bit += n
        return value

    while pixel < total:
        run = take(skip)
        pixel += run
        if pixel > total:
            raise ValueError("past")
        if pixel == total:
            closed = True
        elif run == 2**skip - 1:
            bit += min(across + down, len(bits) - bit) if wasteful else 0
        else:
            found.append((pixel, take(across + down)))
            pixel += 1
    if not closed and len(bits) - bit >= skip and not any(bits[bit : bit + skip]):
        bit += skip
    rest = bits[bit:]
    if len(rest) >= 64 and any(b != rest[0] for b in rest):
        raise ValueError("rest")
    return found


def full_runs(events, total, code):
    """Runs of all ones in a frame of these electrons."""
    ends = [-1, *(pixel for pixel, _ in events)]
    gaps = [after - before - 1 for before, after in zip(ends, [*ends[1:], total], strict=True)]
    at_end = gaps[-1] > 0 and gaps[-1] % (2 ** code[0] - 1) == 0  # the run that ends the frame is no run before another
    return sum(gap // (2 ** code[0] - 1) for gap in gaps) - at_end


def image(events, shape, code, upsampling=1):
    """The electrons as an image (ny · upsampling, nx · upsampling) of counts."""
    _, across, down = code
    out = np.zeros((shape[0] * upsampling, shape[1] * upsampling), np.int64)
    for pixel, place in events:
        y, x = divmod(pixel, shape[1])
        sub_x = (place % 2**across ^ across) * upsampling >> across
        sub_y = ((place >> across) ^ down) * upsampling >> down
        out[y * upsampling + sub_y, x * upsampling + sub_x] += 1
    return out


def metadata(items):
    """The XML of a metadata field. items : [(name, unit or None, value)]."""
    lines = "".join(
        f'<item name="{name}"' + (f' unit="{unit}"' if unit else "") + f">{value}</item>" for name, unit, value in items
    )
    return f"<metadata>{lines}</metadata>".encode()


def directory_file(directories, *, order="<", big=True):
    """A TIFF or BigTIFF of directories: [[(tag, type, values or bytes), …]]; a value that is a list of bytes becomes
    strips, their offsets with tag 273 and their sizes with 279."""
    size = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1, 13: 4, 16: 8}
    letter = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
    here = 8 if big else 4
    word = "Q" if big else "I"
    out = bytearray(struct.pack(order + "2sHHHQ", *(b"II" if order == "<" else b"MM",), 43, 8, 0, 0))
    if not big:
        out = bytearray(struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 0))
    link = len(out) - here
    for fields in directories:
        fields = dict((tag, (kind, value)) for tag, kind, value in fields)
        if "strips" in fields:
            strips = fields.pop("strips")[1]
            offsets = []
            for strip in strips:
                offsets.append(len(out))
                out += strip
            kind = 16 if big else 4
            fields[273] = (kind, offsets)
            fields[279] = (kind, [len(strip) for strip in strips])
        packed = []
        for tag in sorted(fields):
            kind, value = fields[tag]
            if not isinstance(value, bytes):
                value = value if isinstance(value, list) else [value]
                value = struct.pack(f"{order}{len(value)}{letter[kind]}", *value)
            count = len(value) // size[kind]
            if len(value) > here:
                out += b"\0" * (-len(out) % 8)
                at = len(out)
                out += value
                value = struct.pack(order + word, at)
            packed.append(struct.pack(f"{order}HH{word}", tag, kind, count) + value.ljust(here, b"\0"))
        out += b"\0" * (-len(out) % 8)
        out[link : link + here] = struct.pack(order + word, len(out))
        out += struct.pack(order + ("Q" if big else "H"), len(packed)) + b"".join(packed)
        link = len(out)
        out += b"\0" * here
    return bytes(out)


def eer_fields(frame, shape, compression=65001, *, code=None, strips=1, about=None, acquisition=None, orientation=1):
    """The directory of a frame, for `directory_file`."""
    step = -(-len(frame) // strips) or 1
    fields = [
        (256, 4, shape[1]),
        (257, 4, shape[0]),
        (259, 3, compression),
        (274, 3, orientation),
        (278, 4, -(-shape[0] // strips)),
        ("strips", 0, [frame[k : k + step] for k in range(0, max(len(frame), 1), step)]),
    ]
    if code is not None:
        fields += [(65007 + k, 3, n) for k, n in enumerate(code)]
    if about is not None:
        fields.append((65002, 7, about))
    if acquisition is not None:
        fields.append((65001, 7, acquisition))
    return fields


def final_fields(image, *, about=None, acquisition=None, order="<"):
    """The directory of a final image, (ny, nx) uint16."""
    fields = [
        (256, 4, image.shape[1]),
        (257, 4, image.shape[0]),
        (258, 3, 16),
        (259, 3, 1),
        (274, 3, 1),
        (278, 4, image.shape[0]),
        ("strips", 0, [image.astype(order + "u2").tobytes()]),
    ]
    if about is not None:
        fields.append((65006, 7, about))
    if acquisition is not None:
        fields.append((65001, 7, acquisition))
    return fields
