"""A request that is sent twice under one Idempotency-Key is done once, and answered twice alike.

# Note [Idempotency]
The answer is written in the transaction of what the request did: a crash leaves both or none. Whatever is
refused rolls back, so its answer is not kept, and the key may be used again. A key is its owner's; where the
host asks for no access key, it is the test ID's. It is kept as a digest, and so is the request: its method,
its path, its test ID and its body.

While the first request is under way a second one is told so and does not wait. What keeps them apart is a
lock of the database's (`databases`), and behind it the unique name: where that lock knows not enough (two
processes on SQLite) the second comes later, or collides, starts over, and finds the answer.

A call that makes something outside the database has its answer only after its commit. Until then the entry
holds what the client is told where that fails, and until when nobody can know. A deep shadow call rolls back
what it did: its answer is written after that, and of two such calls the first to write is repeated.

An answer is kept for KEPT, whatever becomes of its run; then the database's clock ends it. It repeats what
the run made, which is made up. A copy of a real row may hold more: its answer goes with its run.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from django.db import router, transaction
from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.db.models.functions import Now

from ..databases import database
from ..exceptions import (
    AnswerTooLarge,
    ExternalFailed,
    IdempotencyMismatch,
    InProgress,
    InvalidIdempotencyKey,
    TestDataError,
)
from ..models import IdempotentAnswer, TestRun

HEADER = "Idempotency-Key"
#: The header as WSGI and ASGI have it.
META = "HTTP_IDEMPOTENCY_KEY"
#: Says of an answer that it was given before.
REPLAYED = "Idempotency-Replayed"

KEPT = dt.timedelta(hours=24)
#: A larger answer is refused, and so is what it was to tell of.
MAX_BYTES = 4 * 1024 * 1024
#: How many answers that have ended are removed at a time.
BATCH = 1000

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Answer(NamedTuple):
    status: int
    body: bytes


class Replayed(Exception):
    """Not an error: this request was answered before, and so."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class Once:
    """How a request is done: once, if it has a key. See Note [Idempotency]."""

    #: What a result, or an error after the commit, becomes on the wire.
    render: Callable[[Any], Answer]
    render_error: Callable[[TestDataError], Answer]
    #: Whether the answer is forgotten when its run closes.
    goes_with_run = False
    #: What the request is answered, as it was kept.
    answer: Answer | None = None

    def __init__(self, name: str = "", request: str = "") -> None:
        self._name = name
        self._request = request
        self._alias = router.db_for_write(TestRun)

    @classmethod
    def of(
        cls, key: str, *, owner: str, method: str, path: str, test_id: str, body: Mapping[str, Any]
    ) -> Once:
        """Raises InvalidIdempotencyKey, and as `transaction` where the key was used before."""
        if not _KEY.fullmatch(key):
            raise InvalidIdempotencyKey
        name = _digest(owner, "" if owner else test_id, key)
        once = cls(name, _digest(method, path.rstrip("/"), test_id, body))
        once._look(final=False)
        return once

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """The transaction of the request's effect.

        Raises Replayed where it is done already, IdempotencyMismatch where another one was, InProgress.
        """
        if not self._name:
            with transaction.atomic(using=self._alias):
                yield
            return
        with database(self._alias).atomic_alone(self._name) as alone:
            if not alone:
                raise InProgress
            # A statement of its own: it sees what was committed before the lock could be had.
            self._look(final=True)
            yield

    def keep(self, result: Any, run: TestRun | None) -> None:
        """Write the answer: the last thing in `transaction`. Raises AnswerTooLarge."""
        if self._name:
            with_run = run.pk if run is not None and self.goes_with_run else None
            self._write(self.render(result), goes_with_run=with_run)

    def keep_apart(self, result: Any) -> None:
        """The same in a transaction of its own, for what has left nothing behind; raises as `transaction`."""
        if self._name:
            with self.transaction():
                self.keep(result, None)

    def keep_for_now(self, seconds: float) -> None:
        """`keep`, where it takes up to so long after the commit until the answer is known."""
        if self._name:
            self._write(
                self.render_error(ExternalFailed()), under_way_until=Now() + dt.timedelta(seconds=seconds)
            )

    @contextmanager
    def settling(self, result: Any) -> Iterator[None]:
        """What was kept for now gets its answer at the end of the block: the result's, or the error's."""
        try:
            yield
        except TestDataError as error:
            if self._name:
                self._settle(self.render_error(error))
            raise
        if self._name:
            self._settle(self.render(result))

    def _settle(self, answer: Answer) -> None:
        self.answer = answer
        self._rows().update(status=answer.status, body=answer.body.decode(), under_way_until=None)

    def _look(self, *, final: bool) -> None:
        """Raise what is known of the key; nothing where it is new, or has ended."""
        ended, under_way = (
            ExpressionWrapper(which, output_field=BooleanField())
            for which in (Q(created_at__lte=Now() - KEPT), Q(under_way_until__gt=Now()))
        )
        kept: Any = self._rows().annotate(ended=ended, under_way=under_way).first()
        if kept is None:
            return
        if kept.ended:
            if final:
                self._rows().delete()
            return
        if kept.request != self._request:
            raise IdempotencyMismatch
        if kept.under_way:
            raise InProgress
        raise Replayed(Answer(kept.status, kept.body.encode()))

    def _write(self, answer: Answer, **values: Any) -> None:
        if len(answer.body) > MAX_BYTES:
            raise AnswerTooLarge
        self.answer = answer
        IdempotentAnswer.objects.using(self._alias).create(
            name=self._name,
            request=self._request,
            status=answer.status,
            body=answer.body.decode(),
            **values,
        )

    def _rows(self) -> QuerySet[IdempotentAnswer]:
        return IdempotentAnswer.objects.using(self._alias).filter(name=self._name).order_by()


def forget_ended() -> int:
    """Remove answers that have ended, at most BATCH of them; how many."""
    alias = router.db_for_write(TestRun)
    rows = IdempotentAnswer.objects.using(alias)
    ended = rows.filter(created_at__lte=Now() - KEPT).order_by("created_at")[:BATCH]
    removed, _ = rows.filter(pk__in=list(ended.values_list("pk", flat=True))).delete()
    return int(removed)


def forget_with_run(run: TestRun) -> None:
    """Remove the answers that go with their run; belongs into the transaction that closes it."""
    rows = IdempotentAnswer.objects.using(router.db_for_write(TestRun))
    rows.filter(goes_with_run=run.pk).delete()


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
