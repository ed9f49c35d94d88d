"""Compare newsbert's settings with those of pydantic-settings and msgspec: processor time and lines.

    python -m pip install --target libraries pydantic-settings msgspec
    python benchmarks/settings_libraries.py --libraries libraries

The classes of both libraries are made from the fields of newsbert's own, with the same types, ranges and choices. The
figures are medians of fresh processes, which take turns. The lines are those of three programs with the same duties
(option, else environment, else file, else default; origins; ranges, choices and unknown keys with messages), which are
checked with the same cases.
"""

import argparse
import dataclasses
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from newsbert.core.config_file import SECTIONS
from newsbert.core.settings import TARGETS

SHARED = """
import difflib, os, tomllib
from pathlib import Path
RENAMED = {"samples": "max_train_samples"}
def reject_unknown(key, known):
    close = difflib.get_close_matches(key, known, 1)
    hint = RENAMED.get(key) or (close[0] if close else ", ".join(sorted(known)))
    raise ValueError(f"newsbert.toml: unknown key {key!r}: did you mean {hint}?")
"""
"""Code that all programs need."""

DATACLASSES = """
import dataclasses, types, typing
from dataclasses import dataclass
def setting(default, env=None, ge=None, le=None, choices=()):
    return dataclasses.field(default=default, metadata={"env": env, "ge": ge, "le": le, "choices": choices})
@dataclass(frozen=True)
class Train:
    batch_size: int | None = setting(None, ge=1)
    max_train_samples: int | None = setting(None, ge=1)
    review_threshold: float = setting(0.5, ge=0, le=1)
    tune: str = setting("full", choices=("full", "lora", "head"))
    labels: tuple[str, ...] = setting(())
    tracking_uri: str = setting("sqlite:///mlflow.db", env="MLFLOW_TRACKING_URI")
KINDS = {int: "a whole number", float: "a number", str: "a text"}
def convert(value, hint, origin):
    if isinstance(hint, types.UnionType):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(str(part).strip() for part in parts)
    if isinstance(value, bool):
        raise ValueError(f"{origin}: {value!r} is not {KINDS[hint]}")
    try:
        return hint(value)
    except (TypeError, ValueError):
        raise ValueError(f"{origin}: {value!r} is not {KINDS[hint]}") from None
def check(value, meta, origin):
    ge, le, choices = meta["ge"], meta["le"], meta["choices"]
    if ge is not None and not (value >= ge and (le is None or value <= le)):
        expected = f"{ge:g} or more" if le is None else f"from {ge:g} to {le:g}"
        raise ValueError(f"{origin}: {value!r} is not {expected}")
    if choices and value not in choices:
        raise ValueError(f"{origin}: {value!r} is not one of {', '.join(choices)}")
def resolve(**flags):
    file = Path("newsbert.toml")
    content = tomllib.loads(file.read_text()).get("train", {}) if file.is_file() else {}
    fields = {field.name: field for field in dataclasses.fields(Train)}
    for key in content.keys() - fields.keys():
        reject_unknown(key, fields)
    hints, values, origins = typing.get_type_hints(Train), {}, {}
    for name, field in fields.items():
        variables = [f"NEWSBERT_TRAIN_{name.upper()}", field.metadata["env"]]
        sources = [(flags.get(name), f"--{name.replace('_', '-')}")]
        sources += [(os.environ.get(variable) or None, variable) for variable in variables if variable]
        sources += [(content.get(name), "newsbert.toml")]
        for value, origin in sources:
            if value is not None:
                values[name] = convert(value, hints[name], origin)
                check(values[name], field.metadata, origin)
                origins[name] = origin
                break
    return Train(**values), origins
"""

PYDANTIC = """
from typing import Annotated, Literal
from pydantic import AliasChoices, BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings, EnvSettingsSource, InitSettingsSource, NoDecode, PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
)
Texts = Annotated[
    tuple[str, ...], NoDecode,
    BeforeValidator(lambda value: [part.strip() for part in value.split(",")] if isinstance(value, str) else value),
]
class Train(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="NEWSBERT_TRAIN_", env_ignore_empty=True, extra="forbid", frozen=True, populate_by_name=True,
        pyproject_toml_table_header=("train",),
    )
    batch_size: Annotated[int, Field(ge=1)] | None = None
    max_train_samples: Annotated[int, Field(ge=1)] | None = None
    review_threshold: float = Field(0.5, ge=0, le=1)
    tune: Literal["full", "lora", "head"] = "full"
    labels: Texts = ()
    tracking_uri: str = Field(
        "sqlite:///mlflow.db", validation_alias=AliasChoices("NEWSBERT_TRAIN_TRACKING_URI", "MLFLOW_TRACKING_URI")
    )
    @classmethod
    def settings_customise_sources(cls, settings_cls, init_settings, **_others):
        return (init_settings,)
def find_origin(name, value, source):
    if isinstance(source, InitSettingsSource) and not isinstance(source, PyprojectTomlConfigSettingsSource):
        return f"--{name.replace('_', '-')}"
    if isinstance(source, EnvSettingsSource):
        variables = [f"NEWSBERT_TRAIN_{name.upper()}", "MLFLOW_TRACKING_URI"]
        return next(variable for variable in variables if os.environ.get(variable))
    return "newsbert.toml"
def resolve(**flags):
    values, origins = {}, {}
    flags = {name: value for name, value in flags.items() if value is not None}
    for source in (
        PyprojectTomlConfigSettingsSource(Train, Path("newsbert.toml")), EnvSettingsSource(Train),
        InitSettingsSource(Train, flags),
    ):
        for key, value in source().items():
            # A source answers with the alias, if a field has one.
            name = "tracking_uri" if key.endswith("TRACKING_URI") else key
            values[name], origins[name] = value, find_origin(name, value, source)
    try:
        return Train(**values), origins
    except ValidationError as error:
        problem = error.errors()[0]
    name, value, limits = problem["loc"][0], problem["input"], problem.get("ctx", {})
    if problem["type"] == "extra_forbidden":
        reject_unknown(name, Train.model_fields)
    if problem["type"] in {"greater_than_equal", "less_than_equal"}:
        bounds = [item for item in Train.model_fields[name].metadata if hasattr(item, "ge") or hasattr(item, "le")]
        limits = {key: getattr(item, key) for item in bounds for key in ("ge", "le") if hasattr(item, key)} or limits
        expected = f"from {limits['ge']:g} to {limits['le']:g}" if "le" in limits else f"{limits['ge']:g} or more"
    elif problem["type"] == "literal_error":
        expected = f"one of {limits['expected']}".replace("'", "").replace(" or ", ", ")
    else:
        expected = problem["msg"]
    raise ValueError(f"{origins[name]}: {value!r} is not {expected}")
"""

MSGSPEC = """
import re
from typing import Annotated, Literal, get_args
import msgspec
from msgspec import Meta
class Train(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    batch_size: Annotated[int, Meta(ge=1)] | None = None
    max_train_samples: Annotated[int, Meta(ge=1)] | None = None
    review_threshold: Annotated[float, Meta(ge=0, le=1)] = 0.5
    tune: Literal["full", "lora", "head"] = "full"
    labels: tuple[str, ...] = ()
    tracking_uri: Annotated[str, Meta(extra={"env": "MLFLOW_TRACKING_URI"})] = "sqlite:///mlflow.db"
FIELDS = {field.name: field for field in msgspec.structs.fields(Train)}
def find_meta(hint):
    if hasattr(hint, "__metadata__"):
        return hint.__metadata__[0]
    return next((meta for part in get_args(hint) if (meta := find_meta(part))), None)
def resolve(**flags):
    file = Path("newsbert.toml")
    content = tomllib.loads(file.read_text()).get("train", {}) if file.is_file() else {}
    for key in content.keys() - FIELDS.keys():
        reject_unknown(key, FIELDS)
    values, origins = {}, {}
    for name, field in FIELDS.items():
        meta = find_meta(field.type)
        variables = [f"NEWSBERT_TRAIN_{name.upper()}", ((meta and meta.extra) or {}).get("env")]
        sources = [(flags.get(name), f"--{name.replace('_', '-')}")]
        sources += [(os.environ.get(variable) or None, variable) for variable in variables if variable]
        sources += [(content.get(name), "newsbert.toml")]
        for value, origin in sources:
            if value is not None:
                values[name], origins[name] = value, origin
                break
    if isinstance(values.get("labels"), str):
        values["labels"] = [part.strip() for part in values["labels"].split(",")]
    try:
        return msgspec.convert(values, Train, strict=False), origins
    except msgspec.ValidationError as error:
        message = str(error)
    name = re.search(r"\\$\\.(\\w+)", message)[1]
    meta, choices = find_meta(FIELDS[name].type), get_args(FIELDS[name].type)
    if "Expected `int` >=" in message or "Expected `float` " in message:
        expected = f"{meta.ge:g} or more" if meta.le is None else f"from {meta.ge:g} to {meta.le:g}"
    elif "Invalid enum value" in message:
        expected = f"one of {', '.join(choices)}"
    else:
        expected = message
    raise ValueError(f"{origins[name]}: {values[name]!r} is not {expected}")
"""

CHECKS = """
def case(toml="", env=None, **flags):
    Path("newsbert.toml").write_text(f"[train]\\n{toml}")
    for name in list(os.environ):
        if name.startswith(("NEWSBERT_", "MLFLOW_")):
            del os.environ[name]
    os.environ.update(env or {})
    return resolve(**flags)
def error(*parts, **inputs):
    try:
        done = case(**inputs)
    except ValueError as problem:
        assert all(part in str(problem) for part in parts), problem
    else:
        raise AssertionError(done)
BATCH = "NEWSBERT_TRAIN_BATCH_SIZE"
done, origins = case()
assert (done.batch_size, done.review_threshold, done.labels, origins) == (None, 0.5, (), {})
done, origins = case("batch_size = 8")
assert (done.batch_size, origins) == (8, {"batch_size": "newsbert.toml"})
done, origins = case("batch_size = 8", {BATCH: "16"})
assert (done.batch_size, origins) == (16, {"batch_size": BATCH})
done, origins = case("batch_size = 8", {BATCH: "16"}, batch_size=32)
assert (done.batch_size, origins) == (32, {"batch_size": "--batch-size"})
assert case(env={BATCH: ""})[0].batch_size is None
assert case(env={"NEWSBERT_TRAIN_LABELS": "a, b"})[0].labels == ("a", "b")
assert case("labels = ['a', 'b']")[0].labels == ("a", "b")
done, origins = case(env={"MLFLOW_TRACKING_URI": "http://h"})
assert (done.tracking_uri, origins) == ("http://h", {"tracking_uri": "MLFLOW_TRACKING_URI"})
assert case("tracking_uri = 'http://f'")[0].tracking_uri == "http://f"
error(BATCH, "0", "1 or more", env={BATCH: "0"})
error(BATCH, "many", env={BATCH: "many"})
error("newsbert.toml", "1.5", "from 0 to 1", toml="review_threshold = 1.5")
error("--tune", "half", "one of auto, full, contrastive, lora, head", tune="half")
error("'bach_size'", "did you mean batch_size", toml="bach_size = 8")
error("'samples'", "did you mean max_train_samples", toml="samples = 8")
try:
    print("batch_size = true:", case("batch_size = true")[0].batch_size)
except ValueError as problem:
    print("batch_size = true:", problem)
"""
"""Cases for all programs; the last one shows whether a program takes a truth value for a number."""


PROGRAMS = {"dataclasses": DATACLASSES, "pydantic-settings": PYDANTIC, "msgspec": MSGSPEC}
PYDANTIC_MODULE = """
from typing import Annotated, Literal
from pydantic import Field
from pydantic_settings import BaseSettings
"""
MSGSPEC_MODULE = """
from typing import Annotated, Literal
import msgspec
"""
RUN = "import sys; sys.argv = ['newsbert', {word!r}]; from newsbert.cli.app import main; main()"


def render_type(hint: Any, metadata: Mapping[str, Any], constraint: str) -> str:
    """Return a setting's annotation with its range or choices, which `constraint` takes."""
    if isinstance(hint, types.UnionType):
        return " | ".join(render_type(option, metadata, constraint) for option in typing.get_args(hint))
    limits = ", ".join(f"{name}={metadata[name]!r}" for name in ("ge", "le") if metadata[name] is not None)
    if hint is types.NoneType:
        return "None"
    if metadata["choices"]:
        return f"Literal{list(metadata['choices'])!r}"
    name = str(hint) if typing.get_origin(hint) else hint.__name__
    return f"Annotated[{name}, {constraint}({limits})]" if limits else name


def render_classes(base: str, constraint: str) -> str:
    """Return the source of classes with the fields of newsbert's settings."""
    lines = []
    for section in (*SECTIONS, *TARGETS.values()):
        hints = typing.get_type_hints(section)
        lines.append(f"class {section.__name__}({base}):")
        lines += [
            f"    {field.name}: {render_type(hints[field.name], field.metadata, constraint)} = {field.default!r}"
            for field in dataclasses.fields(section)
        ]
    return "\n".join(lines) + "\n"


def run(code: str, directory: Path, libraries: str) -> tuple[str, float]:
    """Run code in a fresh process; return its output and the milliseconds of processor time."""
    path = os.pathsep.join(filter(None, [libraries, str(directory)]))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=directory, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": path, "PYTHONPYCACHEPREFIX": str(directory / "cache"),
             "PYTHONDONTWRITEBYTECODE": ""},
    ).stdout  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return output, 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libraries", default="", help="directory of pydantic-settings and msgspec")
    parser.add_argument("--runs", type=int, default=20)
    arguments = parser.parse_args()
    libraries = str(Path(arguments.libraries).resolve()) if arguments.libraries else ""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        try:
            run("import pydantic_settings, msgspec", directory, libraries)
        except subprocess.CalledProcessError:
            parser.exit(1, "pydantic-settings or msgspec is missing: see the commands in --help\n")
        measure_times(directory, libraries, arguments.runs)
        for program, code in PROGRAMS.items():
            output, _ = run(SHARED + code + CHECKS, directory, libraries)
            print(f"{program}: {len(code.strip().splitlines())} lines; {output.strip()}")


def measure_times(directory: Path, libraries: str, runs: int) -> None:
    """Print the processor times of imports and commands as a table."""
    (directory / "with_pydantic.py").write_text(PYDANTIC_MODULE + render_classes("BaseSettings", "Field"))
    (directory / "with_msgspec.py").write_text(
        MSGSPEC_MODULE + render_classes("msgspec.Struct, frozen=True, forbid_unknown_fields=True", "msgspec.Meta")
    )
    codes = {
        "an empty program": "",
        "newsbert.core.settings": "import newsbert.core.settings",
        "pydantic-settings, the same classes": "import with_pydantic",
        "msgspec, the same classes": "import with_msgspec",
    }
    for word in ("--help", "config"):
        command = RUN.format(word=word)
        codes[f"newsbert {word}"] = command
        codes[f"newsbert {word}, and the classes of pydantic-settings"] = f"import with_pydantic; {command}"
        codes[f"newsbert {word}, and the classes of msgspec"] = f"import with_msgspec; {command}"
    times: dict[str, list[float]] = {what: [] for what in codes}
    for number in range(runs + 1):
        for what, code in codes.items():
            _, milliseconds = run(code, directory, libraries)
            if number > 0:  # the first run compiles
                times[what].append(milliseconds)
    print("| what | ms of processor time, median | range |\n|---|---|---|")
    for what, values in times.items():
        print(f"| {what} | {statistics.median(values):.0f} | {min(values):.0f} to {max(values):.0f} |")


if __name__ == "__main__":
    main()
