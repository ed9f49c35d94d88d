"""Paths as URIs, and URIs as they may be printed."""

import os
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import URL, make_url

from newsbert.core import uris
from newsbert.errors import UsageError
from tests.support.cli import Cli

_NAMES = ("a b", "a%20b", "a%2Fb", "a#b", "a?b", "ü", "a:b", "a@b", "a;b", "a&b=c", "a+b", "100%", "~", "\\", "'\"")
_PASSWORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), min_size=6, max_size=30).map(
    lambda text: "Q7" + text.replace("\x85", "") + "z9"
)
_PLACES = (
    "http://{}@host/path",
    "http://user:{}@host:5000/path?x=1",
    "the server https://user:{}@host:5000 does not answer",
    "postgresql://user:{}@host/db",
    "(psycopg2) sqlalchemy://user:{}@host/db cannot be used, http://other:5000/x",
    "'postgresql+psycopg2://user:{}@host/db', see http://example.org/",
)
_QUERIES = (
    "postgresql://host/db?user=me&password={}",
    "postgresql://host/db?sslpassword={}&x=1",
    "https://host/x?token={}#here",
    "https://account.blob.core.windows.net/c/b?sv=2020&sig={}&se=1",
    "https://bucket.s3.amazonaws.com/k?X-Amz-Signature={}&X-Amz-Credential={}",
    "Max retries exceeded with url: /api/2.0/x?access_token={} (Caused by …)",
    "https://host/x?api_key={}",
)


@pytest.mark.parametrize("name", _NAMES)
def test_sqlalchemy_reads_the_path_of_an_sqlite_uri(name: str, tmp_path: Path) -> None:
    for path in (tmp_path / name / "mlflow.db", Path(name, "mlflow.db")):
        uri = uris.sqlite_uri(path)
        assert make_url(uri).database == str(path)
        assert not make_url(uri).query
        assert uri == URL.create("sqlite", database=str(path)).render_as_string()


@pytest.mark.parametrize("name", _NAMES)
def test_a_file_uri_names_its_path(name: str, tmp_path: Path) -> None:
    parts = urllib.parse.urlsplit(uris.as_uri(tmp_path / name))
    assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("file", "", "", "")
    assert urllib.request.url2pathname(parts.path) == str(tmp_path / name)


def test_a_relative_path_has_an_absolute_file_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert uris.as_uri("x y") == f"{tmp_path.as_uri()}/x%20y"


def test_a_name_that_is_not_utf8_is_refused_for_a_database() -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        uris.sqlite_uri(os.fsdecode(b"/tmp/\xff/mlflow.db"))


@settings(max_examples=400, deadline=None)
@given(password=_PASSWORDS, place=st.sampled_from(_PLACES))
@example(password="pa@ss/w:rd", place=_PLACES[0])
@example(password="a b@c d", place=_PLACES[3])
@example(password="x?password=y&z", place=_PLACES[1])
@example(password="http://x:y@z", place=_PLACES[2])
@example(password="Q70ttp:/z9", place="http://{}@host/path")  # half of it is in every address
def test_attack_no_password_before_a_host_is_shown(password: str, place: str) -> None:
    # Without a user or with `/` a blank may begin the rest of the sentence.
    for form in (urllib.parse.quote(password, safe=""), password if " " not in password else password.replace(" ", "")):
        shown = uris.mask_credentials(place.replace("{}", form))
        assert not _contains_half(form, shown) or _contains_half(form, place), shown
        assert "host" in shown


@settings(max_examples=200, deadline=None)
@given(password=_PASSWORDS, place=st.sampled_from(_QUERIES))
def test_attack_no_password_in_a_query_is_shown(password: str, place: str) -> None:
    for form in (urllib.parse.quote(password, safe=""), urllib.parse.quote_plus(password, safe="/:@'\"")):
        shown = uris.mask_credentials(place.replace("{}", form))
        assert not _contains_half(form, shown), shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://a:b@h1/x and http://c:d@h2/y", "http://***@h1/x and http://***@h2/y"),
        ("postgresql://u:my pass@host/db", "postgresql://***@host/db"),
        ("/login?next=http%3A%2F%2Fu%3As3cret%40host%2F", "/login?next=http%3A%2F%2F***%40host%2F"),
        ("host=db user=me password='a b' dbname=x", "host=db user=me password=*** dbname=x"),
        ("AccountName=x;AccountKey=abc==;EndpointSuffix=y", "AccountName=x;AccountKey=***"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("see 'http://h/?token=abc'.", "see 'http://h/?token=***'."),
    ],
)
def test_credentials_are_masked_in_every_form(text: str, shown: str) -> None:
    assert uris.mask_credentials(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000 does not answer; ask bob@example.org",
        "http://host: refused, ask bob@example.org",
        "sqlite:////home/a@b/mlflow.db",
        "file:///srv/a@b/x",
        "wasbs://container@account.blob.core.windows.net/path",
        "models:/BertModel@champion",
        "give postgresql://USER:PASSWORD@HOST/DATABASE or sqlite:///FILE",
        "pip install 'newsbert[all]'",
        "max_length=128 tokenizer=x",
    ],
)
def test_text_without_credentials_is_unchanged(text: str) -> None:
    assert uris.mask_credentials(text) == text


@pytest.mark.parametrize(
    "uri",
    [
        "http://u:pa/S3@host", "http://u:p@S3@host", "http://u:p#S3@host", "http://u:p?S3@host", "http://u:p S3@host",
        "http://host:port", "http://", "http://u:p@[::1", "http://host/?password=x", "postgresql://u:p@S3@host/db",
        "postgresql://u:p/S3@host/db", "postgresql://u:p\nS3@host/db",
    ],
)  # fmt: skip
def test_attack_an_ambiguous_address_is_refused(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        uris.check_unambiguous(uri, "the address")
    assert "S3" not in caught.value.message
    assert ("%2F" in str(caught.value.hint)) == ("@" in uri or "?" in uri)


@pytest.mark.parametrize(
    "uri",
    [
        "http://host", "https://u:p%2Fw@host:5000/mlflow", "http://[::1]:5000", "http://token@host", "sqlite:///a b.db",
        "sqlite:////srv/a@b/mlflow.db", "postgresql:///db", "postgresql://u:p%40w@h/db?sslmode=require", "mlruns",
        "file:///srv/a@b",
    ],
)  # fmt: skip
def test_a_plain_address_is_accepted(uri: str) -> None:
    uris.check_unambiguous(uri, "the address")


def test_the_account_is_removed_from_an_address() -> None:
    assert uris.without_credentials("https://u:p%2F@host:5000/x") == "https://host:5000/x"
    assert uris.without_credentials("https://host/x") == "https://host/x"


def _contains_half(secret: str, text: str) -> bool:
    """Whether half of a secret or more stands in a text."""
    length = max(len(secret) // 2, 5)
    return any(secret[start : start + length] in text for start in range(len(secret) - length + 1))


@pytest.mark.parametrize(
    ("uri", "options"),
    [
        ("http://user:Q7%2F%40secret@127.0.0.1:9", ("--json",)), ("http://user:Q7/@secret@127.0.0.1:9", ("--debug",)),
        ("http://Q7secret@127.0.0.1:9", ("--debug",)), ("postgresql://user:Q7@secret@127.0.0.1:9/db", ("--json",)),
        ("http://127.0.0.1:9/?token=Q7secret", ()),
    ],
)  # fmt: skip
def test_attack_no_command_shows_the_password_of_a_tracking_uri(uri: str, options: tuple[str, ...], cli: Cli) -> None:
    for command in (("config", "--json"), ("runs", *options)):
        done = cli(*command, MLFLOW_TRACKING_URI=uri)
        assert "secret" not in done.stdout + done.stderr
        assert "Q7" not in done.stdout + done.stderr
