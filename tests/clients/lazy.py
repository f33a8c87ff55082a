"""HyperSpy's lazy load of compressed files stays lazy: run by run.py in an environment with HyperSpy.

python lazy.py FOLDER
"""

import os
import sys

import hyperspy.api as hs
import numpy as np

import mrcz
from mrcz.file.decoding import Decoder

decoded = []
original = Decoder.decode


def counting(self, numbers, *rest, **keys):
    decoded.extend(numbers.tolist())
    return original(self, numbers, *rest, **keys)


def said():
    frames = sorted(decoded)
    decoded.clear()
    return frames


def main(folder):
    Decoder.decode = counting
    movie = np.random.default_rng(5).poisson(1.0, (40, 96, 128)).astype(np.uint8)
    for name, options in (("plain", {}), ("packed", {"pack": True}), ("written", None)):
        path = os.path.join(folder, f"{name}.mrcz")
        if options is None:  # as HyperSpy itself writes it
            hs.signals.Signal2D(movie.astype(np.int8)).save(path, compressor="zstd")
        else:
            mrcz.write(path, movie, pixel_size=1.25, metadata={"dose": 1.5}, **options)
        decoded.clear()
        signal = hs.load(path, lazy=True)
        assert signal._lazy and signal.data.shape == movie.shape
        assert str(signal.axes_manager).count("96") and said() == [], name
        assert np.array_equal(np.asarray(signal.inav[7].data), movie[7])
        assert said() == [7], name
        part = signal.inav[3:5].isig[10:20, 5:9]
        part.compute(show_progressbar=False)
        assert np.array_equal(part.data, movie[3:5, 5:9, 10:20])
        assert said() == [3, 4], name
        total = signal.sum(axis=0)
        assert said() == []
        total.compute(show_progressbar=False)
        assert np.array_equal(total.data, movie.sum(axis=0)) and said() == list(range(40))
        signal.compute(show_progressbar=False)
        assert np.array_equal(signal.data, movie)
        decoded.clear()
    print("3 files loaded lazily: only the frames asked for were decoded")


if __name__ == "__main__":
    main(sys.argv[1])
