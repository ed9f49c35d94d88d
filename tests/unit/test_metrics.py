"""What workers count, and what Prometheus reads of it."""

import multiprocessing
import re
from pathlib import Path

import numpy as np
import pytest

from newsbert import exposition
from newsbert.metrics import STATUSES, Metrics
from newsbert.runtimes import Measured


def _value(page: str, series: str) -> float:
    (found,) = re.findall(rf"^{re.escape(series)} (\S+)$", page, re.MULTILINE)
    return float(found)


def _count(directory: Path, model: str = "M/1") -> None:
    metrics = Metrics(directory, model, ["A", 'B "b" \\ \n'])
    probabilities = np.array([[0.9, 0.1], [0.25, 0.75], [0.5, 0.5]], np.float32)
    metrics.batch([200, 400, 200], probabilities, Measured([8, 9, 512], 0.0004, 0.02))
    metrics.batch([503], np.empty((0, 2), np.float32), Measured())


def test_a_batch_is_counted(tmp_path: Path) -> None:
    _count(tmp_path)
    page = exposition.page(tmp_path)
    assert _value(page, 'newsbert_requests_total{model="M/1",status="200"}') == 2
    assert _value(page, 'newsbert_requests_total{model="M/1",status="503"}') == 1
    assert _value(page, 'newsbert_requests_total{model="M/1",status="413"}') == 0
    assert _value(page, 'newsbert_predictions_total{model="M/1",label="A"}') == 2
    assert _value(page, r'newsbert_predictions_total{model="M/1",label="B \"b\" \\ \n"}') == 1
    # A bucket holds its bound, and all that the ones before it hold.
    tokens = "newsbert_document_tokens"
    at_most = {bound: _value(page, f'{tokens}_bucket{{model="M/1",le="{bound}"}}') for bound in (8, 16, 384, 512)}
    assert at_most == {8: 1, 16: 2, 384: 2, 512: 3}
    assert _value(page, f'{tokens}_bucket{{model="M/1",le="+Inf"}}') == 3
    assert _value(page, f'{tokens}_sum{{model="M/1"}}') == 529
    assert _value(page, f'{tokens}_count{{model="M/1"}}') == 3
    assert _value(page, 'newsbert_confidence_ratio_sum{model="M/1"}') == pytest.approx(2.15)
    assert _value(page, 'newsbert_batch_requests_sum{model="M/1"}') == 4
    # The batch in which nothing was classified took no time in the model.
    assert _value(page, 'newsbert_model_seconds_count{model="M/1"}') == 1
    assert _value(page, 'newsbert_tokenizer_seconds_bucket{model="M/1",le="0.0005"}') == 1
    assert _value(page, "newsbert_workers") == 1


def test_what_a_worker_has_counted_outlives_it(tmp_path: Path) -> None:
    processes = [multiprocessing.get_context("spawn").Process(target=_count, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
        process.join()
        assert process.exitcode == 0
    page = exposition.page(tmp_path)
    assert _value(page, 'newsbert_requests_total{model="M/1",status="200"}') == 4
    assert _value(page, "newsbert_workers") == 0
    assert _value(page, "newsbert_worker_starts_total") == 2


def test_models_are_told_apart(tmp_path: Path) -> None:
    _count(tmp_path)
    _count(tmp_path, "M/2")
    page = exposition.page(tmp_path)
    assert _value(page, 'newsbert_batch_requests_count{model="M/2"}') == 2
    assert page.count("# TYPE newsbert_batch_requests ") == 1


def test_before_a_worker_counts_there_is_a_page(tmp_path: Path) -> None:
    (tmp_path / "1-1.partial").write_bytes(b"half")
    assert _value(exposition.page(tmp_path), "newsbert_workers") == 0


def test_under_somebody_else_s_server_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Metrics(None, "M/1", ["A"]).batch([200], np.array([[1.0]], np.float32), Measured([3], 0.1, 0.1))
    assert list(tmp_path.iterdir()) == []


def test_all_statuses_of_the_handler_are_known() -> None:
    source = (Path(exposition.__file__).with_name("handler.py")).read_text(encoding="utf-8")
    from http import HTTPStatus

    used = {HTTPStatus[name] for name in re.findall(r"HTTPStatus\.([A-Z_]+)", source)}
    assert used == set(STATUSES)
