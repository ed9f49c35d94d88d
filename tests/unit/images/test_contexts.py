"""Build contexts of the images: golden Dockerfiles, tags that mean their content, and credentials that stay out."""

import configparser
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.bundle.pins import pinned, pins
from newsbert.core import package_files
from newsbert.core.settings import ImageSettings
from newsbert.errors import ModelError, UsageError
from newsbert.images import package_sets
from newsbert.images.contexts import (
    BuildContext,
    render_base,
    render_serving,
    render_tracking,
    render_trainer,
    without_secrets,
)
from newsbert.images.pip_options import holds_secret, pip_conf
from newsbert.images.tags import serving_tag
from newsbert.tracking.artifacts import ModelLocation
from tests.support.cli import Cli

GOLDEN = Path(__file__).with_name("golden")
# https://github.com/distribution/reference: a path component, and a tag
REFERENCE = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


PINS = pins()


def _located(bundle: Bundle, name: str = "TinyModel/2") -> ModelLocation:
    model, _, version = name.partition("/")
    return ModelLocation(name, bundle.path, "0a1b" * 8, "c0ffee" * 6, version, model)


def _contexts(
    bundle: Bundle, directory: Path, settings: ImageSettings
) -> tuple[BuildContext, BuildContext, BuildContext]:
    base = render_base(settings, directory)
    trainer = render_trainer(base, settings)
    return base, trainer, render_serving(bundle, _located(bundle), base, trainer, settings)


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
    return render_serving(bundle, _located(bundle), base, trainer, ImageSettings(runtime="onnxruntime"))


def _without_versions(context: BuildContext) -> dict[str, Any]:
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


def _requirements(context: BuildContext, file: str = "requirements.txt") -> list[str]:
    content = context.files[file]
    assert isinstance(content, bytes)
    entries = [Requirement(line.rstrip(" \\")) for line in content.decode().splitlines() if not line.startswith(" ")]
    return [f"{each.name}{each.specifier}" for each in entries if each.marker is None or each.marker.evaluate()]


@pytest.mark.parametrize(
    ("name", "fixture"), [("base", "base"), ("trainer", "trainer"), ("tracking", "tracking"), ("torchserve", "serving")]
)
def test_the_context_is_the_golden_one(name: str, fixture: str, request: pytest.FixtureRequest) -> None:
    context: BuildContext = request.getfixturevalue(fixture)
    assert context.dockerfile == (GOLDEN / f"{name}.Dockerfile").read_text(encoding="utf-8")
    assert _without_versions(context) == json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["base", "trainer", "tracking", "serving"])
def test_every_file_that_a_dockerfile_copies_is_in_its_context(name: str, request: pytest.FixtureRequest) -> None:
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


def test_what_is_proved_is_what_starts(serving: BuildContext) -> None:
    entrypoint = serving.files["entrypoint.sh"]
    assert isinstance(entrypoint, bytes)
    started = entrypoint.decode().splitlines()[-1].removeprefix("exec ").removesuffix(' "$@"')
    proof = json.loads(serving.dockerfile.strip().splitlines()[-1].removeprefix("RUN "))
    assert proof == ["python", "-m", "newsbert.images.programs.verify", *started.split()]


@pytest.mark.parametrize("name", ["base", "trainer", "tracking", "serving"])
def test_every_build_argument_is_one_of_the_dockerfile(name: str, request: pytest.FixtureRequest) -> None:
    context: BuildContext = request.getfixturevalue(name)
    assert set(re.findall(r"^ARG (\w+)", context.dockerfile, re.MULTILINE)) == {"STAGE", *context.build_args}


@pytest.mark.parametrize("name", ["base", "trainer", "tracking", "serving"])
def test_the_files_written_are_of_the_sizes_told(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    context: BuildContext = request.getfixturevalue(name)
    context.write(tmp_path / "context.tar")
    with tarfile.open(tmp_path / "context.tar") as written:
        assert {each.name: each.size for each in written if each.isfile()} == context.sizes()
        dockerfile = written.extractfile("Dockerfile")
        assert dockerfile is not None and dockerfile.read().decode() == context.dockerfile


def test_the_same_input_has_the_same_base_tag_and_another_has_another(tmp_path: Path) -> None:
    def tag(name: str, **changes: Any) -> str:
        (tmp_path / name).mkdir()
        return render_base(ImageSettings(**changes), tmp_path / name).tag

    first = tag("first")
    assert tag("again") == first
    assert tag("pip's options are no content", pip_options=("index-url=https://user:word@host/simple",)) == first
    assert tag("another root", root_image="python:3.12-slim") != first
    assert tag("somewhere", repository="registry.example/team/") == f"registry.example/team/{first}"


def test_the_images_requirements_are_pinned_by_the_one_file(
    base: BuildContext, trainer: BuildContext, serving: BuildContext
) -> None:
    text = package_files.find("constraints.txt").read_text(encoding="utf-8")
    pins = [
        re.sub(r"[_.-]+", "-", name).lower() + version for name, version in re.findall(r"(?m)^([\w.-]+)(==.+)", text)
    ]
    lines = [*_requirements(base), *(line for name in ("serving", "packing", "sbom")
                                     for line in _requirements(serving, f"{name}.txt"))]  # fmt: skip
    assert len(set(lines)) == len(lines)
    trainers = [*_requirements(trainer), *_requirements(trainer, "torch.txt")]
    assert {*lines, *trainers} <= set(pins)
    assert not {*_requirements(base)} & {*trainers}
    names = {line.partition("==")[0] for line in _requirements(base)}
    assert {"numpy", "onnxruntime", "rich", "tokenizers", "typer"} <= names
    assert not {"newsbert", "torch", "transformers", "mlflow", "docker", "torchserve", "huggingface-hub"} & names


def test_everything_that_pip_takes_for_an_image_has_a_hash(
    base: BuildContext, trainer: BuildContext, tracking: BuildContext, serving: BuildContext
) -> None:
    for context in (base, trainer, tracking, serving):
        calls = re.findall(r"\bpip\b[^&#\n]*? install [^&#\n]*", context.dockerfile.replace("\\\n", " "))
        assert calls
        for call in calls:
            # newsbert itself comes with the context.
            assert "--require-hashes" in call or "--no-index --no-deps /opt/newsbert/*.whl" in re.sub(" +", " ", call)
            assert "--only-binary :all:" in call or "--no-index" in call
        files = {name: each for name, each in context.files.items() if name.endswith(".txt")}
        for name, content in files.items():
            assert isinstance(content, bytes)
            entries = re.split(r"\n(?! )", content.decode().strip())
            assert all(re.search(r" --hash=sha256:[0-9a-f]{64}", entry) for entry in entries), name


def test_versions_of_the_bundle_are_installed_by_themselves(bundle: Bundle, tmp_path: Path) -> None:
    versions = {"numpy": "2.0.1", "torchserve": "0.11.0", "transformers": "5.0.0"}
    shipped_base = render_base(ImageSettings(), tmp_path)
    base = render_base(ImageSettings(), tmp_path, versions)
    assert base.files["bundle.txt"] == b"numpy==2.0.1\n"
    assert f"numpy=={PINS['numpy']}" not in _requirements(base)
    assert set(_requirements(shipped_base)) - set(_requirements(base)) == {f"numpy=={PINS['numpy']}"}
    assert "-r /build/bundle.txt" in base.dockerfile
    assert base.tag != shipped_base.tag
    trainer = render_trainer(base, ImageSettings())
    assert "bundle.txt" not in trainer.files
    serving = render_serving(bundle, _located(bundle), base, trainer, ImageSettings(runtime="onnxruntime"), versions)
    assert serving.files["bundle.txt"] == b"torchserve==0.11.0\n"
    assert "install --target /opt/serving --no-deps --only-binary :all: -r /build/bundle.txt" in serving.dockerfile
    for context in (base, serving):
        assert re.search(r"COPY .* bundle.txt /build/$", context.dockerfile, re.MULTILINE)


def test_each_image_has_another_tag_when_one_below_it_has(bundle: Bundle, tmp_path: Path) -> None:
    first = _contexts(bundle, tmp_path, ImageSettings())
    again = _contexts(
        bundle, tmp_path, ImageSettings(pip_options=("timeout=3",), torch_index="https://other.example/simple")
    )
    other = _contexts(bundle, tmp_path, ImageSettings(root_image="python:3.12-slim"))
    assert [each.tag for each in again] == [each.tag for each in first]
    assert not {each.tag for each in other} & {each.tag for each in first}
    assert [each.aliases for each in other] == [each.aliases for each in first]


def test_the_image_for_gpus_has_the_other_onnx_runtime(base: BuildContext, tmp_path: Path) -> None:
    settings = ImageSettings(gpu=True)
    gpu = render_base(settings, tmp_path)
    assert gpu.dockerfile == (GOLDEN / "base-gpu.Dockerfile").read_text(encoding="utf-8")
    of_gpu = {line.partition("==")[0] for line in _requirements(gpu, "gpu.txt")}
    assert {"onnxruntime-gpu", "nvidia-cudnn-cu13", "nvidia-cublas"} <= of_gpu
    assert not of_gpu & set(package_sets.BASE)
    without = [line for line in _requirements(base) if not line.startswith("onnxruntime==")]
    assert _requirements(gpu) == without
    assert gpu.tag != base.tag
    trainer = render_trainer(gpu, settings)
    assert trainer.labels["newsbert.torch_index"] == "pip"
    of_torch = {line.partition("==")[0] for line in _requirements(trainer, "torch.txt")}
    assert {"torch", "triton", "nvidia-nccl-cu13"} <= of_torch
    assert not of_torch & of_gpu


def test_with_torch_the_image_is_the_trainers_and_has_the_weights(
    bundle: Bundle, base: BuildContext, trainer: BuildContext
) -> None:
    context = render_serving(bundle, _located(bundle), base, trainer, ImageSettings(runtime="torch"))
    assert context.build_args["SHIPPED_IMAGE"] == trainer.tag
    assert {"model/model.safetensors", "model/config.json"} <= set(context.files)
    with pytest.raises(UsageError, match="no runtime 'tensorrt'"):
        render_serving(bundle, _located(bundle), base, trainer, ImageSettings(runtime="tensorrt"))


def test_the_serving_image_says_what_it_serves(bundle: Bundle, serving: BuildContext) -> None:
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
        render_serving(altered, _located(altered), base, trainer, ImageSettings())


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
def test_what_is_no_pip_option_is_a_usage_error(option: str) -> None:
    with pytest.raises(UsageError, match="is not NAME=VALUE") as caught:
        pip_conf(["timeout=3", option])
    assert "index-url=" in str(caught.value.hint)


@pytest.mark.parametrize(
    "option",
    ["extra-index-url=https://other.example/simple", "require-hashes=false", "no-deps=false", "requirement=/etc/passwd",
     "constraint=http://evil.example/c", "target=/", "python=/bin/sh", "pre=true", "editable=git+https://evil.example/x",
     "no-binary=:all:", "global-option=x", "log=/x"],
)  # fmt: skip
def test_attack_pip_options_do_not_say_what_is_installed(option: str) -> None:
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
    assert not _leaks(secret, shown)
    assert ".example" in shown
    with pytest.raises(UsageError) as caught:
        pip_conf([option.upper().replace(secret.upper(), secret)])
    assert not _leaks(secret, caught.value.message)


def _leaks(secret: str, text: str) -> bool:
    """Whether half of a secret or more stands in a text."""
    length = len(secret) // 2
    return any(secret[start : start + length] in text for start in range(len(secret) - length + 1))


def test_a_token_in_a_query_is_not_shown_either() -> None:
    options = ["index-url=https://host.example/simple?token=S3cret", "trusted-host=host.example"]
    context = BuildContext("tag", (), "FROM x\n", {}, {}, {"pip.conf": pip_conf(options)})
    shown = without_secrets(context)["pip.conf"]
    assert "S3cret" not in shown
    assert "https://host.example/simple" in shown
    assert "trusted-host = host.example" in shown


def test_credentials_stay_out_of_tag_arguments_labels_and_dockerfile(bundle: Bundle, tmp_path: Path) -> None:
    options = ("index-url=https://user:S3cret@host/simple", "proxy=user:S3cret@host:1")
    settings = ImageSettings(pip_options=options, torch_index="https://user:S3cret@torch/simple")
    for context in _contexts(bundle, tmp_path, settings):
        assert "S3cret" not in repr((context.tag, context.build_args, context.labels, context.dockerfile))
        files = {name: each if isinstance(each, bytes) else each.read_bytes() for name, each in context.files.items()}
        assert {name for name, content in files.items() if b"S3cret" in content} <= {"pip.conf", "torch.conf"}


@pytest.mark.parametrize("as_json", [True, False])
def test_a_dry_run_shows_all_images_and_no_credential(bundle: Bundle, cli: Cli, as_json: bool) -> None:
    secret = ["--pip-option", "index-url=https://user:S3c/r@et@host/simple", "--pip-option", "proxy=user:S3cret@host:1"]
    secret += ["--torch-index", "https://user:S3c/r@et@torch/simple"]
    result = cli(
        "build-image", bundle.path, "--dry-run", "--runtime", "onnxruntime", *secret, *(["--json"] if as_json else [])
    )
    assert result.returncode == 0, result.stderr
    assert "S3c" not in result.stdout + result.stderr
    assert "et@" not in result.stdout + result.stderr
    for dockerfile in ("base.Dockerfile", "trainer.Dockerfile", "torchserve.Dockerfile"):
        content = (GOLDEN / dockerfile).read_text(encoding="utf-8")
        assert (json.dumps(content)[1:-1] if as_json else content) in result.stdout
    if as_json:
        base, trainer, serving = json.loads(result.stdout)["images"]
        assert serving["aliases"] == [f"torchserve:{bundle.path.name}-{bundle.digest[:12]}"]
        assert serving["build_args"]["TRAINER_IMAGE"] == trainer["tag"]
        assert serving["build_args"]["BASE_IMAGE"] == base["tag"]
        assert set(serving["files"]) == {"Dockerfile", *json.loads((GOLDEN / "torchserve.json").read_text())["files"]}


def test_contexts_are_written_for_docker_build_whole_or_not_at_all(bundle: Bundle, cli: Cli, tmp_path: Path) -> None:
    write = ("build-image", bundle.path, "--write-context", "my context", "--extra-host", "pypi.example:10.0.0.1")
    written = cli(*write, "--json")
    assert written.returncode == 0, written.stderr
    commands = json.loads(written.stdout)["commands"]
    shown = json.loads(cli("build-image", bundle.path, "--dry-run", "--json").stdout)["images"]
    for number, (command, image) in enumerate(zip(commands, shown, strict=True), 1):
        words = shlex.split(command)
        directory = tmp_path / "my context" / words[-1]
        assert directory.name.startswith(f"{number}-")
        assert words[:4] == ["docker", "build", "--add-host", "pypi.example:10.0.0.1"]
        pairs = list(itertools.pairwise(words))
        for tag in (image["tag"], *image["aliases"]):
            assert ("--tag", tag) in pairs
        for flag, values in (("--build-arg", image["build_args"]), ("--label", image["labels"])):
            assert [word for option, word in pairs if option == flag] == [f"{name}={values[name]}" for name in values]
        sizes = {
            str(file.relative_to(directory)): file.stat().st_size for file in directory.rglob("*") if file.is_file()
        }
        assert sizes == image["files"]
        assert directory.stat().st_mode & 0o077 == 0
    assert (tmp_path / "my context" / "build.sh").read_text().splitlines()[2:] == commands
    again = cli(*write)
    assert (again.returncode, "'my context' exists" in again.stderr) == (2, True)


def test_a_wrong_pip_option_is_told_without_its_credential(bundle: Bundle, cli: Cli) -> None:
    result = cli("build-image", bundle.path, "--dry-run", "--pip-option", "INDEX-URL=https://user:S3cret@host/simple")
    assert result.returncode == 2
    assert "S3cret" not in result.stdout + result.stderr
    assert "INDEX-URL" in result.stderr


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("BertModel/2", "torchserve:BertModel-2"),
        ("my.model_x-1/12", "torchserve:my.model_x-1-12"),
        ("run 0123456789abcdef0123456789abcdef", "torchserve:run-0123456789abcdef0123456789abcdef"),
    ],
)
def test_a_models_image_is_called_like_the_model(name: str, tag: str) -> None:
    assert _tag(name) == tag
    assert _tag(name, ImageSettings(repository="registry.example/team")) == f"registry.example/team/{tag}"


def _tag(name: str, settings: ImageSettings | None = None) -> str:
    return serving_tag(ModelLocation(name, Path(), "0a1b" * 8), "d" * 64, settings or ImageSettings())


def test_a_bundle_that_no_registry_names_has_its_digest_in_the_images_name() -> None:
    tags = [serving_tag(ModelLocation("BertModel-2", Path()), digest * 64, ImageSettings()) for digest in "ab"]
    assert tags == ["torchserve:BertModel-2-aaaaaaaaaaaa", "torchserve:BertModel-2-bbbbbbbbbbbb"]


def test_the_base_has_what_answering_needs() -> None:
    needed = {line.partition("==")[0] for line in pinned()}
    assert set(package_sets.BASE) <= needed
    assert {"numpy", "onnxruntime", "packaging", "rich", "tokenizers", "typer"} <= set(package_sets.BASE)


ODD_NAMES = (
    "", "-", "...", "新聞/1", "新聞/2", "Модель/1", "a b/1", "a-b/1", "a,b/1", "-x/1", ".x/1", "a b", "a-b", "a\nb/1",
    "a:b/1", "x//1", "x" * 200 + "/1", "x" * 200 + "/2", "\ud800/1",
)  # fmt: skip


def test_odd_names_have_a_valid_image_each_its_own() -> None:
    tags = [_tag(name) for name in ODD_NAMES]
    assert [tag for tag in tags if not REFERENCE.fullmatch(tag)] == []
    assert len(set(tags)) == len(ODD_NAMES)


@settings(max_examples=200, deadline=None)
@given(
    names=st.tuples(st.text(max_size=20), st.text(max_size=20)),
    versions=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_two_models_never_have_the_same_image(names: tuple[str, str], versions: tuple[int, int]) -> None:
    assume((names[0], versions[0]) != (names[1], versions[1]))
    # A registered model's name has no slash.
    first, second = (f"{name.replace('/', '')}/{version}" for name, version in zip(names, versions, strict=True))
    assume(first != second)
    tags = [_tag(each) for each in (first, second)]
    assert all(REFERENCE.fullmatch(tag) for tag in tags)
    assert tags[0] != tags[1]


def test_the_dockerfiles_are_found_where_they_are_installed() -> None:
    names = {file.name for file in package_files.find("docker").iterdir()}
    assert {"base.Dockerfile", "trainer.Dockerfile", "torchserve.Dockerfile"} <= names
    assert newsbert.__version__ == metadata.version("newsbert")
