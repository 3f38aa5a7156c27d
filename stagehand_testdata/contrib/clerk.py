"""Test users at Clerk, by its Backend API: `docs/clerk.md` says how to set it up.

# Note [Whose user at Clerk]
Each user is made with the ledger's key as its external id and in its private metadata, which nobody writes
but by the Backend API. One of the two must name the key, and neither another one, before anything is done to
the user: a product may give its users external ids of its own, or replace their metadata. An address proves
nothing, so nobody is looked for by one.

# Note [No secret leaves]
The library's errors carry the request, with the key in its header, and the answer, with tokens in it. None of
them gets out of here: what is raised in their place says a status, Clerk's own codes, the name of a class.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib.util
import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any, TypeVar

from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from ..access import trail
from ..conf import settings
from ..exceptions import (
    BodyTooLarge,
    ConfigurationError,
    FactoryFailed,
    InvalidInput,
    InvalidWebhook,
    TestDataError,
)
from ..identity import Fault, Granted, IdentityProvider, Marked, SigningIn, load_provider
from ..models import SpentToken
from ..operations import externals, identities, runs
from ..registry import IDENTITY, TryLater, Unanswered, identity_type
from ..reserved import is_reserved

logger = logging.getLogger(__name__)

R = TypeVar("R")

#: What stands in a user's private metadata.
MARK = "stagehand_testdata"
#: With Test mode on anybody signs in under such an address.
TEST_MODE_ADDRESS = "+clerk_test"

_TEST_KEY, _LIVE_KEY = "sk_test_", "sk_live_"
_PAGE = 500
#: How long a request waits to be connected, and then for the next of its answer, in seconds.
_REQUEST_SECONDS = 5.0
_OPTIONS = frozenset({"secret_key", "webhook_secret", "server_url"})
_NAMES = ("first_name", "last_name")
_NAME_LENGTH = 100
#: What Clerk calls a user, and the ledger a key: what does not read so is nobody's here.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
#: How long a request is remembered: svix takes none whose time is five minutes off.
_REMEMBERED = dt.timedelta(minutes=15)
#: A header that asks for more is taken for this, in seconds.
_LATEST = 3600.0


class ClerkFailed(Exception):
    """Clerk did not do what it was asked to, in words that hold nothing secret."""

    def __init__(self, message: str, *, status: int = 0, codes: frozenset[str] = frozenset()) -> None:
        self.status = status
        self.codes = codes
        super().__init__(message)

    @property
    def says_not_there(self) -> bool:
        """Clerk's own word for it, not that of something on the way to it."""
        return self.status == 404 and "resource_not_found" in self.codes


class ClerkSilent(ClerkFailed, Unanswered):
    """A request left, and no answer came: it may have been carried out, or may be yet."""


class Clerk(IdentityProvider):
    """A run's accounts have a user at Clerk each. Subclass it to choose which, and with what."""

    # `create` is two requests at most, each of which may take as long to connect as to be answered.
    timeout = 4 * _REQUEST_SECONDS
    patience = 5.0

    def __init__(self) -> None:
        if not _is_installed("clerk_backend_api"):
            raise ConfigurationError(
                "clerk-backend-api is not installed: pip install 'stagehand-testdata[clerk]'."
            )
        if not self.options.get("secret_key"):
            raise ConfigurationError(
                "IDENTITY_OPTIONS has no 'secret_key': Clerk's dashboard, under API keys."
            )

    def describe(self, user: Any) -> Mapping[str, Any] | None:
        """Keywords of Clerk's own `users.create`; raises InvalidInput, FactoryFailed."""
        address = str(getattr(user, user.get_email_field_name(), "") or "")
        if TEST_MODE_ADDRESS in address.lower():
            raise InvalidInput(
                f"'{address}': with Clerk's Test mode anybody could sign in under a '{TEST_MODE_ADDRESS}'"
                " address; choose another."
            )
        if address and not is_reserved(address):
            raise FactoryFailed(
                "An account with an address that somebody may own gets no user at Clerk; nothing was created."
            )
        names = {name: str(getattr(user, name, "") or "")[:_NAME_LENGTH] for name in _NAMES}
        return {"email_address": [address] if address else [], **{k: v for k, v in names.items() if v}}

    def create(self, key: str, fields: Mapping[str, Any]) -> str:
        mark = {MARK: {"key": key, "environment": settings.ENVIRONMENT}}
        wanted = {
            "skip_password_requirement": True,
            **fields,
            # Whatever a subclass adds, the user must prove whose he is.
            "external_id": key,
            "private_metadata": {**(fields.get("private_metadata") or {}), **mark},
        }
        # Clerk wants one, and the last 48 characters of a key are nobody else's.
        wanted["email_address"] = fields.get("email_address") or [f"{key[-48:].lower()}@example.com"]
        try:
            made = self._ask(lambda clerk: clerk.users.create(**wanted, **_ONCE))
        except ClerkFailed as refusal:
            # An earlier attempt may have come through, and only its answer was lost.
            made = self._under(key) if refusal.codes else None
            if made is None:
                raise
        return str(_proven(made, key).id)

    def remove(self, key: str, reference: str) -> None:
        user = self._at(reference) if reference else self._under(key)
        if user is None:
            return
        _proven(user, key)
        try:
            gone = self._ask(lambda clerk: clerk.users.delete(user_id=user.id, **_ONCE))
        except ClerkFailed as refusal:
            if refusal.says_not_there:
                return
            raise
        if not gone.deleted:
            raise ClerkFailed("Clerk answered that the user was not deleted")

    def sign_in(self, asked: SigningIn) -> Granted:
        user = self._at(asked.reference)
        if user is None:
            raise ClerkFailed("the user is not at Clerk any more")
        _proven(user, asked.key)
        wanted = {"user_id": user.id, "expires_in_seconds": asked.seconds}
        token = self._ask(lambda clerk: clerk.sign_in_tokens.create(request=wanted, **_ONCE))
        if token.user_id != user.id or not token.token or not token.url:
            raise ClerkFailed("Clerk gave a sign-in token that signs nobody in, or another")
        testing = self._ask(lambda clerk: clerk.testing_tokens.create(**_ONCE))
        return Granted(
            link=token.url,
            details={
                "provider": "clerk",
                "userId": user.id,
                "signInToken": token.token,
                "testingToken": testing.token,
            },
        )

    def marked_users(self) -> Iterator[Marked]:
        for user in self._all_users():
            marked = _marked(user)
            if marked is not None:
                yield marked

    def _all_users(self) -> Iterator[Any]:
        """Everybody, the oldest first. Each page begins at the last one's latest moment: with offsets alone a
        user who goes meanwhile would let another one be passed by."""
        since, offset, seen = 0, 0, set[str]()
        while True:
            wanted = {"limit": _PAGE, "offset": offset, "order_by": "+created_at"}
            if since:
                wanted["created_at_after"] = since - 1
            page = externals.repeatedly(self, lambda wanted=wanted: self._list(wanted))  # type: ignore[misc]
            yield from (user for user in page if user.id not in seen)
            if len(page) < _PAGE:
                return
            latest = page[-1].created_at
            if latest > since:
                since, offset = latest, 0
                seen = {user.id for user in page if user.created_at >= latest - 1}
            else:
                offset += len(page)
                seen |= {user.id for user in page}

    def faults(self) -> Iterator[Fault]:
        options: Any = self.options
        unknown = sorted(str(name) for name in set(options) - _OPTIONS)
        if unknown:
            known = f"Known: {', '.join(sorted(_OPTIONS))}."
            yield Fault(f"IDENTITY_OPTIONS has {', '.join(unknown)}.", known)
        key = options.get("secret_key")
        if not (isinstance(key, str) and key.startswith((_TEST_KEY, _LIVE_KEY))):
            yield Fault(
                "The 'secret_key' of IDENTITY_OPTIONS is none of Clerk's.",
                f"Clerk's dashboard shows it under API keys: it begins with {_LIVE_KEY!r} or {_TEST_KEY!r}.",
            )
        secret = options.get("webhook_secret", "")
        if not isinstance(secret, str) or (secret and not secret.startswith("whsec_")):
            yield Fault(
                "The 'webhook_secret' of IDENTITY_OPTIONS is none.",
                "Clerk's dashboard shows it with the endpoint: it begins with 'whsec_'.",
            )
        if secret and not _is_installed("svix"):
            yield Fault(
                "svix is not installed: every webhook is refused.",
                "Install the extra: pip install 'stagehand-testdata[clerk]'.",
            )

    def faults_in_production(self) -> Iterator[Fault]:
        if str(self.options.get("secret_key", "")).startswith(_TEST_KEY):
            yield Fault(
                "The secret key is of a development instance of Clerk's, which has Test mode on: anybody"
                f" signs in there as a '{TEST_MODE_ADDRESS}' address with 424242.",
                f"Use the production instance's key ({_LIVE_KEY}…), and never switch Test mode on there: test"
                " users sign in with sign-in tokens; see docs/clerk.md.",
            )

    def _under(self, key: str) -> Any:
        """The user with this external id; None where there is none."""
        # A sign in front would be read as 'all but that one'.
        sought = f"+{key}" if key[0] in "+-" else key
        found = self._list({"external_id": [sought]})
        return next((user for user in found if user.external_id == key), None)

    def _list(self, wanted: Mapping[str, Any]) -> list[Any]:
        return list(self._ask(lambda clerk: clerk.users.list(request=wanted, **_ONCE)))

    def _at(self, reference: str) -> Any:
        """The user of this id; None where Clerk says that there is none."""
        try:
            user = self._ask(lambda clerk: clerk.users.get(user_id=reference, **_ONCE))
        except ClerkFailed as refusal:
            if refusal.says_not_there:
                return None
            raise
        if user.id != reference:
            raise ClerkFailed("Clerk answered with another user than was asked for")
        return user

    def _ask(self, call: Callable[[Any], R | None]) -> R:
        """One request; raises ClerkFailed and TryLater alone. See Note [No secret leaves]."""
        answer, failure = _tried(call, self._client())
        if failure is not None:
            raise failure
        if answer is None:
            raise ClerkFailed("Clerk answered with nothing")
        return answer

    def _client(self) -> Any:
        key, url = self.options.get("secret_key"), self.options.get("server_url")
        # Connections are no other process's: a worker that was forked makes its own.
        return _client_of(str(key), None if url is None else str(url), os.getpid())


@cache
def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


#: The library's own attempts would go on for an hour; ours are counted and written down.
_ONCE: Mapping[str, Any] = {"retries": None}


def _tried(call: Callable[[Any], R | None], clerk: Any) -> tuple[R | None, Exception | None]:
    """What it answers, or what to say of its failure: without its cause, which has the request."""
    import httpx
    from clerk_backend_api.models import ClerkBaseError

    try:
        return call(clerk), None
    except ClerkBaseError as error:
        return None, _refusal(error)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        return None, ClerkFailed(f"Clerk could not be reached ({type(error).__name__})")
    except httpx.HTTPError as error:
        return None, ClerkSilent(f"Clerk did not answer ({type(error).__name__})")
    except Exception as error:  # noqa: BLE001 - whatever the library makes of an answer that is none
        return None, ClerkFailed(f"Clerk's answer could not be read ({type(error).__name__})")


def _refusal(error: Any) -> Exception:
    status = int(getattr(error, "status_code", 0) or 0)
    if status == 429:
        return TryLater(_seconds(error), "Clerk answered 429")
    data = getattr(error, "data", None)
    codes = frozenset(_word(each.code) for each in getattr(data, "errors", None) or ())
    said = f" ({', '.join(sorted(codes))})" if codes else f" ({type(error).__name__})"
    return ClerkFailed(f"Clerk answered {status}{said}", status=status, codes=codes)


def _word(code: Any) -> str:
    """One of Clerk's codes; whatever else stands there is not repeated."""
    text = str(code)[:64]
    return text if text.replace("_", "").isalnum() and text.isascii() else "unknown"


def _seconds(error: Any) -> float:
    try:
        asked = float(error.headers.get("Retry-After", ""))
    except (AttributeError, ValueError):
        return 0.0
    return 0.0 if math.isnan(asked) else min(max(asked, 0.0), _LATEST)


@lru_cache(maxsize=4)
def _client_of(secret_key: str, server_url: str | None, process: int) -> Any:
    # It takes a second to import.
    import clerk_backend_api

    return clerk_backend_api.Clerk(
        bearer_auth=secret_key,
        server_url=server_url,
        timeout_ms=int(_REQUEST_SECONDS * 1000),
    )


# --- whose user it is ------------------------------------------------------------------------------------


def _keys(user: Any) -> set[str]:
    """The ledger's keys that the user's private metadata name."""
    metadata: Any = user.private_metadata
    mark = metadata.get(MARK) if isinstance(metadata, Mapping) else None
    key = mark.get("key") if isinstance(mark, Mapping) else None
    return {key} if isinstance(key, str) and key else set()


def _proven(user: Any, key: str) -> Any:
    """The user, where it is the key's; raises ClerkFailed. See Note [Whose user at Clerk]."""
    named = _keys(user)
    if named - {key} or (not named and user.external_id != key):
        raise ClerkFailed("the user at Clerk does not carry the ledger's key: it is left alone")
    return user


def _marked(user: Any) -> Marked | None:
    prefix = settings.TEST_ID_PREFIX
    metadata: Any = user.private_metadata
    mark = metadata.get(MARK) if isinstance(metadata, Mapping) else None
    environment = str(mark.get("environment", "")) if isinstance(mark, Mapping) else settings.ENVIRONMENT
    for key in _keys(user):
        return Marked(user.id, key, environment)
    if prefix and isinstance(user.external_id, str) and user.external_id.startswith(prefix):
        return Marked(user.id, user.external_id, environment)
    addresses = (str(each.email_address).lower() for each in user.email_addresses)
    if prefix and any(each.startswith(prefix.lower()) and is_reserved(each) for each in addresses):
        return Marked(user.id, "", environment)
    return None


# --- the webhook -----------------------------------------------------------------------------------------


@csrf_exempt
@transaction.non_atomic_requests(using=runs.ledger_alias())
def webhook(request: HttpRequest) -> HttpResponse:
    """Clerk's events `user.created` and `user.deleted`: a host puts it under a URL of its own.

    Links and unlinks what a run of ours has there, and says of everything else that it has nothing to do with
    it. Works with the gate closed: it makes nothing.
    """
    if request.method != "POST":
        return HttpResponse(status=405, headers={"Allow": "POST"})
    try:
        with trail.acting(trail.Act("code", "clerk.webhook", address=request.META.get("REMOTE_ADDR") or "")):
            linked = _take(_event(request))
    except BodyTooLarge as error:
        return _refused(error, 413)
    except InvalidWebhook as error:
        return _refused(error, 400)
    except ConfigurationError as error:
        return _refused(error, 503)
    return JsonResponse({"ours": linked})


def _refused(error: TestDataError, status: int) -> HttpResponse:
    body = {"error": error.message, "message": error.message, "code": error.code}
    return JsonResponse(body, status=status)


def _event(request: HttpRequest) -> Mapping[str, Any]:
    """The event that the body is, signed and new; raises InvalidWebhook, BodyTooLarge, ConfigurationError."""
    secret: Any = settings.IDENTITY_OPTIONS.get("webhook_secret")
    if not secret:
        raise ConfigurationError("IDENTITY_OPTIONS has no 'webhook_secret'.")
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not length.isdecimal() or len(length) > 20 or int(length) > settings.MAX_BODY_BYTES:
        raise BodyTooLarge(f"The event is larger than {settings.MAX_BODY_BYTES} bytes (MAX_BODY_BYTES).")
    # Django reads no more than CONTENT_LENGTH says.
    body = request.read()
    headers = {
        name: request.headers.get(name, "") for name in ("svix-id", "svix-timestamp", "svix-signature")
    }
    _verify(str(secret), body, headers)
    _refuse_seen(headers)
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict) or not isinstance(event.get("data"), dict):
        raise InvalidWebhook
    return event


def _verify(secret: str, body: bytes, headers: Mapping[str, str]) -> None:
    """Raise InvalidWebhook where the signature is not over this, or its time is five minutes off."""
    try:
        from svix.webhooks import Webhook
    except ImportError as error:
        raise ConfigurationError("svix is not installed: pip install 'stagehand-testdata[clerk]'.") from error
    try:
        Webhook(secret).verify(body, dict(headers))
    except Exception as error:  # noqa: BLE001 - a header that is no number, a body that is no text
        logger.info("a webhook was refused: %s", type(error).__name__)
        raise InvalidWebhook from None


def _refuse_seen(headers: Mapping[str, str]) -> None:
    """Raise InvalidWebhook where this very request came before.

    An event that is sent once more is signed anew, with the time of then: it is taken, and changes nothing.
    """
    alias = runs.ledger_alias()
    SpentToken.objects.using(alias).filter(expires_at__lte=Now()).delete()
    seen = f"svix\n{headers['svix-id']}\n{headers['svix-timestamp']}"
    try:
        with transaction.atomic(using=alias):
            SpentToken(digest=hashlib.sha256(seen.encode()).hexdigest(), expires_at=Now() + _REMEMBERED).save(
                using=alias, force_insert=True
            )
    except IntegrityError:
        raise InvalidWebhook from None


def _take(event: Mapping[str, Any]) -> bool:
    """Whether it was about a user of a run."""
    data: Any = event["data"]
    user = data.get("id")
    if not isinstance(user, str) or not _NAME.fullmatch(user):
        return False
    name = _type_name()
    if event.get("type") == "user.deleted":
        return identities.deleted(name, user)
    if event.get("type") == "user.created":
        return any(identities.created(name, key, user) for key in _keys_of_event(data))
    return False


def _keys_of_event(data: Mapping[str, Any]) -> list[str]:
    """The keys that could be the ledger's; most events are about real users, and cost no query."""
    prefix = settings.TEST_ID_PREFIX
    metadata = data.get("private_metadata")
    mark = metadata.get(MARK) if isinstance(metadata, dict) else None
    named = mark.get("key") if isinstance(mark, dict) else data.get("external_id")
    ours = isinstance(named, str) and named.startswith(prefix) and _NAME.fullmatch(named)
    return [str(named)] if ours else []


def _type_name() -> str:
    # Where the provider has been changed, what stands of Clerk's is still linked and unlinked.
    name = identity_type()
    provider = load_provider() if name else None
    return name if name and isinstance(provider, Clerk) else f"{IDENTITY}{Clerk.__name__.lower()}"
