"""A worker of the native server: one process with an event loop and a thread for every core.

`python -m newsbert.serving.native.worker OPTIONS_FILE SOCKET` serves on a socket that its supervisor has bound. It
writes one JSON object per line to its output: that it is ready, that it lives, and problems.
"""

import asyncio
import collections
import contextlib
import gc
import json
import logging
import os
import resource
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import uvloop
from uvicorn.server import ServerState

from newsbert.core import environment
from newsbert.errors import ModelError, NewsbertError
from newsbert.serving.metrics import Metrics
from newsbert.serving.native.acceptor import Acceptor
from newsbert.serving.native.application import Application
from newsbert.serving.native.certificate import Certificate
from newsbert.serving.native.http_protocol import ConnectionLimits, LimitedProtocol, make_config
from newsbert.serving.native.service import PredictionService
from newsbert.serving.native.tokens import Authenticator
from newsbert.serving.native.tracing import Tracer
from newsbert.serving.native.worker_options import WorkerOptions
from newsbert.serving.served_model import ServedModel

HEARTBEAT_S = 1.0
"""Interval of the lines that say that the worker lives."""

_FILES_BESIDE_CONNECTIONS = 128


class _EventHandler(logging.Handler):
    """A handler that writes a problem as an event for the supervisor."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        details: dict[str, object] = {}
        message = record.getMessage()
        event = "server"
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            event, message = message, f"{type(error).__name__}: {error}"
            details["traceback"] = "".join(traceback.format_exception(error))
        if trace_id := getattr(record, "trace_id", None):
            details["trace_id"] = trace_id
        _send({"event": event, "message": message, "level": record.levelname, "details": details})


def main(options_file: str, descriptor: str) -> int:
    """Serve until SIGTERM, and answer then what was sent.

    Args:
        options_file: JSON file of the options.
        descriptor: File descriptor of the socket to listen on.
    """
    options = WorkerOptions(**json.loads(Path(options_file).read_text(encoding="utf-8")))
    logging.basicConfig(level=logging.WARNING, handlers=[_EventHandler()])
    _raise_file_limit(options.max_connections)
    # Its own threads would take the cores from the model.
    environment.tokenize_in_calling_thread()
    try:
        model = ServedModel(
            Path(options.bundle),
            options.name,
            options.runtime,
            options.threads,
            options.review_threshold,
            cascade=options.cascade,
        )
        if model.digest != options.digest:
            raise ModelError(f"the model in {options.bundle} is another one now", "start the server again")
        authenticator = Authenticator(Path(options.token_file)) if options.token_file else None
        certificate = None
        if options.tls_cert and options.tls_key:
            certificate = Certificate(Path(options.tls_cert), Path(options.tls_key))
        tracer = Tracer(model.name) if environment.exports_traces() else None
    except NewsbertError as error:
        _send({"failed": error.document()})
        return 1
    listener = socket.socket(fileno=int(descriptor))
    uvloop.run(_serve(options, model, authenticator, certificate, tracer, listener))
    return 0


async def _serve(
    options: WorkerOptions,
    model: ServedModel,
    authenticator: Authenticator | None,
    certificate: Certificate | None,
    tracer: Tracer | None,
    listener: socket.socket,
) -> None:
    metrics = Metrics(Path(options.metrics_dir), model.name, model.labels, has_queue=True)
    service = PredictionService(model, metrics, options.queue_size)
    application = Application(service, authenticator, options.cors_origin, tracer)
    config, state = make_config(application), ServerState()
    limits = ConnectionLimits(
        options.max_connections, options.header_timeout_s, options.body_timeout_s, options.keep_alive_s
    )
    idle: collections.OrderedDict[LimitedProtocol, None] = collections.OrderedDict()
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    gc.collect()
    gc.freeze()  # what the model has loaded stays; without it, every collection looks at all of that
    acceptor = Acceptor(
        listener, lambda: LimitedProtocol(config, state, limits, idle), certificate, options.header_timeout_s
    )
    rpc_service, rpc_server = None, None
    if options.grpc_address is not None:
        from newsbert.serving.native import grpc_service

        rpc_service = grpc_service.InferenceService(service, authenticator, tracer)
        rpc_server = await grpc_service.start(rpc_service, options.grpc_address, certificate, options.queue_size)
    _send({"ready": True})
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), HEARTBEAT_S)
        if service.scheduler.stalled_s > options.unresponsive_timeout_s:
            _send({"event": "unresponsive", "message": "no batch ends", "level": "ERROR", "details": {}})
            os._exit(1)  # threads that hang would keep an orderly exit waiting
        if certificate is not None:
            certificate.reload()
        _send({"alive": True})
    application.closing = True
    if rpc_service is not None and rpc_server is not None:
        rpc_service.closing = True
        rpc_stop = asyncio.ensure_future(rpc_server.stop(options.drain_s))
    await acceptor.close()
    for connection in list(state.connections):
        connection.shutdown()
    deadline = loop.time() + options.drain_s
    while state.connections and loop.time() < deadline:
        await asyncio.sleep(0.02)
    if rpc_server is not None:
        await rpc_stop
    service.scheduler.close()
    if tracer is not None:
        tracer.close()


def _raise_file_limit(max_connections: int) -> None:
    """Allow as many open files as connections need, if the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_connections + _FILES_BESIDE_CONNECTIONS
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def _send(message: dict[str, Any]) -> None:
    """Write a message for the supervisor."""
    with contextlib.suppress(OSError):  # the supervisor has ended
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
