"""Digital Micrograph files made tag by tag, for the tests of `mrcz.formats.dm` and of `mrcz.ioDM`."""

import struct

__all__ = ["Maker"]


class Maker:
    """Writes tags of one version and byte order."""

    def __init__(self, version=4, order="<"):
        self.version, self.order = version, order
        self.counter = ">q" if version == 4 else ">i"

    def count(self, *values):
        return b"".join(struct.pack(self.counter, value) for value in values)

    def entry(self, kind, name, body):
        head = struct.pack(">BH", kind, len(name)) + name.encode("latin-1")
        return head + (struct.pack(">q", len(body)) if self.version == 4 else b"") + body

    def group(self, name, *children):
        return self.entry(20, name, b"\1\1" + self.count(len(children)) + b"".join(children))

    def value(self, name, info, data):
        return self.entry(21, name, b"%%%%" + self.count(len(info), *info) + data)

    def scalar(self, name, code, form, value):
        return self.value(name, [code], struct.pack(self.order + form, value))

    def string(self, name, text):
        data = text.encode("utf-16-le" if self.order == "<" else "utf-16-be")
        return self.value(name, [20, 4, len(text)], data)

    def image(self, pixels, *more, data=None, data_type=None, dims=None):
        code = {"f4": 6, "i2": 2, "u1": 10, "i1": 9, "i8": 11, "u8": 12}.get(pixels.dtype.str[1:])
        if data is None:
            raw = pixels.astype(pixels.dtype.newbyteorder(self.order)).tobytes()
            data = self.value("Data", [20, code, pixels.size], raw)
        dims = self.group("Dimensions", *[self.scalar("", 5, "I", n) for n in dims or pixels.shape[::-1]])
        kinds = [] if data_type is None else [self.scalar("DataType", 5, "I", data_type)]
        return self.group("", self.group("ImageData", data, *kinds, dims), *more)

    def file(self, *images, root=()):
        tags = [*root, self.group("ImageList", *images)]
        body = b"\1\1" + self.count(len(tags)) + b"".join(tags)
        return struct.pack(">i", self.version) + self.count(len(body)) + struct.pack(">i", self.order == "<") + body
