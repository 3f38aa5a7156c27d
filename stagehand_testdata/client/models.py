"""What the server answers, as frozen dataclasses that take no notice of fields they do not know.

Names are the wire's, in Python's spelling; `raw` is the answer as it came. What a row of the host's own holds
stays a mapping under the host's own names.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from types import MappingProxyType
from typing import Any, Self

from .errors import UnexpectedAnswer

Texts = tuple[str, ...]
Counts = Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Model:
    """An answer; `raw` is what came, with whatever this version of the client does not know."""

    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, data: Any) -> Self:
        """Raises UnexpectedAnswer where a field that must be there is missing, or is of another kind."""
        if not isinstance(data, Mapping):
            raise UnexpectedAnswer(f"The server's answer is no {cls.__name__}: it is no JSON object.")
        found: dict[str, Any] = {"raw": MappingProxyType(dict(data))}
        plan: Any = _plan  # the cache's own annotations know no classes
        for name, wire_name, needed, read in plan(cls):
            if wire_name not in data:
                if needed:
                    raise UnexpectedAnswer(
                        f"The server's answer is no {cls.__name__}: it has no {wire_name}."
                    )
                continue
            try:
                found[name] = read(data[wire_name])
            except (TypeError, ValueError, AttributeError) as error:
                raise UnexpectedAnswer(
                    f"The server's answer is no {cls.__name__}: its {wire_name} cannot be read."
                ) from error
        return cls(**found)

    @classmethod
    def each_of(cls, data: Any) -> list[Self]:
        """One for each of an array; raises as `of`."""
        if not isinstance(data, list):
            raise UnexpectedAnswer(f"The server's answer is no list of {cls.__name__}.")
        return [cls.of(each) for each in data]


@functools.cache
def _plan(cls: type[Model]) -> list[tuple[str, str, bool, Callable[[Any], Any]]]:
    """(field, its name on the wire, whether it must be there, how it is read) of each."""
    kinds = typing.get_type_hints(cls)
    return [
        (
            each.name,
            each.metadata.get("wire") or re.sub(r"_(\w)", lambda found: found[1].upper(), each.name),
            each.default is MISSING and each.default_factory is MISSING,
            _reader(kinds[each.name]),
        )
        for each in fields(cls)
        if each.name != "raw"
    ]


def _reader(kind: Any) -> Callable[[Any], Any]:
    names = [kind, *typing.get_args(kind)]
    if dt.datetime in names:
        return lambda value: None if value is None else dt.datetime.fromisoformat(value)
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        if isinstance(inner, type) and issubclass(inner, Model):
            return lambda value: tuple(inner.each_of(value))
        return tuple
    if isinstance(kind, type) and issubclass(kind, Model):
        return kind.of
    if typing.get_origin(kind) is Mapping:
        return lambda value: MappingProxyType(dict(value))
    return lambda value: value


@dataclass(frozen=True, kw_only=True)
class Access(Model):
    """The run, as it was opened or joined."""

    test_id: str
    scope: str
    shadow: bool
    seed: int
    max_age_minutes: int
    expires_at: dt.datetime
    environment: str


@dataclass(frozen=True, kw_only=True)
class Run(Model):
    """The run, as the ledger has it; `entities` counts its rows by state."""

    test_id: str
    scope: str
    state: str
    shadow: bool
    seed: int
    label: str
    build_id: str
    max_age_minutes: int
    opened_at: dt.datetime
    expires_at: dt.datetime
    latest_end: dt.datetime
    closed_at: dt.datetime | None
    expired: bool
    entities: Counts


@dataclass(frozen=True, kw_only=True)
class Builder(Model):
    """A builder of the marketplace; `user_id` is the account that signs in."""

    id: str
    test_id: str
    name: str
    email: str
    expertise: Texts = ()
    hourly_rate: float | None = None
    availability: bool | str = True
    validation_tier: int = 1
    headline: str = ""
    bio: str = ""
    user_id: str = ""
    created_at: dt.datetime | None = None
    expires_at: dt.datetime | None = None
    shadow: bool = False


@dataclass(frozen=True, kw_only=True)
class Client(Model):
    """A client of the marketplace; `user_id` is the account that signs in."""

    id: str
    test_id: str
    name: str
    email: str
    company_name: str = ""
    user_id: str = ""
    created_at: dt.datetime | None = None
    expires_at: dt.datetime | None = None
    shadow: bool = False


@dataclass(frozen=True, kw_only=True)
class SessionType(Model):
    """What a builder offers: `duration` in minutes."""

    id: str
    test_id: str
    builder_id: str
    name: str
    description: str = ""
    duration: int = 60
    price: float | None = None
    currency: str = ""
    calendly_url: str = ""
    created_at: dt.datetime | None = None
    shadow: bool = False


@dataclass(frozen=True, kw_only=True)
class Booking(Model):
    id: str
    test_id: str
    builder_id: str
    client_id: str | None = None
    session_type_id: str | None = None
    status: str = ""
    payment_status: str = ""
    start_time: dt.datetime | None = None
    end_time: dt.datetime | None = None
    amount: float | None = None
    currency: str = ""
    created_at: dt.datetime | None = None


@dataclass(frozen=True, kw_only=True)
class BookingRows(Model):
    """Every row that a booking scenario made or took."""

    builder: tuple[Builder, ...]
    session_type: tuple[SessionType, ...]
    client: tuple[Client, ...]
    booking: tuple[Booking, ...]


@dataclass(frozen=True, kw_only=True)
class BookingScenario(Model):
    """A booking and all that it needs; `id` is the booking's."""

    id: str
    test_id: str
    status: str
    payment_status: str
    start_time: dt.datetime
    end_time: dt.datetime
    amount: float | None
    currency: str
    entities: BookingRows
    shadow: bool = False

    @property
    def builder(self) -> Builder:
        return self.entities.builder[0]

    @property
    def client(self) -> Client:
        return self.entities.client[0]

    @property
    def session_type(self) -> SessionType:
        return self.entities.session_type[0]

    @property
    def booking(self) -> Booking:
        return self.entities.booking[0]


@dataclass(frozen=True, kw_only=True)
class Row(Model):
    """A row of any registered factory; `fields` are the host's own: `row["title"]` is one of them."""

    id: str
    type: str
    test_id: str
    fields: Mapping[str, Any]
    copy_of: str | None = None
    shadow: bool = False

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


@dataclass(frozen=True, kw_only=True)
class Made(Model):
    """Rows of a batch or a scenario by entity type, each as its type shows it."""

    test_id: str
    entities: Mapping[str, Sequence[Mapping[str, Any]]]
    scenario: str = ""
    shadow: bool = False


@dataclass(frozen=True, kw_only=True)
class Entry(Model):
    """A line of the run's ledger."""

    type: str
    id: str
    model: str
    origin: str
    state: str
    reason: str = ""
    blocked_by: Counts = field(default_factory=dict)
    created_at: dt.datetime | None = None
    removed_at: dt.datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Attachment(Model):
    """`size` in bytes."""

    name: str
    type: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Message(Model):
    """An e-mail that was kept instead of being sent, with the links and codes picked out."""

    id: str
    sender: str = field(metadata={"wire": "from"})
    to: Texts
    subject: str
    text: str
    html: str
    links: Texts = ()
    codes: Texts = ()
    attachments: tuple[Attachment, ...] = ()
    truncated: bool = False
    created_at: dt.datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Held(Model):
    """A row that a clean-up had to leave: why, and how many rows of which models hold it."""

    type: str
    id: str
    reason: str
    blocked_by: Counts = field(default_factory=dict)

    def __str__(self) -> str:
        by = ", ".join(f"{count} {model}" for model, count in self.blocked_by.items())
        return f"{self.type} {self.id}: {self.reason}{f' ({by})' if by else ''}"


@dataclass(frozen=True, kw_only=True)
class Receipt(Model):
    """What a clean-up did, by entity type."""

    success: bool
    test_id: str
    state: str
    removed: Counts
    already_gone: Counts
    remaining: int
    quarantined: tuple[Held, ...] = ()
    not_owned: tuple[Mapping[str, Any], ...] = ()
    shadow: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""


@dataclass(frozen=True, kw_only=True)
class Cookie(Model):
    name: str
    value: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Pass(Model):
    """What puts a request of the product itself under the run."""

    test_id: str
    token: str = field(repr=False)
    header: str
    cookie: Cookie
    expires_at: dt.datetime

    @property
    def headers(self) -> dict[str, str]:
        """The pass as headers of a request."""
        return {self.header: self.token}

    def cookie_for(self, url: str) -> dict[str, Any]:
        """The pass as a cookie that `context.add_cookies([…])` of Playwright takes, for that address."""
        return {"name": self.cookie.name, "value": self.cookie.value, "url": url}


@dataclass(frozen=True, kw_only=True)
class Session(Model):
    """A user of the run, signed in: a link that counts once, and Playwright's storage state."""

    test_id: str
    user_id: str
    link: str = field(repr=False)
    link_expires_at: dt.datetime
    storage_state: Mapping[str, Any] = field(repr=False)
    expires_at: dt.datetime
    #: What an outside identity provider gave: its name, its tokens. Empty where the product signs in itself.
    identity: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Field(Model):
    """A field that a client may set."""

    name: str
    type: str
    required: bool
    example: Any = None
    choices: tuple[Any, ...] = ()
    max_length: int | None = None
    references: str = ""


@dataclass(frozen=True, kw_only=True)
class EntityType(Model):
    """What can be made here."""

    name: str
    model: str
    plural: str | None
    fields: tuple[Field, ...]


@dataclass(frozen=True, kw_only=True)
class Key(Model):
    """An access key that was just exchanged for a CI's own token."""

    id: str
    name: str
    expires_at: dt.datetime
    key: str = field(repr=False)
