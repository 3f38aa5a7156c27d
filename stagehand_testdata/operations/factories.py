"""Run any factory_boy factory, as it is, with the run's own values.

Imported only when a row is made: factory_boy takes a second and a half to import.

# Note [Seeding a factory from outside]
factory_boy builds through a `StepBuilder`, which asks the factory's `_meta` for the declarations and for the
next sequence number. Ours hands the builder a view of `_meta` whose declarations first choose a generator
from (seed, factory, number, field). The factory itself is not touched, and sub-factories come by the same
way because a builder recurses into its own class.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any

import factory
import factory.random
from factory import enums
from factory.builder import DeclarationSet, StepBuilder

from .. import seeding

#: Sequence numbers of one run follow each other; different runs start this far apart, all within a
#: 32-bit column, so that a unique `Sequence` does not collide between runs or with the first real rows.
_NUMBERS_PER_RUN = 1000
_RUNS = 2_000_000
_COMPACT_RUNS = 30


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
    _made: dict[str, int] = field(default_factory=dict)

    def next_sequence(self, name: str) -> int:
        nth = self.start + self._made.get(name, 0)
        self._made[name] = self._made.get(name, 0) + 1
        return self.base + nth

    @cached_property
    def base(self) -> int:
        runs = _COMPACT_RUNS if self.compact else _RUNS
        return seeding.number(self.seed, "sequence", self.attempt, limit=runs) * _NUMBERS_PER_RUN

    def nth(self, sequence: int) -> int:
        return max(sequence - self.base, 0)


_values: ContextVar[Values] = ContextVar("stagehand_testdata_values")


def create(factory_class: Any, values: Values, fields: Mapping[str, Any]) -> Any:
    """The instance that `factory_class.create(**fields)` gives, its values drawn from `values`."""
    _stand_in_for_global_generators()
    token = _values.set(values)
    try:
        name = _name(factory_class)
        # Whatever draws outside a declaration (a save signal, an overridden `_create`) is seeded too.
        with seeding.drawing_from(seeding.generator(values.seed, name, values.start, values.attempt)):
            if not _is_plain(factory_class):
                return factory_class.create(**fields)
            return SeededBuilder(factory_class._meta, dict(fields), enums.CREATE_STRATEGY).build()
    finally:
        _values.reset(token)


def declared_names(factory_class: Any) -> set[str]:
    """What the factory itself gives a value to."""
    return set(factory_class._meta.pre_declarations) | set(factory_class._meta.post_declarations)


class SeededBuilder(StepBuilder):  # type: ignore[misc]
    """Builds like its parent; see Note [Seeding a factory from outside]."""

    def __init__(self, factory_meta: Any, extras: dict[str, Any], strategy: str) -> None:
        super().__init__(_SeededMeta(factory_meta), extras, strategy)

    def recurse(self, factory_meta: Any, extras: dict[str, Any]) -> StepBuilder:
        builder = type(self) if _is_plain(factory_meta.factory) else StepBuilder
        return builder(factory_meta, extras, strategy=self.strategy)


class _SeededMeta:
    """A factory's `_meta`, but for where values and sequence numbers come from."""

    def __init__(self, meta: Any) -> None:
        self._meta = meta
        self.pre_declarations, self.post_declarations = _seeded_declarations(meta)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._meta, name)

    def next_sequence(self) -> int:
        return _values.get().next_sequence(_name(self._meta.factory))


@lru_cache(maxsize=None)
def _seeded_declarations(meta: Any) -> tuple[DeclarationSet, DeclarationSet]:
    name = _name(meta.factory)
    sets = []
    for plain in (meta.pre_declarations, meta.post_declarations):
        seeded = plain.copy()
        for each, declaration in plain.declarations.items():
            if enums.get_builder_phase(declaration) is not None:
                seeded.declarations[each] = _SeededDeclaration(name, each, declaration)
        sets.append(seeded)
    return sets[0], sets[1]


class _SeededDeclaration:
    """A declaration that draws from the generator of its own field."""

    def __init__(self, factory_name: str, name: str, declaration: Any) -> None:
        self._factory_name = factory_name
        self._name = name
        self._declaration = declaration
        if isinstance(declaration, factory.Faker):
            self._declaration = copy.copy(declaration)
            self._declaration._get_faker = _delegating_faker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._declaration, name)

    def evaluate_pre(self, instance: Any, step: Any, overrides: Any) -> Any:
        values = _values.get()
        declaration = self._declaration
        if isinstance(declaration, factory.Iterator):
            declaration = _at(declaration, values.nth(step.sequence))
        with self._drawing(values, step):
            return declaration.evaluate_pre(instance=instance, step=step, overrides=overrides)

    def evaluate_post(self, instance: Any, step: Any, overrides: Any) -> Any:
        with self._drawing(_values.get(), step):
            return self._declaration.evaluate_post(instance=instance, step=step, overrides=overrides)

    def _drawing(self, values: Values, step: Any) -> Any:
        place = (self._factory_name, step.sequence, self._name)
        return seeding.drawing_from(seeding.generator(values.seed, *place))


def _at(iterator: Any, position: int) -> Any:
    """The same `factory.Iterator`, standing at `position` from its start whatever others have drawn."""
    own = copy.copy(iterator)
    own.iterator = None
    fresh = list(islice(own.iterator_builder(), position, position + 1))
    if not fresh:  # a generator that others have used up: nothing to start again from
        return iterator
    own.iterator = iter(fresh)
    return own


def _delegating_faker(locale: str | None = None) -> Any:
    """The Faker that factory_boy keeps for the locale, with the host's own providers in it."""
    faker = factory.Faker._get_faker(locale)
    for generator in faker.factories:
        if not isinstance(generator.random, seeding.DelegatingRandom):
            generator.random = seeding.DelegatingRandom(generator.random)
    return faker


def _stand_in_for_global_generators() -> None:
    if not isinstance(factory.random.randgen, seeding.DelegatingRandom):
        factory.random.randgen = seeding.DelegatingRandom(factory.random.randgen)


def _is_plain(factory_class: Any) -> bool:
    """Whether the factory builds the way factory_boy does; one that brings its own way keeps it."""
    return factory_class._generate.__func__ in (
        factory.Factory._generate.__func__,
        factory.django.DjangoModelFactory._generate.__func__,
    )


def _name(factory_class: Any) -> str:
    return f"{factory_class.__module__}.{factory_class.__qualname__}"
