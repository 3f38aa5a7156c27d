"""(seed, factory, number, field) → values.

The same run seed gives the same values, whatever other threads and tasks do, and whatever other fields
the caller overrides: each field draws from a generator of its own.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

#: Seeds are below this, so that JavaScript's numbers hold them exactly.
SEED_LIMIT = 2**53

_active: ContextVar[random.Random | None] = ContextVar("stagehand_testdata_generator", default=None)


def seed_from_test_id(test_id: str) -> int:
    """The seed of a run whose opener names none: a replay needs the test id alone."""
    return int.from_bytes(hashlib.sha256(test_id.encode()).digest()[:8]) % SEED_LIMIT


def generator(seed: int, *path: object) -> random.Random:
    """A generator for one place in one run; equal arguments give equal values."""
    return random.Random("\x1f".join(map(str, (seed, *path))))  # noqa: S311 - reproducible, not secret


def number(seed: int, *path: object, limit: int) -> int:
    """A whole number in [0, limit) for one place in one run."""
    digest = hashlib.sha256("\x1f".join(map(str, (seed, *path))).encode()).digest()
    return int.from_bytes(digest[:8]) % limit


@contextmanager
def drawing_from(source: random.Random) -> Iterator[None]:
    """Within the block, every `DelegatingRandom` of this thread or task draws from `source`."""
    token = _active.set(source)
    try:
        yield
    finally:
        _active.reset(token)


class DelegatingRandom(random.Random):
    """Draws from the generator of the field being made; outside a creating call, from `fallback`.

    factory_boy and Faker each keep one process-wide generator. Reseeding it mixes threads up; delegating
    does not, and leaves the host's own use of it as it was.
    """

    def __init__(self, fallback: random.Random) -> None:
        super().__init__()
        self.fallback = fallback

    @property
    def _source(self) -> random.Random:
        return _active.get() or self.fallback

    def random(self) -> float:
        return self._source.random()

    def getrandbits(self, k: int, /) -> int:
        return self._source.getrandbits(k)

    # `gauss` keeps half of each pair it draws: that half belongs to the generator, not to this object.
    def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        return self._source.gauss(mu, sigma)

    def seed(self, *args: Any, **kwargs: Any) -> None:
        if hasattr(self, "fallback"):  # the base class seeds itself while it is made
            self.fallback.seed(*args, **kwargs)

    def getstate(self) -> tuple[Any, ...]:
        return self.fallback.getstate()

    def setstate(self, state: tuple[Any, ...]) -> None:
        self.fallback.setstate(state)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.fallback,)


def delegate(shared: random.Random) -> None:
    """Make a DelegatingRandom of this very generator: the host's own Fakers hold on to it already."""
    if type(shared) is random.Random:
        fallback = random.Random()  # noqa: S311 - it goes on where the shared one stands
        fallback.setstate(shared.getstate())
        shared.fallback = fallback  # type: ignore[attr-defined]
        shared.__class__ = DelegatingRandom
