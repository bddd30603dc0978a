"""A table as CSV, JSON or Parquet, written as it is read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, TextIO

import numpy as np

from sysmetrics_native.export_table import Batch, Column, Table

_NS_PER_US = 1000
_US_PER_SECOND = 1_000_000


def write_csv(table: Table, file: BinaryIO) -> int:
    """One header of keys, one line a row; what is absent is empty.

    Times are ISO 8601, UTC, with microseconds. Units are in the keys.

    Returns:
        How many rows there are.
    """
    rows = 0
    with _as_text(file) as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_header(table))
        for batch in table.batches:
            writer.writerows(_rows(table, batch, _iso_times(batch), nothing=""))
            rows += len(batch.time_ns)
    return rows


def write_json(table: Table, file: BinaryIO) -> int:
    """One document: what is known of the series, the names of the columns, a line for each row.

    Times are Unix seconds with microseconds; what is absent is null.

    Returns:
        How many rows there are.
    """
    about = {
        "title": table.title,
        "origin": table.origin,
        "interval_seconds": table.interval,
        "facts": dict(table.facts),
        "series": [_about(column) for column in table.columns],
        "columns": _header(table),
    }
    rows = 0
    with _as_text(file) as text:
        text.write(json.dumps(about, allow_nan=False)[:-1] + ', "rows": [')
        for batch in table.batches:
            for time, *values in _rows(table, batch, _seconds(batch), nothing=None):
                text.write(",\n" if rows > 0 else "\n")
                # The time as text, because a double has not room for all of its digits.
                text.write(f"[{time},{json.dumps(values, separators=(',', ':'))[1:]}")
                rows += 1
        text.write("\n]}\n")
    return rows


def write_parquet(table: Table, file: BinaryIO) -> int:
    """One column a series, a group of rows for each part; what is absent is null.

    Units, kinds and sources are in the metadata of the fields, the facts in that of the schema.
    Times are nanoseconds, UTC.

    Returns:
        How many rows there are.

    Raises:
        ModuleNotFoundError: PyArrow is not installed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [pa.field("time", pa.timestamp("ns", tz="UTC"), nullable=False)]
    if table.has_nodes:
        fields.append(pa.field("node", pa.string()))
    fields += [
        pa.field(column.name, pa.float64(), metadata=_known(_about(column)))
        for column in table.columns
    ]
    about = {"title": table.title, "origin": table.origin, "facts": dict(table.facts)}
    schema = pa.schema(fields, metadata={"sysmetrics_native": json.dumps(about)})
    rows = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in table.batches:
            arrays = [pa.array(batch.time_ns, pa.timestamp("ns", tz="UTC"))]
            if table.has_nodes:
                arrays.append(pa.array(batch.nodes, pa.string()))
            arrays += [
                pa.array(values, pa.float64(), mask=~np.isfinite(values)) for values in batch.values
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            rows += len(batch.time_ns)
    return rows


WRITERS: dict[str, Callable[[Table, BinaryIO], int]] = {
    "csv": write_csv,
    "json": write_json,
    "parquet": write_parquet,
}

# ---- rows ---------------------------------------------------------------------------------------


def _header(table: Table) -> list[str]:
    return [
        "time",
        *(["node"] if table.has_nodes else []),
        *(column.name for column in table.columns),
    ]


def _rows(
    table: Table, batch: Batch, times: list[str], *, nothing: str | None
) -> Iterator[tuple[object, ...]]:
    """The rows of a batch, with `nothing` where there is no value."""
    columns: list[list[object]] = [list(times)]
    if table.has_nodes:
        columns.append([nothing if node is None else node for node in batch.nodes])
    for values in batch.values:
        are_there = np.isfinite(values)
        column: list[object] = values.tolist()
        for row in np.flatnonzero(~are_there).tolist():
            column[row] = nothing
        columns.append(column)
    return zip(*columns, strict=True)


def _iso_times(batch: Batch) -> list[str]:
    times = (batch.time_ns // _NS_PER_US).astype("datetime64[us]")
    return [f"{time}Z" for time in np.datetime_as_string(times).tolist()]


def _seconds(batch: Batch) -> list[str]:
    microseconds = (batch.time_ns // _NS_PER_US).tolist()
    return [f"{time // _US_PER_SECOND}.{time % _US_PER_SECOND:06}" for time in microseconds]


# ---- what is known ------------------------------------------------------------------------------


def _about(column: Column) -> dict[str, str]:
    """What the schema says of a series, and what it does not know left out."""
    return {name: text for name, text in column._asdict().items() if text}


def _known(about: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in about.items() if name != "name"}


@contextmanager
def _as_text(file: BinaryIO) -> Iterator[TextIO]:
    """The file as text in UTF-8; it stays open."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
    try:
        yield text
        text.flush()
    finally:
        text.detach()
