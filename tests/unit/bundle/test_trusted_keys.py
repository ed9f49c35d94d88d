"""With `trusted_keys` no part of newsbert loads a model without a trusted signature, whatever form the model has."""

import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import newsbert
from newsbert.api import models
from newsbert.bundle.bundle import Bundle
from newsbert.bundle.contract import CONTRACT_FILE, SIGNATURE_FILE
from newsbert.core.settings import RaySettings, ServeSettings
from newsbert.errors import ModelError, NewsbertError
from newsbert.inference.model import Model
from newsbert.serving import archive, archive_check
from newsbert.serving.handler import Handler
from newsbert.tracking import flavor
from tests.support.cli import Cli
from tests.support.signed import sign


def _write_archive(path: Path) -> Path:
    bundle = Bundle.read_unsigned(path)
    return archive.write(bundle, path.parent / "store", "TinyModel/1", ServeSettings(runtime="onnxruntime"))


def _open_predictor(path: Path) -> None:
    with models.predictor(path, ServeSettings(), RaySettings(workers=2), print):
        pass


def _render_contexts(path: Path) -> None:
    from newsbert.core.settings import ImageSettings
    from newsbert.images import build

    with build.contexts(str(path), "serving", ImageSettings()):
        pass


def _fetch(path: Path) -> None:
    from newsbert.serving.mlflow_target.models import fetched

    with fetched(str(path)):
        pass


DOORS: dict[str, Callable[[Path], object]] = {
    "load": newsbert.load,
    "predict a file": _open_predictor,
    "evaluate": lambda path: newsbert.evaluate(str(path), data="rows.csv"),
    "archive": lambda path: models.write_archive(path, path.parent / "store", ServeSettings()),
    "python_function": lambda path: flavor._load_pyfunc(str(path)),  # MLflow calls it
    "handler": Handler,  # TorchServe calls it, and other programs may, too
    "model": Model.from_directory,
    "mlflow deployments": _fetch,
    "build-image": _render_contexts,
    ".mar": lambda path: archive_check.take(_write_archive(path), path.parent / "copy.mar"),
}


def test_an_archive_contains_the_signature(path: Path, keys: Path, trust: Callable[..., None]) -> None:
    signature = sign(path, keys / "release.pem")
    trust("release")
    made = _write_archive(path)
    with zipfile.ZipFile(made) as content:
        assert content.read(SIGNATURE_FILE) == signature
    assert (archive_check.take(made, path.parent / "copy.mar") or "").startswith("release.pub ")


def test_the_plugins_model_contains_the_signature(
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


class _SingleImageEngine:
    """An engine that has one image."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive

    def read_file(self, tag: str, path: str) -> bytes | None:
        return self._archive.read_bytes() if path.endswith(".mar") else None


@pytest.mark.parametrize("key", [None, "other", "release"])
def test_attack_an_image_with_an_unsigned_model_is_refused(
    path: Path, keys: Path, trust: Callable[..., None], key: str | None
) -> None:
    from newsbert.images import run

    if key:
        sign(path, keys / f"{key}.pem")
    images: Any = _SingleImageEngine(_write_archive(path))
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
def test_attack_every_way_to_load_a_model_checks_the_signature(
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
def test_attack_commands_refuse_an_unsigned_model(path: Path, keys: Path, cli: Cli, command: list[str]) -> None:
    Path("newsbert.toml").write_text(f'trusted_keys = ["{keys / "release.pub"}"]\n')
    done = cli(*command, path)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "is not signed, and trusted_keys is set" in " ".join(done.stderr.split())


def test_only_listed_modules_read_unsigned_bundles() -> None:
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


def test_child_processes_get_absolute_paths_of_the_keys(keys: Path) -> None:
    from newsbert.core import environment

    shutil.copy(keys / "release.pub", "mine.pub")
    assert "NEWSBERT_TRUSTED_KEYS" not in environment.child_environment()
    Path("newsbert.toml").write_text('trusted_keys = ["mine.pub"]\n')
    assert environment.child_environment()["NEWSBERT_TRUSTED_KEYS"] == str(Path("mine.pub").absolute())
