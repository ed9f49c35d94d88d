"""Measure the time from the wheel and an empty directory to the first prediction of your own model, by step.

    python benchmarks/first_prediction.py [--torch-index URL]

The script installs newsbert into a new environment, with all extras and the constraints of the project. Packages come
from the index that pip uses. If the network is slow, most of the time is downloads. torch is installed first, from its
index of CPU builds, or from the index of `--torch-index` (empty: the one that pip uses).
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-index", default=CPU_INDEX)
    arguments = parser.parse_args()
    constraints = REPOSITORY / "constraints.txt"
    torch = next(line for line in constraints.read_text(encoding="utf-8").splitlines() if line.startswith("torch=="))
    index = ["--index-url", arguments.torch_index] if arguments.torch_index else []
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as name:
        directory = Path(name)
        build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(directory / "dist"), str(REPOSITORY)]
        subprocess.run(build, check=True, capture_output=True)
        (wheel,) = (directory / "dist").glob("*.whl")
        work = directory / "work"
        work.mkdir()
        python, newsbert = directory / "venv/bin/python", directory / "venv/bin/newsbert"
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        steps = {
            "python -m venv": [sys.executable, "-m", "venv", str(directory / "venv")],
            f"pip install {torch}": [*pip, "--no-deps", *index, torch],
            "pip install 'newsbert[all]'": [*pip, "-c", str(constraints), f"newsbert[all] @ {wheel.as_uri()}"],
            "newsbert train": [str(newsbert), "train"],
            "newsbert register --model-name BertModel": [str(newsbert), "register", "--model-name", "BertModel"],
            'newsbert predict "Stocks fall as oil rises"': [str(newsbert), "predict", "Stocks fall as oil rises"],
        }
        print("| step | s |\n|---|---|")
        began = time.monotonic()
        for step, command in steps.items():
            started = time.monotonic()
            subprocess.run(command, cwd=work, check=True, capture_output=True)
            print(f"| `{step}` | {time.monotonic() - started:.0f} |", flush=True)
        print(f"| all | {time.monotonic() - began:.0f} |")


if __name__ == "__main__":
    main()
