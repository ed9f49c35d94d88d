"""A bundle without a signature of a trusted key is refused before any other part of it is read."""

import base64
import json
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from newsbert.bundle import signing
from newsbert.bundle.bundle import Bundle
from newsbert.bundle.contract import CONTRACT_FILE, SIGNATURE_FILE
from newsbert.errors import ModelError, UsageError
from tests.support.signed import sign, write_key


def _get_refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        Bundle.read(path)
    assert caught.value.hint and "--sign" in caught.value.hint
    return caught.value.message


def test_a_signed_bundle_names_the_key_that_signed_it(path: Path, keys: Path, trust: Callable[..., None]) -> None:
    sign(path, keys / "release.pem")
    assert Bundle.read(path).signed_by is None  # no key is trusted
    trust("other", "release")
    bundle = Bundle.read(path)
    assert re.fullmatch(r"release\.pub \(SHA-256 [0-9a-f]{64}\)", bundle.signed_by or "")
    bundle.verify()


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: str(curve.name))
def test_keys_of_other_curves_and_with_a_passphrase_sign(
    path: Path, tmp_path: Path, curve: ec.EllipticCurve, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = write_key(tmp_path, "mine", curve, "schlüssel".encode())
    with pytest.raises(UsageError, match="is encrypted") as caught:
        sign(path, key)
    assert caught.value.hint == "set NEWSBERT_SIGNING_PASSPHRASE"
    monkeypatch.setenv("NEWSBERT_SIGNING_PASSPHRASE", "wrong")
    with pytest.raises(UsageError, match="its passphrase is another"):
        sign(path, key)
    monkeypatch.setenv("NEWSBERT_SIGNING_PASSPHRASE", "schlüssel")
    sign(path, key)
    Path("newsbert.toml").write_text('trusted_keys = ["mine.pub"]\n')
    assert (Bundle.read(path).signed_by or "").startswith("mine.pub ")


def test_signatures_are_compatible_with_openssf_model_signing(
    path: Path, keys: Path, trust: Callable[..., None]
) -> None:
    from model_signing import signing as stock_signing
    from model_signing import verifying

    sign(path, keys / "release.pem")
    config = verifying.Config().use_elliptic_key_verifier(public_key=keys / "release.pub")
    config.verify(path / CONTRACT_FILE, path / SIGNATURE_FILE)
    # And one that its own signer makes is taken: of the two values of a signature it is the lower one at some time.
    trust("release")
    for _ in range(64):
        stock_signing.Config().use_elliptic_key_signer(private_key=keys / "release.pem").sign(
            path / CONTRACT_FILE, path / SIGNATURE_FILE
        )
        try:
            assert Bundle.read(path).signed_by
            return
        except ModelError:
            continue
    pytest.fail("none was taken")


def test_attack_an_unsigned_bundle_is_refused(path: Path, trust: Callable[..., None]) -> None:
    trust("release")
    (path / CONTRACT_FILE).write_text("{}")  # not even its contract is parsed
    assert _get_refusal(path) == f"{path} is not signed, and trusted_keys is set"


def test_attack_a_bundle_signed_with_another_key_is_refused(path: Path, keys: Path, trust: Callable[..., None]) -> None:
    sign(path, keys / "other.pem")
    trust("release")
    assert "is of another key" in _get_refusal(path)
    # A fingerprint is no signature.
    text = (path / SIGNATURE_FILE).read_text()
    mine = sign(path, keys / "release.pem").decode()
    hint = re.compile(r'"hint":"([0-9a-f]{64})"')
    key_hint = hint.search(mine)
    assert key_hint
    (path / SIGNATURE_FILE).write_text(hint.sub(key_hint[0], text))
    assert "was altered" in _get_refusal(path)


def test_attack_a_signature_of_another_bundle_is_refused(path: Path, keys: Path, trust: Callable[..., None]) -> None:
    trust("release")
    sign(path, keys / "release.pem")
    contract = path / CONTRACT_FILE
    contract.write_bytes(contract.read_bytes().replace(b'"temperature": 1.0', b'"temperature": 2.0'))
    assert "the model was altered" in _get_refusal(path)


def test_attack_an_altered_file_beside_the_contract_is_named(
    path: Path, keys: Path, trust: Callable[..., None]
) -> None:
    trust("release")
    sign(path, keys / "release.pem")
    (path / "model.onnx").write_text("something else")
    with pytest.raises(ModelError, match=r"model\.onnx was altered"):
        Bundle.read(path).verify()


def test_attack_mutations_of_contract_and_signature_are_refused(
    path: Path, keys: Path, trust: Callable[..., None]
) -> None:
    trust("release")
    sign(path, keys / "release.pem")
    chance = random.Random(22)
    originals = {name: (path / name).read_bytes() for name in (CONTRACT_FILE, SIGNATURE_FILE)}
    for number in range(1000):
        name = (CONTRACT_FILE, SIGNATURE_FILE)[number % 2]
        content = bytearray(originals[name])
        place = chance.randrange(len(content))
        change = chance.choice(("flip", "drop", "add", "swap"))
        if change == "flip":
            content[place] ^= 1 << chance.randrange(8)
        elif change == "drop":
            del content[place]
        elif change == "add":
            content.insert(place, chance.randrange(256))
        else:
            content[place] = (content[place] + 1 + chance.randrange(255)) % 256
        if content == originals[name]:
            continue
        changed = originals | {name: bytes(content)}
        with pytest.raises(ModelError, match="is not signed by a trusted key"):
            signing.check(changed[CONTRACT_FILE], changed[SIGNATURE_FILE], "it", "")
    assert Bundle.read(path).signed_by


def _make_rewrite(change: Callable[[dict[str, object]], None]) -> Callable[[bytes], bytes]:
    def rewrite(signature: bytes) -> bytes:
        document = json.loads(signature)
        change(document)
        return json.dumps(document, separators=(",", ":")).encode()

    return rewrite


def _negate_s(signature: bytes) -> bytes:
    """The signature's other value, which anybody can compute and every verifier of ECDSA takes."""
    document = json.loads(signature)
    entry = document["dsseEnvelope"]["signatures"][0]
    r, s = decode_dss_signature(base64.b64decode(entry["sig"]))
    entry["sig"] = base64.b64encode(encode_dss_signature(r, ec.SECP256R1().group_order - s)).decode()
    return json.dumps(document, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda signature: b"",
        lambda signature: b"[" * 10_000,
        lambda signature: signature + b"\n",
        lambda signature: b" " + signature,
        lambda signature: signature + b" " * 20_000,
        lambda signature: json.dumps(json.loads(signature)).encode(),
        lambda signature: signature.replace(b'=="', b'"').replace(b'="', b'"'),
        _make_rewrite(lambda document: document["verificationMaterial"].pop("publicKey")),  # type: ignore[attr-defined]
        _make_rewrite(lambda document: document["verificationMaterial"]["publicKey"].pop("hint")),  # type: ignore[index]
        _make_rewrite(lambda document: document["dsseEnvelope"]["signatures"].clear()),  # type: ignore[index]
        _make_rewrite(lambda document: document["dsseEnvelope"]["signatures"].append({"sig": "AAAA", "keyid": ""})),  # type: ignore[index]
        _make_rewrite(lambda document: document["dsseEnvelope"].update(payloadType="text/plain")),  # type: ignore[attr-defined]
        _make_rewrite(lambda document: document["verificationMaterial"].update(certificate={"rawBytes": "AAAA"})),  # type: ignore[attr-defined]
        _make_rewrite(lambda document: document.update(mediaType="application/vnd.dev.sigstore.bundle+json")),
        _negate_s,
    ],
)
def test_attack_other_encodings_of_a_signature_are_refused(
    path: Path, keys: Path, trust: Callable[..., None], change: Callable[[bytes], bytes]
) -> None:
    trust("release")
    signature = sign(path, keys / "release.pem")
    (path / SIGNATURE_FILE).write_bytes(change(signature))
    assert _get_refusal(path)


def test_attack_other_files_signed_by_a_trusted_key_are_refused(
    path: Path, keys: Path, tmp_path: Path, trust: Callable[..., None]
) -> None:
    from model_signing.signing import Config

    trust("release")
    signer = Config().use_elliptic_key_signer(private_key=keys / "release.pem")
    others = [tmp_path / "poem.json", path]  # the same bytes under another name, and a directory that holds them
    shutil.copy(path / CONTRACT_FILE, others[0])
    for other in others:
        for _ in range(8):  # some of them with the lower value
            signer.sign(other, tmp_path / "signature")
            shutil.copy(tmp_path / "signature", path / SIGNATURE_FILE)
            assert _get_refusal(path)
            (path / SIGNATURE_FILE).unlink()


@pytest.mark.parametrize("kind", ["link", "directory", "large"])
def test_attack_a_signature_that_is_no_regular_file_is_refused(
    path: Path, keys: Path, trust: Callable[..., None], kind: str
) -> None:
    signature = sign(path, keys / "release.pem")
    file = path / SIGNATURE_FILE
    file.unlink()
    if kind == "link":
        secret = path.with_name("secret")
        secret.write_bytes(signature)
        file.symlink_to(secret)
    elif kind == "directory":
        file.mkdir()
    else:
        file.write_bytes(signature + b" " * 20_000)
    with pytest.raises(ModelError, match="was added after training"):  # it would be logged and put into images
        Bundle.read(path).verify()
    trust("release")
    assert "is not signed" in _get_refusal(path)


@pytest.mark.parametrize("content", ["", "no key", "PRIVATE"])
def test_an_invalid_trusted_key_is_a_usage_error(path: Path, keys: Path, content: str) -> None:
    sign(path, keys / "release.pem")
    Path("bad.pub").write_text((keys / "release.pem").read_text() if content == "PRIVATE" else content)
    for value in ('["bad.pub"]', f'["{keys / "release.pub"}", "bad.pub"]', '["missing.pub"]', '[""]', '" , "'):
        Path("newsbert.toml").write_text(f"trusted_keys = {value}\n")
        with pytest.raises(UsageError) as caught:
            Bundle.read(path)
        assert caught.value.hint


def test_the_documented_commands_make_a_key_pair(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (signing.MAKE_KEY, signing.PUBLISH_KEY):
        subprocess.run(command.split(), check=True, capture_output=True)
    sign(path, Path("KEY.pem"))
    monkeypatch.setenv("NEWSBERT_TRUSTED_KEYS", "KEY.pub")
    assert Bundle.read(path).signed_by
