"""Runtimes: one text, one answer, whatever runs the graph and whatever else is in the batch."""

import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import newsbert
from newsbert.bundle.bundle import BF16_TOLERANCE, INT8_GRAPH, INT8_TOLERANCE, RUNTIME_FILES, Bundle
from newsbert.bundle.contract import CONTRACT_FILE
from newsbert.core import cpu
from newsbert.core.types import FloatArray
from newsbert.errors import ModelError, UsageError
from newsbert.inference.model import Model
from newsbert.inference.prediction import Prediction
from newsbert.inference.runtime import Runtime, load_runtime, resolve_runtime
from tests.support.cli import long
from tests.support.tiny_model import LABELS

TOLERANCE = 1e-3
FP32 = ("onnxruntime", "torch")
# Every word is one token of the tiny encoder's.
WORDS = ("stocks", "market", "profit", "bank", "goal", "team", "cup", "coach", "minister", "border", "treaty", "vote")
ODD = (
    "🏆⚽ 👩‍👩‍👧‍👦 wins", "فاز الفريق بثلاثة أهداف", "\u202eright to left", "nul\x00 and bell\x07", "東京株式市場",
    "lone \ud800 surrogate", "\udfff", "\ud83d\ude00 a pair in two halves", "stocks " * 300, "goal" * 400,
    "<b>bold</b> &amp; #39;s", "\u200b", "Ⅷ ½ ﬁ", "\ufeffmark",
)  # fmt: skip


@pytest.fixture(scope="module")
def read(trained: tuple[newsbert.TrainResult, str]) -> Bundle:
    return Bundle.read(trained[0].bundle).without_companion()


@pytest.fixture(scope="module")
def onnx(read: Bundle) -> Runtime:
    return load_runtime(read, "onnxruntime", threads=1)


@pytest.fixture(scope="module")
def torch(read: Bundle) -> Runtime:
    return load_runtime(read, "torch")


@pytest.fixture(params=FP32)
def runtime(request: pytest.FixtureRequest, onnx: Runtime, torch: Runtime) -> Runtime:
    return {"onnxruntime": onnx, "torch": torch}[request.param]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, when it compiles
@pytest.mark.parametrize(
    ("name", "against", "tolerance"),
    [
        ("openvino", "torch", 1e-3),
        pytest.param("torch-compiled", "torch", 1e-3, marks=long),
        ("torch-bf16", "torch", 2 * BF16_TOLERANCE),
        ("openvino-bf16", "torch", 2 * BF16_TOLERANCE),
        ("onnxruntime-int8", "torch", 0.2),
        ("openvino-int8", "onnxruntime-int8", INT8_TOLERANCE),
    ],
)
def test_every_other_runtime_gives_about_the_same_answers_alone_and_among_others(
    read: Bundle, name: str, against: str, tolerance: float
) -> None:
    if name.endswith("int8") and not cpu.multiplies_int8():
        pytest.skip("this processor does not multiply 8-bit integers")
    if name == "torch-compiled" and shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler")
    texts = [" ".join(_words(count)) for count in (1, 3, 30, 7, 60, 2, 15, 33)]
    texts += [
        golden.item if isinstance(golden.item, str) else golden.item["text"] or "x" for golden in read.contract.golden
    ]
    runtime = load_runtime(read, name, threads=2)
    together = runtime.predict(texts)
    alone = np.concatenate([runtime.predict([text]) for text in texts])
    # A random encoder makes of bfloat16's rounding more than a trained one.
    assert _largest_difference(together, alone) <= (10 * TOLERANCE if name.endswith("bf16") else TOLERANCE)
    assert _largest_difference(together, load_runtime(read, against).predict(texts)) <= tolerance


def test_a_runtime_whose_graph_the_bundle_lacks_is_refused(read: Bundle, tmp_path: Path) -> None:
    path = Path(shutil.copytree(read.path, tmp_path / "copy"))
    (path / INT8_GRAPH).unlink(missing_ok=True)
    values = json.loads((path / CONTRACT_FILE).read_text(encoding="utf-8"))
    for names in (values["files"], values["graphs"]):
        names.pop(INT8_GRAPH, None)
    (path / CONTRACT_FILE).write_text(json.dumps(values), encoding="utf-8")
    without = Bundle.read(path)
    assert resolve_runtime(without) == "onnxruntime"
    for name in ("onnxruntime-int8", "openvino-int8"):
        with pytest.raises(ModelError, match=f"{INT8_GRAPH}, which the runtime '{name}' reads"):
            load_runtime(without, name)


def test_openvino_does_not_report_its_import(read: Bundle) -> None:
    script = (
        "import sys; from pathlib import Path; from newsbert.bundle.bundle import Bundle\n"
        "from newsbert.inference.runtime import load_runtime\n"
        "load_runtime(Bundle.read(Path(sys.argv[1])), 'openvino')\n"
        "print(sys.modules.get('openvino_telemetry'), 'openvino' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, read.path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "True"]


def _with_contract(read: Bundle, directory: Path, **changes: object) -> Bundle:
    """A copy of the bundle with other values in its contract."""
    path = Path(shutil.copytree(read.path, directory / "copy"))
    values = json.loads((path / CONTRACT_FILE).read_text(encoding="utf-8")) | changes
    (path / CONTRACT_FILE).write_text(json.dumps(values), encoding="utf-8")
    changed = Bundle.read(path)
    changed.verify()
    return changed.without_companion()


def _words(count: int, seed: int = 0) -> list[str]:
    return random.Random(seed).choices(WORDS, k=count)


def _largest_difference(left: FloatArray, right: FloatArray) -> float:
    assert left.shape == right.shape
    return float(np.abs(left - right).max(initial=0.0))


@pytest.mark.parametrize("name", FP32)
def test_golden_texts_get_their_probabilities_alone_and_together(bundle: Bundle, name: str) -> None:
    read, runtime = bundle, load_runtime(bundle, name, cascade="off")
    items = [golden.item for golden in read.contract.golden]
    expected = np.array([golden.probabilities for golden in read.contract.golden], dtype=np.float32)
    assert len(items) >= 10
    together = runtime.predict(items)
    alone = np.concatenate([runtime.predict([item]) for item in items])
    assert _largest_difference(together, expected) <= TOLERANCE
    assert _largest_difference(alone, expected) <= TOLERANCE


def test_answers_are_those_of_the_hugging_face_files_by_themselves(read: Bundle, runtime: Runtime) -> None:
    import torch as pytorch
    from transformers import AutoModelForSequenceClassification, BertTokenizer

    # Texts that no cleaning rule touches.
    texts = ["stocks fall as bank profit rises", "goal!", "treaty vote, border", " ".join(_words(300))]
    tokenizer = BertTokenizer(vocab=str(read.path / "vocab.txt"))
    model = AutoModelForSequenceClassification.from_pretrained(str(read.path)).eval()
    expected = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=read.contract.max_length, return_tensors="pt")
        with pytorch.inference_mode():
            logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        expected.append(pytorch.softmax(logits[0] / read.contract.temperature, dim=-1).numpy())
    assert _largest_difference(runtime.predict(texts), np.stack(expected)) <= TOLERANCE


def _answerable(runtime: Runtime, text: str) -> bool:
    try:
        runtime.prepare(text)
    except ValueError:
        return False
    return True


_TEXTS = st.one_of(
    st.text(alphabet=st.characters(), max_size=40),  # with surrogates, which `st.text()` leaves out
    st.sampled_from(ODD),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=120).map(" ".join),
)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(_TEXTS, min_size=1, max_size=6), data=st.data())
def test_any_text_gets_one_answer_from_both_runtimes_in_any_batch_and_order(
    onnx: Runtime, torch: Runtime, texts: list[str], data: st.DataObject
) -> None:
    texts = [text for text in texts if _answerable(onnx, text)]
    expected = torch.predict(texts)
    assert _largest_difference(expected.sum(axis=1), np.ones(len(texts), dtype=np.float32)) <= 1e-5
    assert _largest_difference(onnx.predict(texts), expected) <= TOLERANCE
    order = data.draw(st.permutations(range(len(texts))))
    for runtime in (onnx, torch):
        shuffled = runtime.predict([texts[index] for index in order])
        assert _largest_difference(shuffled, expected[list(order)]) <= TOLERANCE
        for index, text in enumerate(texts):
            assert _largest_difference(runtime.predict([text])[0], expected[index]) <= TOLERANCE


def test_many_texts_of_all_lengths_keep_their_order(runtime: Runtime) -> None:
    texts = [" ".join(_words(length, seed=length)) for length in range(1, 60)]
    random.Random(1).shuffle(texts)
    alone = np.concatenate([runtime.predict([text]) for text in texts])
    assert _largest_difference(runtime.predict(texts), alone) <= TOLERANCE
    assert len({tuple(row) for row in alone.round(2).tolist()}) > 10  # so that a wrong order would show


def test_a_long_text_is_read_up_to_the_contracts_max_length(read: Bundle, runtime: Runtime) -> None:
    words = _words(500)
    read_words = words[: read.contract.max_length - 2]  # [CLS] and [SEP] are tokens too
    long, cut, shorter = runtime.predict([" ".join(part) for part in (words, read_words, read_words[:-10])])
    assert _largest_difference(long, cut) <= 1e-6
    assert _largest_difference(long, shorter) > 1e-4


@pytest.mark.parametrize("name", FP32)
def test_another_max_length_in_the_contract_is_what_is_read(
    read: Bundle, runtime: Runtime, tmp_path: Path, name: str
) -> None:
    changed = load_runtime(_with_contract(read, tmp_path, max_length=10), name)
    words = ["goal"] * 8 + ["stocks"] * 30
    assert _largest_difference(changed.predict([" ".join(words)]), runtime.predict([" ".join(words[:8])])) <= TOLERANCE
    assert _largest_difference(changed.predict([" ".join(words)]), runtime.predict([" ".join(words)])) > 0.01


@pytest.mark.parametrize("name", FP32)
@pytest.mark.parametrize("temperature", [0.5, 3])
def test_logits_are_divided_by_the_contracts_temperature(
    read: Bundle, tmp_path: Path, name: str, temperature: float
) -> None:
    texts = ["stocks fall", "goal", " ".join(_words(30))]
    plain, divided = (
        load_runtime(_with_contract(read, tmp_path / str(number), temperature=number), name).predict(texts)
        for number in (1, temperature)
    )
    powers = plain.astype(np.float64) ** (1 / temperature)
    expected = powers / powers.sum(axis=1, keepdims=True)
    assert _largest_difference(divided, expected.astype(np.float32)) <= TOLERANCE
    assert _largest_difference(divided, plain) > 0.01


def test_no_texts_get_no_rows(runtime: Runtime) -> None:
    assert runtime.predict([]).shape == (0, len(LABELS))


def test_a_title_is_joined_to_its_text_with_one_blank(runtime: Runtime) -> None:
    joined, apart, described = runtime.predict(
        [
            "bank profit stocks fall",
            {"title": " bank\tprofit ", "text": "stocks <b>fall</b>"},
            {"title": "bank profit", "description": "stocks fall"},
        ]
    )
    assert _largest_difference(joined, apart) <= 1e-6
    assert _largest_difference(joined, described) <= 1e-6


@pytest.mark.parametrize(
    "item", ["", " \t\n", {"title": "", "text": " "}, {}, 5, None, ["a"], {"text": 5}, {"body": "x"}]
)
def test_an_item_that_is_no_text_is_a_value_error(runtime: Runtime, item: object) -> None:
    with pytest.raises(ValueError, match=r"empty|expected|unknown key|must be a string"):
        runtime.predict(["goal", item])  # type: ignore[list-item]


def test_an_unknown_runtime_is_named(read: Bundle) -> None:
    with pytest.raises(UsageError, match="'tensorrt'") as caught:
        load_runtime(read, "tensorrt")
    assert all(name in str(caught.value.hint) for name in RUNTIME_FILES)


@pytest.mark.parametrize(("name", "file"), [("onnxruntime", "model.onnx"), ("torch", "model.safetensors")])
@pytest.mark.parametrize("content", [None, b"", b"\x08\x07broken"])
def test_a_missing_or_broken_graph_is_a_model_error(
    read: Bundle, tmp_path: Path, name: str, file: str, content: bytes | None
) -> None:
    path = Path(shutil.copytree(read.path, tmp_path / "copy"))
    (path / file).unlink()
    if content is not None:
        (path / file).write_bytes(content)
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_runtime(dataclasses.replace(read, path=path), name)
    assert str(path) in caught.value.message


def test_a_model_answers_with_the_most_probable_label(bundle: Bundle) -> None:
    texts = ["stocks market profit bank", "goal team cup coach", "minister border treaty vote"]
    predictions = Model.from_directory(bundle.path, "TinyModel/1").predict(texts)
    for prediction, row in zip(predictions, load_runtime(bundle).predict(texts), strict=True):
        assert list(prediction.probabilities) == list(LABELS)
        assert list(prediction.probabilities.values()) == pytest.approx(row.tolist(), abs=TOLERANCE)
        assert prediction.label == LABELS[int(row.argmax())]
        assert prediction.score == max(prediction.probabilities.values())


def test_a_model_is_not_loaded_from_an_altered_bundle(read: Bundle, tmp_path: Path) -> None:
    path = Path(shutil.copytree(read.path, tmp_path / "copy"))
    with (path / "tokenizer.json").open("a") as stream:
        stream.write("\n")
    with pytest.raises(ModelError, match=r"tokenizer\.json was altered"):
        Model.from_directory(path)


def test_a_prediction_keeps_label_order_and_rounds_what_it_sends() -> None:
    prediction = Prediction.of(["b", "a", "c"], [0.25, 0.12345678, 0.62654322], 0.7)
    assert (prediction.label, prediction.score) == ("c", 0.62654322)
    assert list(prediction.probabilities) == ["b", "a", "c"]
    assert prediction.to_dict() == {
        "label": "c",
        "score": 0.626543,
        "review": True,
        "probabilities": {"b": 0.25, "a": 0.123457, "c": 0.626543},
    }
    assert Prediction.from_dict(prediction.to_dict()).review
    with pytest.raises(ValueError, match="zip"):
        Prediction.of(["a", "b"], [1.0])


def test_nothing_is_reported_to_the_makers_of_the_runtime(bundle: Bundle, tmp_path: Path) -> None:
    # ONNX Runtime keeps a device id and its unsent reports below the home directory.
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home" / ".cache")}
    script = "import sys, newsbert; print(newsbert.load(sys.argv[1]).predict(['stocks market'])[0].label)"
    (tmp_path / "home").mkdir()
    subprocess.run([sys.executable, "-c", script, str(bundle.path)], env=environment, check=True, timeout=120)
    assert list((tmp_path / "home").rglob("*icrosoft*")) == []
