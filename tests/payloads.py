"""Hostile payloads for everything that can be made, and what must hold whatever is sent.

From a seed: every name that a registered model goes by (fields, attnames, columns, reverse names, factory
parameters), rights under all of their names, paths into other rows, Unicode that looks like them; values of
every kind, keys of real rows, real accounts' addresses, nested objects. They go through the whole API.
"""

from __future__ import annotations

import json
import random
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.test import Client

from stagehand_testdata.access.privileges import NEVER_SETTABLE
from stagehand_testdata.api.entity_fields import describe
from stagehand_testdata.models import TestRun
from stagehand_testdata.registry import get_registry
from tests.host.factories import AuthorFactory, BookFactory, VoucherFactory
from tests.host.models import Member, Profile, ProvenAddress, Role
from tests.oracle import Oracle

#: Payloads for one run, which is taken back afterwards.
PER_RUN = 20
#: Types whose factory cannot succeed, or makes what is refused: 5xx is the right answer there, whatever is
#: sent, so nothing is. Their own tests look at them.
AT_FAULT = frozenset({"staff", "failing", "raw"})
#: No account's, and in no domain that tests may use.
ELSEWHERE = "sam@gmail.com"

_HASH = make_password("known", salt="salt", hasher="md5")
_OPERATIONS = ("builders", "clients", "session-types", "booking-scenarios", "batch", "scenarios/marketplace")
_RIGHTS = (
    *sorted(NEVER_SETTABLE),
    *(
        "role",
        "is_moderator",
        "admin",
        "superuser",
        "staff",
        "chief",
        "duty",
        "rank",
        "password_hash",
        "passwd",
    ),
    *("raw_password", "user__is_staff", "user__password", "user__groups", "owner__is_superuser", "group_set"),
    *(
        "_password",
        "__class__",
        "_state",
        "_meta",
        "backend",
        "last_login",
        "user_ptr",
        "id",
        "user_id",
        "owner_id",
    ),
)


class Broken(AssertionError):
    """Something that must hold does not; its text has the seed and the payload."""


class World:
    """The real rows of a product in use, and what of them a payload may try."""

    def __init__(self) -> None:
        users = get_user_model().objects
        root = users.create_superuser("root", "root@shop.example", "secret")
        sam = users.create_user("sam", "sam@example.com", "secret")
        group = Group.objects.create(name="editors")
        group.permissions.add(Permission.objects.all()[0])
        sam.groups.add(group)
        role = Role.objects.create(name="editor")
        role.permissions.add(Permission.objects.all()[0])
        member = Member.objects.create(login="chief", mail="chief@example.com", chief=True, duty=role)
        Profile.objects.create(user=root, role="admin")
        ProvenAddress.objects.create(user=sam, email="proven@example.com", verified=True)
        book, author, voucher = BookFactory(), AuthorFactory(), VoucherFactory()
        self.keys = [
            *(each.pk for each in (root, sam, group, role, member, book, voucher)),
            str(author.pk),
            ContentType.objects.get_for_model(Group).pk,
        ]
        self.addresses = ["root@shop.example", "sam@example.com", "chief@example.com", "proven@example.com"]
        self.rights = rights()


def rights() -> dict[str, set[Any]]:
    """Who holds a right, in every way that there is."""
    user = get_user_model()
    return {
        "staff": set(user.objects.filter(is_staff=True).values_list("pk", flat=True)),
        "superusers": set(user.objects.filter(is_superuser=True).values_list("pk", flat=True)),
        "in groups": set(user.groups.through.objects.values_list("user", "group")),
        "with permissions": set(user.user_permissions.through.objects.values_list("user", "permission")),
        "groups": set(Group.objects.values_list("pk", "permissions")),
        "permissions": set(Permission.objects.values_list("pk", flat=True)),
        "roles": set(Role.objects.values_list("pk", "permissions")),
        "chiefs": set(Member.objects.filter(chief=True).values_list("pk", flat=True)),
        "admins": set(Member.objects.filter(is_admin=True).values_list("pk", flat=True)),
        "on duty": set(Member.objects.exclude(duty=None).values_list("pk", "duty")),
        "profiles": set(Profile.objects.exclude(role="guest").values_list("pk", "role")),
        "passwords": set(user.objects.filter(password__in=("known", _HASH)).values_list("pk", flat=True))
        | set(Member.objects.filter(password__in=("known", _HASH)).values_list("pk", flat=True)),
    }


def addresses() -> list[str]:
    """Every address that somebody may be found by, and a user's name, folded as far as one may."""
    columns = (
        get_user_model().objects.values_list("email", "username"),
        Member.objects.values_list("mail"),
        ProvenAddress.objects.values_list("email"),
    )
    found = [text for rows in columns for row in rows for text in row if text]
    return [unicodedata.normalize("NFKC", text).casefold().strip() for text in found]


class Payloads:
    """Requests from a seed: (path, body)."""

    def __init__(self, seed: int, world: World) -> None:
        self.random = random.Random(seed)
        self.world = world
        self.types = [each for each in get_registry().entity_types if each.name not in AT_FAULT]
        self.described = {each.name: describe(each)["fields"] for each in self.types}
        self.names = {each.name: sorted(_names(each)) for each in self.types}
        #: What the run has made so far, by its id in an answer.
        self.own: list[Any] = []

    def next(self) -> tuple[str, dict[str, Any]]:
        if self.random.random() < 0.12:
            path, body = self.random.choice(_OPERATIONS), self._object(2)
            named = AT_FAULT if path == "batch" else frozenset()
            return path, {key: value for key, value in body.items() if key not in named}
        kind = self.random.choice(self.types).name
        body: dict[str, Any] = {"fields": self._fields(kind)}
        if self.random.random() < 0.05:
            body |= self._object(1)
        if self.random.random() < 0.1:
            body["count"] = self.random.choice([1, 2, 3, 0, -1, True, "2", 10**9])
        if self.random.random() < 0.05:
            body["shadow"] = True
            body["deep"] = self.random.choice([True, False])
        return f"entities/{kind}", body

    def _fields(self, kind: str) -> dict[str, Any]:
        found = {}
        # Often what the type takes, so that a hostile name or value has good company and gets far.
        for field in self.described[kind]:
            if self.random.random() < 0.3:
                good = self.random.random() < 0.8
                found[field["name"]] = self._likely(field) if good else self._value(2)
        for _ in range(self.random.choice([0, 0, 0, 0, 0, 0, 1, 1, 2, 4])):
            found[self._name(kind)] = self._value(2)
        return found

    def _likely(self, field: Any) -> Any:
        if field["type"] == "id":
            return self.random.choice([*self.world.keys, *self.own[-5:]])
        if field["type"] == "email":
            return f"new{self.random.randrange(10**6)}@example.com"
        if field["type"] in ("string", "any") and self.random.random() < 0.5:
            return f"text {self.random.randrange(10**6)}"[: field.get("maxLength", 20)]
        return field["example"]

    def _name(self, kind: str) -> str:
        name = self.random.choice([*self.names[kind], *_RIGHTS])
        match self.random.randrange(12):
            case 0:
                return f"{self.random.choice(self.names[kind])}__{name}"
            case 1:
                return self._disguised(name)
            case 2:
                return self.random.choice([name.upper(), name.title(), f" {name}", f"{name} ", f"{name}\0"])
            case 3:
                return "".join(chr(self.random.randrange(1, 0x2FFF)) for _ in range(4))
        return name

    def _disguised(self, text: str) -> str:
        """The same to look at, or after folding, and not the same."""
        swapped = {"s": "\u017f", "a": "\u0430", "e": "\u0435", "k": "\u212a", "i": "\u0456", "_": "\uff3f"}
        match self.random.randrange(4):
            case 0:
                return "".join(swapped.get(letter, letter) for letter in text)
            case 1:
                return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
            case 2:
                return text[:1] + "\u200b" + text[1:]
        return unicodedata.normalize("NFD", text) + "\u0301"

    def _object(self, depth: int) -> dict[str, Any]:
        keys = [*_RIGHTS, "email", "name", "username", "builderId", "fields", "builders", "user", "clientId"]
        picked = self.random.sample(keys, self.random.randrange(1, 4))
        return {key: self._value(depth - 1) for key in picked}

    def _value(self, depth: int) -> Any:
        pick = self.random.random()
        if depth > 0 and pick < 0.12:
            return self._object(depth)
        if depth > 0 and pick < 0.18:
            return [self._value(depth - 1) for _ in range(self.random.randrange(3))]
        if pick < 0.35:
            address = self.random.choice([*self.world.addresses, ELSEWHERE])
            return self.random.choice([address, address.upper(), f" {address}", self._disguised(address)])
        if pick < 0.5:
            return self.random.choice([*self.world.keys, *self.own[-5:]])
        texts = [
            "",
            "true",
            "admin",
            "root",
            "ROOT",
            "sam",
            "known",
            _HASH,
            "\0",
            "\ud7ff",
            "x" * 5000,
            "1; --",
        ]
        plain = [True, False, None, 0, 1, -1, 2**63, -(2**31), 1e308, 0.1, [], {}, "2030-01-31", "NaN", "1"]
        return self.random.choice([*texts, *plain, self._disguised("admin")])


def _names(entity_type: Any) -> Iterator[str]:
    model = entity_type.model
    for field in model._meta.get_fields():
        yield field.name
        yield from (text for name in ("attname", "column") if (text := getattr(field, name, None)))
        if hasattr(field, "get_accessor_name"):
            yield from filter(None, [field.get_accessor_name()])
    meta = entity_type.load_factory()._meta
    yield from {*meta.pre_declarations, *meta.post_declarations, *meta.parameters, *meta.base_declarations}


class Fuzz:
    """Sends payloads, run by run, and looks at what each has left behind; raises Broken, oracle.Touched."""

    def __init__(self, seed: int, oracle: Oracle, world: World) -> None:
        self.payloads = Payloads(seed, world)
        self.seed, self.oracle, self.world = seed, oracle, world
        self.client = Client(raise_request_exception=False)
        self.sent = 0
        self.statuses: Counter[int] = Counter()
        self.made: Counter[str] = Counter()

    def run(self, count: int) -> None:
        """That many payloads of one run, which is taken back."""
        seen, rows = self.oracle._seen, dict(self.oracle.rows)
        test_id = f"stagehand_test_fuzz{self.seed}_{self.sent}"
        with transaction.atomic():
            with self.oracle.acting(f"make:{test_id}"):
                for _ in range(count):
                    self._send(test_id)
            self._look(f"seed {self.seed}, of the {count} payloads up to number {self.sent}")
            transaction.set_rollback(True)
        self.oracle._seen, self.oracle.rows = seen, rows
        self.payloads.own.clear()

    def _send(self, test_id: str) -> None:
        path, body = self.payloads.next()
        self.sent += 1
        response = self.client.generic(
            "POST",
            f"/api/test/{path}",
            json.dumps(body).encode(),
            content_type="application/json",
            headers={"X-Test-ID": test_id},
        )
        self.statuses[response.status_code] += 1
        kind = path.rpartition("/")[2]
        where = f"seed {self.seed}, payload {self.sent}: POST {path} {json.dumps(body)[:2000]}"
        if response.status_code >= 500:
            raise Broken(f"{response.status_code} {response.content[:300]!r}\n{where}")
        if response.status_code == 201:
            self.made[kind] += 1
            answer = response.json()
            self.payloads.own += [
                each["id"] for each in (answer if isinstance(answer, list) else [answer]) if "id" in each
            ]

    def _look(self, where: str) -> None:
        if (found := rights()) != self.world.rights:
            changed = [name for name in found if found[name] != self.world.rights[name]]
            raise Broken(f"rights have changed: {changed}\n{where}")
        held = Counter(addresses())
        taken = [each for each in self.world.addresses if held[each] != 1]
        if taken or held[ELSEWHERE] or held["root"] != 1 or held["sam"] != 1:
            raise Broken(f"an address or a name is another's: {taken}\n{where}")
        if TestRun.objects.exclude(owner="").exists():
            raise Broken(f"a run of another owner\n{where}")


@contextmanager
def fuzzing(seed: int) -> Iterator[Fuzz]:
    """A world of real rows, watched; taken back at the end."""
    with transaction.atomic():
        world = World()
        with Oracle.watching() as oracle:
            yield Fuzz(seed, oracle, world)
        transaction.set_rollback(True)
