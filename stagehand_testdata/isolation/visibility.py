"""Who sees a test row? Nobody but its own run: real users and other runs see real rows.

# Note [Who is asking]
A queryset is often built long before it is used: on a view's class, in a form field, in a `Prefetch`. So what
hides rows is no filter by a value but a condition that asks for the current run when the query is compiled,
which is each time it is executed. Without a current run it lets real rows through and nothing else.

It sits in the manager's `get_queryset`, so whatever a queryset can do starts from it. A list of methods to
guard would leak through the one that is not on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from django.core.exceptions import FullResultSet
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Exists, F, Func, Q, QuerySet
from django.db.models.sql.compiler import SQLCompiler

from ..context import CurrentRun, current_run
from ..exceptions import ConfigurationError
from ..indexes import MarkedRowsIndex
from ..models import MARK, all_entries_of_outer_row, key_column

M = TypeVar("M", bound=models.Model)

if TYPE_CHECKING:
    _AnyManager = models.Manager[Any]
    _BigInteger = models.BigIntegerField[Any, Any]
else:
    _AnyManager = object  # a mixin: the host's manager comes after it
    _BigInteger = models.BigIntegerField


class HidesTestData(_AnyManager):
    """For a manager of the host's own: `class BookManager(HidesTestData, models.Manager)`."""

    def get_queryset(self) -> QuerySet[Any]:
        return hide_test_data(super().get_queryset())


class TestDataManager(HidesTestData, models.Manager[M]):
    """A default manager that hides test rows; see `hide_test_data`.

    With a queryset of the host's own: `objects = TestDataManager.from_queryset(BookQuerySet)()`.
    """

    __test__ = False


class _MarkField(_BigInteger):
    """A row that is made under a run says so from the start."""

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        run = current_run()
        if add and run is not None and (run.captured or run.fenced):
            setattr(model_instance, self.attname, run.pk)
        return super().pre_save(model_instance, add)

    def deconstruct(self) -> Any:
        # A host's migrations need not know of us.
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.BigIntegerField", args, kwargs


class TestDataModel(models.Model):
    """A model whose rows say themselves whether they are test rows, which is what makes hiding them cheap.

    `test_run_id` is null on a real row, and the key of the ledger's run on a test row. It points nowhere in
    the database: a product's table must not depend on the ledger's. Only rows that are made in the name of a
    run, and entered in its ledger, get it.

    A model with a `Meta` of its own inherits this one's for the index: `class Meta(TestDataModel.Meta)`. A
    multi-table child has a `Meta` that does not: the column is in its parent's table.
    """

    __test__ = False

    test_run_id = _MarkField(null=True, editable=False)

    objects: models.Manager[Any] = TestDataManager()
    #: Every row of the table, real or not, whoever asks.
    all_rows: models.Manager[Any] = models.Manager()

    class Meta:
        abstract = True
        indexes = [MarkedRowsIndex(fields=[MARK])]


def hide_test_data(queryset: QuerySet[M]) -> QuerySet[M]:
    """The queryset without test rows, but for those of the run that is current when it is executed.

    For a `TestDataModel` this compares one column. For any other model it is a `NOT EXISTS` on the ledger,
    which costs one lookup in an index for each row that the database looks at: a list of 50 took 1.8 times as
    long, a count 2.5 times. Where all of the newest rows are test rows, a list looks at each before it finds
    the first real one. Nothing is remembered of a model that has no test rows, and nothing asked beforehand:
    a row that is made in between would be seen. Then the lookups find an empty part of the index.

    Raises ConfigurationError where a model's keys cannot be compared with the ledger's.
    """
    return queryset.filter(_seen(queryset.model))


def unhidable(model: type[models.Model]) -> str | None:
    """Why the ledger cannot hide rows of `model`; None where it can."""
    if issubclass(model, TestDataModel):
        return None
    pk = model._meta.pk
    if isinstance(pk, models.CompositePrimaryKey):
        # The ledger has them as one text, which the database must be able to write in just the same way.
        fields: tuple[Any, ...] = pk.fields
        comparable = all(isinstance(_column(field), models.IntegerField) for field in fields)
    else:
        kept_as_text = key_column(model) == "key_text"
        comparable = not kept_as_text or isinstance(_column(pk), models.CharField | models.TextField)
    if comparable:
        return None
    return f"The keys of {model._meta.label} cannot be compared with the ledger's: it needs a TestDataModel."


def _seen(model: type[models.Model]) -> Q:
    """The rows that whoever executes the query may see. See Note [Who is asking]."""
    if issubclass(model, TestDataModel):
        return Q(_RealOrOwn(MARK))
    reason = unhidable(model)
    if reason is not None:
        raise ConfigurationError(reason)
    return Q(~Exists(all_entries_of_outer_row(model).filter(_NotOwn("run"))))


class _AsksForTheRun(Func):
    """A condition on one column, which is written anew each time the query is compiled."""

    arity = 1

    def __init__(self, column: str) -> None:
        super().__init__(F(column), output_field=models.BooleanField())

    def as_sql(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, *args: Any, **kwargs: Any
    ) -> tuple[str, Any]:
        column, params = compiler.compile(self.source_expressions[0])
        return self.condition(column, tuple(params), current_run())

    def condition(
        self, column: str, params: tuple[Any, ...], run: CurrentRun | None
    ) -> tuple[str, tuple[Any, ...]]:
        raise NotImplementedError


class _RealOrOwn(_AsksForTheRun):
    """Of a marked table's rows: the real ones and the current run's."""

    def condition(
        self, column: str, params: tuple[Any, ...], run: CurrentRun | None
    ) -> tuple[str, tuple[Any, ...]]:
        if run is None:
            return f"({column} IS NULL)", params
        return f"({column} IS NULL OR {column} = %s)", (*params, *params, run.pk)


class _NotOwn(_AsksForTheRun):
    """Of the ledger's entries: those of any other run; all of them where no run is current."""

    def condition(
        self, column: str, params: tuple[Any, ...], run: CurrentRun | None
    ) -> tuple[str, tuple[Any, ...]]:
        if run is None:
            raise FullResultSet
        return f"({column} <> %s)", (*params, run.pk)


def _column(field: Any) -> models.Field[Any, Any]:
    """The column itself, where the field points at another's."""
    while field.is_relation:
        field = field.target_field
    return field  # type: ignore[no-any-return]
