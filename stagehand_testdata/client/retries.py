"""When a request is sent again, and after how long. Pure: no clock, no socket.

# Note [Never twice]
A request may be sent again where the server says that nothing was done, or where doing it twice is the same
as doing it once: it reads, it ends a run, or it carries an Idempotency-Key. What makes a secret takes no
such key, so after a lost answer it is not sent again: the caller is told, and decides.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

_random = random.SystemRandom()

#: What a proxy in front of the server answers while the server is away.
_GATEWAY = {502, 503, 504}


@dataclass(frozen=True)
class Retries:
    """How often (`attempts` in all) and after how many seconds; `longest` caps what a server may ask for."""

    attempts: int = 8
    first: float = 0.25
    factor: float = 2.0
    cap: float = 5.0
    longest: float = 30.0

    def wait(self, attempt: int, asked: float | None = None) -> float | None:
        """Seconds before the attempt after this one (the first is 1); None where there is none.

        Half of it is chance, so that runners that failed together do not come back together; what the server
        asked for is waited in full, up to `longest`.
        """
        if attempt >= self.attempts:
            return None
        backoff: float = min(self.cap, self.first * self.factor ** (attempt - 1))
        jittered = backoff / 2 + _random.uniform(0, backoff / 2)
        if asked is None:
            return jittered
        return min(asked, self.longest) + _random.uniform(0, min(backoff, 1.0))


NEVER = Retries(attempts=1)


def may_retry(status: int, *, ours: bool, asked: float | None, repeatable: bool) -> bool:
    """Whether an answer of that status is a reason to send the request again.

    `ours`: in the API's own shape. There Retry-After (`asked`) is the server's word that nothing was done and
    that trying again may help. See Note [Never twice].
    """
    if status == 429:
        return True
    if ours:
        return asked is not None and status in {409, 503}
    return repeatable and status in _GATEWAY


def seconds(header: str | None) -> float | None:
    """Retry-After in seconds; None where there is none, or it is a date."""
    try:
        return max(float(header), 0.0) if header is not None else None
    except ValueError:
        return None
