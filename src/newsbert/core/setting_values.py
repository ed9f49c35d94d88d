"""Values of settings: conversion to their types, and their ranges."""

import types
import typing
from typing import Any

from newsbert.errors import UsageError

_TYPE_NAMES = {int: "a whole number", float: "a number", str: "a text"}


def convert(value: Any, hint: Any, origin: str) -> Any:
    """Convert the value of a flag, a variable or the file to the setting's type.

    Raises:
        UsageError: If the conversion fails.
    """
    if isinstance(hint, types.UnionType):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise UsageError(f"{origin}: {value!r} is not a list of texts", "give a value of that kind")
        return tuple(str(part).strip() for part in parts if str(part).strip())
    if hint is bool:
        known = {"1": True, "true": True, "0": False, "false": False}
        result = value if isinstance(value, bool) else known.get(value.lower()) if isinstance(value, str) else None
        if result is None:
            raise UsageError(f"{origin}: {value!r} is neither yes nor no", "give 1 or true, 0 or false")
        return result
    if isinstance(value, bool | list | dict) or (hint is int and isinstance(value, float) and not value.is_integer()):
        raise UsageError(f"{origin}: {value!r} is not {_TYPE_NAMES[hint]}", "give a value of that kind")
    try:
        return hint(value)
    except (TypeError, ValueError):
        raise UsageError(f"{origin}: {value!r} is not {_TYPE_NAMES[hint]}", "give a value of that kind") from None


def check_range(value: Any, ge: float | None, le: float | None, origin: str) -> None:
    """Reject a number that is outside the setting's range, or is NaN.

    Raises:
        UsageError: With the range.
    """
    if ge is None or (value >= ge and (le is None or value <= le)):
        return
    expected = f"{ge:g} or more" if le is None else f"from {ge:g} to {le:.10g}"
    raise UsageError(f"{origin}: {value:.15g} cannot be", f"give a number that is {expected}")
