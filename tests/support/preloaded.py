"""`newsbert` without the time that its imports take: a process that has made them forks for every command.

    python -m tests.support.preloaded SOCKET          the process
    python tests/support/preloaded.py ARGUMENTS…      a command; the socket is in NEWSBERT_TEST_PRELOADED

A command has its own working directory, environment, umask, standard streams and exit code, gets SIGINT and SIGTERM,
and dies with the process that started it. Python in NEWSBERT_TEST_BEFORE is run before it, to pause it or to limit what
it may use. What a command imports, tests of that start it as users do.
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

MODULES = (
    "matplotlib.pyplot", "mlflow.pyfunc", "mlflow.pytorch", "mlflow.store.tracking.sqlalchemy_store",
    "newsbert.api.models", "newsbert.cli.app", "onnxruntime", "onnxscript", "sklearn.linear_model", "torch._dynamo",
    "torch.export", "torch.onnx._internal.exporter._core", "transformers",
)  # fmt: skip
VARIABLE = "NEWSBERT_TEST_PRELOADED"
BEFORE = "NEWSBERT_TEST_BEFORE"
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
"""What libraries read when they are imported, as all tests have it."""


def _serve(path: str) -> NoReturn:
    """Import, then fork for every connection."""
    import importlib

    warm = False
    os.environ |= ENVIRONMENT
    for module in MODULES:
        importlib.import_module(module)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system reaps them: this process does not wait for its children
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:  # closed: the process that started this has ended
            sys.exit()
        connection, _ = listener.accept()
        _, streams, _, _ = socket.recv_fds(connection, 1, 3)
        line = connection.makefile().readline()
        if line:  # or it was killed before it could write one
            request = json.loads(line)
            if request["arguments"][:1] == ["train"] and not warm:  # a suite without trainings need not wait for it
                _train()
                warm = True
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                _keep(connection, streams, request)
        for stream in streams:
            os.close(stream)
        connection.close()


def _train() -> None:
    """Train once, so that commands that train load and compute less: PyTorch, MLflow and ONNX, half of their time."""
    import tempfile

    import torch

    import newsbert
    from tests.support import encoders

    texts = [f"{word} {number}" for number in range(20) for word in ("goal", "stocks")]
    directory, num_threads = Path.cwd(), torch.get_num_threads()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads would be missed, with a warning
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        os.environ |= {"NEWSBERT_CACHE_DIR": f"{place}/cache", "NEWSBERT_STATE_DIR": f"{place}/state"}
        os.chdir(place)  # MLflow puts artifacts there
        rows = "".join(f"{text},{text.split()[0]}\n" for text in texts)
        Path("rows.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
        base = encoders.make("bert", Path("encoder"), texts)
        newsbert.train(
            data="rows.csv",
            base_model=str(base),
            max_steps=4,
            max_length=16,
            tracking_uri=f"sqlite:///{place}/mlflow.db",
        )
        os.chdir(directory)
    sys.modules["mlflow"].set_tracking_uri(None)
    torch.set_num_threads(num_threads)


def _keep(connection: socket.socket, streams: list[int], request: dict[str, Any]) -> NoReturn:
    """Start a command and report its end; kill it when the client has gone."""
    pid = os.fork()
    if pid == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        _run(request)
    for stream in streams:
        os.close(stream)
    connection.sendall(b"%d\n" % pid)
    command = os.pidfd_open(pid)
    ready, _, _ = select.select([command, connection.fileno()], [], [])
    if command not in ready:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        connection.sendall(b"%d\n" % status)
    os._exit(0)


def _run(request: dict[str, Any]) -> NoReturn:
    """In the child: be a Python that was just started, but for its imports."""
    import atexit
    import tempfile
    import threading
    import traceback

    from newsbert.cli.app import main

    os.environ.clear()
    os.environ.update(request["environment"])
    before = os.environ.pop(BEFORE, "")
    os.chdir(request["directory"])
    os.umask(request["umask"])
    tempfile.tempdir = None  # an import may have set it
    sys.argv = ["newsbert", *request["arguments"]]
    sys.path[:] = [entry for entry in sys.path if entry]
    sys.stdin = os.fdopen(0, "r", encoding="utf-8", errors="surrogateescape")
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="surrogateescape")
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)
    streams = (sys.stdin, sys.stdout, sys.stderr)  # `main` puts others in their place, with which they would be closed
    code: object = 1
    try:
        exec(before, {})
        main()
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    vars(threading)["_shutdown"]()  # what Python does when it ends; the module does not offer it to others
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr, *streams[1:]):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _command() -> NoReturn:
    """Have a command run with the streams of this process, and end as it does."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ[VARIABLE])
    socket.send_fds(connection, [b" "], [0, 1, 2])
    umask = os.umask(0)
    os.umask(umask)
    request = {
        "arguments": sys.argv[1:], "directory": str(Path.cwd()), "environment": dict(os.environ), "umask": umask,
    }  # fmt: skip
    connection.sendall(json.dumps(request).encode() + b"\n")
    answers = connection.makefile()
    pid = int(answers.readline())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    status = int(answers.readline())
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    if VARIABLE in os.environ:
        _command()
    _serve(sys.argv[1])
