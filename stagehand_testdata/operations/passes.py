"""Passes: what puts a request of the product itself under a run.

# Note [What a pass proves]
A test ID is no secret: it stands in logs and in reports. A pass is signed with the product's SECRET_KEY, and
only a call that may use the run gets one. It names the run and its own end; whether that has come, and
whether the run is still open, is for the ledger and its clock to say, on every request. ENVIRONMENT is part
of the signature's salt, so that products that share a key do not take each other's passes.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, NamedTuple

from django.core import signing
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from ..access import gate, trail
from ..conf import settings
from ..context import CurrentRun
from ..exceptions import InvalidPass
from ..models import TestRun
from . import runs

HEADER = "X-Testdata-Pass"
COOKIE = "testdata_pass"
#: The header as WSGI and ASGI have it.
META = "HTTP_X_TESTDATA_PASS"

_SALT = "stagehand_testdata.pass"
#: Longer than any pass: nothing longer is looked at.
_LENGTH = 600
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Pass(NamedTuple):
    """A signed text, and until when it counts: at most PASS_MINUTES, and never past the run's end."""

    token: str
    expires_at: dt.datetime


class _Claim(NamedTuple):
    """What a pass says: whose it is, and until when in microseconds since 1970; None is the run's own end."""

    pk: int
    test_id: str
    until: int | None


def issue(run: TestRun) -> Pass:
    """A pass for the run, which `runs.find` has found. Raises RunClosed, TooOld."""
    runs.refuse_unusable(run)
    now: dt.datetime = run.now  # type: ignore[attr-defined]
    until = min(run.expires_at, now + dt.timedelta(minutes=settings.PASS_MINUTES))
    return Pass(_sign(run.pk, run.test_id, _microseconds(until)), until)


def grant(run: TestRun) -> Pass:
    """A pass for whoever asks for one, which is written down; raises as `issue`."""
    with transaction.atomic(using=runs.ledger_alias()):
        granted = issue(run)
        trail.record("pass.issue", run)
    return granted


def hand_on(run: CurrentRun) -> str:
    """A pass for work that this run's request leaves to others: it counts until the run's end."""
    return _sign(run.pk, run.test_id, None)


def admit(token: str) -> CurrentRun | None:
    """The run that the pass is for; None where it is forged or expired, its run closed, or the gate.

    One query, and none where the signature is wrong.
    """
    claim = _read(token)
    if claim is None or not gate.is_open():
        return None
    return _open_run(claim)


def require(token: str, test_id: str | None) -> None:
    """Raise InvalidPass unless the pass counts now, and for the run of this test ID where one is given."""
    claim = _read(token)
    if claim is None:
        raise InvalidPass
    if test_id is not None and claim.test_id != test_id:
        raise InvalidPass(f"The {HEADER} header is a pass of another run.")
    if _open_run(claim) is None:
        raise InvalidPass(f"The pass has expired, or its run has ended: ask for one anew. ({HEADER})")


def _sign(*claim: Any) -> str:
    return signing.dumps(claim, salt=_salt())


def _read(token: str) -> _Claim | None:
    if len(token) > _LENGTH:
        return None
    try:
        claim = signing.loads(token, salt=_salt())
        return _Claim(*claim)
    except (signing.BadSignature, TypeError, ValueError):
        return None


def _salt() -> str:
    return f"{_SALT}:{settings.ENVIRONMENT}"


def _open_run(claim: _Claim) -> CurrentRun | None:
    found = (
        TestRun.objects.using(runs.ledger_alias())
        .filter(pk=claim.pk, test_id=claim.test_id, state=TestRun.State.OPEN, expires_at__gt=Now())
        .order_by()
        .values_list("test_id", Now())
        .first()
    )
    if found is None:
        return None
    test_id, now = found
    if test_id != claim.test_id or (claim.until is not None and _microseconds(now) >= claim.until):
        return None
    return CurrentRun(claim.pk, test_id, captured=True, fenced=True)


def _microseconds(moment: dt.datetime) -> int:
    # A host without time zones has naive moments, of UTC.
    aware = moment if timezone.is_aware(moment) else moment.replace(tzinfo=dt.UTC)
    return (aware - _EPOCH) // dt.timedelta(microseconds=1)
