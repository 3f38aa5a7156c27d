"""The fields of a registered type: how they are validated, and how `GET entity-types` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.db import models
from rest_framework import serializers

from ..operations.addresses import is_address
from ..operations.entities import settable_fields
from ..registry import EntityType
from .serializers import StrictSerializer

_JSON_TYPES: tuple[tuple[type[serializers.Field[Any, Any, Any, Any]], str, Any], ...] = (
    (serializers.BooleanField, "boolean", True),
    (serializers.IntegerField, "integer", 1),
    (serializers.FloatField, "number", 1.5),
    (serializers.DecimalField, "decimal", "9.50"),
    (serializers.DateTimeField, "datetime", "2030-01-31T10:00:00Z"),
    (serializers.DateField, "date", "2030-01-31"),
    (serializers.TimeField, "time", "10:00:00"),
    (serializers.DurationField, "duration", "01:00:00"),
    (serializers.UUIDField, "uuid", "6f1c1f9e-5c1d-4f0e-9c55-0d3c5b1c9a10"),
    (serializers.EmailField, "email", "someone@example.com"),
    (serializers.URLField, "url", "https://example.com/"),
    (serializers.JSONField, "json", {}),
    (serializers.CharField, "string", "text"),
)


class _Column(serializers.ModelField):
    """A column of a kind that the framework does not know: what cannot be read is the client's fault."""

    default_error_messages = {"unreadable": "This column cannot hold that value."}

    def to_internal_value(self, data: Any) -> Any:
        try:
            return super().to_internal_value(data)
        except (ValueError, TypeError, OverflowError):  # bytes are written in base64, which is ASCII
            self.fail("unreadable")


class _Builder(serializers.ModelSerializer[models.Model]):
    """Borrowed for its knowledge of which serializer field a model's column needs."""

    class Meta:
        model = models.Model
        fields = "__all__"


def fields_serializer(entity_type: EntityType) -> type[StrictSerializer]:
    """A strict serializer of what a client may set on this type; nothing is required."""
    fields = {name: _serializer_field(column, name) for name, column in settable_fields(entity_type).items()}
    name = f"{entity_type.name.title()}Fields"
    return type(name, (StrictSerializer,), {"get_fields": lambda _: dict(fields)})


def describe(entity_type: EntityType) -> dict[str, Any]:
    """`{name, model, plural, fields: [{name, type, required, example, …}]}`."""
    return {
        "name": entity_type.name,
        "model": entity_type.model._meta.label,
        "plural": entity_type.plural,
        "fields": [_describe_field(name, column) for name, column in settable_fields(entity_type).items()],
    }


def _describe_field(name: str, column: models.Field[Any, Any] | None) -> dict[str, Any]:
    # Whatever a client leaves out, the factory fills in.
    shown: dict[str, Any] = {"name": name, "required": False}
    if column is None:
        return {**shown, "type": "any", "example": None}
    if column.is_relation:
        target: Any = column.related_model
        return {**shown, "type": "id", "example": "1", "references": target._meta.label}
    field = _serializer_field(column, name)
    if column.choices:
        choices = [value for value, _ in column.flatchoices]
        return {**shown, "type": "choice", "example": choices[0] if choices else None, "choices": choices}
    if is_address(column):
        return shown | {"type": "email", "example": "someone@example.com"} | _length(column)
    known = ((kind, example) for base, kind, example in _JSON_TYPES if isinstance(field, base))
    kind, example = next(known, ("any", None))
    shown |= {"type": kind, "example": _own_example(column, field, kind, example)}
    return shown | _length(column)


def _length(column: models.Field[Any, Any]) -> dict[str, Any]:
    return {"maxLength": column.max_length} if column.max_length else {}


def _own_example(
    column: models.Field[Any, Any], field: serializers.Field[Any, Any, Any, Any], kind: str, example: Any
) -> Any:
    if kind == "json" and column.has_default():
        return column.get_default()
    if kind == "string" and isinstance(column, models.SlugField):
        return "some-text"
    least = getattr(field, "min_value", None)
    if least is not None and Decimal(example) < least:
        return str(least) if kind == "decimal" else least
    return example[: column.max_length] if isinstance(example, str) and column.max_length else example


def _serializer_field(
    column: models.Field[Any, Any] | None, name: str
) -> serializers.Field[Any, Any, Any, Any]:
    if column is None:
        return serializers.JSONField(required=False, allow_null=True)
    if column.is_relation:
        return serializers.JSONField(
            required=False, allow_null=column.null, help_text="The id of a row of the run."
        )
    field_class, options = _Builder().build_standard_field(name, column)
    if field_class is serializers.ModelField:
        field_class = _Column
    kept: Mapping[str, Any] = {
        key: value
        for key, value in options.items()
        # Whether a value is unique is the database's to say; a default is the factory's.
        if key not in ("validators", "read_only", "required", "default", "initial", "model_field", "style")
    }
    validators = [each for each in options.get("validators", ()) if not _asks_the_database(each)]
    extra: dict[str, Any] = {"model_field": column} if issubclass(field_class, serializers.ModelField) else {}
    field: serializers.Field[Any, Any, Any, Any] = field_class(**kept, **extra, required=False)
    field.validators = [*field.validators, *validators]
    return field


def _asks_the_database(validator: Any) -> bool:
    return getattr(validator, "requires_context", False)
