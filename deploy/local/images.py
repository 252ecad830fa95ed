"""Which images there are, what makes each a new one, and their way into the node."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from deploy.local import build, buildah, node
from deploy.local.buildah import Image
from deploy.local.commands import Children, Failure, Shell
from deploy.local.layout import PAUSE_IMAGE, REPOSITORY, SOCKET, Layout
from deploy.local.steps import Step, content_key

FOLDERS = REPOSITORY / "deploy/images"
DEBIAN = "localhost/debian:bookworm"
PYTHON = "localhost/python:3.11"
NODE = "skypilot-node:0.14.1"
API = "skypilot-api:0.14.1"
CONTROLLER = "skyoperator:dev"
IN_NODE = (NODE, API, CONTROLLER)


def catalogue() -> dict[str, Image]:
    """Return all images by name, each after the one below it."""
    recipe = f"{buildah.SUITE} {buildah.BASE_PACKAGES}"
    debian = Image(DEBIAN, "Debian image", FOLDERS / "base", _key("base", recipe), bootstrap=True)
    python = _image(PYTHON, "Python image", "python", debian)
    sky_node = _image(NODE, "SkyPilot node image", "skypilot-node", python)
    sky_api = _image(API, "SkyPilot API image", "skypilot-api", sky_node, "kubectl")
    images = [pause(), debian, python, sky_node, sky_api, controller(python)]
    return {image.name: image for image in images}


def pause() -> Image:
    """Return the image that every pod needs."""
    key = _key("pause", content_key(build.KUBENODE / "pause", root=build.KUBENODE))
    return Image(PAUSE_IMAGE, "pause image", FOLDERS / "pause", key, programs=("pause",))


def _image(name: str, title: str, folder: str, below: Image, *programs: str) -> Image:
    key = _key(folder, below.key, build.kubectl_key() if programs else "")
    return Image(name, title, FOLDERS / folder, key, below, {"BASE_IMAGE": below.name}, programs)


def _key(folder: str, *more: str) -> str:
    return content_key(FOLDERS / folder, *more, root=FOLDERS)


def controller(python: Image, repository: Path = REPOSITORY) -> Image:
    """Return the controller's image. Only what its Dockerfile copies makes it a new one."""
    dockerfile = repository / "Dockerfile"
    sources = [path for pattern in copied(dockerfile.read_text()) for path in sorted(repository.glob(pattern))]
    key = content_key(dockerfile, python.key, *sources, root=repository)
    arguments = {"BUILDER_IMAGE": python.name, "RUNTIME_IMAGE": python.name}
    return Image(CONTROLLER, "controller image", repository, key, python, arguments)


def copied(dockerfile: str) -> list[str]:
    """Return the paths that a Dockerfile copies out of its context."""
    lines = re.sub(r"\\\n", " ", dockerfile).splitlines()
    copies = [shlex.split(line)[1:] for line in lines if re.match(r"\s*(COPY|ADD)\s", line, re.IGNORECASE)]
    from_context = [words for words in copies if not any(word.startswith("--from=") for word in words)]
    return [word.rstrip("/") for words in from_context for word in [word for word in words if not word.startswith("--")][:-1]]


def build_step(layout: Layout, image: Image) -> Step:
    """Return the step that builds an image."""
    below = {image.below.title} if image.below else set()
    after = {"Debian packages", *below, *({"Kubernetes"} if image.programs else set())}
    return Step(
        image.title,
        lambda shell: buildah.build(layout, image, shell),
        after=frozenset(after),
        key=image.key,
        marker=layout.storage / "keys" / image.title.replace(" ", "-"),
    )


def load_step(layout: Layout, image: Image) -> Step:
    """Return the step that brings an image into the node. Images stay there when the cluster goes down."""
    name = image.name.rpartition("/")[2]
    return Step(
        f"load {name}",
        lambda shell: load(layout, image, shell),
        after=frozenset({"cluster", image.title}),
        key=image.key,
        marker=layout.state / "containerd/keys" / image.title.replace(" ", "-"),
        done=lambda: name in loaded(layout),
    )


def load(layout: Layout, image: Image, shell: Shell) -> None:
    """Stream an image into containerd. Raises Failure."""
    source = buildah.command(layout, "push", "--quiet", image.name, f"docker-archive:/dev/stdout:{image.name}")
    shell.pipe(source, [*ctr(layout), "images", "import", "-"])


def ctr(layout: Layout) -> list[str | Path]:
    """Return containerd's command line in the node's namespaces. Raises Failure if no node runs."""
    running = node.own(layout)
    if running is None:
        raise Failure("No cluster runs. Start it with: python -m deploy.local cluster-up")
    return ["nsenter", f"--target={running.process.pid}", "--mount", "--net", "ctr", "--address", SOCKET, "--namespace", "k8s.io"]


def loaded(layout: Layout) -> list[str]:
    """Return the images in the node, by name:tag."""
    shell = Shell(layout.logs / "images.log", Children())
    names = shell.run(*ctr(layout), "images", "list", "--quiet").split()
    return sorted({name.rpartition("/")[2] for name in names if "@" not in name and not name.startswith("sha256:")})


def pause_steps(layout: Layout) -> list[Step]:
    """Return the steps of the one image that a bare cluster needs."""
    return [build_step(layout, pause()), load_step(layout, pause())]


def steps(layout: Layout) -> list[Step]:
    """Return the steps of all images."""
    images = catalogue()
    return [*(build_step(layout, image) for image in images.values()), *(load_step(layout, images[name]) for name in IN_NODE)]


def values(images: Mapping[str, Image]) -> dict[str, object]:
    """Return the chart's values for these images. The annotation makes each process of ours roll when the image's content changed."""
    repository, tag = CONTROLLER.split(":")
    sky_repository, sky_tag = API.split(":")
    annotations = {"skyoperator.dev/content": images[CONTROLLER].key}
    return {
        "controller": {"image": {"repository": repository, "tag": tag}, "podAnnotations": annotations},
        "logs": {"podAnnotations": annotations},
        "skypilot": {
            "image": {"repository": sky_repository, "tag": sky_tag},
            "offline": {"enabled": True, "nodeImage": NODE},
        },
    }


def summary(layout: Layout) -> list[str]:
    """Write images.json (our names) and values.json (for helm), and return helm's words for the latter."""
    names = {"node": NODE, "api": API, "controller": CONTROLLER}
    (layout.state / "images.json").write_text(json.dumps(names, indent=1) + "\n")
    (layout.state / "values.json").write_text(json.dumps(values(catalogue()), indent=1) + "\n")
    return [f"--values {layout.state / 'values.json'}"]
