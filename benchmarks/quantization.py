"""Ways to quantize a bundle's graph, side by side: static 8 bits, as newsbert ships it, and weights alone.

    python benchmarks/quantization.py BUNDLE ROWS [--rounds 3] [--rows 5000]

BUNDLE is a directory that training wrote, with its quantized graph; ROWS the file of labelled rows that it was trained
on, of which the test rows (at most `--rows`) are classified. Graphs of weights in 4 or 8 bits are made of `model.onnx`
by ONNX Runtime's MatMulNBits, whose accuracy level is what it computes in: 1 is fp32, at 4 activations are rounded to
8 bits too, each block by itself as it comes. Tables of embeddings have 8 bits in all of them, and the matrix of the
labels stays as it is. With `pip install nncf` (3.4) there are OpenVINO's own too.

All get the same threads and texts, in turns: a round measures every graph once, with each core computing batches of its
own as the shipped one does. (OpenVINO gives all cores one batch.)
"""

import argparse
import contextlib
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper
from onnxruntime.quantization import matmul_nbits_quantizer

from newsbert.bundle.bundle import FP32_GRAPH, INT8_GRAPH, Bundle
from newsbert.core.cpu import cores
from newsbert.core.types import FloatArray
from newsbert.data.dataset import load_dataset
from newsbert.inference.runtime import Runtime
from newsbert.inference.runtimes.onnxruntime import OnnxGraph
from newsbert.inference.runtimes.openvino import OpenVinoGraph
from newsbert.training.export import quantization

LEAST_SIDE = 16
"""Narrower matrices stay as they are, as in `newsbert.training.export.quantization`."""

BLOCK = {4: 32, 8: 128}
"""Weights that share a scale, by bits."""

TEXTS, ONES, ALONE = 300, 50, 100
"""Texts for the speed of many, for that of one at a time, and to be asked alone as well."""


def weights_only(bundle: Bundle, bits: int, level: int, target: Path) -> Path:
    """Write the fp32 graph with its matrices in so many bits."""
    model = onnx.load(str(bundle.path / FP32_GRAPH))
    constants = {each.name: each for each in model.graph.initializer}
    nodes = [part for node in model.graph.node for part in plain(node, constants)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    config = matmul_nbits_quantizer.DefaultWeightOnlyQuantConfig(
        block_size=BLOCK[bits], bits=bits, accuracy_level=level, is_symmetric=True
    )
    narrow = [node.name for node in nodes if node.op_type == "MatMul" and not is_wide(node, constants)]
    quantizer = matmul_nbits_quantizer.MatMulNBitsQuantizer(model, nodes_to_exclude=narrow, algo_config=config)
    quantizer.process()
    onnx.save(quantizer.model.model, str(target))
    quantization.write(target, target, [], bundle.contract.pad_id)  # what is left for it: the tables
    return target


def plain(node: NodeProto, constants: dict[str, Any]) -> Iterator[NodeProto]:
    """A Gemm as MatMul and Add, which is what is looked for; anything else as it is."""
    if node.op_type != "Gemm" or not is_wide(node, constants):
        yield node
        return
    given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    assert given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0
    assert not given.get("transA")
    if given.get("transB"):
        weights = constants[node.input[1]]
        weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights).T.copy(), weights.name))
    yield helper.make_node("MatMul", node.input[:2], [f"{node.output[0]}_product"], f"{node.name}_product")
    yield helper.make_node("Add", [f"{node.output[0]}_product", node.input[2]], node.output, f"{node.name}_sum")


def is_wide(node: NodeProto, constants: dict[str, Any]) -> bool:
    return node.input[1] in constants and min(constants[node.input[1]].dims) >= LEAST_SIDE


def openvino_weights(bundle: Bundle, bits: int, target: Path) -> Path:
    """Write the fp32 graph with its weights compressed by NNCF; OpenVINO must have been imported by newsbert."""
    import nncf  # type: ignore[import-not-found, unused-ignore]
    import openvino

    how = {8: {"mode": nncf.CompressWeightsMode.INT8_ASYM},
           4: {"mode": nncf.CompressWeightsMode.INT4_SYM, "group_size": BLOCK[4]}}[bits]  # fmt: skip
    model = openvino.Core().read_model(str(bundle.path / FP32_GRAPH))
    openvino.save_model(nncf.compress_weights(model, **how), str(target), compress_to_fp16=False)
    return target


def size(file: Path) -> int:
    files = [file, *([file.with_suffix(".bin")] if file.suffix == ".xml" else [])]
    return sum(each.stat().st_size for each in files)


def graphs(bundle: Bundle, work: Path, threads: int) -> Iterator[tuple[str, int, Runtime]]:
    """Names, sizes and runtimes."""

    def with_onnx(file: Path) -> Runtime:
        return Runtime(bundle, OnnxGraph(file, threads), threads, OnnxGraph(file, 1) if threads > 1 else None)

    def with_openvino(file: Path) -> Runtime:
        return Runtime(bundle, OpenVinoGraph(file, threads), threads)

    files = {"fp32": bundle.path / FP32_GRAPH, "**static 8 bits (newsbert's)**": bundle.path / INT8_GRAPH}
    for bits in (8, 4):
        for level in (1, 4):
            target = work / f"weights{bits}-{level}.onnx"
            files[f"weights of {bits} bits, level {level}"] = weights_only(bundle, bits, level, target)
    for name, file in files.items():
        yield name, size(file), with_onnx(file)
    try:
        for name, file in {"fp32": bundle.path / FP32_GRAPH, "static 8 bits": bundle.path / INT8_GRAPH}.items():
            yield f"OpenVINO, {name}", size(file), with_openvino(file)
        for bits in (8, 4):
            file = openvino_weights(bundle, bits, work / f"weights{bits}.xml")
            yield f"OpenVINO, weights of {bits} bits", size(file), with_openvino(file)
    except ImportError as error:
        print(f"left out: {error}", file=sys.stderr)


def rate(runtime: Runtime, texts: Sequence[str], together: bool) -> float:
    started = time.perf_counter()
    for part in [texts] if together else [[text] for text in texts]:
        runtime.predict(part)
    return len(texts) / (time.perf_counter() - started)


def difference(some: FloatArray, others: FloatArray) -> float:
    return float(np.abs(some - others).max())


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=cores())
    given = parser.parse_args()
    logging.getLogger(matmul_nbits_quantizer.__name__).setLevel(logging.WARNING)  # it tells of every node
    bundle = Bundle.read(given.bundle)
    test = load_dataset(str(given.file), labels=bundle.contract.labels).test
    # Drawn from all over it: a file may be sorted.
    chosen = np.random.default_rng(0).permutation(len(test.texts))[: given.rows]
    texts, labels = [test.texts[row] for row in chosen], np.asarray([test.labels[row] for row in chosen])
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as work:
        with contextlib.redirect_stdout(sys.stderr):  # NNCF tells what it does
            measured = list(graphs(bundle, Path(work), given.threads))
        many: dict[str, list[float]] = {name: [] for name, *_ in measured}
        ones: dict[str, list[float]] = {name: [] for name, *_ in measured}
        answers = {name: runtime.predict(texts) for name, _, runtime in measured}  # which also warms up
        for number in range(given.rounds):
            for name, _, runtime in measured:
                many[name].append(rate(runtime, texts[:TEXTS], together=True))
                ones[name].append(rate(runtime, texts[:ONES], together=False))
            print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
        print(f"{len(texts)} test rows, {given.threads} threads, median (range) of {given.rounds} rounds\n")
        print("| graph | MB | texts/s, sorted | texts/s, one at a time | labels of fp32 | largest difference "
              "| alone, in a batch | accuracy |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
        expected = answers["fp32"]
        right = (expected.argmax(axis=1) == labels).mean()
        for name, size_bytes, runtime in measured:
            got = answers[name]
            alone = np.concatenate([runtime.predict([text]) for text in texts[:ALONE]])
            change = 100 * ((got.argmax(axis=1) == labels).mean() - right)
            same = 100 * (got.argmax(axis=1) == expected.argmax(axis=1)).mean()
            told = f"{100 * right:.2f}%" if name == "fp32" else f"{change:+.2f}"
            off, apart = difference(got, expected), difference(alone, got[: len(alone)])
            print(f"| {name} | {size_bytes / 1e6:.0f} | {spread(many[name])} | {spread(ones[name])} | "
                  f"{same:.2f}% | {off:.4f} | {apart:.1e} | {told} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
