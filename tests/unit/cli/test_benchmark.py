"""`newsbert benchmark`: it measures the runtimes on the first 256 texts."""

import json
from pathlib import Path

import pytest

from newsbert.bundle.bundle import Bundle
from tests.support.calls import failed
from tests.support.cli import Cli


@pytest.mark.parametrize(("num_texts", "num_measured"), [(3, 3), (300, 256)])
def test_the_first_256_texts_are_measured(
    cli: Cli, bundle: Bundle, tmp_path: Path, num_texts: int, num_measured: int
) -> None:
    (tmp_path / "news.csv").write_text("text\n" + "".join(f"goal {number}\n" for number in range(num_texts)))
    result = cli("benchmark", bundle.path, "--texts", "news.csv", "--only", "onnxruntime", "--seconds", "0.1", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["texts"] == num_measured
    assert [runtime["name"] for runtime in document["runtimes"]] == ["onnxruntime"]
    assert document["runtimes"][0]["agreement"] == 1


def test_an_unknown_runtime_is_a_usage_error(cli: Cli, bundle: Bundle) -> None:
    failed(cli("benchmark", bundle.path, "--only", "tensorrt"), 2, "no runtime 'tensorrt'")
