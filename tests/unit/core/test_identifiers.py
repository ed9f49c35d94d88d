"""What names things: only that may become a path, a URL, a filter or a command."""

import shlex
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsbert.core import identifiers
from newsbert.errors import NewsbertError, TrackingError, UsageError

SERVER = "https://mlflow.example:5000/team"
PARSERS: dict[str, Callable[[str], Any]] = {
    "run": lambda text: identifiers.parse_run_id(text, "it"),
    "logged model": lambda text: identifiers.parse_model_id(text, "it"),
    "name": identifiers.parse_model_name,
    "version": lambda text: identifiers.parse_version(text, "it"),
    "alias": identifiers.parse_alias,
    "digest": lambda text: identifiers.parse_digest(text, "it"),
    "experiment": identifiers.parse_experiment_id,
}
HEX = "0123456789abcdef" * 2
HOSTILE = [
    f"m-{HEX}?x=/../../../../.local/lib", f"m-{HEX}/../x", f"{HEX}/..", f"{HEX}\n", f"{HEX}'", "' OR 1=1 --", "..", ".",
    "", " ", "/etc/passwd", "a/b", "a@b", "a:b", "a%2e%2e", "a\\b", "a`b", "a\x00b", "a\x1b[31m", "a\u202eb",
    "a\u2028b", "--index-url=http://x", " a", "a ", "a?b", "a#b", "x" * 300, "\udcff",
]  # fmt: skip


@pytest.mark.parametrize("kind", PARSERS)
@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_attack_text_that_is_no_plain_name_is_refused(kind: str, text: str) -> None:
    with pytest.raises(NewsbertError) as caught:
        PARSERS[kind](text)
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("kind", PARSERS)
@given(text=st.text(max_size=40) | st.from_regex(r"[a-z0-9./:@%'?#-]{1,40}", fullmatch=True))
def test_accepted_names_are_one_part_of_a_path_url_and_filter(kind: str, text: str) -> None:
    try:
        value = str(PARSERS[kind](text))
    except NewsbertError:
        return
    assert value == text or kind == "version"
    assert not set("/\\'\"`%?#@:\n\r\0") & set(value) and value not in {"", ".", ".."}
    assert value.isprintable() and not value.startswith("-")
    assert shlex.split(shlex.quote(value)) == [value]


def test_names_of_mlflow_and_users_are_accepted() -> None:
    assert identifiers.parse_model_id(f"m-{HEX}", "it") == f"m-{HEX}"
    assert identifiers.parse_run_id(HEX, "it", UsageError) == HEX
    assert identifiers.parse_version("007", "it") == identifiers.parse_version(7, "it") == "7"
    for name in ("BertModel", "News & more (2026)", "Übersicht", "a.b_c-d"):
        assert identifiers.parse_model_name(name) == name
    assert identifiers.parse_alias("champion_1") == "champion_1"
    for alias in ("latest", "v1", "V2"):
        with pytest.raises(UsageError):
            identifiers.parse_alias(alias)


@pytest.mark.parametrize(
    "location",
    ["mlflow-artifacts:/1/models/m-1/artifacts", "mlflow-artifacts://mlflow.example:5000/1/x", "/home/a b/mlruns/1",
     "file:///home/x%20y/1", "s3://bucket/1/x", "gs://bucket/x", "wasbs://container@account.blob.core.windows.net/x",
     f"runs:/{HEX}/model", "https://mlflow.example:5000/team/api/2.0/mlflow-artifacts/artifacts/1"],
)  # fmt: skip
def test_locations_on_the_server_and_in_stores_are_accepted(location: str) -> None:
    assert identifiers.parse_location(location, SERVER, "it") == location


@pytest.mark.parametrize(
    "location",
    ["mlflow-artifacts://evil.example/1", "mlflow-artifacts://mlflow.example:5000@evil.example/1", "http://evil.example/x",
     "https://evil.example/x", "http://mlflow.example:5000/x", "mlflow-artifacts:/1/../../2",
     "mlflow-artifacts:/1/%2e%2e/2", "mlflow-artifacts:/1/%252e%252e/2", "mlflow-artifacts:/1?x=/y", "s3://bucket/x#y",
     "ftp://x/y", "sftp://x/y",
     "models:/x/1", "runs:/x/model", "data:,x", "javascript:x", "s3://bucket/a\nb", " s3://b/x", "", "https://[::1/x", "s3://b\\..\\x"],
)  # fmt: skip
def test_attack_a_location_elsewhere_is_refused(location: str) -> None:
    with pytest.raises(TrackingError, match="not read"):
        identifiers.parse_location(location, SERVER, "it")


@given(st.text(max_size=60))
def test_accepted_locations_have_no_parent_references(text: str) -> None:
    for prefix in ("mlflow-artifacts:/1/", "s3://bucket/"):
        try:
            location = identifiers.parse_location(prefix + text, SERVER, "it")
        except TrackingError:
            continue
        assert ".." not in urllib.parse.unquote(location).split("/")
        assert "?" not in location and location.isprintable()


@given(st.integers(-(2**63), 2**63))
def test_attack_any_timestamp_has_a_valid_date(milliseconds: int) -> None:
    assert 1970 <= identifiers.parse_time(milliseconds).astimezone().year <= 9999


@pytest.mark.parametrize("scheme", ["wasb", "wasbs", "abfs", "abfss"])
@pytest.mark.parametrize(
    "host", ["evil.example", "c@evil.example", "c@a.blob.core.windows.net.evil.example", "c@a.dfs.core.windows.net:1",
             "c@d@a.evil.example", "c@evil.example/@a.dfs.core.windows.net"],
)  # fmt: skip
def test_attack_azures_credentials_go_to_azure_alone(scheme: str, host: str) -> None:
    with pytest.raises(TrackingError, match="not read"):
        identifiers.parse_location(f"{scheme}://{host}/x", SERVER, "it")
    for place in ("a.dfs.core.windows.net", "a.blob.core.chinacloudapi.cn", "onelake.dfs.fabric.microsoft.com"):
        assert identifiers.parse_location(f"{scheme}://c@{place}/x", SERVER, "it")
