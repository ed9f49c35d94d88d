"""Parameters of requests, as queries and forms have them."""

import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsbert.serving.native.forms import MAX_FIELDS, parse_parameters
from newsbert.serving.requests import FORM, MULTIPART, RequestError

FIELDS = st.dictionaries(st.text(max_size=10), st.text(max_size=40), min_size=1, max_size=5)


@given(fields=FIELDS)
def test_a_form_has_the_fields_that_were_encoded(fields: dict[str, str]) -> None:
    body = urllib.parse.urlencode(fields).encode()
    expected = {name: value.encode() for name, value in fields.items()}
    assert parse_parameters(b"", {"content-type": FORM}, body) == expected
    assert parse_parameters(body, {}, b"") == expected


@given(value=st.binary(max_size=200).filter(lambda value: b"--B" not in value))
def test_a_part_has_its_bytes(value: bytes) -> None:
    headers = {"content-type": f"{MULTIPART}; boundary=B"}
    for disposition in ('form-data; name="data"', 'form-data; name="data"; filename="a.txt"'):
        head = f"--B\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
        assert parse_parameters(b"", headers, head + value + b"\r\n--B--\r\n") == {"data": value}


def test_what_is_not_encoded_is_taken_as_it_is() -> None:
    headers = {"content-type": f"{FORM}; charset=utf-8"}
    assert parse_parameters(b"", headers, "data=größer 100%".encode()) == {"data": "größer 100%".encode()}
    assert parse_parameters(b"", headers, b"data=\xff") == {"data": b"\xff"}


def test_a_body_that_is_no_form_is_raw() -> None:
    assert parse_parameters(b"a=1", {}, b"goal") == {"a": b"1", "body": b"goal"}
    assert parse_parameters(b"", {"content-type": MULTIPART}, b"goal") == {"body": b"goal"}  # without a boundary


@pytest.mark.parametrize("content_type", [FORM, f"{MULTIPART}; boundary=B"])
def test_too_many_fields_are_refused(content_type: str) -> None:
    body = b"&".join(b"%d=x" % number for number in range(MAX_FIELDS + 1))
    if content_type != FORM:
        part = '--B\r\nContent-Disposition: form-data; name="{}"\r\n\r\nx\r\n'
        body = "".join(part.format(number) for number in range(MAX_FIELDS + 1)).encode() + b"--B--\r\n"
    with pytest.raises(RequestError, match="more than 100 fields"):
        parse_parameters(b"", {"content-type": content_type}, body)
