"""What happens to a text before the tokenizer: cleaning, and joining a title to it.

Training, bulk prediction and every server call these functions with the rules that stand in the bundle's contract, so
that no text can be prepared in two ways. Standard library only: it runs wherever a model answers.
"""

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

NewsItem = str | Mapping[str, object]
"""A text, or an object with `text` (or `description`) and perhaps `title`."""

NewsItems = NewsItem | Iterable[NewsItem]
"""One text or object, or several."""

# AG News lost the `&` of its entities: ` #39;` for `&#39;`, ` quot;` for `&quot;`. The blank stands where the
# ampersand stood, so it goes as well. Only names that are no English word before a semicolon.
_BROKEN_ENTITY = re.compile(r"(?:^| )(#\d{1,7}|quot|amp|lt|gt|nbsp|apos|hellip|mdash|ndash|lsquo|rsquo|ldquo|rdquo);")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_TAG = re.compile(r"<[a-zA-Z/!][^<>]*>")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")  # but those that are white space


def _unicode(text: str) -> str:
    """Replace what cannot be encoded (lone surrogates) by U+FFFD, and control characters by a blank."""
    return _CONTROL.sub(" ", text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _backslashes(text: str) -> str:
    r"""AG News writes `\$` for a dollar and a lone `\` for a line break."""
    return text.replace("\\$", "$").replace("\\", " ")


def _entities(text: str) -> str:
    """Decode HTML entities, AG News's broken ones too."""
    text = _BROKEN_ENTITY.sub(r"&\1;", text)
    return _ENTITY.sub(lambda match: _CONTROL.sub(" ", html.unescape(match.group())), text)


def _tags(text: str) -> str:
    """Take out HTML tags."""
    return _TAG.sub(" ", text)


def _whitespace(text: str) -> str:
    """One blank for any run of white space; none at the ends."""
    return " ".join(text.split())


_RULES: dict[str, Callable[[str], str]] = {
    "unicode": _unicode,
    "backslashes": _backslashes,
    "entities": _entities,
    "tags": _tags,
    "whitespace": _whitespace,
}

CLEANING_RULES: tuple[str, ...] = tuple(_RULES)
"""The rules a new bundle is trained with, in the order in which they are applied."""


def unknown_rules(rules: Sequence[str]) -> list[str]:
    """Return the names in `rules` that this version does not know."""
    return [rule for rule in rules if rule not in _RULES]


def clean(text: str, rules: Sequence[str] = CLEANING_RULES) -> str:
    """Return `text` after the cleaning `rules`, applied in their order."""
    for rule in rules:
        text = _RULES[rule](text)
    return text


def list_items(items: NewsItems) -> list[NewsItem]:
    """Return the texts or objects; of one alone, a list of that."""
    return [items] if isinstance(items, str | Mapping) else list(items)


def join(title: str, text: str, rules: Sequence[str] = CLEANING_RULES) -> str:
    """Clean title and text and join them with one blank into one sequence; either may be empty."""
    return f"{clean(title, rules)} {clean(text, rules)}".strip()


def preprocess(item: NewsItem, rules: Sequence[str] = CLEANING_RULES) -> str:
    """Return the sequence that the tokenizer sees for a text or a title/text object.

    Raises:
        ValueError: If the item is of another form or holds no text; the message is fit for the person who sent it.
    """
    if isinstance(item, str):
        sequence = clean(item, rules)
    elif isinstance(item, Mapping):
        sequence = _prepare_object(item, rules)
    else:
        raise ValueError(f"expected a string or an object with 'text', got {_kind(item)}")
    if not sequence:
        raise ValueError("the text is empty")
    return sequence


def _prepare_object(item: Mapping[str, object], rules: Sequence[str]) -> str:
    unknown = sorted(str(key) for key in set(item) - {"title", "text", "description"})
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}: an object may hold 'title' and 'text'")
    if "text" in item and "description" in item:
        raise ValueError("an object holds 'text' or 'description', not both")
    if not item:
        raise ValueError("expected an object with 'text', got an empty object")
    title, text = item.get("title", ""), item.get("text", item.get("description", ""))
    for name, value in (("title", title), ("text", text)):
        if not isinstance(value, str):
            raise ValueError(f"{name!r} must be a string, got {_kind(value)}")
    return join(str(title), str(text), rules)


def _kind(value: object) -> str:
    """Name a value's type as JSON does."""
    if value is None:
        return "null"
    names: dict[type, str] = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, Mapping) else type(value).__name__)
