"""A function as text, with nothing of its module but what it is told to take along.

Read from the file by ast: from `def` on, so that no decorator comes with it, whatever it is called; and as it stands there, so that a
traceback can name the file's lines, and a text in it keeps each of its characters.
"""

from __future__ import annotations

import ast
import builtins
import copy
import inspect
import linecache
import symtable
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

from skyoperator_provider.remote.far.tagged import UnsendableError, decode, encode

_BUILTINS: Final = frozenset(dir(builtins))


class UnsendableFunctionError(ValueError):
    """A function can't be sent; says which, and what to change."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One function, as the far side defines it."""

    name: str
    file: str
    """As tracebacks show it."""
    line: int
    """Of `def`, in the file."""
    text: str
    future_annotations: bool
    defaults: Mapping[str, Any]
    """Defaults by parameter, encoded, of those that can be evaluated only here."""

    @property
    def seen(self) -> list[tuple[str, object]]:
        """Each value that goes along with the text, as Arguments.seen has them."""
        return [(f"the default of {key} of {self.name}()", decode(value)) for key, value in self.defaults.items()]


@dataclass(frozen=True, slots=True)
class Source:
    """A function, and those that it was told to take along."""

    function: Definition
    included: tuple[Definition, ...] = ()

    @property
    def definitions(self) -> tuple[Definition, ...]:
        """All of them."""
        return (*self.included, self.function)


def read(function: Callable[..., Any], include: Sequence[Callable[..., Any]] = (), *, root: Path | None = None) -> Source:
    """Return the function's source. Files below `root` are named relative to it: where DAGs lie differs from one worker to the next.

    Raises:
        UnsendableFunctionError: One of them is not a plain function, its source can't be had, or it uses what is not sent with it.
    """
    found = [_Found(each, root) for each in (*include, function)]
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            raise UnsendableFunctionError(f"two functions are called {name}; only one of them can be sent")
    assigned = {name for each in found for name in each.assigned_globals}
    for each in found:
        each.check(sent=names, assigned=assigned)
    *included, own = [each.definition for each in found]
    return Source(own, tuple(included))


class _Found:
    """A function, and where it stands in its file."""

    def __init__(self, function: Callable[..., Any], root: Path | None) -> None:
        self._function = _plain(function)
        self.name = self._function.__code__.co_name
        lines, self._node = _definition(self._function)
        assert self._node.end_lineno is not None
        self._text = "".join(lines[self._node.lineno - 1 : self._node.end_lineno]).rstrip("\n")
        self._file = _shown(self._function.__code__.co_filename, root)
        self._tables = self._scopes()

    @property
    def definition(self) -> Definition:
        """What is sent of it. Raises UnsendableFunctionError for a default that can't be."""
        return Definition(self.name, self._file, self._node.lineno, self._text, self._future_annotations, dict(self._defaults()))

    @property
    def assigned_globals(self) -> set[str]:
        """Globals that the function itself makes, and its module has not."""
        made = {symbol.get_name() for symbol in self._symbols() if symbol.is_declared_global() and symbol.is_assigned()}
        return made - set(self._function.__globals__)

    def check(self, *, sent: Iterable[str], assigned: Iterable[str]) -> None:
        """Raise UnsendableFunctionError if the function uses what will not be there."""
        used = {symbol.get_name() for symbol in self._symbols() if symbol.is_global() and symbol.is_referenced()}
        missing = {name for name in used - {*sent, *assigned} if not self._is_builtin(name)}
        if not missing:
            return
        parts = "; ".join(self._advice(name) for name in sorted(missing))
        raise UnsendableFunctionError(f"{self.name}() in {self._file}, line {self._node.lineno}, uses what is not sent with it: {parts}")

    @property
    def _future_annotations(self) -> bool:
        return bool(self._function.__code__.co_flags & annotations.compiler_flag)

    def _scopes(self) -> tuple[symtable.SymbolTable, ...]:
        """Return the scopes of the function and of all in it."""
        try:
            return tuple(_scopes(_without_signature(self._node, future_annotations=self._future_annotations)))
        except SyntaxError:
            free = ", ".join(self._function.__code__.co_freevars)
            raise UnsendableFunctionError(f"{self.name}() in {self._file} changes variables of the enclosing function: {free}") from None

    def _symbols(self) -> Iterator[symtable.Symbol]:
        return (symbol for table in self._tables for symbol in table.get_symbols())

    def _is_builtin(self, name: str) -> bool:
        hidden = name in self._function.__globals__ or name in self._function.__code__.co_freevars
        return name == "__name__" or (name in _BUILTINS and not hidden)

    def _advice(self, name: str) -> str:
        if name in self._function.__code__.co_freevars:
            return f"{name}, a variable of the enclosing function (a closure): pass it as an argument, or, a function, by include=[{name}]"
        value = self._function.__globals__.get(name)
        if isinstance(value, ModuleType):
            return f"{name}, a module: import it inside the function"
        if isinstance(value, FunctionType):
            return f"{name}(): pass include=[{name}], or import it inside the function"
        return f"{name}, a global of the module: import it inside the function, or pass it as an argument"

    def _defaults(self) -> Iterator[tuple[str, Any]]:
        """Give the defaults that the far side could not evaluate, as they were evaluated here."""
        signature = inspect.signature(self._function)
        for name, node in _default_nodes(self._node.args):
            if all(self._is_builtin(each.id) for each in ast.walk(node) if isinstance(each, ast.Name)):
                continue
            try:
                yield name, encode(signature.parameters[name].default, f"the default of {name}")
            except UnsendableError as error:
                raise UnsendableFunctionError(f"{self.name}() in {self._file}: {error}; use None, and set it in the function") from None


def _plain(function: Callable[..., Any]) -> FunctionType:
    """Return the function if it is one that can be sent at all."""
    name = getattr(function, "__qualname__", repr(function))
    if not isinstance(function, FunctionType):
        raise UnsendableFunctionError(f"{name} is of the type {type(function).__name__}; only a function that is made with def can be sent")
    if function.__code__.co_name == "<lambda>":
        raise UnsendableFunctionError(f"a lambda ({name}) can't be sent; make it a function with def")
    if hasattr(function, "__wrapped__"):
        raise UnsendableFunctionError(f"{name} has a decorator below @task.sky, or in include; decorators are not sent: use it inside")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise UnsendableFunctionError(f"{name} is async; make it a plain function, with asyncio.run inside")
    if inspect.isgeneratorfunction(function):
        raise UnsendableFunctionError(f"{name} is a generator; let it return a list")
    return function


def _definition(function: FunctionType) -> tuple[list[str], ast.FunctionDef]:
    """Return the lines of the function's file and its node there.

    A code object's first line is that of the first decorator (Python/compile.c, compiler_function). inspect.findsource is not asked: it
    looks at each module that is loaded, and loads those that were to be loaded late.
    """
    code = function.__code__
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename, function.__globals__)
    for node in ast.walk(_parsed("".join(lines), function)):
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            first = node.decorator_list[0].lineno if node.decorator_list else node.lineno
            if first == code.co_firstlineno:
                return lines, node
    where = f"line {code.co_firstlineno} of {code.co_filename}"
    raise UnsendableFunctionError(f"{function.__qualname__} is not in {where}; has the file changed, or was it made by exec?")


def _parsed(text: str, function: FunctionType) -> ast.Module:
    try:
        return _tree(text)
    except SyntaxError as error:
        file = function.__code__.co_filename
        raise UnsendableFunctionError(f"{file}, which has {function.__qualname__}, can't be read: {error}") from error


@lru_cache(maxsize=4)
def _tree(text: str) -> ast.Module:
    """Return the parsed text. A DAG file with many tasks is parsed once."""
    return ast.parse(text)


def _shown(file: str, root: Path | None) -> str:
    path = Path(file)
    return path.relative_to(root).as_posix() if root is not None and path.is_relative_to(root) else file


def _default_nodes(arguments: ast.arguments) -> Iterator[tuple[str, ast.expr]]:
    positional = [*arguments.posonlyargs, *arguments.args]
    last = positional[len(positional) - len(arguments.defaults) :]
    for argument, node in (*zip(last, arguments.defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)):
        if node is not None:
            yield argument.arg, node


def _scopes(node: ast.FunctionDef) -> Iterator[symtable.SymbolTable]:
    """Give the scopes of the function and of all in it, but not the one that it stands in."""
    waiting = symtable.symtable(ast.unparse(node), node.name, "exec").get_children()
    while waiting:
        table = waiting.pop()
        yield table
        waiting.extend(table.get_children())


def _without_signature(node: ast.FunctionDef, *, future_annotations: bool) -> ast.FunctionDef:
    """Return a copy without what is evaluated outside the function, or never: decorators, defaults, annotations."""
    bare = copy.deepcopy(node)
    bare.decorator_list = []
    _strip_annotations(bare)
    bare.args.defaults = [ast.Constant(None) for _ in bare.args.defaults]
    bare.args.kw_defaults = [None if default is None else ast.Constant(None) for default in bare.args.kw_defaults]
    _Unevaluated(future_annotations=future_annotations).generic_visit(bare)
    return bare


def _strip_annotations(node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    arguments = node.args
    node.returns = None
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if argument is not None:
            argument.annotation = None


class _Unevaluated(ast.NodeTransformer):
    """Takes away annotations that Python does not evaluate: those of variables in a function (PEP 526), and all if they are put off."""

    def __init__(self, *, future_annotations: bool, in_class: bool = False) -> None:
        self._future = future_annotations
        self._in_class = in_class

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return _Unevaluated(future_annotations=self._future, in_class=True).generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._visit_function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._visit_function(node)

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        if self._future:
            _strip_annotations(node)
        return _Unevaluated(future_annotations=self._future).generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if self._future or not self._in_class:
            node.annotation = ast.Constant(None)
        return self.generic_visit(node)
