"""The e-mail backend through which nothing leaves a test: it stands in front of the host's own.

A message to a test address is never sent. It is kept for the run that the address belongs to, where a test
reads it. Under a current run nothing is sent at all: a message to anybody else is refused.
"""

from __future__ import annotations

import copy
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from email.errors import NonASCIILocalPartDefect, ObsoleteHeaderDefect
from email.headerregistry import AddressHeader
from email.message import Message as MimeMessage
from typing import Any

from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.db import DatabaseError, router, transaction
from django.db.models import QuerySet
from django.db.models.functions import Lower
from django.utils.module_loading import import_string

from ..conf import Settings, settings
from ..context import CurrentRun, current_run
from ..databases import database
from ..exceptions import ConfigurationError, OutboundRefused
from ..logs import log_error
from ..models import Message, TestEntity, TestRun
from ..reserved import ascii_domain, is_reserved
from .statements import seeing_all_rows

logger = logging.getLogger(__name__)

#: Most entries are of this form, and need no parser.
_PLAIN = re.compile(r"[\w.+-]+@[\w.-]+", re.ASCII)

#: What real mail has in it: a full stop in a name, a local part in another alphabet.
_HARMLESS = (ObsoleteHeaderDefect, NonASCIILocalPartDefect)
_BREAK = re.compile(r"[\r\n]")

#: More attachments than that are not listed.
MOST_ATTACHMENTS = 100

#: Set while the log is told: a log that is mailed comes back here, and must not be told of that again.
_telling: ContextVar[bool] = ContextVar("stagehand_testdata_telling", default=False)


class TestDataEmailBackend(BaseEmailBackend):
    """Keeps what goes to test addresses, hands the rest to EMAIL_BACKEND, and takes that one's arguments."""

    __test__ = False

    def __init__(self, fail_silently: bool = False, **options: Any) -> None:
        # Django 6.1 passes the alias of MAILERS, and knows no fail_silently in its base class.
        super().__init__(alias=options.get("alias"))
        self.fail_silently = fail_silently
        if fail_silently:
            options["fail_silently"] = True
        self.wrapped: BaseEmailBackend = import_string(settings.EMAIL_BACKEND)(**options)

    def open(self) -> bool | None:
        return False if current_run() else self.wrapped.open()

    def close(self) -> None:
        self.wrapped.close()

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """How many were sent, as Django counts them; one that was kept or dropped counts as sent.

        Raises OutboundRefused before anything is kept, and what EMAIL_BACKEND raises.
        """
        addressed = [Addressed.read(each) for each in email_messages]
        run = current_run()
        if run is not None:
            return self._keep_all(run, addressed)
        touched = [each for each in addressed if each.tests]
        if touched:
            for each in touched:
                each.message.message()  # raises as it would if the message were sent
            _keep_for_owners(touched)
        going = [each.without_tests() for each in addressed if each.others or not each.tests]
        sent = self.wrapped.send_messages(going) if going else 0
        return (sent or 0) + len(addressed) - len(going)

    def _keep_all(self, run: CurrentRun, addressed: Sequence[Addressed]) -> int:
        kept = []
        for each in addressed:
            if each.others:
                self._refuse(run, each)
            elif each.tests:
                each.message.message()
                kept.append(each)
        try:
            _keep(run.pk, [_row(run.pk, each, each.tests) for each in kept])
        except DatabaseError as error:
            if not self.fail_silently:
                raise
            _tell_error("a message of a run was not kept", error)
        return len(kept)

    def _refuse(self, run: CurrentRun, addressed: Addressed) -> None:
        # Whoever reads this may not be entitled to a real address.
        domains = sorted({other.rpartition("@")[2].rstrip(">") for other in addressed.others})
        refused = OutboundRefused(
            f"An e-mail to {', '.join(domains)!r} was refused: a test run may write to test addresses only."
        )
        if not self.fail_silently:
            raise refused
        _tell(f"{run.test_id}: {refused.message}")


OUR_BACKEND = f"{TestDataEmailBackend.__module__}.{TestDataEmailBackend.__qualname__}"
_SENDING_NOTHING = {
    f"django.core.mail.backends.{name}.EmailBackend" for name in ("console", "dummy", "filebased", "locmem")
}


def is_held_back() -> bool:
    """Whether the host's e-mail goes through our backend, or nowhere."""
    return not set(_backends()) - {OUR_BACKEND, *_SENDING_NOTHING}


def require_held_back() -> None:
    """Raise ConfigurationError where an e-mail under a run could leave."""
    if not is_held_back():
        raise ConfigurationError(
            "E-mail does not go through TestDataEmailBackend here, so what a creation sends would leave:"
            " see stagehand.W024 of 'manage.py check'."
        )


def _backends() -> Iterator[str]:
    """The e-mail backends that the host uses. Django 6.1 has MAILERS, and then no EMAIL_BACKEND."""
    mailers: Any = getattr(django_settings, "MAILERS", None)
    if mailers is None:
        yield django_settings.EMAIL_BACKEND
        return
    for mailer in mailers.values():
        yield mailer.get("BACKEND", Settings.EMAIL_BACKEND.default)


@dataclass(slots=True)
class Addressed:
    """A message by whom it goes to. `others` are those who are no test's, as they were written."""

    message: EmailMessage
    tests: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, message: EmailMessage) -> Addressed:
        found = cls(message)
        for entry in message.recipients():
            tests, others = sort_out(entry)
            found.tests += tests
            found.others += others
        found.tests = list(dict.fromkeys(found.tests))
        return found

    def without_tests(self) -> EmailMessage:
        """The message as it was, or a copy of it that goes to the others alone."""
        if not self.tests:
            return self.message
        reduced = copy.copy(self.message)
        for name in ("to", "cc", "bcc"):
            setattr(
                reduced, name, [other for entry in getattr(reduced, name) for other in sort_out(entry)[1]]
            )
        return reduced


def sort_out(entry: Any) -> tuple[list[str], list[str]]:
    """Of one entry of to, cc or bcc: the test addresses, and the rest as it was written.

    What cannot be read with certainty is nobody's test address.
    """
    text = str(entry)
    if _PLAIN.fullmatch(text):
        return ([_normal(text)], []) if is_reserved(text) else ([], [text])
    try:
        parsed = AddressHeader.value_parser(text)
        boxes = parsed.all_mailboxes
        certain = all(isinstance(each, _HARMLESS) for each in parsed.all_defects)
        tests = [box for box in boxes if box.domain and is_reserved(box.addr_spec)]
    except Exception:  # noqa: BLE001 - it fails in more ways than it says
        return [], [text]
    addresses = [_normal(box.addr_spec) for box in tests]
    if not (tests and certain) or any(_BREAK.search(each) for each in (text, *addresses)):
        return [], [text]
    return addresses, [str(box).strip() for box in boxes if box not in tests]


def _normal(address: str) -> str:
    local, _, domain = address.rpartition("@")
    return f"{local}@{ascii_domain(domain)}"


# --- keeping ---------------------------------------------------------------------------------------------


def _keep_for_owners(touched: Iterable[Addressed]) -> None:
    """Keep each message for the runs that its test addresses belong to; those of none are dropped.

    A failure here is the log's: it must not keep real mail from real people.
    """
    owners: dict[str, int | None] = {}
    rows: dict[int, list[Message]] = defaultdict(list)
    try:
        with transaction.atomic(using=_alias()):
            for each in touched:
                groups: dict[int, list[str]] = defaultdict(list)
                for address in each.tests:
                    if address not in owners:
                        owners[address] = _owner_of(address)
                    owner = owners[address]
                    if owner is None:
                        _tell("a message to a test address that is of no open run was dropped")
                    else:
                        groups[owner].append(address)
                for run_id, addresses in groups.items():
                    rows[run_id].append(_row(run_id, each, addresses))
        for run_id, messages in rows.items():
            _keep(run_id, messages)
    except DatabaseError as error:
        _tell_error("a message to a test address was not kept", error)


def _keep(run_id: int, messages: Sequence[Message]) -> None:
    """Write these into the run's inbox, unless the run is closed or closing.

    The run is held meanwhile, as in Note [Why the run is locked]: what came while it closed would stay.
    """
    if not messages:
        return
    alias = _alias()
    still_open = TestRun.objects.filter(pk=run_id, state=TestRun.State.OPEN).order_by()
    with transaction.atomic(using=alias):
        if database(alias).read_shared(still_open):
            Message.objects.using(alias).bulk_create(messages, batch_size=500)
        else:
            _tell("a message of a run that is not open any more was dropped")


def _owner_of(address: str) -> int | None:
    """The open run that the address belongs to; None where that is none, or cannot be told."""
    for found in _claims(address):
        runs = set(found.values_list("pk", flat=True)[:2])
        if runs:
            return runs.pop() if len(runs) == 1 else None
    return None


def _claims(address: str) -> Iterator[QuerySet[TestRun]]:
    """The runs that could own the address, by the strongest claim first."""
    runs = TestRun.objects.using(_alias()).filter(state=TestRun.State.OPEN).order_by()
    lower = address.lower()
    user = get_user_model()
    column = user.get_email_field_name()
    if column in {each.name for each in user._meta.get_fields()}:
        # Exactly, so that an index on the column serves.
        accounts = user._base_manager.using(_alias()).filter(**{f"{column}__in": {address, lower}})
        with seeing_all_rows():
            keys = list(accounts.values_list("pk", flat=True)[:100])
        if keys:
            entries = TestEntity.objects.using(_alias()).standing().for_keys(user, keys)
            yield runs.filter(pk__in=entries.order_by().values("run"))
    named = lower.rpartition("@")[0].partition("+")[0]
    yield runs.annotate(lower_id=Lower("test_id")).filter(lower_id=named)
    yield runs.filter(test_user_email=lower)


def _alias() -> str:
    return router.db_for_write(Message)


def _row(run_id: int, addressed: Addressed, addresses: Sequence[str]) -> Message:
    """The message as it is kept for one run, with that run's addresses alone."""
    message = addressed.message
    text, html = _bodies(message)
    cut = Cutting()
    return Message(
        run_id=run_id,
        sender=cut.line(message.extra_headers.get("From", message.from_email)),
        recipients=Message.line_of(cut.line(address.lower()) for address in addresses),
        subject=cut.line(message.subject),
        text=cut.text(text),
        html=cut.text(html),
        attachments=cut.attachments(message.attachments),
        truncated=cut.happened,
    )


def _bodies(message: Any) -> tuple[Any, Any]:
    """The plain text and the HTML, of which either may be empty."""
    found: dict[str, Any] = {}
    first = "html" if message.content_subtype == "html" else "plain"
    found[f"text/{first}"] = message.body
    for content, mimetype in getattr(message, "alternatives", None) or ():
        found[mimetype] = found.get(mimetype) or content
    return found.get("text/plain", ""), found.get("text/html", "")


@dataclass(slots=True)
class Cutting:
    """Makes anything fit into its column, and remembers whether it had to be cut for that."""

    happened: bool = False

    def text(self, value: Any, length: int = Message.TEXT_LENGTH) -> str:
        text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        self.happened |= len(text) > length
        # No database takes half a character, nor PostgreSQL a NUL.
        return text[:length].encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")

    def line(self, value: Any) -> str:
        return self.text(value, Message.LINE_LENGTH)

    def attachments(self, attachments: Sequence[Any]) -> list[dict[str, Any]]:
        self.happened |= len(attachments) > MOST_ATTACHMENTS
        return [self._attachment(each) for each in attachments[:MOST_ATTACHMENTS]]

    def _attachment(self, attachment: Any) -> dict[str, Any]:
        name: Any
        content: Any
        kind: Any
        if isinstance(attachment, MimeMessage):
            name, kind = attachment.get_filename(), attachment.get_content_type()
            content = attachment.get_payload(decode=True) or b""
        else:
            name, content, kind = (*attachment, None)[:3]
        return {"name": self.line(name or ""), "type": self.line(kind or ""), "size": _size(content)}


def _size(content: Any) -> int:
    """In bytes."""
    if isinstance(content, EmailMessage):
        content = content.message()
    if isinstance(content, MimeMessage):
        content = content.as_bytes()
    return len(content.encode(errors="replace") if isinstance(content, str) else content)


def _tell(what: str) -> None:
    if not _telling.get():
        token = _telling.set(True)
        try:
            logger.warning("%s", what)
        finally:
            _telling.reset(token)


def _tell_error(what: str, error: Exception) -> None:
    if not _telling.get():
        token = _telling.set(True)
        try:
            log_error(logger, what, error)
        finally:
            _telling.reset(token)
