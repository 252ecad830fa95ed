"""What a SkyCluster is made of: a task, a file or a manifest, with the options that belong to its life rather than to its work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from airflow.providers.common.compat.sdk import Context, literal

from skyoperator_provider import templating
from skyoperator_provider.errors import SkyClusterRejectedError
from skyoperator_provider.manifest import ManifestError, Options, build, masked_values, namespace_of, parse
from skyoperator_provider.masking import mask
from skyoperator_provider.operators.owning import Body, SkyClusterOwningOperator
from skyoperator_provider.settings import defaults


class SkyClusterMakingOperator(SkyClusterOwningOperator):
    """Makes an object of exactly one of task, task_file and manifest.

    :param task: a SkyPilot task, as in task.yaml. Templated.
    :param task_file: a file with one, from the folder of the DAG file or from template_searchpath. Its text is templated.
    :param manifest: a whole SkyCluster, as an object or as YAML text, without a name: that is the task instance's. Templated.
    :param render: False leaves task, task_file and manifest as they are written.
    :param secrets: {"HF_TOKEN": "name-of-the-secret/key"}, variables whose values stay in Kubernetes Secrets.
    :param active_deadline_seconds: when the object ends whatever becomes of Airflow; of execution_timeout if it waits for the job's
        end, else of `[skyoperator]` in airflow.cfg.
    :param ttl_seconds_after_finished: how long a finished object stays, if nobody deletes it.
    :param autostop_idle_minutes: when an idle cluster ends.
    :param backoff_limit: how many times the controller launches again.
    :param retry_on: after which failures it does.
    :param when_finished: `Down` or `Keep` the cluster when its job has ended.
    """

    template_fields: Sequence[str] = (*SkyClusterOwningOperator.template_fields, "task", "task_file", "manifest", "secrets")
    template_fields_renderers: ClassVar[dict[str, str]] = {"task": "yaml", "manifest": "yaml", "secrets": "json"}

    _waits_for_the_end = False
    """Whether execution_timeout bounds the job, rather than only the launch."""

    def __init__(
        self,
        *,
        task: Mapping[str, Any] | None = None,
        task_file: str | None = None,
        manifest: Mapping[str, Any] | str | None = None,
        render: bool = True,
        secrets: Mapping[str, str] | None = None,
        active_deadline_seconds: int | None = None,
        ttl_seconds_after_finished: int | None = None,
        autostop_idle_minutes: int | None = None,
        backoff_limit: int | None = None,
        retry_on: Sequence[str] | None = None,
        when_finished: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.render = render
        self.task: Any = task if render or task is None else literal(task)
        self.task_file = task_file
        self.manifest: Any = manifest if render or manifest is None else literal(manifest)
        self.secrets = secrets
        self.active_deadline_seconds = active_deadline_seconds
        self.ttl_seconds_after_finished = ttl_seconds_after_finished
        self.autostop_idle_minutes = autostop_idle_minutes
        self.backoff_limit = backoff_limit
        self.retry_on = retry_on
        self.when_finished = when_finished

    def get_namespace(self) -> str:
        """Return the task's namespace, else the manifest's, else the connection's."""
        return self.namespace or self._named_namespace() or super().get_namespace()

    def _named_namespace(self) -> str | None:
        manifest = self.manifest
        if isinstance(manifest, str):
            # What is no YAML is refused where the object is built.
            with suppress(ManifestError):
                manifest = parse(manifest, "manifest")
        return namespace_of(manifest) if isinstance(manifest, Mapping) else None

    def _build(self, context: Context) -> Body:
        """Return the object to make. Raises SkyClusterRejectedError: the same DAG would write the same again."""
        try:
            built = build(
                self._identity(context),
                self.get_namespace(),
                context["ti"].try_number,
                task=self.task,
                task_text=self._task_text(context),
                manifest=parse(self.manifest, "manifest") if isinstance(self.manifest, str) else self.manifest,
                options=self._options(),
                defaults=defaults(),
                execution_timeout_seconds=self._limit_seconds() if self._waits_for_the_end else None,
            )
        except (ManifestError, FileNotFoundError) as error:
            raise SkyClusterRejectedError(f"Task {self.task_id}: {error}", reason="InvalidTask") from error
        self._refuse_masked(built)
        return built

    def _task_text(self, context: Context) -> str | None:
        if self.task_file is None:
            return None
        env = self.get_template_env()
        text = templating.load(self.task_file, env)
        return templating.render(text, env, context) if self.render else text

    def _options(self) -> Options:
        return Options(
            active_deadline_seconds=self.active_deadline_seconds,
            ttl_seconds_after_finished=self.ttl_seconds_after_finished,
            autostop_idle_minutes=self.autostop_idle_minutes,
            secrets=self.secrets or {},
            backoff_limit=self.backoff_limit,
            retry_on=self.retry_on,
            when_finished=self.when_finished,
        )

    def _refuse_masked(self, built: Body) -> None:
        """A secret that was rendered into the object could be read by all who may read the object."""
        if paths := masked_values(built, mask):
            raise SkyClusterRejectedError(
                f"Task {self.task_id}: {', '.join(paths)} holds what Airflow masks in its logs, and who may read SkyClusters could "
                'read it. Put it into a Kubernetes Secret and name that: secrets={"NAME": "secret/key"}.',
                reason="InvalidTask",
            )
