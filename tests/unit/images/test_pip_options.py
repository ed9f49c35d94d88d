"""pip's options: what pip reads of them, and credentials that are never shown."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newsbert.errors import UsageError
from newsbert.images.contexts import (
    BuildContext,
    without_secrets,
)
from newsbert.images.pip_options import holds_secret, pip_conf


def test_pip_reads_its_options(tmp_path: Path) -> None:
    options = [
        "index-url=https://user:p%40ss@host/simple?a=b",
        "find-links=https://one/wheels",
        "find-links=https://two/wheels",
        "timeout=7",
    ]
    file = tmp_path / "pip.conf"
    file.write_bytes(pip_conf(options))
    parser = configparser.RawConfigParser()  # what pip reads it with
    parser.read(file, encoding="utf-8")
    assert dict(parser["global"]) == {
        "index-url": "https://user:p%40ss@host/simple?a=b",
        "find-links": "https://one/wheels https://two/wheels",
        "timeout": "7",
    }
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        env={"PIP_CONFIG_FILE": str(file), "HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "global.timeout='7'" in listed.stdout.splitlines()


def test_no_pip_options_are_an_empty_configuration() -> None:
    assert pip_conf(()) == b"[global]\n"


@pytest.mark.parametrize(
    "option",
    ["", "index-url", "=https://host", "index-url=", "Index-Url=x", "index_url=x", "-x=1", " a=b",
     "a=b\nc=d", "a=b\rc", "[global]", "1a=b", "a=\n", "proxy=a\u2028b", "proxy=a\x0bb", "proxy=a\x00"],
)  # fmt: skip
def test_an_invalid_pip_option_is_a_usage_error(option: str) -> None:
    with pytest.raises(UsageError, match="is not NAME=VALUE") as caught:
        pip_conf(["timeout=3", option])
    assert "index-url=" in str(caught.value.hint)


@pytest.mark.parametrize(
    "option",
    ["extra-index-url=https://other.example/simple", "require-hashes=false", "no-deps=false", "requirement=/etc/passwd",
     "constraint=http://evil.example/c", "target=/", "python=/bin/sh", "pre=true", "editable=git+https://evil.example/x",
     "no-binary=:all:", "global-option=x", "log=/x"],
)  # fmt: skip
def test_attack_pip_options_cannot_change_what_is_installed(option: str) -> None:
    with pytest.raises(UsageError, match="is none of a build"):
        pip_conf(["timeout=3", option])


_SECRETS = st.text(alphabet="abzXYZ019@:/%!$&'()+,;=?#[]-._~", min_size=4, max_size=12).map(
    lambda text: f"S3{text}cret"
)


_PLACES = st.sampled_from(
    [
        "index-url=https://user:{}@host.example/simple",
        "index-url=https://{}@host.example/simple",
        "find-links=https://{}:x@host.example:8443/wheels https://user:{}@other.example/wheels",
        "proxy=user:{}@proxy.example:3128",
        "proxy=http://user:{}@proxy.example:3128",
        "find-links=git+ssh://user:{}@host.example/wheels",
    ]
)


@settings(max_examples=150, deadline=None)
@given(secret=_SECRETS, place=_PLACES)
def test_no_credential_of_a_pip_option_is_shown(secret: str, place: str) -> None:
    option = place.replace("{}", secret)
    context = BuildContext("tag", (), "FROM x\n", {}, {}, {"pip.conf": pip_conf([option])})
    assert holds_secret([option])
    assert secret in pip_conf([option]).decode()
    shown = without_secrets(context)["pip.conf"]
    assert not _contains_half(secret, shown)
    assert ".example" in shown
    with pytest.raises(UsageError) as caught:
        pip_conf([option.upper().replace(secret.upper(), secret)])
    assert not _contains_half(secret, caught.value.message)


def _contains_half(secret: str, text: str) -> bool:
    """Whether half of a secret or more stands in a text."""
    length = len(secret) // 2
    return any(secret[start : start + length] in text for start in range(len(secret) - length + 1))


def test_a_token_in_a_query_is_not_shown() -> None:
    options = ["index-url=https://host.example/simple?token=S3cret", "trusted-host=host.example"]
    context = BuildContext("tag", (), "FROM x\n", {}, {}, {"pip.conf": pip_conf(options)})
    shown = without_secrets(context)["pip.conf"]
    assert "S3cret" not in shown
    assert "https://host.example/simple" in shown
    assert "trusted-host = host.example" in shown
