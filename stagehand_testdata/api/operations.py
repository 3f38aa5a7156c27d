"""The viewset of an operation that an app has registered under a name of its own."""

from __future__ import annotations

from typing import Any

from ..registry import WireOperation, resolve
from . import openapi
from .views import OperationViewSet


def operation_viewset(operation: WireOperation) -> type[OperationViewSet]:
    """`OperationViewSet` for this one operation, with its own words in the schema."""

    def perform(self: OperationViewSet, request: Any) -> Any:
        return OperationViewSet.perform(self, request)

    if openapi.HAVE_SPECTACULAR:
        answer: Any = resolve(operation.response)
        perform = openapi.describe(
            operation.name.replace("-", "_"),
            request=resolve(operation.request),
            answers={201: answer(many=True) if operation.many else answer},
            errors=(400, 401, 403, 404, 409, 422, 502),
            summary=operation.description or operation.name,
        )(perform)
    name = "".join(part.title() for part in operation.name.split("-"))
    return type(f"{name}ViewSet", (OperationViewSet,), {"operation": operation, "perform": perform})
