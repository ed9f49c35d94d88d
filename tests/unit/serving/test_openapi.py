"""The OpenAPI description that newsbert prints: valid, and saying what the code does."""

import json
from typing import Any

import pytest
import schemathesis

from newsbert.serving.batches import MAX_ITEMS
from newsbert.serving.protocol import MODEL_HEADER
from newsbert.serving.torchserve.configuration import MAX_REQUEST_BYTES
from tests.support.cli import Cli


@pytest.fixture
def description(cli: Cli) -> dict[str, Any]:
    done = cli("export", "openapi")
    assert (done.returncode, done.stderr) == (0, "")
    return dict(json.loads(done.stdout))


def test_the_document_is_valid_and_has_the_paths(description: dict[str, Any]) -> None:
    schema: Any = schemathesis.openapi.from_dict(description)
    schema.validate()
    labels = {result.ok().label for result in schema.get_all_operations()}
    assert labels == {
        "POST /predictions/news_classification",
        "POST /explanations/news_classification",
        "GET /ping",
    }


def test_limits_and_header_equal_those_of_the_server(description: dict[str, Any]) -> None:
    schemas = description["components"]["schemas"]
    assert schemas["Items"]["maxItems"] == MAX_ITEMS
    assert schemas["Text"]["maxLength"] == MAX_REQUEST_BYTES
    answers = description["paths"]["/predictions/news_classification"]["post"]["responses"]
    assert MODEL_HEADER in answers["200"]["headers"]
    assert {"200", "400", "404", "413", "415", "500", "503", "507"} <= set(answers)
