"""What may stand under `resources`, and in each item of `any_of` and `ordered`.

SkyPilot pastes many of these values into YAML and shell text without quotes (`image: {{image_id}}` in
sky/templates/kubernetes-ray.yml.j2:592, `skypilot-priority-class: {{priority_class}}` in :326), so a line break in an
image name would write the pod's securityContext. Hence a narrow set of characters for each, and none of them a space.
"""

import re
from collections.abc import Iterator, Mapping

from skyoperator.task.fields import (
    anything,
    boolean,
    entries,
    items,
    of,
    one_of,
    positive,
    quantity,
    refused,
    table,
    text,
    whole,
)
from skyoperator.task.labels import LABEL_KEY, LABEL_VALUE
from skyoperator.task.problems import JSON, Field, Problem, show, under

CLOUDS = (
    "aws", "azure", "gcp", "ibm", "lambda", "scp", "oci", "kubernetes", "runpod", "vast", "vsphere", "cudo", "fluidstack",
    "paperspace", "primeintellect", "do", "nebius", "ssh", "slurm", "hyperbolic", "seeweb", "shadeform", "yotta", "mithril",
    "verda",
)  # fmt: skip  # sky/skylet/constants.py:885
MAX_PORT = 65535
ALTERNATIVES = ("any_of", "ordered")

_PART = r"[A-Za-z0-9][A-Za-z0-9._:@-]*"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_COUNT = rf"(?=[0-9.]*[1-9]){_NUMBER}"
_MEMORY_UNIT = r"(?:[KMGTPkmgtp][BIbi])"
_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_GPU_MEMORY = r"[0-9]+[GgTt][Bb]\+?"

infra = text(
    rf"(?i:\*|{'|'.join(c for c in CLOUDS if c != 'kubernetes')})(?:/(?:\*|{_PART})){{0,2}}|(?i:kubernetes|k8s)(?:/{_PART})*",
    "cloud, cloud/region or cloud/region/zone with a cloud that SkyPilot knows, such as k8s or aws/us-east-1",
)
place = text(rf"{_PART}(?:/{_PART})*", "a name of letters, digits and ._:@/-")
image = text(r"[A-Za-z0-9/][A-Za-z0-9._:/@+-]*", "an image name, such as docker:registry/name:tag, without spaces")
name = text(_NAME, "a name of letters, digits and ._-")
instance_type = text(r"[A-Za-z0-9][A-Za-z0-9._:/+-]*", "the name of an instance type")
gpu = text(rf"{_NAME}(?::{_COUNT})?|(?:{_NAME}:)?{_GPU_MEMORY}(?::[1-9][0-9]*)?", "an accelerator, such as H100, H100:8 or 80GB+")
cpus = quantity(rf"{_NUMBER}\+?", 'a number of CPUs, such as 4 or "4+"')
memory = quantity(rf"{_NUMBER}{_MEMORY_UNIT}?\+?", 'an amount of memory in GB or with its unit, such as 16 or "16GB+"')
disk = of(
    "a size in GB",
    {
        "integer": whole(1),
        "string": text(r"[1-9][0-9]*(?:[gtp][bi]|[GTP][BI]|[GTP][bi])?", "a size in GB or with its unit, such as 256GB"),
    },
)
count = of("a number of accelerators", {"integer": positive, "number": positive})
count_or_none = of("a number of accelerators", {"integer": positive, "number": positive, "null": anything})


def port(path: str, value: JSON) -> Iterator[Problem]:
    """Accept a port from 1 to 65535, or a range of them; several are parted by commas."""
    for part in str(value).split(","):
        found = _PORT.fullmatch(part.strip())
        first, last = (int(bound or found[1]) for bound in found.groups()) if found else (0, 0)
        if not 1 <= first <= last <= MAX_PORT:
            yield Problem(path, f"{show(value)} must be a port from 1 to {MAX_PORT} or a range such as 8000-8010")


def _single(path: str, value: JSON) -> Iterator[Problem]:
    if isinstance(value, Mapping) and len(value) > 1:
        yield Problem(path, "an alternative names one accelerator; write another alternative for the next")
    yield from entries(gpu, count, may_be_empty=False)(path, value)


accelerators = of(
    "an accelerator, a list or an object of them",
    {"string": gpu, "list": items(gpu), "object": entries(gpu, count_or_none, may_be_empty=False)},
)
one_accelerator = of("an accelerator", {"string": gpu, "object": _single})

_EVERYWHERE: Mapping[str, Field] = {
    "infra": infra,
    "cloud": one_of(*CLOUDS),
    "region": place,
    "zone": place,
    "cpus": cpus,
    "memory": memory,
    "instance_type": instance_type,
    "use_spot": boolean,
    "disk_size": disk,
    "disk_tier": one_of("low", "medium", "high", "ultra", "best"),
    "network_tier": one_of("standard", "best"),
    "local_disk": text(rf"(?i:nvme|ssd)|(?:(?i:nvme|ssd):)?{_NUMBER}\+?", 'a local disk, such as nvme or "nvme:1000+"'),
    "max_hourly_cost": of("a price", {"integer": positive, "number": positive}),
    "ports": of("a port or a list of ports", {"integer": port, "string": port, "list": items(port)}),
    "labels": entries(LABEL_KEY, LABEL_VALUE),
    "image_id": of("an image or an object of images by region", {"string": image, "object": entries(place, image)}),
    "accelerator_args": table({"runtime_version": name, "tpu_name": name, "tpu_vm": boolean, "gcp_queued_resource": boolean}),
    "priority": whole(-1000, 1000),
    "priority_class": text(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", "the name of a priority class"),
}
_REFUSED: Mapping[str, Field] = {
    "autostop": refused("InvalidTask", "skyoperator ends the cluster itself; set spec.autostop instead"),
    "job_recovery": refused("InvalidTask", "belongs to SkyPilot's managed jobs; set spec.retryOn and spec.backoffLimit instead"),
    "spot_recovery": refused("InvalidTask", "belongs to SkyPilot's managed jobs; set spec.retryOn and spec.backoffLimit instead"),
    "ephemeral_storage": refused("InvalidTask", "SkyPilot ignores it; set disk_size instead"),
    "volumes": refused("PolicyDenied", "attaches disks of the server's cloud account, which no policy here allows"),
    "hooks": refused("PolicyDenied", "runs commands when the cluster ends, which would outlive the job; remove it"),
}
_ALTERNATIVE = table({**_EVERYWHERE, "accelerators": one_accelerator, "gpus": one_accelerator}, _REFUSED)
_RESOURCES = table(
    {
        **_EVERYWHERE,
        "accelerators": accelerators,
        "gpus": accelerators,
        "any_of": items(_ALTERNATIVE),
        "ordered": items(_ALTERNATIVE),
    },
    _REFUSED,
)


def resources(path: str, value: JSON) -> Iterator[Problem]:
    """Judge `resources`: its keys and values first, then what may not stand together."""
    yield from _RESOURCES(path, value)
    if isinstance(value, Mapping):
        yield from _alternatives(path, value)
        for where, merged in _merged(path, value):
            yield from _together(where, merged)


def alternatives(value: JSON) -> Iterator[tuple[str, int, Mapping[str, JSON]]]:
    """Yield each object under any_of and ordered, with the key and index it stands at."""
    for key in ALTERNATIVES:
        listed = value.get(key) if isinstance(value, Mapping) else None
        for index, item in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(item, Mapping):
                yield key, index, item


def candidates(path: str, value: JSON) -> Iterator[tuple[str, Mapping[str, JSON]]]:
    """Yield what SkyPilot chooses from, each with its path: the merged alternatives, or what is written if there are none."""
    if isinstance(value, Mapping):
        base, *others = _merged(path, value)
        yield from others or [base]


def _merged(path: str, value: Mapping[str, JSON]) -> Iterator[tuple[str, Mapping[str, JSON]]]:
    """Yield what SkyPilot makes of `value`: each alternative laid over the rest (sky/resources.py:2520-2545)."""
    base = {key: inner for key, inner in value.items() if key not in ALTERNATIVES}
    yield path, base
    for key, index, item in alternatives(value):
        yield under(under(path, key), index), {**base, **item}


def _together(path: str, value: Mapping[str, JSON]) -> Iterator[Problem]:
    if "infra" in value and (others := [key for key in ("cloud", "region", "zone") if key in value]):
        yield Problem(path, f"infra already says where; remove {', '.join(others)}")
    if "gpus" in value and "accelerators" in value:
        yield Problem(path, "gpus is another word for accelerators; keep one of them")
    if "priority" in value and "priority_class" in value:
        yield Problem(path, "priority and priority_class exclude each other; keep one of them")
    images = value.get("image_id")
    if isinstance(images, Mapping) and "docker" in images and _container_images(images):
        yield Problem(under(path, "image_id"), "names a container image twice; keep the docker key")


def _container_images(images: Mapping[str, JSON]) -> list[str]:
    return [region for region, found in images.items() if region != "docker" and str(found).startswith("docker:")]


def _alternatives(path: str, value: Mapping[str, JSON]) -> Iterator[Problem]:
    if all(key in value for key in ALTERNATIVES):
        yield Problem(path, "any_of and ordered exclude each other; keep one of them")
    named = value.get("accelerators", value.get("gpus"))
    several = isinstance(named, Mapping | list) and len(named) > 1
    if several and ("ordered" in value or ("any_of" in value and isinstance(named, list))):
        yield Problem(path, "several accelerators and alternatives exclude each other; name one in each alternative")
    priorities = {merged["priority"] for _, merged in _merged(path, value) if isinstance(merged.get("priority"), int)}
    if len(priorities) > 1:
        yield Problem(path, "every alternative must have the same priority")
