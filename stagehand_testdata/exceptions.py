"""Every error of the app, as one tree.

A class's docstring is its default message; its `code` is stable and goes over the wire.
Which HTTP status a code becomes is said in one place, `api/errors.py`.

::

    TestDataError
    ├── GateClosed              test_mode_disabled
    ├── NotAuthenticated        not_authenticated
    ├── IssuerUnavailable       issuer_unavailable
    ├── NotAllowed              not_allowed
    ├── InvalidInput            invalid_body
    │   ├── InvalidTestId       invalid_test_id
    │   ├── TestIdMismatch      test_id_mismatch
    │   ├── InvalidPass         invalid_pass
    │   ├── InvalidWebhook      invalid_webhook
    │   ├── BodyTooLarge        body_too_large
    │   ├── ShadowId            shadow_id
    │   ├── NotShadow           not_shadow
    │   ├── NeedsDeep           needs_deep
    │   ├── InvalidIdempotencyKey   invalid_idempotency_key
    │   ├── IdempotencyUnsupported  idempotency_unsupported
    │   ├── IdempotencyMismatch     idempotency_mismatch
    │   ├── AnswerTooLarge          answer_too_large
    │   └── UnknownOperation    unknown_operation
    ├── NotFound                not_found
    │   ├── NotInRun            not_in_run
    │   ├── InvalidLink         invalid_link
    │   ├── UnknownEntityType   unknown_type
    │   └── UnknownScenario     unknown_scenario
    ├── TooOld                  test_too_old
    ├── Conflict                conflict
    │   ├── RunClosed           run_closed
    │   ├── QuotaExceeded       quota_exceeded
    │   ├── CannotSignIn        cannot_sign_in
    │   ├── InProgress          in_progress
    │   ├── TestRunTouchedRealRow   real_row_touched
    │   ├── PurgeHalted         confirmation_needed
    │   └── PlanChanged         plan_changed
    ├── StatementTimeout        statement_timeout
    ├── OutboundRefused         outbound_refused
    ├── FactoryFailed           factory_failed
    │   ├── UntrackedWrite      untracked_write
    │   └── PrivilegedAccount   privileged_account
    ├── ExternalFailed          external_failed
    ├── AppendOnly              append_only
    └── ConfigurationError      misconfigured
        ├── DuplicateName       duplicate_name
        └── GuardsDisabled      guards_disabled
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import ClassVar


class TestDataError(Exception):
    """The test data operation failed."""

    __test__ = False

    code: ClassVar[str] = "testdata_error"
    #: In how many seconds it may be tried again; None where that would change nothing.
    retry_after: ClassVar[int | None] = None

    def __init__(
        self, message: str | None = None, *, details: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.message = message or inspect.cleandoc(type(self).__doc__ or "")
        self.details = {name: list(texts) for name, texts in details.items()} if details else None
        super().__init__(self.message)


class GateClosed(TestDataError):
    """Test mode is not enabled in this environment"""

    code = "test_mode_disabled"


class NotAuthenticated(TestDataError):
    """A valid access key is needed: send it as 'Authorization: Bearer …'."""

    code = "not_authenticated"


class IssuerUnavailable(TestDataError):
    """The issuer of this token cannot be asked for its keys right now; nothing was done. Try again."""

    code = "issuer_unavailable"
    retry_after = 10


class NotAllowed(TestDataError):
    """This access key may not do that."""

    code = "not_allowed"


class InvalidInput(TestDataError):
    """The request body is not valid."""

    code = "invalid_body"


class InvalidTestId(InvalidInput):
    """Invalid or missing test ID"""

    code = "invalid_test_id"


class TestIdMismatch(InvalidInput):
    """The test ID in the body is not the one in the X-Test-ID header."""

    code = "test_id_mismatch"


class InvalidPass(InvalidInput):
    """The X-Testdata-Pass header is no pass of this product."""

    code = "invalid_pass"


class InvalidWebhook(InvalidInput):
    """This is no event of the identity provider's, or one that came before."""

    code = "invalid_webhook"


class BodyTooLarge(InvalidInput):
    """The request body is too large."""

    code = "body_too_large"


class ShadowId(InvalidInput):
    """That is the id of a shadow row: only a shadow call of its run can name it."""

    code = "shadow_id"


class NotShadow(InvalidInput):
    """A shadow call can name shadow rows of its run alone."""

    code = "not_shadow"


class NeedsDeep(InvalidInput):
    """This cannot be done without the database: send 'deep' with 'shadow'."""

    code = "needs_deep"

    def __init__(self, message: str | None = None) -> None:
        advice = "Send 'deep' with 'shadow': the real creation, rolled back."
        super().__init__(f"{message} {advice}" if message else None)


class InvalidIdempotencyKey(InvalidInput):
    """The Idempotency-Key header must be 1 to 255 visible ASCII characters."""

    code = "invalid_idempotency_key"


class IdempotencyUnsupported(InvalidInput):
    """This answer holds a secret, so it is not kept to be given again: leave the Idempotency-Key out."""

    code = "idempotency_unsupported"


class IdempotencyMismatch(InvalidInput):
    """This Idempotency-Key was used for another request already."""

    code = "idempotency_mismatch"


class AnswerTooLarge(InvalidInput):
    """The answer is too large to be kept under an Idempotency-Key; nothing was done. Ask for fewer rows."""

    code = "answer_too_large"


class UnknownOperation(InvalidInput):
    """Unknown test operation"""

    code = "unknown_operation"


class NotFound(TestDataError):
    """There is no such test run."""

    code = "not_found"


class NotInRun(NotFound):
    """This run has no such row."""

    code = "not_in_run"


class InvalidLink(NotFound):
    """This sign-in link does not count: it is wrong, used or too old, or its run has ended."""

    code = "invalid_link"


class UnknownEntityType(NotFound):
    """No entity type of this name is registered; GET entity-types lists them."""

    code = "unknown_type"


class UnknownScenario(NotFound):
    """No scenario of this name is registered."""

    code = "unknown_scenario"


class TooOld(TestDataError):
    """Test data is too old to modify"""

    code = "test_too_old"


class Conflict(TestDataError):
    """A value that must be unique is taken already."""

    code = "conflict"


class RunClosed(Conflict):
    """This test run is closed; open another one under a new test ID."""

    code = "run_closed"


class QuotaExceeded(Conflict):
    """There are as many test rows or open runs as there may be; nothing was made."""

    code = "quota_exceeded"


class CannotSignIn(Conflict):
    """This product cannot sign a test user in."""

    code = "cannot_sign_in"


class InProgress(Conflict):
    """The first request with this Idempotency-Key is still being worked on; try again."""

    code = "in_progress"
    retry_after = 1


class TestRunTouchedRealRow(Conflict):
    """A test run would have changed or deleted a row that is not its own; nothing was changed."""

    __test__ = False
    code = "real_row_touched"


class PurgeHalted(Conflict):
    """The purge would remove more than it may without being confirmed."""

    code = "confirmation_needed"


class PlanChanged(Conflict):
    """The plan is not the one that was confirmed; nothing was removed."""

    code = "plan_changed"


class StatementTimeout(TestDataError):
    """The database took too long over one statement (STATEMENT_TIMEOUT_SECONDS); nothing was done."""

    code = "statement_timeout"


class OutboundRefused(TestDataError):
    """A test run may send nothing to anybody real; nothing was sent."""

    code = "outbound_refused"


class ExternalFailed(TestDataError):
    """Something outside the database could not be made; it is in the ledger, and the purge removes it."""

    code = "external_failed"


class FactoryFailed(TestDataError):
    """The factory of this entity type failed; nothing was created. The server's log has the reason."""

    code = "factory_failed"


class UntrackedWrite(FactoryFailed):
    """The factory wrote rows that cannot be proven to be its own; nothing was created."""

    code = "untracked_write"


class PrivilegedAccount(FactoryFailed):
    """The factory made an account with staff or superuser rights; nothing was created."""

    code = "privileged_account"


class AppendOnly(TestDataError):
    """Rows of the audit are not changed or deleted."""

    code = "append_only"


class ConfigurationError(TestDataError):
    """The test data settings are wrong; 'manage.py check' says where."""

    code = "misconfigured"


class DuplicateName(ConfigurationError):
    """Two registrations use the same name."""

    code = "duplicate_name"


class GuardsDisabled(ConfigurationError):
    """The database's guards were installed here and are not all awake; 'manage.py testdata guards' tells."""

    code = "guards_disabled"
