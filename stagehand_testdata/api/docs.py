"""`GET schema` and `GET docs`: the OpenAPI 3.1 description of this app and its page, behind the same gate."""

from __future__ import annotations

from typing import Any

from drf_spectacular.views import SpectacularJSONAPIView, SpectacularSwaggerView
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ..access import trail
from ..access.callers import act_for, one_request
from ..access.trail import Act
from ..exceptions import NotAllowed, NotAuthenticated
from ..logs import keeping_out
from . import errors, openapi
from .authentication import authenticate
from .views import NoNegotiation, sent_texts


class Gated(APIView):
    """The gate and the key before the page, errors in our shape."""

    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()
    content_negotiation_class = NoNegotiation
    http_method_names = ["get", "head"]

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        with one_request(), trail.acting(Act("api", "read")), keeping_out(lambda: sent_texts(self.request)):
            return super().dispatch(request, *args, **kwargs)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        caller = authenticate(request, cleaning=False)
        act_for(caller)
        caller.require(operation="read")
        super().initial(request, *args, **kwargs)

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, NotAuthenticated | NotAllowed):
            trail.refused(exc.code, self.request.META.get("REMOTE_ADDR") or "")
        self.request.accepted_renderer = JSONRenderer()
        self.request.accepted_media_type = JSONRenderer.media_type
        return super().handle_exception(exc)

    def get_exception_handler(self) -> Any:
        return errors.handle


class SchemaView(Gated, SpectacularJSONAPIView):
    schema = None
    custom_settings = {**openapi.SCHEMA_SETTINGS, "PREPROCESSING_HOOKS": [f"{openapi.__name__}.only_ours"]}


class DocsView(Gated, SpectacularSwaggerView):
    schema = None
    url_name = "stagehand_testdata:schema"
    title = "stagehand_testdata"
