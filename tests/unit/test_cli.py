"""The command line as a user calls it: exit codes, what goes where, and errors that say what to do."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer

import newsbert
from newsbert.bundle import Bundle
from newsbert.cli.app import app
from newsbert.client import CHUNK_ITEMS, Client
from newsbert.errors import BadRequestError, ServingError
from newsbert.model import Model
from tests.conftest import LABELS, Cli


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """All commands that are no groups of others, as they are called."""
    for name, command in group.commands.items():
        called = (*path, name)
        yield from _commands(command, called) if hasattr(command, "commands") else [list(called)]


COMMANDS = list(_commands(typer.main.get_command(app)))
Result = subprocess.CompletedProcess[str]


def _failed(result: Result, code: int, *said: str) -> None:
    """Check an error's form: nothing on stdout, and at the end of stderr what is wrong and what to do about it."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    *_, error, hint = lines[: -1 if lines[-1] == "Hint: newsbert doctor" else None]
    assert error.startswith("Error: ")
    assert hint.startswith("Hint: ")
    assert "Traceback" not in result.stderr
    for words in said:
        assert words in error, result.stderr


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Help, version and calls that cannot be parsed


def test_help_lists_the_commands_and_exit_codes(cli: Cli) -> None:
    result = cli("--help")
    assert (result.returncode, result.stderr) == (0, "")
    for command in ("train", "register", "archive", "build-image", "serve", "predict"):
        assert re.search(rf"^\W*{command}\b", result.stdout, re.MULTILINE)
    assert "130 interrupted" in " ".join(result.stdout.split())


@pytest.mark.parametrize("arguments", [[], ["serve"]], ids=["newsbert", "newsbert serve"])
def test_a_call_without_a_command_shows_the_help(cli: Cli, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == cli(*arguments, "--help").stdout.split()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_commands_help_has_examples_of_it(cli: Cli, command: list[str]) -> None:
    result = cli(*command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    _, _, examples = result.stdout.partition("Examples:")
    assert f"newsbert {' '.join(command)}" in examples
    for option in ("--json", "--debug", "--help"):
        assert option in result.stdout
    assert "<bool>" not in result.stdout


@pytest.mark.parametrize("columns", [60, 80])
def test_help_keeps_the_names_of_options_whole(cli: Cli, columns: int) -> None:
    result = cli("serve", "locally", "--help", COLUMNS=str(columns))
    assert (result.returncode, result.stderr) == (0, "")
    assert max(map(len, result.stdout.splitlines())) <= columns
    for option in ("--review-below", "--no-token-auth", "--batch-delay-ms"):
        assert option in result.stdout
    assert "dim]" not in result.stdout


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_what_is_shown_fits_and_keeps_words_whole(cli: Cli, bundle: Bundle, columns: int) -> None:
    result = cli("predict", "--model", bundle.path, "goal " * 40, COLUMNS=str(columns))
    assert result.returncode == 0, result.stderr
    assert max(map(len, result.stdout.splitlines())) <= columns
    assert "\x1b" not in result.stdout
    for name in ("review", *(word for label in LABELS for word in label.split())):
        assert name in result.stdout


def test_the_version_is_the_packages(cli: Cli) -> None:
    result = cli("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"newsbert {newsbert.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        (["trian"], "'trian'", "newsbert --help"),
        (["serve", "local"], "'local'", "newsbert serve --help"),
        (["--nope"], "--nope", "newsbert --help"),
        (["predict", "--modle", "x"], "--modle", "newsbert predict --help"),
        (
            ["serve", "locally", "--port", "eighty"],
            "'eighty' is no valid value for '--port'",
            "newsbert serve locally --help",
        ),
        (["train", "--epochs=many"], "'many'", "newsbert train --help"),
        (["serve", "stop", "one", "two"], "one", "newsbert serve stop --help"),
    ],
)
def test_a_call_that_cannot_be_parsed_is_a_usage_error(cli: Cli, arguments: list[str], said: str, hint: str) -> None:
    result = cli(*arguments)
    _failed(result, 2, said)
    assert result.stderr.splitlines()[-1] == f"Hint: {hint}"


# Errors


def test_a_failure_is_one_json_document_on_stdout_where_json_is_asked_for(cli: Cli, tmp_path: Path) -> None:
    result = cli("predict", "--model", tmp_path, "--json", "goal")
    assert result.returncode == 1
    document = json.loads(result.stdout)
    assert set(document) == {"error"}
    assert set(document["error"]) == {"code", "message", "hint"}
    assert document["error"]["code"] == "model"
    assert "newsbert.json" in document["error"]["message"]


def test_a_call_that_cannot_be_parsed_is_answered_in_json_where_json_is_asked_for(cli: Cli) -> None:
    result = cli("predict", "--json", "--modle", "x")
    error = json.loads(result.stdout)["error"]
    assert (result.returncode, error["code"], error["hint"]) == (2, "usage", "newsbert predict --help")
    assert "--modle" in error["message"]


def test_a_usage_error_is_one_json_document_too(cli: Cli) -> None:
    result = cli("register", "--json")
    assert result.returncode == 2
    assert json.loads(result.stdout) == {
        "error": {
            "code": "usage",
            "message": "no model name",
            "hint": "newsbert register --model-name BertModel",
        }
    }


def test_an_error_is_two_lines_and_a_traceback_only_with_debug(cli: Cli, tmp_path: Path) -> None:
    plain = cli("predict", "--model", tmp_path, "goal")
    _failed(plain, 1, "newsbert.json")
    assert len(plain.stderr.splitlines()) == 2
    debug = cli("predict", "--model", tmp_path, "--debug", "goal")
    assert debug.returncode == 1
    assert debug.stdout == ""
    assert "Traceback (most recent call last)" in debug.stderr
    assert debug.stderr.endswith(plain.stderr)


def test_an_error_with_line_breaks_and_markup_is_still_two_lines_as_written(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "two\nlines [bold]x").mkdir()
    result = cli("predict", "--model", "./two\nlines [bold]x", "goal")
    _failed(result, 1, "two lines [bold]x")
    assert len(result.stderr.splitlines()) == 2


def test_ctrl_c_exits_as_interrupted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "newsbert", "predict", "--json", "--url", url, "goal"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts what runs in its background, such as a whole test run, with Ctrl+C ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        connection, _ = listener.accept()
        with connection:  # it waits for an answer now
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(stdout)["error"]["message"] == "interrupted"
    assert stderr == "Error: interrupted\n"


def test_a_reader_that_has_read_enough_is_no_failure(bundle: Bundle) -> None:
    arguments = [sys.executable, "-m", "newsbert", "predict", "--model", str(bundle.path), "--json"]
    process = subprocess.Popen(
        [*arguments, *map(str, range(1500))], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "{\n"
    process.stdout.close()
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["predict", "the team"], 1), (["predict", "the team", "--json"], 1), (["frobnicate", "--json"], 1),
     (["predict", "--help"], 1), (["--version"], 1)],
)  # fmt: skip
def test_a_standard_output_that_is_full_is_an_error(
    bundle: Bundle, arguments: list[str], code: int, unbuffered: str
) -> None:
    model = ["--model", str(bundle.path)] if "the team" in arguments else []
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "newsbert", *arguments, *model],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert result.returncode == code
    assert "Error: standard output cannot be written: No space left on device\nHint: " in result.stderr
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


LONG = "x" * 300


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["predict", "--model", LONG, "the team"], 1),
        (["build-image", LONG], 1),
        (["predict", "--model", f"./{LONG}", "the team"], 1),
        (["train", "--output", LONG], 2),
        (["predict", "--file", "in.csv", "--output", f"{LONG}.csv"], 2),
    ],
)
def test_a_path_that_is_too_long_is_an_error(cli: Cli, arguments: list[str], code: int) -> None:
    _failed(cli(*arguments), code, LONG, "File name too long")


def test_a_file_whose_path_is_too_long_is_an_error(cli: Cli, bundle: Bundle) -> None:
    rows = cli("predict", "--model", bundle.path, "--file", f"{LONG}.csv", "--output", "out.csv")
    _failed(rows, 1, LONG, "File name too long")


def test_a_home_that_nobody_has_is_no_bundle(cli: Cli) -> None:
    _failed(cli("predict", "--model", "~nobody-of-this-name/bundle", "the team"), 1, "~nobody-of-this-name/bundle")


@pytest.mark.parametrize("host", ["tcp://engine:port", "tcp://[::1", "tcp://engine:99999"])
def test_an_engine_address_that_is_none_is_an_error(cli: Cli, host: str) -> None:
    _failed(cli("serve", "container", "some:image", DOCKER_HOST=host), 1, "no container engine answers")


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = ("torch", "mlflow", "docker", "transformers", "onnxruntime", "numpy")
    script = f"import sys, newsbert.cli.app; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize(
    "content", ["modle_name = 'x'", "[train]\nepoch = 3", "[server]\nport = 1", "train = 5", "[serve", "\udcff = 1"]
)
def test_a_configuration_file_with_a_fault_is_named(cli: Cli, tmp_path: Path, content: str) -> None:
    (tmp_path / "newsbert.toml").write_text(content, encoding="utf-8", errors="surrogateescape")
    _failed(cli("register", "--model-name", "BertModel"), 2, "newsbert.toml")


def test_an_unknown_key_of_the_configuration_file_is_named_with_its_place(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "newsbert.toml").write_text("[serve]\nprot = 80\n")
    result = cli("serve", "locally", "--json")
    assert result.returncode == 2
    error = json.loads(result.stdout)["error"]
    assert "'prot'" in error["message"]
    assert "[serve]" in error["message"]
    assert "port" in error["hint"]


# predict


def _expected(bundle: Bundle, texts: Sequence[str]) -> list[dict[str, object]]:
    predictions = Model.from_directory(bundle.path).predict(texts)
    return [
        {
            "text": text,
            "label": prediction.label,
            "score": pytest.approx(prediction.score, abs=1e-3),
            "review": prediction.review,
            "probabilities": pytest.approx(prediction.probabilities, abs=1e-3),
        }
        for text, prediction in zip(texts, predictions, strict=True)
    ]


def test_texts_are_classified_with_a_bundles_directory(cli: Cli, bundle: Bundle) -> None:
    texts = ["goal for the team", "Élections: bank & profit", "--json"]
    result = cli("predict", "--model", bundle.path, "--json", "--", *texts)
    assert (result.returncode, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert document == {"model": bundle.path.name, "predictions": _expected(bundle, texts)}


def test_a_table_has_name_texts_labels_and_probabilities_and_stands_alone_on_stdout(
    cli: Cli, bundle: Bundle, tmp_path: Path
) -> None:
    long = "goal " * 50
    path = shutil.copytree(bundle.path, tmp_path / "a [bold]name")
    result = cli("predict", "--model", path, "stocks market [bold]bank", long)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[0].strip() == "a [bold]name"
    first, second = Model.from_directory(bundle.path).predict(["stocks market [bold]bank", long])
    assert "stocks market [bold]bank" in result.stdout
    assert long.strip() not in result.stdout
    for label in LABELS:
        assert label in result.stdout
    for prediction in (first, second):
        row = next(line for line in result.stdout.splitlines() if f"{prediction.score:.3f}" in line)
        assert prediction.label in row
        assert ("yes" if prediction.review else "no") in row.replace("│", " ").split()


def test_the_threshold_for_reviews_can_be_given_and_is_the_same_in_a_file(
    cli: Cli, bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("text\ngoal team\nx\n", encoding="utf-8")
    for below, said in (("0", False), ("1", True)):
        given = ("predict", "--model", bundle.path, "--review-below", below)
        told = json.loads(cli(*given, "goal team", "x", "--json").stdout)
        assert [each["review"] for each in told["predictions"]] == [said, said]
        assert cli(*given, "--file", "in.csv", "--output", f"{below}.csv").returncode == 0
        lines = (tmp_path / f"{below}.csv").read_text(encoding="utf-8").splitlines()
        assert lines[0] == "text,label,score,review,probabilities"
        assert [f",{str(said).lower()}," in line for line in lines[1:]] == [True, True]
    (tmp_path / "newsbert.toml").write_text("[serve]\nreview_below = 1\n")
    told = json.loads(cli("predict", "--model", bundle.path, "goal team", "--json").stdout)
    assert told["predictions"][0]["review"] is True
    _failed(cli("predict", "--model", bundle.path, "--review-below", "1.5", "x"), 2, "1.5 cannot be")
    _failed(cli("predict", "--url", "http://127.0.0.1:1", "--review-below", "0.5", "x"), 2, "exclude each other")


@pytest.mark.parametrize(
    ("arguments", "stdin"), [([], "goal\n\nbank profit"), (["-"], "\ufeffgoal\r\n  bank profit  \r\n\t\n")]
)
def test_lines_of_standard_input_are_classified(cli: Cli, bundle: Bundle, arguments: list[str], stdin: str) -> None:
    result = cli("predict", "--model", bundle.path, "--json", *arguments, stdin=stdin)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["predictions"] == _expected(bundle, ["goal", "bank profit"])


@pytest.mark.parametrize("stdin", ["", "\n \n"])
def test_nothing_on_standard_input_is_a_usage_error(cli: Cli, bundle: Bundle, stdin: str) -> None:
    _failed(cli("predict", "--model", bundle.path, stdin=stdin), 2, "standard input holds no text")


def test_a_closed_standard_input_is_a_usage_error(bundle: Bundle) -> None:
    command = f"exec {sys.executable} -m newsbert predict --model '{bundle.path}' <&-"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    _failed(result, 2, "no text")


def test_standard_input_in_another_encoding_is_a_usage_error(bundle: Bundle) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "newsbert", "predict", "--model", str(bundle.path)],
        input="café".encode("latin-1"),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 2
    assert b"not valid UTF-8" in result.stderr


@pytest.mark.parametrize(
    ("texts", "said"), [(["  "], "the text is empty"), (["goal", "<b></b>"], "text 2: the text is empty")]
)
def test_an_empty_text_is_refused_by_its_number(cli: Cli, bundle: Bundle, texts: list[str], said: str) -> None:
    _failed(cli("predict", "--model", bundle.path, *texts), 1, said)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_any_text_can_be_shown_in_any_encoding(bundle: Bundle, encoding: str) -> None:
    text = os.fsdecode(b"\xff \xf0\x9f\x8f\x86 goal")  # not UTF-8, as an argument may be
    result = subprocess.run(
        [sys.executable, "-m", "newsbert", "predict", "--model", str(bundle.path), text],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"goal" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--file", "rows.csv"], "--file and --output go together"),
        (["--output", "out.csv", "goal"], "--file and --output go together"),
        (["--url", "http://127.0.0.1:9", "--model", "x", "goal"], "--url and --model exclude each other"),
        (["--file", "rows.csv", "--output", "out.csv", "goal"], "texts and --file exclude each other"),
        (["--file", "rows.csv", "--output", "out.pdf"], "out.pdf"),
        (["--file", "no.csv", "--output", "out.csv", "--model", "BUNDLE"], "no.csv"),
    ],
)
def test_arguments_that_do_not_fit_each_other_are_a_usage_error(
    cli: Cli, bundle: Bundle, arguments: list[str], said: str
) -> None:
    _failed(cli("predict", *(str(bundle.path) if each == "BUNDLE" else each for each in arguments)), 2, said)


def test_rows_of_a_file_are_classified_into_another(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": 1, "text": "goal"}\n{"id": 2, "text": ""}\n', encoding="utf-8")
    result = cli("predict", "--model", bundle.path, "--file", "in.jsonl", "--output", "out.jsonl", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    rejected = "out.jsonl.rejected.jsonl"
    counts = {"rows": 2, "skipped": 1, "unreadable": 0}
    assert document == {"model": bundle.path.name, **counts, "output": "out.jsonl", "rejected": rejected}
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines())
    (expected,) = _expected(bundle, ["goal"])
    assert first == expected | {"id": 1}
    assert second == {"id": 2, "text": "", "label": None, "score": None, "review": None, "probabilities": None}


# predict --url, with a server of a few lines


class _Server:
    """A real HTTP server that answers what it is told to, and keeps what it was asked.

    Args:
        model: Answers the texts; where there is none, every request gets `status`, `body`.
    """

    def __init__(self, model: Model | None = None, status: int = 200, body: bytes = b"") -> None:
        self.asked: list[tuple[str, Any]] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                value = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked.append((self.path, value))
                answer = body
                if model is not None:
                    answer = json.dumps([each.to_dict() for each in model.predict(value["instances"])]).encode()
                self.send_response(status)
                self.send_header("X-Newsbert-Model", "Mod%C3%A8le/3")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@contextlib.contextmanager
def _serving(model: Model | None = None, status: int = 200, body: bytes = b"") -> Iterator[_Server]:
    server = _Server(model, status, body)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


@pytest.fixture
def served(bundle: Bundle) -> Iterator[_Server]:
    """A server of the tiny model."""
    with _serving(Model.from_directory(bundle.path)) as server:
        yield server


def test_a_server_is_asked_where_a_url_is_given(cli: Cli, bundle: Bundle, served: _Server) -> None:
    result = cli("predict", "--url", served.url, "--json", "goal", "bank profit")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {
        "model": "Modèle/3",
        "predictions": _expected(bundle, ["goal", "bank profit"]),
    }
    assert served.asked == [("/predictions/news_classification", {"instances": ["goal", "bank profit"]})]


def test_a_client_asks_in_parts_and_keeps_the_order(bundle: Bundle, served: _Server) -> None:
    texts = [f"goal {number}" for number in range(2 * CHUNK_ITEMS + 1)]
    client = Client(served.url.removeprefix("http://"))
    predictions = client.predict([*texts[:-1], {"title": "goal", "text": texts[-1].partition(" ")[2]}])
    assert [len(value["instances"]) for _, value in served.asked] == [CHUNK_ITEMS, CHUNK_ITEMS, 1]
    expected = Model.from_directory(bundle.path).predict(texts)
    for one, other in zip(predictions, expected, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-3)
    assert client.name == "Modèle/3"
    assert client.predict([]) == []


def test_a_runtime_can_be_named(cli: Cli, bundle: Bundle) -> None:
    told = cli("predict", "--model", bundle.path, "--runtime", "onnxruntime", "stocks market", "--json")
    expected = Model.from_directory(bundle.path, runtime="torch").predict(["stocks market"])
    assert json.loads(told.stdout)["predictions"][0]["probabilities"] == pytest.approx(
        expected[0].probabilities, abs=1e-3
    )
    refused = cli("predict", "--model", bundle.path, "--runtime", "tensorrt", "stocks market")
    assert refused.returncode == 2
    assert "no runtime 'tensorrt'" in refused.stderr
    assert cli("predict", "--url", "http://127.0.0.1:1", "--runtime", "torch", "stocks").returncode == 2


def test_rows_of_a_file_are_classified_by_a_server(cli: Cli, bundle: Bundle, served: _Server, tmp_path: Path) -> None:
    texts = [f"goal {'bank ' * (number % 7)}{number}" for number in range(300)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    result = cli("predict", "--url", served.url, "--file", "in.jsonl", "--output", "out.jsonl", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["model"] == "Modèle/3"
    expected = Model.from_directory(bundle.path).predict(texts)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in found] == texts
    for row, prediction in zip(found, expected, strict=True):
        assert row["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-3)
    sizes = [len(value["instances"]) for _, value in served.asked]
    assert (sizes[0], sum(sizes), max(sizes)) == (1, 301, 64)  # it is asked for its name first


def test_a_predictions_url_is_taken_as_it_is(served: _Server) -> None:
    Client(f"{served.url}/predictions/other/1.0").predict(["goal"])
    assert served.asked == [("/predictions/other/1.0", {"instances": ["goal"]})]


@pytest.mark.parametrize("status", [400, 413, 415])
def test_a_refused_request_is_told_in_the_servers_words(cli: Cli, status: int) -> None:
    with _serving(status=status, body=b'{"code": 400, "message": "item 0: no good"}') as server:
        with pytest.raises(BadRequestError, match=rf"\({status}\): item 0: no good"):
            Client(server.url).predict(["goal"])
        if status == 400:
            _failed(cli("predict", "--url", server.url, "goal"), 1, "item 0: no good")


@pytest.mark.parametrize(("status", "body"), [(500, b""), (503, b"{}"), (404, b"[]"), (507, b'{"message": "full"}')])
def test_a_servers_failure_is_told_with_its_code(status: int, body: bytes) -> None:
    with _serving(status=status, body=body) as server, pytest.raises(ServingError, match=f"answered {status}"):
        Client(server.url, retry_s=0).predict(["goal"])


_ANSWER = {"label": "a", "score": 1.0, "probabilities": {"a": 1.0}}


@pytest.mark.parametrize(
    "answer",
    [[], [_ANSWER, _ANSWER], _ANSWER, None, 5, ["a"], [{"label": "a"}], [{**_ANSWER, "score": "x"}],
     [{**_ANSWER, "probabilities": 1}], [{**_ANSWER, "review": "yes"}], [None]],
)  # fmt: skip
def test_an_answer_in_another_form_is_an_error(answer: object) -> None:
    with _serving(body=json.dumps(answer).encode()) as server, pytest.raises(ServingError, match=re.escape(server.url)):
        Client(server.url).predict(["goal"])


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff"])
def test_an_answer_that_is_no_json_is_an_error(body: bytes) -> None:
    with _serving(body=body) as server, pytest.raises(ServingError, match=re.escape(server.url)):
        Client(server.url).predict(["goal"])


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[{"])
def test_what_does_not_speak_http_is_an_error(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        port = listener.getsockname()[1]
        with pytest.raises(ServingError, match=f"127.0.0.1:{port}"):
            Client(f"127.0.0.1:{port}", retry_s=0).predict(["goal"])
        thread.join()


@pytest.mark.parametrize("url", ["", "http://", "http://127.0.0.1:abc", "http://[::1", "nonsense://x", "http://a b"])
def test_a_url_that_is_none_is_an_error(url: str) -> None:
    with pytest.raises(ServingError):
        Client(url).predict(["goal"])


def test_no_server_at_a_url_exits_1(cli: Cli) -> None:
    _failed(cli("predict", "--url", f"http://127.0.0.1:{_free_port()}", "goal"), 1, "no model server answers")


def test_an_empty_url_is_not_taken_for_no_url(cli: Cli) -> None:
    _failed(cli("predict", "--url", "", "goal"), 1, "no model server answers")


# Models and tracking servers


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("OtherModel/1", "no registered model 'OtherModel'"),
        ("TinyModel/99", "no version 99 of 'TinyModel'"),
        ("TinyModel@nobody", "no alias 'nobody'"),
        ("./nowhere", "newsbert.json"),
    ],
)
def test_what_is_not_there_is_named(
    cli: Cli, trained: tuple[newsbert.TrainResult, str], reference: str, said: str
) -> None:
    _failed(cli("predict", "--tracking-uri", trained[1], "--model", reference, "goal"), 1, said)


def test_a_version_answers_under_its_name(cli: Cli, trained: tuple[newsbert.TrainResult, str], bundle: Bundle) -> None:
    result = cli("predict", "--tracking-uri", trained[1], "--model", "TinyModel/1", "--json", "goal")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {"model": "TinyModel/1", "predictions": _expected(bundle, ["goal"])}


def test_a_register_without_a_name_is_a_usage_error(cli: Cli) -> None:
    result = cli("register")
    _failed(result, 2, "no model name")
    assert "newsbert register --model-name" in result.stderr


def test_an_unreachable_tracking_server_is_told_quickly(cli: Cli) -> None:
    uri = f"http://127.0.0.1:{_free_port()}"
    before = time.monotonic()
    _failed(cli("register", "--model-name", "X", "--tracking-uri", uri), 1, uri, "cannot be reached")
    assert time.monotonic() - before < 10


def test_a_tracking_server_that_does_not_answer_is_told_quickly(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts, and says nothing
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        before = time.monotonic()
        _failed(cli("predict", "goal", MLFLOW_TRACKING_URI=uri), 1, uri, "cannot be reached")
        assert time.monotonic() - before < 15


@pytest.mark.parametrize("uri", ["http://127.0.0.1:abc", "http://[::1", "http://", "nonsense://x"])
def test_a_tracking_uri_that_is_none_is_named(cli: Cli, uri: str) -> None:
    _failed(cli("predict", "--tracking-uri", uri, "goal"), 1, uri)


# serve


def test_a_port_in_use_is_told_before_anything_else(cli: Cli, bundle: Bundle) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for arguments in ([bundle.path], [bundle.path, "--detach"], ["no-such-model"]):
            result = cli("serve", "locally", *arguments, "--port", port)
            _failed(result, 1, f"127.0.0.1:{port}", "in use")
            assert "--port 0" in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("--port", "65536", 2),
        ("--port", "-1", 2),
        ("--workers", "0", 2),
        ("--batch-size", "0", 2),
        ("--batch-delay-ms", "-1", 2),
        ("--timeout", "0", 2),
        ("--host", "", 2),
        ("--host", "no.such.host.invalid", 1),
        ("--host", "a..b", 1),
        ("--host", "192.0.2.1", 1),
    ],
)
def test_a_setting_that_cannot_be_is_told_before_the_server_starts(
    cli: Cli, bundle: Bundle, option: str, value: str, code: int
) -> None:
    arguments = [] if option == "--port" else ["--port", "0"]
    _failed(cli("serve", "locally", bundle.path, *arguments, f"{option}={value}"), code, value)


@pytest.mark.parametrize("reference", ["nothing.mar", "README.mar"])
def test_what_is_no_archive_is_not_served(cli: Cli, tmp_path: Path, reference: str) -> None:
    (tmp_path / "README.mar").write_text("no archive")
    _failed(cli("serve", "locally", reference, "--port", "0"), 1, reference)


@pytest.mark.parametrize("arguments", [[], ["--port", "8101"]])
def test_stopping_where_nothing_runs_exits_1(cli: Cli, arguments: list[str]) -> None:
    _failed(cli("serve", "stop", *arguments), 1, "no detached server is running")
