"""Sign a browser in as a user of a run, without a password and without the product's form.

# Note [One session, two ways to have it]
The session is opened when the API is asked for it. What comes back is its cookie, as Playwright keeps one,
and a link that gives a browser the same cookie: once, soon, and in a request that is a person's or a test's
going there. The link is no JSON and has no key, so the proof that it holds is all that it needs. What it
leads to is part of what is signed.

An outside identity provider has tokens of its own for this. It is asked when the run's hold is over, for no
call is made within a transaction of ours; what it grants counts only while the user is there, and that is
until the run closes.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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
from ..exceptions import (
    CannotSignIn,
    ConfigurationError,
    ExternalFailed,
    InvalidInput,
    InvalidLink,
    NotAllowed,
    PrivilegedAccount,
    ShadowId,
)
from ..identity import Granted, IdentityProvider, Marked, SigningIn, load_provider
from ..isolation.hooks import until_commit
from ..logs import log_error
from ..models import RunSession, ShadowKey, TestEntity, TestRun
from . import externals, identities, passes, runs
from .entities import find_own_row, not_in_run
from .purge.plan import examine, installed_models, proofs

logger = logging.getLogger(__name__)

#: How long a link counts.
LINK_LIFE = dt.timedelta(minutes=5)

_SALT = "stagehand_testdata.sign_in"
#: Longer than any link's: nothing longer is looked at.
_LENGTH = 4000
#: What of a request the product's receivers of a login may ask for; no key is among it.
_META = ("REMOTE_ADDR", "HTTP_HOST", "HTTP_USER_AGENT", "SERVER_NAME", "SERVER_PORT", "wsgi.url_scheme")


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What the identity provider grants, a session of the product as a rule, and the pass of its run."""

    run: CurrentRun
    session: SessionBase | None
    granted: passes.Pass
    user_id: str
    expires_at: dt.datetime
    #: What a link holds, and until when it counts.
    token: str = ""
    link_until: dt.datetime | None = None
    next: str = ""
    #: An outside provider's own link, and what else it gave.
    link: str = ""
    details: Mapping[str, str] = field(default_factory=dict)


class DjangoUsers(IdentityProvider):
    """The default: accounts are rows, and signing in is a session of Django's own."""

    outside = False

    def require_ready(self) -> None:
        sessions.require_store()

    def describe(self, user: models.Model) -> None:
        return None

    def sign_in(self, asked: SigningIn) -> Granted:
        return Granted(session=_log_in(asked.user, sessions.require_store(), asked.meta))

    def marked_users(self) -> Iterator[Marked]:
        yield from ()


def sign_in(
    run: TestRun, user_id: str, next_path: str, meta: Mapping[str, Any], *, type_name: str | None = None
) -> SignedIn:
    """Open a session for the run's own user under that key; `meta` is the asking request's.

    With `type_name` the key is that of a row of the run: the account itself, or what has exactly one.

    Raises NotInRun, alike for a real user, another run's and none; InvalidInput for a row that has no
    account, or several; NotAllowed for one with rights; CannotSignIn, RunClosed, TooOld, GuardsDisabled,
    ConfigurationError; ExternalFailed where an outside provider did not answer.
    """
    provider = load_provider()
    provider.require_ready()
    if provider.outside:
        return _sign_in_outside(provider, run, user_id, meta, type_name)
    alias = runs.ledger_alias()
    with transaction.atomic(using=alias):
        held = runs.hold(run.test_id, run.owner)
        its = CurrentRun(held.pk, held.test_id, captured=True, fenced=True)
        # What the product does at a login is the run's doing.
        with until_commit(its):
            user = _own_account(held, user_id, type_name)
            session = _required(provider.sign_in(_asked(held, user, meta)).session)
        known = RunSession.objects.using(alias).filter(run=held, session_key=session.session_key)
        until: dt.datetime = held.now + LINK_LIFE  # type: ignore[attr-defined]
        known.update(link_until=until)
        token = signing.dumps((known.get().pk, next_path), salt=_salt())
        trail.record("session.open", held, subject=f"user {user.pk}")
        ends = session.get_expiry_date()
        granted = passes.issue(held)
        return SignedIn(its, session, granted, str(user.pk), ends, token, until, next_path)


def _sign_in_outside(
    provider: IdentityProvider, run: TestRun, user_id: str, meta: Mapping[str, Any], type_name: str | None
) -> SignedIn:
    alias = runs.ledger_alias()
    with transaction.atomic(using=alias):
        held = runs.hold(run.test_id, run.owner)
        user = _own_account(held, user_id, type_name)
        entry = identities.entry_of(held, user)
        if entry is None or not entry.reference:
            raise CannotSignIn(
                "This account has no user at the identity provider: it was not made there, or not answered"
                " for yet."
            )
        asked = _asked(held, user, meta, entry)
    try:
        found = externals.repeatedly(provider, lambda: provider.sign_in(asked))
    except Exception as error:  # noqa: BLE001 - whatever the host's provider raises; it is logged
        log_error(logger, f"{entry} could not be signed in", error)
        raise ExternalFailed(
            "The identity provider has not signed the user in; nothing was changed. Try again. The server's"
            " log has the reason."
        ) from None
    with transaction.atomic(using=alias):
        # Whoever closed the run meanwhile removes the user, and with it what was granted.
        held = runs.hold(run.test_id, run.owner)
        trail.record("session.open", held, subject=f"user {user.pk}")
        return SignedIn(
            CurrentRun(held.pk, held.test_id, captured=True, fenced=True),
            None,
            passes.issue(held),
            str(user.pk),
            held.expires_at,
            link_until=held.now + dt.timedelta(seconds=asked.seconds),  # type: ignore[attr-defined]
            link=found.link,
            details=found.details,
        )


def _asked(
    held: TestRun, user: models.Model, meta: Mapping[str, Any], entry: TestEntity | None = None
) -> SigningIn:
    left: dt.timedelta = held.expires_at - held.now  # type: ignore[attr-defined]
    return SigningIn(
        user,
        key="" if entry is None else entry.key_text,
        reference="" if entry is None else entry.reference,
        seconds=max(int(min(LINK_LIFE, left).total_seconds()), 1),
        until=held.expires_at,
        meta=meta,
    )


def _required(session: SessionBase | None) -> SessionBase:
    if session is None:
        raise ConfigurationError("An identity provider that is not `outside` must give a session.")
    return session


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
        ends = session.get_expiry_date()
        return SignedIn(its, session, passes.issue(run), link.user_key, ends, next=next_path)


def _own_account(run: TestRun, user_id: Any, type_name: str | None) -> models.Model:
    model = auth.get_user_model()
    if type_name is not None:
        user_id = _account_key(run, type_name, user_id)
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


def _account_key(run: TestRun, type_name: str, key: str) -> Any:
    """The key of the account that a row of the run is, or has; whose that is, is still to be proven."""
    if ShadowKey.read(key):
        raise ShadowId(details={"userId": [f"{key} is the id of a shadow row."]})
    entries = TestEntity.objects.using(runs.ledger_alias()).standing().with_rows()
    labels = entries.filter(run=run, type=type_name, key_text=key).values_list("model", flat=True)
    found, _ = installed_models(labels[:1])
    if not found:
        raise not_in_run("userId")
    user_model = auth.get_user_model()._meta.concrete_model
    [model] = found
    if model._meta.concrete_model is user_model:
        return key
    pointers: list[Any] = [
        each
        for each in model._meta.concrete_fields
        if isinstance(each, models.ForeignKey) and each.remote_field.model._meta.concrete_model is user_model
    ]
    if len(pointers) != 1:
        names = f" ({', '.join(each.name for each in pointers)})" if pointers else ""
        raise _without_account(f"a '{type_name}' has {len(pointers)} columns for accounts{names}")
    [pointer] = pointers
    row = find_own_row(run, model, key, "userId")
    its = getattr(row, pointer.attname)
    if its is None:
        raise _without_account(f"the {pointer.name} of this '{type_name}' is empty")
    if pointer.target_field.primary_key:
        return its
    users = pointer.remote_field.model._base_manager.using(runs.ledger_alias())
    return users.filter(**{pointer.target_field.attname: its}).values_list("pk", flat=True).first()


def _without_account(why: str) -> InvalidInput:
    text = f"Give the key of an account of the run: {why}."
    return InvalidInput(f"Nobody can be signed in as this row. {text}", details={"userId": [text]})


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
