"""Access keys: made, read, held against what is stored, changed for others, revoked.

# Note [What a key is]
`tdk_<id>_<secret><checksum>`. The prefix lets a scanner find a key that has leaked, and the checksum, CRC-32
of all before it, lets anybody tell offline that a text is none, so that no query is spent on it. The id is
public: logs and ledgers name the key by it. The secret is 190 bits of the system's generator, so a fast hash
does for it; the hash is keyed with SECRET_KEY, so that whoever can write to the table alone makes no key, and
it covers the id, so that no key has another's secret. A secret is shown once, by whoever makes it.

Every refusal is the same, and takes the same query and as many hashes, whatever was wrong.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
import secrets
import string
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any, NamedTuple

from django.conf import settings as django_settings
from django.db import OperationalError, connections, router, transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.crypto import constant_time_compare, salted_hmac

from ..databases import database
from ..exceptions import InvalidInput, NotAuthenticated, NotFound
from ..models import AccessKey, TestRun
from ..registry import get_registry
from . import quotas, trail
from .callers import Caller, known_operations

PREFIX = "tdk"
_SECRET_LENGTH = 32
_CHECKSUM_LENGTH = 6
_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
#: No id differs from another in case alone: a database may fold it.
_ID_DIGITS = string.digits + string.ascii_lowercase
_TOKEN = re.compile(
    rf"({PREFIX}_([0-9a-z]{{{AccessKey.ID_LENGTH}}})_([0-9A-Za-z]{{{_SECRET_LENGTH}}}))"
    rf"([0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})"
)
_SALT = "stagehand_testdata.access_key"
#: What an unknown key is held against; no secret has this digest.
_NO_DIGEST = "0" * AccessKey.DIGEST_LENGTH
#: A key is renewed by another one, not by being made for ever.
_LONGEST = dt.timedelta(days=3650)
_LARGEST_LIMIT = 2**31 - 1
#: Last use is written no more often than this.
_USE_NOTED = dt.timedelta(minutes=1)


class Token(NamedTuple):
    """A key as its holder has it."""

    public_id: str
    secret: str

    def __str__(self) -> str:
        body = f"{PREFIX}_{self.public_id}_{self.secret}"
        return body + _checksum(body)


class Made(NamedTuple):
    """A key and its text, which nobody can be told again."""

    key: AccessKey
    text: str


def parse(text: str) -> Token | None:
    """The key that the text is; None where it cannot be one, which takes no query to tell."""
    found = _TOKEN.fullmatch(text)
    if found is None or _checksum(found[1]) != found[4]:
        return None
    return Token(found[2], found[3])


def create(name: str, lifetime: dt.timedelta, *, owner: str = "", **given: Any) -> Made:
    """A new key that counts for `lifetime` from now by the database's clock.

    `owner` is whose the runs are where that is not the key alone; for the rest see `fields`, which raises
    InvalidInput.
    """
    token = Token(_random(_ID_DIGITS, AccessKey.ID_LENGTH), _random(_DIGITS, _SECRET_LENGTH))
    key = AccessKey(
        public_id=token.public_id,
        owner=owner or f"key:{token.public_id}",
        secret_digest=_digest(token),
        created_at=Now(),
        **fields(name, lifetime, **given),
    )
    with transaction.atomic(using=_alias()):
        key.save(using=_alias(), force_insert=True)
        quotas.prepare(key.owner)
        trail.record("key.create", subject=key.public_id)
    key.refresh_from_db()
    return Made(key, str(token))


def fields(
    name: str,
    lifetime: dt.timedelta,
    *,
    holder: str = "",
    operations: Iterable[str] = (),
    entity_types: Iterable[str] = (),
    scopes: Iterable[str] = (),
    networks: Iterable[str] = (),
    **limits: int | None,
) -> dict[str, Any]:
    """What a key is to hold of what somebody asked for it; raises InvalidInput with the field at fault.

    `limits` are `max_minutes`, `max_live_rows`, `max_open_runs`; None is none.
    """
    known = {
        "operations": (operations, known_operations() | {"cleanup"}),
        "entity_types": (entity_types, {each.name for each in get_registry().entity_types}),
        "scopes": (scopes, set(TestRun.Scope.values)),
    }
    return {
        "name": _line("name", name, AccessKey.NAME_LENGTH),
        "holder": _line("holder", holder, AccessKey.HOLDER_LENGTH) if holder else "",
        "expires_at": Now() + _positive(lifetime),
        **{field: _named(field, *names) for field, names in known.items()},
        "networks": [_network(each) for each in networks],
        **{field: _limit(field, number) for field, number in limits.items()},
    }


def find(public_id: str) -> AccessKey:
    """The key of that id; raises NotFound."""
    key = AccessKey.objects.using(_alias()).filter(public_id=public_id).first()
    if key is None:
        raise NotFound(
            f"No access key has the id {public_id!r}; 'manage.py testdata keys list' shows them all."
        )
    return key


def rotate(key: AccessKey, *, grace: dt.timedelta = dt.timedelta(0)) -> Made:
    """The same key with another secret; the one before counts for `grace` still. Its runs stay its own.

    Raises InvalidInput where the key counts no more: a new secret would not either.
    """
    token = Token(key.public_id, _random(_DIGITS, _SECRET_LENGTH))
    standing = AccessKey.objects.using(_alias()).filter(pk=key.pk, revoked_at=None, expires_at__gt=Now())
    with transaction.atomic(using=_alias()):
        changed = standing.update(
            former_digest=F("secret_digest") if grace else "",
            former_until=Now() + grace if grace else None,
            secret_digest=_digest(token),
        )
        if changed:
            trail.record("key.rotate", subject=key.public_id)
    if not changed:
        raise InvalidInput("This access key is revoked or expired; make another one.")
    key.refresh_from_db()
    return Made(key, str(token))


def revoke(key: AccessKey) -> None:
    """Let the key count no more, from the next request on. Twice is harmless."""
    with transaction.atomic(using=_alias()):
        if AccessKey.objects.using(_alias()).filter(pk=key.pk, revoked_at=None).update(revoked_at=Now()):
            trail.record("key.revoke", subject=key.public_id)


def verify(text: str, address: str) -> Caller:
    """The caller who shows this key from that network address; raises NotAuthenticated, always the same."""
    token = parse(text)
    if token is None:
        raise NotAuthenticated
    key = _stored(token.public_id)
    if not _counts(key, token, address) or key is None:
        raise NotAuthenticated
    _note_use(key)
    return _caller(key, address)


class _Stored(NamedTuple):
    """What the table has of a key, and the database's clock."""

    pk: int
    public_id: str
    owner: str
    name: str
    secret_digest: str
    former_digest: str
    former_until: dt.datetime | None
    expires_at: dt.datetime
    revoked_at: dt.datetime | None
    last_used_at: dt.datetime | None
    operations: list[str]
    entity_types: list[str]
    scopes: list[str]
    networks: list[str]
    max_minutes: int | None
    max_live_rows: int | None
    max_open_runs: int | None
    now: dt.datetime


class _Statement(NamedTuple):
    sql: str
    #: By the column's place: what makes a Python value of the driver's, and for which expression.
    converters: dict[int, tuple[Sequence[Callable[..., Any]], Any]]


def _stored(public_id: str) -> _Stored | None:
    # Every request asks this. To have Django write the statement costs three times as much as to run it.
    connection = connections[_alias()]
    statement = _statement(connection.alias, connection.vendor)
    with connection.cursor() as cursor:
        cursor.execute(statement.sql, [public_id])
        row = cursor.fetchone()
    if row is None:
        return None
    values = list(row)
    for place, (converters, expression) in statement.converters.items():
        for convert in converters:
            values[place] = convert(values[place], expression, connection)
    return _Stored(*values)


@cache
def _statement(alias: str, vendor: str) -> _Statement:
    found = AccessKey.objects.using(alias).order_by().filter(public_id="").annotate(now=Now())
    compiler = found.values_list(*_Stored._fields).query.get_compiler(alias)
    sql, _ = compiler.as_sql()
    return _Statement(sql, compiler.get_converters([each for each, *_ in compiler.select]))


def _counts(key: Any, token: Token, address: str) -> bool:
    """See Note [What a key is]: nothing is left out once it is known that the key does not count."""
    known = key is not None
    digests = list(_digests(token))
    current = _is_among(digests, key.secret_digest if known else _NO_DIGEST)
    former = _is_among(digests, key.former_digest if known and key.former_digest else _NO_DIGEST)
    if not known:
        return False
    former = former and key.former_until is not None and key.now < key.former_until
    in_time = key.revoked_at is None and key.now < key.expires_at
    return (current or former) and in_time and _comes_from(key.networks, address)


def _is_among(digests: Sequence[str], stored: str) -> bool:
    found = [constant_time_compare(each, stored) for each in digests]
    return any(found)


def _comes_from(networks: Sequence[str], address: str) -> bool:
    if not networks:
        return True
    try:
        place: Any = ipaddress.ip_address(address)
        place = getattr(place, "ipv4_mapped", None) or place
        return any(place in _parsed(each) for each in networks)
    except ValueError:
        return False


# To read a network's text costs as much as all else that tells whether an address is within.
@lru_cache(maxsize=1024)
def _parsed(network: str) -> Any:
    return ipaddress.ip_network(network)


def _note_use(key: Any) -> None:
    """Once a minute, so that a request costs no write, and where nobody else has the key's row just now."""
    if key.last_used_at is not None and key.now - key.last_used_at < _USE_NOTED:
        return
    seldom = Q(last_used_at=None) | Q(last_used_at__lte=Now() - _USE_NOTED)
    rows = AccessKey.objects.using(_alias()).filter(seldom, pk=key.pk)
    # A database that is busy with something else (SQLite has one writer) is no reason to refuse a key.
    with suppress(OperationalError), transaction.atomic(using=_alias()):
        if database(_alias()).lock_free(rows):
            rows.update(last_used_at=Now())


def _caller(key: _Stored, address: str) -> Caller:
    return Caller(
        owner=key.owner,
        key_id=key.public_id,
        name=key.name,
        address=address,
        operations=frozenset(key.operations),
        entity_types=frozenset(key.entity_types),
        scopes=frozenset(key.scopes),
        max_minutes=key.max_minutes,
        max_live_rows=key.max_live_rows,
        max_open_runs=key.max_open_runs,
    )


def _digests(token: Token) -> Iterator[str]:
    """Under SECRET_KEY, and under those before it that still count."""
    for key in (django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS):
        yield _digest(token, key)


def _digest(token: Token, secret_key: str | bytes | None = None) -> str:
    value = f"{token.public_id}:{token.secret}"
    return salted_hmac(_SALT, value, secret=secret_key, algorithm="sha256").hexdigest()


def _line(field: str, text: str, length: int) -> str:
    text = text.strip()
    if not text or len(text) > length or not text.isprintable():
        raise _invalid(field, f"1 to {length} printable characters.")
    return text


def _positive(lifetime: dt.timedelta) -> dt.timedelta:
    if not dt.timedelta(0) < lifetime <= _LONGEST:
        raise _invalid("expires", f"More than nothing, and at most {_LONGEST.days} days.")
    return lifetime


def _named(field: str, names: Iterable[str], known: AbstractSet[str]) -> list[str]:
    found = list(dict.fromkeys(names))
    for name in found:
        if name not in known:
            raise _invalid(field, f"{name!r} is none of {', '.join(sorted(known))}.")
    return found


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise _invalid("networks", f"{text!r} is no network: {error}.") from error


def _limit(field: str, number: int | None) -> int | None:
    if number is not None and not 0 < number <= _LARGEST_LIMIT:
        raise _invalid(field, f"A number from 1 to {_LARGEST_LIMIT}.")
    return number


def _invalid(field: str, text: str) -> InvalidInput:
    return InvalidInput(f"{field}: {text}", details={field: [text]})


def _checksum(text: str) -> str:
    number = zlib.crc32(text.encode())
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits


def _random(digits: str, length: int) -> str:
    return "".join(secrets.choice(digits) for _ in range(length))


def _alias() -> str:
    return router.db_for_write(AccessKey)
