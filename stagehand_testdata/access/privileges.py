"""What no client may set, and what no factory may make for one.

# Note [Three nets]
A client sets what its entity type allows, by the names that a registration lists or that a model's columns
have. Of those, what *is* a right (`is_right`) is never among them, whatever a registration says; what only
*sounds* like one (`sounds_like_right`: a profile's `role`) is left out unless the registration lists it. And
whatever a factory does with what it was given, no row that the call has made may be a right or an account
that holds one, and no statement of the call may have given one to any account, the run's or not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import connections, models
from django.db.models import Q, QuerySet

from ..conf import settings
from ..exceptions import PrivilegedAccount

#: Refused by name on every model, whatever a registration allows.
NEVER_SETTABLE = frozenset(
    {
        "pk",
        "password",
        "is_staff",
        "is_superuser",
        "is_admin",
        "groups",
        "user_permissions",
        "permissions",
        "is_test",
        "test_run",
        "test_run_id",
        "testdata_run",
    }
)
#: The flags that make an account a privileged one, where it has them.
_FLAGS = ("is_staff", "is_superuser", "is_admin")
_RIGHTS = frozenset({"auth.permission", "auth.group"})
_PASSWORD = re.compile(r"passw|passphrase|(^|_)pwd(_|$)")
_SOUNDS = re.compile(
    r"(^|_)(roles?|admin|staff|superuser|sudo|root|moderator|permissions?|privileges?|scopes?"
    r"|secret|token|otp|api_?key)(_|$)"
)
_HARMLESS = re.compile(r"\s*(?:/\*.*?\*/\s*)*(?:SELECT|INSERT|SAVEPOINT|RELEASE|ROLLBACK)\b", re.IGNORECASE)


def may_set(name: str) -> bool:
    """Whether a client may set `name`: a path into another row (`user__is_staff`) never, nor a password."""
    plain = _plain(name)
    return "__" not in plain and plain not in NEVER_SETTABLE and not _PASSWORD.search(plain)


def is_right(field: models.Field[Any, Any]) -> bool:
    """Whether the column is a right, a password or the test flag, whatever the model calls it."""
    names = (field.name, field.attname, field.column or field.name)
    return not all(may_set(each) for each in names) or _label(field) in _named() or _points_at_rights(field)


def sounds_like_right(field: models.Field[Any, Any]) -> bool:
    """Whether the column of an account, or of what is one-to-one with an account, may well be a right."""
    return bool(_SOUNDS.search(_plain(field.name))) and _is_of_an_account(field.model)


def refuse_privileged(row: models.Model) -> None:
    """Raise PrivilegedAccount where the row is a right, or an account with rights of its own."""
    if grants_privileges(type(row)):
        raise PrivilegedAccount
    if is_account(type(row)) and any(_holds(row, flag) for flag in _FLAGS):
        raise PrivilegedAccount
    named = _named()
    for field in row._meta.concrete_fields if named else ():
        if (label := _label(field)) in named and _counts(getattr(row, field.attname), named[label]):
            raise PrivilegedAccount


def refuse_granted(account: models.Model) -> None:
    """Raise PrivilegedAccount where the account holds a group or a permission; asks the database."""
    for field in account._meta.many_to_many:
        if grants_privileges(field.related_model) and getattr(account, field.name).exists():
            raise PrivilegedAccount


def is_account(model: type[models.Model]) -> bool:
    """Whether somebody signs in as a row of the model."""
    return issubclass(model, get_user_model() | AbstractBaseUser)


@lru_cache(maxsize=1024)
def grants_privileges(model: type[models.Model]) -> bool:
    """Whether rows of `model` are rights themselves: groups, permissions, roles and who holds them."""
    model = model._meta.concrete_model or model
    if model._meta.label_lower in _RIGHTS:
        return True
    # A role is what holds permissions; an account holds them too, and is none.
    held = [] if is_account(model) else model._meta.local_many_to_many
    return any(_points_at(field, _RIGHTS) for field in (*model._meta.local_concrete_fields, *held))


@contextmanager
def refusing_promotions(alias: str) -> Iterator[None]:
    """Raise PrivilegedAccount from a statement within the block that gives a right to an account.

    Whosever account it is: a factory may find a real one, and not every database has its guards up. An
    account's groups are rows of their own, which `refuse_privileged` sees. An INSERT costs nothing, nor does
    what does not name an account's table.
    """
    model = get_user_model()
    tables = {each._meta.db_table for each in (model, *model._meta.get_parent_list())}
    privileged = _privileged(model)

    def watch(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        text = sql if isinstance(sql, str) else repr(sql)
        if _HARMLESS.match(text) or not any(table in text for table in tables):
            return execute(sql, params, many, context)
        rows: QuerySet[Any, Any] = (
            QuerySet(model, using=alias).filter(privileged).order_by().values_list("pk", flat=True)
        )
        before = set(rows)
        done = execute(sql, params, many, context)
        if not set(rows.all()) <= before:
            raise PrivilegedAccount("The factory gave rights to an account; nothing was changed.")
        return done

    with connections[alias].execute_wrapper(watch):
        yield


def _privileged(model: type[models.Model]) -> Q:
    """The accounts that hold a right in a column of their own."""
    found, named = Q(pk__in=[]), _named()
    for field in model._meta.concrete_fields:
        if field.name in _FLAGS:
            found |= Q(**{field.name: True})
        elif (label := _label(field)) in named:
            values = named[label]
            found |= Q(**{f"{field.name}__in": values}) if values else ~Q(**{f"{field.name}__in": _NOTHING})
    return found


#: What counts as no right where PRIVILEGE_FIELDS lists no values.
_NOTHING: tuple[Any, ...] = (None, False, 0, "")


def _holds(account: models.Model, flag: str) -> bool:
    """Whether it has that flag, as a column or as a property; a method says nothing by being there."""
    value = getattr(account, flag, False)
    return bool(value) and not callable(value)


def _counts(value: Any, values: tuple[Any, ...]) -> bool:
    return value in values if values else bool(value)


def _named() -> dict[str, tuple[Any, ...]]:
    """PRIVILEGE_FIELDS: by the column's label in lower case, the values that are rights; none is any."""
    return {str(label).lower(): tuple(values) for label, values in settings.PRIVILEGE_FIELDS.items()}


def _label(field: models.Field[Any, Any]) -> str:
    return f"{field.model._meta.label}.{field.name}".lower()


def _plain(name: str) -> str:
    """The name without what only makes it look another one: case, and Unicode's other ways to write it."""
    return unicodedata.normalize("NFKC", name).casefold()


def _points_at_rights(field: models.Field[Any, Any]) -> bool:
    target = field.related_model if field.is_relation else None
    return isinstance(target, type) and grants_privileges(target)


def _points_at(field: Any, labels: frozenset[str]) -> bool:
    target: Any = field.related_model if field.is_relation else None
    if not isinstance(target, type):
        return False
    meta: Any = target._meta  # type: ignore[attr-defined]
    return meta.concrete_model._meta.label_lower in labels


@lru_cache(maxsize=1024)
def _is_of_an_account(model: type[models.Model]) -> bool:
    return is_account(model) or any(
        field.one_to_one and isinstance(field.related_model, type) and is_account(field.related_model)
        for field in model._meta.concrete_fields
    )
