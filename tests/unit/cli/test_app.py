"""The command line as a user calls it: exit codes, what goes where, and errors with hints."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer
from typer.testing import CliRunner

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.cli.app import app
from tests.support.calls import expected, failed, free_port
from tests.support.cli import Cli
from tests.support.tiny_model import LABELS


def _list_commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """All commands that are no groups of others, as they are called."""
    for name, command in group.commands.items():
        called = (*path, name)
        yield from _list_commands(command, called) if hasattr(command, "commands") else [list(called)]


COMMAND: Any = typer.main.get_command(app)  # made once: it takes as long as a test
COMMANDS = list(_list_commands(COMMAND))


# Help, version and calls that cannot be parsed


def test_help_lists_the_commands_and_exit_codes(cli: Cli) -> None:
    result = cli("--help")
    assert (result.returncode, result.stderr) == (0, "")
    for command in ("train", "register", "export", "build-image", "serve", "predict"):
        assert re.search(rf"^\W*{command}\b", result.stdout, re.MULTILINE)
    assert "130 interrupted" in " ".join(result.stdout.split())


@pytest.mark.parametrize("group", [[], ["serve"], ["export"], ["tracking"]], ids=" ".join)
def test_a_group_shows_one_line_a_command_at_80_columns(cli: Cli, group: list[str]) -> None:
    shown = cli(*group, "--help", COLUMNS="80").stdout
    _, *panels = re.split(r"^╭─ (?!Options)", shown, flags=re.MULTILINE)
    lines = [line for panel in panels for line in panel.splitlines() if line.startswith("│")]
    command = COMMAND
    for name in group:
        command = command.commands[name]
    assert sorted(line.split()[1] for line in lines) == sorted(command.commands)
    if not group:
        assert [panel.split(" ─")[0] for panel in panels] == [
            "Train", "Classify", "Serve and deploy", "Set up", "Advanced",
        ]  # fmt: skip


@pytest.mark.parametrize("arguments", [[], ["serve"], ["export"], ["tracking"]], ids=" ".join)
def test_a_call_without_a_command_shows_the_help(cli: Cli, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == cli(*arguments, "--help").stdout.split()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_help_of_every_command_has_examples(cli: Cli, command: list[str]) -> None:
    result = cli(*command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    _, _, examples = result.stdout.partition("Examples:")
    assert f"newsbert {' '.join(command)}" in examples
    for option in ("--json", "--debug", "--help"):
        assert option in result.stdout
    assert "<bool>" not in result.stdout


@pytest.mark.parametrize("columns", [60, 80])
def test_help_does_not_break_option_names(cli: Cli, columns: int) -> None:
    result = cli("serve", "locally", "--help", COLUMNS=str(columns))
    assert (result.returncode, result.stderr) == (0, "")
    assert max(map(len, result.stdout.splitlines())) <= columns
    for option in ("--review-threshold", "--no-token-auth", "--batch-delay-ms"):
        assert option in result.stdout
    assert "dim]" not in result.stdout


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_tables_fit_the_terminal_without_breaking_words(cli: Cli, bundle: Bundle, columns: int) -> None:
    result = cli("predict", "--model", bundle.path, "goal " * 40, COLUMNS=str(columns))
    assert result.returncode == 0, result.stderr
    assert max(map(len, result.stdout.splitlines())) <= columns
    assert "\x1b" not in result.stdout
    for name in ("review", *(word for label in LABELS for word in label.split())):
        assert name in result.stdout


def test_a_pipe_has_a_row_in_one_line(cli: Cli, tmp_path: Path) -> None:
    data = tmp_path / ("rows" * 30 + ".csv")
    (tmp_path / "newsbert.toml").write_text(f'[train]\ndata = "{data.name}"\n')
    done = cli("config", COLUMNS="")
    assert done.returncode == 0, done.stderr
    (row,) = (line for line in done.stdout.splitlines() if "train.data" in line)
    assert data.name in row
    assert row == row.strip()
    assert max(map(len, cli("config", COLUMNS="80").stdout.splitlines())) <= 80


def test_version_prints_the_packages_version(cli: Cli) -> None:
    result = cli("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"newsbert {newsbert.__version__}\n", "")


# Errors


def test_with_json_an_error_is_one_document_on_stdout(cli: Cli, tmp_path: Path) -> None:
    result = cli("predict", "--model", tmp_path, "--json", "goal")
    assert result.returncode == 1
    document = json.loads(result.stdout)
    assert set(document) == {"error"}
    assert set(document["error"]) == {"code", "message", "hint"}
    assert document["error"]["code"] == "model"
    assert "newsbert.json" in document["error"]["message"]


def test_with_json_a_parse_error_is_a_document(cli: Cli) -> None:
    result = cli("predict", "--json", "--modle", "x")
    error = json.loads(result.stdout)["error"]
    assert (result.returncode, error["code"], error["hint"]) == (2, "usage", "newsbert predict --json --model x")
    assert "--modle" in error["message"]


def test_with_json_a_usage_error_is_a_document(cli: Cli) -> None:
    result = cli("register", "--json")
    assert result.returncode == 2
    assert json.loads(result.stdout) == {
        "error": {
            "code": "usage",
            "message": "no model name",
            "hint": "newsbert register --model-name BertModel",
        }
    }


def test_an_error_is_two_lines_and_debug_adds_a_traceback(cli: Cli, tmp_path: Path) -> None:
    plain = cli("predict", "--model", tmp_path, "goal")
    failed(plain, 1, "newsbert.json")
    assert len(plain.stderr.splitlines()) == 2
    debug = cli("predict", "--model", tmp_path, "--debug", "goal")
    assert debug.returncode == 1
    assert debug.stdout == ""
    assert "Traceback (most recent call last)" in debug.stderr
    assert debug.stderr.endswith(plain.stderr)


def test_an_error_with_line_breaks_and_markup_is_two_lines(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "two\nlines [bold]x").mkdir()
    result = cli("predict", "--model", "./two\nlines [bold]x", "goal")
    failed(result, 1, "two lines [bold]x")
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
        with connection:
            request = b""
            while b"goal" not in request:
                received = connection.recv(4096)
                assert received
                request += received
            # A signal just before a system call interrupts none: Python acts on it after the wait for the answer.
            while psutil.Process(process.pid).status() != psutil.STATUS_SLEEPING:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(stdout)["error"]["message"] == "interrupted"
    assert stderr == "Error: interrupted\n"


def test_a_closed_pipe_is_no_error(bundle: Bundle) -> None:
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
def test_a_full_standard_output_is_an_error(bundle: Bundle, arguments: list[str], code: int, unbuffered: str) -> None:
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
        (["train", "--output-dir", LONG], 2),
        (["predict", "--file", "in.csv", "--output", f"{LONG}.csv"], 2),
    ],
)
def test_a_path_that_is_too_long_is_an_error(cli: Cli, arguments: list[str], code: int) -> None:
    failed(cli(*arguments), code, LONG, "File name too long")


def test_a_file_whose_path_is_too_long_is_an_error(cli: Cli, bundle: Bundle) -> None:
    rows = cli("predict", "--model", bundle.path, "--file", f"{LONG}.csv", "--output", "out.csv")
    failed(rows, 1, LONG, "File name too long")


def test_a_home_of_an_unknown_user_is_an_error(cli: Cli) -> None:
    failed(cli("predict", "--model", "~nobody-of-this-name/bundle", "the team"), 1, "~nobody-of-this-name/bundle")


@pytest.mark.parametrize("host", ["tcp://engine:port", "tcp://[::1", "tcp://engine:99999"])
def test_an_invalid_engine_address_is_an_error(cli: Cli, host: str) -> None:
    failed(cli("serve", "container", "some:image", DOCKER_HOST=host), 1, "no container engine answers")


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = ("torch", "mlflow", "docker", "transformers", "onnxruntime", "numpy", "httpx2")
    script = f"import sys, newsbert.cli.app; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize(
    "content", ["modle_name = 'x'", "[train]\nepoch = 3", "[server]\nport = 1", "train = 5", "[serve", "\udcff = 1"]
)
def test_an_invalid_configuration_file_is_named(cli: Cli, tmp_path: Path, content: str) -> None:
    (tmp_path / "newsbert.toml").write_text(content, encoding="utf-8", errors="surrogateescape")
    failed(cli("register", "--model-name", "BertModel"), 2, "newsbert.toml")


def test_an_unknown_configuration_key_is_named_with_its_table(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "newsbert.toml").write_text("[serve]\nprot = 80\n")
    result = cli("serve", "locally", "--json")
    assert result.returncode == 2
    error = json.loads(result.stdout)["error"]
    assert "'prot'" in error["message"]
    assert "[serve]" in error["message"]
    assert "port" in error["hint"]


# Models and tracking servers


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("OtherModel/1", "no registered model 'OtherModel'"),
        ("TinyModel/99", "no version 99 of 'TinyModel'"),
        ("TinyModel@nobody", "no alias 'nobody'"),
        ("./nowhere", "newsbert.json"),
    ],
)
def test_a_missing_model_is_named(
    cli: Cli, trained: tuple[newsbert.TrainResult, str], reference: str, message: str
) -> None:
    failed(cli("predict", "--tracking-uri", trained[1], "--model", reference, "goal"), 1, message)


def test_predict_prints_the_registered_name(
    cli: Cli, trained: tuple[newsbert.TrainResult, str], bundle: Bundle
) -> None:
    result = cli("predict", "--tracking-uri", trained[1], "--model", "TinyModel/1", "--json", "goal")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {"model": "TinyModel/1", "predictions": expected(bundle, ["goal"])}


def test_register_without_a_name_is_a_usage_error(cli: Cli) -> None:
    result = cli("register")
    failed(result, 2, "no model name")
    assert "newsbert register --model-name" in result.stderr


def test_an_unreachable_tracking_server_is_an_error_within_seconds(cli: Cli) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    before = time.monotonic()
    failed(cli("register", "--model-name", "X", "--tracking-uri", uri), 1, uri, "cannot be reached")
    assert time.monotonic() - before < 10


def test_a_silent_tracking_server_is_an_error_within_seconds(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts, and sends nothing
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        before = time.monotonic()
        failed(cli("predict", "goal", MLFLOW_TRACKING_URI=uri), 1, uri, "cannot be reached")
        assert time.monotonic() - before < 15


@pytest.mark.parametrize("uri", ["http://127.0.0.1:abc", "http://[::1", "http://", "nonsense://x"])
def test_an_invalid_tracking_uri_is_named(cli: Cli, uri: str) -> None:
    failed(cli("predict", "--tracking-uri", uri, "goal"), 2 if uri.startswith("http:") else 1, uri)


# serve


def test_help_shows_its_whole_source_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    brackets = 0
    for path in COMMANDS:
        printed = " ".join(CliRunner().invoke(app, [*path, "--help"]).stdout.split())
        command = COMMAND
        for name in path:
            command = command.commands[name]
        texts = [command.help, *(param.help for param in command.params)]  # before they are escaped for Rich
        for text in filter(None, texts):
            source = " ".join(text.replace("\\[", "[").split())
            assert source in printed, (path, source)
            brackets += "[environments.NAME]" in source
    assert brackets
