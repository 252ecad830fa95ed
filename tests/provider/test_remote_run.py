"""What is put into spec.task.run does on a node what it should: run for real, by bash and Python, and read as the log process reads it."""

# ruff: noqa: PLC0415 - a function that is sent imports what it uses
from __future__ import annotations

import json
import random
import re
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import pytest
import skyoperator_provider
import yaml
from hypothesis import given
from hypothesis import strategies as st
from skyoperator_provider.remote import source
from skyoperator_provider.remote.arguments import UnsendableArgumentError, pack
from skyoperator_provider.remote.carrier import RUN_BYTES, TooLargeError, function_run
from skyoperator_provider.remote.far import runner

from tests.provider.far_side import REPOSITORY, STDIN, Ran, module_of, run
from tests.provider.test_remote_values import VALUES, same

NUMBERS = count()


@pytest.fixture
def dag(tmp_path: Path) -> Callable[..., ModuleType]:
    def made(text: str, name: str = "dag.py") -> ModuleType:
        path = tmp_path / "dags" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return module_of(path, f"unusual_prefix_run_{next(NUMBERS)}")

    return made


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., Ran]:
    """Send the function, run it, and read its log."""

    def called(function: Any, *args: Any, include: Any = (), env: Any = None, sent: Any = None, **kwargs: Any) -> Ran:
        found = source.read(function, include, root=tmp_path / "dags")
        text = function_run(found, pack(function, args, kwargs), **(sent or {}))
        return run(text, tmp_path, **{"PYTHONWARNINGS": "error", **(env or {})})

    return called


def echo(*args: Any, **kwargs: Any) -> Any:
    return [args, kwargs]


def test_arguments_arrive_and_the_value_comes_back(call: Any) -> None:
    sent = [datetime(2026, 1, 2, tzinfo=UTC), {1: (2,), "__skyoperator__": b"\x00"}, {3}, timedelta(1), "$HOME `id` ${X} 'ü\n"]
    ran = call(echo, *sent, lr=0.1, name="x")
    assert ran.code == 0
    assert ran.stderr == ""
    assert ran.value == [tuple(sent), {"lr": 0.1, "name": "x"}]
    assert ran.log == "\n"


def test_no_value_is_a_value(call: Any) -> None:
    def nothing() -> None:
        print("hello")

    ran = call(nothing)
    assert (ran.code, ran.value, ran.log) == (0, None, "hello\n\n")


def test_what_is_printed_stays_in_order_and_whole(call: Any) -> None:
    def prints() -> int:
        import os
        import sys

        sys.stdout.write("half ")
        sys.stdout.flush()
        os.write(1, b"a line")
        sys.stdout.write(", buffered")
        return 1

    ran = call(prints)
    assert ran.value == 1
    assert ran.log == "half a line, buffered\n"


def test_a_traceback_comes_after_what_was_printed_and_before_the_frames(tmp_path: Path) -> None:
    def fails() -> None:
        print("printed")
        raise ValueError("raised")

    ran = run(f"exec 2>&1\n{function_run(source.read(fails), pack(fails))}", tmp_path)
    lines = ran.stdout.decode().splitlines()
    assert (lines[0], lines[-3], lines[-2]) == ("printed", "ValueError: raised", "")
    assert lines[-1].startswith("[skyoperator:result:1 ")


def test_the_function_may_do_what_it_likes_with_its_output(call: Any) -> None:
    def closes() -> int:
        import os
        import sys

        print("before")
        sys.stdout.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print("into nothing")
        sys.stdout = None
        return 1

    ran = call(closes)
    assert (ran.code, ran.value, ran.log) == (0, 1, "before\n\n")


def test_a_large_value_comes_through_a_flood_of_output(call: Any, tmp_path: Path) -> None:
    """400 KB that zlib can't make much shorter, with two processes and two threads writing lines, and halves of lines, all the time."""

    def floods() -> str:
        import os
        import random
        import subprocess
        import threading
        import time
        from pathlib import Path

        os.set_blocking(1, False)

        def noise() -> None:
            while True:
                try:
                    os.write(1, b"[skyoperator:result:1 noise " + b"y" * 3000 + b"\n" + b"half")
                except BlockingIOError:
                    time.sleep(0.001)

        for _ in range(2):
            threading.Thread(target=noise, daemon=True).start()
        noisy = "while kill -0 $PPID; do echo some line and a half; printf ' of one'; : > flooding-$$; done 2>/dev/null"
        writers = [subprocess.Popen(["sh", "-c", noisy]) for _ in range(2)]
        while not all(Path(f"flooding-{writer.pid}").exists() for writer in writers):
            time.sleep(0.001)
        return random.Random(1).randbytes(200_000).hex()

    ran = call(floods, env={"PYTHONWARNINGS": "ignore"})
    assert ran.code == 0
    assert len(ran.value) == 400_000
    assert b"some line" in ran.stdout
    assert b"noise yyy" in ran.stdout


def test_who_writes_alone_adds_no_empty_lines(call: Any) -> None:
    def large() -> str:
        import random

        return random.Random(1).randbytes(20_000).hex()

    ran = call(large)
    assert (ran.log, len(ran.value)) == ("\n", 40_000)
    assert ran.stdout.count(b"[skyoperator:result:1") > 5


def test_a_value_that_is_too_long_is_refused(call: Any) -> None:
    def longs() -> str:
        return "x" * 600_000

    ran = call(longs)
    assert ran.code == 1
    assert ran.error.type == "skyoperator.ReturnValueError"
    assert ran.error.message.startswith("longs() is too long: 600002 bytes of JSON, more than 524288")


def test_a_value_that_can_not_be_sent_is_named(call: Any) -> None:
    def bad() -> dict[str, Any]:
        return {"loss": [float("nan")]}

    ran = call(bad)
    assert (ran.code, ran.error.message) == (1, "bad()['loss'][0] is nan, which JSON has not; send None or a text instead")


def test_a_traceback_has_the_lines_of_the_dag_file(dag: Any, call: Any) -> None:
    module = dag(
        """\
        def helper(x):
            return 1 / x

        def build():
            def train():
                '''
        # a line in a text
                '''
                try:
                    return helper(0)
                except ZeroDivisionError as error:
                    raise RuntimeError("it broke") from error
            return train
        train = build()
        """
    )
    ran = call(module.train, include=[module.helper])
    assert ran.code == 1
    assert ran.error.type == "RuntimeError"
    assert ran.error.is_a("Exception")
    assert ran.error.message == "it broke"
    lines = [line.strip() for line in ran.error.traceback.splitlines() if set(line) - set(" ~^")]
    assert lines == [
        "Traceback (most recent call last):",
        'File "dag.py", line 10, in train',
        "return helper(0)",
        'File "dag.py", line 2, in helper',
        "return 1 / x",
        "ZeroDivisionError: division by zero",
        "The above exception was the direct cause of the following exception:",
        "Traceback (most recent call last):",
        'File "dag.py", line 12, in train',
        'raise RuntimeError("it broke") from error',
        "RuntimeError: it broke",
    ]
    assert ran.stderr == ran.error.traceback


def exits(code: Any) -> None:
    import sys

    sys.exit(code)


@pytest.mark.parametrize(("code", "becomes"), [(3, 3), (256, 1), (-1, 255), ("gone wrong", 1), (True, 1)])
def test_an_exit_is_an_error_with_its_code(call: Any, code: Any, becomes: int) -> None:
    ran = call(exits, code)
    assert ran.code == becomes
    assert (ran.error.type, ran.error.message) == ("SystemExit", str(code))


@pytest.mark.parametrize("code", [0, None, False])
def test_an_exit_with_0_is_success(call: Any, code: Any) -> None:
    ran = call(exits, code)
    assert (ran.code, ran.value) == (0, None)


def test_who_dies_returns_nothing(call: Any) -> None:
    def dies() -> None:
        import os

        os._exit(7)

    ran = call(dies)
    assert (ran.code, ran.body) == (7, None)


def ranked() -> str:
    import os

    rank = os.environ["SKYPILOT_NODE_RANK"]
    print("rank", rank)
    if rank == "2":
        raise ValueError(rank)
    return rank


def test_each_rank_runs_and_the_first_returns(call: Any) -> None:
    first, second, third = (call(ranked, env={"SKYPILOT_NODE_RANK": str(rank)}) for rank in range(3))
    assert (first.code, first.value) == (0, "0")
    assert (second.code, second.body, second.log) == (0, None, "rank 1\n")
    assert (third.code, third.error.message) == (1, "2")


def test_one_rank_is_enough_if_told_so(call: Any) -> None:
    ran = call(ranked, env={"SKYPILOT_NODE_RANK": "1"}, sent={"every_rank": False})
    assert (ran.code, ran.stdout) == (0, b"")


def test_other_ranks_may_return_what_they_like(call: Any) -> None:
    def returns() -> object:
        return object()

    assert call(returns, env={"SKYPILOT_NODE_RANK": "1"}).code == 0
    assert call(returns, env={"SKYPILOT_NODE_RANK": "0"}).code == 1


def double(x: int) -> int:
    return 2 * x


def test_what_is_sent_can_be_sent_on_to_other_processes(call: Any) -> None:
    def spreads() -> list[int]:
        import multiprocessing

        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.map(double, [1, 2])

    assert call(spreads, include=[double]).value == [2, 4]


def test_modules_of_the_workdir_can_be_imported_and_hide_none_of_ours(call: Any, tmp_path: Path) -> None:
    (tmp_path / "sky_workdir").mkdir()
    for name in ("mine", "json", "zlib", "base64", "traceback"):
        (tmp_path / "sky_workdir" / f"{name}.py").write_text("here = 5")

    def imports() -> Any:
        import mine  # type: ignore[import-not-found]

        return mine.here

    assert call(imports).value == 5


def test_nothing_is_left_behind(call: Any, tmp_path: Path) -> None:
    call(echo)
    assert not list(tmp_path.glob("tmp.*"))


def test_stdin_is_what_the_job_has(call: Any) -> None:
    """Not what carries the function: a program that reads its input would take that for it."""

    def reads() -> str:
        import sys

        return sys.stdin.read()

    assert call(reads).value == STDIN.decode()


def test_programs_that_it_starts_have_no_descriptor_of_ours(call: Any) -> None:
    def starts() -> int:
        import subprocess

        return subprocess.run(["bash", "-c", ": <&3"], close_fds=False, stderr=subprocess.DEVNULL, check=False).returncode

    assert call(starts).value != 0


@pytest.mark.parametrize("name", ["a 'b' \"c\" $(id) `id`.py", "ünï\ncode @END@.py", "-rf.py"])
def test_files_may_have_any_name(dag: Any, call: Any, name: str) -> None:
    module = dag("def größe(wert_ß, /, *, 数=1):\n    return [wert_ß, 数, 1 / 0]\n", name)
    ran = call(module.größe, "@DATA@", 数=2)
    assert ran.error.type == "ZeroDivisionError"
    assert f'File "{name}", line 2, in größe' in ran.error.traceback


def test_a_python_can_be_chosen(call: Any, tmp_path: Path) -> None:
    folder = tmp_path / "my envs" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(Path(sys.executable).resolve())

    def which() -> str:
        import sys

        return sys.executable

    assert call(which, sent={"python": "~/my envs/bin/python"}).value == str(folder / "python")
    assert call(which, sent={"python": str(folder / "python")}).value == str(folder / "python")


def test_skypilots_python_is_the_last_resort(call: Any, tmp_path: Path) -> None:
    runtime = tmp_path / "skypilot-runtime" / "bin"
    runtime.mkdir(parents=True)
    (runtime / "python").symlink_to(Path(sys.executable).resolve())
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text("#!/bin/sh\necho this is Python 3.7 >&2; exit 1\n")
    (tmp_path / "bin" / "python3").chmod(0o755)

    def which() -> str:
        import sys

        return sys.executable

    assert call(which).value == str(runtime / "python")


def test_without_python_it_says_so(call: Any) -> None:
    ran = call(echo, sent={"python": "/no/such python"})
    assert ran.code == 127
    assert "no Python 3.8 or newer is here; tried /no/such python\n" in ran.stderr
    assert ran.body is None


def test_a_function_that_this_python_can_not_read_is_an_error_with_its_line(tmp_path: Path) -> None:
    definition = source.Definition("f", "dag.py", 7, "    def f():\n        return 1 +", future_annotations=False, defaults={})
    ran = run(function_run(source.Source(definition), pack(echo)), tmp_path)
    assert (ran.code, ran.error.type) == (1, "SyntaxError")
    assert 'File "dag.py", line 8\n    return 1 +' in ran.error.traceback


def test_the_same_input_is_the_same_bytes(dag: Any) -> None:
    text = "def g(x={1}): return x\ndef f(a, **kw): return g()\n"
    made = []
    for module in (dag(text), dag(text)):
        root = Path(module.__file__).parent
        made.append(function_run(source.read(module.f, [module.g], root=root), pack(module.f, [{"b", "a"}], {"z": 1, "y": {1: 2}})))
    assert made[0] == made[1]
    assert max(map(len, made[0].splitlines())) <= 120 + len("  echo")


def test_what_is_too_large_is_refused_and_the_largest_argument_named() -> None:
    noise = random.Random(1).randbytes(60_000).hex()
    found = source.read(echo)
    with pytest.raises(
        TooLargeError, match=r"echo\(\) takes \d+ bytes of spec.task.run, and may take 49152: .*its largest argument, big, \d+"
    ):
        function_run(found, pack(echo, [1, "y" * 100_000], {"big": noise, "small": noise[:5000]}))
    with pytest.raises(TooLargeError, match=r"its largest argument, args\[1\], \d+"):
        function_run(found, pack(echo, [1, noise], {"small": noise[:5000]}))
    with pytest.raises(
        TooLargeError, match=r"may take 100: the source of echo\(\) and what it includes is \d+ bytes when compressed; send"
    ):
        function_run(found, pack(echo), limit_bytes=100)
    assert len(function_run(found, pack(echo, [noise[:20_000]]))) <= RUN_BYTES


@given(st.lists(VALUES, max_size=3), st.dictionaries(st.text(), VALUES, max_size=3))
def test_any_arguments_arrive(args: list[Any], kwargs: dict[str, Any]) -> None:
    arrived_args, arrived_kwargs = runner._arguments(json.loads(json.dumps(pack(echo, args, kwargs).payload)))
    assert same(arrived_args, args)
    assert same(arrived_kwargs, kwargs)


def test_a_positional_argument_may_be_called_like_a_keyword() -> None:
    def f(x: int, /, **more: int) -> None: ...

    assert pack(f, [1], {"x": 2}).payload == {"serializer": "json", "args": [1], "kwargs": {"x": 2}}


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ([], {"x": object()}, r"f\(\): argument x is of the type object"),
        ([1, [0, object()]], {}, r"f\(\): argument y\[1\] is of the type object"),
        ([1, 2, 3, {"a": object()}], {}, r"f\(\): argument rest\[1\]\['a'\] is of the type object"),
        ([1], {"other": object()}, "argument other is"),
        ([], {}, r"f\(\): missing a required argument: 'x'"),
        ([1], {"x": 1}, r"f\(\): multiple values for argument 'x'"),
    ],
)
def test_an_argument_that_can_not_be_sent_is_named(args: list[Any], kwargs: dict[str, Any], says: str) -> None:
    def f(x: int, y: int = 0, *rest: int, **more: int) -> None: ...

    with pytest.raises(UnsendableArgumentError, match=says):
        pack(f, args, kwargs)


PICKLED = """\
from dataclasses import dataclass

@dataclass
class Config:
    lr: float

def train(config, *rest, scale=1):
    return {"lr": config.lr * scale, "rest": list(rest)}
"""


def test_cloudpickle_carries_what_json_can_not(dag: Any, tmp_path: Path) -> None:
    """Also a class of the DAG file, whose module can't be imported where it goes."""
    module = dag(PICKLED)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "cloudpickle").symlink_to(Path(cloudpickle.__file__).parent)
    packed = pack(module.train, [module.Config(0.5), 2], {"scale": 3}, serializer="cloudpickle")
    text = function_run(source.read(module.train), packed)
    assert run(text, tmp_path, PYTHONPATH=str(tmp_path / "site")).value == {"lr": 1.5, "rest": [2]}
    assert module.__name__ not in cloudpickle.list_registry_pickle_by_value()
    assert packed.sizes.keys() == {"config", "rest[0]", "scale"}

    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "cloudpickle.py").write_text("raise ImportError('none here')")
    ran = run(text, tmp_path, PYTHONPATH=str(tmp_path / "without"))
    assert (ran.code, ran.error.type) == (1, "skyoperator.ArgumentsError")
    assert (
        ran.error.message
        == "the arguments can't be unpickled here: ImportError('none here'); install cloudpickle, and what they are made of, in setup"
    )


def test_a_pickle_is_not_opened_by_another_python(tmp_path: Path) -> None:
    packed = pack(echo, [1], serializer="cloudpickle")
    other = replace(packed, payload={**packed.payload, "python": "3.7"})
    ran = run(function_run(source.read(echo), other), tmp_path)
    assert ran.error.message.startswith(
        f"the arguments were pickled by Python 3.7, and this is Python {sys.version_info[0]}.{sys.version_info[1]} ("
    )


def test_an_argument_that_can_not_be_pickled_is_named() -> None:
    with pytest.raises(UnsendableArgumentError, match=r"echo\(\): argument lock can't be pickled: .*generator"):
        pack(echo, kwargs={"lock": (i for i in "x")}, serializer="cloudpickle")


def test_the_controller_launches_it_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes as much as is sent, and replaces no variable in `run`; SkyPilot replaces them in the same fields (sky/task.py:730-752)."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "controller"))
    from skyoperator.task import render  # type: ignore[import-not-found]
    from skyoperator.task.policy import MAX_SCRIPT_BYTES  # type: ignore[import-not-found]

    text = function_run(source.read(echo), pack(echo, ["${HOME} $X ü"]))
    rendered = yaml.safe_load(render({"run": text, "envs": {"HOME": "a", "X": "b", "python": "c", "home": "d"}}, job_name="j", labels={}))
    assert rendered["run"].endswith(f"unset -f skyoperator_fence\n{text}")
    assert RUN_BYTES == MAX_SCRIPT_BYTES


def test_nothing_of_airflow_is_in_it() -> None:
    folder = Path(skyoperator_provider.__file__).parent / "remote"
    for module in folder.rglob("*.py"):
        assert not re.search(r"^\s*(from|import) (airflow|kubernetes)", module.read_text(), re.MULTILINE), module
    assert json.dumps(pack(echo).payload) == '{"serializer": "json", "args": [], "kwargs": {}}'
