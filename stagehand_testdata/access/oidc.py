"""OIDC: from a token that an issuer gave to a job of its own, to what the host trusts that job with.

# Note [Whose token it is]
Every project on a public CI gets its tokens from the same issuer, so the issuer's signature says nothing by
itself: the claims decide. An entry of OIDC_TRUST that names no project would let all of them in, and counts
for nothing; so does one whose pattern leaves the owner of the project open.

# Note [Who owns what such a job makes]
By default the token's `sub`, which the issuer promises never to give to anybody else. It names the branch or
the environment on GitHub and GitLab, so that a later job of the same one cleans up what an earlier one left,
and a pull request does not reach what the main branch made. A host that wants it coarser names the claims in
`owner`, of which one must tell the project. What the issuer is and what the claims say is hashed: a digest
cannot be ambiguous, and has nobody's name in it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..conf import settings
from ..exceptions import ConfigurationError, NotAuthenticated
from .issuers import fault_of_url, keys_of

logger = logging.getLogger(__name__)

#: Signatures that only the issuer can make. None of them takes a public key for a shared secret.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
#: Claims that tell one project from all the others of its issuer.
TELLING = frozenset({"sub", "repository", "repository_id", "project_path", "project_id"})
#: How a subject that names a project begins, with issuers that all the world's projects share. Their projects
#: may put together subjects of their own, such as `environment:e2e`, which anybody's project can have.
SHARED = {
    "https://token.actions.githubusercontent.com": ("repo:", "repository:", "repository_id:"),
    "https://gitlab.com": ("project_path:", "project_id:"),
}
REQUIRED = ("iss", "aud", "sub", "jti", "iat", "nbf", "exp")
#: How far the issuer's clock and ours may be apart.
LEEWAY = dt.timedelta(seconds=30)
#: No token counts for longer, so that those which were used need not be remembered for longer.
LONGEST = dt.timedelta(hours=24)
MAX_CHARACTERS = 16 * 1024
REFUSAL = "This token is not accepted."

OWNER_PREFIX = "oidc:"
#: How long a job's key counts, in minutes: as a rule, and at most.
MINUTES = 15
MOST_MINUTES = 60

_NEEDED = frozenset({"name", "issuer", "audience", "claims"})
_LISTS = frozenset({"operations", "entity_types", "scopes", "networks"})
_LIMITS = frozenset({"max_minutes", "max_live_rows", "max_open_runs"})
_KNOWN = _NEEDED | _LISTS | _LIMITS | {"owner", "jwks_uri", "minutes"}
_NAME_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Trust:
    """One entry of OIDC_TRUST: which tokens it means, and in whose name their jobs go."""

    name: str
    issuer: str
    audience: str
    claims: Mapping[str, tuple[str, ...]]
    owner: tuple[str, ...]
    jwks_uri: str
    minutes: float
    #: What the key may do, as `keys.create` takes it.
    allowances: Mapping[str, Any]

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Trust:
        """An entry that has no faults."""
        return cls(
            name=entry["name"],
            issuer=entry["issuer"],
            audience=entry["audience"],
            claims={name: _listed(value) for name, value in entry["claims"].items()},
            owner=_listed(entry.get("owner", "sub")),
            jwks_uri=entry.get("jwks_uri", ""),
            minutes=entry.get("minutes", MINUTES),
            allowances={name: value for name, value in entry.items() if name in _LISTS | _LIMITS},
        )

    def covers(self, claims: Mapping[str, Any]) -> bool:
        # A token for several audiences could have come here by way of another one of them.
        return claims["aud"] in (self.audience, [self.audience]) and all(
            _matches(patterns, claims.get(name)) for name, patterns in self.claims.items()
        )


@dataclass(frozen=True, slots=True)
class Verified:
    """A token that is what it says, and the entry that trusts it. `digest` stands for its (issuer, jti)."""

    trust: Trust
    owner: str
    subject: str
    digest: str
    expires_at: dt.datetime


def verify(token: str) -> Verified:
    """Who sent this token. Asks the issuer for its keys where they are not known yet, and no database.

    Raises NotAuthenticated, always with the same words; IssuerUnavailable where the keys cannot be had.
    """
    reason, verified = _verify(token)
    if verified is None:
        # The reason is one of ours: nothing that the sender wrote gets into the log.
        logger.warning("an OIDC token was refused: %s", reason)
        raise NotAuthenticated(REFUSAL)
    return verified


def trusts() -> Iterator[Trust]:
    """The entries of OIDC_TRUST without those that `manage.py check` refuses."""
    listed: Any = settings.OIDC_TRUST
    for entry in listed if isinstance(listed, list | tuple) else ():
        if not any(faults(entry)):
            yield Trust.read(entry)


def _verify(token: str) -> tuple[str, Verified | None]:
    known = list(trusts())
    if not known:
        return "OIDC_TRUST trusts nobody", None
    try:
        import jwt
    except ImportError as error:
        raise ConfigurationError("OIDC_TRUST needs PyJWT: install the extra 'oidc'.") from error
    if len(token) > MAX_CHARACTERS:
        return "it is too long", None
    try:
        peeked = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        return "it is no token", None
    # Not believed yet: they only tell which of the issuers that we know is to be asked.
    issuer, key_id = peeked["payload"].get("iss"), peeked["header"].get("kid")
    meant = [trust for trust in known if trust.issuer == issuer]
    if not meant:
        return "no entry of OIDC_TRUST has its issuer", None
    key = keys_of(meant[0].issuer, meant[0].jwks_uri).find(key_id) if isinstance(key_id, str) else None
    if key is None:
        return "its key is not the issuer's", None
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=ALGORITHMS,
            issuer=meant[0].issuer,
            audience=[trust.audience for trust in meant],
            leeway=LEEWAY,
            options={"require": list(REQUIRED), "enforce_minimum_key_length": True},
        )
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        return type(error).__name__, None
    return _trusted(claims, meant)


def _trusted(claims: Mapping[str, Any], meant: Sequence[Trust]) -> tuple[str, Verified | None]:
    if not claims["sub"] or not claims["jti"]:
        return "its subject or its id is empty", None
    expires, issued = int(claims["exp"]), int(claims["iat"])
    if expires - issued > LONGEST.total_seconds():
        return "it counts for longer than a day", None
    trust = next((each for each in meant if each.covers(claims)), None)
    if trust is None:
        return "no entry of OIDC_TRUST has its audience and claims", None
    subject = [_text(claims.get(name)) for name in trust.owner]
    if None in subject:
        return "it lacks a claim that makes the owner", None
    verified = Verified(
        trust=trust,
        owner=OWNER_PREFIX + _digest(trust.issuer, *zip(trust.owner, subject, strict=True))[:32],
        subject="".join(c if c.isprintable() else "?" for c in " ".join(map(str, subject))),
        digest=_digest(trust.issuer, claims["jti"]),
        expires_at=dt.datetime.fromtimestamp(expires, dt.UTC),
    )
    return "", verified


def faults(entry: Any) -> Iterator[str]:
    """What is wrong with an entry of OIDC_TRUST, in words that follow its name."""
    if not isinstance(entry, Mapping):
        yield "is no dict"
        return
    for name in sorted(set(map(str, entry)) - _KNOWN):
        yield f"has the unknown option {name!r}"
    for name in sorted(_NEEDED - {"claims"}):
        if not isinstance(entry.get(name), str) or not entry[name]:
            yield f"has no {name!r}"
    claims = entry.get("claims")
    if not isinstance(claims, Mapping) or not all(map(_is_patterns, claims.values())):
        yield "has no 'claims' with a text, or a list of texts, for each claim"
    elif not any(_tells(entry.get("issuer"), *each) for each in claims.items()):
        yield (
            "lets in every project of its issuer: none of its claims names one"
            f" ({', '.join(sorted(TELLING))}) without leaving its owner open"
        )
    owner = entry.get("owner", "sub")
    if not _is_patterns(owner) or not TELLING.intersection(_listed(owner)):
        yield f"has an 'owner' without any of {', '.join(sorted(TELLING))}"
    for name in ("issuer", "jwks_uri"):
        if entry.get(name) and (fault := fault_of_url(entry[name])):
            yield f"has the {name} {entry[name]!r}, which {fault}"

    yield from _faults_of_allowances(entry)


def _faults_of_allowances(entry: Mapping[Any, Any]) -> Iterator[str]:
    if isinstance(entry.get("name"), str) and len(entry["name"]) > _NAME_LENGTH:
        yield f"has a name of more than {_NAME_LENGTH} characters"
    minutes = entry.get("minutes", MINUTES)
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 1 <= minutes <= MOST_MINUTES:
        yield f"has 'minutes' that are not 1 to {MOST_MINUTES}"
    for name in sorted(_LISTS & set(entry)):
        value = entry[name]
        if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
            yield f"has no list of texts under {name!r}"
        elif name == "networks" and not all(map(_is_network, value)):
            yield "has something under 'networks' that is no network"
    for name in sorted(_LIMITS & set(entry)):
        value = entry[name]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
            yield f"has no whole number above 0 under {name!r}"


def _is_network(text: str) -> bool:
    try:
        return bool(ipaddress.ip_network(text))
    except ValueError:
        return False


def _tells(issuer: Any, claim: str, value: str | Sequence[str]) -> bool:
    """Whether each pattern names a project, or the owner of some: `octo-org/*` does, `octo-*/shop` not."""
    patterns = _listed(value)
    beginnings = SHARED.get(issuer) if isinstance(issuer, str) else None
    if claim == "sub" and beginnings and not all(each.startswith(beginnings) for each in patterns):
        return False
    return claim in TELLING and all("*" not in each.partition("/")[0] for each in patterns)


def _is_patterns(value: Any) -> bool:
    return bool(value) and (
        isinstance(value, str)
        or (isinstance(value, list | tuple) and all(isinstance(each, str) and each for each in value))
    )


def _listed(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _matches(patterns: Sequence[str], claim: Any) -> bool:
    text = _text(claim)
    return text is not None and any(_pattern(each).fullmatch(text) for each in patterns)


def _pattern(text: str) -> re.Pattern[str]:
    """`*` stands for any characters but / and : within one part of a name; nothing else is special."""
    return re.compile("[^/:]*".join(map(re.escape, text.split("*"))))


def _text(claim: Any) -> str | None:
    """A claim as text; none where it has several parts, or nothing in it."""
    if isinstance(claim, bool):
        return "true" if claim else "false"
    if isinstance(claim, str | int):
        return str(claim) or None
    return None


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
