"""What a type checker sees of the installed package in another project: .ci/run lets mypy check this file.

With ``--warn-unused-ignores``, so that every ``type: ignore`` is a claim too: a wrong keyword is an error.
"""

from typing import Any, assert_type

import numpy as np

import mrcz
from _cmrcz import chunk
from mrcz.check.validate import Validation
from mrcz.check.verify import Verification
from mrcz.file.editing import HeaderEdit
from mrcz.file.encoding import Encoding

with mrcz.open("a.mrcz", permissive=True) as reader:
    assert_type(reader, mrcz.Reader)
    assert_type(reader.header, mrcz.Header)
    assert_type(reader.pixel_size, tuple[float, float, float])
    assert_type(reader.codec, str)
    assert_type(reader.options, mrcz.ReadOptions)
with mrcz.open("b.mrcz", "w", pixel_size=0.83, mrc_mode=6, counts_per_electron=32.0) as writer:
    assert_type(writer, mrcz.Writer)
    assert_type(writer.codec, str)
    assert_type(writer.dtype, np.dtype[Any] | None)
    assert_type(writer.encoding, Encoding | None)
    writer.append(np.zeros((4, 4), np.uint8))
assert_type(mrcz.open("b.mrcz", "a", metadata={"more": 1}), mrcz.Writer)
assert_type(mrcz.read("a.mrcz"), np.ndarray)
assert_type(mrcz.readMRC("a.mrcz"), tuple[Any, dict[str, Any]])
assert_type(mrcz.verify("a.mrcz"), Verification)
options = mrcz.ReadOptions(n_threads=2)
assert_type(mrcz.read("s3://bucket/a.mrcz", frames=[0, 2], squeeze=False, options=options), np.ndarray)
assert_type(mrcz.edit_header("a.mrcz", pixel_size=0.83, label="by hand", ispg=1), HeaderEdit)
assert_type(mrcz.validate("a.mrcz"), Validation)
assert_type(mrcz.validate("a.mrcz").problems, tuple[str, ...])
assert_type(chunk.versions(), dict[str, Any])

print(mrcz.no_such_name)  # type: ignore[attr-defined]
mrcz.open("a.mrcz", permisive=True)  # type: ignore[call-overload]
mrcz.open("a.mrcz", codec="zstd")  # type: ignore[call-overload]
mrcz.open("b.mrcz", "w", permissive=True)  # type: ignore[call-overload]
mrcz.open("b.mrcz", "w", gain=2.0)  # type: ignore[call-overload]
mrcz.open("b.mrcz", "w", mode=16)  # type: ignore[call-overload]
mrcz.open("b.mrcz", "a", n_threads="all")  # type: ignore[call-overload]
mrcz.read("a.mrcz", frame=3)  # type: ignore[call-arg]
mrcz.read("a.mrcz", squeeze="yes")  # type: ignore[arg-type]
mrcz.write("b.mrcz", np.zeros((4, 4)), mode=2)  # type: ignore[call-arg]
mrcz.write("b.mrcz", np.zeros((4, 4)), compressor="zstd")  # type: ignore[call-arg]
mrcz.Reader("a.mrcz", threads=2)  # type: ignore[call-arg]
mrcz.Writer("b.mrcz", clevel=1)  # type: ignore[call-arg]
mrcz.Writer.append_to("b.mrcz", pixelsize=1.0)  # type: ignore[call-arg]
mrcz.ReadOptions(threads=2)  # type: ignore[call-arg]
mrcz.Codec("zstd", clevel=1)  # type: ignore[call-arg]
options.n_threads = 3  # type: ignore[misc]
