"""With `trusted_keys` nothing is loaded that none of them has signed, and nothing of that is read."""

import base64
import json
import random
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from safetensors.torch import save_file

import newsbert
from newsbert.api import models
from newsbert.bundle import signing
from newsbert.bundle.bundle import Bundle
from newsbert.bundle.contract import CONTRACT_FILE, SIGNATURE_FILE
from newsbert.core.settings import RaySettings, ServeSettings
from newsbert.errors import ModelError, NewsbertError, UsageError
from newsbert.inference.model import Model
from newsbert.serving import archive, archive_check
from newsbert.serving.handler import Handler
from newsbert.tracking import flavor
from tests.support.cli import Cli
from tests.support.signed import sign, write_bundle, write_key


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    for name in ("release", "other"):
        write_key(directory, name)
    return directory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "model").path


@pytest.fixture
def trust(keys: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def trust(*names: str) -> None:
        monkeypatch.setenv("NEWSBERT_TRUSTED_KEYS", ",".join(str(keys / f"{name}.pub") for name in names))

    return trust


def _refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        Bundle.read(path)
    assert caught.value.hint and "--sign" in caught.value.hint
    return caught.value.message


def test_a_signed_bundle_says_which_key_signed_it(path: Path, keys: Path, trust: Callable[..., None]) -> None:
    sign(path, keys / "release.pem")
    assert Bundle.read(path).signed_by is None  # nobody asks
    trust("other", "release")
    bundle = Bundle.read(path)
    assert re.fullmatch(r"release\.pub \(SHA-256 [0-9a-f]{64}\)", bundle.signed_by or "")
    bundle.verify()


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: str(curve.name))
def test_keys_of_other_curves_and_with_a_passphrase(
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


def test_the_signature_is_one_of_openssf_model_signing(path: Path, keys: Path, trust: Callable[..., None]) -> None:
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


def test_attack_an_unsigned_bundle(path: Path, trust: Callable[..., None]) -> None:
    trust("release")
    (path / CONTRACT_FILE).write_text("{}")  # not even its contract is parsed
    assert _refusal(path) == f"{path} is not signed, and trusted_keys is set"


def test_attack_a_bundle_signed_with_another_key(path: Path, keys: Path, trust: Callable[..., None]) -> None:
    sign(path, keys / "other.pem")
    trust("release")
    assert "is of another key" in _refusal(path)
    # A fingerprint is no signature.
    text = (path / SIGNATURE_FILE).read_text()
    mine = sign(path, keys / "release.pem").decode()
    hint = re.compile(r'"hint":"([0-9a-f]{64})"')
    found = hint.search(mine)
    assert found
    (path / SIGNATURE_FILE).write_text(hint.sub(found[0], text))
    assert "was altered" in _refusal(path)


def test_attack_a_signature_of_another_bundle(path: Path, keys: Path, trust: Callable[..., None]) -> None:
    trust("release")
    sign(path, keys / "release.pem")
    contract = path / CONTRACT_FILE
    contract.write_bytes(contract.read_bytes().replace(b'"temperature": 1.0', b'"temperature": 2.0'))
    assert "the model was altered" in _refusal(path)


def test_attack_what_stands_beside_the_contract_is_altered(path: Path, keys: Path, trust: Callable[..., None]) -> None:
    trust("release")
    sign(path, keys / "release.pem")
    (path / "model.onnx").write_text("something else")
    with pytest.raises(ModelError, match=r"model\.onnx was altered"):
        Bundle.read(path).verify()


def test_attack_mutations_of_contract_and_signature(path: Path, keys: Path, trust: Callable[..., None]) -> None:
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


def _rewritten(change: Callable[[dict[str, object]], None]) -> Callable[[bytes], bytes]:
    def rewrite(signature: bytes) -> bytes:
        document = json.loads(signature)
        change(document)
        return json.dumps(document, separators=(",", ":")).encode()

    return rewrite


def _other_value(signature: bytes) -> bytes:
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
        _rewritten(lambda document: document["verificationMaterial"].pop("publicKey")),  # type: ignore[attr-defined]
        _rewritten(lambda document: document["verificationMaterial"]["publicKey"].pop("hint")),  # type: ignore[index]
        _rewritten(lambda document: document["dsseEnvelope"]["signatures"].clear()),  # type: ignore[index]
        _rewritten(lambda document: document["dsseEnvelope"]["signatures"].append({"sig": "AAAA", "keyid": ""})),  # type: ignore[index]
        _rewritten(lambda document: document["dsseEnvelope"].update(payloadType="text/plain")),  # type: ignore[attr-defined]
        _rewritten(lambda document: document["verificationMaterial"].update(certificate={"rawBytes": "AAAA"})),  # type: ignore[attr-defined]
        _rewritten(lambda document: document.update(mediaType="application/vnd.dev.sigstore.bundle+json")),
        _other_value,
    ],
)
def test_attack_other_forms_of_a_signature(
    path: Path, keys: Path, trust: Callable[..., None], change: Callable[[bytes], bytes]
) -> None:
    trust("release")
    signature = sign(path, keys / "release.pem")
    (path / SIGNATURE_FILE).write_bytes(change(signature))
    assert _refusal(path)


def test_attack_what_a_trusted_key_has_signed_of_other_kinds(
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
            assert _refusal(path)
            (path / SIGNATURE_FILE).unlink()


@pytest.mark.parametrize("kind", ["link", "directory", "large"])
def test_attack_a_signature_that_is_no_plain_file(
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
    assert "is not signed" in _refusal(path)


@pytest.mark.parametrize("content", ["", "no key", "PRIVATE"])
def test_a_trusted_key_that_is_none_loads_nothing(path: Path, keys: Path, content: str) -> None:
    sign(path, keys / "release.pem")
    Path("bad.pub").write_text((keys / "release.pem").read_text() if content == "PRIVATE" else content)
    for value in ('["bad.pub"]', f'["{keys / "release.pub"}", "bad.pub"]', '["missing.pub"]', '[""]', '" , "'):
        Path("newsbert.toml").write_text(f"trusted_keys = {value}\n")
        with pytest.raises(UsageError) as caught:
            Bundle.read(path)
        assert caught.value.hint


def _mar(path: Path) -> Path:
    bundle = Bundle.read_unsigned(path)
    return archive.write(bundle, path.parent / "store", "TinyModel/1", ServeSettings(runtime="onnxruntime"))


def _predictor(path: Path) -> None:
    with models.predictor(path, ServeSettings(), RaySettings(workers=2), print):
        pass


def _images(path: Path) -> None:
    from newsbert.core.settings import ImageSettings
    from newsbert.images import build

    with build.contexts(str(path), "serving", ImageSettings()):
        pass


def _target(path: Path) -> None:
    from newsbert.serving.mlflow_target.models import fetched

    with fetched(str(path)):
        pass


DOORS: dict[str, Callable[[Path], object]] = {
    "load": newsbert.load,
    "predict a file": _predictor,
    "evaluate": lambda path: newsbert.evaluate(str(path), data="rows.csv"),
    "archive": lambda path: models.write_archive(path, path.parent / "store", ServeSettings()),
    "python_function": lambda path: flavor._load_pyfunc(str(path)),  # MLflow calls it
    "handler": Handler,  # TorchServe calls it, one of somebody else's, too
    "model": Model.from_directory,
    "mlflow deployments": _target,
    "build-image": _images,
    ".mar": lambda path: archive_check.check(_mar(path)),
}


def test_an_archive_takes_the_signature_along(path: Path, keys: Path, trust: Callable[..., None]) -> None:
    signature = sign(path, keys / "release.pem")
    trust("release")
    made = _mar(path)
    with zipfile.ZipFile(made) as content:
        assert content.read(SIGNATURE_FILE) == signature
    assert (archive_check.check(made) or "").startswith("release.pub ")


def test_what_the_plugin_packs_takes_the_signature_along(
    path: Path, keys: Path, trust: Callable[..., None], tmp_path: Path
) -> None:
    signature = sign(path, keys / "release.pem")
    trust("release")
    save_file({"weight": torch.zeros(1)}, path / "model.safetensors")
    packed = tmp_path / "packed"
    flavor.write_for_plugin(Bundle.read(path).files("onnxruntime"), path / "model.safetensors", packed)
    assert (packed / SIGNATURE_FILE).read_bytes() == signature
    assert SIGNATURE_FILE in (packed / "MLmodel").read_text()
    assert torch.load(packed / "model.pth", weights_only=True).keys() == {"weight"}


class _Images:
    """An engine with one image."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive

    def read_file(self, tag: str, path: str) -> bytes | None:
        return self._archive.read_bytes()


@pytest.mark.parametrize("key", [None, "other", "release"])
def test_attack_an_image_with_an_unsigned_model(
    path: Path, keys: Path, trust: Callable[..., None], key: str | None
) -> None:
    from newsbert.images import run

    if key:
        sign(path, keys / f"{key}.pem")
    images: Any = _Images(_mar(path))
    content = (path / CONTRACT_FILE).read_bytes()
    assert run.read_contract(images, "torchserve:x") == (content, None)
    trust("release")
    if key == "release":
        contract, signed_by = run.read_contract(images, "torchserve:x")
        assert contract == content and signed_by and signed_by.startswith("release.pub ")
    else:
        with pytest.raises(ModelError, match="torchserve:x is not signed") as caught:
            run.read_contract(images, "torchserve:x")
        assert caught.value.hint == "sign the model, then newsbert build-image MODEL"


@pytest.mark.parametrize("state", ["unsigned", "another key", "altered"])
@pytest.mark.parametrize("door", DOORS)
def test_attack_through_every_door(
    path: Path, keys: Path, trust: Callable[..., None], door: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if state != "unsigned":
        sign(path, keys / ("other.pem" if state == "another key" else "release.pem"))
    if state == "altered":
        with (path / CONTRACT_FILE).open("a") as file:
            file.write(" ")
    Path("rows.csv").write_text("text,label\none,a\ntwo,b\n")
    trust("release")
    expected = "is not signed, and trusted_keys is set" if state == "unsigned" else "is not signed by a trusted key"
    with pytest.raises(NewsbertError, match=expected):
        DOORS[door](path)


@pytest.mark.parametrize("command", [["predict", "x", "--model"], ["serve", "locally"]])
def test_attack_the_commands_take_nothing_unsigned(path: Path, keys: Path, cli: Cli, command: list[str]) -> None:
    Path("newsbert.toml").write_text(f'trusted_keys = ["{keys / "release.pub"}"]\n')
    done = cli(*command, path)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "is not signed, and trusted_keys is set" in " ".join(done.stderr.split())


def test_only_what_makes_and_registers_bundles_reads_them_unsigned() -> None:
    source = Path(newsbert.__file__).parent
    callers = {
        str(file.relative_to(source))
        for file in source.rglob("*.py")
        if re.search(r"read_unsigned\b|check_signature=False", file.read_text(encoding="utf-8"))
    }
    assert callers == {
        "training/export/bundle.py",  # makes one
        "bundle/bundle.py",
        "inference/batch/ray_workers.py",  # compares its digest with the one that was checked
        "tracking/upload.py",  # registers one
        "tracking/artifacts.py",
        "tracking/registry.py",
    }
    parsed = {
        str(file.relative_to(source))
        for file in source.rglob("*.py")
        if "Contract.from_json(" in file.read_text(encoding="utf-8")
    }
    assert parsed == {
        "bundle/bundle.py",
        "deployment/deploy.py",  # behind images.run.read_contract
        "deployment/docker_host.py",  # what was deployed before
        "deployment/kubernetes.py",  # what was deployed before
        "images/programs/verify.py",  # inside an image
    }


def test_children_get_the_keys_whatever_their_directory(keys: Path) -> None:
    from newsbert.core import environment

    shutil.copy(keys / "release.pub", "mine.pub")
    assert "NEWSBERT_TRUSTED_KEYS" not in environment.child_environment()
    Path("newsbert.toml").write_text('trusted_keys = ["mine.pub"]\n')
    assert environment.child_environment()["NEWSBERT_TRUSTED_KEYS"] == str(Path("mine.pub").absolute())


def test_the_documented_commands_make_keys(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (signing.MAKE_KEY, signing.PUBLISH_KEY):
        subprocess.run(command.split(), check=True, capture_output=True)
    sign(path, Path("KEY.pem"))
    monkeypatch.setenv("NEWSBERT_TRUSTED_KEYS", "KEY.pub")
    assert Bundle.read(path).signed_by
