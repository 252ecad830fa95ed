"""A function's source is found whatever its decorators are called, and refused if it needs what is not sent with it."""

from __future__ import annotations

import ast
import functools
import importlib
import textwrap
import zipfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from skyoperator_provider.remote.far import function as far
from skyoperator_provider.remote.source import Source, UnsendableFunctionError, read

from tests.provider.far_side import module_of

NUMBERS = count()
HEAD = """\
import functools
import importlib
import os

LIMIT = 3
sky = task = functools.partial(lambda function, **options: function)


def decorate(**options):
    return lambda function: function
"""


@pytest.fixture
def dag(tmp_path: Path) -> Callable[[str], ModuleType]:
    """Make a DAG file, with a little at its head, and import it."""

    def made(text: str, *, head: str = HEAD, name: str = "dag.py") -> ModuleType:
        path = tmp_path / name
        path.write_text(head + textwrap.dedent(text))
        return module_of(path, f"unusual_prefix_{next(NUMBERS)}")

    return made


def defined(source: Source) -> Any:
    """The function as the far side has it, with nothing around it."""
    namespace: dict[str, Any] = {"__name__": "skyoperator_task"}
    far.define([vars_of(definition) for definition in source.definitions], namespace)
    return namespace[source.function.name]


def vars_of(definition: object) -> dict[str, Any]:
    return {name: getattr(definition, name) for name in definition.__slots__}  # type: ignore[attr-defined]


DECORATED = [
    "@sky\ndef f(): return 1",
    "@sky\n@task\ndef f():\n    return 1",
    "@decorate(\n    cpus=2,  # )\n    name='def f(): return 2',\n)\ndef f():\n    return 1",
    "@decorate(**{'a': '''\ndef f():\n    return 2\n'''})\ndef f():\n    return 1",
    "@(\n    sky\n)\ndef f():\n    return 1",
    "with open(os.devnull):\n    @sky\n    def f():\n        return 1",
    "if LIMIT:\n\t@sky\n\tdef f():\n\t\treturn 1\nelse:\n\tdef f():\n\t\treturn 2",
    "def f():\n    return 2\n@sky\ndef f():\n    return 1",
    "def outer():\n    @sky\n    def f():\n        return 1\n    return f\nf = outer()",
    "@sky\ndef f(): return 1  # no line end",
    "@sky\ndef f(): \\\n    return 1\nx = 2",
]


@pytest.mark.parametrize("text", DECORATED)
def test_the_source_is_the_function_alone(dag: Any, text: str) -> None:
    source = read(dag(text).f)
    assert source.function.text.lstrip().startswith("def f()")
    assert defined(source)() == 1


def test_texts_keep_each_of_their_characters(dag: Any) -> None:
    function = dag(
        '''
        def outer():
            @sky
            def f():
                text = """
        # a comment? no
            indented
        \ttab
        less\\n"""
                return text + f"""{
        1}
        """
            return f
        f = outer()
        '''
    ).f
    assert defined(read(function))() == function()


def test_lines_are_those_of_the_file(dag: Any) -> None:
    module = dag("class Group:\n    @sky\n    def f(x):\n        y = 0\n\n        return x / y\n")
    source = read(module.Group.f, root=Path(module.__file__).parent)
    assert source.function.file == "dag.py"
    with pytest.raises(ZeroDivisionError) as raised:
        defined(source)(1)
    frame = raised.traceback[-1]
    assert (str(frame.path), frame.lineno + 1) == ("dag.py", HEAD.count("\n") + 6)


USES = {
    "a module global": (
        "def f():\n    return LIMIT",
        "LIMIT, a global of the module: import it inside the function, or pass it as an argument",
    ),
    "a module": ("def f():\n    return os.getcwd()", "os, a module: import it inside the function"),
    "a function": ("def g(): pass\ndef f():\n    return g()", r"g\(\): pass include=\[g\]"),
    "one that comes later": ("def f():\n    return later\nlater = 1", "later, a global of the module"),
    "one that never comes": ("def f():\n    return typo", "typo, a global of the module"),
    "a builtin of its own": ("def len(x): return 5\ndef f():\n    return len('x')", r"len\(\): pass include=\[len\]"),
    "in a nested function": ("def f():\n    def g():\n        return [LIMIT for _ in 'x']\n    return g()", "LIMIT"),
    "in a class": ("def f():\n    class A:\n        x: LIMIT = 1\n    return A", "LIMIT"),
    "in a lambda": ("def f():\n    return (lambda: LIMIT)()", "LIMIT"),
    "changed": ("def f():\n    global LIMIT\n    LIMIT = LIMIT + 1", "LIMIT"),
    "a closure": (
        "def outer(lr):\n    def f():\n        return lr\n    return f\nf = outer(1)",
        r"lr, a variable of the enclosing function \(a closure\)",
    ),
    "a closure named as a builtin": (
        "def outer(len):\n    def f():\n        return len\n    return f\nf = outer(1)",
        "len, a variable of the enclos",
    ),
    "a closure that is changed": (
        "def outer(lr):\n    def f():\n        nonlocal lr\n        lr = 1\n    return f\nf = outer(1)",
        r"f\(\) in .*dag.py changes variables of the enclosing function: lr",
    ),
    "its file": ("def f():\n    return __file__", "__file__, a global"),
    "several": ("def f():\n    return os, LIMIT", "LIMIT, a global .*; os, a module"),
}


@pytest.mark.parametrize(("text", "says"), USES.values(), ids=USES)
def test_what_is_not_sent_is_named(dag: Any, text: str, says: str) -> None:
    with pytest.raises(UnsendableFunctionError, match=says):
        read(dag(text).f)


def test_the_error_says_where(dag: Any) -> None:
    with pytest.raises(
        UnsendableFunctionError, match=rf"^f\(\) in .*dag.py, line {HEAD.count(chr(10)) + 2}, uses what is not sent with it: LIMIT"
    ):
        read(dag("@sky\ndef f():\n    return LIMIT").f)


FREE = [
    "def f(x=1):\n    return [len(str(i)) for i in range(x)] and __name__ and ValueError and __debug__ and 1",
    "def f(x=2):\n    return 1 if x == 1 else f(x - 1)",
    "def outer():\n    def f(x=2):\n        return 1 if x == 1 else f(x - 1)\n    return f\nf = outer()",
    "def f():\n    import os\n    def g(y=os):\n        return y\n    return 1",
    "def f():\n    class A:\n        x: int = 1\n        def y(self): return self.x\n    return A().y()",
    "def f():\n    x: LIMIT = 1\n    return x",
    "def f(x: LIMIT = 1, *a: os, y: os = 1, **k: os) -> LIMIT:\n    return x",
    "def f():\n    global made\n    made = 1\n    return made",
    "def f(key=lambda x: 1):\n    return key(2)",
    "def f(a, /, b=2, *, c=float('inf')):\n    return a",
    "def f(x=LIMIT, *, y=os.sep, z: os.PathLike = None):\n    return x - 2 if y == '/' else 0",
    "def f(x=(LIMIT, {LIMIT: {LIMIT}})):\n    return 1 if x == (3, {3: {3}}) else x",
]


@pytest.mark.parametrize("text", FREE)
def test_what_it_can_have_it_may_use(dag: Any, text: str) -> None:
    function = dag(text).f
    args = (1,) if "a, /" in text else ()
    assert defined(read(function))(*args) == 1


def test_annotations_that_were_put_off_are_put_off_there_too(dag: Any) -> None:
    text = """
        def f():
            async def h(x: LIMIT) -> os.PathLike: ...
            def g(x: LIMIT) -> os.PathLike:
                class A:
                    x: LIMIT = 1
                return A.x
            return g(0)
        """
    with pytest.raises(UnsendableFunctionError, match=r"LIMIT, .*; os, a module"):
        read(dag(text).f)
    assert defined(read(dag(text, head="from __future__ import annotations\n" + HEAD).f))() == 1


def test_a_default_that_can_not_be_sent_is_named(dag: Any) -> None:
    with pytest.raises(
        UnsendableFunctionError, match=r"f\(\) in .*dag.py: the default of y is of the type object, .*; use None, and set it in"
    ):
        read(dag("NOTHING = object()\ndef f(x=1, *, y=NOTHING):\n    return y").f)


def test_defaults_hold_for_calls_among_what_was_sent(dag: Any) -> None:
    module = dag("def g(x=LIMIT, y=2):\n    return x * y\ndef f():\n    return g()")
    assert defined(read(module.f, [module.g]))() == 6


def test_included_functions_may_use_each_other(dag: Any) -> None:
    module = dag(
        """
        def double(x):
            return twice(x) if x else counted()

        def twice(x):
            return 2 * x

        def counted():
            return calls

        def outer():
            def inner(x):
                return double(x)

            @sky
            def f():
                global calls
                calls = 5
                return inner(0) + inner(3)
            return inner, f
        inner, f = outer()
        """
    )
    assert defined(read(module.f, [module.inner, module.twice, module.double, module.counted]))() == 11
    with pytest.raises(UnsendableFunctionError, match=r"^double\(\) in .* uses .*: twice\(\): pass include=\[twice\]"):
        read(module.f, [module.inner, module.double, module.counted])


def test_two_of_one_name_are_one_too_many(dag: Any) -> None:
    module = dag("def g(): pass\nh = g\ndef g(): pass\ndef f(): pass")
    with pytest.raises(UnsendableFunctionError, match="two functions are called g"):
        read(module.f, [module.g, module.h])


class Called:
    def __call__(self) -> None: ...

    def method(self) -> None: ...


KINDS = {
    "a lambda": ("f = lambda: 1", r"a lambda \(<lambda>\) can't be sent; make it a function with def"),
    "async": ("async def f(): pass", "f is async; make it a plain function"),
    "an async generator": ("async def f(): yield 1", "f is async"),
    "a generator": ("def f(): yield 1", "f is a generator; let it return a list"),
    "a cache": ("@functools.lru_cache\ndef f(): pass", "f is of the type _lru_cache_wrapper; only a function"),
    "wrapped": (
        "def deco(g):\n    @functools.wraps(g)\n    def w(): return g()\n    return w\n@deco\ndef f(): pass",
        "f has a decorator below @task.sky",
    ),
    "replaced": (
        "def deco(g):\n    def w(): return g()\n    return w\n@deco\ndef f(): pass",
        r"w\(\) in .* uses .*: g, a variable of the enclosing",
    ),
    "partial": ("def g(x): pass\nf = functools.partial(g, 1)", "partial"),
    "a builtin": ("f = len", "len is of the type builtin_function_or_method"),
    "a class": ("class f: pass", "f is of the type type"),
    "made by exec": ("exec('def f(): pass')", "f is not in line 1 of <string>; has the file changed, or was it made by exec"),
}


@pytest.mark.parametrize(("text", "says"), KINDS.values(), ids=KINDS)
def test_only_a_plain_function_can_be_sent(dag: Any, text: str, says: str) -> None:
    with pytest.raises(UnsendableFunctionError, match=says):
        read(dag(text).f)


def test_methods_and_objects_are_no_functions() -> None:
    for thing in (Called(), Called().method, functools.partial(print)):
        with pytest.raises(UnsendableFunctionError, match="only a function that is made with def"):
            read(thing)


def test_a_file_that_changed_is_not_believed(dag: Any) -> None:
    module = dag("def f():\n    return 1")
    path = Path(module.__file__)
    path.write_text("\n" + path.read_text())
    with pytest.raises(UnsendableFunctionError, match=r"f is not in line \d+ of .*; has the file changed"):
        read(module.f)


def test_a_file_that_is_broken_by_now_is_not_believed(dag: Any) -> None:
    module = dag("def f():\n    return 1")
    Path(module.__file__).write_text("def f(:")
    with pytest.raises(UnsendableFunctionError, match=r"dag.py, which has f, can't be read: "):
        read(module.f)


def test_dags_in_an_archive_have_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "dags.zip", "w") as archive:
        archive.writestr("zipped_dag.py", "def f():\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path / "dags.zip"))
    assert defined(read(importlib.import_module("zipped_dag").f))() == 1


def test_a_file_outside_the_root_keeps_its_name(dag: Any, tmp_path: Path) -> None:
    function = dag("def f(): pass").f
    assert read(function, root=tmp_path / "other").function.file == str(tmp_path / "dag.py")


@pytest.mark.parametrize("module", sorted(Path(far.__file__).parent.glob("*.py")), ids=lambda path: path.name)
def test_the_far_side_is_python_38(module: Path) -> None:
    tree = ast.parse(module.read_text(), feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0}
    assert imported <= {
        *(
            "__future__",
            "ast",
            "base64",
            "binascii",
            "collections.abc",
            "contextlib",
            "datetime",
            "decimal",
            "hashlib",
            "importlib",
            "json",
        ),
        *("linecache", "math", "os", "pathlib", "pickle", "select", "sys", "threading", "traceback", "typing", "uuid", "zlib"),
    }
