"""How answers look: a table for people, JSON, JSON lines or CSV for programs; data on stdout, all else on stderr.

Knows rows and columns. Must never know where they come from. Text of others is shown without control characters, so
that no peer can write to the terminal.
"""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import click

ID_CHARS = 12  # enough to be unique in a small mesh, and accepted everywhere an id is
CELL_CHARS_MAX = 400  # of a cell in a table: one long text must not make every line long; -o json has all of it


class Column(NamedTuple):
    """One column: key in the row, heading, and how a person reads the value."""

    key: str
    title: str
    show: Callable[[Any], str] = str


def plain(text: object) -> str:
    """One line without control characters."""
    return "".join(char if char.isprintable() else " " for char in str(text))


def lines(text: object) -> str:
    """Text of several lines without other control characters."""
    return "\n".join(plain(line) for line in str(text).splitlines())


def clipped(text: str, length: int = CELL_CHARS_MAX) -> str:
    """The beginning of a text that is too long."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def short(value: object) -> str:
    """The beginning of an id."""
    return str(value or "")[:ID_CHARS]


def credits(value: object) -> str:
    """Micro-credits as credits."""
    micro = value if isinstance(value, int) else 0
    sign, (whole, rest) = "-" if micro < 0 else "", divmod(abs(micro), 1_000_000)
    return sign + (str(whole) if not rest else f"{whole}.{rest:06d}".rstrip("0"))


def gigabytes(value: object) -> str:
    """Bytes as gigabytes."""
    return f"{value / 1e9:.1f} GB" if isinstance(value, (int, float)) else ""


def yes(value: object) -> str:
    """yes or no."""
    return "yes" if value else "no"


def counted(number: object, word: str) -> str:
    """A number of things: 1 peer, 2 peers."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def joined(value: object) -> str:
    """A list on one line."""
    return ", ".join(str(item) for item in value) if isinstance(value, (list, tuple)) else str(value or "")


def say(text: str = "") -> None:
    """A word to the person, not to the next program."""
    click.echo(lines(text), err=True)


def put(text: str) -> None:
    """A line of data."""
    click.echo(lines(text))


def put_rows(
    output: str, rows: Iterable[Mapping[str, Any]], columns: Sequence[Column], empty: str = "nothing yet"
) -> None:
    """A list in the chosen format. JSON carries whole rows, tables and CSV the columns."""
    rows = list(rows)
    match output:
        case "json":
            click.echo(_json(rows, indent=2))
        case "jsonl":
            for row in rows:
                click.echo(_json(row))
        case "csv":
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow([plain(column.key) for column in columns])
            writer.writerows([_cell(row.get(column.key)) for column in columns] for row in rows)
        case _ if not rows:
            say(empty)
        case _:
            _put_table([[_line(_shown(column, row)) for column in columns] for row in rows], [c.title for c in columns])


def put_one(output: str, document: Mapping[str, Any], columns: Sequence[Column]) -> None:
    """One thing in the chosen format."""
    match output:
        case "json":
            click.echo(_json(document, indent=2))
        case "jsonl" | "csv":
            put_rows(output, [document], columns)
        case _:
            titles = [_line(column.title) for column in columns]
            width = max(map(len, titles), default=0)
            for title, column in zip(titles, columns, strict=True):
                if column.key in document:
                    # Further lines are indented: no value may look like the next one's line.
                    first, *more = lines(_shown(column, document)).split("\n")
                    put(
                        "\n".join([f"{title:<{width}}  {first}".rstrip(), *(" " * (width + 2) + line for line in more)])
                    )


def fancy() -> bool:
    """Whether stdout is a person's terminal that wants colour."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _json(value: object, indent: int | None = None) -> str:
    """JSON that people can read; what a terminal would obey, or cannot encode, is escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def _shown(column: Column, row: Mapping[str, Any]) -> str:
    value = row.get(column.key)
    try:
        return "" if value is None else column.show(value)
    except (TypeError, ValueError, AttributeError, ArithmeticError):  # a node of another version, or a liar
        return str(value)


def _line(text: str) -> str:
    return clipped(plain(text))


def _cell(value: object) -> object:
    return _json(value) if isinstance(value, (dict, list, tuple)) else plain("" if value is None else value)


def _put_table(cells: list[list[str]], titles: list[str]) -> None:
    if fancy():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in titles:
            table.add_column(title, overflow="fold")
        for row in cells:
            table.add_row(*map(Text, row))  # as text: a cell is no markup, whatever is in it
        Console().print(table)
        return
    widths = [max(len(row[index]) for row in [titles, *cells]) for index in range(len(titles))]
    for row in [titles, *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
