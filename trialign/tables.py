"""Tables of text from CSV, TSV and Parquet files: ids stay as written, and every row knows its line."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Int

if TYPE_CHECKING:
    import _csv

#: The endings a table may have, in the order in which they are looked for.
SUFFIXES = (".parquet", ".csv", ".tsv")

#: Bytes that the CSV parser reads at once; a single row may not be longer than this.
_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a table or a file it names.

    Attributes
    ----------
    file
        Name of the file.
    row
        The 1-based line of a CSV or TSV file (the header is line 1), the 1-based row of any other table,
        None where the whole file is meant.
    problem
        What is wrong.
    fix
        What to do about it.
    unit
        What `row` counts: ``line`` or ``row``.
    """

    file: str
    row: int | None
    problem: str
    fix: str
    unit: str = "line"

    def __str__(self) -> str:
        where = self.file if self.row is None else f"{self.file}, {self.unit} {self.row}"
        return f"{where}: {self.problem}; fix: {self.fix}"


class TableError(ValueError):
    """Raised for tables with problems; the message names the first of them, `problems` holds all.

    Parameters
    ----------
    problems
        All the problems found, at least one.
    shown
        How many of them the message spells out.
    """

    def __init__(self, problems: list[Problem], shown: int = 10) -> None:
        self.problems = problems
        lines = [str(problem) for problem in problems[:shown]]
        if len(problems) > shown:
            lines.append(f"... and {len(problems) - shown} more problems")
        super().__init__("\n".join(lines))


@dataclass(frozen=True, eq=False)
class Table:
    """A table whose values are text, and where its rows come from.

    Attributes
    ----------
    frame
        The values as strings, "" where a cell is empty or null; whole-number columns of a Parquet file keep
        their type.
    file
        The name that messages give it.
    path
        The CSV or TSV file, None for other sources.
    records
        For each row of `frame` its 1-based record in the file, header included; None: rows count from 1.
    malformed
        The rows that could not be read.
    """

    frame: pd.DataFrame
    file: str
    path: Path | None = None
    records: Int[np.ndarray, " rows"] | None = None
    malformed: tuple[Problem, ...] = ()

    def problem(self, row: int | None, problem: str, fix: str) -> Problem:
        """Return a problem of the row at position `row` of `frame` (None: of the whole table)."""
        if row is None:
            return Problem(self.file, None, problem, fix)
        if self.path is None or self.records is None:
            return Problem(self.file, row + 1, problem, fix, unit="row")
        return Problem(self.file, int(self._lines[self.records[row] - 1]), problem, fix)

    def with_frame(self, frame: pd.DataFrame) -> "Table":
        """Return the same source with another frame, whose index tells from which rows of this one its rows stem."""
        records = None if self.records is None else self.records[frame.index]
        return replace(self, frame=frame.reset_index(drop=True), records=records)

    @cached_property
    def _lines(self) -> Int[np.ndarray, " records"]:
        assert self.path is not None
        return record_lines(self.path)


def as_text(values: pd.Series) -> pd.Series:
    """Return a column as text: null is "", whole numbers have no decimal point, lists are joined by " | "."""
    if pd.api.types.is_float_dtype(values):
        whole = values.dropna()
        if len(whole) and np.isfinite(whole).all() and (whole == np.floor(whole)).all() and whole.abs().max() < 2**53:
            values = values.astype("Int64")
    elif pd.api.types.is_object_dtype(values):
        values = values.map(_cell_text)
    return values.astype("str").where(values.notna(), "").astype("str")


def text_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns are text (`as_text`); whole-number columns keep their type, the index goes."""
    columns = [frame.iloc[:, place] for place in range(frame.shape[1])]  # by place: a name may be there twice
    # NumPy's integers can't be null; pandas' own can, and become text with the rest.
    plain = [isinstance(column.dtype, np.dtype) and np.issubdtype(column.dtype, np.integer) for column in columns]
    texts = [column if whole else as_text(column) for column, whole in zip(columns, plain)]
    return pd.concat(texts, axis=1).reset_index(drop=True) if texts else pd.DataFrame()


def _cell_text(cell: object) -> object:
    if isinstance(cell, (list, tuple, np.ndarray)):
        return " | ".join(str(part) for part in cell)
    return cell


def find_table(folder: Path, stem: str) -> Path:
    """Return the file ``<stem>.parquet``, ``.csv`` or ``.tsv`` of a folder.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If there are several, since it would be open which of them counts.
    """
    found = [folder / f"{stem}{suffix}" for suffix in SUFFIXES if (folder / f"{stem}{suffix}").is_file()]
    if not found:
        endings = ", ".join(f"{stem}{suffix}" for suffix in SUFFIXES)
        raise FileNotFoundError(f"{folder}: no {stem} table; fix: add one of {endings}")
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise TableError([Problem(found[0].name, None, f"{names} both exist", "keep only one of them")])
    return found[0]


def read_table(path: Path) -> Table:
    """Read a CSV, TSV or Parquet file as text.

    CSV follows RFC 4180 (fields with commas, quotes or line breaks stand in double quotes). TSV takes every field
    literally: no quoting, so a field can hold quotation marks but no tab and no line break. Both are UTF-8.

    Parameters
    ----------
    path
        The file; its ending says what it is.

    Returns
    -------
    Table
        Rows with the wrong number of fields are left out and listed in `malformed`.

    Raises
    ------
    ValueError
        If the file is empty, not UTF-8, not Parquet, or has an unknown ending.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path)
    if path.suffix in (".csv", ".tsv"):
        return read_delimited(path)
    raise TableError([Problem(path.name, None, f"unknown ending {path.suffix!r}", f"use one of {', '.join(SUFFIXES)}")])


def _read_parquet(path: Path) -> Table:
    try:
        frame = text_frame(pyarrow.parquet.read_table(path).to_pandas())
    except UnicodeDecodeError:
        raise TableError(
            [Problem(path.name, None, "a column holds bytes that are no UTF-8", "write it as text")]
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise TableError(
            [Problem(path.name, None, f"not a readable Parquet file ({error})", "write it again")]
        ) from None
    return Table(frame, path.name)


def _delimiter(path: Path) -> str:
    return "," if path.suffix == ".csv" else "\t"


def read_delimited(path: Path) -> Table:
    """Read a file as `read_table` does: as CSV if its ending is ``.csv``, as TSV whatever else its ending is."""
    delimiter = _delimiter(path)
    invalid: list[pyarrow.csv.InvalidRow] = []

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        invalid.append(row)
        return "skip"

    parse = pyarrow.csv.ParseOptions(
        delimiter=delimiter,
        quote_char='"' if delimiter == "," else False,
        newlines_in_values=delimiter == ",",
        invalid_row_handler=skip,
    )
    # One thread: only then does the parser number the rows that it refuses.
    read = pyarrow.csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES)
    try:
        convert = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(_header(path, delimiter), pa.string()), strings_can_be_null=False
        )
        frame = pyarrow.csv.read_csv(path, read, parse, convert).to_pandas()
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise TableError([_unreadable(path, error)]) from None
    refused = np.array([row.number for row in invalid], dtype=np.int64)
    records = np.delete(np.arange(2, len(frame) + len(invalid) + 2), refused - 2)  # record 1 is the header
    lines = record_lines(path) if invalid else np.empty(0, dtype=np.int64)
    malformed = tuple(
        Problem(
            path.name,
            int(lines[row.number - 1]),
            f"{row.actual_columns} fields where the header has {row.expected_columns}",
            "quote fields that hold the delimiter, add or remove fields"
            if delimiter == ","
            else "a field may hold no tab and no line break",
        )
        for row in invalid
    )
    return Table(frame.astype("str"), path.name, path, records, malformed)


def _header(path: Path, delimiter: str) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file, _long_fields(path.stat().st_size):
        return next((row for row in _rows(file, delimiter) if row), [])


@contextmanager
def _long_fields(length: int) -> Iterator[None]:
    """Let the csv module read fields of any length: descriptions may be longer than its default limit."""
    limit = csv.field_size_limit(max(length, 1))
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _rows(file: TextIO, delimiter: str) -> "_csv._reader":
    if delimiter == ",":
        return csv.reader(file)
    return csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_NONE)


def _unreadable(path: Path, error: Exception) -> Problem:
    content = path.read_bytes()
    if not content.strip():
        return Problem(path.name, None, "the file is empty", "add a header line and rows")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as wrong:
        line = content.count(b"\n", 0, wrong.start) + 1
        return Problem(path.name, line, "not UTF-8 text", "save the file with UTF-8 encoding")
    return Problem(path.name, None, f"not readable as a table ({error})", "check its quotes and delimiters")


def record_lines(path: Path) -> Int[np.ndarray, " records"]:
    """Return the 1-based line at which each record of a CSV or TSV file starts, blank lines left out, header first."""
    text = path.read_text(encoding="utf-8-sig")
    with _long_fields(len(text)):
        reader = _rows(io.StringIO(text, newline=""), _delimiter(path))
        starts, line = [], 1
        for record in reader:
            if record:
                starts.append(line)
            line = reader.line_num + 1
    return np.array(starts, dtype=np.int64)
