"""Every family of encoders, all the way: trained, packed, served by TorchServe, with the same answers everywhere."""

import csv
import json
from pathlib import Path

import pytest

from tests.support import encoders
from tests.support.cli import Cli, long

pytestmark = long
TEXTS = ("goal team cup", "stocks market profit of the bank", "minister border, treaty & vote " * 30)


@pytest.mark.parametrize("family", encoders.FAMILIES)
def test_a_family_is_served_as_it_answers_here(family: str, cli: Cli, labelled_file: Path, tmp_path: Path) -> None:
    with labelled_file.open(encoding="utf-8") as stream:
        base = encoders.make(family, tmp_path / "base", [row["text"] for row in csv.DictReader(stream)])
    options = ("--max-length", "48", "--max-steps", "4", "--batch-size", "8", "--output-dir", "bundle", "--json")
    trained = cli("train", "--data", str(labelled_file), "--base-model", str(base), *options)
    assert trained.returncode == 0, trained.stderr
    here = json.loads(cli("predict", "--model", "bundle", "--json", *TEXTS).stdout)["predictions"]
    packed = cli("export", "archive", "bundle", "--output-dir", "store", "--json")
    assert packed.returncode == 0, packed.stderr
    served = cli("serve", "locally", "bundle", "--port", "0", "--detach", "--json")
    assert served.returncode == 0, served.stderr
    server = json.loads(served.stdout)
    try:
        there = json.loads(cli("predict", "--url", server["url"], "--json", *TEXTS).stdout)["predictions"]
    finally:
        cli("serve", "stop", "--port", str(server["port"]))
    assert [answer["label"] for answer in there] == [answer["label"] for answer in here]
    for one, other in zip(here, there, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
