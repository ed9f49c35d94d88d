"""Cleaning, and joining title and text: what any string or JSON value that a user sends comes to."""

import unicodedata
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from newsbert.data.text import CLEANING_RULES, clean, join, preprocess, unknown_rules

# The autouse fixture of conftest.py gives every test a directory; these functions have no use for it.
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)

any_character = st.characters(exclude_categories=())  # lone surrogates and control characters too
entities = ["&#39;", " #39;", " quot;", "&amp;", "&#1;", "&#x81;", "&#0;", "&#xD83D;", "&#1114112;", "&nbsp;"]
markup = ["\\$", "\\", "<b>", "</a", "<!--", ">", "  ", "\r\n", *"\x00\x1f\x85\x9f\u2028\u3000\ud83d\ude00"]
fragments = st.sampled_from(entities + markup)
any_text = st.lists(st.one_of(st.text(any_character, max_size=20), fragments), max_size=8).map("".join)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.one_of(st.sampled_from(["title", "text", "description"]), any_text), inner, max_size=4)
    ),
    max_leaves=6,
)


def assert_clean(text: str) -> None:
    assert text == " ".join(text.split()), "blanks at the ends or doubled"
    assert not {unicodedata.category(character) for character in text} & {"Cc", "Cs"}, "control characters"
    text.encode("utf-8")


@relaxed
@given(any_text)
@example("a&#x81;b\x9f&#127;")
def test_cleaned_text_has_no_control_characters_or_repeated_spaces(text: str) -> None:
    assert_clean(clean(text))


@relaxed
@given(any_json)
def test_any_json_value_is_prepared_or_refused_with_a_reason(value: Any) -> None:
    try:
        sequence = preprocess(value)
    except ValueError as error:
        assert str(error)
    else:
        assert sequence
        assert_clean(sequence)


@relaxed
@given(any_text, any_text)
def test_training_and_serving_join_title_and_text_alike(title: str, text: str) -> None:
    expected = " ".join(part for part in (clean(title), clean(text)) if part)
    assert join(title, text) == expected
    for name in ("text", "description"):
        if expected:
            assert preprocess({"title": title, name: text}) == expected
        else:
            with pytest.raises(ValueError, match="the text is empty"):
                preprocess({"title": title, name: text})


@relaxed
@given(any_text)
def test_a_string_equals_an_object_without_title(text: str) -> None:
    assert join("", text) == clean(text)
    if clean(text):
        assert preprocess(text) == preprocess({"text": text}) == clean(text)


@relaxed
@given(st.lists(st.text(st.characters(categories=["Lu", "Ll", "Nd"]), min_size=1), min_size=1).map(" ".join))
def test_plain_words_in_any_script_are_unchanged(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        # AG News's own damage
        ("Oil hits US\\$50", "Oil hits US$50"),
        ("first line\\second line", "first line second line"),
        ("the company #39;s shares", "the company's shares"),
        ("a  #36;5 deal", "a $5 deal"),
        ("he said quot;yes quot;", 'he said"yes"'),
        ("AT amp;T", "AT&T"),
        ("1 lt; 2", "1< 2"),
        ("1 &lt; 2", "1 < 2"),
        # words that only look like an entity
        ("they copy; we paste", "they copy; we paste"),
        ("AT&T and R&D", "AT&T and R&D"),
        ("&nosuchentity; stays", "&nosuchentity; stays"),
        # entities and tags
        ("caf&eacute; &#8364;5 &#x20AC;5", "café €5 €5"),
        ("a&nbsp;&nbsp;b", "a b"),
        ("<p>Stocks <b>fall</b></p>", "Stocks fall"),
        ('<A HREF="http://x.example/?a=1">Reuters</A> - Oil', "Reuters - Oil"),
        ("&lt;b&gt;bold&lt;/b&gt;", "bold"),
        ("3 < 4 and 5 > 4", "3 < 4 and 5 > 4"),
        # characters
        ("\ufeff\u3000Tab\there\r\nnext\u2028line\x00end\x7f", "\ufeff Tab here next line end"),
        ("pair \ud83d\ude00 lone \ud83d", "pair 😀 lone \ufffd"),
        ("Ünïcödé – naïve", "Ünïcödé – naïve"),
        ("", ""),
        (" \t\n\x00 ", ""),
        ("<br/>", ""),
    ],
)
def test_cleaning_repairs_markup_and_encoding(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("", "the text is empty"),
        (" \n\x00", "the text is empty"),
        ("<br>", "the text is empty"),
        ({"text": ""}, "the text is empty"),
        ({"title": " ", "text": "\t"}, "the text is empty"),
        (None, "got null"),
        (True, "got a boolean"),
        (3, "got a number"),
        (2.5, "got a number"),
        (["a"], "got a list"),
        ({}, "empty object"),
        ({"text": None}, "'text' must be a string, got null"),
        ({"text": ["a"]}, "'text' must be a string, got a list"),
        ({"text": {"text": "a"}}, "'text' must be a string, got an object"),
        ({"title": 7, "text": "a"}, "'title' must be a string, got a number"),
        ({"description": False}, "'text' must be a string, got a boolean"),
        ({"text": "a", "description": "b"}, "not both"),
        ({"text": "a", "lang": "en"}, "unknown key 'lang'"),
        ({"text": "a", 5: "b"}, "unknown key '5'"),
        ((1, 2), "got tuple"),
    ],
)
def test_a_refused_item_has_a_reason(item: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        preprocess(item)


def test_preparing_does_not_change_the_item() -> None:
    item = {"title": " a ", "text": "b\\c"}
    assert preprocess(item) == "a b c"
    assert item == {"title": " a ", "text": "b\\c"}


def test_rules_are_applied_in_the_order_of_the_contract() -> None:
    assert clean("&lt;b&gt;x", ("entities", "tags")) == " x"
    assert clean("&lt;b&gt;x", ("tags", "entities")) == "<b>x"
    assert clean(" a  <b> ", ()) == " a  <b> "
    assert preprocess({"title": " a", "text": "&amp; "}, ("whitespace",)) == "a &amp;"


def test_unknown_cleaning_rules_are_named() -> None:
    assert unknown_rules(CLEANING_RULES) == []
    assert unknown_rules(["tags", "emoji", "whitespace", "case"]) == ["emoji", "case"]
