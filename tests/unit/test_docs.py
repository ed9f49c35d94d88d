"""README and docs are right about the commands."""

import dataclasses
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from newsbert.cli.app import app
from newsbert.core.settings import (
    ImageSettings,
    KubernetesSettings,
    RaySettings,
    ServeSettings,
    TrackingServerSettings,
    TrainSettings,
)
from tests.support import docs_examples
from tests.support.docs_examples import PAGES, ROOT

COMMAND: Any = typer.main.get_command(app)  # made once: it takes as long as a test


@pytest.mark.parametrize("script", ["make_cli_reference", "make_http_reference"])
def test_generated_pages_are_up_to_date(script: str) -> None:
    spec = importlib.util.spec_from_file_location(script, ROOT / f"docs/scripts/{script}.py")
    assert spec is not None and spec.loader is not None
    generator: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    for file, content in generator.pages().items():
        assert file.read_text(encoding="utf-8") == content, "make docs"


def _list_commands(page: Path) -> Iterator[list[str]]:
    """Words after `newsbert` in every line of a page's blocks that runs it, also as `$(newsbert …)`."""
    for line in docs_examples.of(page):
        for match in re.finditer(r"(?:^|[$|(;&] ?|\w=\S* )newsbert (.*)", line):
            lexer = shlex.shlex(match[1], posix=True, punctuation_chars="();<>|&")
            lexer.whitespace_split = True
            words: list[str] = []
            for word in lexer:
                if set(word) <= set("();<>|&"):
                    break
                words.append(word)
            yield words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_the_pages_can_be_parsed(page: Path) -> None:
    for words in _list_commands(page):
        if not words or "…" in words:
            continue
        command = COMMAND
        rest, context = list(words), None
        while hasattr(command, "commands"):
            assert rest and (rest[0] in command.commands or rest[0].startswith("-")), words
            if rest[0].startswith("-"):
                break
            command = command.commands[rest.pop(0)]
        if "--help" in rest:
            continue
        try:
            context = command.make_context("newsbert", rest)
        except Exception as error:
            pytest.fail(f"newsbert {shlex.join(words)}: {error}")
        assert context is not None


def test_the_pages_have_commands() -> None:
    assert len([words for page in PAGES for words in _list_commands(page)]) > 100


_LINK = re.compile(r"\]\(([^)\s]+)\)")


def _list_anchors(page: Path) -> set[str]:
    """Names that headings of a page have on GitHub."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_have_targets(page: Path) -> None:
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in _list_anchors(target), link


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    pages = [str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")]
    assert [page for page in pages if page != "index.md" and f"({page})" not in index] == []
    assert [page for page in pages if page != "index.md" and f"\n{page.removesuffix('.md')}\n" not in index] == []


@pytest.mark.parametrize(
    ("table", "settings"),
    [
        ("train", TrainSettings), ("serve", ServeSettings), ("image", ImageSettings),
        ("kubernetes", KubernetesSettings), ("tracking", TrackingServerSettings), ("ray", RaySettings),
    ],
)  # fmt: skip
def test_the_table_of_settings_has_all(table: str, settings: type) -> None:
    page = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith(f"| `[{table}]` "))
    names = {field.name for field in dataclasses.fields(settings)} - {"server"}  # of the top level
    assert set(re.findall(r"`(\w+)`", row.split(" | ")[0])) == names


def test_explained_errors_are_in_the_source() -> None:
    """The words of every message in the table by error message stand in the code."""
    table = (ROOT / "docs/guides/troubleshooting.md").read_text(encoding="utf-8").partition("## By error message")[2]
    sources = " ".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "src/newsbert").rglob("*.py")))
    code = re.sub(r'"\s+f?"', "", sources)  # messages that are cut into lines
    for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
        for message in re.findall(r"`([^`]+)`", cell):
            for words in re.split(r"…|'[^']*'", message):
                assert words.strip(" .:;") in code, (message, words)
