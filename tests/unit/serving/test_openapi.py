"""The OpenAPI description that newsbert prints: valid, and saying what the code does."""

import json
from typing import Any

import pytest
import schemathesis

from newsbert.serving import openapi
from newsbert.serving.batches import MAX_ITEMS
from newsbert.serving.protocol import MODEL_HEADER
from newsbert.serving.torchserve.configuration import MAX_REQUEST_BYTES
from tests.support.cli import Cli

OPERATIONS = {"POST /predictions/news_classification", "POST /explanations/news_classification", "GET /ping"}


def _export(cli: Cli, server: str) -> dict[str, Any]:
    done = cli("export", "openapi", "--server", server)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(json.loads(done.stdout))


def _list_operations(description: dict[str, Any]) -> set[str]:
    schema: Any = schemathesis.openapi.from_dict(description)
    schema.validate()
    return {result.ok().label for result in schema.get_all_operations()}


def test_the_documents_are_valid_and_have_the_paths(cli: Cli) -> None:
    assert _list_operations(_export(cli, "torchserve")) == OPERATIONS
    assert _list_operations(_export(cli, "native")) == OPERATIONS | {
        "GET /v2",
        "GET /v2/health/live",
        "GET /v2/health/ready",
        "GET /v2/models/news_classification",
        "GET /v2/models/news_classification/ready",
        "POST /v2/models/news_classification/infer",
        "GET /openapi.json",
        "GET /docs",
    }


def test_a_server_that_newsbert_does_not_know_is_refused(cli: Cli) -> None:
    done = cli("export", "openapi", "--server", "tomcat")
    assert done.returncode == 2
    assert "tomcat" in done.stderr


# Source: the examples of RFC 7396, appendix A.
@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_is_applied(target: Any, patch: Any, expected: Any) -> None:
    assert openapi.merge_patch(target, patch) == expected


def test_limits_and_header_equal_those_of_the_server(cli: Cli) -> None:
    description = _export(cli, "torchserve")
    schemas = description["components"]["schemas"]
    assert schemas["Items"]["maxItems"] == MAX_ITEMS
    assert schemas["Text"]["maxLength"] == MAX_REQUEST_BYTES
    answers = description["paths"]["/predictions/news_classification"]["post"]["responses"]
    assert MODEL_HEADER in answers["200"]["headers"]
    assert {"200", "400", "404", "413", "415", "500", "503", "507"} <= set(answers)
