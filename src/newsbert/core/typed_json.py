"""Parsing of foreign JSON into dataclasses: values that do not match the annotations are rejected."""

import dataclasses
import json
import math
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

_T = TypeVar("_T")


def loads(content: str) -> Any:
    """Parse JSON strictly by RFC 8259.

    Numbers must be finite, names unique in their object, and surrogates paired.

    Raises:
        ValueError: If the content is anything else.
    """
    try:
        value = json.loads(
            content, object_pairs_hook=_build_object, parse_constant=_reject_constant, parse_float=_parse_float
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # a UnicodeEncodeError is a ValueError
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def read(kind: type[_T], value: Any, where: str = "it") -> _T:
    """Build a dataclass from an object that has exactly its fields, with values of the annotated types.

    Args:
        kind: The dataclass; its fields are dataclasses, lists, dicts, unions and plain types.
        value: Parsed JSON.
        where: Name of the value in errors.

    Raises:
        ValueError: If the value does not match; the message names the place.
    """
    return _read(kind, value, where)  # type: ignore[no-any-return]


def _read(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if get_origin(kind) is UnionType:
        for choice in get_args(kind):
            try:
                return _read(choice, value, where)
            except ValueError as error:
                last_error = error
        raise last_error
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, dict):
        fields = {field.name: field for field in dataclasses.fields(kind)}
        required = {name for name, field in fields.items() if _is_required(field)}
        for name in sorted(value.keys() - fields.keys()):
            raise ValueError(f"{where} has {name!r:.80}, which this newsbert does not know")
        for name in sorted(required - value.keys()):
            raise ValueError(f"{where} is incomplete: {name!r} is missing")
        hints = get_type_hints(kind)
        return kind(**{name: _read(hints[name], part, f"its {name}") for name, part in value.items()})
    if get_origin(kind) is list and isinstance(value, list):
        return [_read(get_args(kind)[0], part, where) for part in value]
    if get_origin(kind) is dict and isinstance(value, dict):
        return {key: _read(get_args(kind)[1], part, where) for key, part in value.items()}
    accepted = (int, float) if kind is float else kind
    if get_origin(kind) is None and isinstance(value, accepted) and (kind is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"{where} is {value!r:.80}")


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("an object names a field twice")
    return content


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _parse_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text:.40} is no number that can be computed with")
    return number
