"""What workers count, and what Prometheus reads of it."""

import multiprocessing
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import values

from newsbert.inference.runtime import InferenceTimings
from newsbert.serving import metrics
from newsbert.serving.metrics import STATUSES, Metrics


def _read_value(page: str, series: str) -> float:
    (value,) = re.findall(rf"^{re.escape(series)} (\S+)$", page, re.MULTILINE)
    return float(value)


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker counts for as long as its process lives, and sets what is the process's."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    yield
    values.close_all_multiprocess_files()  # type: ignore[no-untyped-call]


def _count(directory: Path, model: str = "M/1") -> None:
    counts = Metrics(directory, model, ["A", 'B "b" \\ \n'])
    probabilities = np.array([[0.9, 0.1], [0.25, 0.75], [0.5, 0.5]], np.float32)
    counts.batch(
        [200, 400, 200], probabilities, InferenceTimings([8, 9, 512], 0.0004, 0.02, [True, False, False]), reviews=2
    )
    counts.batch([503], np.empty((0, 2), np.float32), InferenceTimings())


def test_a_batch_is_counted(tmp_path: Path) -> None:
    directory = tmp_path / "[a] *"  # whatever the library would take for a pattern
    directory.mkdir()
    _count(directory)
    page = metrics.page(directory)
    assert _read_value(page, 'newsbert_requests_total{model="M/1",status="200"}') == 2
    assert _read_value(page, 'newsbert_requests_total{model="M/1",status="503"}') == 1
    assert _read_value(page, 'newsbert_requests_total{model="M/1",status="413"}') == 0
    assert _read_value(page, 'newsbert_predictions_total{label="A",model="M/1"}') == 2
    assert _read_value(page, 'newsbert_tiers_total{model="M/1",tier="companion"}') == 1
    assert _read_value(page, 'newsbert_tiers_total{model="M/1",tier="model"}') == 2
    assert _read_value(page, r'newsbert_predictions_total{label="B \"b\" \\ \n",model="M/1"}') == 1
    assert _read_value(page, 'newsbert_reviews_total{model="M/1"}') == 2
    # A bucket holds its bound, and all that the ones before it hold.
    tokens = "newsbert_document_tokens"
    expected = {8: 1, **dict.fromkeys((16, 32, 48, 64, 96, 128, 192, 256, 384), 2), 512: 3}
    assert {
        bound: _read_value(page, f'{tokens}_bucket{{le="{bound}.0",model="M/1"}}') for bound in expected
    } == expected
    assert _read_value(page, f'{tokens}_bucket{{le="+Inf",model="M/1"}}') == 3
    assert _read_value(page, f'{tokens}_sum{{model="M/1"}}') == 529
    assert _read_value(page, f'{tokens}_count{{model="M/1"}}') == 3
    assert _read_value(page, 'newsbert_confidence_ratio_sum{model="M/1"}') == pytest.approx(2.15)
    assert _read_value(page, 'newsbert_batch_requests_sum{model="M/1"}') == 4
    bounds = [float(bound) for bound in re.findall(r'newsbert_batch_requests_bucket{le="([\d.]+)"', page)]
    assert bounds == [2.0**power for power in range(9)]  # to four times the default size of a batch
    # The batch in which nothing was classified took no time in the model.
    assert _read_value(page, 'newsbert_model_seconds_count{model="M/1"}') == 1
    assert _read_value(page, 'newsbert_tokenizer_seconds_bucket{le="0.0005",model="M/1"}') == 1
    assert _read_value(page, "newsbert_workers") == 1


def test_counts_of_a_dead_worker_remain(tmp_path: Path) -> None:
    processes = [multiprocessing.get_context("spawn").Process(target=_count, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
        process.join()
        assert process.exitcode == 0
    page = metrics.page(tmp_path)
    assert _read_value(page, 'newsbert_requests_total{model="M/1",status="200"}') == 4
    assert _read_value(page, "newsbert_workers") == 0
    assert _read_value(page, "newsbert_worker_starts_total") == 2


def test_a_worker_with_a_reused_pid_adds_to_the_counts(tmp_path: Path) -> None:
    _count(tmp_path)
    _count(tmp_path)
    page = metrics.page(tmp_path)
    assert _read_value(page, 'newsbert_requests_total{model="M/1",status="200"}') == 4
    assert _read_value(page, 'newsbert_document_tokens_sum{model="M/1"}') == 2 * 529
    assert _read_value(page, "newsbert_worker_starts_total") == 2


def test_the_page_has_only_the_documented_metrics(tmp_path: Path) -> None:
    _count(tmp_path)
    page = metrics.page(tmp_path)
    assert not re.search(r"_created|pid=", page)
    assert "# HELP newsbert_predictions_total Documents classified, by predicted label.\n" in page
    assert set(re.findall(r"^# TYPE (\w+) (\w+)$", page, re.MULTILINE)) == {
        *(
            (f"newsbert_{name}_total", "counter")
            for name in ("requests", "predictions", "reviews", "tiers", "worker_starts")
        ),
        *((f"newsbert_{name}", "histogram") for name in ("confidence_ratio", "document_tokens", "batch_requests")),
        *((f"newsbert_{name}_seconds", "histogram") for name in ("tokenizer", "model")),
        ("newsbert_workers", "gauge"),
    }


def test_metrics_are_labelled_by_model(tmp_path: Path) -> None:
    _count(tmp_path)
    _count(tmp_path, "M/2")
    page = metrics.page(tmp_path)
    assert _read_value(page, 'newsbert_batch_requests_count{model="M/2"}') == 2
    assert page.count("# TYPE newsbert_batch_requests ") == 1


def _start_and_count(directory: Path) -> None:
    for _ in range(5):
        counts = Metrics(directory, "M/1", [f"label {number}" for number in range(600)])
        for _ in range(200):
            counts.batch([200], np.array([[1.0]], np.float32), InferenceTimings([8], 0.1, 0.1))


def test_a_page_can_be_read_while_workers_start_and_count(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_start_and_count, args=(tmp_path,))
    process.start()
    counted = 0.0
    while counted < 1000:
        alive = process.is_alive()
        page = metrics.page(tmp_path)
        if 'status="200"' in page:
            before, counted = counted, _read_value(page, 'newsbert_requests_total{model="M/1",status="200"}')
            assert counted >= before
        assert alive or counted == 1000
    process.join()
    assert process.exitcode == 0


def test_counts_are_on_the_disk_from_the_start(tmp_path: Path) -> None:
    Metrics(tmp_path, "M/1", ["A"])
    files = list(tmp_path.iterdir())
    assert len(files) == 2
    for file in files:
        # A hole that a full disk cannot fill would end the worker at its first request.
        assert file.stat().st_blocks * 512 >= file.stat().st_size


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        Metrics(tmp_path / "nowhere", "M/1", ["A"])


def test_before_a_worker_counts_there_is_a_page(tmp_path: Path) -> None:
    (tmp_path / "histogram_1-1.partial").write_bytes(b"half")
    assert _read_value(metrics.page(tmp_path), "newsbert_workers") == 0


def test_without_a_metrics_directory_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Metrics(None, "M/1", ["A"]).batch([200], np.array([[1.0]], np.float32), InferenceTimings([3], 0.1, 0.1))
    assert list(tmp_path.iterdir()) == []


def test_all_statuses_of_the_handler_are_known() -> None:
    files = (
        Path(metrics.__file__).with_name(name) for name in ("handler.py", "batches.py", "requests.py", "responses.py")
    )
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    from http import HTTPStatus

    used = {HTTPStatus[name] for name in re.findall(r"HTTPStatus\.([A-Z_]+)", source)}
    assert used == set(STATUSES)
