"""Artifact stores in buckets, as their clients see the real ones: with keys that are checked."""

import base64
import contextlib
import http.client
import http.server
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.calls import free_port

AZURITE = Path(sys.prefix) / "azurite/node_modules/azurite/dist/src/blob/main.js"
BUCKET = "models"
SECRETS = ("planted-bucket-secret", "PRIVATE KEY")
"""What no error may show."""

VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION",
    "MLFLOW_S3_ENDPOINT_URL", "GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "API_ENDPOINT_OVERRIDE",
    "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCESS_KEY",
)  # fmt: skip


@dataclass(frozen=True)
class BucketStore:
    """A store with the bucket `models`.

    Attributes:
        root: Where MLflow keeps artifacts in it.
        extra: The extra that brings its client.
        module: A module of that client.
        good: The environment that lets one in.
        no_key: The same without credentials.
        wrong_key: The same with credentials of somebody else.
        create: Makes the bucket.
        delete: Deletes it, with all that is in it.
    """

    root: str
    extra: str
    module: str
    good: dict[str, str]
    no_key: dict[str, str]
    wrong_key: dict[str, str]
    create: Callable[[], object]
    delete: Callable[[], object]


@contextlib.contextmanager
def s3() -> Iterator[BucketStore]:
    """Moto's server, which compares signatures as Amazon does."""
    pytest.importorskip("moto.server", reason="needs moto")
    import boto3

    port = free_port()
    where = f"http://127.0.0.1:{port}"
    with _process(port, [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]):
        region = {"region_name": "us-east-1", "endpoint_url": where}
        anybody = {"aws_access_key_id": "any", "aws_secret_access_key": "any"}
        users = boto3.client("iam", **region, **anybody)
        users.create_user(UserName="newsbert")
        rights = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        users.put_user_policy(UserName="newsbert", PolicyName="all", PolicyDocument=json.dumps(rights))
        key = users.create_access_key(UserName="newsbert")["AccessKey"]
        asking = urllib.request.Request(f"{where}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
        urllib.request.urlopen(asking).close()
        users.close()
        client = boto3.client(
            "s3", **region, aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"]
        )

        def delete() -> None:
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
                for item in page.get("Contents", []):
                    client.delete_object(Bucket=BUCKET, Key=item["Key"])
            client.delete_bucket(Bucket=BUCKET)

        named = {
            "MLFLOW_S3_ENDPOINT_URL": where,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        good = {**named, "AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        yield BucketStore(
            f"s3://{BUCKET}/mlflow", "s3", "boto3", good, named,
            {**good, "AWS_SECRET_ACCESS_KEY": "planted-bucket-secret"},
            lambda: client.create_bucket(Bucket=BUCKET), delete,
        )  # fmt: skip
        client.close()


@contextlib.contextmanager
def gs(directory: Path) -> Iterator[BucketStore]:
    """Google's emulator behind a proxy that requires a token, which it issues for a key that it knows."""
    pytest.importorskip("gcp_storage_emulator", reason="needs gcp-storage-emulator")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    port = free_port()
    command = f"from gcp_storage_emulator.__main__ import main; main(['start', '--host=127.0.0.1', '--port={port}', "
    command += "'--in-memory'])"
    keys = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
    known = (
        keys[0].public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    door = _Door(port, known)
    threading.Thread(target=door.serve_forever, daemon=True).start()
    where = f"http://127.0.0.1:{door.server_port}"
    files = []
    for name, key in zip(("good", "wrong"), keys, strict=True):
        document = {
            "type": "service_account", "project_id": "project", "private_key_id": name, "token_uri": f"{where}/token",
            "client_email": "newsbert@project.iam.gserviceaccount.com", "client_id": "1",
            "private_key": key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ).decode(),
        }  # fmt: skip
        files.append(directory / f"{name}.json")
        files[-1].write_text(json.dumps(document), encoding="utf-8")

    def ask(method: str, path: str, body: object = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers, method=method)
        with urllib.request.urlopen(request) as response:
            return bytes(response.read())

    def create() -> None:
        ask("POST", "/storage/v1/b?project=project", {"name": BUCKET})

    def delete() -> None:
        listing = json.loads(ask("GET", f"/storage/v1/b/{BUCKET}/o"))
        for item in listing.get("items", []):
            ask("DELETE", f"/storage/v1/b/{BUCKET}/o/{urllib.parse.quote(item['name'], safe='')}")
        ask("DELETE", f"/storage/v1/b/{BUCKET}")

    named = {"API_ENDPOINT_OVERRIDE": where, "NO_GCE_CHECK": "true"}
    with _process(port, [sys.executable, "-c", command]):
        yield BucketStore(
            f"gs://{BUCKET}/mlflow", "gs", "google.cloud.storage",
            {**named, "GOOGLE_APPLICATION_CREDENTIALS": str(files[0])}, {**named, "GOOGLE_CLOUD_PROJECT": "project"},
            {**named, "GOOGLE_APPLICATION_CREDENTIALS": str(files[1])},
            create, delete,
        )  # fmt: skip
    door.shutdown()
    door.server_close()


@contextlib.contextmanager
def azure() -> Iterator[BucketStore]:
    """Azurite, which compares signatures as Azure does."""
    if not AZURITE.is_file() or shutil.which("node") is None:
        pytest.skip("azurite is not installed: make test does that, with npm")
    from azure.storage.blob import ContainerClient

    port = free_port()
    command = ["node", str(AZURITE), "--blobPort", str(port), "--skipApiVersionCheck"]
    account = "devstoreaccount1"
    # Azurite's own, which everybody knows.
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    def connection(account_key: str) -> str:
        where = f"BlobEndpoint=http://127.0.0.1:{port}/{account}"
        return f"DefaultEndpointsProtocol=http;AccountName={account};AccountKey={account_key};{where};"

    wrong = base64.b64encode(b"planted-bucket-secret").decode()
    variable = "AZURE_STORAGE_CONNECTION_STRING"
    with _process(port, [*command, "--inMemoryPersistence", "--disableTelemetry", "--silent"]):
        client = ContainerClient.from_connection_string(connection(key), BUCKET)
        yield BucketStore(
            f"wasbs://{BUCKET}@{account}.blob.core.windows.net/mlflow", "azure", "azure.storage.blob",
            {variable: connection(key)}, {"AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential"},
            {variable: connection(wrong)}, client.create_container, client.delete_container,
        )  # fmt: skip
        client.close()


class _Door(http.server.ThreadingHTTPServer):
    """A proxy that requires a token before it forwards a request to a port of this machine."""

    daemon_threads = True

    def __init__(self, port: int, known: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.port = port
        self.known = known


class _Request(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Door

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/token":
            return self._give_token(urllib.parse.parse_qs(body.decode())["assertion"][0])
        authorization = self.headers.get("Authorization")
        if authorization != "Bearer planted-token":
            who = (
                "Invalid Credentials"
                if authorization
                else "Anonymous caller does not have storage.objects.create access"
            )
            return self._answer(401, json.dumps({"error": {"code": 401, "message": who}}).encode())
        inner = http.client.HTTPConnection("127.0.0.1", self.server.port)
        inner.request(self.command, self.path, body, {k: v for k, v in self.headers.items() if k.lower() != "host"})
        response = inner.getresponse()
        answer = response.read()
        kind = response.headers.get("Content-Type", "application/json")
        inner.close()
        return self._answer(response.status, answer, kind)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _pass  # noqa: N815

    def _give_token(self, assertion: str) -> None:
        from google.auth import exceptions, jwt

        try:
            jwt.decode(assertion, self.server.known)  # type: ignore[no-untyped-call]
        except (ValueError, exceptions.GoogleAuthError):
            refused = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
            return self._answer(400, json.dumps(refused).encode())
        return self._answer(200, json.dumps({"access_token": "planted-token", "expires_in": 3600}).encode())

    def _answer(self, code: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def _process(port: int, command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not _listens(port):
            assert process.poll() is None, f"{command} has ended"
            time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
