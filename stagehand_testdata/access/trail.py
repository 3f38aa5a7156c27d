"""The audit: one row for each thing that was done, in the transaction that did it.

# Note [The audit]
Whoever changes something here calls `record` in the same transaction: what cannot be written down does not
happen. A row says who, what, from where, how much and with what result; never a body, a name of a person, an
address of mail or a secret. Whose doing it is, the edge says (`act_as`, `callers.act_for`): between it and
the operation lies code that is not concerned. Where no edge has said anything, it is the host's own code.
A purge takes many transactions: one row says that it began, before anything went, and one what came of it.

Rows are not changed or deleted: the model refuses it, and so does a trigger of the database. Two doors are
left. `prune` removes what is older than AUDIT_DAYS, and leaves a row of its own; `flush`, which empties every
table of a test database, empties this one too. Neither stops whoever may drop a trigger, or TRUNCATE.

# Note [Refusals are counted]
Who is refused is written down as well, but must not fill the disk with it: of one address (IPv6: of one /64)
at most PER_ADDRESS rows a minute, of all together OVERALL, in each process. What is left out is counted, and
the next row has the number. So a refusal beyond the limit costs no query.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from django.db import DatabaseError, router, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from ..databases import database
from ..logs import log_error
from ..models import AuditEntry, TestRun
from .callers import current_caller

logger = logging.getLogger(__name__)

DONE, BEGUN, RESIDUE = "done", "begun", "residue"

PER_ADDRESS, OVERALL = 20, 600
_WINDOW_SECONDS = 60
_PRUNED_AT_A_TIME = 5000


class Act(NamedTuple):
    """What somebody is about, as the edge knows it."""

    via: str = AuditEntry.Via.CODE
    #: In the words of the edge: a route's operation, a command.
    asked: str = ""
    #: Who, where that is no caller of the API: `user:<key>` in the admin, `uid:<number>` at a terminal.
    by: str = ""
    address: str = ""


_NOBODY = Act()
_act: ContextVar[Act] = ContextVar("stagehand_testdata_act", default=_NOBODY)


def act_as(act: Act) -> None:
    """From here on this is what is being done: until the block of `acting` ends."""
    _act.set(act)


@contextmanager
def acting(act: Act) -> Iterator[None]:
    token = _act.set(act)
    try:
        yield
    finally:
        _act.reset(token)


def record(
    operation: str,
    run: TestRun | None = None,
    *,
    subject: str = "",
    counts: Mapping[str, int] | None = None,
    result: str = DONE,
) -> None:
    """Write down that this was done; belongs into its transaction. One statement.

    `subject` is what it was done to, where that is no run: a key's public id, a kind of trigger.
    """
    caller, act = current_caller(), _act.get()
    values = {
        "via": act.via,
        "asked": act.asked,
        "operation": operation,
        "owner": caller.owner or act.by,
        "key_id": caller.key_id,
        "name": caller.name,
        "address": _address(caller.address or act.address),
        "test_id": "" if run is None else run.test_id,
        "run_id": None if run is None else run.pk,
        "subject": subject,
        "counts": json.dumps(dict(sorted((counts or {}).items()))),
        "result": result,
    }
    database(_alias()).insert(AuditEntry, tuple(values), list(values.values()))


def refused(code: str, address: str) -> None:
    """Write down that somebody was not let in, unless that was often enough; never raises.

    See Note [Refusals are counted].
    """
    left_out = _refusals.take(address)
    if left_out is None:
        return
    with acting(_act.get()._replace(address=address)):
        try:
            with transaction.atomic(using=_alias()):
                record("refused", counts={"leftOut": left_out} if left_out else None, result=code)
        except DatabaseError as error:
            log_error(logger, "a refusal could not be written down", error)


def prune(days: int) -> int:
    """Remove what is older, a few thousand rows a transaction, each of which leaves a row; how many."""
    removed = 0
    while batch := _prune_some(dt.timedelta(days=days)):
        removed += batch
    return removed


def _prune_some(age: dt.timedelta) -> int:
    alias = _alias()
    with transaction.atomic(using=alias):
        # Without the model's own manager, which deletes nothing.
        rows: QuerySet[AuditEntry] = QuerySet(AuditEntry, using=alias)
        old = rows.filter(at__lt=Now() - age).order_by("pk").values_list("pk", flat=True)
        ids = list(old[:_PRUNED_AT_A_TIME])
        if ids:
            with database(alias).pruning_audit():
                rows.filter(pk__in=ids)._raw_delete(alias)
            record("audit.prune", counts={"entries": len(ids)})
    return len(ids)


class _Refusals:
    """How many rows of this minute are spent, by network."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._window = -1
        self._spent: dict[str, int] = {}
        self._left_out = 0

    def take(self, address: str) -> int | None:
        """How many were left out since the last row; None where this is one more of them."""
        network = network_of(address)
        with self._lock:
            window = int(time.monotonic() // _WINDOW_SECONDS)
            if window != self._window:
                self._window, self._spent = window, {}
            spent = self._spent.get(network, 0)
            # No more networks are remembered than there are rows.
            if spent >= PER_ADDRESS or sum(self._spent.values()) >= OVERALL:
                self._left_out += 1
                return None
            self._spent[network] = spent + 1
            left_out, self._left_out = self._left_out, 0
            return left_out


_refusals = _Refusals()


def network_of(address: str) -> str:
    """What one caller has in hand: an address, or the /64 of an IPv6 one; empty where it is none."""
    place = _place(address)
    if place is None:
        return ""
    return str(ipaddress.ip_network((place, 64), strict=False)) if place.version == 6 else str(place)


def _address(address: str) -> str:
    """What is none, a socket's path say, is not kept."""
    place = _place(address)
    return "" if place is None else str(place)


def _place(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        place = ipaddress.ip_address(address)
    except ValueError:
        return None
    # So a listener for both kinds writes every IPv4 address; they are not one network.
    return place.ipv4_mapped or place if isinstance(place, ipaddress.IPv6Address) else place


def _alias() -> str:
    return router.db_for_write(TestRun)
