"""Files that several workers answer through Ray: the same as one process, whatever dies, also from and to S3."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from newsbert.bundle.bundle import Bundle
from newsbert.core import installation
from newsbert.data import readers
from tests.support import processes
from tests.support.cli import Cli, long

pytest.importorskip("ray", reason="needs newsbert[ray]")
pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")

WORDS = ("stocks", "market", "goal", "team", "cup", "minister", "border", "vote")


def write(file: Path, count: int) -> Path:
    """Rows of many lengths; one without text, and one that is none."""
    lines = []
    for number in range(count):
        words = [WORDS[number * step % len(WORDS)] for step in range(1, 2 + number % 23)]
        lines.append(json.dumps({"id": number, "text": " ".join([*words, str(number)])}))
    lines[3] = '{"id": 3, "text": " "}'
    lines[5] = "no JSON"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def assert_same(one: Path, other: Path) -> None:
    """The same rows with the same labels in the same order, scores within 0.001, and the same rejected rows."""
    left, right = readers.read(one), readers.read(other)
    for column in ("id", "text", "label", "review"):
        assert [row[column] for row in left] == [row[column] for row in right]
    pairs = [(a["score"], b["score"]) for a, b in zip(left, right, strict=True) if a["score"] or b["score"]]
    assert len(pairs) == len(left) - 1
    assert all(abs(float(a) - float(b)) <= 1e-3 for a, b in pairs)
    rejected = [file.with_name(f"{file.name}.rejected.jsonl").read_text() for file in (one, other)]
    assert rejected[0] == rejected[1]
    assert [json.loads(line)["row"] for line in rejected[0].splitlines()] == [4, 6]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path | None]]:
    """An S3 server with the bucket `bucket`; the fixture fetches a key, or None where there is nothing."""
    moto = pytest.importorskip("moto.server", reason="needs moto")
    import boto3
    from botocore.exceptions import ClientError

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")

    def exchange(key: str, file: Path | None = None) -> Path | None:
        if file is not None:
            client.upload_file(str(file), "bucket", key)
            return None
        target = Path("fetched") / key
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            client.download_file("bucket", key, str(target))
        except ClientError:
            return None
        return target

    yield exchange
    client.close()
    server.stop()


def test_two_workers_answer_as_one_process_does_from_s3_to_s3(
    bundle: Bundle, cli: Cli, s3: Callable[..., Path | None], tmp_path: Path
) -> None:
    file = write(tmp_path / "in.jsonl", 700)
    s3("rows of today/in.jsonl", file)
    review = ("--review-threshold", "0.9")
    alone = cli("predict", "--model", bundle.path, "--file", file, "--output", "out.parquet", "--json", *review)
    assert alone.returncode == 0, alone.stderr
    address = "s3://bucket/out/out.parquet"
    shared = cli(
        *("predict", "--model", bundle.path, "--file", "s3://bucket/rows of today/in.jsonl"),
        *("--output", address, "--ray-workers", "2", "--json", *review),
    )
    assert shared.returncode == 0, shared.stderr
    expected = json.loads(alone.stdout) | {"output": address, "rejected": f"{address}.rejected.jsonl"}
    assert json.loads(shared.stdout) == expected
    lines = [line for line in shared.stderr.splitlines() if not line.startswith(("rows ", "Note: 1 rows "))]
    assert lines == [
        "fetching s3://bucket/rows of today/in.jsonl …",
        "starting 2 workers …",
        "reading in.jsonl …",
        f"storing {address} …",
    ]
    fetched, side = s3("out/out.parquet"), s3("out/out.parquet.rejected.jsonl")
    assert fetched is not None
    assert side is not None
    assert_same(Path("out.parquet"), fetched)
    assert not list((tmp_path / ".cache").glob("predict/*"))


@pytest.mark.parametrize("workers", [(), ("--ray-workers", "2")])
def test_a_bucket_or_key_that_is_not_there_is_an_error_at_once(
    workers: tuple[str, ...], bundle: Bundle, cli: Cli, s3: Callable[..., Path | None]
) -> None:
    for file, output, message in (
        ("s3://bucket/none.csv", "out.csv", "no such file: 's3://bucket/none.csv'"),
        ("s3://bucket/none.csv", "s3://other/out.csv", "no such bucket: 'other' of 's3://other/out.csv'"),
        ("ftp://bucket/in.csv", "out.csv", "'ftp://bucket/in.csv' cannot be used"),
        ("s3://bucket", "out.csv", "'s3://bucket' is of no known format"),
    ):
        result = cli("predict", "--model", bundle.path, "--file", file, "--output", output, *workers)
        assert (result.returncode, result.stdout) == (2, "")
        assert f"Error: {message}" in result.stderr
        assert "Ray" not in result.stderr


def test_s3_does_without_workers_and_takes_rejected_rows_of_an_earlier_output_away(
    bundle: Bundle, cli: Cli, s3: Callable[..., Path | None], tmp_path: Path
) -> None:
    s3("in.csv", write(tmp_path / "in.jsonl", 20))
    (tmp_path / "in.csv").write_text("text\none\ntwo\n")
    s3("in.csv", tmp_path / "in.csv")
    s3("out.csv.rejected.jsonl", tmp_path / "in.csv")
    result = cli("predict", "--model", bundle.path, "--file", "s3://bucket/in.csv", "--output", "s3://bucket/out.csv")
    assert result.returncode == 0, result.stderr
    assert s3("out.csv.rejected.jsonl") is None
    fetched = s3("out.csv")
    assert fetched is not None
    assert [row["text"] for row in readers.read(fetched)] == ["one", "two"]


@long
def test_a_killed_worker_is_replaced_and_a_killed_run_goes_on(bundle: Bundle, cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", 60_000)
    assert cli("predict", "--model", bundle.path, "--file", file, "--output", "alone.jsonl").returncode == 0
    call = ["predict", "--model", str(bundle.path), "--file", str(file), "--output", "out.jsonl", "--ray-workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "newsbert", *call],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    note = tmp_path / ".out.jsonl.partial" / "progress.json"

    def wait_for(records: int) -> int:
        while process.poll() is None:
            done = json.loads(note.read_text())["state"]["records"] if note.exists() else 0
            if done >= records:
                return int(done)
            time.sleep(0.02)
        raise AssertionError(process.communicate()[1])

    try:
        done = wait_for(1)
        children = processes.children(process.pid)
        processes.with_command("_Worker", children)[0].kill()
        # Windows come in order: so far it comes only if what the victim had in hand was done again.
        done = wait_for(done + 24_000)
        assert done < 60_000
        process.send_signal(signal.SIGKILL)
        process.wait()
    finally:
        process.kill()
        stdout, stderr = process.communicate()
    assert stdout == ""  # Ray would report the dead worker there
    assert [line for line in stderr.splitlines() if not line.startswith("rows ")] == [
        "starting 2 workers …",
        "reading in.jsonl …",
    ]
    result = cli(*call)
    assert result.returncode == 0, result.stderr
    assert "of 60000 rows are done already" in result.stderr
    assert_same(tmp_path / "alone.jsonl", tmp_path / "out.jsonl")
    _, alive = psutil.wait_procs(children, timeout=200)
    assert not alive  # the cluster goes with its driver


def test_a_cluster_that_is_not_there_is_an_error_in_seconds(bundle: Bundle, cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", 20)
    call = ("predict", "--model", bundle.path, "--file", file, "--output", "out.csv", "--ray-workers", "2")
    with socket.create_server(("127.0.0.1", 0)) as mute, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for listener, reason in ((closed, "Connection refused"), (mute, "timed out")):
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            result = cli(*call, "--ray-address", address, timeout_s=60)
            assert result.returncode == 1
            assert f"Error: no Ray cluster at '{address}': {reason}" in result.stderr
            assert "Hint: ray start --head" in result.stderr
    assert not (tmp_path / "out.csv").exists()


def test_wrong_calls_are_errors(bundle: Bundle, cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", 20)
    with_file = ("predict", "--model", bundle.path, "--file", file, "--output", "out.csv")
    for call, message, hint in (
        ((*with_file, "--ray-workers", "999"), "999 workers need as many cores", "--ray-address"),
        ((*with_file, "--ray-workers", "0"), "the option --ray-workers: 0 cannot be", "1 or more"),
        ((*with_file, "--ray-address", "auto"), "--ray-address goes with --ray-workers", "--ray-workers 2"),
        (
            (*with_file, "--ray-workers", "2", "--ray-address", "ray://x:1"),
            "'ray://x:1' is no address",
            "ray job submit",
        ),
        (("predict", "--ray-workers", "2", "some text"), "--ray-workers is for --file", "newsbert predict --help"),
    ):
        result = cli(*call)
        assert (result.returncode, result.stdout) == (2, "")
        assert message in result.stderr
        assert hint in result.stderr


def test_without_ray_its_extra_is_named(bundle: Bundle, tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", 20)
    program = "import sys; sys.modules['ray'] = None; from newsbert.cli import app; app.main()"
    call = ["predict", "--model", str(bundle.path), "--file", str(file), "--output", "out.csv"]
    command = [sys.executable, "-c", program, *call]
    result = subprocess.run([*command, "--ray-workers", "2"], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert installation.command("ray") in result.stderr
    assert subprocess.run([*command, "--ray-workers", "1"], capture_output=True, check=False).returncode == 0
