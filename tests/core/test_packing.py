"""Packing signed bytes: what does not fit is found while packing, as it is for unsigned ones."""

import numpy as np
import pytest

import mrcz


def layouts(stack):
    """The same pixels as callers hold them."""
    wide = np.zeros((*stack.shape[:2], 2 * stack.shape[2]), stack.dtype)
    wide[:, :, ::2] = stack
    readonly = stack.copy()
    readonly.flags.writeable = False
    return {
        "plain": stack,
        "strided": wide[:, :, ::2],
        "turned": stack.transpose(0, 2, 1).copy().transpose(0, 2, 1),
        "list": list(stack),
        "read-only": readonly,
    }


@pytest.mark.parametrize("shape", ((1, 1), (7, 9), (700, 801)))
@pytest.mark.parametrize("dtype", ("i1", "u1", "i2", "u4"))
@pytest.mark.parametrize("options", ({}, {"backend": "blosc2"}, {"codec": "none"}, {"n_threads": 1}))
def test_every_layout_is_packed_alike(tmp_path, rng, shape, dtype, options):
    stack = rng.integers(0, 16, (3, *shape)).astype(dtype)
    for name, frames in layouts(stack).items():
        path = tmp_path / f"{name}.mrcz"
        mrcz.write(path, frames, pack=True, sync=False, **options)
        with mrcz.open(path) as reader:
            assert reader.header.mode == 101
            np.testing.assert_array_equal(reader.read(), stack)
            if reader.frame_stats is not None:
                np.testing.assert_array_equal(reader.frame_stats[:, :2], [(f.min(), f.max()) for f in stack])


@pytest.mark.parametrize("value", (-1, -128, 16, 127))
@pytest.mark.parametrize("options", ({}, {"backend": "blosc2"}, {"codec": "none"}))
def test_a_signed_byte_that_does_not_fit(tmp_path, rng, value, options):
    for shape in ((6, 9), (300, 900)):
        stack = rng.integers(0, 16, (4, *shape)).astype(np.int8)
        stack[2, -1, -1] = value
        path = tmp_path / "m.mrcz"
        for frames in layouts(stack).values():
            with pytest.raises(ValueError, match="does not fit 4 bits"):
                mrcz.write(path, frames, pack=True, sync=False, **options)
            assert not path.exists()
            # falling back keeps their sign
            mrcz.write(path, frames, pack="auto", sync=False, overwrite=True, **options)
            with mrcz.open(path) as reader:
                assert reader.header.mode == 0 and reader.dtype == np.int8
                np.testing.assert_array_equal(reader.read(), stack)
            path.unlink()
