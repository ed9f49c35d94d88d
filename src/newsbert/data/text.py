"""Preparation of texts for the tokenizer: cleaning, and joining title and text.

Training, bulk prediction and all servers call these functions with the rules in the contract of the bundle. So a text
is prepared in one way only. This module uses only the standard library, because it runs wherever a model is served.
"""

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

NewsItem = str | Mapping[str, object]
"""A text, or an object with `text` (or `description`) and optionally `title`."""

NewsItems = NewsItem | Iterable[NewsItem]
"""One text or object, or several."""


class TextError(ValueError):
    """An item that no model can read as a text. The message is suitable for the client."""


# AG News lost the `&` of its entities: ` #39;` for `&#39;`, ` quot;` for `&quot;`. The blank replaced the ampersand,
# so it is removed, too. The pattern has only names that are no English word before a semicolon.
_BROKEN_ENTITY = re.compile(r"(?:^| )(#\d{1,7}|quot|amp|lt|gt|nbsp|apos|hellip|mdash|ndash|lsquo|rsquo|ldquo|rdquo);")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_TAG = re.compile(r"<[a-zA-Z/!][^<>]*>")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")  # except white space


def _clean_unicode(text: str) -> str:
    """Replace lone surrogates, which cannot be encoded, by U+FFFD, and control characters by a blank."""
    if text.isprintable():  # has neither, and this is faster to find out
        return text
    return _CONTROL.sub(" ", text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _replace_backslashes(text: str) -> str:
    r"""Replace `\$` by a dollar sign and a lone `\` by a blank: AG News writes `\` for a line break."""
    return text.replace("\\$", "$").replace("\\", " ")


def _decode_entities(text: str) -> str:
    """Decode HTML entities, including the broken ones of AG News."""
    if ";" not in text:
        return text
    text = _BROKEN_ENTITY.sub(r"&\1;", text)
    return _ENTITY.sub(lambda match: _CONTROL.sub(" ", html.unescape(match.group())), text)


def _remove_tags(text: str) -> str:
    """Replace HTML tags by a blank."""
    return _TAG.sub(" ", text) if "<" in text else text


def _collapse_whitespace(text: str) -> str:
    """Replace runs of white space by one blank, and remove white space at the ends."""
    return " ".join(text.split())


_RULES: dict[str, Callable[[str], str]] = {
    "unicode": _clean_unicode,
    "backslashes": _replace_backslashes,
    "entities": _decode_entities,
    "tags": _remove_tags,
    "whitespace": _collapse_whitespace,
}

CLEANING_RULES: tuple[str, ...] = tuple(_RULES)
"""Cleaning rules of a new bundle, in the order in which they are applied."""


def unknown_rules(rules: Sequence[str]) -> list[str]:
    """Return the names in `rules` that this version does not know."""
    return [rule for rule in rules if rule not in _RULES]


def clean(text: str, rules: Sequence[str] = CLEANING_RULES) -> str:
    """Return `text` after the cleaning `rules`, applied in their order."""
    for rule in rules:
        text = _RULES[rule](text)
    return text


def list_items(items: NewsItems) -> list[NewsItem]:
    """Return a list of the texts or objects, even for a single one."""
    return [items] if isinstance(items, str | Mapping) else list(items)


def join(title: str, text: str, rules: Sequence[str] = CLEANING_RULES) -> str:
    """Clean title and text and join them with one blank into one sequence; either may be empty."""
    return f"{clean(title, rules)} {clean(text, rules)}".strip()


def preprocess(item: NewsItem, rules: Sequence[str] = CLEANING_RULES) -> str:
    """Return the input sequence of the tokenizer for a text or a title/text object.

    Without rules, it checks an item for what all models reject, whatever their rules.

    Raises:
        TextError: If the item has another form or no text.
    """
    if isinstance(item, str):
        sequence = clean(item, rules)
    elif isinstance(item, Mapping):
        sequence = _prepare_object(item, rules)
    else:
        raise TextError(f"expected a string or an object with 'text', got {_name_type(item)}")
    if not sequence.strip():
        raise TextError("the text is empty")
    return sequence


def make_item(title: str, text: str) -> NewsItem:
    """Return the item of a row, not cleaned: every model applies its own rules."""
    return {"title": title, "text": text} if title else text


def has_text(item: NewsItem, rules: Sequence[str]) -> bool:
    """Return whether anything is left of an item after the cleaning `rules`."""
    try:
        return bool(preprocess(item, rules))
    except TextError:
        return False


def _prepare_object(item: Mapping[str, object], rules: Sequence[str]) -> str:
    unknown = sorted(str(key) for key in set(item) - {"title", "text", "description"})
    if unknown:
        raise TextError(f"unknown key {unknown[0]!r}: an object may hold 'title' and 'text'")
    if "text" in item and "description" in item:
        raise TextError("an object holds 'text' or 'description', not both")
    if not item:
        raise TextError("expected an object with 'text', got an empty object")
    title, text = item.get("title", ""), item.get("text", item.get("description", ""))
    for name, value in (("title", title), ("text", text)):
        if not isinstance(value, str):
            raise TextError(f"{name!r} must be a string, got {_name_type(value)}")
    return join(str(title), str(text), rules)


def _name_type(value: object) -> str:
    """Return the JSON name of the type of a value."""
    if value is None:
        return "null"
    names: dict[type, str] = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, Mapping) else type(value).__name__)
