"""@task.sky: a Python function of the DAG file, run on a cluster of its own; what it returns is the task's value.

What is sent is the function's source and its arguments, as `spec.task.run` itself: see `remote`. So it imports what it needs inside, and
what it uses of its module is passed by `include`. Both are checked when the DAG file is parsed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from airflow.providers.common.compat.sdk import Context, DecoratedOperator, TaskDecorator, task_decorator_factory

from skyoperator_provider.errors import SkyClusterRejectedError
from skyoperator_provider.masking import holds_secret
from skyoperator_provider.operators.skycluster import SkyClusterOperator, room_for_run
from skyoperator_provider.remote import arguments, carrier, source


class SkyDecoratedOperator(DecoratedOperator, SkyClusterOperator):
    """Runs a function with SkyClusterOperator.

    :param task: the rest of the SkyPilot task: resources, setup, envs; without run.
    :param include: other functions of the DAG file that the function calls.
    :param python: the Python on the cluster that runs it; python3 if there is one after setup, else SkyPilot's own.
    :param serializer: how arguments are sent: `json`, which knows dates, bytes, Decimal and UUID too, or `cloudpickle`, which wants
        the same Python version on both sides. What comes back is JSON always.
    :param every_rank: False calls it on the first node only. What counts is what it returns there, in any case.
    """

    custom_operator_name = "@task.sky"

    template_fields: Sequence[str] = ("op_args", "op_kwargs", *SkyClusterOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **SkyClusterOperator.template_fields_renderers,
    }
    shallow_copy_attrs: Sequence[str] = ("python_callable", "include")

    _wants_value = True

    def __init__(
        self,
        *,
        task: Mapping[str, Any] | None = None,
        include: Sequence[Callable[..., Any]] = (),
        python: str | None = None,
        serializer: Literal["json", "cloudpickle"] = "json",
        every_rank: bool = True,
        **kwargs: Any,
    ) -> None:
        for key in ("task_file", "manifest", "result_path", "skip_on_exit_code"):
            if kwargs.get(key) is not None:
                raise ValueError(f"@task.sky takes no {key}: its run is the function. Give resources and setup by task={{...}}")
        if task and task.get("run") is not None:
            raise ValueError("@task.sky: task has a run, but the function is what is run. What comes before it belongs in setup")
        super().__init__(task=task or {}, result_path=None, **kwargs)
        self.include = include
        self.python = python
        self.serializer = arguments.Serializer(serializer)
        self.every_rank = every_rank
        self._source = source.read(self.python_callable, include, root=_root(self.python_callable))

    def execute(self, context: Context) -> Any:
        """Run the function on a cluster, and return what it returns. Raises what SkyClusterOperator raises."""
        self.task = {**self.task, "run": self._run(context)}
        return super().execute(context)

    def _run(self, context: Context) -> str:
        args, kwargs = list(self.op_args), self._all_kwargs(context)
        try:
            packed = arguments.pack(self.python_callable, args, kwargs, serializer=self.serializer)
            self._refuse_secrets(packed)
            room = room_for_run(self.task)
            return carrier.function_run(self._source, packed, python=self.python, every_rank=self.every_rank, limit_bytes=room)
        except (arguments.UnsendableArgumentError, carrier.TooLargeError) as error:
            raise SkyClusterRejectedError(f"Task {self.task_id}: {error}", reason="InvalidTask") from error

    def _refuse_secrets(self, packed: arguments.Arguments) -> None:
        """Compressed as they are sent, the masker would find nothing in them, and whoever can read the object can open them.

        So all values that are sent are asked about, those of defaults too, which are sent whether the call leaves them or not.
        """
        seen = [(f"argument {name}", value) for name, value in packed.seen]
        seen += [each for definition in self._source.definitions for each in definition.seen]
        found = [name for name, value in seen if holds_secret(value)]
        if found:
            raise SkyClusterRejectedError(
                f"Task {self.task_id}: {', '.join(found)} holds what Airflow masks in its logs. Who may read SkyClusters could "
                'read it. Put it into a Kubernetes Secret, name that by secrets={"NAME": "secret/key"}, and read os.environ["NAME"].',
                reason="InvalidTask",
            )

    def _all_kwargs(self, context: Context) -> dict[str, Any]:
        """Return the call's keywords, and of the context what the signature names and the call does not give."""
        signature = inspect.signature(self.python_callable)
        given = {*list(signature.parameters)[: len(self.op_args)], *self.op_kwargs}
        values = cast("Mapping[str, Any]", context)
        named = {name: values[name] for name in signature.parameters if name in values and name not in given}
        return {**self.op_kwargs, **named}


def sky_task(python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any) -> TaskDecorator:
    """Return the decorator @task.sky. It takes what SkyDecoratedOperator takes.

    :param python_callable: the function, if it is used without arguments.
    :param multiple_outputs: unroll a returned dict to an XCom for each of its keys.
    """
    return task_decorator_factory(
        python_callable=python_callable, multiple_outputs=multiple_outputs, decorated_operator_class=SkyDecoratedOperator, **kwargs
    )


def _root(function: Callable[..., Any]) -> Path | None:
    """Return the folder of the DAG file: where it lies differs from one worker to the next, and the text that is sent must not."""
    code = getattr(function, "__code__", None)
    return Path(code.co_filename).parent if code is not None else None
