PIXEL_TYPES: dict[str, int]
