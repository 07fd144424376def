"""Values of any message type, made from the types themselves: random ones, and the one with the longest encoding."""

import re
from typing import Any

import msgspec.inspect as inspect
from hypothesis import strategies as st
from msgspec import Raw, Struct

from nexapod import messages
from nexapod.encoding import Wire, as_text, encode

LONGEST = "\U0001d11e"  # four bytes in UTF-8
TEXTS = st.text(st.characters(codec="utf-8", max_codepoint=0x2FFFF), max_size=40)


def wire_types() -> list[type[Wire]]:
    """Every message type of the protocol."""
    found = [item for item in vars(messages).values() if isinstance(item, type) and issubclass(item, Wire)]
    return [item for item in found if item.__module__ == messages.__name__]


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Sound values of a type, boundaries included."""
    return _values(inspect.type_info(kind))


def _values(shape: inspect.Type) -> st.SearchStrategy[Any]:
    match shape:
        case inspect.IntType():
            return st.integers(shape.ge or 0, _most(shape))
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.BytesType():
            return st.binary(min_size=shape.min_length or 0, max_size=min(shape.max_length or 0, 64))
        case inspect.StrType(pattern=str() as pattern):
            return st.from_regex(re.compile(pattern, re.ASCII))
        case inspect.StrType():
            return TEXTS.map(lambda text: as_text(text, shape.max_length or 0))
        case inspect.EnumType():
            return st.sampled_from(list(shape.cls))
        case inspect.UnionType():
            return st.one_of([_values(item) for item in shape.types])
        case inspect.VarTupleType():
            least = shape.min_length or 0
            most = min(shape.max_length or 3, least + 3)
            return st.lists(_values(shape.item_type), min_size=least, max_size=most).map(tuple)
        case inspect.StructType():
            return st.builds(shape.cls, *[_values(field.type) for field in shape.fields])
        case inspect.CustomType() | inspect.RawType():
            return st.sampled_from([Raw(encode(0)), Raw(encode((1, b"x")))])
    raise NotImplementedError(shape)


def worst(kind: Any) -> Any:
    """The value of a type with the longest encoding its bounds allow; a list without a bound has none."""
    return _worst(inspect.type_info(kind))


def _worst(shape: inspect.Type) -> Any:
    match shape:
        case inspect.IntType():
            return _most(shape)
        case inspect.BoolType():
            return True
        case inspect.NoneType():
            return None
        case inspect.BytesType(max_length=int() as most):
            return b"\xff" * most
        case inspect.StrType(pattern=str() as pattern):
            return _longest_match(pattern)
        case inspect.StrType(max_length=int() as most):
            return LONGEST * most
        case inspect.EnumType():
            return max(shape.cls)
        case inspect.UnionType():
            return max((_worst(item) for item in shape.types), key=lambda value: len(encode(value)))
        case inspect.VarTupleType(max_length=int() as most):
            return (_worst(shape.item_type),) * most
        case inspect.StructType():
            return shape.cls(*[_worst(field.type) for field in shape.fields])
    raise NotImplementedError(shape)


def _most(shape: inspect.IntType) -> int:
    if shape.lt is not None:
        return shape.lt - 1
    assert shape.le is not None, "an integer without an upper bound"
    return shape.le


def _longest_match(pattern: str) -> str:
    """Our patterns are runs of ASCII, so their longest match is so many letters."""
    widest = max(size for size in range(1, 1025) if re.match(pattern, "a" * size))
    assert not any(re.match(pattern, LONGEST * size) for size in (1, widest))
    return "a" * widest


def with_text(value: Any, bad: str) -> list[Any]:
    """Copies of a value as plain lists, each with one text in it replaced."""
    if isinstance(value, str):
        return [bad]
    if isinstance(value, Struct):
        tag = value.__struct_config__.tag
        fields = [getattr(value, name) for name in value.__struct_fields__]
        return [copy if tag is None else [tag, *copy] for copy in _each(fields, bad)]
    if isinstance(value, tuple):
        return _each(list(value[:2]), bad)
    return []


def _each(parts: list[Any], bad: str) -> list[list[Any]]:
    return [[*parts[:at], copy, *parts[at + 1 :]] for at, part in enumerate(parts) for copy in with_text(part, bad)]
