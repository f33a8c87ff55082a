"""What a type checker sees of the installed package in another project: .ci/run lets mypy check this file."""

from typing import Any, assert_type

import numpy as np

import mrcz
from _cmrcz import chunk
from mrcz.check.validate import Validation
from mrcz.check.verify import Verification
from mrcz.file.editing import HeaderEdit

with mrcz.open("a.mrcz", permissive=True) as reader:
    assert_type(reader, mrcz.Reader)
    assert_type(reader.header, mrcz.Header)
    assert_type(reader.pixel_size, tuple[float, float, float])
with mrcz.open("b.mrcz", "w", pixel_size=0.83) as writer:
    assert_type(writer, mrcz.Writer)
    writer.append(np.zeros((4, 4), np.uint8))
assert_type(mrcz.read("a.mrcz"), np.ndarray)
assert_type(mrcz.readMRC("a.mrcz"), tuple[Any, dict[str, Any]])
assert_type(mrcz.verify("a.mrcz"), Verification)
assert_type(mrcz.read("a.mrcz", squeeze=True), np.ndarray)
assert_type(mrcz.edit_header("a.mrcz", pixel_size=0.83, label="by hand", ispg=1), HeaderEdit)
assert_type(mrcz.validate("a.mrcz"), Validation)
assert_type(mrcz.validate("a.mrcz").problems, tuple[str, ...])
assert_type(chunk.versions(), dict[str, Any])
print(mrcz.no_such_name)  # type: ignore[attr-defined]
