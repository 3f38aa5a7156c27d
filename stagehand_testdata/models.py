"""The ledger: which run made which row, and what became of it.

Nothing here is written but by `operations`, and messages by `isolation.mail`; nothing here points at a host's
table.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from django.db import models
from django.db.models import ExpressionWrapper, F, OuterRef, Q, Value
from django.db.models.functions import Cast, Concat, Now

from .constraints import StateAgrees
from .exceptions import AppendOnly, NeedsDeep
from .indexes import StandingIndex
from .seeding import SEED_LIMIT

Model = type[models.Model]

#: The column of a `TestDataModel` that says whose test row it is.
MARK = "test_run_id"


class TestRunQuerySet(models.QuerySet["TestRun"]):
    __test__ = False

    def unfinished(self) -> TestRunQuerySet:
        return self.exclude(state=TestRun.State.CLOSED)

    def expired(self) -> TestRunQuerySet:
        """Runs past their end by the database's clock that still wait for their purge."""
        return self.unfinished().filter(expires_at__lte=Now())


class TestRun(models.Model):
    """One test's lease on the database: an owner, a seed, a scope and an end."""

    __test__ = False

    class Scope(models.TextChoices):
        EPHEMERAL = "ephemeral"
        PERSISTENT_SESSION = "persistent_session"
        PERSISTENT_ENVIRONMENT = "persistent_environment"

    class State(models.TextChoices):
        OPEN = "open"
        CLOSING = "closing"
        CLOSED = "closed"

    owner = models.CharField(
        max_length=128,
        blank=True,
        default="",
        help_text="The access key that opened the run; empty without keys.",
    )
    test_id = models.CharField("test ID", max_length=128)
    scope = models.CharField(max_length=24, choices=Scope.choices, default=Scope.EPHEMERAL)
    state = models.CharField(max_length=8, choices=State.choices, default=State.OPEN)
    seed = models.BigIntegerField(help_text="Every generated value follows from it.")
    label = models.CharField(max_length=200, blank=True, default="")
    build_id = models.CharField("build ID", max_length=128, blank=True, default="")
    test_user_email = models.EmailField(blank=True, default="")
    opened_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(help_text="Nothing is made after this moment, and the reaper comes.")
    latest_end = models.DateTimeField(help_text="No renewal goes past this moment.")
    closing_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)
    deleted_at = models.DateTimeField(
        null=True, blank=True, help_text="When DELETE asked for it to be gone from the API."
    )
    purge_failures = models.PositiveIntegerField(
        default=0, help_text="Purges in a row that failed or got nowhere."
    )
    next_purge_at = models.DateTimeField(
        null=True, blank=True, help_text="The reaper leaves the run alone until then."
    )
    purge_error = models.CharField(
        max_length=300, blank=True, default="", help_text="Why the last purge did not finish."
    )

    objects = TestRunQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner", "test_id"], name="stagehand_run_owner_test_id"),
            models.CheckConstraint(
                condition=Q(expires_at__gt=F("opened_at")) & Q(expires_at__lte=F("latest_end")),
                name="stagehand_run_ends_within_cap",
            ),
            models.CheckConstraint(
                condition=Q(seed__gte=0) & Q(seed__lt=SEED_LIMIT), name="stagehand_run_seed_range"
            ),
            models.CheckConstraint(
                condition=Q(state="closed", closed_at__isnull=False)
                | Q(state__in=("open", "closing"), closed_at__isnull=True),
                name="stagehand_run_closed_has_time",
            ),
        ]
        indexes = [models.Index(fields=["state", "expires_at"], name="stagehand_run_due")]
        ordering = ["-opened_at", "-pk"]
        permissions = [
            ("purge_testrun", "Can purge a test run"),
            ("renew_testrun", "Can renew a test run"),
        ]

    def __str__(self) -> str:
        return self.test_id


class ShadowKey(str):
    """The id of a shadow row: a text that no key reads like, whatever kind of key the model has.

    It names the run and the ordinal of its entry. It is no number: whoever asks the database for its row
    fails before the question is one.
    """

    __slots__ = ()
    _PATTERN = re.compile(r"shadow-([0-9]{1,18})-([0-9]{1,18})")

    @classmethod
    def of(cls, run_id: int, ordinal: int) -> ShadowKey:
        return cls(f"shadow-{run_id}-{ordinal}")

    @classmethod
    def read(cls, value: Any) -> ShadowKey | None:
        """The value as such an id; None where it is none."""
        return cls(value) if isinstance(value, str) and cls._PATTERN.fullmatch(value) else None

    @property
    def ordinal(self) -> int:
        return int(self.rpartition("-")[2])

    def __int__(self) -> int:
        raise NeedsDeep(f"The database was asked about {self}, a shadow row, which is not in it.")


class Key(NamedTuple):
    """A primary key in the forms in which the ledger keeps it.

    The typed columns let the database compare without a cast, which is what makes the lookups fast.
    """

    text: str
    bigint: int | None
    uuid: uuid.UUID | None

    @classmethod
    def of(cls, model: type[models.Model], value: Any) -> Key:
        """Raises ValueError where the key is none or too long to be kept."""
        if isinstance(value, ShadowKey):
            return cls(str(value), None, None)
        if isinstance(value, tuple):
            text = composite_key_text(value)
        else:
            value = model._meta.pk.to_python(value)
            if value is None:
                raise ValueError(f"{model._meta.label}: the row has no primary key")
            text = str(value)
        if len(text) > TestEntity.KEY_LENGTH:
            raise ValueError(f"{model._meta.label}: the primary key is longer than {TestEntity.KEY_LENGTH}")
        column = key_column(model)
        return cls(
            text,
            int(value) if column == "key_bigint" else None,
            uuid.UUID(text) if column == "key_uuid" else None,
        )


def composite_key_text(parts: Iterable[Any]) -> str:
    """How the ledger writes a key of several columns."""
    return json.dumps([str(part) for part in parts])


def key_column(model: type[models.Model]) -> str:
    """Which column of the ledger holds the keys of `model` in their own type."""
    field: Any = model._meta.pk
    while field.is_relation:
        field = field.target_field
    if isinstance(field, models.IntegerField):
        return "key_bigint"
    return "key_uuid" if isinstance(field, models.UUIDField) else "key_text"


class TestEntityQuerySet(models.QuerySet["TestEntity"]):
    __test__ = False

    def standing(self) -> TestEntityQuerySet:
        """Entries whose row is still there for all we know: live ones and quarantined ones."""
        return self.filter(tombstone=0)

    def with_rows(self) -> TestEntityQuerySet:
        """Without what is outside the database, and without shadows: neither has a row of the host's."""
        return self.exclude(origin__in=(TestEntity.Origin.EXTERNAL, TestEntity.Origin.SHADOW))

    def of_model(self, model: type[models.Model]) -> TestEntityQuerySet:
        return self.filter(model=model._meta.concrete_model._meta.label_lower)  # type: ignore[union-attr]

    def close(self, state: str) -> int:
        """Enter the end of these entries' rows; how many entries were standing until now."""
        return self.standing().update(
            state=state, tombstone=F("pk"), removed_at=Now(), reason="", blocked_by={}
        )

    def for_keys(self, model: type[models.Model], keys: Iterable[Any]) -> TestEntityQuerySet:
        """Entries of `model` under any of these primary keys."""
        found = [Key.of(model, key) for key in keys]
        column = key_column(model)
        typed = [getattr(key, column.removeprefix("key_")) for key in found]
        return self.of_model(model).filter(**{f"{column}__in": typed})


class TestEntity(models.Model):
    """The proof that one row was made by one run."""

    __test__ = False
    KEY_LENGTH = 255
    #: What stands before the type of an external thing, in the place of its model.
    EXTERNAL_PREFIX = "external."
    #: What stands before the model of a shadow entry: no look for the entries of a model's rows finds it.
    SHADOW_PREFIX = "shadow."

    class Origin(models.TextChoices):
        REQUESTED = "requested", "asked for"
        ON_THE_WAY = "on_the_way", "made on the way"
        CAPTURED = "captured", "captured"
        SHADOW = "shadow", "shadow"
        EXTERNAL = "external", "external"

    class State(models.TextChoices):
        LIVE = "live"
        REMOVED = "removed"
        GONE = "gone", "already gone"
        QUARANTINED = "quarantined"

    # The constraint on (run, ordinal) is the index that a foreign key wants.
    run = models.ForeignKey(TestRun, on_delete=models.PROTECT, related_name="entities", db_index=False)
    ordinal = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Its place among what the run asked for, from 1; none where the product made it.",
    )
    type = models.CharField(max_length=128)
    origin = models.CharField(max_length=12, choices=Origin.choices)
    state = models.CharField(max_length=12, choices=State.choices, default=State.LIVE)
    reason = models.CharField(max_length=64, blank=True, default="", help_text="Why it is quarantined.")
    blocked_by = models.JSONField(default=dict, blank=True, help_text="Rows that hold it, by model.")
    model = models.CharField(max_length=128)
    database = models.CharField(max_length=64)
    key_text = models.CharField("key", max_length=KEY_LENGTH)
    key_bigint = models.BigIntegerField(null=True, blank=True, editable=False)
    key_uuid = models.UUIDField(null=True, blank=True, editable=False)
    fingerprint = models.JSONField(default=dict, editable=False)
    reference = models.CharField(
        max_length=255, blank=True, default="", help_text="What an outside system calls it."
    )
    shadow_row = models.JSONField(
        null=True, blank=True, editable=False, help_text="What a shadow entry has in the place of a row."
    )
    # 0 while the row stands, the entry's own id afterwards: a key is unique among standing rows only,
    # on databases that have no partial unique index too.
    tombstone = models.BigIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(db_default=Now())
    removed_at = models.DateTimeField(null=True, blank=True)

    objects = TestEntityQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "test entities"
        constraints = [
            models.UniqueConstraint(fields=["run", "ordinal"], name="stagehand_entity_run_ordinal"),
            models.CheckConstraint(
                condition=StateAgrees("state", "tombstone"),
                name="stagehand_entity_state_tombstone",
            ),
        ]
        indexes = [
            StandingIndex(
                fields=["model", "key_text", "database"],
                name="stagehand_entity_standing",
                unique=True,
                asked="key_text",
            ),
            StandingIndex(fields=["run", "model", "id"], name="stagehand_entity_of_run"),
            StandingIndex(fields=["key_bigint", "model"], name="stagehand_entity_by_bigint"),
            StandingIndex(fields=["key_uuid", "model"], name="stagehand_entity_by_uuid"),
        ]
        ordering = ["run", F("ordinal").asc(nulls_last=True), "pk"]

    def __str__(self) -> str:
        return f"{self.type} {self.key_text}"

    @classmethod
    def is_shadow(cls, label: str) -> bool:
        """Whether that is what a shadow entry has for its model; an app may be called `shadow` too."""
        return label.startswith(cls.SHADOW_PREFIX) and label.count(".") > 1

    def row_key(self, model: Model) -> Any:
        """The primary key of the entry's row, as `model` has it in Python."""
        pk: Any = model._meta.pk
        if isinstance(pk, models.CompositePrimaryKey):
            fields: tuple[Any, ...] = pk.fields
            parts = zip(fields, json.loads(self.key_text), strict=True)
            return tuple(field.to_python(part) for field, part in parts)
        return pk.to_python(getattr(self, key_column(model)))


def entries_of_outer_row(model: type[models.Model], run: Any) -> TestEntityQuerySet:
    """The standing entries of `run` for the row of `model` that the query around this one looks at.

    The run is no condition that an index could serve, or a database without statistics would read all that
    the run has made, at each row.
    """
    its_run = ExpressionWrapper(F("run_id") + 0, output_field=models.BigIntegerField())
    wanted = run.pk if isinstance(run, TestRun) else run
    return all_entries_of_outer_row(model).alias(its_run=its_run).filter(its_run=wanted)


def all_entries_of_outer_row(model: type[models.Model]) -> TestEntityQuerySet:
    """The same of whatever run; no more than one, for a row has one standing entry."""
    return (
        TestEntity.objects.standing()
        .of_model(model)
        .filter(**{key_column(model): key_in_ledger(model, OuterRef)})
    )


def key_in_ledger(model: type[models.Model], column: Callable[[str], Any]) -> Any:
    """The row's key as `key_column(model)` has it, from the row's columns as `column` names them."""
    pk = model._meta.pk
    if isinstance(pk, models.CompositePrimaryKey):
        parts: list[Any] = []
        fields: tuple[Any, ...] = pk.fields
        for field in fields:
            parts += [Value('", "'), Cast(column(field.attname), models.CharField())]
        # As `Key.of` writes it. A part that needs escaping finds no entry: then the row counts as real.
        return Concat(Value('["'), *parts[1:], Value('"]'), output_field=models.CharField())
    if key_column(model) == "key_text" and not isinstance(pk, models.CharField | models.TextField):
        return Cast(column("pk"), models.CharField())
    return column("pk")


class Guard(models.Model):
    """A table on which `manage.py testdata guards install` put its triggers, and which ones."""

    table = models.CharField(max_length=255, unique=True)
    model = models.CharField(max_length=128)
    definition = models.CharField(max_length=64, help_text="A digest of the triggers as they were installed.")
    installed_at = models.DateTimeField(
        db_default=Now(), help_text="Entries made since are closed by the database when their row goes."
    )

    class Meta:
        ordering = ["table"]

    def __str__(self) -> str:
        return self.table


class PurgeUnderWay(models.Model):
    """A purge's transaction tells the triggers of SQLite whose rows it removes: a row that never commits.

    `model`, `first` and `last` are the set of entries that it closes itself, where there is one.
    """

    run_id = models.BigIntegerField(primary_key=True)
    model = models.CharField(max_length=128, db_default="")
    first = models.BigIntegerField(db_default=0)
    last = models.BigIntegerField(db_default=0)

    def __str__(self) -> str:
        return str(self.run_id)


class StatementUnderWay(models.Model):
    """A statement of a run tells those triggers of SQLite that look at foreign keys; it never commits."""

    run_id = models.BigIntegerField(primary_key=True)

    def __str__(self) -> str:
        return str(self.run_id)


class Receipt(models.Model):
    """What one purge did; kept when the run is gone."""

    run = models.ForeignKey(TestRun, on_delete=models.PROTECT, related_name="receipts")
    created_at = models.DateTimeField(db_default=Now())
    body = models.JSONField()
    digest = models.CharField(max_length=64)

    class Meta:
        indexes = [models.Index(fields=["run", "-id"], name="stagehand_receipt_latest")]
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.digest[:12]}"


class AppendOnlyQuerySet(models.QuerySet[Any]):
    """Reads and inserts; everything else raises AppendOnly."""

    def update(self, **kwargs: Any) -> int:
        raise AppendOnly

    def delete(self) -> tuple[int, dict[str, int]]:
        raise AppendOnly

    def bulk_update(self, *args: Any, **kwargs: Any) -> int:
        raise AppendOnly

    def update_or_create(self, *args: Any, **kwargs: Any) -> tuple[Any, bool]:
        raise AppendOnly

    def _raw_delete(self, using: str | None) -> int:
        raise AppendOnly


class AuditEntry(models.Model):
    """Who did what, from where, how much of it, and what came of it. See Note [The audit], `access.trail`."""

    class Via(models.TextChoices):
        API = "api", "API"
        ADMIN = "admin", "admin"
        COMMAND = "command", "command"
        TASK = "task", "task"
        CODE = "code", "code"

    at = models.DateTimeField(db_default=Now())
    via = models.CharField(max_length=8, choices=Via.choices)
    asked = models.CharField(max_length=64, blank=True, help_text="The route's operation, or the command.")
    operation = models.CharField(max_length=32, help_text="What was done.")
    owner = models.CharField(
        "who", max_length=128, blank=True, help_text="An access key, an OIDC subject, a user's key, a uid."
    )
    key_id = models.CharField("key ID", max_length=32, blank=True)
    name = models.CharField(max_length=128, blank=True, help_text="What the access key is called.")
    address = models.CharField(max_length=45, blank=True)
    test_id = models.CharField("test ID", max_length=128, blank=True)
    run_id = models.BigIntegerField(null=True, help_text="The run itself may be gone.")
    subject = models.CharField(max_length=255, blank=True, help_text="What it was done to, if not to a run.")
    counts = models.JSONField(default=dict, help_text="How many, by type.")
    result = models.CharField(max_length=32, help_text="'done', or the code of an error.")

    objects = AppendOnlyQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "audit entries"
        indexes = [
            models.Index(fields=["at"], name="stagehand_audit_at"),
            models.Index(fields=["test_id", "at"], name="stagehand_audit_test_id"),
            models.Index(fields=["owner", "at"], name="stagehand_audit_owner"),
        ]
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.operation} {self.test_id or self.subject}".strip()

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise AppendOnly
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise AppendOnly


class IdempotentAnswer(models.Model):
    """The answer to a request with an Idempotency-Key, committed with what the request did.

    See Note [Idempotency] in `access.idempotency`.
    """

    name = models.CharField(max_length=64, unique=True, help_text="A digest of whose key it is, and of it.")
    request = models.CharField(max_length=64, help_text="A digest of what was asked.")
    status = models.PositiveSmallIntegerField()
    body = models.TextField()
    created_at = models.DateTimeField(db_default=Now(), db_index=True)
    under_way_until = models.DateTimeField(
        null=True, help_text="Until then what it makes outside the database may still come."
    )
    goes_with_run = models.BigIntegerField(
        null=True, db_index=True, help_text="The run with whose end it is forgotten; none for most."
    )

    def __str__(self) -> str:
        return self.name[:12]


class AccessKey(models.Model):
    """What lets a caller in: who it is, what it may do, and until when. Its secret is not here.

    What is left empty of its lists and limits restricts nothing.
    """

    ID_LENGTH = 12
    DIGEST_LENGTH = 64
    NAME_LENGTH = 100
    HOLDER_LENGTH = 200

    public_id = models.CharField("ID", max_length=ID_LENGTH, unique=True, editable=False)
    owner = models.CharField(
        max_length=128,
        editable=False,
        help_text="Whose the runs are that it opens: the key's own, or all keys' of one OIDC subject.",
    )
    name = models.CharField(max_length=NAME_LENGTH)
    holder = models.CharField(
        max_length=HOLDER_LENGTH,
        blank=True,
        default="",
        help_text="Who answers for it: a person, a team, a pipeline.",
    )
    secret_digest = models.CharField(max_length=DIGEST_LENGTH, editable=False)
    former_digest = models.CharField(max_length=DIGEST_LENGTH, blank=True, default="", editable=False)
    former_until = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="How long the secret before the last rotation counts.",
    )
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, help_text="To the minute.")
    operations = models.JSONField(default=list, blank=True, help_text="What it may do; empty: everything.")
    entity_types = models.JSONField(default=list, blank=True, help_text="What it may make; empty: all types.")
    scopes = models.JSONField(default=list, blank=True, help_text="Runs it may open; empty: of every scope.")
    networks = models.JSONField(
        default=list, blank=True, help_text="Where it may come from, as CIDR; empty: anywhere."
    )
    max_minutes = models.PositiveIntegerField(
        null=True, blank=True, help_text="How long its runs may live, in minutes."
    )
    max_live_rows = models.PositiveIntegerField(
        null=True, blank=True, default=10_000, help_text="How many rows its runs may have at a time."
    )
    max_open_runs = models.PositiveIntegerField(
        null=True, blank=True, default=100, help_text="How many runs it may have open at a time."
    )

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(expires_at__gt=F("created_at")), name="stagehand_key_expires"),
            models.CheckConstraint(
                condition=Q(former_digest="", former_until__isnull=True)
                | (~Q(former_digest="") & Q(former_until__isnull=False)),
                name="stagehand_key_former_ends",
            ),
        ]
        indexes = [models.Index(fields=["owner"], name="stagehand_key_owner")]
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return self.name


class SpentToken(models.Model):
    """An OIDC token that was exchanged for a key, or an event that was taken, while it would count again."""

    DIGEST_LENGTH = 64

    digest = models.CharField(max_length=DIGEST_LENGTH, unique=True, help_text="Of its issuer and its jti.")
    expires_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["expires_at"], name="stagehand_token_expires")]

    def __str__(self) -> str:
        return self.digest


class QuotaLock(models.Model):
    """A row to lock while a quota is counted. See Note [How a quota holds] in `access.quotas`."""

    name = models.CharField(max_length=160, primary_key=True)

    def __str__(self) -> str:
        return self.name


class Message(models.Model):
    """An e-mail to a run's test addresses: kept here instead of being sent, and gone when the run closes."""

    #: A body is cut to this many characters, a line of the header to that many.
    TEXT_LENGTH = 256 * 1024
    LINE_LENGTH = 998

    run = models.ForeignKey(TestRun, on_delete=models.CASCADE, related_name="messages", db_index=False)
    created_at = models.DateTimeField(db_default=Now())
    sender = models.CharField(max_length=LINE_LENGTH)
    recipients = models.TextField(
        help_text="The run's own, in lower case, each with a line break before and after it."
    )
    subject = models.CharField(max_length=LINE_LENGTH, blank=True)
    text = models.TextField(blank=True)
    html = models.TextField(blank=True)
    attachments = models.JSONField(default=list, blank=True, help_text="Their names, types and sizes.")
    truncated = models.BooleanField(default=False, help_text="Whether something was too long to be kept.")

    class Meta:
        indexes = [models.Index(fields=["run", "-id"], name="stagehand_message_latest")]
        ordering = ["-pk"]

    def __str__(self) -> str:
        return self.subject

    @property
    def addresses(self) -> list[str]:
        return self.recipients.strip("\n").split("\n")

    @staticmethod
    def line_of(addresses: Iterable[str]) -> str:
        """What `recipients` holds: one address is found in it by `\n<address>\n`."""
        return "\n".join(["", *addresses, ""])


class RunSession(models.Model):
    """A session of the product in which a user of the run is signed in; it goes when the run closes."""

    run = models.ForeignKey(TestRun, on_delete=models.CASCADE, related_name="sessions")
    session_key = models.CharField(max_length=255)
    user_key = models.CharField(max_length=TestEntity.KEY_LENGTH)
    created_at = models.DateTimeField(db_default=Now())
    link_until = models.DateTimeField(
        null=True, blank=True, help_text="Until when its link may still be opened; none once it was."
    )

    def __str__(self) -> str:
        # The key itself is what a browser shows to be let in.
        return f"session {self.pk}"
