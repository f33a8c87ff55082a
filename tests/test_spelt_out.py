"""Keywords that are passed on are spelt out in a TypedDict, for type checkers: the same names as where they arrive."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from mrcz.container.footer import FooterFields, encode_footer
from mrcz.container.header.layout import FIXED, HEADER_DTYPE, PLACES
from mrcz.container.header.words import FreeFields, StoredFields
from mrcz.correct import Correction, Koma
from mrcz.correct.koma import KomaOptions
from mrcz.correct.outliers import OutlierOptions
from mrcz.file.changing import HeaderChanges
from mrcz.file.codec import Codec, CodecChoices
from mrcz.file.editing import edit_header
from mrcz.session.correct import Fitting, correct_file
from mrcz.session.koma import KomaSession, SessionOptions, koma_session


def keywords(function: Callable[..., Any]) -> set[str]:
    """Names of the keyword-only parameters."""
    return {p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}


def words(spelt: Any) -> set[str]:
    return set(spelt.__optional_keys__ | spelt.__required_keys__)


def test_stored_fields_are_those_of_the_header() -> None:
    assert list(PLACES) == list(HEADER_DTYPE.names or ())
    assert words(StoredFields) == set(PLACES)


def test_free_fields_are_all_that_edit_header_has_no_other_word_for() -> None:
    assert words(FreeFields) == set(PLACES) - set(FIXED) - keywords(edit_header)
    assert words(HeaderChanges) == words(FreeFields) | keywords(edit_header) - {"dry_run"}


def test_choices_of_a_codec_are_its_attributes() -> None:
    assert words(CodecChoices) == {field.name for field in dataclasses.fields(Codec)} - {"name", "level"}


def test_what_a_footer_says() -> None:
    assert words(FooterFields) == keywords(encode_footer) - {"header_bytes", "extended_header_bytes", "start"}


def test_options_of_koma() -> None:
    assert words(KomaOptions) == keywords(Koma)


def test_fitting_is_what_a_correction_takes() -> None:
    taken = {name for name in inspect.signature(Correction.fit).parameters if name not in ("stack", "options")}
    assert words(Fitting) == (taken | words(OutlierOptions)) - {"koma", "n_threads"}


def test_options_of_a_session_are_those_of_koma_session() -> None:
    own = keywords(KomaSession.correct)
    assert own == {"exclude", "finish"}
    assert words(SessionOptions) == (keywords(koma_session) | words(Fitting)) - own - {"waiting"}
    assert words(SessionOptions) - words(Fitting) <= keywords(correct_file)
