"""Which error becomes which status: said here and nowhere else."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

from django.core.exceptions import (
    DisallowedHost,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    TooManyFieldsSent,
)
from django.db import InterfaceError, OperationalError
from django.http import Http404
from rest_framework import exceptions as drf
from rest_framework.response import Response
from rest_framework.views import set_rollback

from .. import exceptions as ours
from ..databases import driver_faults
from ..logs import log_error

logger = logging.getLogger(__name__)

#: The nearest ancestor in this table decides.
STATUS: dict[type[ours.TestDataError], int] = {
    ours.GateClosed: 403,
    ours.NotAuthenticated: 401,
    ours.IssuerUnavailable: 503,
    ours.NotAllowed: 403,
    ours.InvalidInput: 400,
    ours.IdempotencyMismatch: 422,
    ours.BodyTooLarge: 413,
    ours.NotFound: 404,
    ours.TooOld: 400,
    ours.Conflict: 409,
    ours.StatementTimeout: 503,
    ours.OutboundRefused: 409,
    ours.ExternalFailed: 502,
    ours.GuardsDisabled: 503,
    ours.TestDataError: 500,
}

_FRAMEWORK_CODES = {
    400: "invalid_body",
    401: "not_authenticated",
    403: "not_allowed",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    429: "throttled",
}

#: What Django itself will not read. The nearest ancestor decides here too.
_SUSPICIOUS: dict[type, tuple[int, str, str]] = {
    RequestDataTooBig: (413, "body_too_large", "The request body is too large."),
    TooManyFieldsSent: (400, "invalid_body", "The query has more parameters than this server reads."),
    DisallowedHost: (400, "invalid_body", "This server does not answer under the host of the request."),
    SuspiciousOperation: (400, "invalid_body", "The request cannot be read."),
}


def handle(error: Exception, context: Mapping[str, Any]) -> Response:
    """The answer to any exception, in the one shape that errors have."""
    set_rollback()
    return response_to(error)


def response_to(error: Exception) -> Response:
    """The same for what is no more than told: the transaction around goes on."""
    match error:
        case ours.TestDataError():
            status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
            headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
            if error.retry_after is not None:
                headers["Retry-After"] = str(error.retry_after)
            return _answer(status, error.code, error.message, error.details, headers)
        case drf.ValidationError():
            details = flatten(error.detail)
            return _answer(400, "invalid_body", summary(details), details)
        case drf.APIException():
            wait = getattr(error, "wait", None)
            headers = {} if wait is None else {"Retry-After": str(math.ceil(wait))}
            code = _FRAMEWORK_CODES.get(error.status_code, "error")
            return _answer(error.status_code, code, str(error.detail), headers=headers)
        case Http404():
            return _answer(404, "not_found", "Not found.")
        case PermissionDenied():
            return _answer(403, "not_allowed", "Not allowed.")
        case SuspiciousOperation():
            status, code, message = next(
                _SUSPICIOUS[kind] for kind in type(error).__mro__ if kind in _SUSPICIOUS
            )
            return _answer(status, code, message)
        case _ if isinstance(error, (OperationalError, InterfaceError, *driver_faults())):
            log_error(logger, "the database is unavailable", error)
            message = "The database is unavailable; nothing was done. Try again."
            return _answer(503, "unavailable", message, headers={"Retry-After": "1"})
    log_error(logger, "unexpected error", error)
    return _answer(500, "internal_error", "An unexpected error happened; nothing was done. The log has it.")


def body(code: str, message: str, details: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The shape of every error: the document's server says `error`, its client reads `message`."""
    shape: dict[str, Any] = {"error": message, "message": message, "code": code}
    if details:
        shape["details"] = details
    return shape


def flatten(detail: Any) -> dict[str, list[str]]:
    """DRF's nested details as `{"sessionTypes.0.price": [text]}`."""
    found: dict[str, list[str]] = {}
    for path, text in _walk(detail, ()):
        found.setdefault(".".join(path) or "body", []).append(text)
    return found


def summary(details: Mapping[str, list[str]]) -> str:
    """One line that names the fields at fault, the first few of them."""
    named = [f"{field}: {texts[0]}" for field, texts in list(details.items())[:5]]
    more = f" (and {len(details) - 5} more)" if len(details) > 5 else ""
    return f"The request body is not valid. {' '.join(named)}{more}"


def _walk(detail: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(detail, Mapping):
        for key, value in detail.items():
            yield from _walk(value, path if key == "non_field_errors" else (*path, str(key)))
    elif isinstance(detail, list):
        for position, value in enumerate(detail):
            yield from _walk(value, (*path, str(position)) if isinstance(value, Mapping | list) else path)
    else:
        yield path, str(detail)


def _answer(
    status: int,
    code: str,
    message: str,
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    return Response(body(code, message, details), status=status, headers=dict(headers or {}))
