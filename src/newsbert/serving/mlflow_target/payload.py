"""Conversion of the inputs of MLflow's callers to the items that a model takes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from newsbert.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

_TEXT_COLUMNS = ("title", "text", "description")
_FORMS = "a list of texts, {'instances': [...]}, {'inputs': [...]}, {'dataframe_split': …}, or columns title and text"


def items(inputs: Any) -> list[Any]:
    """Return the texts or title/text objects in the inputs of an MLflow call, without validation.

    Args:
        inputs: A text, a list, an array, a data frame, or a dict in one of the forms that MLflow's own servers take.
            MLflow's command line reads any JSON file into a data frame, so the dict may be in a frame's only column.

    Raises:
        UsageError: If it has another form.
    """
    import pandas as pd

    if isinstance(inputs, str):
        return [inputs]
    if isinstance(inputs, pd.DataFrame):
        return _parse_frame(inputs)
    if isinstance(inputs, Mapping):
        return _parse_mapping(inputs)
    if hasattr(inputs, "tolist"):
        inputs = inputs.tolist()
    if isinstance(inputs, list | tuple):
        return [item[0] if isinstance(item, list) and len(item) == 1 else item for item in inputs]
    raise UsageError(f"a {type(inputs).__name__} cannot be predicted", f"give {_FORMS}")


def _parse_frame(frame: "pd.DataFrame") -> list[Any]:
    columns = [str(column) for column in frame.columns]
    if columns == ["dataframe_split"] or (columns == ["inputs"] and frame.index.dtype.kind not in "iu"):
        return _parse_mapping({columns[0]: frame.iloc[:, 0].to_dict()})
    text_columns = [column for column in columns if column in _TEXT_COLUMNS]
    if text_columns:
        # A data frame has NaN where a row lacks a field.
        rows = frame[text_columns].to_dict("records")
        return [{str(key): value for key, value in row.items() if not _is_missing(value)} for row in rows]
    if len(columns) == 1:
        return list(frame.iloc[:, 0].tolist())
    raise UsageError(f"the columns {', '.join(columns[:5])} hold no text", f"give {_FORMS}")


def _parse_mapping(value: Mapping[str, Any]) -> list[Any]:
    import pandas as pd

    content: Any
    if set(value) <= set(_TEXT_COLUMNS) and any(isinstance(field, str) for field in value.values()):
        return [dict(value)]
    key, content = next(iter(value.items()), ("", None))
    others = len(value) > 1
    try:
        if not others and key == "dataframe_split":
            return _parse_frame(pd.DataFrame(content["data"], columns=content.get("columns")))
        if isinstance(content, Mapping) and not others and key == "inputs":
            return _parse_frame(pd.DataFrame(dict(content)))
        if not others and key in {"instances", "inputs", "dataframe_records", "data"}:
            return items(content)
        return _parse_frame(pd.DataFrame(dict(value)))
    except (LookupError, TypeError, ValueError) as error:
        raise UsageError(f"the input cannot be read: {error}", f"give {_FORMS}") from error


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)  # noqa: PLR0124 - NaN only
