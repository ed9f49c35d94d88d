"""`newsbert serve locally`: what is refused before the server starts."""

import socket
from pathlib import Path

import pytest

from newsbert.bundle.bundle import Bundle
from tests.support.calls import failed
from tests.support.cli import Cli


def test_a_port_in_use_is_an_error_before_the_model_is_read(cli: Cli, bundle: Bundle) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for arguments in ([bundle.path], [bundle.path, "--detach"], ["no-such-model"]):
            result = cli("serve", "locally", *arguments, "--port", port)
            failed(result, 1, f"127.0.0.1:{port}", "in use")
            assert "--port 0" in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("--port", "65536", 2),
        ("--port", "-1", 2),
        ("--workers", "0", 2),
        ("--batch-size", "0", 2),
        ("--batch-delay-ms", "-1", 2),
        ("--timeout-s", "0", 2),
        ("--host", "", 2),
        ("--host", "no.such.host.invalid", 1),
        ("--host", "a..b", 1),
        ("--host", "192.0.2.1", 1),
    ],
)
def test_an_invalid_setting_is_an_error_before_the_server_starts(
    cli: Cli, bundle: Bundle, option: str, value: str, code: int
) -> None:
    arguments = [] if option == "--port" else ["--port", "0"]
    failed(cli("serve", "locally", bundle.path, *arguments, f"{option}={value}"), code, value)


@pytest.mark.parametrize("option", ["--timeout-s", "--drain-s", "--token-expiry-min"])
def test_an_error_names_the_option_as_typed(cli: Cli, bundle: Bundle, option: str) -> None:
    failed(cli("serve", "locally", bundle.path, f"{option}=-1"), 2, f"the option {option}: -1")


@pytest.mark.parametrize("option", ["--workers=2", "--batch-delay-ms=0", "--runtime=torch", "--queue-size=7"])
def test_options_that_an_archive_sets_are_refused(cli: Cli, option: str) -> None:
    name = option.partition("=")[0]
    failed(cli("serve", "locally", "model.mar", option), 2, f"{name} cannot be given for 'model.mar'")


@pytest.mark.parametrize("reference", ["nothing.mar", "README.mar"])
def test_an_invalid_archive_is_not_served(cli: Cli, tmp_path: Path, reference: str) -> None:
    (tmp_path / "README.mar").write_text("no archive")
    failed(cli("serve", "locally", reference, "--port", "0"), 1, reference)
