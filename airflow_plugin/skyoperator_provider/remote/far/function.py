"""Makes the functions that were sent, in the module skyoperator_task, so that they are where the DAG file has them.

In a module of its own, and one that can be imported, because multiprocessing sends a function to another process as the name of its module
and its own.
"""

from __future__ import annotations

import ast
import linecache
from collections.abc import Mapping, Sequence
from typing import Any

from .tagged import decode

_DEFAULT = "__skyoperator_default_{}__"


def define(definitions: Sequence[Mapping[str, Any]], namespace: dict[str, Any]) -> None:
    """Put each function into the namespace under its name. Raises SyntaxError if this Python is too old for it."""
    for definition in definitions:
        _show_lines(definition)
        defaults = {_DEFAULT.format(name): decode(value) for name, value in definition["defaults"].items()}
        namespace.update(defaults)
        exec(_compiled(definition), namespace)  # noqa: S102
        for name in defaults:
            del namespace[name]


def _compiled(definition: Mapping[str, Any]) -> Any:
    """Compile the function alone, at its own lines. Blank lines stand for what is above it in the file, `if` for what it is indented in."""
    text, line = definition["text"], definition["line"]
    indented = text[:1] in " \t"
    above = "\n" * (line - 2) + "if 1:\n" if indented else "\n" * (line - 1)
    tree: Any = ast.parse(above + text, definition["file"])
    function = tree.body[0].body[0] if indented else tree.body[0]
    _bare(function.args, definition["defaults"])
    function.returns = None
    flags = annotations.compiler_flag if definition["future_annotations"] else 0
    return compile(ast.Module(body=[function], type_ignores=[]), definition["file"], "exec", flags=flags, dont_inherit=True)


def _bare(arguments: ast.arguments, defaults: Mapping[str, Any]) -> None:
    """Take away what would be evaluated here and can't: annotations, and the defaults whose value was sent."""
    positional = arguments.posonlyargs + arguments.args
    several: list[Any] = [*positional, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    for argument in several:
        if argument is not None:
            argument.annotation = None
    last = positional[len(positional) - len(arguments.defaults) :]
    arguments.defaults = [_default(argument.arg, node, defaults) for argument, node in zip(last, arguments.defaults)]
    arguments.kw_defaults = [_default(argument.arg, node, defaults) for argument, node in zip(arguments.kwonlyargs, arguments.kw_defaults)]


def _default(name: str, node: Any, defaults: Mapping[str, Any]) -> Any:
    if name not in defaults:
        return node
    return ast.copy_location(ast.Name(id=_DEFAULT.format(name), ctx=ast.Load()), node)


def _show_lines(definition: Mapping[str, Any]) -> None:
    """Let tracebacks quote the DAG file, which is not here. An entry without a time of change is kept (linecache.checkcache)."""
    file, first = definition["file"], definition["line"] - 1
    known = linecache.cache.get(file)
    lines = list(known[2]) if known and len(known) == 4 else []
    own = [line + "\n" for line in definition["text"].split("\n")]
    lines += ["\n"] * (first + len(own) - len(lines))
    lines[first : first + len(own)] = own
    linecache.cache[file] = (sum(map(len, lines)), None, lines, file)
