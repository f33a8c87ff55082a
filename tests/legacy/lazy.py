"""What stands for an array that is too large: anything that slices."""

import numpy as np


class Lazy:
    """Looks like a dask or h5py array; frames come into being when they are sliced."""

    def __init__(self, shape, dtype):
        self.shape, self.dtype, self.largest = shape, np.dtype(dtype), 0

    def __getitem__(self, key):
        frames = np.arange(self.shape[0])[key]
        self.largest = max(self.largest, frames.size)
        return np.broadcast_to(frames.astype(self.dtype)[..., None, None], (*frames.shape, *self.shape[1:])).copy()
