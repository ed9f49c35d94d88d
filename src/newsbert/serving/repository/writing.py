"""Model repositories for MLServer and Triton, as those read them."""

import json
import shutil
from importlib import resources
from pathlib import Path

from newsbert.bundle.bundle import Bundle
from newsbert.core import temporary
from newsbert.errors import NewsbertError, UsageError
from newsbert.inference.runtime import resolve_runtime
from newsbert.serving.protocol import SERVED_NAME

MLSERVER, TRITON = SERVERS = ("mlserver", "triton")
"""The servers whose repositories are written."""

_IMPLEMENTATION = "newsbert.serving.repository.mlserver_runtime.NewsbertRuntime"
_BUNDLE, _TRITON_FILE = "bundle", "assets/triton_model.py"
# See https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md.
_TRITON_CONFIG = """\
name: {name}
backend: "python"
max_batch_size: 0
input [
  {{ name: "text" data_type: TYPE_STRING dims: [ -1 ] }},
  {{ name: "title" data_type: TYPE_STRING dims: [ -1 ] optional: true }}
]
output [
  {{ name: "label" data_type: TYPE_STRING dims: [ -1 ] }},
  {{ name: "score" data_type: TYPE_FP32 dims: [ -1 ] }},
  {{ name: "review" data_type: TYPE_BOOL dims: [ -1 ] }},
  {{ name: "probabilities" data_type: TYPE_FP32 dims: [ -1, {labels} ] }}
]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "name" value: {{ string_value: {model} }} }}
parameters {{ key: "runtime" value: {{ string_value: {runtime} }} }}
"""


def write(bundle: Bundle, name: str, version: str | None, server: str, directory: Path, runtime: str) -> Path:
    """Write the repository of a verified bundle, and return the directory of its model.

    Args:
        bundle: The model's bundle.
        name: The model's name in answers, such as `BertModel/7`.
        version: The model's version for the server; 1 if it has none.
        server: One of `SERVERS`.
        directory: The repository: created if it is missing.
        runtime: The runtime, as `resolve_runtime` takes it.

    Raises:
        UsageError: If the repository has the model already, or there is no such runtime.
        ModelError: If the bundle was altered after training, or has no graph for the runtime.
        NewsbertError: If it cannot be written.
    """
    runtime = resolve_runtime(bundle, runtime)
    bundle.verify(only=bundle.names(runtime))
    target = directory / SERVED_NAME
    version = version if version and version.isdecimal() and version.isascii() else "1"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise UsageError(f"{str(target)!r} exists", "name another directory: --output-dir DIR")
        with temporary.directory(directory) as part:
            if server == MLSERVER:
                _write_mlserver(bundle, name, version, runtime, part)
            else:
                _write_triton(bundle, name, version, runtime, part)
            part.chmod(0o755)
            part.rename(target)
    except OSError as error:
        raise NewsbertError(f"{target} cannot be written: {error}", "check the disk: df -h .") from error
    return target


def _write_mlserver(bundle: Bundle, name: str, version: str, runtime: str, directory: Path) -> None:
    settings = {
        "name": SERVED_NAME,
        "implementation": _IMPLEMENTATION,
        "parameters": {"uri": f"./{_BUNDLE}", "version": version, "extra": {"name": name, "runtime": runtime}},
    }
    (directory / "model-settings.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    _copy(bundle, runtime, directory / _BUNDLE)


def _write_triton(bundle: Bundle, name: str, version: str, runtime: str, directory: Path) -> None:
    config = _TRITON_CONFIG.format(
        name=_quote(SERVED_NAME), labels=len(bundle.contract.labels), model=_quote(name), runtime=_quote(runtime)
    )
    (directory / "config.pbtxt").write_text(config, encoding="utf-8")
    (directory / version).mkdir()
    program = (resources.files("newsbert.serving") / _TRITON_FILE).read_bytes()
    (directory / version / "model.py").write_bytes(program)
    _copy(bundle, runtime, directory / version / _BUNDLE)


def _quote(text: str) -> str:
    """Return a string of protobuf's text format."""
    from google.protobuf import text_encoding

    return f'"{text_encoding.CEscape(text.encode(), as_utf8=False)}"'


def _copy(bundle: Bundle, runtime: str, directory: Path) -> None:
    directory.mkdir()
    for file, content in bundle.files(runtime).items():
        if isinstance(content, bytes):
            (directory / file).write_bytes(content)
        else:
            shutil.copyfile(content, directory / file)
