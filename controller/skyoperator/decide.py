"""What to do next with one SkyCluster.

A pure function of what is wanted (spec), what we wrote down (status) and what we saw (world). It reads no clock and does no I/O, so
every situation, including each crash between two writes, is a value that a test can hand it.

    Pending ──► Queued ──► Launching ──► Running ──► Stopping ──► Succeeded | Failed
    Launching ──► Ready ──► Stopping ──► Succeeded               without `run`; it stays until autostop
    Running ──► Succeeded | Failed ──► Stopping                  kept after its job, as long as whenFinished says so
    Launching | Running | Ready ──► Stopping ──► Pending         failed or lost, and to be launched again after a backoff
    Launching | Running | Ready ──► Stopping ──► Suspended ──► Pending | Queued | Launching
    Ready ──► Launching | Stopping                               an edit, onto the same cluster or a new one
    any phase, through Deleting, to gone

The attempt is written down before SkyPilot is asked (write-ahead). An attempt without request id is the one dangerous state: the
answer may be lost, late, or never have been. It is adopted only under its own exact name, and asked for again only after a settle
time in which a server that answers showed no trace of it.

The rules themselves: ending.py, following.py, starting.py. Who outranks whom is the order of RULES. docs/design/states.md has all steps and
ranks; tests/unit/test_states.py compares it, and this drawing, with what the rules do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeAlias

from skyoperator import ending, following, records, starting
from skyoperator.api.v1alpha1 import SkyCluster
from skyoperator.decision import Decision
from skyoperator.inputs import Inputs, Order, idle_limit
from skyoperator.judge import judge
from skyoperator.summary import summarized
from skyoperator.world import World

Rule: TypeAlias = Callable[[SkyCluster, World, Order], Decision | None]

RULES: Final[tuple[Rule, ...]] = (
    ending.abandoned,
    starting.guard,
    ending.confirmed_lost,
    ending.deleting,
    ending.expired,
    ending.reopened,
    ending.finished,
    ending.suspended,
    ending.past_deadline,
    following.unreachable,
    ending.clear_away,
    following.follow_job,
    following.follow_request,
    following.adopt,
    following.up,
    starting.retry_later,
    starting.rejected,
    starting.queued,
    starting.submit,
)


def decide(this: SkyCluster, world: World, inputs: Inputs) -> Decision:
    """Return what to do next.

    Rules are asked in order; the first that applies answers, so what outranks what is read off the list.
    """
    world = of_our_server(this, world)
    order = Order(inputs, judge(this, world, inputs))
    decision = next(filter(None, (rule(this, world, order) for rule in RULES)))
    decision = _in_time(this, decision, world.now, inputs)
    if this.deleting and not this.status.conditions:
        return decision  # what never had a status gets none now: it must stay tellable from one that was never launched
    return replace(decision, status=summarized(this, decision.status, world, order))


def of_our_server(this: SkyCluster, world: World) -> World:
    """Return a world in which nothing is known if the object's cluster is on another server: what that one has, this one can't tell."""
    record = this.status.cluster
    if record is None or records.is_terminated(this.status) or not record.server or not world.server or record.server == world.server:
        return world
    return World(
        now=world.now,
        server=record.server,
        is_elsewhere=True,
        complaint=f"The cluster is on the SkyPilot API server {record.server}; the controller talks to {world.server}. If that has the "
        f"database of the other: kubectl patch skyc {this.name} -n {this.namespace} --subresource=status --type=merge "
        f'-p \'{{"status":{{"cluster":{{"server":"{world.server}"}}}}}}\'. If the other is no more, and with it the cluster: '
        f"kubectl annotate skyc {this.name} -n {this.namespace} --overwrite skyoperator.dev/confirm-lost=$(date -u +%FT%TZ)",
    )


def _in_time(this: SkyCluster, decision: Decision, now: datetime, inputs: Inputs) -> Decision:
    """Return the decision with a look no later than the next moment at which time alone changes something."""
    then = this.model_copy(update={"status": decision.status})
    pauses = [(moment - now).total_seconds() for moment in _moments(then, inputs) if moment > now]
    if decision.after_seconds is not None:
        pauses.append(decision.after_seconds)
    return replace(decision, after_seconds=min(pauses, default=None))


def _moments(this: SkyCluster, inputs: Inputs) -> Iterator[datetime]:
    if this.abandoned or this.deleting:
        return
    expiry = ending.expiry(this)
    if expiry is not None:
        yield expiry
    if not records.is_finished(this.status) and not this.spec.suspend:
        yield from (ends for ends, _, _ in ending.deadlines(this))
    since = this.status.cluster.idle_since if this.status.cluster and not records.is_terminated(this.status) else None
    limit = idle_limit(this, inputs.policy, has_run=records.has_run(this))
    if since is not None and limit is not None:
        yield since + limit
