"""A check, and the program that it calls: two processes in the sandbox, and what they ask of each other.

`guest.py` imports this file before it leaves the host. It imports no other files of ours but those beside it.
"""

from __future__ import annotations

import ast
import builtins
import collections
import contextlib
import json
import os
import socket
import sys
import threading
import types
from importlib import import_module

tasks, values = import_module("guest_tasks"), import_module("guest_values")
encode, decode = values.encode, values.decode


def serve(config: dict) -> None:
    """Serve the program's side of a check: do what is asked for and reply with the result."""
    objects = values.Objects()
    stream = socket.socket(fileno=3).makefile("rw")
    module = tasks.load(config, "answer")
    for line in stream:
        verb, path, *arguments = decode(json.loads(line), lambda index, _: objects[index])
        try:
            target = objects[path[0]] if isinstance(path[0], int) else getattr(module, path[0])
            for name in path[1:]:
                target = getattr(target, name)
            reply = {"value": encode(VERBS[verb](target, *arguments), objects)}
        except Exception as error:
            reply = {"error": [kind.__name__ for kind in type(error).__mro__]}
            with contextlib.suppress(Exception):
                reply["arguments"] = encode(list(error.args), objects)
        stream.write(json.dumps(reply) + "\n")
        stream.flush()


def change(function, positional: list, named: dict) -> list:
    """Call a function and return its arguments, which it may have changed."""
    function(*positional, **named)
    return [*positional, *named.values()]


# What a check may ask of an object of the program.
VERBS = {
    "get": lambda target: target,
    "set": setattr,
    "call": lambda function, positional, named: function(*positional, **named),
    "change": change,
    "bool": bool,
    "equal": lambda one, other: bool(one == other),
    "isinstance": lambda kind, value: isinstance(value, kind),
    "issubclass": lambda kind, other: issubclass(other, kind),
}


# What checks compare results with: Python's, if a check tests other names.
HELPERS = {"isclose", "fabs", "fsum", "deepcopy", "Counter", "OrderedDict", "defaultdict", "deque", "islice", "chain"}


def check(config: dict) -> None:
    """Run the check's side, then report `{"asked", "held", "error"}`.

    Names that the check does not define are the program's. It holds if it ran to its end, used the program, and every
    assertion that it began was true. An assertion that fails counts even if the check catches its error. Leaving by
    `sys.exit(0)`, as `unittest.main` does, is an end if it happens in the last statement.
    """
    source, program = sys.stdin.read(), Program(socket.socket(fileno=3))

    def exit(code=None):
        raise SystemExit(code)

    os._exit = exit
    sys.argv = ["check.py"]
    sys.modules["__main__"] = tasks.MODULE
    for helpers in (HELPERS, set()):  # if nothing else is asked of the program, a helper is what is tested
        found = attempt(source, program, helpers)
        if program.uses or program.missed:
            break
    os.write(4, json.dumps(found).encode())


def attempt(source: str, program: Program, helpers: set[str]) -> dict:
    """Run a check. Names of the prelude are the program's, but for `helpers`, modules, numbers and types of hints."""
    names, tree, counted = vars(tasks.MODULE), ast.parse(source, "check.py"), OfCheck()
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    called = {function.id for function in calls if isinstance(function, ast.Name)}
    usual = {name: getattr(builtins, name) for name in tasks.USUAL - helpers}
    usual = {name: value for name, value in usual.items() if name in called or not is_tool(value)}

    class Builtins(dict):
        def __missing__(self, name):
            if name.startswith("__"):
                raise KeyError(name)
            try:
                return program.ask("get", [name])
            except AttributeError:
                if callable(usual.get(name, callable)):
                    raise KeyError(name) from None
                return usual[name]

    tally = Tally()
    if "unittest" in source:
        tally.count_unittest()
        counted.any = True
    code = compile(ast.fix_missing_locations(counted.visit(tree)), "check.py", "exec", dont_inherit=True)
    known = {name: value for name, value in vars(builtins).items() if name not in usual}
    names |= {"__builtins__": Builtins(known), "__assertions__": tally, "__in_place__": in_place}
    ended, error = True, ""
    try:
        exec(code, names)
    except SystemExit as leaving:
        step, last = leaving.__traceback__.tb_next, tree.body[-1]
        line, _, column, _ = list(code.co_positions())[step.tb_lasti // 2]
        ended = leaving.code in (None, 0) and (line, column) >= (last.lineno, last.col_offset)
    except BaseException as failure:
        ended, error = False, f"{type(failure).__name__}: {failure}"[:200]
    threading._shutdown()  # assertions in threads count as well
    fine = ended and tally.begun == tally.held
    held = fine and program.uses > 0 and tally.held >= counted.any
    asked = not program.unable and (program.uses > 0 or (program.missed > 0 and not fine))
    return {"asked": asked, "held": held, "error": error}


def is_tool(value) -> bool:
    return isinstance(value, (types.ModuleType, float)) or getattr(value, "__module__", "") == "typing"


class Tally:
    """The assertions that a check began, and those that were true."""

    def __init__(self):
        self.begun = self.held = 0

    def count_unittest(self) -> None:
        """Count each test of unittest as an assertion, also if the check ignores the result."""
        from unittest import TestResult

        def wrap(name: str, held: bool) -> None:
            method = getattr(TestResult, name)

            def counting(result, test, *rest):
                if name != "addSubTest" or rest[1] is not None:
                    self.begun += 1
                    self.held += held
                return method(result, test, *rest)

            setattr(TestResult, name, counting)

        wrap("addSuccess", True)
        for name in ("addFailure", "addError", "addUnexpectedSuccess", "addSubTest"):
            wrap(name, False)


class OfCheck(ast.NodeTransformer):
    """Rewrite `assert a, b` so that the tally knows of it before `b`, which may leave, is evaluated.

    A call that is a statement, as `sort(numbers)` or `node.children.append(x)`, may change things in place.
    """

    any = False

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        if isinstance(call := node.value, ast.Call):
            target, names = call.func, []
            while isinstance(target, ast.Attribute) and not target.attr.startswith("__"):
                target, names = target.value, [ast.Constant(target.attr), *names]
            call.func = ast.copy_location(
                ast.Call(ast.Name("__in_place__", ast.Load()), [target, *names], []), call.func
            )
        return node

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        if isinstance(node.test, ast.Constant) and node.test.value:
            return [node]  # it asserts nothing
        self.any |= not isinstance(node.test, ast.Constant)  # `assert False` can't be true
        begin, hold, fail = ast.parse(
            "__assertions__.begun += 1\n__assertions__.held += 1\nraise AssertionError(0)"
        ).body
        fail.exc.args = [node.msg] if node.msg else []
        branch = ast.If(node.test, [hold], [fail])
        return [ast.copy_location(statement, node) for statement in (begin, branch)]


class Program:
    """The way to the program's process."""

    def __init__(self, connection: socket.socket):
        self._stream, self._lock = connection.makefile("rw"), threading.Lock()
        self.uses = self.missed = 0  # of objects and values of the program; names that it lacks
        self.unable = False  # to hand over a function or object of the check
        self._known: dict[int, Remote] = {}

    def ask(self, verb: str, path: list, *arguments):
        """Do one of `VERBS` with the object that the path names. Raises the program's exception."""
        try:
            request = encode([verb, path, *arguments], None)
        except TypeError:
            self.unable = True
            raise
        line = ""
        with self._lock, contextlib.suppress(OSError):
            self._stream.write(json.dumps(request) + "\n")
            self._stream.flush()
            line = self._stream.readline()
        if not line.endswith("\n"):
            tasks.END(1)  # the program's process ended; not an exception, which the check might catch
        try:
            reply = json.loads(line)
            value, error = self._decoded(reply.get("value")), None
            if "error" in reply:
                error = self._error(list(map(str, reply["error"])), reply.get("arguments", []), path)
        except Exception:
            tasks.END(1)  # the program forged a reply
        is_name = verb == "get" and isinstance(path[0], str)
        if error is not None:
            self.missed += is_name
            self.uses += not is_name
            raise error
        self.uses += not (is_name and isinstance(value, Remote))
        return value

    def _decoded(self, value):
        def find(number, iterates: bool) -> Remote:
            kind = RemoteIterator if iterates else Remote
            return self._known.setdefault(int(number), kind(self, [int(number)]))

        return decode(value, find)

    def _error(self, names: list[str], arguments, path: list) -> Exception:
        """Return the program's exception as Python's nearest one, by the names of its classes."""
        if names[0] == "StopIteration" and path[-1] == "__next__":
            return StopIteration()
        if {"StopIteration", "StopAsyncIteration"} & set(names):  # they would end a loop as if all were well
            return RuntimeError("in the program")
        for name in names:
            kind = None if name in tasks.USUAL else getattr(builtins, name, None)
            if isinstance(kind, type) and issubclass(kind, Exception):
                with contextlib.suppress(Exception):
                    return kind(*self._decoded(arguments))
        return RuntimeError("in the program")


class Remote(values.Far):  # no docstring: `__doc__` is the program's
    # A function, class or object in the program's process. It never equals a value of Python's own types.

    def __init__(self, program: Program, path: list):
        vars(self).update(_program=program, _path=path)

    def __getattr__(self, name: str):
        if name.startswith("__") and name != "__name__":
            raise AttributeError(name)
        return self._program.ask("get", [*self._path, name])

    def __setattr__(self, name: str, value) -> None:
        self._program.ask("set", self._path, name, value)

    def __call__(self, *positional, **named):
        return self._program.ask("call", self._path, list(positional), named)

    def __bool__(self) -> bool:
        return self._program.ask("bool", self._path) is True

    def __instancecheck__(self, value) -> bool:
        return (
            isinstance(value, (Remote, *values.LIKES.values()))
            and self._program.ask("isinstance", self._path, value) is True
        )

    def __subclasscheck__(self, kind) -> bool:
        return isinstance(kind, Remote) and self._program.ask("issubclass", self._path, kind) is True

    def __eq__(self, other) -> bool:
        return isinstance(other, Remote) and self._program.ask("equal", self._path, other) is True

    __hash__ = object.__hash__
    __doc__ = property(lambda self: self._program.ask("get", [*self._path, "__doc__"]))


class RemoteIterator(Remote):  # a generator, or another iterator of Python's own
    def __iter__(self):
        return self

    def __next__(self):
        return self._program.ask("call", [*self._path, "__next__"], [], {})


def in_place(target, *names: str):
    """Return what a call that is a statement calls: a function of the program changes its arguments in place."""
    path: list[str] = []
    for name in names:
        if isinstance(target, Remote):
            path.append(name)
        else:
            target = getattr(target, name)
    if not isinstance(target, Remote):
        return target

    def call(*positional, **named) -> None:
        changed = target._program.ask("change", [*target._path, *path], list(positional), named)
        for old, new in zip([*positional, *named.values()], changed, strict=True):
            if isinstance(old, (list, bytearray)) and isinstance(new, (list, bytearray)):
                old[:] = new
            elif any(isinstance(old, kind) and isinstance(new, kind) for kind in (dict, set, collections.deque)):
                old.clear()
                (old.extend if isinstance(old, collections.deque) else old.update)(new)

    return call
