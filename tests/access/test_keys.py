"""Access keys: what they look like, what is kept of them, and when they count."""

from __future__ import annotations

import datetime as dt
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from stagehand_testdata.access import keys
from stagehand_testdata.access.callers import known_operations
from stagehand_testdata.exceptions import InvalidInput, NotAuthenticated, NotFound
from stagehand_testdata.models import AccessKey
from tests.threads import in_thread

pytestmark = pytest.mark.django_db

HOUR = dt.timedelta(hours=1)
HERE = "127.0.0.1"


def made(name: str = "CI", lifetime: dt.timedelta = HOUR, **options: Any) -> keys.Made:
    return keys.create(name, lifetime, **options)


def refused(text: str, address: str = HERE) -> bool:
    try:
        keys.verify(text, address)
    except NotAuthenticated as error:
        return (error.message, error.details) == (NotAuthenticated().message, None)
    return False


class TestText:
    def test_it_has_a_prefix_its_id_a_secret_and_a_checksum(self) -> None:
        key, text = made()
        prefix, public_id, rest = text.split("_")
        assert (prefix, public_id) == ("tdk", key.public_id)
        assert len(rest) == 32 + 6
        assert text.isascii()

    def test_the_checksum_is_crc32_in_base_62_of_all_before_it(self) -> None:
        _, text = made()
        digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
        number = 0
        for digit in text[-6:]:
            number = number * 62 + digits.index(digit)
        assert number == zlib.crc32(text[:-6].encode())

    def test_no_two_are_alike(self) -> None:
        texts = {made().text for _ in range(50)}
        assert len(texts) == len({text.split("_")[1] for text in texts}) == 50

    def test_any_character_changed_is_told_offline(self) -> None:
        _, text = made()
        for place, was in enumerate(text):
            wrong = text[:place] + ("a" if was != "a" else "b") + text[place + 1 :]
            with CaptureQueriesContext(connection) as queries:
                assert keys.parse(wrong) is None, place
                assert refused(wrong)
            assert queries.captured_queries == []

    @pytest.mark.parametrize(
        "change",
        [
            lambda text: "",
            lambda text: text[:-1],
            lambda text: text + "0",
            lambda text: text + "\n",
            lambda text: f" {text}",
            lambda text: text.upper(),
            lambda text: text.replace("tdk", "ghp"),
            lambda text: text.replace("_", "-"),
            lambda text: "tdk_é" + text[5:],
            lambda text: "tdk_\u0661" + text[5:],
            lambda text: text * 1000,
        ],
    )
    def test_what_is_no_key_is_none(self, change: Any) -> None:
        assert keys.parse(change(made().text)) is None


class TestStored:
    def test_neither_the_text_nor_the_secret_is_kept(self) -> None:
        key, text = made()
        row = repr(AccessKey.objects.filter(pk=key.pk).values().get())
        secret = text.split("_")[2]
        assert secret not in row
        assert secret[:-6] not in row

    def test_the_hash_is_keyed_and_covers_the_id(self) -> None:
        token = keys.parse(made().text)
        assert token is not None
        digest = keys._digest(token)
        assert len(digest) == AccessKey.DIGEST_LENGTH
        assert keys._digest(token._replace(public_id="0" * 12)) != digest
        with override_settings(SECRET_KEY="another"):
            assert keys._digest(token) != digest

    def test_another_keys_secret_under_its_own_id_is_refused(self) -> None:
        one, other = made(), made()
        first, second = keys.parse(one.text), keys.parse(other.text)
        assert first is not None
        assert second is not None
        AccessKey.objects.filter(pk=one.key.pk).update(
            secret_digest=AccessKey.objects.get(pk=other.key.pk).secret_digest
        )
        assert refused(str(first._replace(secret=second.secret)))

    def test_a_key_without_an_end_cannot_be_kept(self) -> None:
        key, _ = made()
        for end in (None, F("created_at")):
            with pytest.raises(IntegrityError), transaction.atomic():
                AccessKey.objects.filter(pk=key.pk).update(expires_at=end)

    def test_a_former_secret_without_an_end_cannot_be_kept(self) -> None:
        key, _ = made()
        with pytest.raises(IntegrityError), transaction.atomic():
            AccessKey.objects.filter(pk=key.pk).update(former_digest="0" * 64)


class TestCreate:
    @pytest.mark.parametrize(
        "given",
        [
            {"operations": ["nonsense"]},
            {"entity_types": ["nonsense"]},
            {"scopes": ["for_ever"]},
            {"networks": ["10.0.0.1/8"]},
            {"networks": ["nonsense"]},
            {"max_minutes": 0},
            {"max_live_rows": -1},
            {"max_open_runs": 2**31},
            {"name": ""},
            {"name": "two\nlines"},
            {"name": "x" * 101},
            {"holder": "\x1b[31m"},
            {"lifetime": dt.timedelta(0)},
            {"lifetime": dt.timedelta(days=-1)},
            {"lifetime": dt.timedelta(days=999_999)},
        ],
        ids=str,
    )
    def test_what_makes_no_sense_is_refused(self, given: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput) as refusal:
            made(**given)
        assert refusal.value.details
        assert not AccessKey.objects.exists()

    def test_every_operation_and_type_can_be_named(self) -> None:
        operations = sorted(known_operations())
        key, _ = made(operations=operations, entity_types=["builder", "voucher"], networks=["10.0.0.0/8"])
        assert (key.operations, key.networks) == (operations, ["10.0.0.0/8"])
        assert {"verify-access", "builders", "read"} <= set(operations)

    def test_nobody_is_found_under_another_id(self) -> None:
        key, _ = made()
        assert keys.find(key.public_id) == key
        with pytest.raises(NotFound, match="keys list"):
            keys.find("nobody")


class TestVerify:
    def test_it_gives_the_caller(self) -> None:
        key, text = made(
            operations=["builders"],
            entity_types=["builder"],
            scopes=["ephemeral"],
            max_minutes=5,
            max_live_rows=6,
            max_open_runs=7,
        )
        caller = keys.verify(text, HERE)
        assert caller.owner == f"key:{key.public_id}"
        assert (caller.key_id, caller.name, caller.address) == (key.public_id, "CI", HERE)
        assert (caller.operations, caller.entity_types) == ({"builders"}, {"builder"})
        assert caller.scopes == {"ephemeral"}
        assert (caller.max_minutes, caller.max_live_rows, caller.max_open_runs) == (5, 6, 7)

    def test_it_takes_one_query(self) -> None:
        _, text = made()
        keys.verify(text, HERE)
        with CaptureQueriesContext(connection) as queries:
            keys.verify(text, HERE)
        assert len(queries) == 1

    def test_an_unknown_key_takes_the_same_query_and_as_many_comparisons_as_a_wrong_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, text = made()
        token = keys.parse(text)
        assert token is not None
        compared: list[str] = []
        compare = keys.constant_time_compare
        monkeypatch.setattr(keys, "constant_time_compare", lambda a, b: compared.append(a) or compare(a, b))
        costs = []
        wrong = token._replace(secret="0" * 32)
        for attempt in (wrong, wrong._replace(public_id="0" * 12)):
            compared.clear()
            with CaptureQueriesContext(connection) as queries:
                assert refused(str(attempt))
            sql = [each["sql"].replace(attempt.public_id, "…") for each in queries]
            costs.append((sql, len(compared)))
        assert costs[0] == costs[1]
        assert costs[0][1] == 2

    def test_the_databases_clock_ends_it(self) -> None:
        key, text = made()
        assert not refused(text)
        AccessKey.objects.filter(pk=key.pk).update(created_at=Now() - 2 * HOUR, expires_at=Now())
        assert refused(text)

    def test_revoked_it_counts_no_more(self) -> None:
        key, text = made()
        keys.revoke(key)
        assert refused(text)
        first = AccessKey.objects.get().revoked_at
        keys.revoke(key)
        assert AccessKey.objects.get().revoked_at == first

    @pytest.mark.parametrize(
        ("networks", "address", "comes_in"),
        [
            ([], "", True),
            ([], "203.0.113.9", True),
            (["10.0.0.0/8"], "10.1.2.3", True),
            (["10.0.0.0/8"], "11.1.2.3", False),
            (["10.0.0.0/8", "11.1.2.3/32"], "11.1.2.3", True),
            (["10.0.0.0/8"], "::ffff:10.1.2.3", True),
            (["10.0.0.0/8"], "", False),
            (["10.0.0.0/8"], "unix:", False),
            (["2001:db8::/32"], "2001:db8::1", True),
            (["2001:db8::/32"], "10.1.2.3", False),
        ],
    )
    def test_the_network_decides_where_one_is_named(
        self, networks: list[str], address: str, comes_in: bool
    ) -> None:
        _, text = made(networks=networks)
        assert refused(text, address) is not comes_in

    def test_a_network_that_is_none_lets_nobody_in(self) -> None:
        _, text = made()
        AccessKey.objects.update(networks=["nonsense"])
        assert refused(text, "10.1.2.3")

    def test_it_counts_under_a_secret_key_before_this_one(self) -> None:
        _, text = made()
        was = django_settings.SECRET_KEY
        with override_settings(SECRET_KEY="the next one", SECRET_KEY_FALLBACKS=[]):
            assert refused(text)
        with override_settings(SECRET_KEY="the next one", SECRET_KEY_FALLBACKS=["another", was]):
            assert not refused(text)

    def test_last_use_is_written_once_a_minute(self) -> None:
        _, text = made()
        keys.verify(text, HERE)
        first = AccessKey.objects.get().last_used_at
        keys.verify(text, HERE)
        assert first is not None
        assert AccessKey.objects.get().last_used_at == first
        AccessKey.objects.update(last_used_at=first - dt.timedelta(seconds=61))
        keys.verify(text, HERE)
        now = AccessKey.objects.get().last_used_at
        assert now is not None
        assert now >= first

    def test_a_refused_key_is_not_used(self) -> None:
        _, text = made(networks=["10.0.0.0/8"])
        assert refused(text)
        assert AccessKey.objects.get().last_used_at is None


class TestRotate:
    def test_the_secret_is_another_and_the_key_the_same(self) -> None:
        key, before = made(operations=["builders"])
        again, after = keys.rotate(key)
        assert again.pk == key.pk
        assert before.split("_")[1] == after.split("_")[1]
        assert refused(before)
        caller = keys.verify(after, HERE)
        assert (caller.owner, caller.operations) == (key.owner, {"builders"})

    def test_the_former_secret_counts_for_its_grace(self) -> None:
        key, before = made()
        _, after = keys.rotate(key, grace=HOUR)
        assert not refused(before)
        assert not refused(after)
        AccessKey.objects.update(former_until=F("created_at"))
        assert refused(before)
        assert not refused(after)

    def test_a_key_that_counts_no_more_gets_none(self) -> None:
        key, _ = made()
        keys.revoke(key)
        with pytest.raises(InvalidInput):
            keys.rotate(key)

    def test_a_second_rotation_ends_the_first_secret(self) -> None:
        key, first = made()
        key, second = keys.rotate(key, grace=HOUR)
        _, third = keys.rotate(key, grace=HOUR)
        assert [refused(text) for text in (first, second, third)] == [True, False, False]


@pytest.fixture(autouse=True)
def _one_secret_key() -> Iterator[None]:
    with override_settings(SECRET_KEY_FALLBACKS=[]):
        yield


@pytest.mark.django_db(transaction=True)
def test_nobody_waits_for_the_keys_row_to_note_its_use() -> None:
    if not connection.features.has_select_for_update_skip_locked:
        pytest.skip("locks of rows that can be skipped")
    key, text = made()
    with transaction.atomic():
        list(AccessKey.objects.select_for_update().filter(pk=key.pk))
        thread, found = in_thread(lambda: keys.verify(text, HERE))
        thread.join(5)
        assert [each.key_id for each in found] == [key.public_id]
    assert AccessKey.objects.get().last_used_at is None
    keys.verify(text, HERE)
    assert AccessKey.objects.get().last_used_at is not None
