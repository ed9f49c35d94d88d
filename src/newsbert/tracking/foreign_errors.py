"""Errors of MLflow, of the clients of artifact stores, of the network and of imports, as ours: with what mends them.

They are known by the modules that raised them and by their texts, so that nothing is imported to look at them.
"""

import re
import traceback
import urllib.parse
from collections.abc import Iterator

from newsbert.core import installation, uris
from newsbert.core.installation import MissingExtraError
from newsbert.core.object_stores import AZURE, GS, S3, STORES, store_error
from newsbert.errors import NewsbertError, RefusedError, TrackingError, first_line
from newsbert.tracking import tracking_uri

_FOREIGN = ("mlflow", "requests", "sqlalchemy", "urllib3", "google.protobuf")
_STORE_WORDS = re.compile(r"failures occurred while downloading|No such file or directory: '")


def translate(error: Exception, what: str, server: str, store: str | None = None) -> NewsbertError | None:
    """Return an error of ours for one of MLflow, of a store's client, of the network, a database, a disk or an import.

    Args:
        error: The error.
        what: What could not be done, to begin the message with.
        server: The tracking URI.
        store: Where the artifacts are, if they are meant.

    Returns:
        The error, or nothing where this one is a bug of ours.
    """
    if isinstance(error, NewsbertError):
        return error
    chain = list(_chain(error))
    missing = _missing(chain)
    if missing is not None:
        return missing
    raised = _modules(chain)
    of_client = next((each for each in (S3, GS, AZURE) if _is_of(raised, each.modules)), None)
    of_store = STORES.get(urllib.parse.urlsplit(store or "").scheme)
    if of_client is not None or (of_store is not None and _STORE_WORDS.search(str(error))):
        return store_error(chain, what, store or "the artifact store", of_client or of_store)
    if _is_of(_classes(chain[:1]), _FOREIGN):
        refused = tracking_uri.tracking_error(what, server, error)
        if re.search(r"error code 40[13]", str(error)):
            return RefusedError(refused.message, refused.hint)
        return refused
    if isinstance(error, OSError):  # artifacts, where they are on this machine's disk
        said = uris.mask_credentials(str(error))
        return TrackingError(
            f"{what or 'the tracking files cannot be used'}: {said}", "check the disk and its rights: df -h ."
        )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those from which it came."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _classes(chain: list[BaseException]) -> list[str]:
    return [base.__module__ for error in chain for base in type(error).__mro__]


def _modules(chain: list[BaseException]) -> list[str]:
    """The modules of the errors' classes, and those that were running, after our own, when they were raised."""
    found = _classes(chain)
    for error in chain:
        running: list[str] = []
        for frame, _ in traceback.walk_tb(error.__traceback__):
            module = str(frame.f_globals.get("__name__", ""))
            running = [] if module.partition(".")[0] == "newsbert" else [*running, module]
        found += running
    return found


def _is_of(modules: list[str], packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for module in modules for package in packages)


def _missing(chain: list[BaseException]) -> NewsbertError | None:
    """What to install, where that is what is wrong."""
    found = [each for each in chain if isinstance(each, ImportError)]
    named = next((each for each in reversed(found) if each.name), None)
    if not found or (named is not None and str(named.name).partition(".")[0] == "newsbert"):
        return None
    if named is None:
        return TrackingError(f"a package cannot be imported: {first_line(found[0])}", "newsbert doctor")
    module = str(named.name)
    module = module if module.startswith(("azure", "google")) else module.partition(".")[0]
    extra = next((each.extra for each in (S3, GS, AZURE) if _is_of([module], each.modules)), "train")
    extra = "gs" if module == "google" else extra
    if isinstance(named, ModuleNotFoundError) or "unknown location" in str(named):
        return MissingExtraError(module, extra)
    return TrackingError(
        f"the Python package {module!r} cannot be used: {first_line(named)}",
        installation.command(extra, "--upgrade"),
    )
