"""A run over a file that is ended goes on where it was, and writes what it would have written."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from newsbert.bundle.bundle import Bundle
from newsbert.data.readers import read as read_rows
from newsbert.data.text import NewsItem
from newsbert.errors import DataError, NewsbertError, ServingError
from newsbert.inference.batch import readers, resume
from newsbert.inference.batch.predict_file import BatchResult, predict_file
from newsbert.inference.prediction import Prediction
from tests.support.batch import KINDS, OUTPUT_KINDS, LengthModel, answer_of, answers, write_jsonl
from tests.support.cli import Cli

WINDOW = 100
TABLE: list[dict[str, Any]] = [{"id": n, "text": f"text {n} {'x' * (n % 23)}" if n % 50 else ""} for n in range(950)]


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "WINDOW_ROWS", WINDOW)
    monkeypatch.setattr("newsbert.inference.batch.parquet.WINDOW_ROWS", WINDOW)


def run(
    file: Path, output: Path, predictor: LengthModel | None = None, **options: Any
) -> tuple[BatchResult, list[str], list[tuple[int, int]]]:
    notes: list[str] = []
    progress: list[tuple[int, int]] = []
    used = predictor or LengthModel()
    done = predict_file(
        used, file, output, None, lambda *numbers: progress.append(numbers), on_note=notes.append, **options
    )
    return done, notes, progress


def rejected(output: Path) -> bytes:
    return output.with_name(f"{output.name}.rejected.jsonl").read_bytes()


def partial(output: Path) -> Path:
    return output.with_name(f".{output.name}.partial")


def source_file(directory: Path, kind: str = "jsonl") -> Path:
    file = write_jsonl(directory / "rows.jsonl", TABLE)
    if kind == "jsonl":
        return file
    converted = directory / f"rows.{kind}"
    if kind == "json":
        converted.write_text(json.dumps(TABLE))
        return converted
    predict_file(LengthModel(), file, converted, None, lambda *_: None)
    return converted


@pytest.mark.parametrize("kind", OUTPUT_KINDS)
@pytest.mark.parametrize("source_kind", KINDS)
def test_a_run_goes_on_where_one_failed_and_writes_the_same(source_kind: str, kind: str, tmp_path: Path) -> None:
    file = source_file(tmp_path, source_kind)
    whole, output = tmp_path / f"whole.{kind}", tmp_path / f"out.{kind}"
    expected = run(file, whole)[0]
    with pytest.raises(ServingError):
        run(file, output, LengthModel(fail_at=f"text 555 {'x' * (555 % 23)}"))
    assert not output.exists()
    assert resume.read_state(output) is not None
    model = LengthModel()
    done, notes, progress = run(file, output, model)
    assert notes == ["500 of 950 rows are done already; --restart does them again"]
    assert progress[0] == (500, 950)
    assert progress[-1] == (950, 950)
    assert sum(model.requests) == sum(1 for row in TABLE[500:] if row["text"])
    assert output.read_bytes() == whole.read_bytes()
    assert rejected(output) == rejected(whole)
    assert (done.rows, done.skipped, done.columns) == (expected.rows, expected.skipped, expected.columns)
    assert not partial(output).exists()
    assert resume.read_state(output) is None


@pytest.mark.parametrize("kind", OUTPUT_KINDS)
def test_what_was_written_after_the_last_saved_state_is_dropped(kind: str, tmp_path: Path) -> None:
    file = source_file(tmp_path)
    whole, output = tmp_path / f"whole.{kind}", tmp_path / f"out.{kind}"
    run(file, whole)
    with pytest.raises(ServingError):
        run(file, output, LengthModel(fail_at="text 333 xxxxxxxxxxx"))
    for name in ("rows", "rejected.jsonl"):
        with (partial(output) / name).open("ab") as stream:
            stream.write(b'{"half a')
    (partial(output) / "progress.json.new").write_text('{"jo')
    run(file, output)
    assert output.read_bytes() == whole.read_bytes()
    assert rejected(output) == rejected(whole)


class Interrupting(LengthModel):
    """A model during whose third request Ctrl+C is pressed."""

    def predict(self, items: Sequence[NewsItem]) -> list[Prediction]:
        if len(self.requests) == 2:
            raise KeyboardInterrupt
        return super().predict(items)


@pytest.mark.parametrize("requests", [1, 4])
def test_an_interrupt_saves_what_is_done(requests: int, tmp_path: Path) -> None:
    file, output = source_file(tmp_path), tmp_path / "out.csv"
    with pytest.raises(KeyboardInterrupt):
        run(file, output, Interrupting(), requests=requests)
    state = resume.read_state(output)
    assert state is not None
    assert (state.records, state.total) == (200 if requests == 1 else 100, 950)
    run(file, output, requests=requests)
    assert answers(output) == [answer_of(row["text"].strip()) if row["text"] else answers(output)[0] for row in TABLE]


def stop_midway(file: Path, output: Path, **options: Any) -> None:
    with pytest.raises(ServingError):
        run(file, output, LengthModel(fail_at="text 333 xxxxxxxxxxx"), **options)
    assert resume.read_state(output) is not None


def test_a_run_with_another_model_begins_anew_with_a_note(tmp_path: Path) -> None:
    file, output = source_file(tmp_path), tmp_path / "out.csv"
    stop_midway(file, output, model="one")
    model = LengthModel()
    _, notes, progress = run(file, output, model, model="another")
    assert notes == ["starting again: the 300 saved rows are of another model"]
    assert progress[0] == (0, 950)
    assert len(answers(output)) == 950


def test_a_run_over_another_input_begins_anew_with_a_note(tmp_path: Path) -> None:
    file, output = source_file(tmp_path), tmp_path / "out.csv"
    stop_midway(file, output)
    write_jsonl(file, [*TABLE, {"text": "one more"}])
    assert run(file, output)[1] == ["starting again: the 300 saved rows are of another input"]
    assert len(answers(output)) == 951


def test_a_run_over_another_column_begins_anew_with_a_note(tmp_path: Path) -> None:
    file, output = source_file(tmp_path), tmp_path / "out.csv"
    stop_midway(file, output)
    notes: list[str] = []
    predict_file(LengthModel(), file, output, "id", lambda *_: None, on_note=notes.append)
    assert notes == ["starting again: the 300 saved rows are of another text column"]


def test_the_same_input_may_have_been_copied_elsewhere(tmp_path: Path) -> None:
    file, output = source_file(tmp_path), tmp_path / "out.csv"
    stop_midway(file, output)
    assert "already" in run(file.rename(tmp_path / "renamed.jsonl"), output)[1][0]


def test_all_rows_are_done_again_with_restart(tmp_path: Path) -> None:
    file, output = source_file(tmp_path), tmp_path / "out.csv"
    stop_midway(file, output)
    done, notes, progress = run(file, output, restart=True)
    assert (notes, progress[0], done.rows) == ([], (0, 950), 950)


@pytest.mark.parametrize("damage", ["rows", "rejected.jsonl", "progress.json"])
def test_a_broken_saved_state_is_not_used(damage: str, tmp_path: Path) -> None:
    file, output, whole = source_file(tmp_path), tmp_path / "out.csv", tmp_path / "whole.csv"
    run(file, whole)
    stop_midway(file, output)
    (partial(output) / damage).write_text("{")
    _, _, progress = run(file, output)
    assert progress[0] == (0, 950)
    assert output.read_bytes() == whole.read_bytes()


def test_nothing_is_left_where_nothing_was_done(tmp_path: Path) -> None:
    file, output = source_file(tmp_path), tmp_path / "out.csv"
    with pytest.raises(ServingError):
        run(file, output, LengthModel(fail_at="text 1 x"))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


class Meddling(LengthModel):
    """A model during whose third request something else happens."""

    def __init__(self, happens: Any) -> None:
        super().__init__()
        self.happens = happens

    def predict(self, items: Sequence[NewsItem]) -> list[Prediction]:
        if len(self.requests) == 2:
            self.happens(self)
        return super().predict(items)


def test_an_output_that_another_run_is_writing_is_refused(tmp_path: Path) -> None:
    file, output = source_file(tmp_path), tmp_path / "out.csv"
    caught: list[NewsbertError] = []

    def run_another(_model: LengthModel) -> None:
        with pytest.raises(NewsbertError, match="another newsbert predict is writing") as raised:
            run(file, output)
        caught.append(raised.value)

    run(file, output, Meddling(run_another))
    assert caught[0].hint
    assert len(answers(output)) == 950


def test_an_input_that_is_changed_meanwhile_gives_no_output(tmp_path: Path) -> None:
    file, output = source_file(tmp_path), tmp_path / "out.csv"
    with pytest.raises(DataError, match="was changed while it was read"):
        run(file, output, Meddling(lambda _model: write_jsonl(file, TABLE[:-1])))
    assert not output.exists()


def test_a_server_whose_model_is_changed_meanwhile_gives_no_output(tmp_path: Path) -> None:
    def change(model: LengthModel) -> None:
        model.name = "LengthModel/2"

    file, output = source_file(tmp_path), tmp_path / "out.csv"
    with pytest.raises(ServingError, match="was LengthModel/1 and now is LengthModel/2"):
        run(file, output, Meddling(change))
    assert not output.exists()


# --- the real command -------------------------------------------------------------------------------------------------


def big_file(directory: Path) -> Path:
    words = ["stocks", "team", "treaty", "vote", "bank", "goal"]
    table = [{"id": n, "text": " ".join(words[: 1 + n % 6]) + f" {n}", "tags": [n]} for n in range(30_000)]
    return write_jsonl(directory / "in.jsonl", table)


def wait_for_saved_rows(process: "subprocess.Popen[str]", output: Path) -> None:
    for _ in range(6000):
        if resume.read_state(output) is not None or process.poll() is not None:
            break
        time.sleep(0.01)
    assert process.poll() is None, "it was done before it could be stopped"


def start(bundle: Bundle, file: Path, output: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "newsbert", "predict", "--model", str(bundle.path), "--file", str(file), "--output",
         str(output)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def test_a_process_that_is_killed_is_gone_on_with(bundle: Bundle, cli: Cli, tmp_path: Path) -> None:
    file, whole, output = big_file(tmp_path), tmp_path / "whole.parquet", tmp_path / "out.parquet"
    assert cli("predict", "--model", bundle.path, "--file", file, "--output", whole).returncode == 0
    for _ in range(2):
        process = start(bundle, file, output)
        wait_for_saved_rows(process, output)
        time.sleep(0.2)
        process.kill()
        process.communicate()
        assert not output.exists()
    result = cli("predict", "--model", bundle.path, "--file", file, "--output", output, "--json")
    assert result.returncode == 0, result.stderr
    assert "of 30000 rows are done already" in result.stderr
    assert json.loads(result.stdout)["rows"] == 30_000
    assert output.read_bytes() == whole.read_bytes()
    assert [row["id"] for row in read_rows(output)] == list(range(30_000))
    assert not partial(output).exists()


def test_ctrl_c_names_the_command_that_goes_on(bundle: Bundle, cli: Cli, tmp_path: Path) -> None:
    file, output = big_file(tmp_path), tmp_path / "out.csv"
    process = start(bundle, file, output)
    wait_for_saved_rows(process, output)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "of 30000 rows are saved: run the same command again to resume" in stderr
    assert stderr.endswith("Error: interrupted\n")
    result = cli("predict", "--model", bundle.path, "--file", file, "--output", output, "--restart")
    assert result.returncode == 0
    assert "already" not in result.stderr
    assert "30000 rows, answers in the columns label, score, review, probabilities" in result.stdout


def test_restart_is_for_files(cli: Cli) -> None:
    result = cli("predict", "--restart", "goal")
    assert (result.returncode, "--restart is for --file" in result.stderr) == (2, True)
