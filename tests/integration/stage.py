"""A controller behind a proxy to kube-apiserver, a stand-in for SkyPilot behind it, and what a test asks of the three."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

import yaml

from tests.e2e.support import Sky, kubectl
from tests.integration.apiserver import ApiServer
from tests.integration.conftest import Controllers, Process, gone, reached
from tests.standin.control import Control

RUN = {"resources": {"infra": "k8s"}, "run": "echo hi"}


@dataclass
class Stage:
    """All that takes part, and the looks a test takes at it."""

    api: ApiServer
    controllers: Controllers
    skypilot: Control
    process: Process

    @property
    def namespace(self) -> str:
        return self.controllers.namespace

    def apply(self, name: str, **spec: Any) -> Sky:
        return Sky.apply(self.namespace, name, **{"task": RUN, "whenFinished": "Keep", **spec})

    def launches(self) -> Counter[str]:
        """How many launches SkyPilot has had, by the object's name."""
        tasks = (yaml.safe_load(launch["task"]) for launch in self.skypilot.state()["launches"])
        return Counter(task["resources"]["labels"]["skyoperator-name"] for task in tasks)

    async def logged(self, *words: str, seconds: float = 30) -> None:
        """Wait for a line of the log that says all this."""
        try:
            async with asyncio.timeout(seconds):
                while not any(all(word in line for word in words) for line in self.lines()):
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise AssertionError(f"no line of the log says {words}") from None

    def lines(self) -> list[str]:
        return self.process.log.read_text().splitlines()

    async def ends_well(self, *these: Sky) -> None:
        """Each ran exactly once, and is gone without a trace once it is deleted; the controller is the same process as ever."""
        for this in these:
            await reached(this, "Succeeded", seconds=150)
        self.ran_once(*these)
        await self.goes_well(*these)
        self.ran_once(*these)

    def ran_once(self, *these: Sky) -> None:
        """Each was launched once and ran once, and nothing else was."""
        assert self.launches() == {this.name: 1 for this in these}
        assert list(self.skypilot.state()["executions"].values()) == [1] * len(these)

    async def goes_well(self, *these: Sky) -> None:
        """Deleted, the objects go, and leave nothing in SkyPilot."""
        kubectl("delete", "skyc", *(this.name for this in these), "-n", self.namespace, "--wait=false")
        for this in these:
            await gone(this, seconds=90)
        state = self.skypilot.state()
        assert (state["clusters"], [request for request in state["active"] if request["cluster"]]) == ({}, [])
        assert self.process.is_alive(), "the controller has exited"
