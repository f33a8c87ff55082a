"""Small valid files of each format, for what damages them: one function a format, which gives their paths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from reference import eer_plain


def seeds_eer(folder: Path) -> list[Path]:
    """Electron events: each compression and way, several strips, a final image, both containers and byte orders."""
    rng = np.random.default_rng(15)
    shape, total = (16, 40), 640
    about = eer_plain.metadata([("dose", "e/pixel", "0.05"), ("timestamp", None, "2023-03-03T10:11:12.345+01:00")])
    said = eer_plain.metadata(
        [
            ("exposureTime", "s", "0.5"),
            ("numberOfFrames", None, "4"),
            ("sensorPixelSize.width", "m", "7e-11"),
            ("sensorPixelSize.height", "m", "7e-11"),
            ("totalDose", "e/pixel", "0.2"),
        ]
    )
    kinds = [
        ("vendor", 65000, (8, 2, 2), {}, {}, {}),
        ("relion", 65000, (8, 2, 2), {"wasteful": True}, {}, {}),
        ("falcon4", 65001, (7, 2, 2), {}, {"strips": 3, "orientation": 2}, {}),
        ("falconc", 65002, (7, 1, 1), {}, {}, {}),
        ("big-endian", 65001, (7, 2, 2), {}, {}, {"order": ">"}),
        ("classic", 65001, (7, 2, 2), {}, {}, {"big": False}),
    ]
    paths = []
    for name, compression, code, stream, fields, container in kinds:
        directories = []
        for k in range(4):
            pixels = np.flatnonzero(rng.random(total) < 0.05).tolist()
            places = rng.integers(0, 2 ** sum(code[1:]), len(pixels)).tolist()
            frame = eer_plain.encode(pixels, places, total, code, **stream)
            stored = code if compression == 65002 else None
            acquisition = said if k == 0 else None
            directories.append(
                eer_plain.eer_fields(
                    frame, shape, compression, code=stored, about=about, acquisition=acquisition, **fields
                )
            )
        if name == "falcon4":
            image = rng.integers(0, 999, shape).astype("u2")
            directories.insert(0, eer_plain.final_fields(image, about=about, acquisition=said))
        path = folder / f"{name}.eer"
        path.write_bytes(eer_plain.directory_file(directories, **container))
        paths.append(path)
    return paths
