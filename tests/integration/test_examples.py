"""What README, docs and help have a reader type is typed, as it stands, in a directory that has what it names."""

import csv
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest

import newsbert
from newsbert.data.dataset import load_dataset
from newsbert.data.sources import AG_NEWS_LABELS
from tests.support import docs_examples, preloaded
from tests.support.calls import free_port
from tests.support.cli import long

ELSEWHERE = {
    r"^make |^pip install": "test_wheel.py does what they do, and `make test` runs this",
    r"^cp |^sudo |^terraform|gcloud|terraform output": "the reader's own machine, and Google Cloud, which no test has",
    r"docker (run|exec|compose)|/root\.crt": "test_image_programs.py, test_containers.py, test_tracking_server.py",
    r"^kubectl|\| kubectl": "test_targets.py, with a kubectl that talks to a stand-in",
    r"postgresql://|(s3|gs)://my-bucket|wasbs://": "test_tracking_server.py, test_artifact_stores.py, with emulators",
    r"--ray-workers \d.*(--ray-address|out\.parquet)|--ray-workers 2$": "test_ray.py, test_ray_training.py",
    r"newsbert (pipeline|deploy|rollback) ": "test_pipeline.py, test_deploy.py, test_targets.py",
    r"build-image (?!.*--dry-run)|inspect-image torchserve|serve container|--in-container|mlflow run": "test_image*.py",
    r"inspect-image BertModel/2($| --sbom)": "test_images.py: it is about an image that was built",
    r"mlflow deployments|KEY_FILE=": "test_deployments.py, all five after one another",
    r"train --resume": "test_interrupts.py, after a training that was killed",
    r"export (kubernetes|kserve) BertModel": "test_targets.py, test_kubernetes_manifests.py: an image was pushed",
    r"tracking (grant|revoke) ": "test_accounts.py: what an account may do with what another has made",
    r"--host 0\.0\.0\.0|--auth ": "test_tracking_server.py, test_sockets.py: no test of this file listens to others",
    r"newsbert benchmark BertModel/2$": "test_runtimes.py; all of them take a minute and a half, two are measured here",
    r"^MLFLOW_TRACKING_|^export (MLFLOW_TRACKING_URI=http://127|OTEL_)": "only sets variables",
    r"^curl -O|inspect-image .*--check": "test_advisories.py, with advisories that are here",
    r"^NEWSBERT_TOKEN=": "test_native_server.py: a token that was made before",
    r"mlserver start": "test_model_repository.py, with MLServer in an environment of its own",
}
"""What is not typed here, and why, or which tests do the same."""

WAITS = r"newsbert serve locally(?!.*--detach)|newsbert playground|newsbert tracking up(?!.*--detach)|^mlflow ui"
"""What prints its address and goes on until Ctrl+C."""

BEFORE = {
    r"serve (stop|token)": "newsbert serve locally --detach --token-auth --port 8080",
    r"serve stop --port 41833": "newsbert serve locally --detach --port 41833",
    r"serve locally .*--token-file tokens": "newsbert serve token --token-file tokens --name ci",
    r"tracking (down|status)": "newsbert tracking up --detach",
    r"tracking user": "newsbert tracking up --detach --auth",
    r"tracking backup": "newsbert tracking up --detach && newsbert tracking down",
    r"tracking restore": "newsbert tracking up --detach && newsbert tracking down && newsbert tracking backup {tar}",
    r"--sign KEY\.pem|^openssl ec ": "openssl ecparam -genkey -name prime256v1 -noout -out KEY.pem",
    r"^model_signing ": "openssl ecparam -genkey -name prime256v1 -noout -out KEY.pem && openssl ec -in KEY.pem -pubout"
    " -out KEY.pub && newsbert register bundles/my-model --model-name BertModel --sign KEY.pem"
    " && cp bundles/my-model/newsbert.{{json,sig}} .",
    r"up --directory restored$": "newsbert tracking up --detach --directory restored && newsbert tracking down"
    " --directory restored",
}
"""What a reader of the page has done before."""


def _without_comment(line: str) -> str:
    return re.sub(r"  +#.*$", "", line).rstrip()


LINES = list(dict.fromkeys(_without_comment(line) for page in docs_examples.PAGES for line in docs_examples.of(page)))
HERE = [line for line in LINES if not any(re.search(pattern, line) for pattern in ELSEWHERE)]


def _command(line: str) -> str:
    """Name what a line runs, without its arguments: `newsbert tracking up`."""
    return re.match(r"(newsbert )?(serve |tracking |config )?\S+", line)[0]  # type: ignore[index]


DOCUMENTS = re.findall(
    r"^\| `(newsbert .*?)` \| (.*?)(?:: (.*))? \|$",
    (docs_examples.ROOT / "docs/reference/json-output.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)
"""Lines whose documents are described, the members of these, and more of what is in them."""

FIRST = set({_command(line): line for line in reversed(HERE)}.values()) - {
    line for line in HERE if _command(line) in {_command(typed) for typed, _, _ in DOCUMENTS}
}
"""The first line with any command whose document is not described: the others take as long as many tests together."""


def test_what_is_left_out_is_there() -> None:
    for pattern in ELSEWHERE:
        assert any(re.search(pattern, line) for line in LINES), f"{pattern} leaves nothing out"
    assert len(HERE) > 60


@dataclass(frozen=True)
class Desk:
    """A directory as the pages have it in mind, to be copied.

    Attributes:
        directory: It.
        run: The run that all versions are of.
        url: A server that answers as BertModel/7.
        environment: What makes trainings short.
    """

    directory: Path
    run: str
    url: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def desk(tiny_encoder: Path, programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Seven versions of a tiny model of AG News' labels, rows in the files that the pages name, and a server."""
    directory = tmp_path_factory.mktemp("desk")
    _write_rows(directory)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("NEWSBERT_", "MLFLOW_")) or name == preloaded.VARIABLE
    } | {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "80",
        "NO_COLOR": "1",
        "BROWSER": "true",  # the program, which succeeds and shows nothing
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_PORT": str(free_port()),
        "MLFLOW_WORKERS": "1",
        "NEWSBERT_CACHE_DIR": str(directory / ".cache"),
        "NEWSBERT_STATE_DIR": str(directory / ".state"),
        "NEWSBERT_SERVE_PORT": "0",
        "NEWSBERT_TRACKING_PORT": "0",
        "NEWSBERT_TRACKING_WORKERS": "1",
        "NEWSBERT_TRAIN_BASE_MODEL": str(tiny_encoder),
        "NEWSBERT_TRAIN_MAX_LENGTH": "48",
        "NEWSBERT_TRAIN_MAX_STEPS": "4",
    }

    def run(line: str) -> str:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    trained = json.loads(run("newsbert train --json"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        client = mlflow.MlflowClient("sqlite:///mlflow.db")
        version = newsbert.register(trained["run_id"], "BertModel", alias="champion")
        source = str(client.get_model_version(version.name, version.version).source)
        for _ in range(6):  # the same run again, which newsbert itself does not register twice
            client.create_model_version("BertModel", source, trained["run_id"])
    (directory / "bundles/my-model").symlink_to(directory / "bundles" / trained["run_id"])
    served = json.loads(run("newsbert serve locally --detach --json"))
    yield Desk(directory, trained["run_id"], served["url"], environment)
    run("newsbert serve stop --all")


def _write_rows(directory: Path) -> None:
    rows = load_dataset("sample").test
    labels = rows.labels.tolist()
    numbered = [{"text": text, "label": label} for text, label in zip(rows.texts, labels, strict=True)]
    for name, contents in (
        ("rows.jsonl.gz", numbered),
        ("test.jsonl", numbered),
        ("in.jsonl.gz", [{"text": text} for text in rows.texts]),
        ("news.jsonl", [{"text": text} for text in rows.texts]),
    ):
        opened = gzip.open if name.endswith(".gz") else open
        with opened(directory / name, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in contents)
    for name in ("news.csv", "other.csv", "few.csv"):
        with (directory / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows(zip(rows.texts, (AG_NEWS_LABELS[label] for label in labels), strict=True))
    (directory / "headlines.txt").write_text("".join(f"{text}\n" for text in rows.texts[:5]), encoding="utf-8")


@pytest.mark.parametrize("line", [line if line in FIRST else pytest.param(line, marks=long) for line in HERE])
def test_what_a_page_has_its_reader_type_works(line: str, desk: Desk, tmp_path: Path) -> None:
    shutil.copytree(desk.directory, tmp_path / "desk", symlinks=True, ignore=shutil.ignore_patterns(".state"))
    environment = desk.environment | {"NEWSBERT_STATE_DIR": str(tmp_path / "state")}
    ports = {"8080": free_port(), "41833": free_port(), "8082": free_port()}

    def typed(text: str) -> str:
        """What stands for something of the reader's own replaced by that."""
        for url in ("http://127.0.0.1:8080", "http://127.0.0.1:41833"):
            text = text.replace(url, desk.url)
        for port, free in ports.items():
            text = re.sub(rf"(port )\b{port}\b", rf"\g<1>{free}", text)
        return re.sub(r"\b3a3273c1\w*|\bRUN_ID\b", desk.run, text)

    def run(text: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", typed(text)],
            cwd=tmp_path / "desk", env=environment, capture_output=True, text=True, encoding="utf-8", timeout=300,
            check=False,
        )  # fmt: skip

    try:
        for pattern, before in BEFORE.items():
            if re.search(pattern, line):
                tar = re.search(r"\S+\.tar", line)
                ready = run(before.format(tar=tar and tar[0]))
                assert ready.returncode == 0, ready.stderr
        if re.search(WAITS, line):
            _runs_until_interrupted(typed(line), tmp_path / "desk", environment)
            return
        done = run(line)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert "Warning" not in done.stderr
    finally:
        if re.search(r"newsbert (serve|tracking)", line):
            run("newsbert serve stop --all; newsbert tracking down; newsbert tracking down --directory restored")


def _runs_until_interrupted(line: str, directory: Path, environment: dict[str, str]) -> None:
    """It prints an address, answers there, and ends with 0 after Ctrl+C."""
    log = directory.parent / "log"
    with log.open("w") as written:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line}"],
            cwd=directory, env=environment, stdout=written, stderr=written, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not _answers(log.read_text(encoding="utf-8")):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.2)
    finally:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: to all that the line has started
        code = process.wait(120)
    assert code == 0, log.read_text(encoding="utf-8")


def _answers(printed: str) -> bool:
    """Whether an address was printed, and something answers there, be it that this needs a token."""
    address = re.search(r"https?://127\.0\.0\.1:\d+", printed)
    try:
        return address is not None and bool(urllib.request.urlopen(address[0], timeout=60).status)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def test_documents_have_the_members_that_are_documented(desk: Desk, tmp_path: Path) -> None:
    """Those of the document, and of what it lists or has by name, where a row says "each with"."""
    shutil.copytree(desk.directory, tmp_path / "desk", symlinks=True, ignore=shutil.ignore_patterns(".state"))
    environment = desk.environment | {"NEWSBERT_STATE_DIR": str(tmp_path / "state")}
    assert len(DOCUMENTS) > 20
    try:
        for line, members, more in DOCUMENTS:
            done = subprocess.run(
                ["bash", "-c", f"{line} --json"],
                cwd=tmp_path / "desk", env=environment, capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
            assert done.returncode == 0, (line, done.stderr)
            document = json.loads(done.stdout)
            assert list(document) == re.findall(r"`(\w+)`", members), line
            if more.startswith("each with"):
                listed = document[list(document)[-1]]
                first = listed[0] if isinstance(listed, list) else next(iter(listed.values()))
                assert set(re.findall(r"`(\w+)`", more)) <= set(first), line
    finally:
        subprocess.run(
            ["bash", "-c", "newsbert serve stop --all; newsbert tracking down"],
            cwd=tmp_path / "desk", env=environment, capture_output=True, check=False,
        )  # fmt: skip
