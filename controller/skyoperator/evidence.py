"""What became of one launch, or one /down: questions about single requests, asked only where the shared look has no answer."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from dataclasses import replace
from typing import TypeVar

from skyoperator.failures import LOST
from skyoperator.sky.types import Launched, Request, RequestError, RequestStatus, SkyPilot, SkyPilotError, UnknownRequest
from skyoperator.subject import Subject
from skyoperator.world import ABSENT, Absent, World

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def with_launch(sky: SkyPilot, world: World, subject: Subject) -> World:
    """Return the world with what is known of the subject's launch, or of the attempt that may have become one."""
    if subject.request_id is not None:
        active = (request for request in world.active or () if request.id == subject.request_id)
        launch = next(active, None) or await _finished(sky, subject.cluster_name, subject.request_id)
        outcome = await _outcome(sky, launch)
        if outcome is ABSENT:
            return replace(world, launch=ABSENT)
        return replace(world, launch=launch, outcome=outcome)
    if subject.attempt_name is not None:
        return replace(world, attempt=await _attempt(sky, subject.cluster_name, subject.attempt_name))
    return world


async def error_of(sky: SkyPilot, request_id: str) -> str:
    """Return why a finished request failed, or "" if it did not or nobody knows."""
    try:
        outcome = await sky.result_of(request_id)
    except SkyPilotError:
        return ""
    return outcome.message if isinstance(outcome, RequestError) else ""


async def was_taken_down(sky: SkyPilot, name: str) -> bool:
    """Return whether the server knows of a /down of the cluster, whoever asked for it, that succeeded or is under way."""
    requests = await _or_none(sky.requests_of(name)) or ()
    return any(request.name == "down" and (request.status.active or request.status is RequestStatus.SUCCEEDED) for request in requests)


async def _finished(sky: SkyPilot, name: str, request_id: str) -> Request | Absent | None:
    requests = await _or_none(sky.requests_of(name))
    if requests is None:
        return None
    return next((request for request in requests if request.id == request_id), ABSENT)


async def _outcome(sky: SkyPilot, launch: Request | Absent | None) -> Launched | RequestError | Absent | None:
    if not isinstance(launch, Request) or launch.status.active:
        return None
    try:
        return await sky.result_of(launch.id)
    except UnknownRequest:
        return ABSENT
    except SkyPilotError:
        return None


async def _attempt(sky: SkyPilot, name: str, attempt: str) -> Request | Absent | None:
    """Return the launch request of exactly that attempt; None if there is one that may be it.

    One that the server dropped is no trace of it. One whose body we may not read, since we were another user when we sent it, may be.
    """
    requests = await _or_none(sky.requests_of(name))
    if requests is None:
        return None
    for request in (request for request in requests if request.name == "launch"):
        try:
            name_in_task = await sky.task_name_of(request.id)
        except UnknownRequest:
            continue
        except SkyPilotError:
            return None
        if name_in_task is None:
            return None
        if name_in_task != attempt:
            continue
        outcome = await _outcome(sky, request)
        if not (isinstance(outcome, RequestError) and outcome.type in LOST):
            return request
    return ABSENT


async def _or_none(question: Awaitable[T]) -> T | None:
    try:
        return await question
    except SkyPilotError as error:
        logger.debug("not known right now: %s", error)
        return None
