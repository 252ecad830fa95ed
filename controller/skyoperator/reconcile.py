"""One object, one pass: read, look, decide, write, act. The only place that orders these.

    GET object ─► read what it refers to ─► look at SkyPilot ─► decide (pure) ─► PUT status (resourceVersion) ─► act ─► write the result

Written first, acted on after: whatever dies in between leaves a record that the next pass, or the next process, goes on from.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final, Protocol

from skyoperator import outcomes, records, references, task
from skyoperator.api.v1alpha1 import SkyCluster, SkyClusterStatus
from skyoperator.clock import utc_now
from skyoperator.decide import decide
from skyoperator.decision import (
    Action,
    AddFinalizer,
    CancelJob,
    Decision,
    DeleteObject,
    Launch,
    RemoveFinalizer,
    SetAutostop,
    TearDown,
)
from skyoperator.failures import launch_refused
from skyoperator.inputs import Inputs, Order
from skyoperator.judge import judge
from skyoperator.kube import Conflict, Key, Kube, KubeError, key_of
from skyoperator.metrics import LAUNCHES
from skyoperator.observe import Observer
from skyoperator.sky.types import ATTEMPT_LABEL, INSTANCE_LABEL, NAMESPACE_LABEL, UID_LABEL, SkyPilot, SkyPilotRefused, SkyPilotUnreachable
from skyoperator.subject import subject_of
from skyoperator.summary import summarized
from skyoperator.transitions import Transition, transitions
from skyoperator.world import World

logger = logging.getLogger(__name__)

ACKNOWLEDGE_TRIES: Final = 3
LEASE_MARGIN_SECONDS: Final = 5.0


class Holder(Protocol):
    """Our claim to be the one active controller."""

    def seconds_left(self) -> float:
        """Return for how long nobody else can become active."""


class Installation(Protocol):
    """Which clusters are ours, and which of them are left to others on purpose."""

    def label(self) -> str:
        """Return the value that all our clusters are labelled with."""

    async def release(self, cluster_name: str) -> None:
        """Remember that the cluster is left behind on purpose. Raises KubeError."""


class LeaseTooShortError(Exception):
    """Too little of the lease is left to send a launch: another controller might send it too."""


def labels_of(this: SkyCluster, attempt: int, installation: str) -> dict[str, str]:
    """Return what every node of the object's cluster is labelled with; values that any cloud takes."""
    return {
        UID_LABEL: this.uid,
        ATTEMPT_LABEL: str(attempt),
        INSTANCE_LABEL: installation,
        NAMESPACE_LABEL: this.namespace,
        "skyoperator-name": this.name.replace(".", "-"),
    }


class Reconciler:
    """Takes one object one step further. Each object is to be reconciled by one task at a time; the caller sees to it."""

    def __init__(
        self,
        *,
        kube: Kube,
        sky: SkyPilot,
        observer: Observer,
        holder: Holder,
        installation: Installation,
        post_timeout_seconds: float,
        policy: task.Policy | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._kube = kube
        self._sky = sky
        self._observer = observer
        self._holder = holder
        self._installation = installation
        self._policy = policy or task.Policy()
        self._now = now
        self._needed_lease_seconds = post_timeout_seconds + LEASE_MARGIN_SECONDS

    async def reconcile(self, key: Key, wake: Callable[[], None]) -> tuple[SkyCluster, float | None]:
        """Return the object as it now is, and in how many seconds to look again (None: once it is edited).

        `wake` is called when something changes in SkyPilot. Raises Gone when the object is no more, Conflict when somebody wrote it
        meanwhile, KubeError, SkyPilotError and LeaseTooShortError when this pass could not be finished.
        """
        this = await self._kube.get(key)
        inputs = await references.read(self._kube, this, self._policy)
        world = await self._look(this, wake)
        decision = decide(this, world, inputs)
        this = await self._store(this, decision.status)
        this = await self._act(this, decision.action, world, inputs)
        self._refollow(this, decision, wake)
        return this, decision.after_seconds

    async def _look(self, this: SkyCluster, wake: Callable[[], None]) -> World:
        subject = subject_of(this)
        if subject is None:
            return World(now=self._now(), server="")
        self._observer.follow(subject, wake)
        world = await self._observer.look(subject)
        return replace(world, job_words=await references.discreet(self._kube, this, world.job_words))

    def _refollow(self, this: SkyCluster, decision: Decision, wake: Callable[[], None]) -> None:
        subject = subject_of(this)
        if subject is None or decision.after_seconds is None:
            self._observer.forget(records.cluster_name(this))
        else:
            self._observer.follow(subject, wake)

    async def _store(self, this: SkyCluster, status: SkyClusterStatus) -> SkyCluster:
        """Write the status if it says anything new. A status that went out of date in between is never written over a newer one."""
        if status.as_json() == this.status.as_json():
            return this
        stored = await self._kube.put_status(this, status)
        for transition in transitions(this.status, stored.status):
            await self._announce(stored, transition)
        return stored

    async def _announce(self, this: SkyCluster, transition: Transition) -> None:
        """Events are for people: one that can't be posted holds up nothing."""
        logger.info("%s: %s", transition.reason, transition.note, extra={"object": f"{this.namespace}/{this.name}"})
        try:
            await self._kube.event(this, transition.kind, transition.reason, transition.note)
        except KubeError as error:
            logger.warning("%s", error)

    async def _act(self, this: SkyCluster, action: Action | None, world: World, inputs: Inputs) -> SkyCluster:
        match action:
            case AddFinalizer():
                await self._kube.set_finalizer(this, present=True)
            case RemoveFinalizer():
                await self._let_go(this, action)
            case DeleteObject():
                await self._kube.delete(this)
            case TearDown():
                await self._tear_down(action)
            case CancelJob():
                await self._cancel_job(action)
            case SetAutostop():
                return await self._set_autostop(this, action)
            case Launch():
                return await self._launch(this, action, world, inputs)
            case None:
                pass
        return this

    async def _let_go(self, this: SkyCluster, action: RemoveFinalizer) -> None:
        """Let the object go. That its cluster stays on purpose is remembered first: afterwards nothing would tell."""
        if action.leaves_cluster and this.status.cluster is not None:
            await self._installation.release(this.status.cluster.name)
        await self._kube.set_finalizer(this, present=False)

    async def _cancel_job(self, action: CancelJob) -> None:
        try:
            await self._sky.cancel_jobs(action.cluster_name, [action.job_id])
        finally:
            self._observer.acted(action.cluster_name)

    async def _set_autostop(self, this: SkyCluster, action: SetAutostop) -> SkyCluster:
        """Tell SkyPilot first and write it down afterwards: to say it twice does no harm, to believe it said does."""
        await self._sky.set_autostop(action.cluster_name, action.idle_minutes)
        return await self._store(this, records.backstopped(this.status, action.idle_minutes))

    async def _tear_down(self, action: TearDown) -> None:
        down_id: str | None = None
        try:
            if action.cancel:
                await self._sky.cancel(action.cancel)
            if action.down:
                down_id = await self._sky.down(action.cluster_name)
        except SkyPilotRefused as error:
            logger.warning("taking %s down: %s", action.cluster_name, error)
            self._observer.refused_down(action.cluster_name, str(error))
        finally:
            self._observer.acted(action.cluster_name, down_id=down_id)

    async def _launch(self, this: SkyCluster, action: Launch, world: World, inputs: Inputs) -> SkyCluster:
        text = self._text(this, action, inputs)
        try:
            request_id = await self._sky.launch(action.cluster_name, text, may_send=partial(self._require_lease, action.job_name))
        except SkyPilotRefused as error:
            LAUNCHES.labels("refused").inc()
            return await self._record_refusal(this, str(error), world, inputs)
        except SkyPilotUnreachable as error:
            LAUNCHES.labels("unanswered").inc()
            logger.warning("launch %s: %s; it is looked for before it is sent again", action.job_name, error)
            return this
        finally:
            self._observer.acted(action.cluster_name)
        LAUNCHES.labels("accepted").inc()
        return await self._record_request(this, action, request_id, world, inputs)

    def _require_lease(self, job_name: str) -> None:
        left = self._holder.seconds_left()
        if left < self._needed_lease_seconds:
            raise LeaseTooShortError(f"not launching {job_name}: only {left:.0f} s of the lease are left")

    def _text(self, this: SkyCluster, action: Launch, inputs: Inputs) -> str:
        """Return the task as SkyPilot is sent it. It holds the values of Secrets: it goes into the POST, and nowhere else."""
        if inputs.task is None or this.status.launch is None:
            raise AssertionError("what is launched has been read and written down")
        return task.render(
            inputs.task,
            job_name=action.job_name,
            labels=labels_of(this, this.status.launch.attempt, self._installation.label()),
            policy=inputs.policy,
            secrets=inputs.secrets,
            autostop_minutes=this.status.launch.autostop_minutes,
        )

    async def _record_request(self, this: SkyCluster, action: Launch, request_id: str, world: World, inputs: Inputs) -> SkyCluster:
        """Write the request id down, on top of whatever the user edited meanwhile. If it fails, the attempt is adopted by its name.

        Only the attempt that was sent has this request: a status that was changed by somebody else may speak of another.
        """
        for _ in range(ACKNOWLEDGE_TRIES):
            launch = this.status.launch
            if launch is None or launch.request_id is not None or records.attempt_name(this, launch) != action.job_name:
                break
            now = self._now()
            status = records.acknowledged(this.status, launch, request_id, now)
            world = replace(world, now=now)
            try:
                return await self._store(this, summarized(this, status, world, Order(inputs, judge(this, world, inputs))))
            except Conflict:
                this = await self._kube.get(key_of(this))
        return this

    async def _record_refusal(self, this: SkyCluster, words: str, world: World, inputs: Inputs) -> SkyCluster:
        now = self._now()
        status = outcomes.failed(this, this.status, launch_refused(words), now)
        return await self._store(this, summarized(this, status, world, Order(inputs, judge(this, world, inputs))))
