"""The product's own sessions of a run's users: which there are, and how they end with the run.

# Note [Sessions that end with their run]
Django's sessions have no foreign key to their user, so no purge would find them. Each is written down when
its user signs in, by whatever form or link (`user_logged_in`), and gets the run's end for its own: the store
refuses it from then on, though nobody has removed anything yet. Whoever closes the run deletes what is
written down in the same transaction. A session that the product has put under another key since
(`cycle_key`) is not found, and dies with its account.

A real user pays one look into an index when signing in, and nothing else.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Collection, Sequence
from importlib import import_module
from typing import Any

from django.conf import settings as django_settings
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, models, router, transaction
from django.db.models.functions import Now

from .. import fingerprints
from ..context import CurrentRun, use_run
from ..databases import database
from ..exceptions import CannotSignIn
from ..logs import log_error
from ..models import RunSession, TestEntity, TestRun

logger = logging.getLogger(__name__)


def require_store() -> type[SessionBase]:
    """The product's session store; raises CannotSignIn where it has none, or none that can end a session."""
    store = _store()
    if not _can_end(store):
        raise CannotSignIn(
            "This product keeps its sessions in signed cookies, which nobody can take back: a session would"
            " outlive its run. Use a SESSION_ENGINE with a store."
        )
    try:
        getattr(store, "get_model_class", lambda: None)()
    except RuntimeError as error:
        raise CannotSignIn("This product has no sessions: their app is not installed.") from error
    return store


def note_login(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    """Write down the session of a run's user, and let it end with the run.

    A receiver of `user_logged_in`. Raises PermissionDenied, with nobody signed in, where the run has ended.
    """
    session = getattr(request, "session", None)
    entry = _entry_of(user)
    if entry is None or session is None:
        return
    alias = _alias()
    with transaction.atomic(using=alias):
        rows = TestRun.objects.filter(pk=entry.run_id).order_by().annotate(now=Now())
        [run] = database(alias).read_shared(rows)
        left: dt.timedelta = run.expires_at - run.now  # type: ignore[attr-defined]
        if run.state != TestRun.State.OPEN or left <= dt.timedelta():
            session.flush()
            raise PermissionDenied("The test run of this account has ended.")
        if session.get_expire_at_browser_close() or session.get_expiry_age() > left.total_seconds():
            session.set_expiry(left)
        if session.session_key and _can_end(type(session)):
            RunSession.objects.using(alias).create(
                run=run, session_key=session.session_key, user_key=entry.key_text
            )


def revoke(run: TestRun, users: Collection[str] | None = None) -> None:
    """End the run's sessions, or those of the accounts with these keys; needs a transaction that is open.

    A store that is no database is asked at once: where the transaction fails, they are gone all the same.
    """
    alias = _alias()
    found = RunSession.objects.using(alias).filter(run=run)
    if users is not None:
        found = found.filter(user_key__in=users)
    ended = list(found.values_list("pk", "session_key"))
    if not ended:
        return
    keys = [key for _, key in ended]
    _delete(run, keys)
    found.filter(pk__in=[pk for pk, _ in ended]).delete()
    # Until then a cache in front of the database may have taken one up again.
    transaction.on_commit(lambda: _delete(run, keys), using=alias, robust=True)


def _delete(run: TestRun, keys: Sequence[str]) -> None:
    # A cache may keep what a run sees under keys of its own: `isolation.caching`.
    for whose in (CurrentRun(run.pk, run.test_id), None):
        with use_run(whose):
            for key in keys:
                try:
                    _store()().delete(key)
                except DatabaseError:
                    raise
                except Exception as error:  # noqa: BLE001 - whatever the store's client raises
                    # Its account goes too, or can sign in no more: see `operations.purge.accounts`.
                    log_error(logger, "a session could not be taken from its store", error)


def _entry_of(user: Any) -> TestEntity | None:
    """The standing entry of the account; None of a real user, and where its row is another by now."""
    if not isinstance(user, models.Model) or user.pk is None:
        return None
    model = user.__class__._meta.concrete_model or user.__class__  # `user` may be a lazy one
    if router.db_for_write(model) != _alias():
        return None
    for entry in TestEntity.objects.using(_alias()).standing().with_rows().for_keys(model, [user.pk]):
        values = {each.attname: getattr(user, each.attname) for each in fingerprints.columns(model)}
        # What the database entered itself has no fingerprint: it would have closed the entry too.
        if not entry.fingerprint or fingerprints.matches(entry.fingerprint, model, values):
            return entry
    return None


def _store() -> type[SessionBase]:
    found: type[SessionBase] = import_module(django_settings.SESSION_ENGINE).SessionStore
    return found


def _can_end(store: type[SessionBase]) -> bool:
    from django.contrib.sessions.backends import signed_cookies

    return not issubclass(store, signed_cookies.SessionStore)


def _alias() -> str:
    return router.db_for_write(TestRun)
