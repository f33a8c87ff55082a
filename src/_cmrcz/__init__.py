"""The compiled core of mrcz: bytes to bytes and pixels to pixels, without the GIL."""
