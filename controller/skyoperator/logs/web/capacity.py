"""How many answers may be under way at a time: one user's can't take the room of all the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from skyoperator.logs.web.status import RefusedError

SHARES: Final = 4
"""One user may have this part of all."""
RETRY_AFTER_SECONDS: Final = 5


class Capacity:
    """So many at a time."""

    def __init__(self, most: int, what: str) -> None:
        """`what` they are, in the words of a refusal."""
        self._most = most
        self._most_of_one = max(most // SHARES, 1)
        self._what = what
        self._of: Counter[str] = Counter()

    @contextmanager
    def one_more(self, user: str) -> Iterator[None]:
        """Count one of this user for as long as this is open. Raises RefusedError, 429."""
        self._check(user)
        self._of[user] += 1
        try:
            yield
        finally:
            self._of[user] -= 1
            if not self._of[user]:
                del self._of[user]

    def _check(self, user: str) -> None:
        if self._of.total() >= self._most:
            raise _refused(f"there are {self._most} {self._what} already, which is all that there may be (logs.maxFollowers)")
        if self._of[user] >= self._most_of_one:
            raise _refused(
                f"there are {self._most_of_one} {self._what} already that are user {user}'s, which is all that one user may have"
            )


def _refused(why: str) -> RefusedError:
    return RefusedError(HTTPStatus.TOO_MANY_REQUESTS, f"{why}: try again later", retry_after_seconds=RETRY_AFTER_SECONDS)
