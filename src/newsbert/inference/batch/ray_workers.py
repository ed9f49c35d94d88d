"""Inference on a file's windows in several processes, on one machine or many, through Ray Data.

One process on this node reads the file, the workers classify its windows, and this process receives the results in
order. Ray restarts a process that dies, and sends it the same windows again: reading a file twice yields the same ones.
"""

import contextlib
import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any

from newsbert.bundle.bundle import Bundle
from newsbert.bundle.golden import check_answers
from newsbert.core import ray_cluster, temporary
from newsbert.core.ray_cluster import RayCluster
from newsbert.core.settings import RaySettings, ServeSettings
from newsbert.core.version import __version__
from newsbert.errors import ModelError, NewsbertError, first_line
from newsbert.inference.batch.predictor import CHUNK_ITEMS, Answer, TextColumns, answer
from newsbert.inference.batch.readers import Source, Window
from newsbert.inference.model import Model
from newsbert.inference.runtime import resolve_runtime

_MIN_ROWS = 64
_MAX_TRIES = 4
"""Maximum number of times that workers may die over the same rows."""

_MAX_STORE_BYTES = 256 << 20
"""Memory in Ray's object store for data that waits for a worker, or for this process."""


class Workers:
    """A model in worker processes.

    Args:
        bundle: The model, verified.
        name: Name of the model.
        settings: Settings, as `started` takes them.
        cluster: Cluster that runs the workers.
    """

    def __init__(self, bundle: Bundle, name: str, settings: ServeSettings, cluster: RayCluster) -> None:
        threshold = settings.review_threshold
        self.bundle = bundle
        self.name = name
        self.runtime = resolve_runtime(bundle, settings.runtime)
        self.review_threshold = bundle.contract.review_threshold if threshold is None else threshold
        self._cascade = settings.cascade
        self._cluster = cluster

    def answered(self, source: Source, skip: int, text_columns: TextColumns) -> Iterator[tuple[Window, list[Answer]]]:
        """Yield the windows after the first `skip` rows of a file with their predictions, in order.

        They may be smaller than the source's own, so that every worker has some.

        Raises:
            NewsbertError: If the file cannot be read, or a worker cannot load the model.
        """
        import ray

        in_flight = 2 * self._cluster.workers
        rows = min(CHUNK_ITEMS, max(_MIN_ROWS, -(-source.total // (2 * in_flight))))
        context = ray.data.DataContext.get_current().copy()
        context.execution_options.preserve_order = True
        context.execution_options.resource_limits = ray.data.ExecutionResources.for_limits(
            object_store_memory=_MAX_STORE_BYTES
        )
        context.enable_progress_bars = False
        context.target_max_block_size = 1  # every row, which is a window, goes to a worker by itself
        files = {file: (self.bundle.path / file).read_bytes() for file in self.bundle.names(self.runtime)}
        model_actor = self._cluster.beside(_ModelActor).remote([ray.put(files)])
        try:
            with ray.data.DataContext.current(context):
                blocks = (
                    ray.data.from_items([0])
                    .map_batches(
                        _read,
                        fn_kwargs={"source": source, "directory": os.getcwd(), "skip": skip, "rows": rows},  # noqa: PTH109
                        batch_format="pyarrow",
                        num_cpus=0,
                        label_selector=self._cluster.here,
                    )
                    .map_batches(
                        _Worker,
                        fn_constructor_kwargs={
                            "keeper": model_actor,
                            "digest": self.bundle.digest,
                            "runtime": self.runtime,
                            "review_threshold": self.review_threshold,
                            "cascade": self._cascade,
                            "threads": self._cluster.worker_cores,
                            "text_columns": text_columns,
                        },
                        batch_size=1,
                        batch_format="pyarrow",
                        compute=ray.data.ActorPoolStrategy(size=self._cluster.workers),
                        num_cpus=self._cluster.worker_cores,
                    )
                    .iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
                )
                for block in blocks:
                    for _, content in _unpack(block):
                        if isinstance(content, NewsbertError):
                            raise content
                        yield content
        except ray.exceptions.RayTaskError:  # a bug in this package, with its traceback
            raise
        except ray.exceptions.RayError as error:
            raise NewsbertError(f"Ray gave up: {first_line(error)}", "the same command goes on from there") from error


@contextlib.contextmanager
def started(
    bundle: Bundle, name: str, settings: ServeSettings, shared: RaySettings, on_note: Callable[[str], None]
) -> Iterator[Workers]:
    """Connect to Ray for as long as a model's workers are needed.

    Args:
        bundle: The model, verified.
        name: Name of the model.
        settings: Runtime of the model, and the score below which a person should review a prediction. All workers use
            the runtime that `resolve_runtime` chooses here.
        shared: Number of workers, and their location.
        on_note: Called with notes for the user.

    Raises:
        NewsbertError: As `resolve_runtime` and `ray_cluster.connected` raise it.
    """
    resolve_runtime(bundle, settings.runtime)  # reports an impossible runtime before Ray is started
    with ray_cluster.connected(shared, on_note) as cluster:
        yield Workers(bundle, name, settings, cluster)


class _ModelActor:
    """Actor with the model's files and the number of attempts per window, which a dead worker cannot report.

    Args:
        files: A list with the reference to the files; Ray would replace a bare reference with the files.
    """

    def __init__(self, files: list[Any]) -> None:
        self._files = files
        self._begun: dict[int, int] = {}

    def files(self) -> list[Any]:
        return self._files

    def begin(self, place: int) -> int:
        self._begun[place] = self._begun.get(place, 0) + 1
        return self._begun[place]


def _read(_: Any, source: Source, directory: str, skip: int, rows: int) -> Iterator[Any]:
    """Yield the windows of a file as blocks of one row, none with more than `rows` rows of the file."""
    with contextlib.chdir(directory):
        place = skip
        try:
            for window in source.windows(skip):
                for start in range(0, len(window.records), rows):
                    records = window.records[start : start + rows]
                    table = None if window.table is None else window.table.slice(start, rows)
                    yield _pack(place, Window(records, table))
                    place += len(records)
        except NewsbertError as error:
            yield _pack(place, error)


class _Worker:
    """Worker that classifies windows. It returns an error that a user can fix in place of the predictions.

    Args:
        keeper: Actor with the model's files.
        digest: Digest of the bundle.
        runtime: Runtime that computes the predictions.
        review_threshold: Score below which a person should review a prediction.
        cascade: Whether the companion answers texts alone; see `resolve_cascade`.
        threads: Number of cores.
        text_columns: Columns of title (if any) and text.
    """

    def __init__(
        self,
        keeper: Any,
        digest: str,
        runtime: str,
        review_threshold: float,
        cascade: str,
        threads: int,
        text_columns: TextColumns,
    ) -> None:
        self._keeper = keeper
        self._digest = digest
        self._runtime = runtime
        self._review_threshold, self._cascade = review_threshold, cascade
        self._threads = threads
        self._text_columns = text_columns
        self._model: Model | None = None

    def __call__(self, block: Any) -> Any:
        ((place, content),) = _unpack(block)
        return _pack(place, content if isinstance(content, NewsbertError) else self._answer(place, content))

    def _answer(self, place: int, window: Window) -> tuple[Window, list[Answer]] | NewsbertError:
        import ray

        if ray.get(self._keeper.begin.remote(place)) > _MAX_TRIES:
            last = place + len(window.records)
            return NewsbertError(
                f"workers died {_MAX_TRIES} times over the rows {place + 1} to {last}",
                "see whether their memory suffices",
            )
        try:
            self._model = self._model or self._load()
            return window, answer(self._model, window, self._text_columns, 1, lambda _: None)
        except NewsbertError as error:
            return error

    def _load(self) -> Model:
        """Load the model that this process received, and check its digest and its golden answers.

        Raises:
            ModelError: If it is another model, or its answers differ here.
        """
        import ray

        (reference,) = ray.get(self._keeper.files.remote())
        with temporary.directory() as path:
            files: dict[str, bytes] = ray.get(reference)
            for name, content in files.items():
                (path / name).write_bytes(content)
            # The signature was checked where the workers are started: a worker elsewhere has the digest, but no keys.
            bundle = Bundle.read_unsigned(path)
            if bundle.digest != self._digest:
                raise ModelError(
                    f"a worker has got the bundle {bundle.digest[:12]} instead of {self._digest[:12]}", "try again"
                )
            bundle.verify(tuple(files))
            model = Model(
                bundle,
                runtime=self._runtime,
                threads=self._threads,
                review_threshold=self._review_threshold,
                cascade=self._cascade,
            )
        check_answers(bundle.contract, self._runtime, model.predict([golden.item for golden in bundle.contract.golden]))
        return model


def _pack(place: int, content: object) -> Any:
    """Return a block of one row: the place in the file and the content, pickled for this package's processes only."""
    import pyarrow as pa

    packed = pickle.dumps((__version__, content))
    return pa.table({"place": [place], "content": pa.array([packed], pa.large_binary())})


def _unpack(block: Any) -> Iterator[tuple[int, Any]]:
    for place, packed in zip(block["place"].to_pylist(), block["content"].to_pylist(), strict=True):
        version, content = pickle.loads(packed)  # noqa: S301 - from this package's own processes
        if version != __version__:
            content = NewsbertError(
                f"a worker has newsbert {__version__}, not {version}", "install the same everywhere"
            )
        yield place, content
