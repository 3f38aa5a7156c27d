"""Requests and answers, sent again where that is safe: see Note [Never twice]."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx

from .. import errors
from ..connection import Connection, Secret
from ..models import Receipt
from ..retries import Retries, may_retry, seconds
from ..tasks import asleep
from .job_tokens import find_job_tokens

#: Nothing was sent: the connection was never made.
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


#: The keys that tokens of this job were exchanged for, by API. A run needs none of its own, and a token of
#: GitLab's is taken once.
_job_keys: dict[str, Secret] = {}


class _Unshown(dict[str, Any]):
    """A body that no traceback shows."""

    def __repr__(self) -> str:
        return "{…}"


class AsyncWire:
    """One server, one access key. `transport` is any of httpx's; the network where it is None."""

    def __init__(self, connection: Connection, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.connection = connection
        self._transport = transport
        self._http: httpx.AsyncClient | None = None
        #: Whether connections stay open from one request to the next, until `close`.
        self.stays_open = False
        #: Whether the key is one that a CI's own token was exchanged for.
        self._exchanged = False

    async def get(self, path: str, *, test_id: str = "", query: Mapping[str, Any] | None = None) -> Any:
        return await self.send("GET", path, test_id=test_id, query=query, repeatable=True)

    async def pages(
        self, path: str, *, test_id: str = "", query: Mapping[str, Any] | None = None
    ) -> list[Any]:
        """Every result of a list, over all its pages."""
        found: list[Any] = []
        number = 1
        while True:
            asked = {**(query or {}), "page": number, "pageSize": 500}
            page = await self.get(path, test_id=test_id, query=asked)
            if not isinstance(page, Mapping) or not isinstance(page.get("results"), list):
                raise errors.UnexpectedAnswer("The server's answer is no page of a list.")
            found += page["results"]
            if not page.get("next"):
                return found
            number += 1

    async def create(self, path: str, body: Mapping[str, Any], *, test_id: str, once: str = "") -> Any:
        """A creating call, done once however often it is sent; `once` names it across processes."""
        return await self.send(
            "POST", path, body, test_id=test_id, once=once or uuid.uuid4().hex, repeatable=True
        )

    async def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        test_id: str = "",
        query: Mapping[str, Any] | None = None,
        once: str = "",
        repeatable: bool = False,
        retries: Retries | None = None,
    ) -> Any:
        """The answer's JSON; raises TransportError, UnexpectedAnswer, Refused."""
        headers = {"X-Test-Mode": "true"}
        if test_id:
            headers["X-Test-ID"] = test_id
        if once:
            headers["Idempotency-Key"] = once
        request: dict[str, Any] = {
            "method": method,
            "url": f"{self.connection.api}/{path}",
            "headers": headers,
        }
        if body is not None:
            request["json"] = dict(body)
        if query is not None:
            request["params"] = dict(query)
        try:
            return await self._authorized(request, repeatable, retries or self.connection.retries)
        finally:
            if not self.stays_open:
                await self.close()

    async def exchange(self, token: Secret) -> Any:
        """The answer of POST tokens; a token is taken once, so nothing but a sure failure is tried again."""
        url, body = f"{self.connection.api}/tokens", _Unshown(token=token.reveal())
        return await self._persist(
            {"method": "POST", "url": url, "json": body}, False, self.connection.retries
        )

    def hasty(self, timeout: float, retries: Retries) -> Connection:
        """The same connection for who has no time."""
        return replace(self.connection, timeout=timeout, retries=retries)

    async def close(self) -> None:
        self.stays_open = False
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def _authorized(self, request: Mapping[str, Any], repeatable: bool, retries: Retries) -> Any:
        await self._find_key()
        try:
            return await self._persist(request, repeatable, retries)
        except errors.NotAuthenticated:
            if not self._exchanged:
                raise
        # A key of a few minutes, and the suite runs longer.
        self._exchanged = False
        if _job_keys.get(self.connection.api) is self.connection.key:
            del _job_keys[self.connection.api]
        self._use_key(Secret(""))
        await self._find_key()
        return await self._persist(request, repeatable, retries)

    async def _persist(self, request: Mapping[str, Any], repeatable: bool, retries: Retries) -> Any:
        attempt = 0
        while True:
            attempt += 1
            asked: float | None = None
            try:
                answer = await self._client().request(auth=self.connection.auth(), **request)
            except httpx.TransportError as error:
                failure: errors.TestDataError = _transport_error(error, self.connection.url)
                again = repeatable or isinstance(failure, errors.ConnectionFailed)
            except httpx.DecodingError:
                raise errors.UnexpectedAnswer("The server's answer cannot be decoded.") from None
            else:
                found, refused = _read(answer, self.connection.api)
                if refused is None:
                    return found
                failure, asked = refused, seconds(answer.headers.get("Retry-After"))
                ours = isinstance(refused, errors.Refused)
                again = may_retry(answer.status_code, ours=ours, asked=asked, repeatable=repeatable)
            wait = retries.wait(attempt, asked) if again else None
            if wait is None:
                # Without httpx's own: its frames hold the request.
                raise failure from None
            await asleep(wait)

    async def _find_key(self) -> None:
        """Where no key was given and this is a CI's job, exchange the job's own token for one."""
        if self.connection.key or self._exchanged:
            return
        if known := _job_keys.get(self.connection.api):
            self._use_job_key(known)
            return
        refusal: errors.TestDataError | None = None
        for token in await find_job_tokens(self.connection.api):
            try:
                made = await self.exchange(token)
            except errors.NotAuthenticated as error:
                refusal = error
                continue
            self._use_job_key(Secret(str(made["key"])))
            return
        if refusal is not None:
            raise errors.NotAuthenticated(
                "The server takes no token of this CI job: enter the job in its OIDC_TRUST, give each further"
                " use in the job a token of its own, or set STAGEHAND_TESTDATA_KEY.",
                code=refusal.code,
                status=refusal.status,
            )

    def _use_job_key(self, key: Secret) -> None:
        _job_keys[self.connection.api] = key
        self._use_key(key)
        self._exchanged = True

    def _use_key(self, key: Secret) -> None:
        self.connection = replace(self.connection, key=key)

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            self._http = httpx.AsyncClient(
                timeout=self.connection.timeouts(),
                transport=self._transport,
                # Whoever redirects is not the API, and is not to be given the key.
                follow_redirects=False,
            )
        return self._http


def _read(answer: httpx.Response, api: str) -> tuple[Any, errors.TestDataError | None]:
    """What the answer holds, or which error it is."""
    if answer.has_redirect_location:
        target = answer.headers["Location"].partition("?")[0]
        return None, errors.UnexpectedAnswer(
            f"{api} redirects to {target}: give the URL that answers itself.", status=answer.status_code
        )
    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.is_success and body is not None:
        return body, None
    if isinstance(body, Mapping) and "code" in body:
        refused = errors.refusal(answer.status_code, body)
        if isinstance(refused, errors.Residue):
            refused.receipt = Receipt.of(body)
        return None, refused
    return None, errors.UnexpectedAnswer(
        f"No API of stagehand_testdata answers at {api}, but {answer.status_code}:"
        " is that the product's URL, and are its URLs included there?",
        status=answer.status_code,
    )


def _transport_error(error: httpx.TransportError, url: str) -> errors.TransportError:
    said = str(error) or type(error).__name__
    if isinstance(error, _UNSENT):
        return errors.ConnectionFailed(f"The server at {url} cannot be reached ({said}): is it running?")
    if isinstance(error, httpx.TimeoutException):
        return errors.TimedOut(f"The server at {url} did not answer in time.")
    return errors.AnswerLost(f"The connection to {url} broke before the answer came ({said}).")
