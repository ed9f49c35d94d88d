"""How long it takes from a wheel and an empty directory to a first prediction of one's own model, by the step.

    python benchmarks/first_prediction.py [--torch-index URL]

In a new environment, with all extras and the constraints of the project. What is downloaded comes from wherever pip has
it: on a slow line that is most of the time. torch comes first and by itself, from its index of CPU builds unless
another is given; empty is pip's own.
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
    given = parser.parse_args()
    constraints = REPOSITORY / "constraints.txt"
    torch = next(line for line in constraints.read_text(encoding="utf-8").splitlines() if line.startswith("torch=="))
    index = ["--index-url", given.torch_index] if given.torch_index else []
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
