"""Nothing is installed that no hash is known of: lock files, the Makefile, workflows, Dockerfiles."""

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from newsbert.bundle.pins import pinned, pins
from newsbert.core import zip_files
from newsbert.images import lock_files, package_sets

ROOT = Path(__file__).parents[3]
LOCKS = ("all.txt", "dev.txt", "torch-cpu.txt", "cuda.txt", "gpu.txt")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def _read_entries(file: str) -> dict[str, str]:
    text = (ROOT / "locks" / file).read_text(encoding="utf-8")
    blocks = [block for block in re.split(r"\n(?! )", text) if block and not block.startswith("#")]
    return {Requirement(block.partition(" \\")[0]).name: block for block in blocks}


@pytest.mark.parametrize("file", [*LOCKS, "../infra/requirements.txt"])
def test_every_entry_of_a_lock_file_is_one_version_with_hashes(file: str) -> None:
    entries = _read_entries(file)
    assert entries
    for name, block in entries.items():
        first, *hashes = block.replace(" \\\n", "\n").splitlines()
        (specifier,) = Requirement(first).specifier
        assert specifier.operator == "==" and Version(specifier.version), name
        assert hashes and all(HASH.fullmatch(line.strip()) for line in hashes), name


def test_lock_files_have_the_versions_of_the_constraints() -> None:
    versions = pins()
    locked: set[str] = set()
    for file in (*LOCKS, "trainer.txt", "tracking.txt"):
        for name, block in _read_entries(file).items():
            (specifier,) = Requirement(block.partition(" \\")[0]).specifier
            assert versions.get(canonicalize_name(name), specifier.version) == specifier.version, f"{file}: {name}"
            locked.add(canonicalize_name(name))
    assert set(versions) <= locked


def test_installed_packages_of_an_extra_are_in_its_lock_file() -> None:
    every = lock_files.names("all.txt") | lock_files.names("dev.txt") | {"torch"}
    for extras, names in {
        ("all",): lock_files.names("all.txt") | {"torch"},
        ("all", "dev"): every,
        ("train", "minilm", "azure", "gs", "s3"): lock_files.names(lock_files.TRAINER) | {"torch"},
        ("tracking",): lock_files.names(lock_files.TRACKING),
    }.items():
        needed = {line.partition("==")[0] for line in pinned(*extras)}
        assert needed <= names, extras
    servers = {name for names in package_sets.SERVING.values() for name in names}
    assert set(package_sets.BASE) | servers <= lock_files.names("all.txt")


def test_markers_include_what_this_machine_needs() -> None:
    for file in lock_files.LOCKED:
        for name, block in _read_entries(file).items():
            marker = block.partition(" \\")[0].partition(";")[2]
            assert not marker or Marker(marker).evaluate() or name in {"colorama", "pywin32", "waitress", "tzdata",
                                                                      "httpx2-jsfetch"}  # fmt: skip


FILES = [
    file
    for pattern in ("Makefile", ".github/workflows/*.yml", "docker/*", "infra/**/*", "src/**/*.py", "docs/*.md", "*.md",
                    "pipeline/*", ".ci/*", "benchmarks/*.py")
    for file in ROOT.glob(pattern)
    if file.is_file() and file.name != "CHANGELOG.md"
]  # fmt: skip


def test_attack_no_file_names_a_second_index() -> None:
    offenders = [file for file in FILES if "extra-index-url" in file.read_text(encoding="utf-8", errors="replace")]
    assert len(FILES) > 100 and not offenders


@pytest.mark.parametrize(
    "file",
    [file for file in (*ROOT.glob(".github/workflows/*.yml"), ROOT / "Makefile") if file.stem != "ci"],
    ids=lambda file: file.name,
)
def test_attack_pip_and_npm_require_hashes(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace("\\\n", " ").replace("$(LOCKED)", _read_locked())
    calls = [
        line
        for line in text.splitlines()
        if re.search(r"(\$\(PIP\)|-m pip|npm) .*\b(install|ci)\b", line) and "printf" not in line
    ]
    assert calls
    for call in calls:
        if "npm" in call:
            assert "npm ci" in call
        elif "--no-build-isolation" in call:
            assert "--no-deps" in call
        else:
            assert {"--no-deps", "--require-hashes", "--only-binary"} <= set(call.split()), call


def _read_locked() -> str:
    (line,) = re.findall(r"^LOCKED := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return str(line)


@pytest.mark.parametrize("directory", ["npm", "azurite"])
def test_npm_packages_have_hashes(directory: str) -> None:
    lock = json.loads((ROOT / "infra" / directory / "package-lock.json").read_text(encoding="utf-8"))
    package = json.loads((ROOT / "infra" / directory / "package.json").read_text(encoding="utf-8"))
    installed = {name: package_entry for name, package_entry in lock["packages"].items() if name}
    assert {f"node_modules/{name}" for name in package["dependencies"]} <= set(installed)
    assert all(
        package_entry["integrity"].startswith("sha")
        for package_entry in installed.values()
        if not package_entry.get("inBundle")
    )


def test_attack_workflows_pin_actions_by_commit() -> None:
    used = [
        line.strip()
        for file in (ROOT / ".github").rglob("*.y*ml")
        for line in file.read_text(encoding="utf-8").splitlines()
        if re.search(r"\buses:", line)
    ]
    assert used
    for line in used:
        assert re.fullmatch(r"(- )?uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def _install(wheels: Path, lock: Path, target: Path) -> subprocess.CompletedProcess[str]:
    options = [
        *_read_locked().split(),
        "--isolated",
        "--no-index",
        "--find-links",
        str(wheels),
        "--target",
        str(target),
    ]
    return subprocess.run(
        [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *options, "-r", str(lock)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": ""},
    )


def test_attack_pip_refuses_a_wheel_that_was_changed(tmp_path: Path) -> None:
    info = "tiny-1.0.dist-info"
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    content = {
        "tiny.py": b"answer = 42\n",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    zip_files.write(wheel, content, zipfile.ZIP_DEFLATED)
    lock = tmp_path / "lock.txt"
    lock.write_text(f"tiny==1.0 \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    installed = _install(tmp_path, lock, tmp_path / "good")
    assert installed.returncode == 0, installed.stderr
    assert (tmp_path / "good" / "tiny.py").is_file()

    zip_files.write(wheel, {**content, "tiny.py": b"answer = 'evil'\n"}, zipfile.ZIP_DEFLATED)
    refused = _install(tmp_path, lock, tmp_path / "bad")
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr
    assert not (tmp_path / "bad" / "tiny.py").exists()

    lock.write_text("tiny==1.0\n")
    assert "Hashes are required" in _install(tmp_path, lock, tmp_path / "without").stderr
