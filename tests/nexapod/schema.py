"""The part of JSON Schema 2020-12 that the published schema uses, so that the tests need no library for it."""

import re
from typing import Any

NOT_RULES = {"$schema", "title", "description"}
TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "number": (int, float)}


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """Whether the value is valid; a keyword this file does not know is an error in the test."""
    return all(_holds(word, rule, value, schema) for word, rule in schema.items() if word not in NOT_RULES)


def _holds(word: str, rule: Any, value: Any, schema: dict[str, Any]) -> bool:
    match word:
        case "type":
            return any(_is(name, value) for name in ([rule] if isinstance(rule, str) else rule))
        case "enum":
            return value in rule
        case "anyOf":
            return any(accepts(one, value) for one in rule)
        case "oneOf":
            return sum(accepts(one, value) for one in rule) == 1
    if isinstance(value, bool):
        return True
    if isinstance(value, str):
        return _text_holds(word, rule, value)
    if isinstance(value, int | float):
        return not (word == "minimum" and value < rule) and not (word == "maximum" and value > rule)
    if isinstance(value, list):
        return _list_holds(word, rule, value)
    return not isinstance(value, dict) or _table_holds(word, rule, value, schema)


def _is(name: str, value: Any) -> bool:
    if name == "integer":
        return isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
    if name == "number" and isinstance(value, bool):
        return False
    return isinstance(value, TYPES[name])


def _text_holds(word: str, rule: Any, value: str) -> bool:
    match word:
        case "minLength":
            return len(value) >= int(rule)
        case "maxLength":
            return len(value) <= int(rule)
        case "pattern":
            return re.search(rule, value) is not None
    raise NotImplementedError(word)


def _list_holds(word: str, rule: Any, value: list[Any]) -> bool:
    match word:
        case "items":
            return all(accepts(rule, item) for item in value)
        case "minItems":
            return len(value) >= int(rule)
        case "maxItems":
            return len(value) <= int(rule)
        case "uniqueItems":
            return not rule or len({repr(item) for item in value}) == len(value)
    raise NotImplementedError(word)


def _table_holds(word: str, rule: Any, value: dict[str, Any], schema: dict[str, Any]) -> bool:
    match word:
        case "properties":
            return all(accepts(rule[key], item) for key, item in value.items() if key in rule)
        case "additionalProperties":
            others = [item for key, item in value.items() if key not in schema.get("properties", {})]
            return not others if rule is False else all(accepts(rule, item) for item in others)
        case "propertyNames":
            return all(accepts(rule, key) for key in value)
        case "maxProperties":
            return len(value) <= int(rule)
        case "required":
            return all(key in value for key in rule)
    raise NotImplementedError(word)
