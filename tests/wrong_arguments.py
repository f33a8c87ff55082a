"""Arguments that are refused wherever they are taken."""

WRONG_PIXEL_SIZES = [
    -1,
    float("nan"),
    float("inf"),
    (),
    (1, 2),
    (1, 1, 1, 1),
    (-1, 1, 1),
    (1, -1, 1),
    (1, 1, -1),
    (1, float("nan"), 1),
    (1, 1, float("inf")),
]
