"""Who may send requests to the native server, and that nobody else can read them: tokens and TLS."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from newsbert.bundle.bundle import Bundle
from tests.support.calls import failed, free_port
from tests.support.cli import Cli
from tests.support.serving import PATH, Served
from tests.support.tracking_servers import wait_until

TEXT = b"goal team cup"


def test_only_tokens_of_the_file_are_accepted_and_the_file_may_change(
    serve: Callable[..., Served], cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "tokens"
    first, second = (cli("serve", "token", "--token-file", file, "--name", name).stdout.strip() for name in "ab")
    assert file.stat().st_mode & 0o077 == 0
    assert first not in file.read_text()
    served = serve("--token-file", file)
    assert (served.ask(), served.ask("wrong"), served.ask(first), served.ask(second)) == (401, 401, 200, 200)
    for path in ("/v2/health/ready", "/docs", "/openapi.json"):
        with urllib.request.urlopen(served.url + path, timeout=30) as response:
            assert response.status == 200
    with pytest.raises(urllib.error.HTTPError) as refused_metadata:
        urllib.request.urlopen(f"{served.url}/v2", timeout=30)
    with refused_metadata.value as response:
        assert list(json.load(response)) == ["error"]
    assert cli("predict", "--url", served.url, "goal", NEWSBERT_TOKEN=first).returncode == 0
    refused = cli("predict", "--url", served.url, "goal")
    assert (refused.returncode, "wants a token" in refused.stderr) == (1, True)
    lines = file.read_text().splitlines()
    file.write_text(lines[1] + "\n")
    wait_until(lambda: served.ask(first) == 401)
    assert served.ask(second) == 200
    file.write_text("nonsense\n")
    wait_until(lambda: "expected a name and 'sha256:'" in (served.ask(), served.log.read_text())[1])
    assert served.ask(second) == 200


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of localhost and its key."""
    return _write_certificate(tmp_path)


def _write_certificate(directory: Path) -> tuple[Path, Path]:
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    files = directory / "cert.pem", directory / "key.pem"
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def test_it_answers_with_tls(serve: Callable[..., Served], certificate: tuple[Path, Path], cli: Cli) -> None:
    served = serve("--tls-cert", certificate[0], "--tls-key", certificate[1])
    assert served.url.startswith("https://")
    context = ssl.create_default_context(cafile=str(certificate[0]))
    request = urllib.request.Request(served.url + PATH, TEXT, {"Content-Type": "text/plain"})
    with urllib.request.urlopen(request, timeout=30, context=context) as response:
        assert json.load(response)["label"]
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        urllib.request.urlopen(served.url.replace("https", "http") + PATH, timeout=30)
    assert cli("predict", "--url", served.url, "goal", SSL_CERT_FILE=str(certificate[0])).returncode == 0
    assert served.stop() == 0


def test_a_certificate_that_changes_is_used_without_a_restart(
    serve: Callable[..., Served], certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    rpc_port = free_port()
    served = serve("--tls-cert", certificate[0], "--tls-key", certificate[1], "--grpc-port", rpc_port)

    def presents(expected: str) -> bool:
        addresses = [("127.0.0.1", port) for port in (served.port, rpc_port)]
        return {ssl.get_server_certificate(address, timeout=30) for address in addresses} == {expected}

    old = certificate[0].read_text()
    assert presents(old)
    (tmp_path / "new").mkdir()
    new_chain, new_key = _write_certificate(tmp_path / "new")
    new_chain.replace(certificate[0])  # and the key does not fit
    wait_until(lambda: "the certificate before is used still" in served.log.read_text())
    assert presents(old)
    new_key.replace(certificate[1])
    wait_until(lambda: presents(certificate[0].read_text()))


def test_tls_needs_a_certificate_and_its_key(
    bundle: Bundle, certificate: tuple[Path, Path], cli: Cli, tmp_path: Path
) -> None:
    command = ("serve", "locally", bundle.path, "--server", "native", "--port", "0")
    failed(cli(*command, "--tls-cert", certificate[0]), 2, "--tls-cert and --tls-key go together")
    failed(cli(*command, "--tls-cert", certificate[1], "--tls-key", certificate[0]), 1, "cannot be used")
    failed(cli(*command, "--tls-cert", tmp_path / "none", "--tls-key", certificate[1]), 1, "cannot be used")
