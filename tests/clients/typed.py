"""What type checkers see of the installed package in another project: .ci/types lets mypy and pyright check this file.

Both report a ``type: ignore`` that nothing is wrong with, so that each is a claim too: a wrong keyword is an error.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from concurrent.futures import Future
from typing import Any, assert_type

import numpy as np

import mrcz
from _cmrcz import chunk
from mrcz.check.origin import is_archive_of
from mrcz.check.validate import Validation
from mrcz.check.verify import Verification
from mrcz.correct import Correction, Koma, OutlierModel, fit_outliers, koma_references
from mrcz.file.editing import HeaderEdit
from mrcz.file.encoding import Encoding
from mrcz.session.correct import Corrected, correct_file
from mrcz.session.koma import KomaSession, koma_session

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
assert_type(reader.header.replace(ispg=1, label=["by hand"], cellb=(90.0, 90.0, 90.0)), mrcz.Header)
assert_type(mrcz.Codec.from_blosc("zstd", 3, checksum=False), mrcz.Codec)
assert_type(mrcz.asyncReadMRC("a.mrcz", slices=0), Future[tuple[Any, dict[str, Any]]])
assert_type(mrcz.asyncWriteMRC(np.zeros((4, 4)), "b.mrcz", compressor="zstd"), Future[None])
assert_type(mrcz.asyncReadDM4("a.dm4", verbose=True), Future[mrcz.readDM4])
assert_type(is_archive_of("a.mrcz", "a.mrc", permissive=True, n_threads=2), str | None)

stack = np.zeros((4, 64, 64), np.uint8)
koma = Koma(5, shrink=False)
session = KomaSession(koma)
assert_type(fit_outliers(stack, n_sigma=4.0), OutlierModel)
assert_type(Correction.fit(stack, method="fdr", super_resolution=2), Correction)
assert_type(correct_file("a.mrcz", {"sum": "a_sum.mrc"}, alpha=1e-3, n_threads=2), Corrected)
for result in session.correct(["a.mrcz"], lambda source: {}, finish=False, overwrite="any", n_sigma=4.0, n_threads=2):
    assert_type(result, Corrected)
for reference in koma_references([stack[0], stack[1]], 1, shrink=False, n_frames=4):
    assert_type(reference.image, np.ndarray)

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
mrcz.compress("a.mrc", "b.mrcz", compressor="zstd")  # type: ignore[call-arg]
mrcz.decompress("a.mrcz", "b.mrc", n_thread=2)  # type: ignore[call-arg]
mrcz.verify("a.mrcz", threads=2)  # type: ignore[call-arg]
mrcz.describe("a.mrcz", pixel=False)  # type: ignore[call-arg]
mrcz.recover("a.mrcz", "b.mrcz", force=True)  # type: ignore[call-arg]
mrcz.compare("a.mrcz", "b.mrc", checks=True)  # type: ignore[call-arg]
mrcz.edit_header("a.mrcz", pixelsize=0.83)  # type: ignore[call-arg]
mrcz.edit_header("a.mrcz", nx=3)  # type: ignore[call-arg]
mrcz.edit_header("a.mrcz", ispg="one")  # type: ignore[arg-type]
reader.header.replace(pixel_size=0.83)  # type: ignore[call-arg]
reader.header.replace(nz="all")  # type: ignore[arg-type]
reader.read(frame=3)  # type: ignore[call-arg]
reader.sum(frame=3)  # type: ignore[call-arg]
reader.memmap("w+")  # type: ignore[arg-type]
mrcz.Codec.from_blosc("zstd", 3, crc=True)  # type: ignore[call-arg]
mrcz.readMRC("a.mrcz", slice=0)  # type: ignore[call-arg]
mrcz.asyncReadMRC("a.mrcz", slice=0)  # type: ignore[call-arg]
mrcz.asyncWriteMRC(stack, "b.mrcz", codec="zstd")  # type: ignore[call-arg]
mrcz.asyncReadDM4("a.dm4", loud=True)  # type: ignore[call-arg]
is_archive_of("a.mrcz", "a.mrc", threads=2)  # type: ignore[call-arg]
fit_outliers(stack, sigma=4.0)  # type: ignore[call-arg]
Correction.fit(stack, n_sigmas=4.0)  # type: ignore[call-arg]
correct_file("a.mrcz", {}, n_sigmas=4.0)  # type: ignore[call-arg]
koma_session(["a.mrcz"], koma, lambda source: {}, measures=True)  # type: ignore[call-arg]
session.correct(["a.mrcz"], lambda source: {}, measures=True)  # type: ignore[call-arg]
session.correct(["a.mrcz"], lambda source: {}, overwrite="yes")  # type: ignore[arg-type]
session.correct(["a.mrcz"], lambda source: {}, waiting={})  # type: ignore[call-arg]
koma_references([stack[0], stack[1]], 1, contrast=2.0)  # type: ignore[call-arg]
