"""A test's run: open it, make rows in it, sign in, read its mail, and leave nothing behind.

# Note [The lease]
The run is opened for `lease_minutes`, and a heartbeat renews it while the test lives, up to
`max_age_minutes`. So the run of a runner that was killed ends a few minutes later, not an hour. It is
renewed by joining it (`verify-access`), not by PATCH: a PATCH sets the end, and may cut a run short that
another shard has been promised for longer; joining never does.

# Note [Whose run it is]
Whoever makes up the test ID cleans up. Whoever is given one joins a run that somebody else opened and ends:
a shard of a CI build that cleaned up after itself would take the other shards' rows away.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import math
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import TracebackType
from typing import Any, Literal, Protocol, Self
from urllib.parse import quote
from uuid import UUID

import httpx

from .. import errors, models
from ..connection import Connection, Secret, read_key, read_path, read_url
from ..environments import PREFIX, Server, find_server
from ..last_words import last_words
from ..retries import Retries
from ..tasks import AsyncHeartbeat
from .wire import AsyncWire

logger = logging.getLogger(__name__)

KEY_VARIABLE = "STAGEHAND_TESTDATA_KEY"

#: How a client that is about to be ended speaks: soon, or not at all.
_HASTE = Retries(attempts=3, cap=1, longest=2)
_HASTE_SECONDS = 5.0

Scope = Literal["ephemeral", "persistent_session", "persistent_environment"]
#: A user of the run: the key of the account, or something that was made and has one.
User = str | int | models.Builder | models.Client | models.Row
#: A row that was made: (type, id), or what the call that made it has answered.
Listed = tuple[str, str] | models.Row | models.Builder | models.Client | models.SessionType | models.Booking


class AsyncContext(Protocol):
    """A browser context of Playwright."""

    async def add_cookies(self, cookies: Any) -> None: ...


class AsyncPage(Protocol):
    """A page of Playwright."""

    @property
    def context(self) -> AsyncContext: ...

    async def goto(self, url: str) -> Any: ...


class AsyncTestDataManager:
    """One test's run on the server at `url`, opened when the block begins and cleaned up when it ends.

    `url`: the product's own, as `https://shop.example`; STAGEHAND_TESTDATA_URL, or the configured environment
    that STAGEHAND_TESTDATA_ENVIRONMENT names, where it is left out. `key`: the access key;
    STAGEHAND_TESTDATA_KEY, or a key that a CI job's own token is exchanged for, where it is left out.
    `test_id`: of the run to join; a new one where it is left out. `scope`: as in the strategy document.
    `max_age_minutes`: how long the run may live at most. `lease_minutes`: how long it lives on when nobody
    renews it: see Note [The lease]. `seed`: what values are drawn from. `shadow`: True for calls that make no
    row, "deep" for the real creation, rolled back. `keep`: leave the run to its end; by default that of a run
    which was joined, or is persistent. `timeout`: seconds for one request. `transport`: one of httpx's.

    Raises Misuse for a URL or a key that cannot be one.
    """

    __test__ = False

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        test_id: str | None = None,
        prefix: str | None = None,
        scope: Scope = "ephemeral",
        max_age_minutes: float = 60,
        lease_minutes: float = 5,
        seed: int | None = None,
        label: str = "",
        build_id: str = "",
        test_user_email: str = "",
        shadow: bool | Literal["deep"] = False,
        keep: bool | None = None,
        api_path: str | None = None,
        timeout: float = 60,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        # From here on no frame of a traceback holds it.
        secret, key = _secret(key), None
        found = find_server() if url is None else Server(url)
        connection = Connection(
            url=read_url(found.url),
            api_path=read_path(found.api_path if api_path is None else api_path),
            key=read_key(secret),
            timeout=timeout,
            retries=retries or Retries(),
        )
        self.test_id = test_id or new_test_id(found.prefix if prefix is None else prefix)
        self.scope = scope
        self.max_age_minutes = max_age_minutes
        self.lease_minutes = min(lease_minutes, max_age_minutes)
        self.keep = (test_id is not None or scope != "ephemeral") if keep is None else keep
        #: What the server said when the run was opened or joined.
        self.access: models.Access | None = None
        #: What the last clean-up did.
        self.receipt: models.Receipt | None = None
        self._opening = {
            name: value
            for name, value in {
                "seed": seed,
                "label": label[:200],
                "buildId": build_id,
                "testUserEmail": test_user_email,
            }.items()
            if value not in {None, ""}
        }
        self._mode: dict[str, bool] = {"shadow": True} if shadow else {}
        if shadow == "deep":
            self._mode["deep"] = True
        self._transport = transport
        self._wire = AsyncWire(connection, transport)
        self._heartbeat: AsyncHeartbeat | None = None
        self._ends = 0.0
        self._over = False

    @classmethod
    def joined(cls, **options: Any) -> Self:
        """The run that `stagehand-testdata prepare` opened for this build; it is left to `cleanup` there.

        Takes what the class takes; TEST_ID and TEST_SHADOW of the environment say the rest. Raises Misuse.
        """
        test_id = os.environ.get("TEST_ID")
        if not test_id:
            raise errors.Misuse(
                "No TEST_ID is set: run `stagehand-testdata prepare`, and read its file first."
            )
        return cls(**{"test_id": test_id, "shadow": os.environ.get("TEST_SHADOW") == "1", **options})

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.test_id} at {self.url}>"

    @property
    def url(self) -> str:
        """The product's."""
        return self._wire.connection.url

    @property
    def seed(self) -> int | None:
        """What the run's values are drawn from, once it is open."""
        return None if self.access is None else self.access.seed

    @property
    def is_over(self) -> bool:
        """Whether this manager has ended the run."""
        return self._over

    # --- the run's life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        try:
            await self.initialize()
        except errors.ConnectionFailed:
            # There is no run, and nobody to ask about it.
            self._over = True
            await self.close()
            raise
        except BaseException as error:
            # It may have been opened, and the answer got lost.
            await self._close_after(error)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self.close()
        else:
            await self._close_after(error)

    async def initialize(self) -> models.Access:
        """Open the run, or join it; from here on it is cleaned up whatever becomes of this process.

        Raises GateClosed, NotAuthenticated, NotAllowed, RunClosed, TooOld, Conflict, TransportError.
        """
        self._wire.stays_open = True
        if not self.keep:
            last_words.hold(self, self._say_last_words)
        minutes = self.max_age_minutes if self.keep else self.lease_minutes
        body = {**self._opening, "scope": self.scope, "maxAgeMinutes": minutes}
        self._ends = time.monotonic() + self.max_age_minutes * 60
        # Joining again is the same: it needs no key to be repeated.
        answer = await self._wire.send("POST", "verify-access", body, test_id=self.test_id, repeatable=True)
        self.access = models.Access.of(answer)
        if not self.keep and self._heartbeat is None:
            self._heartbeat = AsyncHeartbeat(self._beat, self._pause())
            await self._heartbeat.start()
        return self.access

    async def close(self) -> None:
        """Clean up unless the run is kept, and let go of the server; twice is harmless. Raises Residue."""
        try:
            if not (self.keep or self._over):
                await self.cleanup()
        finally:
            await self._stop_heartbeat()
            last_words.release(self)
            await self._wire.close()

    async def cleanup(self, *rows: Listed) -> models.Receipt:
        """Remove the whole run, which ends it; or only those rows, and what hangs on them in the run.

        Raises Residue, with the receipt, where something had to stay.
        """
        body: dict[str, Any] = {}
        if rows:
            body["createdData"] = [{"type": kind, "id": key} for kind, key in map(_type_and_id, rows)]
        else:
            await self._stop_heartbeat()
        try:
            answer = await self._wire.send("POST", "cleanup", body, test_id=self.test_id, repeatable=True)
        except errors.Residue as residue:
            self.receipt = residue.receipt
            self._over = self._over or not rows
            raise
        self.receipt = models.Receipt.of(answer)
        self._over = self._over or not rows
        if not rows:
            last_words.release(self)
        return self.receipt

    async def renew(self, minutes: float, *, label: str | None = None) -> models.Run:
        """Set the run's end to that many minutes from now, within its cap; sooner than before is possible."""
        body: dict[str, Any] = {"maxAgeMinutes": minutes}
        if label is not None:
            body["label"] = label
        answer = await self._wire.send("PATCH", self._path(), body, test_id=self.test_id, repeatable=True)
        return models.Run.of(answer)

    async def delete(self) -> models.Receipt:
        """Clean up, and forget the run: it is unknown from then on. Raises as `cleanup`."""
        await self._stop_heartbeat()
        answer = await self._wire.send("DELETE", self._path(), test_id=self.test_id, repeatable=True)
        self._over = True
        last_words.release(self)
        self.receipt = models.Receipt.of(answer)
        return self.receipt

    # --- rows ---------------------------------------------------------------------------------------------

    async def create(
        self,
        type_name: str,
        *,
        count: int | None = None,
        fields: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Any:
        """A row of that type, or a list of `count`; `fields` and whatever else is named are its columns."""
        body: dict[str, Any] = {"fields": {**(fields or {}), **more}}
        if count is not None:
            body["count"] = count
        made = await self._make(f"entities/{_quoted(type_name)}", body)
        return models.Row.of(made) if count is None else models.Row.each_of(made)

    async def builder(self, *, once: str = "", **fields: Any) -> models.Builder:
        """A builder: name, email, expertise, hourly_rate, availability, validation_tier…"""
        return models.Builder.of(await self._make("builders", _on_the_wire(fields), once))

    async def client(self, *, once: str = "", **fields: Any) -> models.Client:
        """A client: name, email, company_name."""
        return models.Client.of(await self._make("clients", _on_the_wire(fields), once))

    async def session_types(
        self, builder: models.Builder | str, *offers: Mapping[str, Any], once: str = ""
    ) -> list[models.SessionType]:
        """What the builder offers, in this order: name, description, duration (minutes), price, currency,
        calendly_url; an Initial Consultation where nothing is said.
        """
        body = {"builderId": _id(builder), "sessionTypes": [_on_the_wire(each) for each in offers]}
        return models.SessionType.each_of(await self._make("session-types", body, once))

    async def booking_scenario(
        self,
        *,
        builder: models.Builder | str | None = None,
        client: models.Client | str | None = None,
        session_type: models.SessionType | str | None = None,
        **fields: Any,
    ) -> models.BookingScenario:
        """A booking and whatever it needs: status, payment_status, start_time, amount, currency."""
        given = {"builderId": builder, "clientId": client, "sessionTypeId": session_type}
        body = _on_the_wire(fields) | {name: _id(each) for name, each in given.items() if each is not None}
        return models.BookingScenario.of(await self._make("booking-scenarios", body))

    async def batch(self, **counts: int | bool) -> models.Made:
        """Many at once, all or nothing: `builders=5, clients=3, sessionTypes=True`, or any type."""
        return models.Made.of(await self._make("batch", counts))

    async def scenario(self, name: str, /, **fields: Any) -> models.Made:
        """All rows of a registered scenario, such as `marketplace`, `booking`, `payment`."""
        return models.Made.of(await self._make(f"scenarios/{_quoted(name)}", fields))

    async def operation(self, name: str, /, **fields: Any) -> Any:
        """An operation that the host has registered: what it answers, as it came."""
        return await self._make(_quoted(name), fields)

    async def shadow_copy(self, model: str, key: str) -> models.Row:
        """A copy of a real row of a model that the host allows, without personal data."""
        body = {"model": model, "id": str(key)}
        await self._open()
        made = await self._wire.create("shadow-copies", body, test_id=self.test_id)
        return models.Row.of(made)

    # --- the browser --------------------------------------------------------------------------------------

    async def pass_(self) -> models.Pass:
        """What puts a request of the product itself under the run: headers, or a cookie."""
        answer = await self._wire.send(
            "POST", f"{self._path()}/pass", {}, test_id=self.test_id, repeatable=True
        )
        return models.Pass.of(answer)

    async def carry_pass(self, context: AsyncContext) -> models.Pass:
        """Give a browser context of Playwright the run's pass."""
        granted = await self.pass_()
        await context.add_cookies([granted.cookie_for(self.url)])
        return granted

    async def session(self, user: User, *, next_path: str = "/") -> models.Session:
        """Sign a user of the run in: a link that counts once, and Playwright's storage state."""
        body = {**_account(user), "next": next_path}
        answer = await self._wire.send("POST", f"{self._path()}/sessions", body, test_id=self.test_id)
        return models.Session.of(answer)

    async def sign_in(self, page: AsyncPage, user: User, *, next_path: str = "/") -> models.Session:
        """Sign a page of Playwright in as a user of the run, without a password; it carries the pass then.

        Raises UnexpectedAnswer where the link led nowhere.
        """
        opened = await self.session(user, next_path=next_path)
        if opened.identity:
            # The link is an outside provider's, which knows nothing of the run's pass.
            await page.context.add_cookies(opened.storage_state["cookies"])
            await page.goto(opened.link)
            return opened
        answer = await page.goto(opened.link)
        if answer is not None and answer.url == opened.link:
            raise errors.UnexpectedAnswer(
                f"The sign-in link was answered with {answer.status}: has the gate been closed since?",
                status=answer.status,
            )
        return opened

    # --- what there is ------------------------------------------------------------------------------------

    async def status(self) -> models.Run:
        """The run as the ledger has it."""
        return models.Run.of(await self._wire.get(self._path(), test_id=self.test_id))

    async def entities(self, **wanted: str) -> list[models.Entry]:
        """The run's ledger; only those of a `type`, `state` or `origin` where it is given."""
        found = await self._wire.pages(f"{self._path()}/entities", test_id=self.test_id, query=wanted)
        return models.Entry.each_of(found)

    async def messages(self, to: str | None = None) -> list[models.Message]:
        """The run's inbox, the newest first; only what went to that address where one is given."""
        query = {} if to is None else {"to": to}
        found = await self._wire.pages(f"{self._path()}/messages", test_id=self.test_id, query=query)
        return models.Message.each_of(found)

    async def last_receipt(self) -> models.Receipt:
        """What the last clean-up did; the server keeps it when the run is gone."""
        return models.Receipt.of(await self._wire.get(f"{self._path()}/receipt", test_id=self.test_id))

    async def runs(self) -> list[models.Run]:
        """All runs of this key."""
        return models.Run.each_of(await self._wire.pages("runs"))

    async def entity_types(self) -> list[models.EntityType]:
        """What can be made there."""
        return models.EntityType.each_of(await self._wire.get("entity-types"))

    async def exchange(self, token: str) -> models.Key:
        """An access key of a few minutes for a CI job's own token, which is taken once."""
        answer = await self._wire.exchange(Secret(token))
        return models.Key.of(answer)

    # --- within -------------------------------------------------------------------------------------------

    def _path(self) -> str:
        return f"runs/{_quoted(self.test_id)}"

    async def _make(self, path: str, body: Mapping[str, Any], once: str = "") -> Any:
        told = {**_plain(body), **self._mode}
        await self._open()
        return await self._wire.create(path, told, test_id=self.test_id, once=once)

    async def _open(self) -> None:
        """Nobody may have: the server would open the run itself, without its lease, seed and label."""
        if self.access is None and not (self.keep or self._over):
            await self.initialize()

    async def _close_after(self, error: BaseException) -> None:
        try:
            await self.close()
        except errors.TestDataError as trouble:
            # What the test failed of is what its reader wants to see.
            error.add_note(f"The run {self.test_id} could not be cleaned up: {trouble}")

    def _pause(self) -> float:
        """Seconds between two renewals: a lease outlives two that fail."""
        return self.lease_minutes * 60 / 3

    async def _beat(self) -> float | None:
        left = self._ends - time.monotonic()
        if left <= 0 or self._over:
            return None
        body = {"scope": self.scope, "maxAgeMinutes": min(self.lease_minutes, left / 60)}
        try:
            await self._wire.send(
                "POST", "verify-access", body, test_id=self.test_id, repeatable=True, retries=_HASTE
            )
        except (errors.Throttled, errors.ServerFailed, errors.TransportError):
            return self._pause() / 4
        except errors.TestDataError as error:
            logger.warning("the run %s is renewed no more: %s", self.test_id, error)
            return None
        return self._pause()

    async def _stop_heartbeat(self) -> None:
        if self._heartbeat is not None:
            await self._heartbeat.stop()
            self._heartbeat = None

    def _say_last_words(self) -> None:
        """See Note [A client of its own]: with threads or with tasks, it is a plain client that says them."""
        from .._sync.wire import Wire

        if self._over or not (self._transport is None or isinstance(self._transport, httpx.BaseTransport)):
            return
        wire = Wire(self._wire.hasty(_HASTE_SECONDS, _HASTE), self._transport)
        try:
            wire.send("POST", "cleanup", {}, test_id=self.test_id, repeatable=True)
            self._over = True
        finally:
            with contextlib.suppress(Exception):
                wire.close()


def new_test_id(prefix: str = PREFIX) -> str:
    """As the document makes one: the prefix, the time in ms, and chance that no seed repeats."""
    return f"{prefix}{time.time_ns() // 1_000_000}_{secrets.token_hex(5)}"


def _secret(key: str | None) -> Secret:
    return Secret(os.environ.get(KEY_VARIABLE, "") if key is None else key)


def _quoted(part: str) -> str:
    return quote(part, safe="")


def _id(row: Any) -> str:
    return str(getattr(row, "id", row))


def _account(user: User) -> dict[str, str]:
    """Whose account is meant: its key, or a row that the server is to look at."""
    if isinstance(user, models.Row):
        if user.fields.get("user") is not None:
            return {"userId": str(user["user"])}
        return {"userId": user.id, "type": user.type}
    return {"userId": str(getattr(user, "user_id", "") or _id(user))}


def _type_and_id(row: Listed) -> tuple[str, str]:
    if isinstance(row, tuple):
        return row[0], str(row[1])
    kind = row.type if isinstance(row, models.Row) else _TYPES[type(row)]
    return kind, row.id


_TYPES: Mapping[type, str] = {
    models.Builder: "builder",
    models.Client: "client",
    models.SessionType: "sessionType",
    models.Booking: "booking",
}


def _on_the_wire(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Python's spelling as the wire's, where the document's amounts are numbers."""
    return {
        _camel(name): float(value) if isinstance(value, Decimal) else value for name, value in fields.items()
    }


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in tail)


def _plain(value: Any, name: str = "") -> Any:
    """What JSON has for it: a moment's ISO text, a row's key. Raises Misuse where it has nothing."""
    match value:
        case None | bool() | str() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case dt.date() | dt.time():
            return value.isoformat()
        case Decimal() | UUID():
            return str(value)
        case models.Model() if hasattr(value, "id"):
            return value.id
        case Mapping():
            return {str(each): _plain(inner, f"{name}.{each}".lstrip(".")) for each, inner in value.items()}
        case Sequence() if not isinstance(value, bytes | bytearray | memoryview):
            return [_plain(inner, f"{name}.{place}") for place, inner in enumerate(value)]
    what = repr(value) if isinstance(value, float) else f"a {type(value).__name__}"
    raise errors.Misuse(f"{name}: JSON has nothing for {what}; give a text.")
