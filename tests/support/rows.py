"""Files of rows for tests, in every format."""

import csv
import gzip
import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def encode(name: str, table: Sequence[dict[str, Any]]) -> bytes:
    """What a file called `name` with these rows holds, written by the standard library and pyarrow."""
    kind = name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(list(table)), buffer)
        content = buffer.getvalue()
    elif kind in {"csv", "tsv"}:
        stream = io.StringIO(newline="")
        if kind == "tsv":
            lines = [list(table[0]), *([row.get(name, "") for name in table[0]] for row in table)]
            for line in lines:
                stream.write("\t".join("" if cell is None else str(cell) for cell in line) + "\n")
        else:
            writer = csv.DictWriter(stream, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
        content = stream.getvalue().encode()
    elif kind == "json":
        content = json.dumps(list(table)).encode()
    else:
        content = "".join(json.dumps(row) + "\n" for row in table).encode()
    return gzip.compress(content) if name.endswith(".gz") else content
