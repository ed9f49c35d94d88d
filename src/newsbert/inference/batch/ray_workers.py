"""Answering a file's windows in several processes, on one machine or many, through Ray Data.

One process on this node reads the file, the workers answer what it read, and this process gets it in order. What dies
is started again by Ray and given again what it had: the same windows, since reading a file twice gives the same ones.
"""

import contextlib
import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any

from newsbert.bundle.bundle import Bundle, files_of
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

_LEAST_ROWS = 64
_TRIES = 4
"""How often a worker may die over the same rows."""

_AHEAD_BYTES = 256 << 20
"""What may wait in Ray's store for a worker, or for this process."""


class Workers:
    """A model in worker processes.

    Args:
        bundle: The model, verified.
        name: What it is called.
        settings: As `started` takes them.
        cluster: Where the workers run.
    """

    def __init__(self, bundle: Bundle, name: str, settings: ServeSettings, cluster: RayCluster) -> None:
        given = settings.review_below
        self.bundle = bundle
        self.name = name
        self.runtime = resolve_runtime(bundle, settings.runtime)
        self.review_below = bundle.contract.review_below if given is None else given
        self._cluster = cluster

    def answered(self, source: Source, skip: int, text_columns: TextColumns) -> Iterator[tuple[Window, list[Answer]]]:
        """Yield the windows behind the first `skip` rows of a file with their answers, in order.

        They may be smaller than the source's own, so that every worker has some.

        Raises:
            NewsbertError: If the file cannot be read, or a worker cannot load the model.
        """
        import ray

        ahead = 2 * self._cluster.workers
        rows = min(CHUNK_ITEMS, max(_LEAST_ROWS, -(-source.total // (2 * ahead))))
        context = ray.data.DataContext.get_current().copy()
        context.execution_options.preserve_order = True
        context.execution_options.resource_limits = ray.data.ExecutionResources.for_limits(
            object_store_memory=_AHEAD_BYTES
        )
        context.enable_progress_bars = False
        context.target_max_block_size = 1  # each row, which is a window, goes to a worker by itself
        files = {file: (self.bundle.path / file).read_bytes() for file in files_of(self.runtime)}
        keeper = self._cluster.beside(_ModelActor).remote([ray.put(files)])
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
                            "keeper": keeper,
                            "digest": self.bundle.digest,
                            "runtime": self.runtime,
                            "review_below": self.review_below,
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
                    for _, content in _unpacked(block):
                        if isinstance(content, NewsbertError):
                            raise content
                        yield content
        except ray.exceptions.RayTaskError:  # a bug of ours, with its traceback
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
        name: What it is called.
        settings: Its runtime, and the score below which a person has to see an answer. What `runtimes.chosen` chooses
            here is what all workers use.
        shared: How many workers, and where.
        on_note: Called with what the user should know.

    Raises:
        NewsbertError: As `runtimes.chosen` and `ray_cluster.connected` raise it.
    """
    resolve_runtime(bundle, settings.runtime)  # what cannot be is told before Ray is started
    with ray_cluster.connected(shared, on_note) as cluster:
        yield Workers(bundle, name, settings, cluster)


class _ModelActor:
    """What workers ask for: the model's files, and how often rows were begun, which a worker that died cannot tell.

    Args:
        files: A list of the reference to them, which Ray would otherwise replace with the files.
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
    """Yield the windows of a file as blocks of one row, none of more than `rows` rows of the file."""
    with contextlib.chdir(directory):
        place = skip
        try:
            for window in source.windows(skip):
                for start in range(0, len(window.records), rows):
                    records = window.records[start : start + rows]
                    table = None if window.table is None else window.table.slice(start, rows)
                    yield _packed(place, Window(records, table))
                    place += len(records)
        except NewsbertError as error:
            yield _packed(place, error)


class _Worker:
    """Answers windows; an error that a user can act on goes the way of the answers.

    Args:
        keeper: Has the model's files.
        digest: The bundle's.
        runtime: What computes the answers.
        review_below: The score below which a person has to see an answer.
        threads: Cores to use.
        text_columns: Where title (if any) and text are.
    """

    def __init__(
        self,
        keeper: Any,
        digest: str,
        runtime: str,
        review_below: float,
        threads: int,
        text_columns: TextColumns,
    ) -> None:
        self._keeper = keeper
        self._digest = digest
        self._runtime = runtime
        self._review_below = review_below
        self._threads = threads
        self._text_columns = text_columns
        self._model: Model | None = None

    def __call__(self, block: Any) -> Any:
        ((place, content),) = _unpacked(block)
        return _packed(place, content if isinstance(content, NewsbertError) else self._answered(place, content))

    def _answered(self, place: int, window: Window) -> tuple[Window, list[Answer]] | NewsbertError:
        import ray

        if ray.get(self._keeper.begin.remote(place)) > _TRIES:
            last = place + len(window.records)
            return NewsbertError(
                f"workers died {_TRIES} times over the rows {place + 1} to {last}", "see whether their memory suffices"
            )
        try:
            self._model = self._model or self._load()
            return window, answer(self._model, window, self._text_columns, 1, lambda _: None)
        except NewsbertError as error:
            return error

    def _load(self) -> Model:
        """Load the model that this process was sent, and see that it is the same and answers the same here.

        Raises:
            ModelError: If it is not, or does not.
        """
        import ray

        (reference,) = ray.get(self._keeper.files.remote())
        with temporary.directory() as path:
            files: dict[str, bytes] = ray.get(reference)
            for name, content in files.items():
                (path / name).write_bytes(content)
            # Who signed it was checked where the workers are started: a worker elsewhere has no keys, but the digest.
            bundle = Bundle.read_unsigned(path)
            if bundle.digest != self._digest:
                raise ModelError(
                    f"a worker has got the bundle {bundle.digest[:12]} instead of {self._digest[:12]}", "try again"
                )
            bundle.verify(tuple(files))
            model = Model(bundle, runtime=self._runtime, threads=self._threads, review_below=self._review_below)
        check_answers(bundle.contract, self._runtime, model.predict([golden.item for golden in bundle.contract.golden]))
        return model


def _packed(place: int, content: object) -> Any:
    """A block of one row: where in the file it is, and its content, whose types are between us and us alone."""
    import pyarrow as pa

    packed = pickle.dumps((__version__, content))
    return pa.table({"place": [place], "content": pa.array([packed], pa.large_binary())})


def _unpacked(block: Any) -> Iterator[tuple[int, Any]]:
    for place, packed in zip(block["place"].to_pylist(), block["content"].to_pylist(), strict=True):
        version, content = pickle.loads(packed)  # noqa: S301 - of our own processes
        if version != __version__:
            content = NewsbertError(
                f"a worker has newsbert {__version__}, not {version}", "install the same everywhere"
            )
        yield place, content
