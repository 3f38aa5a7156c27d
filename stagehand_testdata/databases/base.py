"""The strategy that any database with row locks can follow; the others refine it."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, NamedTuple, TypeVar

from django.apps import apps
from django.db import DatabaseError, OperationalError, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Aggregate, CharField, Model, QuerySet
from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLCompiler

from .. import fingerprints
from ..context import CurrentRun
from ..models import MARK, Key, TestEntity
from .compiled import Mark, compile_once, filled_in
from .guards import RECORDS, GuardedTable, HeldGuard, HeldPolicy, digest_of, literal

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=Model)
R = TypeVar("R")

#: What `read_shared_by` has compiled, by alias and what builds it.
_compiled: dict[tuple[str, Callable[..., Any]], QuerySet[Any]] = {}

_names: set[tuple[str, str]] = set()
_names_lock = threading.Lock()


class Sender(NamedTuple):
    """In whose name a statement is sent; the run may be none."""

    run: CurrentRun | None
    #: FENCE, as it is set.
    fence: str
    #: Whether no policy of ours is to hide anything from it.
    all_rows: bool


class Database:
    """The database that a connection is to."""

    #: What a SELECT ends with to lock its rows against writers but not against other readers of this kind.
    share_suffix: str | None = None

    #: Whether guards can be had here at all.
    can_guard: ClassVar[bool] = False

    #: Whether guards enter the rows that a run's statement inserts, whoever wrote it.
    can_capture: ClassVar[bool] = False

    #: Whether a guard sees every way in which a row can go, so that a standing entry made under it is by
    #: itself the proof that its row is the one that was made.
    closes_entries: ClassVar[bool] = False

    #: Whether a transaction that holds any row for writing holds all there are.
    has_every_lock: ClassVar[bool] = False

    #: Whether the guards leave the entries of a `removing_set` for the purge to close.
    leaves_sets_open: ClassVar[bool] = False

    #: Whether a trigger that names a table is in the way of Django's rebuilding that table.
    guards_hinder_rebuilds: ClassVar[bool] = False

    #: Whether the database itself can hide rows.
    can_hide_rows: ClassVar[bool] = False

    def __init__(self, connection: Any) -> None:
        self.alias: str = connection.alias
        self.connection = connection
        #: In whose name the last statement was sent, for whoever sends them through this very object.
        self.last_run: CurrentRun | None = None

    def read_shared(self, rows: QuerySet[M], *, skip_locked: bool = False) -> list[M]:
        """The rows, locked until the transaction ends against `read_exclusive`, not against one another.

        With `skip_locked`, none that somebody has locked exclusively, where the database can skip them.
        """
        if self.share_suffix is None:
            return self.read_exclusive(rows, skip_locked=skip_locked)
        return list(self._sharing(rows, self.share_suffix, skip_locked=skip_locked))

    def read_shared_by(self, build: Callable[..., QuerySet[M]], **values: str) -> list[M]:
        """`read_shared(build(**values))`, of a statement that is compiled at the first call alone.

        `build` does with the values nothing but to compare columns with them.
        """
        suffix = self.share_suffix
        if suffix is None:
            return self.read_shared(build(**values))
        compiled = _compiled.get((self.alias, build))
        if compiled is None:
            rows = build(**{name: Mark(name) for name in values})
            compiled = compile_once(self._sharing(rows, suffix))
            _compiled[self.alias, build] = compiled
        return list(filled_in(compiled, values))

    def _sharing(self, rows: QuerySet[M], suffix: str, *, skip_locked: bool = False) -> QuerySet[M]:
        locked = rows.using(self.alias).all()
        query: Any = locked.query.chain(klass=ShareLockQuery)
        query.share_suffix = suffix.format(table=self.connection.ops.quote_name(rows.model._meta.db_table))
        if skip_locked and self.connection.features.has_select_for_update_skip_locked:
            query.share_suffix += " SKIP LOCKED"
        locked.query = query
        return locked

    def read_exclusive(self, rows: QuerySet[M], *, skip_locked: bool = False) -> list[M]:
        """The rows, locked until the transaction ends against everybody, as they are once they are locked.

        With `skip_locked`, none that somebody else has locked already, where the database can skip them.
        """
        of = ("self",) if self.connection.features.has_select_for_update_of else ()
        # A statement sees what was committed when it began. One that had to wait for its lock would count
        # without the entries that it waited for: so the lock comes first, and the look after it.
        skip = skip_locked and self.connection.features.has_select_for_update_skip_locked
        locked = rows.using(self.alias).select_for_update(of=of, skip_locked=skip)
        keys = list(locked.values_list("pk", flat=True))
        return list(rows.using(self.alias).filter(pk__in=keys)) if keys else []

    def skipping_locked(self, rows: QuerySet[M, R]) -> QuerySet[M, R]:
        """The rows, locked until the transaction ends, but for those that somebody else has locked."""
        skip = self.connection.features.has_select_for_update_skip_locked
        return rows.select_for_update(skip_locked=skip)

    def lock_free(self, rows: QuerySet[Model]) -> int:
        """Lock the rows until the transaction ends, but for those that somebody else has; how many."""
        return len(self.skipping_locked(rows.values_list("pk")))

    def send(self, sender: Sender, statement: Any, execute: Callable[[Any], Any], cursor: Any) -> Any:
        """Execute the statement so that the database knows in whose name.

        `statement` is what a cursor takes: text, bytes, composed; `cursor` is Django's. What the database
        refuses because of the run it refuses with `databases.guards.FENCE` or `CAPTURE`.
        """
        return execute(statement)

    def has_table(self, model: type[Model]) -> bool:
        """Whether the model's table can be asked, in whatever schema it is."""
        try:
            with transaction.atomic(using=self.alias):
                QuerySet(model, using=self.alias).order_by().exists()
        except DatabaseError as error:
            if not self.is_missing_table(error):
                raise
            return False
        return True

    def is_missing_table(self, error: DatabaseError) -> bool:
        """Whether it says that there is no such table."""
        return False

    def let_go_of_run(self) -> None:
        """From now on whatever this transaction makes in the name of a run asks anew whether it is open."""

    @contextmanager
    def atomic_alone(self, name: str) -> Iterator[bool]:
        """A transaction in which nobody else has that name; False where somebody has it, without waiting.

        `name` is a digest in hexadecimal. Here only the threads of this process are told apart: others wait
        for what the transaction locks.
        """
        held = (self.alias, name)
        with _names_lock:
            alone = held not in _names
            _names.add(held)
        if not alone:
            yield False
            return
        try:
            with transaction.atomic(using=self.alias):
                yield True
        finally:
            with _names_lock:
                _names.discard(held)

    def append_only_sql(self, table: str) -> list[str]:
        """The statements that make the database refuse to change or delete rows of this table of ours."""
        return []

    def not_append_only_sql(self, table: str) -> list[str]:
        """The statements that take that back."""
        return []

    @contextmanager
    def pruning_audit(self) -> Iterator[None]:
        """Within the block, and on this connection alone, rows of the audit may be deleted."""
        yield

    def let_flush_through(self) -> None:
        """Let Django's `flush` empty append-only tables on this connection."""

    def _flush_with(self, door: Callable[[], AbstractContextManager[None]]) -> None:
        ops: Any = self.connection.ops
        if hasattr(ops, "stagehand_flush"):
            return
        ops.stagehand_flush = plain = ops.execute_sql_flush

        def execute_sql_flush(*args: Any, **kwargs: Any) -> Any:
            with door():
                return plain(*args, **kwargs)

        ops.execute_sql_flush = execute_sql_flush

    def prepare_for_many(self) -> None:
        """The rest of the transaction looks up thousands of rows by their index, and removes them.

        Not for a transaction that acknowledges a row: its commit need not outlive a crash at once.
        """

    def chose_a_victim(self, error: OperationalError) -> bool:
        """Whether the database broke off a healthy transaction, to be done again: a deadlock and the like."""
        return False

    def is_index(self, model: type[Model]) -> bool:
        """Whether the model's table only mirrors others, kept in step by the database itself."""
        return False

    @contextmanager
    def purging(self, run_id: int) -> Iterator[None]:
        """Within the block the guards are awake: they refuse whatever is done to a row not of this run.

        Belongs into the transaction that removes the rows, and says so to its connection alone.
        """
        self._require_transaction()
        yield

    @contextmanager
    def unguarded(self) -> Iterator[None]:
        """A pause within `purging`, for rows that this very transaction has made."""
        yield

    @contextmanager
    def removing_set(self, model: str, first: int, last: int) -> Iterator[None]:
        """A part of `purging` that deletes the rows of the model's entries with these ids, and no others."""
        yield

    def guard_sql(self, table: GuardedTable) -> list[str]:
        """The statements that put up, or renew, the guards of this table."""
        raise NotImplementedError

    def unguard_sql(self, name: str) -> list[str]:
        """The statements that take down the guards of that name, as far as they are there."""
        raise NotImplementedError

    def put_right(self, error: Exception) -> bool:
        """Whether the error came of what this connection has put up for itself: it is taken down then."""
        return False

    def take_down_own(self) -> None:
        """Take down what this connection has put up for itself, beside the guards of the database."""

    def record_sql(self, table: GuardedTable) -> list[str]:
        """The statements that write down which guards the table has since when."""
        raise NotImplementedError

    def forget_sql(self, table: str) -> list[str]:
        """The statements that take the table off the record."""
        quote = self.connection.ops.quote_name
        return [f"DELETE FROM {quote(RECORDS)} WHERE {quote('table')} = {literal(table)}"]  # noqa: S608

    def hiding_sql(self, table: str, column: str) -> list[str]:
        """The statements that make the database hide the table's marked rows."""
        raise NotImplementedError

    def recording_sql(self, table: str, column: str) -> list[str]:
        """The statements that write down, where the policies are, what they were made as."""
        raise NotImplementedError

    def showing_sql(self, table: str) -> list[str]:
        """The statements that take that back, and nothing that the host has put up."""
        raise NotImplementedError

    def forgetting_sql(self) -> list[str]:
        """The statements that take away what all tables share, once none hides its rows any more."""
        raise NotImplementedError

    def held_policies(self) -> dict[str, HeldPolicy]:
        """What the catalogue holds of tables with row-level security, by name."""
        return {}

    def wanted_policy(self, table: str, column: str) -> str:
        return digest_of(self.hiding_sql(table, column))

    def passing_role(self) -> str:
        """The connection's role where no policy holds it back; empty where it does."""
        return ""

    def owned_tables(self, tables: Iterable[str]) -> list[str]:
        """Those of these tables that the connection's role may alter, guards and policies included."""
        return []

    def refuses_triggers(self, table: str) -> str:
        """Why this table, which is there, can get no triggers; empty where it can."""
        return ""

    def held_guards(self) -> dict[str, HeldGuard]:
        """What the catalogue holds, by the guards' names."""
        return {}

    def wanted_digest(self, table: GuardedTable) -> str:
        return digest_of(self.guard_sql(table))

    def triggers_fire(self) -> bool:
        """Whether triggers run on this connection at all."""
        return True

    def as_script(self, statements: list[str]) -> list[str]:
        """The statements as the database's own command line reads them."""
        return [f"{statement};" for statement in statements]

    @contextmanager
    def locking_briefly(self) -> Iterator[None]:
        """Within the block nobody waits long for a table or a row."""
        yield

    @contextmanager
    def hardly_waiting(self) -> Iterator[None]:
        """Within the block a lock is waited for long enough to outlast a short statement, not to deadlock."""
        yield

    @contextmanager
    def limiting_statements(self, seconds: float) -> Iterator[None]:
        """Within the block no statement takes longer, where the database can see to it.

        Belongs into a transaction, and may last until that ends.
        """
        yield

    def is_statement_timeout(self, error: OperationalError) -> bool:
        """Whether a statement took longer than `limiting_statements` lets it."""
        return False

    def is_lock_timeout(self, error: OperationalError) -> bool:
        """Whether a lock could not be had in time."""
        return False

    def execute(self, statement: str, params: list[Any] | None = None) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(statement, params)

    def insert(
        self,
        model: type[Model],
        columns: tuple[str, ...],
        values: list[Any],
        *,
        constant: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Insert rows of the ledger's own: the values of these columns, one row's after the other's.

        Written out, for to compile an INSERT of twenty columns takes the ORM longer than to make the rows.
        JSON is text; `constant` are columns that have the same text or number in each row; what is not named
        has the database's default.
        """
        count = len(values) // len(columns)
        quote = self.connection.ops.quote_name
        names = ", ".join(map(quote, (*columns, *(name for name, _ in constant))))
        row = ", ".join([*["%s"] * len(columns), *(literal(value) for _, value in constant)])
        rows = ", ".join([f"({row})"] * count)
        self.execute(f"INSERT INTO {quote(model._meta.db_table)} ({names}) VALUES {rows}", values)  # noqa: S608

    def _require_transaction(self) -> None:
        # Outside of one the setting would end with the statement that makes it, and the guards sleep on.
        if not self.connection.in_atomic_block:
            raise transaction.TransactionManagementError("Guards are awake within a transaction alone.")

    @property
    def says_broken_references(self) -> bool:
        """Whether this transaction raises IntegrityError for each broken reference before it has committed.

        By `surface_broken_references`, or as it commits.
        """
        return False

    def surface_broken_references(self) -> None:
        """Raise IntegrityError now where the commit would, if the database can say so cheaply."""

    def compare_exactly(
        self, editor: BaseDatabaseSchemaEditor, model: type[Model], fields: tuple[str, ...]
    ) -> None:
        """Make these text columns compare byte by byte where the database would fold case."""


def complete_entries(alias: str, run: CurrentRun, first: int) -> None:
    """What a trigger could not do for the rows that it has entered, from this entry on.

    It takes their fingerprints, for databases where a standing entry alone proves nothing, and sets the mark
    of a `TestDataModel` that raw SQL does not know.
    """
    entries = TestEntity.objects.using(alias).filter(
        pk__gte=first, run=run.pk, origin=TestEntity.Origin.CAPTURED
    )
    bare: dict[str, list[TestEntity]] = defaultdict(list)
    for entry in entries.order_by("model").iterator():
        if not entry.fingerprint:
            bare[entry.model].append(entry)
    for label, some in bare.items():
        model: type[Model] = apps.get_model(label)
        if any(field.attname == MARK for field in model._meta.local_concrete_fields):
            _rows_of(alias, model, some).filter(**{MARK: None}).update(**{MARK: run.pk})
        take_fingerprints(alias, model, some, [each.attname for each in fingerprints.columns(model)])


def take_fingerprints(
    alias: str, model: type[Model], entries: Sequence[TestEntity], attnames: Sequence[str]
) -> None:
    """Give these entries of `model` the fingerprints that their rows have by those of its columns."""
    by_key = {entry.key_text: entry for entry in entries}
    for row in _rows_of(alias, model, entries).values("pk", *attnames):
        by_key[Key.of(model, row["pk"]).text].fingerprint = fingerprints.take(model, row)
    TestEntity.objects.using(alias).bulk_update(entries, ["fingerprint"], batch_size=500)


def _rows_of(alias: str, model: type[Model], entries: Sequence[TestEntity]) -> QuerySet[Any]:
    made = [entry.row_key(model) for entry in entries]
    return QuerySet(model, using=alias).filter(pk__in=made)


def tell_touched(run: CurrentRun | None, table: str) -> None:
    """With FENCE = "report": the log is told, and the statement stands."""
    logger.warning("%s touched a row of %s that is not its own", run.test_id if run else "a test run", table)


class ShareLockQuery(Query):
    """A SELECT that ends with the database's own words for a shared row lock.

    Django's `select_for_update` knows exclusive locks only.
    """

    share_suffix = ""

    def get_compiler(self, *args: Any, **kwargs: Any) -> SQLCompiler:
        compiler: SQLCompiler = super().get_compiler(*args, **kwargs)
        plain = compiler.as_sql

        def as_sql(*args: Any, **kwargs: Any) -> Any:
            sql, params = plain(*args, **kwargs)
            return f"{sql} {self.share_suffix}", params

        compiler.as_sql = as_sql  # type: ignore[method-assign]
        return compiler


class JoinedText(Aggregate):
    """All values of a group in one text, joined by commas; NULL where there is none."""

    function = "GROUP_CONCAT"
    output_field = CharField()

    def as_postgresql(self, compiler: SQLCompiler, connection: Any, **extra: Any) -> Any:
        return self.as_sql(
            compiler,
            connection,
            function="STRING_AGG",
            template="%(function)s(%(expressions)s, ',')",
            **extra,
        )
