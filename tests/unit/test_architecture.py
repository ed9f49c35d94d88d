"""The page on the architecture shows the packages as they are, and a package's `__init__` is a docstring."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import newsbert

ROOT = Path(__file__).parents[2]
SOURCE = Path(newsbert.__file__).parent
PACKAGES = [file for file in sorted(SOURCE.rglob("__init__.py")) if file.parent != SOURCE]


def test_the_page_has_the_packages_in_order() -> None:
    spec = importlib.util.spec_from_file_location("make_architecture", ROOT / "docs/scripts/make_architecture.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.PAGE.read_text(encoding="utf-8")
    assert module.render(page) == page, "make docs"
    layers = {name for layer in module.read_layers() for name in layer}
    assert layers == {file.parent.name for file in PACKAGES if file.parent.parent == SOURCE} | {"errors"}


@pytest.mark.parametrize("file", PACKAGES, ids=lambda file: str(file.parent.relative_to(SOURCE)))
def test_package_init_files_have_only_a_docstring(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) and len(tree.body) == 1


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys; from newsbert.cli.app import main; sys.argv = ['newsbert', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(*(name for name in ('numpy', 'mlflow', 'torch', 'docker', 'onnxruntime') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == ""
