"""Building images without Docker, and without a registry below them: debootstrap makes Debian, buildah the rest."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.commands import Failure, Shell
from deploy.local.layout import Layout

SUITE = "bookworm"
BASE_PACKAGES = "ca-certificates"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
PRIVATE_MOUNTS = ("unshare", "--mount", "--propagation", "private")


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
        programs: Those of our programs that are laid into a copy of the context.
        bootstrap: Whether rootfs.tar, a Debian, is laid there too.
    """

    name: str
    title: str
    context: Path
    key: str
    below: "Image | None" = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    programs: tuple[str, ...] = ()
    bootstrap: bool = False

    @property
    def is_prepared(self) -> bool:
        """Tell whether its context is more than what the repository holds."""
        return self.bootstrap or bool(self.programs)


def command(layout: Layout, *words: str | Path) -> list[str | Path]:
    """Return a buildah command on our own store, in a mount namespace so that it leaves no mount behind."""
    store = ("--root", layout.storage / "store", "--runroot", layout.storage / "run", "--storage-driver", "overlay")
    return [*PRIVATE_MOUNTS, "buildah", *store, *words]


def build(layout: Layout, image: Image, shell: Shell) -> None:
    """Build an image; the one that had its name is removed. Raises Failure."""
    temporary = layout.cache / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    context = _prepare(layout, image, temporary / image.context.name, shell) if image.is_prepared else image.context
    before = _identity(layout, image, shell)
    shell.run(*command(layout, "build", *options(image, os.environ), context), env={"TMPDIR": str(temporary)})
    if image.is_prepared:
        shell.run("rm", "-rf", context)
    if before and before != _identity(layout, image, shell):
        with suppress(Failure):  # an image above may still use it
            shell.run(*command(layout, "rmi", before))


def options(image: Image, environment: Mapping[str, str]) -> list[str]:
    """Return buildah's options for an image.

    A private certificate authority of the machine is lent to the build by a mount, so that nothing of it stays in the
    image. Layers are kept for what is built again and again: a Dockerfile that copies from the repository.
    """
    arguments = [f"--build-arg={name}={value}" for name, value in image.arguments.items()]
    authorities = environment.get("SSL_CERT_FILE")
    lent = []
    if authorities and image.below:  # without an image below there is nothing yet that could fetch
        lent = [f"--volume={Path(authorities).resolve()}:{AUTHORITIES}:ro", f"--build-arg=SSL_CERT_FILE={AUTHORITIES}"]
    return ["--isolation=chroot", "--pull=never", "--format=docker", "--layers", f"--tag={image.name}", *arguments, *lent]


def _identity(layout: Layout, image: Image, shell: Shell) -> str:
    return shell.run(*command(layout, "images", "--quiet", "--no-trunc", "--filter", f"reference={image.name}")).strip()


def _prepare(layout: Layout, image: Image, context: Path, shell: Shell) -> Path:
    shell.run("rm", "-rf", context)
    shell.run("cp", "--recursive", image.context, context)
    for program in image.programs:
        shell.run("cp", layout.bin / program, context)
    if image.bootstrap:
        _debootstrap(context, shell)
    return context


def _debootstrap(context: Path, shell: Shell) -> None:
    """Lay rootfs.tar, a minimal Debian, into the context; from this machine's mirror, else from debootstrap's own."""
    root = context / "rootfs"
    minimal = ("--variant=minbase", f"--include={BASE_PACKAGES}")
    shell.run(*PRIVATE_MOUNTS, "debootstrap", *minimal, SUITE, root, *_mirror(shell))
    left_out = [f"--exclude=./{path}/*" for path in ("dev", "proc", "sys", "var/cache/apt", "var/lib/apt/lists", "var/log")]
    shell.run("tar", "--create", "--file", context / "rootfs.tar", "--numeric-owner", *left_out, "--directory", root, ".")
    shell.run("rm", "-rf", root)


def _mirror(shell: Shell) -> list[str]:
    filters = ("Identifier: Packages", "Origin: Debian", f"Codename: {SUITE}", "Component: main")
    return shell.run("apt-get", "indextargets", "--format", "$(REPO_URI)", *filters).split()[:1]
