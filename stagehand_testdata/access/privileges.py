"""What no client may set, and what no factory may make for one."""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.db import models

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


def may_set(name: str) -> bool:
    """Whether a client may set `name`: a path into another row (`user__is_staff`) never."""
    return "__" not in name and name not in NEVER_SETTABLE


def refuse_privileged(row: models.Model) -> None:
    """Raise PrivilegedAccount where the row is an account with rights of its own."""
    if isinstance(row, get_user_model()) and (
        getattr(row, "is_staff", False) or getattr(row, "is_superuser", False)
    ):
        raise PrivilegedAccount


def grants_privileges(model: type[models.Model]) -> bool:
    """Whether rows of `model` are rights themselves: groups, permissions and who holds them."""
    if model._meta.app_label == "auth" and model._meta.model_name in {"permission", "group"}:
        return True
    return any(
        field.related_model is not None
        and field.related_model._meta.label_lower in {"auth.permission", "auth.group"}
        for field in model._meta.local_concrete_fields
        if field.is_relation
    )


def refuse_granted(account: models.Model) -> None:
    """Raise PrivilegedAccount where the account holds a group or a permission; asks the database."""
    for field in account._meta.many_to_many:
        if grants_privileges(field.related_model) and getattr(account, field.name).exists():
            raise PrivilegedAccount
