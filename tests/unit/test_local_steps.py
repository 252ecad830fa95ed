"""Steps of the local cluster: what is done again, what isn't, in which order, and what a failure does to the others."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.local.commands import Children, Failure, Shell, locked, tail
from deploy.local.steps import Run, Step, content_key, in_order


def step(name: str, after: frozenset[str] = frozenset(), make: Callable[[Shell], None] = lambda _: None) -> Step:
    return Step(name, make, after, done=lambda: False)


def cached(folder: Path, key: str, made: list[str]) -> Step:
    product = folder / "product"

    def make(_: Shell) -> None:
        made.append(key)
        product.write_text(key)

    return Step("thing", make, key=key, marker=folder / "key", done=product.exists)


def test_a_step_is_done_once_per_key(tmp_path: Path) -> None:
    made: list[str] = []
    for key in ("one", "one", "two", "two", "one"):
        Run(tmp_path / "log").execute([cached(tmp_path, key, made)])
    assert made == ["one", "two", "one"]


def test_a_step_whose_product_was_deleted_is_done_again(tmp_path: Path) -> None:
    made: list[str] = []
    Run(tmp_path / "log").execute([cached(tmp_path, "one", made)])
    (tmp_path / "product").unlink()
    Run(tmp_path / "log").execute([cached(tmp_path, "one", made)])
    assert made == ["one", "one"]


def test_an_interrupted_step_is_done_again_even_if_its_former_key_is_asked_for(tmp_path: Path) -> None:
    made: list[str] = []
    Run(tmp_path / "log").execute([cached(tmp_path, "one", made)])

    def interrupted(_: Shell) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path / "log").execute([Step("thing", interrupted, key="two", marker=tmp_path / "key")])
    Run(tmp_path / "log").execute([cached(tmp_path, "one", made)])
    assert made == ["one", "one"]


def test_steps_come_after_those_they_wait_for_and_ignore_those_that_are_not_there(tmp_path: Path) -> None:
    done: list[str] = []
    steps = [
        step("roof", frozenset({"walls", "garden"}), lambda _: done.append("roof")),
        step("walls", frozenset({"floor"}), lambda _: done.append("walls")),
        step("floor", make=lambda _: done.append("floor")),
    ]
    Run(tmp_path).execute(steps)
    assert done == ["floor", "walls", "roof"]


def test_a_circle_is_refused() -> None:
    with pytest.raises(ValueError, match="wait for each other"):
        in_order([step("a", frozenset({"b"})), step("b", frozenset({"a"}))])


def test_independent_steps_run_side_by_side(tmp_path: Path) -> None:
    meeting = threading.Barrier(2, timeout=10)  # breaks, and fails the run, unless both are there at once

    def meet(_: Shell) -> None:
        meeting.wait()

    Run(tmp_path).execute([step("a", make=meet), step("b", make=meet)])


def test_a_failure_ends_the_other_steps_and_starts_no_more(tmp_path: Path) -> None:
    started = threading.Event()
    later: list[str] = []

    def endless(shell: Shell) -> None:
        started.set()
        shell.run("sleep", "600")

    def failing(_: Shell) -> None:
        started.wait(10)
        raise Failure("No disk is left.")

    steps = [
        step("endless", make=endless),
        step("failing", make=failing),
        step("later", frozenset({"failing"}), lambda _: later.append("later")),
    ]
    with pytest.raises(Failure, match="No disk is left"):
        Run(tmp_path).execute(steps)
    assert later == []


def test_every_step_tells_how_it_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made: list[str] = []
    for _ in range(2):
        Run(tmp_path / "log").execute([cached(tmp_path, "one", made)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("[  1/1] thing ....")
    assert lines[1].endswith(" 0 s")
    assert lines[2].endswith(" cached")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/one").write_text("1")
    (tmp_path / "a/two").write_text("2")
    return tmp_path


def write(tree: Path) -> None:
    (tree / "a/one").write_text("changed")


def rename(tree: Path) -> None:
    (tree / "a/one").rename(tree / "a/three")


def move_content(tree: Path) -> None:
    (tree / "a/one").write_text("12")
    (tree / "a/two").write_text("")


def make_executable(tree: Path) -> None:
    (tree / "a/one").chmod(0o755)


@pytest.mark.parametrize("change", [write, rename, move_content, make_executable])
def test_a_key_changes_with_what_a_folder_holds(tree: Path, change: Callable[[Path], None]) -> None:
    before = content_key(tree / "a", root=tree)
    change(tree)
    assert content_key(tree / "a", root=tree) != before


def test_a_key_depends_neither_on_where_the_folder_lies_nor_on_what_python_leaves_there(tree: Path) -> None:
    before = content_key(tree / "a", "text", root=tree)
    (tree / "a/__pycache__").mkdir()
    (tree / "a/__pycache__/one.pyc").write_text("x")
    moved = tree.rename(tree.with_name(tree.name + "-moved"))
    assert content_key(moved / "a", "text", root=moved) == before


def test_texts_in_a_key_do_not_run_together() -> None:
    assert content_key("ab", "c") != content_key("a", "bc")


def test_a_program_that_fails_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "step.log", Children())
    with pytest.raises(Failure, match=r"(?s)`sh -c .*` ended with code 3.*the disk is on fire"):
        shell.run("sh", "-c", "echo the disk is on fire >&2; exit 3")


def test_a_program_that_is_not_there_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no-such-program is not installed"):
        Shell(tmp_path / "step.log", Children()).run("no-such-program")


@pytest.mark.parametrize(("source", "sink"), [("exit 1", "cat"), ("echo x", "cat; exit 1")])
def test_a_pipe_fails_with_either_end(tmp_path: Path, source: str, sink: str) -> None:
    with pytest.raises(Failure, match="ended with code 1"):
        Shell(tmp_path / "step.log", Children()).pipe(["sh", "-c", source], ["sh", "-c", sink])


def test_a_lock_that_is_held_is_waited_for_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []

    def second() -> None:
        with locked(tmp_path / "lock"):
            order.append("second")

    other = threading.Thread(target=second)
    with locked(tmp_path / "lock"):
        other.start()
        while "waiting for another run" not in capsys.readouterr().out:
            assert other.is_alive()
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]


def test_the_end_of_a_log_is_shown_and_nothing_else(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(str(number) for number in range(100)))
    assert tail(log, 2) == "    98\n    99"
    assert "empty" in tail(tmp_path / "none")
