"""Strict JSON for the frozen records of this package.

A record becomes an object of its fields; a record that stands in a union also carries its `kind`. Reading checks every
type, refuses unknown and missing fields, booleans given as numbers, NaN and infinity, and says where in the document
the fault is. No code is ever run from a document, and nothing in it makes reading slow or deep: lists are bounded and
values nest only as far as the records do.
"""

import dataclasses
import functools
import math
import types
import typing
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from netsmith.errors import InputError

T = TypeVar("T")

MAX_ITEMS = 4096


def added(default: T) -> T:
    """A field that joined its record after documents without it were written; absent, it means `default`."""
    return dataclasses.field(default=default, metadata={"added": True})


def to_json(value: Any) -> Any:
    """Turn a record (nested tuples, numbers, strings and records) into plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
        tag = _tag(type(value))
        return fields if tag is None else {"kind": tag, **fields}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    return value


def from_json(record: type[T], value: Any, *, where: str = "document") -> T:
    """Read a record of class `record` from plain JSON values.

    Args:
        record: a frozen dataclass.
        value: what `json.loads` gave.
        where: how the error names the document, such as a file name.

    Raises:
        InputError: on any departure from the record's types; the message names the place.
    """
    return typing.cast(T, _read(record, value, where))


@functools.cache
def _hints(record: type) -> dict[str, Any]:
    return get_type_hints(record)


def _tag(record: Any) -> str | None:
    """The tag a record carries in unions: its class attribute `kind`, where that is not one of its fields."""
    if not dataclasses.is_dataclass(record) or "kind" in {field.name for field in dataclasses.fields(record)}:
        return None
    return getattr(record, "kind", None)


def _fail(where: str, expected: str, value: Any) -> InputError:
    return InputError(f"{where}: expected {expected}, found {_shown(value)}")


def _shown(value: Any) -> str:
    """A value as a person can read it in one sentence, whatever its size and depth."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case dict():
            return "an object"
        case list():
            return f"a list of {len(value)}"
        case int() if value.bit_length() > 64:
            return f"an integer of {value.bit_length()} bits"
        case str() if len(value) > 60:
            return repr(value[:57] + "...")
        case _:
            return repr(value)


def _read(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _read_union(get_args(hint), value, where)
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in get_args(hint)):
            raise _fail(where, "one of " + ", ".join(map(repr, get_args(hint))), value)
        return value
    if origin is tuple:
        return _read_tuple(get_args(hint), value, where)
    if dataclasses.is_dataclass(hint):
        return _read_record(typing.cast(type, hint), value, where)
    if hint is float and type(value) is int and value.bit_length() <= 64:
        return float(value)
    if type(value) is not hint:
        raise _fail(where, {int: "an integer", float: "a number", str: "a string", bool: "true or false"}[hint], value)
    if hint is int and value.bit_length() > 64:
        raise _fail(where, "an integer of at most 64 bits", value)
    if hint is float and not math.isfinite(value):
        raise _fail(where, "a finite number", value)
    return value


def _read_union(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in choices:
        return None
    records = {tag: choice for choice in choices if (tag := _tag(choice)) is not None}
    if isinstance(value, dict) and records:
        kind = value.get("kind")
        if not isinstance(kind, str) or kind not in records:
            raise _fail(f"{where}.kind", "one of " + ", ".join(map(repr, sorted(records))), kind)
        return _read_record(records[kind], value, where)
    plain = [choice for choice in choices if choice is not type(None) and choice not in records.values()]
    for choice in plain[:-1]:
        try:
            return _read(choice, value, where)
        except InputError:
            continue
    if plain:
        return _read(plain[-1], value, where)
    raise _fail(where, "an object", value)


def _read_tuple(items: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _fail(where, "a list", value)
    if len(value) > MAX_ITEMS:
        raise _fail(where, f"a list of at most {MAX_ITEMS}", value)
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(_read(items[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(items):
        raise _fail(where, f"a list of {len(items)}", value)
    return tuple(_read(hint, item, f"{where}[{i}]") for i, (hint, item) in enumerate(zip(items, value, strict=True)))


def _read_record(record: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _fail(where, "an object", value)
    names = [field.name for field in dataclasses.fields(record)]
    given = dict(value)
    if (tag := _tag(record)) is not None and (kind := given.pop("kind", None)) != tag:
        raise _fail(f"{where}.kind", repr(tag), kind)
    if unknown := [key for key in given if key not in names]:
        raise InputError(f"{where}: unknown field {_shown(unknown[0])}; known are {', '.join(names) or 'none'}")
    late = {field.name: field.default for field in dataclasses.fields(record) if field.metadata.get("added")}
    if missing := [name for name in names if name not in given and name not in late]:
        raise InputError(f"{where}: field {missing[0]!r} is missing")
    hints = _hints(record)
    fields = {
        name: _read(hints[name], given[name], f"{where}.{name}") if name in given else late[name] for name in names
    }
    try:
        return record(**fields)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
