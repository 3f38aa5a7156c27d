"""Every error of the client, as one tree.

`code` is stable: the server's own word where it answered, one of these where it did not. `status` is the HTTP
status, or None. `details` are the server's, field by field. No error holds the access key.

::

    TestDataError
    ├── Misuse                  misuse              said before anything was sent
    ├── TransportError
    │   ├── ConnectionFailed    connection_failed   nothing was sent
    │   ├── TimedOut            timed_out           it may have been done
    │   └── AnswerLost          answer_lost         it may have been done
    ├── UnexpectedAnswer        unexpected_answer   not one of this API
    └── Refused                 the server's        it answered, and did not do it
        ├── InvalidRequest      400, 413, 422
        │   └── TooOld          test_too_old
        ├── NotAuthenticated    401
        ├── NotAllowed          403
        │   └── GateClosed      test_mode_disabled
        ├── NotFound            404
        ├── Conflict            409
        │   ├── RunClosed       run_closed
        │   └── Residue         residue
        ├── Throttled           429
        └── ServerFailed        500 and above
            └── Unavailable     503
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class TestDataError(Exception):
    """What went wrong, in one line."""

    __test__ = False

    code: str = "testdata_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        details: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.status = status
        self.details: dict[str, list[str]] = {name: list(texts) for name, texts in (details or {}).items()}


class Misuse(TestDataError):
    """The call or its configuration is wrong; nothing was sent."""

    code = "misuse"


class TransportError(TestDataError):
    """No answer came."""

    code = "transport_error"


class ConnectionFailed(TransportError):
    """Nobody listens there, the name is unknown, the certificate is wrong: nothing was sent."""

    code = "connection_failed"


class TimedOut(TransportError):
    """No answer in time: it may have been done."""

    code = "timed_out"


class AnswerLost(TransportError):
    """The connection broke before the answer came: it may have been done."""

    code = "answer_lost"


class UnexpectedAnswer(TestDataError):
    """An answer, but not one of this API: another program listens there, or one in between answered."""

    code = "unexpected_answer"


class Refused(TestDataError):
    """The server answered, and did not do it."""

    #: Which class an answer becomes: by its code, else by its status.
    by_code: ClassVar[dict[str, type[Refused]]] = {}
    by_status: ClassVar[dict[int, type[Refused]]] = {}

    def __init_subclass__(cls, *, codes: Sequence[str] = (), statuses: Sequence[int] = ()) -> None:
        Refused.by_code.update(dict.fromkeys(codes, cls))
        Refused.by_status.update(dict.fromkeys(statuses, cls))


class InvalidRequest(Refused, statuses=(400, 413, 422)):
    """The request is not valid; `details` name the fields."""


class TooOld(InvalidRequest, codes=("test_too_old",)):
    """The run is past its end."""


class NotAuthenticated(Refused, statuses=(401,)):
    """No access key, or one that does not count."""


class NotAllowed(Refused, statuses=(403,)):
    """The key may not do that."""


class GateClosed(NotAllowed, codes=("test_mode_disabled",)):
    """Test mode is off there."""


class NotFound(Refused, statuses=(404,)):
    """Not there, or not this key's."""


class Conflict(Refused, statuses=(409,)):
    """Something that is there stands against it."""


class RunClosed(Conflict, codes=("run_closed",)):
    """The run is over."""


class Residue(Conflict, codes=("residue",)):
    """A clean-up left rows; `receipt` is what the server says of each."""

    receipt: Any = None


class Throttled(Refused, statuses=(429,)):
    """Too many requests, also after waiting."""


class ServerFailed(Refused, statuses=(500, 501, 502, 504)):
    """The server failed."""


class Unavailable(ServerFailed, statuses=(503,)):
    """The server cannot do it now; nothing was done."""


def refusal(status: int, body: Mapping[str, Any]) -> Refused:
    """The error that an answer in the API's shape is."""
    code = str(body["code"])
    kind = Refused.by_code.get(code) or Refused.by_status.get(status, Refused)
    found = body.get("details")
    details = found if isinstance(found, Mapping) else {}
    message = str(body.get("message") or body.get("error") or code)
    texts = [str(text) for each in details.values() for text in each]
    if texts and not any(text in message for text in texts):
        # A message that the document gives word for word; the details say what to do.
        message = f"{message}: {texts[0]}"
    return kind(message, code=code, status=status, details=details)
