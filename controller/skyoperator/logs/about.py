"""What is noted of a log beside its bytes: about.json."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from skyoperator.logs.types import State

ABOUT: Final = "about.json"
ABOUT_BYTES: Final = 64 * 1024
"""Far more than is ever written: what is longer is not ours."""
MESSAGE_CHARACTERS: Final = 2000
WHY_CHARACTERS: Final = 300
REASONS: Final = 8
OTHER_REASONS: Final = "other reasons"

Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Noted(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Origin(_Noted):
    """Where a log came from."""

    namespace: str
    name: str
    cluster: str = ""
    job: int | None = None


class Cut(_Noted):
    """What the bound of one log took from its middle; what was lost there before counts too."""

    start: Count
    end: Count


class Loss(_Noted):
    """Bytes that there were, but that can't be had. 0 with `unknown`: some, and nobody knows how many."""

    why: str
    lost_bytes: Count = 0
    unknown: bool = False


class About(_Noted):
    """What is noted of a log."""

    schema_version: Literal[1] = 1
    origin: Origin
    created_at: AwareDatetime
    state: State = State.LIVE
    ended_at: AwareDatetime | None = None
    gone_since: AwareDatetime | None = None
    """When its object was first found gone."""
    size: Count = 0
    cut: Cut | None = None
    losses: tuple[Loss, ...] = ()
    message: str = ""
    result_lost: str = ""
    """Why the value that the job returned can't be had any more."""
    dropped: bool = False
    """Whether its bytes were removed to make room for other logs."""

    @property
    def outcome(self) -> State:
        """The state with regard to what was lost."""
        if self.state is State.COMPLETE and (self.losses or self.dropped):
            return State.INCOMPLETE
        return self.state

    def words(self, cut_bytes: int) -> str:
        """Return what is missing and why; empty if nothing is."""
        return "; ".join(self._sentences(cut_bytes))

    def _sentences(self, cut_bytes: int) -> Iterator[str]:
        if self.message:
            yield self.message
        for loss in self.losses:
            how_many = f"{loss.lost_bytes} bytes" if loss.lost_bytes else "some bytes"
            yield f"{how_many}{' and more' if loss.unknown and loss.lost_bytes else ''} are missing: {loss.why}"
        if self.dropped:
            yield "its bytes were removed to make room for the logs of others"
        elif cut_bytes:
            yield f"{cut_bytes} bytes were cut from its middle: the log is longer than one may be"

    def with_loss(self, count_bytes: int | None, why: str) -> Self:
        """Return it with so many bytes more, or an unknown number, lost for this reason; of many reasons the last become one."""
        known = [loss.why for loss in self.losses]
        why = why[:WHY_CHARACTERS]
        if why not in known and len(known) >= REASONS:
            why = OTHER_REASONS
        before = next((loss for loss in self.losses if loss.why == why), Loss(why=why))
        after = Loss(why=why, lost_bytes=before.lost_bytes + (count_bytes or 0), unknown=before.unknown or count_bytes is None)
        losses = (*(loss for loss in self.losses if loss.why != why), after)
        return self.model_copy(update={"losses": losses})

    def with_cut(self, start: int, end: int) -> Self:
        """Return it with these bytes cut, and those between them and what was cut before."""
        before = self.cut or Cut(start=start, end=end)
        return self.model_copy(update={"cut": Cut(start=min(start, before.start), end=max(end, before.end))})

    def with_end(self, state: State, message: str, now: datetime) -> Self:
        """Return it ended."""
        return self.model_copy(update={"state": state, "message": message[:MESSAGE_CHARACTERS], "ended_at": now})


def unreadable(now: datetime, why: str) -> About:
    """Return what stands for an about.json that is damaged or not there."""
    message = f"what was noted of this log can't be read: {why}"[:MESSAGE_CHARACTERS]
    return About(origin=Origin(namespace="", name=""), created_at=now, state=State.INCOMPLETE, ended_at=now, message=message)
