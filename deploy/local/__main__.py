"""The verbs. Several may be given; what they need is done once, side by side where possible."""

import argparse
import os
import sys
from collections.abc import Callable

from deploy.local import build, cluster, images
from deploy.local.commands import Children, Failure, Shell, locked
from deploy.local.layout import Layout, layout
from deploy.local.steps import Run, Step

Verb = Callable[[Layout], list[Step]]

INSTEAD = "Without it use your own cluster: KUBECONFIG=... make demo; kind makes one where Docker runs."


def main() -> int:
    """Do what the command line says; return the exit code: 0 well, 1 not."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    parser.add_argument("verbs", nargs="+", choices=[*STEPS, *ACTIONS], metavar="VERB", help=", ".join([*STEPS, *ACTIONS]))
    verbs = parser.parse_args().verbs
    places = layout()
    try:
        return perform(verbs, places)
    except Failure as failure:
        print(f"deploy.local: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def perform(verbs: list[str], places: Layout) -> int:
    """Carry the verbs out: first those that are made of steps, all in one run, then the others in order."""
    if any(verb != "tools" for verb in verbs):
        check_machine()
    wanted = {step.name: step for verb in verbs if verb in STEPS for step in STEPS[verb](places)}
    if wanted:
        with locked(places.cache / "lock"):
            Run(places.logs).execute(list(wanted.values()))
    codes = [ACTIONS[verb](places) for verb in verbs if verb in ACTIONS]
    for line in (line for verb in verbs if verb in SUMMARIES for line in SUMMARIES[verb](places)):
        print(line)
    return max(codes, default=0)


def check_machine() -> None:
    """Raise Failure where no node can run."""
    if sys.platform != "linux":
        raise Failure(f"The local cluster needs Linux. {INSTEAD}")
    if os.geteuid() != 0:
        raise Failure(f"The local cluster needs root: it makes namespaces, mounts and a network. {INSTEAD}")


def cluster_steps(places: Layout) -> list[Step]:
    """Return what a running cluster takes."""
    start = Step(
        "cluster",
        lambda shell: cluster.up(places, shell),
        after=frozenset({"Debian packages", "Kubernetes"}),
        done=lambda: cluster.is_up(places),
    )
    return [build.packages(), build.kubernetes(places), start, *images.pause_steps(places)]


def tool_steps(places: Layout) -> list[Step]:
    """Return what kubectl and helm take."""
    return [build.kubernetes(places), build.helm(places)]


def take_down(places: Layout) -> int:
    """End the cluster."""
    with locked(places.cache / "lock"):
        cluster.down(places, Shell(places.logs / "cluster-down.log", Children()))
    print("The cluster is down; its images are kept.")
    return 0


def status(places: Layout) -> int:
    """Tell how the cluster is; 0 if well."""
    lines, well = cluster.report(places, Shell(places.logs / "cluster-status.log", Children()))
    loaded = images.loaded(places) if well else []
    print("\n".join([*lines, *([f"images      {', '.join(loaded)}"] if loaded else [])]))
    return 0 if well else 1


STEPS: dict[str, Verb] = {
    "cluster-up": cluster_steps,
    "images": lambda places: [*cluster_steps(places), *images.steps(places)],
    "tools": tool_steps,
}
ACTIONS: dict[str, Callable[[Layout], int]] = {"cluster-down": take_down, "cluster-status": status}
SUMMARIES: dict[str, Callable[[Layout], list[str]]] = {
    "cluster-up": lambda places: [f"export KUBECONFIG={places.kubeconfig}"],
    "images": images.summary,
    "tools": lambda places: [str(places.bin)],
}

if __name__ == "__main__":
    sys.exit(main())
