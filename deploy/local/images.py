"""The images: built by buildah out of deploy/images and the top-level Dockerfile, streamed into the node's containerd."""

import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.local import build, node
from deploy.local.commands import Children, Failure, Shell
from deploy.local.layout import PAUSE_IMAGE, REPOSITORY, SOCKET, Layout
from deploy.local.steps import Step, content_key

FOLDERS = REPOSITORY / "deploy/images"
SUITE = "bookworm"
BASE_PACKAGES = "ca-certificates"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True, slots=True)
class Image:
    """One image and what goes into it.

    Attributes:
        name: Its reference.
        title: What the progress lines call it.
        context: Folder with the Dockerfile.
        key: Hash of everything that goes into it, the images below included.
        below: The image it is made from, if we make that too.
        arguments: Build arguments.
        extra: Files that are laid into a copy of the context: name -> path. Empty: the context is used as it is.
    """

    name: str
    title: str
    context: Path
    key: str
    below: "Image | None" = None
    arguments: Mapping[str, str] | None = None
    extra: Mapping[str, Path] | None = None


def image(
    name: str, title: str, folder: str, below: Image | None = None, *, more: str = "", extra: Mapping[str, Path] | None = None
) -> Image:
    """Return an image out of deploy/images; `more` are further inputs to its key."""
    context = FOLDERS / folder
    key = content_key(context, below.key if below else "", more, root=FOLDERS)
    arguments = {"BASE_IMAGE": below.name} if below else {}
    return Image(name, title, context, key, below, arguments, extra or {})


def catalogue(layout: Layout) -> dict[str, Image]:
    """Return all images by short name."""
    base = image("localhost/debian:bookworm", "Debian image", "base", more=f"{SUITE} {BASE_PACKAGES}")
    python = image("localhost/python:3.11", "Python image", "python", base)
    sky_node = image("skypilot-node:0.14.1", "SkyPilot node image", "skypilot-node", python)
    kubectl = {"kubectl": layout.bin / "kubectl"}
    sky_api = image("skypilot-api:0.14.1", "SkyPilot API image", "skypilot-api", sky_node, more=build.kubenode_key(), extra=kubectl)
    pause_program = {"pause": layout.bin / "pause"}
    paused = image(PAUSE_IMAGE, "pause image", "pause", more=content_key(build.KUBENODE / "pause"), extra=pause_program)
    return {"base": base, "python": python, "node": sky_node, "api": sky_api, "pause": paused, "controller": controller(python)}


def controller(python: Image) -> Image:
    """Return the controller's image. Only what its Dockerfile copies makes it a new one."""
    dockerfile = REPOSITORY / "Dockerfile"
    text = dockerfile.read_text() if dockerfile.exists() else ""
    sources = [path for pattern in copied(text) for path in sorted(REPOSITORY.glob(pattern))]
    key = content_key(dockerfile, python.key, *sources, root=REPOSITORY) if text else "absent"
    arguments = {"BUILDER_IMAGE": python.name, "RUNTIME_IMAGE": python.name}
    return Image("skyoperator:dev", "controller image", REPOSITORY, key, python, arguments, {})


def copied(dockerfile: str) -> list[str]:
    """Return the paths that a Dockerfile copies out of its context."""
    lines = re.sub(r"\\\n", " ", dockerfile).splitlines()
    words = [shlex.split(line)[1:] for line in lines if re.match(r"\s*(COPY|ADD)\s", line, re.IGNORECASE)]
    from_context = [line for line in words if not any(word.startswith("--from=") for word in line)]
    return [word.rstrip("/") for line in from_context for word in [w for w in line if not w.startswith("--")][:-1]]


def build_step(layout: Layout, this: Image) -> Step:
    """Return the step that builds an image."""
    make = build_base if this.title == "Debian image" else build_image
    after = {"Debian packages", *([this.below.title] if this.below else []), *(["Kubernetes"] if this.extra else [])}
    return Step(
        this.title,
        lambda shell: make(layout, this, shell),
        after=frozenset(after),
        key=this.key,
        marker=layout.storage / "keys" / this.title.replace(" ", "-"),
    )


def buildah(layout: Layout, *words: str | Path) -> list[str | Path]:
    """Return a buildah command on our own store, in a mount namespace so that it leaves no mount behind."""
    store = ("--root", layout.storage / "store", "--runroot", layout.storage / "run", "--storage-driver", "overlay")
    return ["unshare", "--mount", "--propagation", "private", "buildah", *store, *words]


def build_image(layout: Layout, this: Image, shell: Shell) -> None:
    """Build an image. A private certificate authority of the machine is lent to the build, and does not stay in the image."""
    context = this.context
    if this.extra:
        context = layout.cache / "tmp" / this.title.replace(" ", "-")
        shell.run("rm", "-rf", context)
        context.parent.mkdir(parents=True, exist_ok=True)
        shell.run("cp", "--recursive", this.context, context)
        for name, path in this.extra.items():
            shell.run("cp", path, context / name)
    arguments = [f"--build-arg={name}={value}" for name, value in (this.arguments or {}).items()]
    authorities = os.environ.get("SSL_CERT_FILE")
    lent = (
        [f"--volume={Path(authorities).resolve()}:{AUTHORITIES}:ro", f"--build-arg=SSL_CERT_FILE={AUTHORITIES}"]
        if authorities and this.below
        else []
    )
    options = ["--isolation=chroot", "--pull=never", "--format=docker", f"--tag={this.name}", *arguments, *lent]
    temporary = layout.cache / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    shell.run(*buildah(layout, "build", *options, context), env={"TMPDIR": str(temporary)})
    if this.extra:
        shell.run("rm", "-rf", context)


def build_base(layout: Layout, this: Image, shell: Shell) -> None:
    """Build Debian itself, from the mirror that this machine's apt uses, else from debootstrap's own."""
    folder = layout.cache / "tmp" / "base"
    shell.run("rm", "-rf", folder)
    folder.mkdir(parents=True)
    root = folder / "rootfs"
    options = ("--variant=minbase", f"--include={BASE_PACKAGES}")
    shell.run("unshare", "--mount", "--propagation", "private", "debootstrap", *options, SUITE, root, *mirror(shell))
    left_out = ("./dev/*", "./proc/*", "./sys/*", "./var/cache/apt/*", "./var/lib/apt/lists/*", "./var/log/*")
    shell.run(
        "tar",
        "--create",
        "--file",
        folder / "rootfs.tar",
        "--numeric-owner",
        *(f"--exclude={path}" for path in left_out),
        "--directory",
        root,
        ".",
    )
    shell.run("rm", "-rf", root)
    build_image(layout, with_extra(this, {"rootfs.tar": folder / "rootfs.tar"}), shell)
    shell.run("rm", "-rf", folder)


def with_extra(this: Image, extra: Mapping[str, Path]) -> Image:
    """Return the same image with more files in its context."""
    return Image(this.name, this.title, this.context, this.key, this.below, this.arguments, extra)


def mirror(shell: Shell) -> list[str]:
    """Return this machine's mirror of our suite, or nothing."""
    filters = ("Identifier: Packages", "Origin: Debian", f"Codename: {SUITE}", "Component: main")
    return shell.run("apt-get", "indextargets", "--format", "$(REPO_URI)", *filters).split()[:1]


def load_step(layout: Layout, this: Image) -> Step:
    """Return the step that brings an image into the node. Images stay there when the cluster goes down."""
    return Step(
        f"load {this.name.rpartition('/')[2]}",
        lambda shell: load(layout, this, shell),
        after=frozenset({"cluster", this.title}),
        key=this.key,
        marker=layout.state / "containerd/keys" / this.title.replace(" ", "-"),
        done=lambda: this.name.rpartition("/")[2] in loaded(layout),
    )


def load(layout: Layout, this: Image, shell: Shell) -> None:
    """Stream an image into containerd. Raises Failure."""
    source = buildah(layout, "push", "--quiet", this.name, f"docker-archive:/dev/stdout:{this.name}")
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


def pause(layout: Layout) -> list[Step]:
    """Return the steps of the image that every pod needs."""
    this = catalogue(layout)["pause"]
    return [build_step(layout, this), load_step(layout, this)]


def steps(layout: Layout) -> list[Step]:
    """Return the steps of all images."""
    images = catalogue(layout)
    in_node = [images[name] for name in ("node", "api", "controller")]
    return [*(build_step(layout, this) for this in images.values()), *(load_step(layout, this) for this in in_node)]


def values(images: Mapping[str, Image]) -> dict[str, object]:
    """Return the chart's values for these images. The annotation makes a release roll when the controller's content changed."""
    own, sky = images["controller"], images["api"]
    repository, tag = own.name.split(":")
    sky_repository, sky_tag = sky.name.split(":")
    return {
        "controller": {"image": {"repository": repository, "tag": tag}, "podAnnotations": {"skyoperator.dev/content": own.key}},
        "skypilot": {
            "image": {"repository": sky_repository, "tag": sky_tag},
            "offline": {"enabled": True, "nodeImage": images["node"].name},
        },
    }


def summary(layout: Layout) -> list[str]:
    """Write images.json and values.json, and return helm's words for them."""
    images = catalogue(layout)
    names = {short: images[short].name for short in ("node", "api", "controller")}
    (layout.state / "images.json").write_text(json.dumps(names, indent=1) + "\n")
    (layout.state / "values.json").write_text(json.dumps(values(images), indent=1) + "\n")
    return [f"--values {layout.state / 'values.json'}"]
