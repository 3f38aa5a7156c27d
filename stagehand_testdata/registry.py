"""What can be made here: entity types, things outside the database, scenarios, the host's own operations.

Registrations come from `ENTITY_TYPES` in the settings and from a `testdata` module in any installed app::

    # shop/testdata.py
    from stagehand_testdata.registry import EntityType, Scenario

    entity_types = [EntityType("product", "shop.factories.ProductFactory")]
    scenarios = [Scenario("full_basket", "shop.scenarios.full_basket")]

Paths are dotted text and are followed when the first row is made: starting the host imports no factory.
"""

from __future__ import annotations

import importlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Generic, Protocol, TypeVar

from django.apps import apps
from django.core.signals import setting_changed
from django.db import models
from django.utils.module_loading import import_string, module_has_submodule

from .conf import NAME, Settings, settings
from .exceptions import ConfigurationError, DuplicateName

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


class Named(Protocol):
    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=Named)


@dataclass(frozen=True, slots=True)
class EntityType:
    """A name and a factory_boy factory: something that a run may hold.

    `factory`
        Dotted path of a `DjangoModelFactory`, or the class.
    `fields`
        Names that a client may set. Default: the model's own editable columns, without keys, passwords
        and privileges. Names of factory parameters may be listed too; privileges never get through.
    `exclude`
        Names taken away from the default.
    `plural`
        Another name for it in `POST batch` (`{"builders": 5}`).
    `represent`
        `(instance, run) → dict`: the row in the answers of scenarios and batches. Default: the generic
        `{id, type, testId, isTest, fields}`.
    `make_many`
        `(call, count) → instances`: how a batch makes some of it beside what it has made so far; `count`
        is None where the client says `true`. Default: the factory, `count` times.
    """

    name: str
    factory: str | type
    fields: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    plural: str | None = None
    represent: str | Callable[..., Mapping[str, Any]] | None = None
    make_many: str | Callable[..., Sequence[models.Model]] | None = None

    def load_factory(self) -> Any:
        """The factory class.

        Raises ConfigurationError where the path leads nowhere or not to a factory of a model.
        """
        found = self.factory
        if isinstance(found, str):
            try:
                found = import_string(found)
            except Exception as error:  # whatever the host's module raises while it is imported
                raise ConfigurationError(
                    f"Entity type '{self.name}': cannot import {self.factory!r} ({error})."
                ) from error
        options = getattr(found, "_meta", None)
        model = getattr(options, "model", None)
        if isinstance(model, str):
            model = options.get_model_class()  # type: ignore[union-attr]
        if not (isinstance(model, type) and issubclass(model, models.Model)) or not hasattr(found, "create"):
            raise ConfigurationError(
                f"Entity type '{self.name}': {self.factory!r} is not a factory_boy DjangoModelFactory"
                " with a model."
            )
        if options.abstract or model._meta.abstract:  # type: ignore[union-attr]
            raise ConfigurationError(f"Entity type '{self.name}': {self.factory!r} is abstract.")
        return found

    @property
    def model(self) -> type[models.Model]:
        """The model that the factory makes rows of; raises as `load_factory`."""
        model: type[models.Model] = self.load_factory()._meta.get_model_class()
        return model


@dataclass(frozen=True, slots=True)
class Scenario:
    """Several rows that belong together, under one name: `POST scenarios/{name}`.

    `make`
        `(call, data) → dict or None`: makes the rows through `call`; what it returns is added to the answer.
    `request`
        Dotted path of the DRF serializer that its body must satisfy. Default: an empty body.
    """

    name: str
    make: str | Callable[..., Mapping[str, Any] | None]
    request: str | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class WireOperation:
    """An operation of the host's own: `POST {name}`, in the same frame as ours.

    `make`
        `(call, data) → dict or list`: makes the rows through `call` and returns the answer.
    `request`, `response`
        Dotted paths of DRF serializers; `many` says that the answer is an array of `response`.
    """

    name: str
    make: str | Callable[..., Any]
    request: str
    response: str
    many: bool = False
    description: str = ""


class TryLater(Exception):
    """What a handler raises where the outside says in how many seconds it may be asked again."""

    def __init__(self, seconds: float, message: str = "asked to come back later") -> None:
        self.seconds = seconds
        super().__init__(message)


class Unanswered(Exception):
    """What a handler raises where nobody can say whether the outside did, or will do, what it was asked to.

    A purge gives a making that ended so the time that all attempts may take, before it looks for the thing.
    """


class ExternalHandler:
    """How one kind of thing outside the database is made and removed: a host writes a subclass.

    Neither method is ever called within a transaction of ours. Each call is tried `attempts` times.
    """

    attempts = 4
    #: Seconds before the second attempt; each further one waits twice as long.
    backoff = 0.2
    #: Seconds after which the handler's own client must give up. Nobody else stops a call that hangs.
    timeout = 10.0
    #: The longest that a `TryLater` is waited for, in seconds; one that asks for more ends the attempts.
    patience = 0.0

    def create(self, key: str, fields: Mapping[str, Any]) -> str:
        """Make it under `key`; returns what the outside calls it, empty where it has no name of its own.

        `key` is the idempotency key too: an attempt whose answer was lost is made again with the same one.
        """
        raise NotImplementedError

    def remove(self, key: str, reference: str) -> None:
        """See to it that it is not there; what never was, or is gone already, is no error.

        `reference` is empty where `create` never answered: find it by `key`.
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class ExternalType:
    """A name and a handler: something outside the database that a run may hold.

    `handler`
        Dotted path of a subclass of `ExternalHandler`, or the class.
    """

    name: str
    handler: str | type[ExternalHandler]
    description: str = ""

    def load_handler(self) -> ExternalHandler:
        """A handler; raises ConfigurationError where the path leads to none, or it cannot be set up."""
        found = self.handler
        try:
            if isinstance(found, str):
                found = import_string(found)
            if not (isinstance(found, type) and issubclass(found, ExternalHandler)):
                raise ConfigurationError(
                    f"External type '{self.name}': {self.handler!r} is no subclass of ExternalHandler."
                )
            return found()
        except ConfigurationError:
            raise
        except Exception as error:  # whatever the host's module raises while it is imported
            raise ConfigurationError(
                f"External type '{self.name}': cannot load {self.handler!r} ({error})."
            ) from error


#: Under this type files in storage are entered.
FILE = "file"
#: Under this and the class's name users at an identity provider are: what another provider holds is not this
#: one's to look for.
IDENTITY = "identity."

#: Routes that no host's operation may take.
BUILT_IN = frozenset(
    {
        "batch",
        "cleanup",
        "docs",
        "entities",
        "entity-types",
        "runs",
        "scenarios",
        "schema",
        "shadow-copies",
        "sign-in",
        "verify-access",
    }
)


class Catalogue(Generic[Entry]):
    """Registrations of one kind, by name, in the order in which they came."""

    def __init__(self, kind: str, entry_class: type[Entry]) -> None:
        self.kind = kind
        self.entry_class = entry_class
        #: The catalogue whose names are taken here too.
        self.beside: Catalogue[Any] | None = None
        self._entries: dict[str, Entry] = {}

    def add(self, entry: Entry) -> None:
        """Register `entry`; raises and changes nothing where it is none, or its name is bad or taken."""
        if not isinstance(entry, self.entry_class):
            raise ConfigurationError(f"{entry!r} is not {self.kind}: write {self.entry_class.__name__}(…).")
        taken = self.names()
        for name in _names(entry):
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ConfigurationError(
                    f"{name!r} cannot name {self.kind}: letters, digits, '_', '-' and '.', a letter first."
                )
            if name in taken:
                raise DuplicateName(f"Two registrations of {self.kind} are called '{name}'.")
            if self.beside is not None and name in self.beside.names():
                raise DuplicateName(f"'{name}' is the name of {self.beside.kind} already.")
        if isinstance(entry, WireOperation) and entry.name in BUILT_IN:
            raise DuplicateName(f"'{entry.name}' is a route of this app; call the operation something else.")
        if isinstance(entry, ExternalType) and entry.name == FILE:
            raise DuplicateName(f"'{FILE}' is what files in storage are entered as; choose another name.")
        self._entries[entry.name] = entry

    def names(self) -> set[Any]:
        """Every name and plural that is taken."""
        return {name for each in self for name in _names(each)}

    def get(self, name: str) -> Entry | None:
        return self._entries.get(name)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<{self.kind}: {', '.join(self._entries) or 'none'}>"


def _names(entry: Named) -> set[Any]:
    """What it is called: an entity type by its plural too."""
    plural = getattr(entry, "plural", None)
    return {entry.name} if plural is None else {entry.name, plural}


class Registry:
    """Everything that is registered; what could not be is under `problems`."""

    def __init__(self) -> None:
        self.entity_types: Catalogue[EntityType] = Catalogue("an entity type", EntityType)
        self.scenarios: Catalogue[Scenario] = Catalogue("a scenario", Scenario)
        self.operations: Catalogue[WireOperation] = Catalogue("an operation", WireOperation)
        self.external_types: Catalogue[ExternalType] = Catalogue("an external type", ExternalType)
        # Receipts count both by name, and clean-ups list both by name.
        self.external_types.beside, self.entity_types.beside = self.entity_types, self.external_types
        self.problems: list[ConfigurationError] = []

    def __repr__(self) -> str:
        return (
            f"<Registry {self.entity_types!r} {self.scenarios!r} {self.operations!r} {self.external_types!r}>"
        )

    def add_all(self, catalogue: Catalogue[Any], entries: Iterable[Any]) -> None:
        """Register each; what cannot be is taken down as a problem, and the next one follows."""
        for entry in entries:
            try:
                catalogue.add(entry)
            except ConfigurationError as problem:
                self.problems.append(problem)

    def type_named(self, name: str) -> EntityType | None:
        """The entity type of that name or plural."""
        return self.entity_types.get(name) or next(
            (found for found in self.entity_types if found.plural == name), None
        )

    def name_of(self, model: type[models.Model]) -> str:
        """The name under which rows of `model` go: its one entity type's, or the model's label."""
        concrete: type[models.Model] = model._meta.concrete_model  # type: ignore[assignment]
        return self._names.get(concrete) or concrete._meta.label_lower

    @cached_property
    def _names(self) -> dict[type[models.Model] | None, str]:
        """Of the models that have one entity type and no more."""
        named: dict[type[models.Model] | None, list[str]] = defaultdict(list)
        for each in self.entity_types:
            with suppress(ConfigurationError):  # `manage.py check` tells
                named[each.model._meta.concrete_model].append(each.name)
        return {model: names[0] for model, names in named.items() if len(names) == 1}


def resolve(target: str | Callable[..., Any]) -> Callable[..., Any]:
    """A callable, from itself or from its dotted path; raises ConfigurationError."""
    if callable(target):
        return target
    try:
        found: Callable[..., Any] = import_string(target)
    except (ImportError, ValueError, TypeError) as error:  # '.x' has no module's name, '..x' no module's
        raise ConfigurationError(f"Cannot import {target!r} ({error}).") from error
    if not callable(found):
        raise ConfigurationError(f"{target!r} is not a function or a class.")
    return found


def get_registry() -> Registry:
    """The registry; raises ConfigurationError where a registration is wrong."""
    registry = load_registry()
    if registry.problems:
        raise registry.problems[0]
    return registry


@lru_cache(maxsize=1)
def load_registry() -> Registry:
    """The registry with its problems, built at the first use."""
    registry = Registry()
    registry.add_all(registry.entity_types, _from_settings(registry))
    registry.add_all(registry.external_types, _identities())
    for config in apps.get_app_configs():
        if config.module is None or not module_has_submodule(config.module, "testdata"):
            continue
        try:
            module = importlib.import_module(f"{config.name}.testdata")
        except Exception as error:  # noqa: BLE001 - the host's module; its URLs must load all the same
            registry.problems.append(ConfigurationError(f"Cannot import {config.name}.testdata ({error!r})."))
            continue
        for name in ("entity_types", "scenarios", "operations", "external_types"):
            entries = getattr(module, name, ())
            if isinstance(entries, Iterable):
                registry.add_all(getattr(registry, name), entries)
            else:
                registry.problems.append(ConfigurationError(f"{config.name}.testdata.{name} is not a list."))
    return registry


def identity_type() -> str | None:
    """What users at the identity provider are entered as; None where they are Django's own."""
    path: Any = settings.IDENTITY_PROVIDER
    if not isinstance(path, str) or path == Settings.IDENTITY_PROVIDER.default:
        return None
    return IDENTITY + path.rpartition(".")[2].lower()


def _identities() -> Iterator[ExternalType]:
    name = identity_type()
    if name is not None:
        yield ExternalType(name, settings.IDENTITY_PROVIDER, "Users at the identity provider.")


def _from_settings(registry: Registry) -> Iterator[EntityType]:
    types: Any = settings.ENTITY_TYPES
    if not isinstance(types, Mapping):
        registry.problems.append(ConfigurationError("ENTITY_TYPES is not a dict."))
        return
    for name, value in types.items():
        options = dict(value) if isinstance(value, Mapping) else {"factory": value}
        try:
            yield EntityType(name, **options)
        except TypeError as error:
            registry.problems.append(
                ConfigurationError(f"ENTITY_TYPES[{name!r}] is not a path or a dict of options ({error}).")
            )


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in (NAME, "INSTALLED_APPS"):
        load_registry.cache_clear()


setting_changed.connect(_forget, dispatch_uid="stagehand_testdata.registry")
