"""Parameters of a request: its query, and its raw body or form fields, as TorchServe passes them to its handler."""

import logging
import urllib.parse
from collections.abc import Mapping

from python_multipart import multipart
from python_multipart.exceptions import FormParserError

from newsbert.serving.requests import FORM, MULTIPART, RequestError

MAX_FIELDS = 100
"""Maximum number of fields of a query or a form."""

logging.getLogger(multipart.__name__).setLevel(logging.CRITICAL)  # it warns of every invalid form


def parse_parameters(query: bytes, headers: Mapping[str, str], body: bytes) -> dict[str, bytes]:
    """Return the parameters of a request by name, `body` for a raw body.

    Args:
        query: The query of the URL.
        headers: The request's headers, names in lower case.
        body: The request's body.

    Raises:
        RequestError: If the query or the form cannot be parsed.
    """
    parameters = _parse_fields(query, "query")
    kind, _, options = headers.get("content-type", "").lower().partition(";")
    kind = kind.strip()
    if kind == FORM:
        parameters.update(_parse_fields(body, "form"))
    elif kind == MULTIPART and "boundary=" in options:
        parameters.update(_parse_multipart(headers, body))
    elif body:
        parameters["body"] = body
    return parameters


def _parse_fields(content: bytes, name: str) -> dict[str, bytes]:
    """Parse `name=value&…`, percent-encoded; see https://url.spec.whatwg.org/#application/x-www-form-urlencoded."""
    pairs = [pair.partition(b"=") for pair in content.split(b"&", MAX_FIELDS) if pair]
    if content.count(b"&") >= MAX_FIELDS:
        raise RequestError(f"the {name} has more than {MAX_FIELDS} fields")
    return {_unquote(key).decode("utf-8", "replace"): _unquote(value) for key, _, value in pairs}


def _unquote(content: bytes) -> bytes:
    return urllib.parse.unquote_to_bytes(content.replace(b"+", b" "))


def _parse_multipart(headers: Mapping[str, str], body: bytes) -> dict[str, bytes]:
    fields: dict[str, bytes] = {}

    def add(name: bytes | None, value: bytes | None) -> None:
        if len(fields) >= MAX_FIELDS:
            raise RequestError(f"the form has more than {MAX_FIELDS} fields")
        fields[(name or b"").decode("utf-8", "replace")] = value or b""

    def add_file(file: multipart.File) -> None:
        file.file_object.seek(0)
        add(file.field_name, file.file_object.read())

    try:
        parser = multipart.create_form_parser(
            {"Content-Type": headers["content-type"].encode("latin-1")},
            lambda field: add(field.field_name, field.value),
            add_file,
            config={"MAX_MEMORY_FILE_SIZE": len(body) + 1},
        )
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise RequestError(f"the form cannot be parsed: {error}") from error
    return fields
