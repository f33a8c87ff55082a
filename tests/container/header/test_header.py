"""A header is a value: compared, copied, changed into another one, never itself."""

import copy as copying
import dataclasses
import pickle

import pytest
from made_headers import plain

from mrcz import FormatWarning, HeaderError
from mrcz.container.header.fields import Fields
from mrcz.container.header.header import HEADER_DTYPE, Header
from mrcz.container.header.parse import Parser


def test_replace():
    header = plain(codec="zstd", pixel_size=1.5)
    new = header.replace(packed_bytes=99, nz=7, origin=(1, 2, 3), label=["MRCZ1.0.0", "ä"], exttyp="json", extra1=b"ab")
    assert (new.packed_bytes, new.nz, new.origin, new.labels, new.exttyp) == (
        99,
        7,
        (1, 2, 3),
        ["MRCZ1.0.0", "ä"],
        "json",
    )
    assert new["extra1"] == b"ab\0\0\0\0"
    assert header.nz == 4
    with pytest.raises(KeyError, match="no header field is called 'colour'"):
        header.replace(colour=1)
    with pytest.raises(HeaderError, match="mode"):
        header.replace(mode=5)
    with pytest.warns(FormatWarning):
        clipped = Header.parse(plain().tobytes(), file_size=1024 + 200, permissive=True)
    assert clipped.nz == 1
    assert clipped.replace(nxstart=1).nz == 1
    assert clipped.replace(nz=2).nz == 2


def test_a_header_is_a_value():
    header = plain(pixel_size=1.5)
    assert header == Header.parse(header.tobytes())
    assert hash(header) == hash(Header.parse(header.tobytes()))
    assert header != plain(pixel_size=2)
    assert header != "a header"
    copy = pickle.loads(pickle.dumps(header))
    assert (copy, copy.pixel_size, copy["cella"]) == (header, header.pixel_size, header["cella"])
    assert (copying.copy(header), copying.deepcopy(header)) == (header, header)
    assert dict(header)["nx"] == 8
    assert ("mx" in header, "colour" in header, len(header)) == (True, False, len(HEADER_DTYPE.names))
    assert repr(header) == "<Header stack nz=4 ny=6 nx=8 mode=2 <f4>"
    with pytest.raises(HeaderError, match="1023 bytes found, 1024 expected"):
        Header.parse(header.tobytes()[:1023])


def test_what_was_read_is_frozen():
    header = plain(pixel_size=1.5)
    for name in ("nx", "raw", "oddities", "dmin"):
        with pytest.raises(AttributeError, match="a Header does not change"):
            setattr(header, name, 1)
    with pytest.raises(AttributeError, match="a Header does not change"):
        del header.nx
    with pytest.raises(TypeError, match="a Header does not change"):
        header["nx"] = 1
    with pytest.raises(ValueError, match="read-only"):
        header.record["nx"] = 1
    fields = Parser(header.tobytes(), None, False, None, None).fields()
    with pytest.raises(AttributeError, match="cannot assign to field 'nx'"):
        fields.nx = 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("permissive", [False, True])
def test_all_of_it_crosses_to_another_process(order, permissive):
    """Also what does not follow from the 1024 bytes alone: frames that are there, and whose sign the caller said."""
    header = plain(0, byteorder=order)
    if permissive:
        with pytest.warns(FormatWarning, match="header field nz is 4"):
            header = Header.parse(header.tobytes(), file_size=1024 + 100, permissive=True, signed_bytes=True)
    copy = pickle.loads(pickle.dumps(header))
    for field in dataclasses.fields(Fields):
        assert getattr(copy, field.name) == getattr(header, field.name), field.name
    assert (copy.nz, len(copy.oddities)) == ((2, 2) if permissive else (4, 0))
