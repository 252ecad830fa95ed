# mypy: disable-error-code="import-not-found"
"""Run by the interpreter of an environment with SkyPilot in it: reads requests as JSON lines, answers each with one.

It does to a task what SkyPilot's API server does to the body of POST /launch, and says what came out. SkyPilot's pins
conflict with the controller's, so the two never share an environment.
"""

import json
import os
import pathlib
import sys
import types
from typing import Any
from unittest import mock

import yaml
from sky import check, clouds, exceptions, skypilot_config
from sky.backends import backend_utils, task_codegen
from sky.server import common
from sky.skylet import log_lib
from sky.utils import command_runner, common_utils, config_utils, registry, schemas


def parse(task: str) -> dict[str, Any]:
    """Return what the server makes of the YAML text of a task (sky/server/common.py:1177)."""
    dag = common.process_mounts_in_task_on_api_server(task, {}, workdir_only=False)
    (parsed,) = dag.tasks
    parsed.validate_name()
    parsed.validate_run()
    parsed.expand_and_validate_workdir()
    parsed.expand_and_validate_file_mounts()
    labels = [label for found in parsed.resources for label in (found.labels or {}).items()]
    return {
        "name": parsed.name,
        "dag": dag.name,
        "run": parsed.run,
        "setup": parsed.setup,
        "envs": parsed.envs,
        "num_nodes": parsed.num_nodes,
        "workdir": parsed.workdir,
        "file_mounts": parsed.file_mounts or {},
        "local": parsed.get_local_to_remote_file_mounts(),
        "storage": {path: storage.to_yaml_config() for path, storage in parsed.storage_mounts.items()},
        "volumes": parsed.volumes,
        "secrets": {name: value.get_secret_value() for name, value in parsed.secrets.items()},
        "on_request": {
            "event_callback": parsed.event_callback,
            "api_server_access": parsed.api_server_access,
            "inputs": parsed.inputs and {parsed.inputs: parsed.estimated_inputs_size_gigabytes},
            "outputs": parsed.outputs and {parsed.outputs: parsed.estimated_outputs_size_gigabytes},
        },
        "resources": [_resources(found) for found in parsed.resources],
        "foreign": {
            "managed_secrets": [reference.name for reference in parsed.managed_secret_refs],
            "volume_mounts": parsed.volume_mounts,
            "file_mounts_mapping": parsed.file_mounts_mapping,
            "service": parsed.service and parsed.service.to_yaml_config(),
            "metadata": {key: value for key, value in parsed.metadata.items() if key != "git_commit"},
            "labels": [label for label in labels if not clouds.Kubernetes.is_label_valid(*label)[0]],
        },
    }


def _resources(found: Any) -> dict[str, Any]:
    return {
        "labels": found.labels,
        "image_id": found.image_id and {str(region): image for region, image in found.image_id.items()},
        "autostop": found.autostop_config and found.autostop_config.to_yaml_config(),
        "on_request": {"overrides": found.cluster_config_overrides, "hooks": found.hooks},
        "foreign": {
            "docker_login": found.docker_login_config is not None,
            "runpod_user": found.docker_username_for_runpod,
            "job_recovery": found.job_recovery,
            "volumes": found.volumes,
        },
    }


def schema(_: str) -> dict[str, Any]:
    """Return the keys that SkyPilot's schemas know at every level that a task can reach."""
    resources = schemas.get_resources_schema()["properties"]
    storage = schemas.get_storage_schema()["properties"]
    return {
        "task": sorted(schemas.get_task_schema()["properties"]),
        "workdir": sorted(schemas.get_task_schema()["properties"]["workdir"]["anyOf"][1]["properties"]),
        "resources": sorted(resources),
        "any_of": sorted(resources["any_of"]["items"]["properties"]),
        "ordered": sorted(resources["ordered"]["items"]["properties"]),
        "accelerator_args": sorted(resources["accelerator_args"]["properties"]),
        "storage": sorted(storage),
        "storage_config": sorted(storage["config"]["properties"]),
        "mount": sorted(storage["config"]["properties"]["mount"]["properties"]),
        "mount_cached": sorted(storage["config"]["properties"]["mount_cached"]["properties"]),
    }


def script(request: str) -> dict[str, Any]:
    """Return the bash file that a node runs for a `run` with these envs, and where git_clone.sh is."""
    wanted = json.loads(request)
    unset = " && ".join(f"unset {name}" for name in task_codegen.UNSET_RAY_ENV_VARS)
    body = task_codegen.TaskCodeGen.build_task_bash_script(wanted["run"], env_prefix=unset)
    return {
        "script": log_lib.make_task_bash_script(body, env_vars=wanted["envs"]),
        "git_clone": str(pathlib.Path(command_runner.__file__).with_name("git_clone.sh")),
    }


def clone(request: str) -> dict[str, Any]:
    """Return the command that clones on a node with these envs and secrets, and SkyPilot's words when it fails there."""
    commands: list[str] = []

    def run(command: str, **_: Any) -> int:
        commands.append(command)
        return 128

    node = types.SimpleNamespace(node_id="head", rsync=lambda **_: None, run=run)
    with mock.patch.object(command_runner.time, "sleep"):
        try:
            command_runner.CommandRunner.git_clone(node, "/tmp/workdir", envs_and_secrets=json.loads(request))
        except exceptions.CommandError as error:
            return {"command": commands[0], "words": str(error)}
    raise AssertionError


def labels(request: str) -> dict[str, Any]:
    """Return the clouds that refuse these labels."""
    every = (clouds.Kubernetes, clouds.GCP, clouds.AWS, clouds.Azure)
    wanted = json.loads(request)
    return {"refused_by": [c.__name__ for c in every if not all(c.is_label_valid(*label)[0] for label in wanted.items())]}


class _AskedError(Exception):
    """Carries the clouds whose credential files SkyPilot has just left out."""


def identity(request: str) -> dict[str, Any]:
    """Return the clouds whose credential files a cluster on this cloud and region would get, and its pods' service account."""
    wanted = json.loads(request)
    config = config_utils.Config.from_dict(yaml.safe_load(wanted["config"]))
    common_utils.validate_schema(config, schemas.get_config_schema(), "Invalid config: ")

    def asked(excluded: Any) -> None:
        raise _AskedError({cloud.canonical_name() for cloud in excluded})

    cloud = registry.CLOUD_REGISTRY.from_str(wanted["cloud"])
    resources = types.SimpleNamespace(
        cloud=cloud, region=wanted["region"], cluster_config_overrides={}, make_deploy_variables=lambda *_: {}
    )
    region = clouds.Region(wanted["region"])
    with (
        mock.patch.object(skypilot_config, "_get_loaded_config", return_value=config),
        mock.patch.object(check, "get_cloud_credential_file_mounts", asked),
    ):
        account = skypilot_config.get_effective_workspace_region_config("kubernetes", ("remote_identity",), wanted["region"])
        try:
            backend_utils.write_cluster_config(resources, 1, "", "c", pathlib.Path(), "", region)
        except _AskedError as found:
            return {"uploaded": sorted({*registry.CLOUD_REGISTRY} - found.args[0]), "account": account}
    raise AssertionError


def answer(request: dict[str, str]) -> dict[str, Any]:
    """Return the answer to one request, or SkyPilot's error."""
    work = {"parse": parse, "schema": schema, "script": script, "clone": clone, "labels": labels, "identity": identity}[request["do"]]
    try:
        return {"ok": work(request["with"])}
    except Exception as error:  # noqa: BLE001  # whatever SkyPilot raises is the answer
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Answer until the input ends. What SkyPilot prints and logs goes to stderr, so that stdout holds answers only."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for line in sys.stdin:
            print(json.dumps(answer(json.loads(line)), default=str), file=answers, flush=True)


if __name__ == "__main__":
    main()
