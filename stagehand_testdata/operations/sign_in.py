"""Sign a browser in as a user of a run, without a password and without the product's form.

# Note [One session, two ways to have it]
The session is opened when the API is asked for it. What comes back is its cookie, as Playwright keeps one,
and a link that gives a browser the same cookie: once, soon, and in a request that is a person's or a test's
going there. The link is no JSON and has no key, so the proof that it holds is all that it needs. What it
leads to is part of what is signed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings as django_settings
from django.contrib import auth
from django.contrib.sessions.backends.base import SessionBase
from django.core import signing
from django.db import models, transaction
from django.db.models.functions import Now
from django.http import HttpRequest

from ..access import privileges, sessions, trail
from ..conf import settings
from ..context import CurrentRun, use_run
from ..exceptions import CannotSignIn, InvalidLink, NotAllowed, PrivilegedAccount
from ..isolation.hooks import until_commit
from ..models import RunSession, TestEntity, TestRun
from . import passes, runs
from .entities import find_own_row, not_in_run
from .purge.plan import examine, proofs

#: How long a link counts.
LINK_LIFE = dt.timedelta(minutes=5)

_SALT = "stagehand_testdata.sign_in"
#: Longer than any link's: nothing longer is looked at.
_LENGTH = 4000
#: What of a request the product's receivers of a login may ask for; no key is among it.
_META = ("REMOTE_ADDR", "HTTP_HOST", "HTTP_USER_AGENT", "SERVER_NAME", "SERVER_PORT", "wsgi.url_scheme")


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session of the product, and the pass of its run."""

    run: CurrentRun
    session: SessionBase
    granted: passes.Pass
    user_id: str
    #: What a link holds, and until when it counts.
    token: str = ""
    link_until: dt.datetime | None = None
    next: str = ""


def sign_in(run: TestRun, user_id: str, next_path: str, meta: Mapping[str, Any]) -> SignedIn:
    """Open a session for the run's own user under that key; `meta` is the asking request's.

    Raises NotInRun, alike for a real user, another run's and none; NotAllowed for one with rights;
    CannotSignIn, RunClosed, TooOld, GuardsDisabled.
    """
    store = sessions.require_store()
    alias = runs.ledger_alias()
    with transaction.atomic(using=alias):
        held = runs.hold(run.test_id, run.owner)
        its = CurrentRun(held.pk, held.test_id, captured=True, fenced=True)
        # What the product does at a login is the run's doing.
        with until_commit(its):
            user = _own_account(held, user_id)
            session = _log_in(user, store, meta)
        known = RunSession.objects.using(alias).filter(run=held, session_key=session.session_key)
        until: dt.datetime = held.now + LINK_LIFE  # type: ignore[attr-defined]
        known.update(link_until=until)
        token = signing.dumps((known.get().pk, next_path), salt=_salt())
        trail.record("session.open", held, subject=f"user {user.pk}")
        return SignedIn(its, session, passes.issue(held), str(user.pk), token, until, next_path)


def redeem(token: str) -> SignedIn:
    """The session that the link is for; a second time there is none.

    Raises InvalidLink, alike whatever is wrong with it. Does not ask whether the gate is open.
    """
    pk, next_path = _read(token)
    alias = runs.ledger_alias()
    with transaction.atomic(using=alias):
        links = RunSession.objects.using(alias).filter(pk=pk, link_until__gt=Now())
        link = links.first()
        # Of two that come at once the second finds none to change.
        if link is None or not links.update(link_until=None):
            raise InvalidLink
        run = TestRun.objects.using(alias).annotate(now=Now()).get(pk=link.run_id)
        if run.state != TestRun.State.OPEN or run.expires_at <= run.now:  # type: ignore[attr-defined]
            raise InvalidLink
        its = CurrentRun(run.pk, run.test_id, captured=True, fenced=True)
        session = _opened(link, its)
        trail.record("session.sign_in", run, subject=f"user {link.user_key}")
        return SignedIn(its, session, passes.issue(run), link.user_key, next=next_path)


def _own_account(run: TestRun, user_id: str) -> models.Model:
    model = auth.get_user_model()
    user = find_own_row(run, model, user_id, "userId")
    entry = TestEntity.objects.using(runs.ledger_alias()).standing().for_keys(model, [user.pk]).get(run=run)
    # Another account may have got the key since.
    since = proofs().since.get(model._meta.label_lower)
    if not examine(model, [entry], proven_since=since).ours:
        raise not_in_run("userId")
    try:
        privileges.refuse_privileged(user)
        privileges.refuse_granted(user)
    except PrivilegedAccount as error:
        raise NotAllowed("An account with rights of its own is never signed in.") from error
    return user


def _log_in(user: models.Model, store: type[SessionBase], meta: Mapping[str, Any]) -> SessionBase:
    """A new session in which the user is signed in, saved and written down by `sessions.note_login`."""
    from django.contrib.auth.models import AnonymousUser

    request = HttpRequest()
    request.META = {name: meta[name] for name in _META if name in meta}
    request.session = store()
    request.user = AnonymousUser()
    auth.login(request, user, _backend_for(user))  # type: ignore[arg-type]
    request.session.save()
    return request.session


def _backend_for(user: models.Model) -> str:
    """The first of AUTHENTICATION_BACKENDS that gives the account back, as each later request asks for it."""
    for path in django_settings.AUTHENTICATION_BACKENDS:
        get_user = getattr(auth.load_backend(path), "get_user", None)
        if get_user is not None and get_user(user.pk) == user:
            return path
    raise CannotSignIn("No authentication backend of this product lets the account in: is it active?")


def _opened(link: RunSession, its: CurrentRun) -> SessionBase:
    """The link's session, saved under its run whoever saves it; raises InvalidLink where it has ended."""
    with use_run(its):
        session = sessions.require_store()(link.session_key)
        if auth.SESSION_KEY not in session:
            raise InvalidLink
    plain = session.save

    def save(*args: Any, **kwargs: Any) -> None:
        # The middleware does so when the view has long returned: see `isolation.caching`.
        with use_run(its):
            plain(*args, **kwargs)

    session.save = save  # type: ignore[method-assign]
    # What makes the middleware set the cookie.
    session.modified = True
    return session


def _read(token: str) -> tuple[int, str]:
    """What the link names: the session's key here, and where it leads; raises InvalidLink."""
    if len(token) > _LENGTH:
        raise InvalidLink
    try:
        pk, next_path = signing.loads(token, salt=_salt())
    except (signing.BadSignature, TypeError, ValueError) as error:
        raise InvalidLink from error
    return pk, next_path


def _salt() -> str:
    return f"{_SALT}:{settings.ENVIRONMENT}"
