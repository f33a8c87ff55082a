"""Where each field lies."""

import pytest
from made_headers import field_offset


@pytest.mark.parametrize(
    ("field", "offset"),
    [
        ("nx", 0),
        ("mode", 12),
        ("nxstart", 16),
        ("mx", 28),
        ("cella", 40),
        ("cellb", 52),
        ("mapc", 64),
        ("dmin", 76),
        ("ispg", 88),
        ("nsymbt", 92),
        ("exttyp", 104),
        ("nversion", 108),
        ("nint", 128),
        ("voltage", 132),
        ("c3", 136),
        ("gain", 140),
        ("packed_bytes", 144),
        ("imod_stamp", 152),
        ("imod_flags", 156),
        ("origin", 196),
        ("map", 208),
        ("machst", 212),
        ("rms", 216),
        ("nlabl", 220),
        ("label", 224),
    ],
)
def test_offsets(field, offset):
    assert field_offset(field) == offset
