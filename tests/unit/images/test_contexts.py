"""Build contexts of the images: golden Dockerfiles, tags that follow the content, and no credentials."""

import json
import re
import shutil
import tarfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.bundle.pins import pinned, pins
from newsbert.core import package_files
from newsbert.core.settings import NATIVE, ImageSettings
from newsbert.errors import ModelError, UsageError
from newsbert.images import package_sets
from newsbert.images.contexts import (
    BuildContext,
    render_base,
    render_serving,
    render_tracking,
    render_trainer,
)
from newsbert.tracking.artifacts import ModelLocation

GOLDEN = Path(__file__).with_name("golden")


PINS = pins()


def _make_location(bundle: Bundle, name: str = "TinyModel/2") -> ModelLocation:
    model, _, version = name.partition("/")
    return ModelLocation(name, bundle.path, "0a1b" * 8, "c0ffee" * 6, version, model)


def _render_contexts(
    bundle: Bundle, directory: Path, settings: ImageSettings
) -> tuple[BuildContext, BuildContext, BuildContext]:
    base = render_base(settings, directory)
    trainer = render_trainer(base, settings)
    return base, trainer, render_serving(bundle, _make_location(bundle), base, trainer, settings)


@pytest.fixture
def base(tmp_path: Path) -> BuildContext:
    return render_base(ImageSettings(), tmp_path)


@pytest.fixture
def trainer(base: BuildContext) -> BuildContext:
    return render_trainer(base, ImageSettings())


@pytest.fixture
def tracking(base: BuildContext) -> BuildContext:
    return render_tracking(base, ImageSettings())


@pytest.fixture
def serving(bundle: Bundle, base: BuildContext, trainer: BuildContext) -> BuildContext:
    # Named, since what is chosen otherwise depends on this machine's processor.
    return render_serving(bundle, _make_location(bundle), base, trainer, ImageSettings(runtime="onnxruntime"))


def _remove_versions(context: BuildContext) -> dict[str, Any]:
    """A context as the golden files have it: what changes from version to version and run to run has a name."""
    described = {
        "tag": context.tag,
        "aliases": context.aliases,
        "build_args": context.build_args,
        "labels": context.labels,
        "files": sorted(context.files),
    }
    text = json.dumps(described).replace(metadata.version("newsbert"), "VERSION")
    changed: dict[str, Any] = json.loads(re.sub(r"\b[0-9a-f]{64}\b|(?<=-)[0-9a-f]{12}\b", "HASH", text))
    return changed


def _list_requirements(context: BuildContext, file: str = "requirements.txt") -> list[str]:
    content = context.files[file]
    assert isinstance(content, bytes)
    requirements = [
        Requirement(line.rstrip(" \\")) for line in content.decode().splitlines() if not line.startswith(" ")
    ]
    return [
        f"{requirement.name}{requirement.specifier}"
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate()
    ]


@pytest.fixture
def native(bundle: Bundle, base: BuildContext, trainer: BuildContext) -> BuildContext:
    settings = ImageSettings(server=NATIVE, runtime="onnxruntime")
    return render_serving(bundle, _make_location(bundle), base, trainer, settings)


@pytest.mark.parametrize(
    ("name", "fixture"),
    [
        ("base", "base"), ("trainer", "trainer"), ("tracking", "tracking"), ("torchserve", "serving"),
        ("native", "native"),
    ],
)  # fmt: skip
def test_the_context_equals_the_golden_files(name: str, fixture: str, request: pytest.FixtureRequest) -> None:
    context: BuildContext = request.getfixturevalue(fixture)
    assert context.dockerfile == (GOLDEN / f"{name}.Dockerfile").read_text(encoding="utf-8")
    assert _remove_versions(context) == json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["base", "trainer", "tracking", "serving", "native"])
def test_dockerfiles_copy_exactly_the_files_of_the_context(name: str, request: pytest.FixtureRequest) -> None:
    context: BuildContext = request.getfixturevalue(name)
    copied = set()
    for line in context.dockerfile.splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            *sources, _target = line.split()[1:]
            for source in sources:
                matching = {file for file in context.files if Path(file).match(source) or file.startswith(f"{source}/")}
                assert matching, source
                copied |= matching
    assert copied == set(context.files)


@pytest.mark.parametrize("fixture", ["serving", "native"])
def test_the_build_verifies_the_command_of_the_entrypoint(fixture: str, request: pytest.FixtureRequest) -> None:
    context: BuildContext = request.getfixturevalue(fixture)
    script = context.files["entrypoint.sh"]
    assert isinstance(script, bytes)
    (entrypoint,) = re.findall("^ENTRYPOINT (.*)$", context.dockerfile, re.MULTILINE)
    last = script.decode().splitlines()[-1].removeprefix("exec ").removesuffix(' "$@"')
    command = last.replace('"$model"', json.loads(entrypoint)[-1]).split()
    proof = json.loads(context.dockerfile.strip().splitlines()[-1].removeprefix("RUN "))
    assert proof == ["python", "-m", "newsbert.images.programs.verify", *command]


def test_the_native_server_needs_no_trainer(native: BuildContext, base: BuildContext) -> None:
    assert native.build_args["SHIPPED_IMAGE"] == base.tag
    assert not {"TRAINER_IMAGE", "BASE_IMAGE"} & native.build_args.keys()
    assert native.aliases[0].startswith("newsbert-serving:")
    assert "packing.txt" not in native.files


@pytest.mark.parametrize("name", ["base", "trainer", "tracking", "serving", "native"])
def test_build_arguments_equal_those_of_the_dockerfile(name: str, request: pytest.FixtureRequest) -> None:
    context: BuildContext = request.getfixturevalue(name)
    assert set(re.findall(r"^ARG (\w+)", context.dockerfile, re.MULTILINE)) == {"STAGE", *context.build_args}


@pytest.mark.parametrize("name", ["base", "trainer", "tracking", "serving", "native"])
def test_sizes_equal_those_of_the_written_files(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    context: BuildContext = request.getfixturevalue(name)
    context.write(tmp_path / "context.tar")
    with tarfile.open(tmp_path / "context.tar") as written:
        assert {member.name: member.size for member in written if member.isfile()} == context.sizes()
        dockerfile = written.extractfile("Dockerfile")
        assert dockerfile is not None and dockerfile.read().decode() == context.dockerfile


def test_the_base_tag_depends_on_the_content_only(tmp_path: Path) -> None:
    def tag(name: str, **changes: Any) -> str:
        (tmp_path / name).mkdir()
        return render_base(ImageSettings(**changes), tmp_path / name).tag

    first = tag("first")
    assert tag("again") == first
    assert tag("pip's options are no content", pip_options=("index-url=https://user:word@host/simple",)) == first
    assert tag("another root", root_image="python:3.12-slim") != first
    assert tag("somewhere", repository="registry.example/team/") == f"registry.example/team/{first}"


def test_requirements_of_all_images_are_pinned_in_constraints(
    base: BuildContext, trainer: BuildContext, serving: BuildContext
) -> None:
    text = package_files.find("constraints.txt").read_text(encoding="utf-8")
    pins = [
        re.sub(r"[_.-]+", "-", name).lower() + version for name, version in re.findall(r"(?m)^([\w.-]+)(==.+)", text)
    ]
    lines = [*_list_requirements(base), *(line for name in ("serving", "packing", "sbom")
                                     for line in _list_requirements(serving, f"{name}.txt"))]  # fmt: skip
    assert len(set(lines)) == len(lines)
    trainers = [*_list_requirements(trainer), *_list_requirements(trainer, "torch.txt")]
    assert {*lines, *trainers} <= set(pins)
    assert not {*_list_requirements(base)} & {*trainers}
    names = {line.partition("==")[0] for line in _list_requirements(base)}
    assert {"numpy", "onnxruntime", "rich", "tokenizers", "typer"} <= names
    assert not {"newsbert", "torch", "transformers", "mlflow", "docker", "torchserve", "huggingface-hub"} & names


def test_pip_installs_only_hashed_packages_into_images(
    base: BuildContext, trainer: BuildContext, tracking: BuildContext, serving: BuildContext
) -> None:
    for context in (base, trainer, tracking, serving):
        calls = re.findall(r"\bpip\b[^&#\n]*? install [^&#\n]*", context.dockerfile.replace("\\\n", " "))
        assert calls
        for call in calls:
            # newsbert itself comes with the context.
            assert "--require-hashes" in call or "--no-index --no-deps /opt/newsbert/*.whl" in re.sub(" +", " ", call)
            assert "--only-binary :all:" in call or "--no-index" in call
        files = {name: content for name, content in context.files.items() if name.endswith(".txt")}
        for name, content in files.items():
            assert isinstance(content, bytes)
            entries = re.split(r"\n(?! )", content.decode().strip())
            assert all(re.search(r" --hash=sha256:[0-9a-f]{64}", entry) for entry in entries), name


def test_versions_of_the_bundle_are_installed_separately(bundle: Bundle, tmp_path: Path) -> None:
    versions = {"numpy": "2.0.1", "torchserve": "0.11.0", "transformers": "5.0.0"}
    shipped_base = render_base(ImageSettings(), tmp_path)
    base = render_base(ImageSettings(), tmp_path, versions)
    assert base.files["bundle.txt"] == b"numpy==2.0.1\n"
    assert f"numpy=={PINS['numpy']}" not in _list_requirements(base)
    assert set(_list_requirements(shipped_base)) - set(_list_requirements(base)) == {f"numpy=={PINS['numpy']}"}
    assert "-r /build/bundle.txt" in base.dockerfile
    assert base.tag != shipped_base.tag
    trainer = render_trainer(base, ImageSettings())
    assert "bundle.txt" not in trainer.files
    serving = render_serving(
        bundle, _make_location(bundle), base, trainer, ImageSettings(runtime="onnxruntime"), versions
    )
    assert serving.files["bundle.txt"] == b"torchserve==0.11.0\n"
    assert "install --target /opt/serving --no-deps --only-binary :all: -r /build/bundle.txt" in serving.dockerfile
    for context in (base, serving):
        assert re.search(r"COPY .* bundle.txt /build/$", context.dockerfile, re.MULTILINE)


def test_a_new_base_tag_changes_the_tags_above_it(bundle: Bundle, tmp_path: Path) -> None:
    first = _render_contexts(bundle, tmp_path, ImageSettings())
    again = _render_contexts(
        bundle, tmp_path, ImageSettings(pip_options=("timeout=3",), torch_index="https://other.example/simple")
    )
    other = _render_contexts(bundle, tmp_path, ImageSettings(root_image="python:3.12-slim"))
    assert [context.tag for context in again] == [context.tag for context in first]
    assert not {context.tag for context in other} & {context.tag for context in first}
    assert [context.aliases for context in other] == [context.aliases for context in first]


def test_the_gpu_image_has_the_gpu_onnx_runtime(base: BuildContext, tmp_path: Path) -> None:
    settings = ImageSettings(gpu=True)
    gpu = render_base(settings, tmp_path)
    assert gpu.dockerfile == (GOLDEN / "base-gpu.Dockerfile").read_text(encoding="utf-8")
    of_gpu = {line.partition("==")[0] for line in _list_requirements(gpu, "gpu.txt")}
    assert {"onnxruntime-gpu", "nvidia-cudnn-cu13", "nvidia-cublas"} <= of_gpu
    assert not of_gpu & set(package_sets.BASE)
    without = [line for line in _list_requirements(base) if not line.startswith("onnxruntime==")]
    assert _list_requirements(gpu) == without
    assert gpu.tag != base.tag
    trainer = render_trainer(gpu, settings)
    assert trainer.labels["newsbert.torch_index"] == "pip"
    of_torch = {line.partition("==")[0] for line in _list_requirements(trainer, "torch.txt")}
    assert {"torch", "triton", "nvidia-nccl-cu13"} <= of_torch
    assert not of_torch & of_gpu


def test_the_torch_image_is_based_on_the_trainer_and_has_the_weights(
    bundle: Bundle, base: BuildContext, trainer: BuildContext
) -> None:
    context = render_serving(bundle, _make_location(bundle), base, trainer, ImageSettings(runtime="torch"))
    assert context.build_args["SHIPPED_IMAGE"] == trainer.tag
    assert {"model/model.safetensors", "model/config.json"} <= set(context.files)
    with pytest.raises(UsageError, match="no runtime 'tensorrt'"):
        render_serving(bundle, _make_location(bundle), base, trainer, ImageSettings(runtime="tensorrt"))


def test_the_serving_image_has_labels_of_its_model(bundle: Bundle, serving: BuildContext) -> None:
    assert serving.labels["newsbert.model"] == "TinyModel/2"
    assert serving.labels["newsbert.bundle_digest"] == bundle.digest
    assert serving.labels["newsbert.data_digest"] == bundle.contract.data["sha256"]
    assert serving.labels["newsbert.run_id"] == "0a1b" * 8
    assert serving.labels["org.opencontainers.image.revision"] == "c0ffee" * 6
    assert "model/model.pth" not in serving.files


def test_an_altered_bundle_gets_no_image(
    bundle: Bundle, base: BuildContext, trainer: BuildContext, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(bundle.path, tmp_path / "copy"))
    (path / "vocab.txt").write_text("[UNK]\n")
    altered = Bundle.read(path)
    with pytest.raises(ModelError, match=r"vocab\.txt was altered"):
        render_serving(altered, _make_location(altered), base, trainer, ImageSettings())


def test_credentials_are_only_in_secret_files(bundle: Bundle, tmp_path: Path) -> None:
    options = ("index-url=https://user:S3cret@host/simple", "proxy=user:S3cret@host:1")
    settings = ImageSettings(pip_options=options, torch_index="https://user:S3cret@torch/simple")
    for context in _render_contexts(bundle, tmp_path, settings):
        assert "S3cret" not in repr((context.tag, context.build_args, context.labels, context.dockerfile))
        files = {name: file if isinstance(file, bytes) else file.read_bytes() for name, file in context.files.items()}
        assert {name for name, content in files.items() if b"S3cret" in content} <= {"pip.conf", "torch.conf"}


def test_the_base_has_the_requirements_of_serving() -> None:
    needed = {line.partition("==")[0] for line in pinned()}
    assert set(package_sets.BASE) <= needed
    assert {"httpx2", "numpy", "onnxruntime", "packaging", "rich", "tokenizers", "typer"} <= set(package_sets.BASE)


def test_the_dockerfiles_are_installed() -> None:
    names = {file.name for file in package_files.find("docker").iterdir()}
    assert {"base.Dockerfile", "trainer.Dockerfile", "torchserve.Dockerfile"} <= names
    assert newsbert.__version__ == metadata.version("newsbert")
