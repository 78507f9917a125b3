"""The values that pass between a check and the program that it calls: JSON that keeps Python's own types.

`guest_check.py` imports this file before it leaves the host. It imports no other file of ours but `guest_tasks.py`.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
from importlib import import_module

tasks = import_module("guest_tasks")


class Far:
    """An object in the program's process. `_path`: its number, in a list."""

    _path: list


class Objects(list):
    """The program's objects that a check knows, each once: their places are their numbers."""

    def __init__(self):
        super().__init__()
        self.places: dict[int, int] = {}

    def number(self, value) -> int:
        place = self.places.setdefault(id(value), len(self))
        if place == len(self):
            self.append(value)
        return place


def pairs(value: dict) -> list:
    return [list(pair) for pair in value.items()]


# Types that pass between program and check: what they consist of, and how they are made of it.
KINDS = {
    **{kind: (list, kind) for kind in (tuple, set, frozenset, collections.deque, bytes, bytearray)},
    dict: (pairs, dict),
    collections.OrderedDict: (pairs, collections.OrderedDict),
    collections.defaultdict: (pairs, dict),
    collections.Counter: (pairs, lambda parts: collections.Counter(dict(parts))),
    range: (lambda value: [value.start, value.stop, value.step], lambda parts: range(*parts)),
    complex: (lambda value: [value.real, value.imag], lambda parts: complex(*parts)),
    fractions.Fraction: (lambda value: [value.numerator, value.denominator], lambda parts: fractions.Fraction(*parts)),
    decimal.Decimal: (lambda value: [str(value)], lambda parts: decimal.Decimal(*parts)),
    datetime.date: (lambda value: [value.isoformat()], lambda parts: datetime.date.fromisoformat(*parts)),
    datetime.datetime: (lambda value: [value.isoformat()], lambda parts: datetime.datetime.fromisoformat(*parts)),
    datetime.timedelta: (lambda value: [value.days, value.seconds, value.microseconds],
                         lambda parts: datetime.timedelta(*parts)),
}  # fmt: skip
TYPES = {kind.__name__: kind for kind in (bool, int, float, str, list, type(None), *KINDS)}  # they pass by name
MAKERS = {kind.__name__: make for kind, (_, make) in KINDS.items()}


# The plain value of one of a subclass, without what the program defines; and subclasses here, which know its object.
BASES = {
    tuple: lambda value: tuple(tuple.__iter__(value)), str: str.__str__, int: int.__int__, float: float.__float__,
    list: lambda value: list(list.__iter__(value)), dict: lambda value: dict(dict.items(value)),
}  # fmt: skip


def likeness(base: type) -> type:
    def attribute(self, name: str):
        if name.startswith("__") or name == "remote":
            raise AttributeError(name)
        return getattr(self.remote, name)

    return type(base.__name__, (base,), {"__getattr__": attribute})


LIKES = {base.__name__: likeness(base) for base in BASES}


def encode(value, objects: Objects | None):
    """Return `value` as JSON that keeps Python's own types. No plain value: it stays in `objects`; its number goes."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [encode(item, objects) for item in value]
    if kind in KINDS:
        return {kind.__name__: [encode(item, objects) for item in KINDS[kind][0](value)]}
    if kind is type and TYPES.get(value.__name__) is value:
        return {"type": value.__name__}
    if isinstance(value, Far):
        return {"object": value._path[0]}
    if kind in LIKES.values():
        return {"object": value.remote._path[0]}
    if objects is None:
        raise TypeError(f"a {kind.__name__} can't be handed to the program")
    has_methods = any(callable(each) for name, each in vars(kind).items() if not name.startswith("__"))
    for base, plain_of in BASES.items():
        if isinstance(value, base) and not (has_methods and base in (list, dict)):  # a named tuple, an IntEnum
            return {"like": [base.__name__, encode(plain_of(value), objects), objects.number(value)]}
    if isinstance(value, tasks.VIEWS):
        return encode(list(value), objects)
    return {"iterator" if tasks.is_iterator(value) else "object": objects.number(value)}


def decode(value, find):
    """Undo `encode`; `find` returns an object by its number and whether it iterates. Raises for anything else."""
    if isinstance(value, list):
        return [decode(item, find) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind in ("object", "iterator"):
        return find(content, kind == "iterator")
    if kind == "type":
        return TYPES[content]
    if kind == "like":
        base, plain_value, number = content
        value = LIKES[base](decode(plain_value, find))
        value.remote = find(number, False)
        return value
    return MAKERS[kind]([decode(item, find) for item in content])
