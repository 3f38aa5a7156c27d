"""What leads a browser into a session: cookies as Playwright keeps them, and the link.

# Note [A link that one visit uses up]
A form that posts itself would keep a link from whoever only looks at it. But `page.goto(link)` comes back
when the form is loaded, not when it was posted, and a test that goes on would break the sign-in off. So the
visit itself signs in, and what is no visit does not: HEAD, a browser that fetches in advance, and a page
that loads the link as its picture or frame. Nobody mails these links, so no scanner gets to see one.

A link that was refused for that counts still. So Django, which logs the path of whatever it refuses, is told
that this was logged already; the audit has who came and why not.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings as django_settings
from django.http import HttpRequest, HttpResponseRedirect
from django.http.request import split_domain_port
from django.urls import reverse
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ..access import gate, trail
from ..access.trail import Act
from ..exceptions import GateClosed, InvalidLink
from ..logs import keeping_out
from ..operations import passes, sign_in
from . import errors

#: No cache keeps it, and no page that follows is told of it.
_HEADERS = {"Cache-Control": "private, no-store", "Referrer-Policy": "no-referrer"}


def link_to(token: str, request: Request) -> str:
    """The address that signs a browser in, at the host that was asked."""
    found: Any = request.resolver_match
    name = ":".join([*found.namespaces, "sign-in"])
    path = reverse(name, urlconf=getattr(request, "urlconf", None), args=[token])
    return str(request.build_absolute_uri(path))


def storage_state(opened: sign_in.SignedIn, request: Request) -> dict[str, Any]:
    """The product's session, where it has one, and the pass, as `browser.new_context(storage_state=…)` takes
    them."""
    granted = opened.granted
    cookies = [_cookie(request, passes.COOKIE, granted.token, granted.expires_at.timestamp())]
    if opened.session is not None:
        key, ends = opened.session.session_key, opened.expires_at.timestamp()
        cookies.insert(0, _cookie(request, django_settings.SESSION_COOKIE_NAME, key, ends))
    return {"cookies": cookies, "origins": []}


def _cookie(request: Request, name: str, value: str | None, expires: float) -> dict[str, Any]:
    """Both go where the product's session cookie goes, and nowhere else."""
    domain = django_settings.SESSION_COOKIE_DOMAIN
    host, _ = split_domain_port(request.get_host())
    return {
        "name": name,
        "value": value,
        # With the dot a browser sends it to the hosts below, as it does with a cookie that names a domain.
        "domain": f".{domain.lstrip('.')}" if domain else host,
        "path": django_settings.SESSION_COOKIE_PATH,
        "expires": expires,
        "httpOnly": bool(django_settings.SESSION_COOKIE_HTTPONLY),
        "secure": bool(django_settings.SESSION_COOKIE_SECURE),
        # Browsers take a cookie that says nothing for Lax.
        "sameSite": django_settings.SESSION_COOKIE_SAMESITE or "Lax",
    }


class SignInView(APIView):
    """The link. See Note [A link that one visit uses up]."""

    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()
    renderer_classes = (JSONRenderer,)
    http_method_names = ["get"]
    schema = None

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        act = Act("api", "sign-in", address=request.META.get("REMOTE_ADDR") or "")
        with trail.acting(act), keeping_out(lambda: [kwargs["token"]]):
            return super().dispatch(request, *args, **kwargs)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        # Whatever a browser says it accepts.
        request.accepted_renderer, request.accepted_media_type = JSONRenderer(), JSONRenderer.media_type
        if not gate.is_open():
            raise GateClosed

    def handle_exception(self, exc: Exception) -> Response:
        # A closed gate writes nothing at a stranger's request.
        if isinstance(exc, InvalidLink | MethodNotAllowed):
            trail.refused(InvalidLink.code, self.request.META.get("REMOTE_ADDR") or "")
        return super().handle_exception(exc)

    def get_exception_handler(self) -> Any:
        return errors.handle

    def get(self, request: Request, token: str) -> HttpResponseRedirect:
        if not _is_a_visit(request):
            raise InvalidLink
        opened = sign_in.redeem(token)
        product_request: HttpRequest = request._request
        # In the place of the visitor's own, which is left as it is: it may be a real user's.
        product_request.session = opened.session  # type: ignore[assignment]
        response = HttpResponseRedirect(opened.next)
        response.set_cookie(
            passes.COOKIE,
            opened.granted.token,
            expires=opened.granted.expires_at,
            path=django_settings.SESSION_COOKIE_PATH,
            domain=django_settings.SESSION_COOKIE_DOMAIN,
            secure=django_settings.SESSION_COOKIE_SECURE,
            httponly=django_settings.SESSION_COOKIE_HTTPONLY,
            samesite=django_settings.SESSION_COOKIE_SAMESITE,
        )
        return response

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        answer: Any = super().finalize_response(request, response, *args, **kwargs)
        for name, value in _HEADERS.items():
            answer.headers[name] = value
        # See Note [A link that one visit uses up].
        answer._has_been_logged = True
        return answer


def _is_a_visit(request: Request) -> bool:
    purpose = request.headers.get("Sec-Purpose", request.headers.get("Purpose", ""))
    mode = request.headers.get("Sec-Fetch-Mode", "navigate")
    target = request.headers.get("Sec-Fetch-Dest", "document")
    return "prefetch" not in purpose and mode == "navigate" and target == "document"
