"""Run any factory_boy factory, as it is, with the run's own values.

Imported only when a row is made: factory_boy takes a second and a half to import.

# Note [Seeding a factory from outside]
Whatever a factory does on its way ends in a `StepBuilder`: a sub-factory, a related one, one that a hook
calls by its name, one with a `_generate` of its own. A builder asks the factory's `_meta` for the
declarations and for the next sequence number. Within a creating call it gets a view of `_meta` instead, whose
declarations first choose a generator from (seed, place, factory, number, field). The factory itself is not
touched.

So that they know of the creating call, `StepBuilder.__init__`, `Iterator.evaluate` and the two process-wide
generators are stood in for when this module is imported. Outside a creating call, and in other threads and
tasks meanwhile, all of them do what they always did.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import factory
import factory.random
import faker.generator
from factory import enums
from factory.builder import DeclarationSet, StepBuilder
from factory.declarations import BaseDeclaration

from .. import seeding

#: Sequence numbers of one run follow each other; different runs start this far apart, all within a
#: 32-bit column, so that a unique `Sequence` does not collide between runs or with the first real rows.
_NUMBERS_PER_RUN = 1000
_RUNS = 2_000_000
#: Where a small integer column leaves room above.
_COMPACT = 30_000

Place = tuple[object, ...]


@dataclass
class Values:
    """Where one creating call takes its values from."""

    seed: int
    #: How many rows the run had before this call: the next row of a factory is numbered from here.
    start: int
    #: Which numbers to draw: another attempt draws others, after a collision with another call's.
    attempt: int = 0
    #: Numbers that fit small columns and dates, for the factories that overflow with the usual ones.
    compact: bool = False
    #: Nothing is saved: factories build their rows, and each is given to this as soon as it is there.
    take_up: Callable[[Any], None] | None = None
    _made: dict[str, int] = field(default_factory=dict)

    def next_sequence(self, name: str) -> int:
        nth = self.start + self._made.get(name, 0)
        self._made[name] = self._made.get(name, 0) + 1
        return self.base + nth

    @cached_property
    def base(self) -> int:
        if self.compact:
            return seeding.number(self.seed, "sequence", self.attempt, limit=_COMPACT)
        return seeding.number(self.seed, "sequence", self.attempt, limit=_RUNS) * _NUMBERS_PER_RUN

    def nth(self, sequence: int) -> int:
        return max(sequence - self.base, 0)


_values: ContextVar[Values | None] = ContextVar("stagehand_testdata_values", default=None)
#: The field that is being made: a factory that is called for it draws from generators of its own below.
_place: ContextVar[Place] = ContextVar("stagehand_testdata_place", default=())


def create(factory_class: Any, values: Values, fields: Mapping[str, Any]) -> Any:
    """The instance that `factory_class.create(**fields)` gives, its values drawn from `values`."""
    token = _values.set(values)
    try:
        # Whatever draws outside a declaration (a save signal, an overridden `_create`) is seeded too.
        with _drawing_at((_name(factory_class), values.start, values.attempt), values):
            return factory_class.create(**fields)
    finally:
        _values.reset(token)


class _SeededMeta:
    """A factory's `_meta`, but for where values and sequence numbers come from."""

    def __init__(self, meta: Any, values: Values) -> None:
        self._meta = meta
        self._values = values
        self.pre_declarations = _seeded_set(meta, meta.pre_declarations)
        self.post_declarations = _seeded_set(meta, meta.post_declarations)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._meta, name)

    def instantiate(self, step: Any, args: Any, kwargs: Any) -> Any:
        instance = self._meta.instantiate(step, args, kwargs)
        if self._values.take_up is not None:
            self._values.take_up(instance)
        return instance

    def next_sequence(self) -> int:
        # Factories that derive from one another count together, as they do without us.
        counting = self._meta.counter_reference
        return self._values.next_sequence(_name(getattr(counting, "factory", counting)))


class _SeededDeclaration(BaseDeclaration):  # type: ignore[misc]
    """A declaration that draws from the generator of its own field."""

    def __init__(self, factory_name: str, name: str, declaration: Any) -> None:
        self._factory_name = factory_name
        self._name = name
        self._declaration = declaration
        for trait in ("FACTORY_BUILDER_PHASE", "CAPTURE_OVERRIDES", "_creation_counter"):
            if hasattr(declaration, trait):
                setattr(self, trait, getattr(declaration, trait))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._declaration, name)

    def evaluate_pre(self, instance: Any, step: Any, overrides: Any) -> Any:
        with self._drawing(step):
            return self._declaration.evaluate_pre(instance=instance, step=step, overrides=overrides)

    def evaluate_post(self, instance: Any, step: Any, overrides: Any) -> Any:
        with self._drawing(step):
            return self._declaration.evaluate_post(instance=instance, step=step, overrides=overrides)

    @contextmanager
    def _drawing(self, step: Any) -> Iterator[None]:
        # The builder's place, not that of the field which happens to be read just now: a lazy attribute
        # may read this one before its turn, and must not change what it is.
        place = (*step.builder.place, self._factory_name, step.sequence, self._name)
        with _drawing_at(place, step.builder.values):
            yield


class _Replay:
    """The items of a `factory.Iterator` by their position, whoever has drawn from it before."""

    def __init__(self, declaration: Any) -> None:
        self._source = iter(declaration.iterator_builder())
        self._items: list[Any] = []
        self._lock = threading.Lock()

    def at(self, position: int) -> Any:
        """Raises StopIteration past the end, as the iterator does."""
        with self._lock:
            while len(self._items) <= position:
                self._items.append(next(self._source))
            return self._items[position]


_seeded_sets: WeakKeyDictionary[Any, dict[int, DeclarationSet]] = WeakKeyDictionary()
_replays: WeakKeyDictionary[Any, _Replay] = WeakKeyDictionary()


def _seeded_set(meta: Any, plain: DeclarationSet) -> DeclarationSet:
    known = _seeded_sets.setdefault(meta, {})
    if id(plain) not in known:
        name = _name(meta.factory)
        seeded = plain.copy()
        for each, declaration in plain.declarations.items():
            seeded.declarations[each] = _seeded(name, each, declaration)
        known[id(plain)] = seeded
    return known[id(plain)]


def _seeded(factory_name: str, name: str, value: Any) -> Any:
    if isinstance(value, _SeededDeclaration) or enums.get_builder_phase(value) is None:
        return value
    return _SeededDeclaration(factory_name, name, value)


@contextmanager
def _drawing_at(place: Place, values: Values) -> Iterator[None]:
    token = _place.set(place)
    try:
        with seeding.drawing_from(seeding.generator(values.seed, *place)):
            yield
    finally:
        _place.reset(token)


def _name(factory_class: Any) -> str:
    return f"{factory_class.__module__}.{factory_class.__qualname__}"


# --- what stands in for factory_boy's own ----------------------------------------------------------------


def _seeded_init(plain: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(plain)
    def init(self: Any, factory_meta: Any, extras: Mapping[str, Any], strategy: str) -> None:
        values = _values.get()
        if values is not None:
            self.values, self.place = values, _place.get()
            name = _name(factory_meta.factory)
            extras = {key: _seeded(name, key, value) for key, value in extras.items()}
            factory_meta = _SeededMeta(factory_meta, values)
            if values.take_up is not None:
                # Whoever asked to create: a hook that calls a factory by its name does.
                strategy = enums.BUILD_STRATEGY
        plain(self, factory_meta, extras, strategy)

    return init


def _replaying_evaluate(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def evaluate(self: Any, instance: Any, step: Any, extra: Any) -> Any:
        values: Values | None = getattr(step.builder, "values", None)
        if values is None:
            return plain(self, instance, step, extra)
        if self not in _replays:
            _replays.setdefault(self, _Replay(self))
        item = _replays[self].at(values.nth(step.sequence))
        return item if self.getter is None else self.getter(item)

    return evaluate


StepBuilder.__init__ = _seeded_init(StepBuilder.__init__)
factory.Iterator.evaluate = _replaying_evaluate(factory.Iterator.evaluate)
seeding.delegate(factory.random.randgen)
seeding.delegate(faker.generator.random)
