"""The bodies of requests and answers, field by field under their wire names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.http import url_has_allowed_host_and_scheme
from rest_framework import serializers

from ..conf import settings
from ..isolation.contents import read_contents
from ..models import Message, TestEntity, TestRun
from ..operations import runs
from ..seeding import SEED_LIMIT
from .fields import AlwaysTrue, Flag, Identifier, Number, Text, Whole

#: The year 2100 in milliseconds; ten years and a twentieth of a millisecond in minutes. Beyond, a number is
#: a mistake, and the databases' clocks do not tell it from nothing.
_LATEST_MS = 4_102_444_800_000
_SHORTEST_MINUTES = 1e-6
_LONGEST_MINUTES = 10 * 366 * 24 * 60


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields that it does not know, by name."""

    unknown_field = "Unknown field."

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = {name: [self.unknown_field] for name in data if name not in self.fields}
            if unknown:
                raise serializers.ValidationError(unknown)
        return super().to_internal_value(data)


class RunFrameSerializer(StrictSerializer):
    """What the document's client sends with every operation; it decides nothing but how strict to be."""

    testId = Text(required=False, help_text="The same as the X-Test-ID header.")
    isTest = AlwaysTrue(required=False)
    createdAt = Text(required=False, max_length=64, help_text="Ignored.")
    includeDependencies = Flag(required=False, help_text="Ignored.")
    testCreationTime = Number(
        required=False,
        min_value=0,
        max_value=_LATEST_MS,
        help_text="ms since 1970; can only make it stricter.",
    )
    maxAgeMinutes = Number(
        required=False,
        min_value=_SHORTEST_MINUTES,
        max_value=_LONGEST_MINUTES,
        help_text="Minutes, cut to the cap.",
        error_messages={"min_value": "Ensure this value is greater than 0."},
    )
    buildId = Identifier(required=False, max_length=128)
    scope = serializers.ChoiceField(choices=TestRun.Scope.choices, required=False)


class FrameSerializer(RunFrameSerializer):
    """What every operation that creates takes."""

    shadow = Flag(required=False, help_text="The same answer, and no row, query or signal.")
    deep = Flag(required=False, help_text="With shadow: the real creation, rolled back.")


class VerifyAccessSerializer(RunFrameSerializer):
    seed = Whole(required=False, min_value=0, max_value=SEED_LIMIT - 1)
    shadow = Flag(required=False)
    testUserEmail = serializers.EmailField(required=False, max_length=254)
    label = Text(required=False, allow_blank=True, max_length=200)  # type: ignore[assignment]

    def validate_shadow(self, value: bool) -> bool:
        if value and not settings.FORCE_SHADOW:
            raise serializers.ValidationError(
                "A run is not shadow as a whole here (FORCE_SHADOW): send it with each call that creates."
            )
        return value


class BatchSerializer(FrameSerializer):
    """Every other name is an entity type's; see `scenarios.batch_order`."""


class ListedSerializer(StrictSerializer):
    type = Text(max_length=128)
    id = Identifier()
    scope = Text(required=False, max_length=64)


class CleanupSerializer(RunFrameSerializer):
    createdData = ListedSerializer(many=True, required=False, max_length=10_000)  # type: ignore[call-arg]


class RenewSerializer(RunFrameSerializer):
    label = Text(required=False, allow_blank=True, max_length=200)  # type: ignore[assignment]


class SessionRequestSerializer(RunFrameSerializer):
    userId = Identifier(help_text="The key of a user of the run, or of a row that has one.")
    type = Text(
        required=False,
        max_length=128,
        help_text="Of the row that `userId` is the key of, if it is no account.",
    )
    next = Text(required=False, max_length=2000, help_text="Where the link leads: a path of this product.")

    def validate_next(self, value: str) -> str:
        # A browser drops tabs and line breaks, and may then see another host.
        if not value.startswith("/") or not value.isprintable() or not _is_local(value):
            raise serializers.ValidationError("A path of this product: it begins with one '/'.")
        return value


class ShadowCopySerializer(RunFrameSerializer):
    model = Text(max_length=128, help_text="app.Model, one of SHADOW_COPIES.")
    id = Identifier(help_text="The key of the row to copy.")


class CreateEntitiesSerializer(FrameSerializer):
    unknown_field = "Unknown field: columns go under `fields`."

    count = Whole(required=False, min_value=1)
    fields_ = serializers.DictField(required=False)

    def get_fields(self) -> dict[str, Any]:
        # `fields` is the wire's name, and taken by the serializer itself.
        found = super().get_fields()
        found["fields"] = found.pop("fields_")
        return found

    def validate_count(self, value: int) -> int:
        if value > settings.MAX_ROWS_PER_CALL:
            raise serializers.ValidationError(
                f"No more than {settings.MAX_ROWS_PER_CALL} rows in one call (MAX_ROWS_PER_CALL)."
            )
        return value


def _is_local(path: str) -> bool:
    return url_has_allowed_host_and_scheme(path, allowed_hosts=None)


# --- answers ---------------------------------------------------------------------------------------------


class CreatedSerializer(serializers.Serializer[Any]):
    """What every answer to a creating call may say of itself."""

    shadow = serializers.BooleanField(required=False, help_text="True where no row was made.")
    deep = serializers.BooleanField(required=False, help_text="True where one was, and rolled back.")


class AccessSerializer(serializers.Serializer[Any]):
    success = serializers.BooleanField()
    testId = serializers.CharField(source="test_id")
    scope = serializers.ChoiceField(choices=TestRun.Scope.choices)
    shadow = serializers.BooleanField()
    seed = serializers.IntegerField()
    maxAgeMinutes = serializers.IntegerField()
    expiresAt = serializers.DateTimeField(source="expires_at")
    environment = serializers.CharField()


class CountsSerializer(serializers.Serializer[Any]):
    live = serializers.IntegerField()
    removed = serializers.IntegerField()
    gone = serializers.IntegerField()
    quarantined = serializers.IntegerField()


class RunSerializer(serializers.ModelSerializer[TestRun]):
    testId = serializers.CharField(source="test_id")
    shadow = serializers.SerializerMethodField()
    maxAgeMinutes = serializers.SerializerMethodField()
    buildId = serializers.CharField(source="build_id")
    openedAt = serializers.DateTimeField(source="opened_at")
    expiresAt = serializers.DateTimeField(source="expires_at")
    latestEnd = serializers.DateTimeField(source="latest_end")
    closedAt = serializers.DateTimeField(source="closed_at", allow_null=True)
    expired = serializers.SerializerMethodField()
    entities = serializers.SerializerMethodField()

    class Meta:
        model = TestRun
        fields = [
            "testId",
            "scope",
            "state",
            "shadow",
            "seed",
            "label",
            "buildId",
            "maxAgeMinutes",
            "openedAt",
            "expiresAt",
            "latestEnd",
            "closedAt",
            "expired",
            "entities",
        ]

    def get_shadow(self, run: TestRun) -> bool:
        return settings.FORCE_SHADOW

    def get_maxAgeMinutes(self, run: TestRun) -> int:
        return runs.minutes_left(run)

    def get_expired(self, run: TestRun) -> bool:
        return bool(run.expires_at <= run.now)  # type: ignore[attr-defined]

    def get_entities(self, run: TestRun) -> dict[str, int]:
        return {state: getattr(run, f"count_{state}") for state in TestEntity.State.values}


class CookieSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    value = serializers.CharField()


class PassSerializer(serializers.Serializer[Any]):
    testId = serializers.CharField(source="test_id")
    token = serializers.CharField(help_text="What the header and the cookie hold.")
    header = serializers.CharField(help_text="The name of the header.")
    cookie = CookieSerializer(help_text="What to give a browser, for the product's own address.")
    expiresAt = serializers.DateTimeField(source="expires_at", help_text="The run's end, or sooner.")


class TokenSerializer(StrictSerializer):
    token = Text(help_text="The job's OIDC token, as the issuer gave it.")


class KeySerializer(serializers.Serializer[Any]):
    """A key that was just made: the one answer that has its text."""

    id = serializers.CharField(source="key.public_id")
    key = serializers.CharField(source="text", help_text="Send it as 'Authorization: Bearer …'.")
    name = serializers.CharField(source="key.name")
    owner = serializers.CharField(source="key.owner", help_text="Whose the runs are that it opens.")
    operations = serializers.ListField(source="key.operations", child=serializers.CharField())
    entityTypes = serializers.ListField(source="key.entity_types", child=serializers.CharField())
    scopes = serializers.ListField(source="key.scopes", child=serializers.CharField())
    expiresAt = serializers.DateTimeField(source="key.expires_at")


class StoredCookieSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    value = serializers.CharField()
    domain = serializers.CharField()
    path = serializers.CharField()
    expires = serializers.FloatField(help_text="Seconds since 1970.")
    httpOnly = serializers.BooleanField()
    secure = serializers.BooleanField()
    sameSite = serializers.ChoiceField(choices=["Strict", "Lax", "None"])


class StorageStateSerializer(serializers.Serializer[Any]):
    cookies = StoredCookieSerializer(many=True)
    origins = serializers.ListField(child=serializers.DictField(), help_text="Empty: all is in cookies.")


class SessionSerializer(serializers.Serializer[Any]):
    testId = serializers.CharField(source="test_id")
    userId = serializers.CharField(source="user_id")
    link = serializers.CharField(help_text="Signs the browser in that opens it, once.")
    linkExpiresAt = serializers.DateTimeField(source="link_until")
    storageState = StorageStateSerializer(source="storage_state", help_text="As Playwright takes it.")
    expiresAt = serializers.DateTimeField(
        source="expires_at", help_text="The session's end: the run's, or sooner."
    )
    identity = serializers.DictField(
        child=serializers.CharField(),
        required=False,
        help_text="What an outside identity provider gave: its name, its tokens.",
    )


class EntrySerializer(serializers.ModelSerializer[TestEntity]):
    id = serializers.CharField(source="key_text")
    state = serializers.CharField(help_text="live, removed, gone or quarantined.")
    blockedBy = serializers.DictField(source="blocked_by", child=serializers.IntegerField())
    createdAt = serializers.DateTimeField(source="created_at")
    removedAt = serializers.DateTimeField(source="removed_at", allow_null=True)

    class Meta:
        model = TestEntity
        fields = ["type", "id", "model", "origin", "state", "reason", "blockedBy", "createdAt", "removedAt"]


class AttachmentSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    type = serializers.CharField()
    size = serializers.IntegerField(help_text="In bytes.")


class MessageSerializer(serializers.ModelSerializer[Message]):
    id = serializers.CharField()
    createdAt = serializers.DateTimeField(source="created_at")
    to = serializers.ListField(child=serializers.CharField(), source="addresses")
    attachments = AttachmentSerializer(many=True)
    truncated = serializers.BooleanField(help_text="Whether something was too long to be kept.")
    links = serializers.ListField(
        child=serializers.CharField(), help_text="Absolute ones, of the text and of the HTML's links."
    )
    codes = serializers.ListField(child=serializers.CharField(), help_text="4 to 8 digits that stand alone.")

    class Meta:
        model = Message
        fields = [
            "id",
            "createdAt",
            "to",
            "subject",
            "text",
            "html",
            "attachments",
            "truncated",
            "links",
            "codes",
        ]

    def get_fields(self) -> dict[str, Any]:
        # `from` is a word of Python's own.
        return {"from": serializers.CharField(source="sender"), **super().get_fields()}

    def to_representation(self, instance: Any) -> dict[str, Any]:
        found = read_contents(instance.text, instance.html)
        instance.links, instance.codes = found.links, found.codes
        return super().to_representation(instance)


class QuarantinedSerializer(serializers.Serializer[Any]):
    type = serializers.CharField()
    id = serializers.CharField()
    reason = serializers.CharField()
    blockedBy = serializers.DictField(child=serializers.IntegerField())


class NotOwnedSerializer(serializers.Serializer[Any]):
    type = serializers.CharField()
    id = serializers.CharField()


class ClosedShadowsSerializer(serializers.Serializer[Any]):
    entries = serializers.DictField(child=serializers.IntegerField())
    hostStatements = serializers.IntegerField(
        help_text="Statements on the product's tables that the shadow calls sent."
    )


class ReceiptSerializer(serializers.Serializer[Any]):
    success = serializers.BooleanField()
    testId = serializers.CharField()
    state = serializers.ChoiceField(choices=TestRun.State.choices)
    removed = serializers.DictField(child=serializers.IntegerField())
    alreadyGone = serializers.DictField(child=serializers.IntegerField())
    shadow = ClosedShadowsSerializer(help_text="Shadow entries that were closed; nothing was removed.")
    remaining = serializers.IntegerField()
    quarantined = QuarantinedSerializer(many=True)
    notOwned = NotOwnedSerializer(many=True)
    digest = serializers.CharField()


class ErrorSerializer(serializers.Serializer[Any]):
    error = serializers.CharField()
    message = serializers.CharField()
    code = serializers.CharField()
    details = serializers.DictField(
        child=serializers.ListField(child=serializers.CharField()), required=False
    )


class ResidueSerializer(ReceiptSerializer):
    error = serializers.CharField()
    message = serializers.CharField()
    code = serializers.CharField()


class FieldSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    type = serializers.CharField()
    required = serializers.BooleanField()  # type: ignore[assignment]
    example = serializers.JSONField(allow_null=True)
    choices = serializers.ListField(child=serializers.JSONField(), required=False)
    maxLength = serializers.IntegerField(required=False)
    references = serializers.CharField(required=False)


class EntityTypeSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    model = serializers.CharField()
    plural = serializers.CharField(allow_null=True)

    def get_fields(self) -> dict[str, Any]:
        return {**super().get_fields(), "fields": FieldSerializer(many=True)}


class RowSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    type = serializers.CharField()
    testId = serializers.CharField()
    isTest = serializers.BooleanField()

    def get_fields(self) -> dict[str, Any]:
        return {**super().get_fields(), "fields": serializers.DictField(help_text="The host's own names.")}


class EntitySerializer(RowSerializer, CreatedSerializer):
    """One row, made or not."""


class CopySerializer(RowSerializer):
    copyOf = serializers.CharField(help_text="The key of the row that was copied.")


class BatchAnswerSerializer(CreatedSerializer):
    testId = serializers.CharField()
    isTest = serializers.BooleanField()
    entities = serializers.DictField(child=serializers.ListField(child=serializers.DictField()))


class ScenarioAnswerSerializer(BatchAnswerSerializer):
    scenario = serializers.CharField()
