"""No client sets a right, and no factory makes an account that has one."""

from __future__ import annotations

from typing import Any

import factory
import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.db import connection, models
from django.test.utils import isolate_apps

from stagehand_testdata.access import privileges
from stagehand_testdata.exceptions import ConfigurationError, Conflict, PrivilegedAccount
from stagehand_testdata.operations.entities import settable_fields
from stagehand_testdata.registry import EntityType
from tests.conftest import Wire, error_of
from tests.host.factories import MemberFactory, ProfileFactory, UserFactory
from tests.host.models import Author, Member, Profile, ProvenAddress, Role, Voucher
from tests.making import changed, create, owned, perform, registered

User = get_user_model()

NEVER = ["id", "pk", "password", "is_staff", "is_superuser", "groups", "user_permissions"]


@pytest.mark.parametrize("name", sorted(privileges.NEVER_SETTABLE))
def test_no_right_may_be_set(name: str) -> None:
    assert not privileges.may_set(name)


@pytest.mark.parametrize(
    "name",
    [
        "IS_STAFF",
        "Is_Superuser",
        "\uff49\uff53_staff",
        "is\uff3fstaff",
        "PassWord",
        "raw_password",
        "passwd",
        "passphrase",
        "pwd",
        "user\uff3f\uff3fis_active",
        "i\u017f_staff",
    ],
)
def test_no_other_way_to_write_one_helps(name: str) -> None:
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
    [User(username="a"), Voucher(code="a"), Author(name="a")],
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


@isolate_apps("tests.host")
def test_neither_a_proxy_nor_a_child_nor_a_role_hides_a_right() -> None:
    class Crew(Group):
        class Meta:
            app_label = "host"
            proxy = True

    class Squad(Group):
        class Meta:
            app_label = "host"

    class InCrew(models.Model):
        crew = models.ForeignKey(Crew, on_delete=models.CASCADE)

        class Meta:
            app_label = "host"

    for model in (Crew, Squad, InCrew, Role, Role.permissions.through):
        assert privileges.grants_privileges(model), model


def test_a_right_under_another_name_is_known_by_its_column() -> None:
    entity_type = EntityType(
        "member", MemberFactory, fields=["login", "chief", "is_admin", "duty", "duty_id"]
    )
    assert set(settable_fields(entity_type)) == {"login"}


def test_what_sounds_like_a_right_is_settable_only_where_the_host_lists_it() -> None:
    assert "role" not in settable_fields(EntityType("member", MemberFactory))
    assert set(settable_fields(EntityType("profile", ProfileFactory))) == {"user", "bio"}
    assert set(settable_fields(EntityType("profile", ProfileFactory, fields=["role"]))) == {"role"}


def test_a_column_that_the_host_names_is_a_right_and_not_settable() -> None:
    assert "rank" in settable_fields(EntityType("member", MemberFactory))
    with changed(PRIVILEGE_FIELDS={"host.Member.rank": ["general"]}):
        assert "rank" not in settable_fields(EntityType("member", MemberFactory))
        assert not settable_fields(EntityType("member", MemberFactory, fields=["rank"]))


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


# --- behind the row's back -------------------------------------------------------------------------------


def in_the_hook(factory_class: Any, act: Any) -> Any:
    """That factory, which does this with each row in a hook."""
    hook = factory.post_generation(lambda row, create, extracted, **kwargs: act(row))
    options = type("Meta", (), {"skip_postgeneration_save": True})
    return type("HookFactory", (factory_class,), {"Meta": options, "hook": hook})


def update(user: Any) -> None:
    User.objects.filter(pk=user.pk).update(is_staff=True)


def raw_sql(user: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE auth_user SET is_superuser = %s WHERE id = %s", [True, user.pk])


def another_instance(user: Any) -> None:
    same = User.objects.get(pk=user.pk)
    same.is_staff = True
    same.save()


def group(user: Any) -> None:
    user.groups.add(Group.objects.create(name="editors"))


def permission(user: Any) -> None:
    user.user_permissions.add(Permission.objects.all()[0])


def group_on_the_way(user: Any) -> None:
    Group.objects.create(name="editors")


def role_on_the_way(user: Any) -> None:
    Role.objects.create(name="editor")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "act", [update, raw_sql, another_instance, group, permission, group_on_the_way, role_on_the_way]
)
def test_a_factory_that_gives_a_right_so_is_refused(act: Any) -> None:
    with pytest.raises(PrivilegedAccount):
        create(in_the_hook(UserFactory, act))
    assert not User.objects.exists()
    assert not Group.objects.exists()
    assert not Role.objects.exists()
    assert owned() == []


@pytest.mark.django_db
@pytest.mark.parametrize("whose", ["a real account", "one of the run's"])
@pytest.mark.parametrize("right", ["is_staff", "is_superuser"])
def test_no_factory_raises_an_account_that_was_there_before(whose: str, right: str) -> None:
    """Without guards; with them the fence refuses to touch a real one at all."""
    if whose == "a real account":
        before = User.objects.create_user("real", "real@shop.example", "secret")
    else:
        before = create(UserFactory)
    rows = User.objects.filter(pk=before.pk)
    with pytest.raises(PrivilegedAccount):
        create(in_the_hook(UserFactory, lambda user: rows.update(**{right: True})))
    assert not rows.filter(**{right: True}).exists()
    assert User.objects.count() == 1


@pytest.mark.django_db
def test_a_change_that_gives_no_right_is_let_through() -> None:
    User.objects.create_superuser("root", "root@shop.example", "secret")
    rename = in_the_hook(UserFactory, lambda user: User.objects.filter(pk=user.pk).update(first_name="G"))
    assert User.objects.get(pk=create(rename).pk).first_name == "G"


@pytest.mark.django_db
def test_an_account_of_another_model_with_a_right_is_refused() -> None:
    with pytest.raises(PrivilegedAccount):
        create(type("AdminMemberFactory", (MemberFactory,), {"is_admin": True}))
    assert not Member.objects.exists()


@pytest.mark.django_db
def test_a_row_with_a_right_that_the_host_names_is_refused() -> None:
    with changed(PRIVILEGE_FIELDS={"host.Member.rank": ["general"], "host.Profile.bio": []}):
        perform(lambda call: call.create("member", rank="sergeant"))
        perform(lambda call: call.create("profile"))
        for name, fields in (("member", {"rank": "general"}), ("profile", {"bio": "anything"})):
            with pytest.raises(PrivilegedAccount):
                perform(lambda call, name=name, fields=fields: call.create(name, **fields))
    assert (Member.objects.count(), Profile.objects.count()) == (1, 1)


class ParameterFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = "auth.User"

    class Params:
        boss = factory.Trait(is_staff=True)
        box = ""

    username = factory.Sequence(lambda n: f"user{n}")
    email = factory.LazyAttribute(lambda user: user.box or f"{user.username}@example.com")


def test_a_trait_that_makes_one_is_refused_though_the_registration_lists_it(wire: Wire) -> None:
    with registered(user={"factory": ParameterFactory, "fields": ["boss", "username"]}):
        assert wire.post("entities/user", {"fields": {"boss": False}}).status_code == 201
        assert error_of(wire.post("entities/user", {"fields": {"boss": True}}))[1] == "privileged_account"
    assert not User.objects.filter(is_staff=True).exists()


# --- addresses, and names to sign in by ------------------------------------------------------------------

TAKEN = "sam@example.com"

#: Each is the real account's to somebody, or nobody's to give.
HOSTILE = [
    TAKEN, "SAM@EXAMPLE.COM", "Sam@example.com", " sam@example.com", "sam@example.com ",
    "\u017fam@example.com",
    "sam@exam\u017fle.com", "sam@example\u3002com", "\uff53am@example.com", "\u212aim@example.com",
    "sam@b\u00fccher.test", "sam@gmail.com", "sam@example.com.evil.org", "sam@-", '"\x01"@example.com',
    "sam@[127.0.0.1]", "a@b@example.com", "sam\u200b@example.com",
]  # fmt: skip
ELSEWHERE = [("member", "mail"), ("provenAddress", "email")]


@pytest.fixture
def sam(db: None) -> Any:
    """A real account at an address that tests may use, as where EMAIL_DOMAINS names the product's own."""
    return User.objects.create_user("sam", TAKEN, "secret")


@pytest.mark.parametrize("address", HOSTILE, ids=ascii)
@pytest.mark.parametrize("field", ["email", "username"])
def test_nobody_takes_over_an_accounts_address(wire: Wire, sam: Any, address: str, field: str) -> None:
    response = wire.post("entities/user", {"fields": {field: address}})
    assert response.status_code in (400, 409), response.content
    assert User.objects.get() == sam


@pytest.mark.parametrize("address", [each for each in HOSTILE if each.strip().lower() != TAKEN], ids=ascii)
@pytest.mark.parametrize(("kind", "field"), ELSEWHERE)
def test_wherever_an_address_stands_it_is_nobodys(wire: Wire, address: str, kind: str, field: str) -> None:
    assert error_of(wire.post(f"entities/{kind}", {"fields": {field: address}})) == (400, "invalid_body")


@pytest.mark.parametrize(("kind", "field"), ELSEWHERE)
def test_an_address_that_a_real_row_of_that_table_holds_is_taken(wire: Wire, kind: str, field: str) -> None:
    user = User.objects.create_user("sam", "elsewhere@shop.example", "secret")
    ProvenAddress.objects.create(user=user, email="Sam@Example.com", verified=True)
    Member.objects.create(login="sam", mail="SAM@example.com")
    assert error_of(wire.post(f"entities/{kind}", {"fields": {field: TAKEN}})) == (409, "conflict")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("entities/user", {"fields": {"email": TAKEN}}),
        ("entities/user", {"fields": {"username": TAKEN}}),
        ("entities/member", {"fields": {"mail": TAKEN}}),
        ("builders", {"email": TAKEN}),
        ("clients", {"email": TAKEN.title()}),
    ],
)
def test_an_address_that_a_real_person_has_proven_elsewhere_is_taken(
    wire: Wire, path: str, body: Any
) -> None:
    user = User.objects.create_user("sam", "elsewhere@shop.example", "secret")
    ProvenAddress.objects.create(user=user, email="Sam@Example.com", verified=True)
    assert error_of(wire.post(path, body)) == (409, "conflict")
    assert User.objects.get() == user


@pytest.mark.parametrize("name", ["sam", "SAM", "Sam"])
def test_a_name_that_its_case_alone_tells_from_a_real_one_is_taken(wire: Wire, sam: Any, name: str) -> None:
    assert error_of(wire.post("entities/user", {"fields": {"username": name}})) == (409, "conflict")


@pytest.mark.parametrize("name", ["\uff53am", "\u017fam", "sa\u2098"], ids=ascii)
def test_a_name_that_only_looks_like_another_is_refused(wire: Wire, sam: Any, name: str) -> None:
    assert error_of(wire.post("entities/user", {"fields": {"username": name}})) == (400, "invalid_body")


@pytest.mark.parametrize(
    ("address", "status"), [("sam@gmail.com", 400), (TAKEN, 409), ("new@example.com", 201)]
)
def test_an_address_that_comes_by_a_parameter_is_looked_at_too(
    wire: Wire, sam: Any, address: str, status: int
) -> None:
    with registered(user={"factory": ParameterFactory, "fields": ["box"]}):
        assert wire.post("entities/user", {"fields": {"box": address}}).status_code == status


def test_a_factory_that_gives_an_account_a_real_ones_address_is_refused(sam: Any) -> None:
    with pytest.raises(Conflict, match="address"):
        create(type("SamFactory", (UserFactory,), {"email": "Sam@Example.com"}))
    assert User.objects.get() == sam


@pytest.mark.django_db
def test_runs_may_share_an_address_that_is_no_real_accounts() -> None:
    same = type("SameFactory", (UserFactory,), {"email": "same@example.com"})
    assert create(same).email == create(same, "stagehand_test_other").email


def test_an_address_that_a_factory_makes_of_a_name_is_no_real_accounts_of_another_model(
    wire: Wire, sam: Any
) -> None:
    """A member's address follows from the login."""
    assert error_of(wire.post("entities/member", {"fields": {"login": "sam"}})) == (409, "conflict")
    assert not Member.objects.exists()
