"""Shapes of values in a job file: each can check a value and describe itself as JSON Schema.

Knows text, numbers, lists, records. Must never know what a field means; that is in job_table.py. Numbers are
compared as exact decimals: a float stands for the shortest decimal that denotes it, which is what the person typed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

from nexapod.encoding import check_text
from nexapod.job_faults import Fault, nearest, shown

FAULTS_MAX = 100  # a file with more is not a job file; the rest is dropped so that a hostile one cannot fill memory

Schema = dict[str, object]
Faults = list[Fault]


class Refused:
    """The type of REFUSED: the value was faulty and its fault is already in the list."""


REFUSED = Refused()


class Shape(Protocol):
    """A kind of value."""

    def check(self, path: str, value: object, faults: Faults) -> object:
        """The normalised value, or REFUSED after adding at least one fault."""

    def schema(self) -> Schema:
        """The same rule as JSON Schema (2020-12)."""


def refuse(faults: Faults, path: str, value: object, reason: str, suggestion: str = "") -> Refused:
    """Add one fault and say so."""
    if len(faults) < FAULTS_MAX:
        faults.append(Fault(path, "" if value is None else shown(value), reason, suggestion))
    return REFUSED


def exact(value: object) -> Decimal | None:
    """The number as an exact decimal, or None when it is not a finite number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Decimal(value) if value.bit_length() <= 256 else None
    if isinstance(value, float):
        number = Decimal(repr(value))
        return number if number.is_finite() else None
    return None


def clean_text(value: str, *, lines: bool = False) -> bool:
    """Whether the canonical encoding carries the text; `lines` also allows tabs and line ends (scripts have them)."""
    try:
        check_text(value.replace("\n", "").replace("\t", "") if lines else value)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Text:
    """A string of bounded length; a pattern must match all of it."""

    max_chars: int
    pattern: str = ""
    says: str = ""
    choices: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    min_chars: int = 1
    lines: bool = False

    def check(self, path: str, value: object, faults: Faults) -> object:
        if not isinstance(value, str):
            return refuse(faults, path, value, "must be text")
        if self.choices:
            word = self.aliases.get(value, value)
            if word in self.choices:
                return word
            return refuse(
                faults, path, value, f"must be one of {', '.join(self.choices)}", nearest(value, self.choices)
            )
        if not self.min_chars <= len(value) <= self.max_chars:
            return refuse(faults, path, value, f"must have {self.min_chars} to {self.max_chars} characters")
        if not clean_text(value, lines=self.lines):
            return refuse(faults, path, value, "must be composed (NFC) text without control characters")
        if self.pattern and not re.fullmatch(self.pattern, value, re.ASCII):
            return refuse(faults, path, value, self.says or f"must match {self.pattern}")
        return value

    def schema(self) -> Schema:
        if self.choices:
            return {"enum": [*self.choices, *self.aliases]}
        drawn: Schema = {"type": "string", "minLength": self.min_chars, "maxLength": self.max_chars}
        return drawn | ({"pattern": f"^(?:{self.pattern})$"} if self.pattern else {})


@dataclass(frozen=True)
class RelativePath:
    """A path inside a folder: relative, `/` between parts, no part that climbs or hides."""

    max_chars: int = 1024
    parts_max: int = 16

    def check(self, path: str, value: object, faults: Faults) -> object:
        if not isinstance(value, str):
            return refuse(faults, path, value, "must be text")
        parts = value.split("/")
        if not value or len(value) > self.max_chars or len(parts) > self.parts_max or not clean_text(value):
            return refuse(
                faults, path, value, f"must be a path of at most {self.parts_max} parts and {self.max_chars} characters"
            )
        if any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts) or "\\" in value:
            return refuse(faults, path, value, "must be a relative path with / between its parts, and no . or .. in it")
        return value

    def schema(self) -> Schema:
        return {
            "type": "string",
            "minLength": 1,
            "maxLength": self.max_chars,
            "pattern": r"^(?!/)(?!.*(^|/)\.{0,2}(/|$))[^\\]+$",
        }


@dataclass(frozen=True)
class Whole:
    """A whole number; `1.2e12` is one."""

    low: int
    high: int

    def check(self, path: str, value: object, faults: Faults) -> object:
        number = exact(value)
        if number is None:
            return refuse(faults, path, value, "must be a whole number")
        if not self.low <= number <= self.high:
            return refuse(faults, path, value, f"must be from {self.low} to {self.high}")
        if number != number.to_integral_value():
            return refuse(faults, path, value, "must be a whole number")
        return int(number)

    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Scaled:
    """A decimal number, normalised to a whole count of 1/scale: exact, never rounded."""

    low: int
    high: int
    scale: int

    def check(self, path: str, value: object, faults: Faults) -> object:
        number = exact(value)
        if number is None:
            return refuse(faults, path, value, "must be a number")
        if not self.low <= number <= self.high:
            return refuse(faults, path, value, f"must be from {self.low} to {self.high}")
        if number.adjusted() - len(number.as_tuple().digits) < -64:
            return refuse(faults, path, value, f"is finer than 1/{self.scale}")
        counted = number * self.scale
        if counted != counted.to_integral_value():
            return refuse(faults, path, value, f"is finer than 1/{self.scale}")
        return int(counted)

    def schema(self) -> Schema:
        return {"type": "number", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Flag:
    """true or false."""

    def check(self, path: str, value: object, faults: Faults) -> object:
        return value if isinstance(value, bool) else refuse(faults, path, value, "must be true or false")

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Plain:
    """Any text, number or flag of bounded size: a value of a parameter sweep."""

    def check(self, path: str, value: object, faults: Faults) -> object:
        if isinstance(value, bool) or exact(value) is not None:
            return value
        return Text(1024, min_chars=0).check(path, value, faults)

    def schema(self) -> Schema:
        return {"type": ["string", "number", "boolean"]}


@dataclass(frozen=True)
class ListOf:
    """A list of one shape, bounded, optionally without repetition."""

    item: Shape
    max_items: int
    unique: bool = False
    min_items: int = 0

    def check(self, path: str, value: object, faults: Faults) -> object:
        if not isinstance(value, (list, tuple)):
            return refuse(faults, path, value, "must be a list")
        if not self.min_items <= len(value) <= self.max_items:
            return refuse(faults, path, f"{len(value)} items", f"must have {self.min_items} to {self.max_items} items")
        checked = [self.item.check(f"{path}[{index}]", item, faults) for index, item in enumerate(value)]
        if self.unique:
            seen: list[object] = []
            for index, item in enumerate(checked):
                if item is not REFUSED and item in seen:
                    checked[index] = refuse(faults, f"{path}[{index}]", item, "stands in the list twice")
                seen.append(item)
        return REFUSED if REFUSED in checked else tuple(checked)

    def schema(self) -> Schema:
        drawn: Schema = {"type": "array", "items": self.item.schema(), "maxItems": self.max_items}
        if self.min_items:
            drawn["minItems"] = self.min_items
        return drawn | ({"uniqueItems": True} if self.unique else {})


@dataclass(frozen=True)
class Named:
    """A table from free names to one shape, normalised to pairs sorted by name."""

    name: Text
    item: Shape
    max_items: int

    def check(self, path: str, value: object, faults: Faults) -> object:
        if not isinstance(value, Mapping):
            return refuse(faults, path, value, "must be a table of names and values")
        if len(value) > self.max_items:
            return refuse(faults, path, f"{len(value)} entries", f"must have at most {self.max_items} entries")
        pairs: list[tuple[str, object]] = []
        for key, item in value.items():
            name = self.name.check(f"{path}.{shown(key)[1:-1]}", key, faults)
            checked = self.item.check(f"{path}.{shown(key)[1:-1]}", item, faults)
            if isinstance(name, str) and checked is not REFUSED:
                pairs.append((name, checked))
        return tuple(sorted(pairs)) if len(pairs) == len(value) else REFUSED

    def schema(self) -> Schema:
        drawn: Schema = {"type": "object", "additionalProperties": self.item.schema(), "maxProperties": self.max_items}
        return drawn | ({"propertyNames": self.name.schema()})


@dataclass(frozen=True)
class Either:
    """One of several shapes; the first that fits decides, the last one words the fault."""

    shapes: tuple[Shape, ...]

    def check(self, path: str, value: object, faults: Faults) -> object:
        for shape in self.shapes[:-1]:
            checked = shape.check(path, value, [])
            if checked is not REFUSED:
                return checked
        return self.shapes[-1].check(path, value, faults)

    def schema(self) -> Schema:
        return {"anyOf": [shape.schema() for shape in self.shapes]}


@dataclass(frozen=True)
class Field:
    """One key of a record: its shape, what it is for, and whether it must be there."""

    name: str
    shape: Shape
    about: str
    required: bool = False


@dataclass(frozen=True)
class Record:
    """A table with known keys only; normalised to a dict of the keys that were given."""

    fields: tuple[Field, ...]

    def check(self, path: str, value: object, faults: Faults) -> object:
        if not isinstance(value, Mapping):
            return refuse(faults, path, value, "must be a table of names and values")
        known = {field.name: field for field in self.fields}
        start = f"{path}." if path else ""
        checked: dict[str, object] = {}
        for key, item in value.items():
            if len(faults) >= FAULTS_MAX:  # nobody hears of the rest, and looking for what was meant is slow
                return REFUSED
            if isinstance(key, str) and key in known:
                checked[key] = known[key].shape.check(start + key, item, faults)
            else:
                name = shown(key)[1:-1]
                checked[name] = refuse(faults, start + name, item, "is not a known key", nearest(str(key), known))
        for name, member in known.items():
            if member.required and name not in value:
                checked[name] = refuse(faults, start + name, None, f"is missing: {member.about}")
        return REFUSED if any(item is REFUSED for item in checked.values()) else checked

    def sound(self, value: object) -> dict[str, object]:
        """Of a faulty table, the parts that are sound on their own."""
        found: dict[str, object] = {}
        for member in self.fields if isinstance(value, Mapping) else ():
            if isinstance(value, Mapping) and member.name in value:
                quiet: Faults = []
                checked = member.shape.check("", value[member.name], quiet)
                if quiet and isinstance(member.shape, Record):
                    found[member.name] = member.shape.sound(value[member.name])
                elif not quiet:
                    found[member.name] = checked
        return found

    def schema(self) -> Schema:
        properties = {field.name: {"description": field.about} | field.shape.schema() for field in self.fields}
        drawn: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        required = [field.name for field in self.fields if field.required]
        return drawn | ({"required": required} if required else {})
