"""No client sets a right, and no factory makes an account that has one."""

from __future__ import annotations

from typing import Any

import factory
import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser, Group, Permission

from stagehand_testdata.access import privileges
from stagehand_testdata.exceptions import ConfigurationError, PrivilegedAccount
from stagehand_testdata.operations.entities import settable_fields
from stagehand_testdata.registry import EntityType
from tests.conftest import Wire, error_of
from tests.host.factories import UserFactory
from tests.host.models import Author, Voucher
from tests.making import create, owned

User = get_user_model()

NEVER = ["id", "pk", "password", "is_staff", "is_superuser", "groups", "user_permissions"]


@pytest.mark.parametrize("name", sorted(privileges.NEVER_SETTABLE))
def test_no_right_may_be_set(name: str) -> None:
    assert not privileges.may_set(name)


@pytest.mark.parametrize("name", ["author__name", "user__is_staff", "__class__", "a__b__c"])
def test_no_path_into_another_row_may_be_set(name: str) -> None:
    assert not privileges.may_set(name)


@pytest.mark.parametrize("name", ["name", "email", "is_active", "title", "_order"])
def test_an_ordinary_column_may_be_set(name: str) -> None:
    assert privileges.may_set(name)


@pytest.mark.parametrize("name", NEVER)
def test_a_registration_that_lists_a_right_does_not_make_it_settable(name: str) -> None:
    entity_type = EntityType("user", UserFactory, fields=["email", name])
    assert set(settable_fields(entity_type)) == {"email"}


def test_by_default_none_is_settable() -> None:
    assert not set(NEVER) & set(settable_fields(EntityType("user", UserFactory)))


@pytest.mark.parametrize("name", NEVER)
def test_the_api_refuses_a_right_by_its_name(name: str, wire: Wire) -> None:
    response = wire.post("entities/user", {"fields": {name: True}})
    assert error_of(response) == (400, "invalid_body")
    assert not User.objects.exists()


@pytest.mark.parametrize(
    "rights", [{"is_staff": True}, {"is_superuser": True}, {"is_staff": True, "is_superuser": True}]
)
def test_an_account_with_rights_is_refused(rights: dict[str, bool]) -> None:
    with pytest.raises(PrivilegedAccount):
        privileges.refuse_privileged(User(username="a", **rights))


@pytest.mark.parametrize(
    "row",
    [User(username="a"), Voucher(code="a"), Author(name="a"), AnonymousUser()],
    ids=lambda row: type(row).__name__,
)
def test_other_rows_are_not(row: Any) -> None:
    privileges.refuse_privileged(row)


@pytest.mark.parametrize("model", [Group, Permission, User.groups.through, User.user_permissions.through])
def test_rights_themselves_grant_privileges(model: Any) -> None:
    assert privileges.grants_privileges(model)


@pytest.mark.parametrize("model", [User, Voucher, Author])
def test_other_models_do_not(model: Any) -> None:
    assert not privileges.grants_privileges(model)


# --- below the API: whatever the factory says ------------------------------------------------------------


class StaffFactory(UserFactory):
    is_staff = True


class LaterFactory(UserFactory):
    """Made as anybody, raised in its hook."""

    class Meta:
        skip_postgeneration_save = True

    @factory.post_generation
    def raise_it(self, create: bool, extracted: Any, **kwargs: Any) -> None:
        self.is_superuser = True
        self.save()


class BulkFactory(UserFactory):
    class Meta:
        skip_postgeneration_save = True

    @factory.post_generation
    def more(self, create: bool, extracted: Any, **kwargs: Any) -> None:
        User.objects.bulk_create([User(username=f"{self.username} boss", is_superuser=True)])


class LaterStillFactory(UserFactory):
    """Its entry is there by the time it becomes one: a change comes before."""

    class Meta:
        skip_postgeneration_save = True

    @factory.post_generation
    def more(self, create: bool, extracted: Any, **kwargs: Any) -> None:
        for name, value in (("first_name", "Grace"), ("is_staff", True)):
            setattr(self, name, value)
            self.save()


class SuperuserFactory(UserFactory):
    @classmethod
    def _create(cls, model_class: Any, *args: Any, **kwargs: Any) -> Any:
        return model_class.objects.create_superuser(**kwargs)


class OnTheWayFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = Voucher

    code = factory.Sequence(str)
    note = factory.LazyFunction(lambda: StaffFactory().username)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "factory_class",
    [StaffFactory, LaterFactory, LaterStillFactory, BulkFactory, SuperuserFactory, OnTheWayFactory],
)
def test_a_factory_that_makes_one_is_refused_and_leaves_nothing(factory_class: Any) -> None:
    with pytest.raises(PrivilegedAccount):
        create(factory_class)
    assert not User.objects.exists()
    assert not Voucher.objects.exists()
    assert owned() == []


def test_over_the_wire_it_is_a_fault_of_the_hosts(wire: Wire) -> None:
    status, code = error_of(wire.post("entities/staff", {}))
    assert (status // 100, code) == (5, "privileged_account")
    assert not User.objects.exists()


class GroupFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = Group

    name = factory.Sequence(str)


@pytest.mark.django_db
def test_a_factory_of_rights_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="privilege"):
        create(GroupFactory)
    assert not Group.objects.exists()
