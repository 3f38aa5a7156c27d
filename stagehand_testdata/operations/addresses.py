"""Which e-mail address may a test row have?

A test address is one that nobody can own (RFC 2606, RFC 6761), that no account has, and that is never handed
to two rows of a run. A client that asks for anything else is refused, never linked to what is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import models
from django.db.models import Case, CharField, Exists, OuterRef, Q, Subquery, Value, When
from django.db.models.fields.json import KT
from django.db.models.functions import Concat, Lower

from ..access.privileges import is_account
from ..databases.base import JoinedText
from ..exceptions import ConfigurationError, Conflict, InvalidInput
from ..models import TestEntity, TestRun, all_entries_of_outer_row, entries_of_outer_row
from ..reserved import is_reserved, reserved_domains

DEFAULT_DOMAIN = "example.com"
_REAL, _OF_ANOTHER_RUN = "!", "~"


def require_reserved(address: str, field: str = "email") -> str:
    """The address in lower case; raises InvalidInput where it is none, or somebody could own it.

    One that is not in ASCII may be another's to whoever folds case (a long s is an s), so it is none.
    """
    try:
        validate_email(address)
        if not (address.isascii() and address.isprintable()):
            raise ValidationError("Letters, digits and signs of ASCII only.")
    except ValidationError as error:
        raise InvalidInput(f"'{field}' is not an e-mail address.", details={field: error.messages}) from error
    if not is_reserved(address):
        allowed = ", ".join(f"*{each}" if each.startswith(".") else each for each in reserved_domains())
        message = f"'{field}' must be an address that nobody can own, in one of: {allowed}."
        raise InvalidInput(message, details={field: [message]})
    return address.lower()


def named_in(data: Any) -> Iterator[str]:
    """Every text in the body that could be an address."""
    match data:
        case str() if "@" in data:
            yield data.lower()
        case Mapping():
            for value in data.values():
                yield from named_in(value)
        case list() | tuple():
            for value in data:
                yield from named_in(value)


def is_address(column: models.Field[Any, Any]) -> bool:
    """Whether the column holds an address that somebody may be found by."""
    if isinstance(column, models.EmailField):
        return True
    model: Any = column.model
    return is_account(model) and column.name == model.get_email_field_name()


@cache
def identifying_columns() -> tuple[models.Field[Any, Any], ...]:
    """Where an account's address may stand besides the users' own table.

    Those of other accounts, and the unique ones of what points at an account, as django-allauth keeps them.
    An order's address identifies nobody, and its table may be long.
    """
    found = []
    for model in apps.get_models():
        columns: list[Any] = list(model._meta.local_concrete_fields)
        if issubclass(model, get_user_model()) or model._meta.proxy or not model._meta.managed:
            continue
        points = any(
            isinstance(each.related_model, type) and is_account(each.related_model)
            for each in columns
            if each.is_relation
        )
        together = {name for group in model._meta.unique_together for name in group}
        together |= {name for one in model._meta.constraints for name in getattr(one, "fields", ())}
        for each in columns:
            unique = each.unique or each.name in together
            if is_address(each) and (is_account(model) or (points and unique)):
                found.append(each)
    return tuple(found)


class AddressBook:
    """The addresses that accounts hold already, as far as one creating call could meet them.

    They come with the query that locks the run (`annotation`), so that asking costs no query of its own.
    """

    def __init__(self, test_id: str, named: Iterable[str]) -> None:
        self.base = test_id.lower()
        self._named = sorted(set(named))
        self._numbers: dict[str, int] = {}
        self._own: set[str] = set()
        self._others: set[str] = set()
        self._real: set[str] = set()

    def annotation(self) -> dict[str, Any]:
        """For `runs.hold`: the accounts' addresses that this call may ask for or fall back to."""
        user = get_user_model()
        field = user.get_email_field_name()
        if field not in {each.name for each in user._meta.get_fields()}:
            return {}
        own = entries_of_outer_row(user, OuterRef(OuterRef("pk")))
        marked = Concat(
            "stagehand_email",
            Case(
                When(Exists(own), then=Value("")),
                When(Exists(all_entries_of_outer_row(user)), then=Value(_OF_ANOTHER_RUN)),
                default=Value(_REAL),
            ),
            output_field=CharField(),
        )
        held = (
            user._base_manager.order_by()
            .annotate(stagehand_email=Lower(field), stagehand_group=Value(1))
            .filter(self._wanted())
            .values("stagehand_group")
            .annotate(joined=JoinedText(marked))
            .values("joined")
        )
        return {"held_addresses": Subquery(held)}

    def _wanted(self) -> Q:
        wanted = Q(stagehand_email__startswith=self.base)
        return wanted | Q(stagehand_email__in=self._named) if self._named else wanted

    def read(self, joined: str | None) -> None:
        """Take in what `annotation` brought."""
        for held in filter(None, (joined or "").split(",")):
            if held.endswith(_REAL):
                self._real.add(held.removesuffix(_REAL))
            elif held.endswith(_OF_ANOTHER_RUN):
                self._others.add(held.removesuffix(_OF_ANOTHER_RUN))
            else:
                self._own.add(held)

    def read_shadows(self, run: TestRun) -> None:
        """Take in the addresses of the run's shadow accounts: those in the ledger, and no others."""
        user = get_user_model()
        entries = TestEntity.objects.using(run._state.db).standing().order_by()
        held = (
            entries.filter(run=run, model=TestEntity.SHADOW_PREFIX + user._meta.label_lower)
            .annotate(stagehand_email=Lower(KT(f"shadow_row__values__{user.get_email_field_name()}")))
            .filter(self._wanted())
        )
        self._own.update(held.values_list("stagehand_email", flat=True))

    def claim(self, asked: str | None, suffix: str = "", *, field: str = "email") -> str:
        """An address for one more account of the run: the one asked for, or the run's default.

        The default is `<testid><suffix>@example.com`, then `…+2@…`, `…+3@…`: also where another run has the
        one before, so that no refusal tells which test IDs others use. Raises Conflict, InvalidInput.
        """
        local = f"{self.base}{suffix}"
        default = f"{local}@{DEFAULT_DOMAIN}"
        address = require_reserved(asked, field) if asked else default
        if address == default:
            # Only what is taken grows, so the numbers before the last one given are taken still.
            number = self._numbers.get(local, 1)
            while address in self._own or address in self._others:
                number += 1
                address = f"{local}+{number}@{DEFAULT_DOMAIN}"
            self._numbers[local] = number
        if address in self._own:
            raise Conflict(f"This run has an account with the address {address} already.")
        self._refuse_held(address)
        self._own.add(address)
        return address

    def refuse_foreign(self, address: str, *, field: str) -> None:
        """Raise as `claim` where the address is not to be had; without taking it."""
        self._refuse_held(require_reserved(address, field))

    def _refuse_held(self, address: str) -> None:
        if address in self._real | self._others:
            raise Conflict(f"The address {address} belongs to an account that is not of this run.")

    def refuse_real(self, made: Sequence[models.Model]) -> None:
        """Raise where one of these new rows has got an address that it may not have, by whatever way.

        Their entries must be written. Raises Conflict, InvalidInput, ConfigurationError.
        """
        user: Any = get_user_model()
        field = user.get_email_field_name()
        if field not in {each.name for each in user._meta.get_fields()}:
            return
        users, others = user._meta.get_field(field), identifying_columns()
        held = {
            str(getattr(row, column.attname, None) or "").lower()
            for row in made
            for column in (users, *others)
            if isinstance(row, column.model)
        } - {""}
        unclaimed, named = held - self._own, held & set(self._named)
        for address in sorted(named & unclaimed):
            self.refuse_foreign(address, field=field)
        for address in sorted(unclaimed):
            if "@" in address and not is_reserved(address):
                domain = address.rpartition("@")[2]
                raise ConfigurationError(
                    f"The factory gives an account an address in {domain}, where it may be somebody's:"
                    " give it one in example.com, or name a domain of your own in EMAIL_DOMAINS."
                )
        # What was claimed is no user's; what a client chose may be a real person's by another table too.
        looks = [(users, unclaimed), *((column, named | unclaimed) for column in others)]
        for column, wanted in looks:
            found = _real_rows(column).annotate(stagehand_email=Lower(column.name))
            if wanted and found.filter(stagehand_email__in=sorted(wanted)).exists():
                raise Conflict("A new account would have the address of one that is not a test's.")


def _real_rows(column: models.Field[Any, Any]) -> models.QuerySet[Any]:
    model = column.model
    return model._base_manager.order_by().filter(~Exists(all_entries_of_outer_row(model)))
