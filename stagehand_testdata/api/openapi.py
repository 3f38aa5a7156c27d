"""The bridge to drf-spectacular, which a host may leave out: then there is no schema, and all else works."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from django.apps import apps
from django.core.validators import RegexValidator

from .. import __version__
from ..access import idempotency
from ..conf import settings
from ..registry import get_registry
from .fields import CONTROL_CHARACTERS, AlwaysTrue, Identifier, Line, Text
from .serializers import BatchSerializer, ErrorSerializer, ScenarioAnswerSerializer, StrictSerializer

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C")

try:
    from drf_spectacular.extensions import OpenApiSerializerExtension, OpenApiSerializerFieldExtension
    from drf_spectacular.openapi import AutoSchema
    from drf_spectacular.settings import spectacular_settings
    from drf_spectacular.utils import (
        OpenApiParameter,
        OpenApiResponse,
        PolymorphicProxySerializer,
        extend_schema,
        extend_schema_field,
    )
except ImportError:  # the extra is not installed
    AutoSchema = object  # type: ignore[assignment, misc]
    HAVE_SPECTACULAR = False
else:
    HAVE_SPECTACULAR = True

#: For `SpectacularAPIView`: what this app's own schema says, whatever the host's says.
SCHEMA_SETTINGS: dict[str, Any] = {
    "OAS_VERSION": "3.1.1",
    "TITLE": "stagehand_testdata",
    "DESCRIPTION": "Create, inspect and remove test data in a live product.",
    "VERSION": __version__,
    "APPEND_COMPONENTS": {
        "securitySchemes": {"accessKey": {"type": "http", "scheme": "bearer", "bearerFormat": "tdk_…"}}
    },
    "SECURITY": [{"accessKey": []}, {}],
}

#: What a database keeps as a whole number.
_LONG = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
#: At least one character that Python does not trim.
_NOT_BLANK = r"[^\s\u001c-\u001f\u0085]"
_LINE = f"^[^{CONTROL_CHARACTERS}]+$"
_LINE_NOT_BLANK = rf"^[^{CONTROL_CHARACTERS}]*[^\s{CONTROL_CHARACTERS}][^{CONTROL_CHARACTERS}]*$"

_ERRORS = {
    400: "The body, the test ID or the run's age is not acceptable.",
    401: "An access key is needed.",
    403: "The gate is closed, or the key may not do that.",
    404: "No such run, row or name.",
    409: "The run is closed, a value is taken, a quota is full, something would have left the run, or the"
    " first request with this Idempotency-Key is still under way.",
    422: "This Idempotency-Key was used for another request.",
    413: "The body is larger than the host takes.",
    429: "Too many requests; `Retry-After` says when to come back.",
    502: "Something outside the database was not made, or did not answer; what was made is in the run.",
    503: "The database is unavailable, or too slow; nothing was done.",
}


def is_installed() -> bool:
    """Whether the host can serve a schema."""
    return HAVE_SPECTACULAR and apps.is_installed("drf_spectacular")


class ViewSchema(AutoSchema):
    """Says of each view what they all share: the test id in the header, one tag, the errors."""

    def get_tags(self) -> list[str]:
        return ["test data"]

    def get_auth(self) -> list[dict[str, list[str]]]:
        needed = settings.REQUIRE_ACCESS_KEY and getattr(self.view, "needs_key", True)
        return [{"accessKey": []}] if needed else []

    def _get_request_body(self, direction: str = "request") -> dict[str, Any] | None:
        body = super()._get_request_body(direction)  # type: ignore[no-untyped-call]
        return body and {**body, "required": True}

    def get_override_parameters(self) -> list[Any]:
        found = []
        if getattr(self.view, "needs_test_id", False):
            prefix = settings.TEST_ID_PREFIX
            rest = f"[A-Za-z0-9_-]{{0,{max(128 - len(prefix), 0)}}}"
            found.append(
                OpenApiParameter(
                    "X-Test-ID",
                    {"type": "string", "pattern": f"^{prefix}{rest}$"},
                    OpenApiParameter.HEADER,
                    required=True,
                    description="1 to 128 of A-Z a-z 0-9 _ -, starting with the test prefix.",
                )
            )
        if self._is_done_once():
            found.append(
                OpenApiParameter(
                    idempotency.HEADER,
                    {"type": "string", "pattern": "^[!-~]{1,255}$"},
                    OpenApiParameter.HEADER,
                    description="The same key and body give the same answer and one effect, for 24 hours.",
                )
            )
            found.append(
                OpenApiParameter(
                    idempotency.REPLAYED,
                    {"type": "string", "enum": ["true"]},
                    OpenApiParameter.HEADER,
                    response=[200, 201],
                    description="There where this answer was given before.",
                )
            )
        return found

    def _is_done_once(self) -> bool:
        return getattr(self.view, "action", None) in getattr(self.view, "creating", ())


if HAVE_SPECTACULAR:

    class StrictBody(OpenApiSerializerExtension):
        """A body that names an unknown field is refused."""

        target_class = StrictSerializer
        match_subclasses = True

        def map_serializer(self, auto_schema: AutoSchema, direction: str) -> dict[str, Any]:
            shape: dict[str, Any] = auto_schema._map_serializer(
                self.target, direction, bypass_extensions=True
            )
            return {**shape, "additionalProperties": False}

    class BatchCounts(OpenApiSerializerExtension):
        """Besides what every operation takes, any entity type and how many of it."""

        target_class = BatchSerializer
        priority = 1

        def map_serializer(self, auto_schema: AutoSchema, direction: str) -> dict[str, Any]:
            shape: dict[str, Any] = auto_schema._map_serializer(
                self.target, direction, bypass_extensions=True
            )
            counts = {"oneOf": [{"type": "integer", "minimum": 0}, {"type": "boolean", "enum": [True]}]}
            types = get_registry().entity_types
            names = sorted({name for each in types for name in (each.name, each.plural) if name})
            properties = {**dict.fromkeys(names, counts), **shape["properties"]}
            return {**shape, "properties": properties, "additionalProperties": False}

    class OpenAnswer(OpenApiSerializerExtension):
        """A scenario may say more of itself."""

        target_class = ScenarioAnswerSerializer

        def map_serializer(self, auto_schema: AutoSchema, direction: str) -> dict[str, Any]:
            shape: dict[str, Any] = auto_schema._map_serializer(
                self.target, direction, bypass_extensions=True
            )
            return {**shape, "additionalProperties": {}}

    class TextOrNumber(OpenApiSerializerFieldExtension):
        """An id is taken as a text or as a whole number."""

        target_class = Identifier

        def map_serializer_field(self, auto_schema: AutoSchema, direction: str) -> dict[str, Any]:
            text = auto_schema._map_serializer_field(self.target, direction, bypass_extensions=True)
            return {"oneOf": [{**text, "pattern": _NOT_BLANK}, _LONG]}

    class NotBlank(OpenApiSerializerFieldExtension):
        """A text that says nothing is refused, unless its field takes one."""

        target_class = Text
        match_subclasses = True

        def map_serializer_field(self, auto_schema: AutoSchema, direction: str) -> dict[str, Any]:
            text: dict[str, Any] = auto_schema._map_serializer_field(
                self.target, direction, bypass_extensions=True
            )
            if isinstance(self.target, Line):
                return {**text, "pattern": _LINE if self.target.allow_blank else _LINE_NOT_BLANK}
            has_pattern = any(isinstance(each, RegexValidator) for each in self.target.validators)
            return text if self.target.allow_blank or has_pattern else {**text, "pattern": _NOT_BLANK}

    class OnlyTrue(OpenApiSerializerFieldExtension):
        """The test flag."""

        target_class = AlwaysTrue

        def map_serializer_field(self, auto_schema: AutoSchema, direction: str) -> dict[str, Any]:
            return {"type": "boolean", "enum": [True]}


def nullable(shape: dict[str, Any]) -> dict[str, Any]:
    """The shape or null, in the words of the OpenAPI version that is written."""
    if HAVE_SPECTACULAR and spectacular_settings.OAS_VERSION.startswith("3.1"):
        return {**shape, "type": [shape["type"], "null"]}
    return {**shape, "nullable": True}


def shaped(shape: dict[str, Any]) -> Callable[[type[C]], type[C]]:
    """What the schema says of a field's class; nothing where there is no schema."""
    if not HAVE_SPECTACULAR:
        return lambda field: field
    decorate: Callable[[type[C]], type[C]] = extend_schema_field(shape)
    return decorate


def one_or_many(name: str, serializer: Any) -> Any:
    """An answer that is one or an array."""
    if not HAVE_SPECTACULAR:
        return serializer
    return PolymorphicProxySerializer(
        name, [serializer, serializer(many=True)], resource_type_field_name=None, many=False
    )


def describe(
    operation_id: str,
    *,
    request: Any = None,
    answers: dict[int, Any],
    errors: Iterable[int] = (400, 401, 403),
    summary: str,
    description: str = "",
    query: Mapping[str, str] | None = None,
) -> Callable[[F], F]:
    """What the schema says of one action; nothing where there is no schema."""
    if not HAVE_SPECTACULAR:
        return lambda action: action
    anywhere = (429, 503) if request is None else (413, 429, 503)
    responses = {
        status: OpenApiResponse(ErrorSerializer, description=_ERRORS[status])
        for status in (*errors, *anywhere)
    } | answers
    decorate: Callable[[F], F] = extend_schema(
        operation_id=operation_id,
        request=request,
        responses=responses,
        summary=summary,
        description=description or summary,
        parameters=[
            OpenApiParameter(name, str, OpenApiParameter.QUERY, description=text)
            for name, text in (query or {}).items()
        ],
    )
    return decorate


def only_ours(endpoints: list[Any], **kwargs: Any) -> list[Any]:
    """A preprocessing hook: of all the host's endpoints, this app's."""
    package = __package__.partition(".")[0]
    return [each for each in endpoints if each[3].cls.__module__.partition(".")[0] == package]
