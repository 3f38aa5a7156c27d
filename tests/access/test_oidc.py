"""Which tokens are believed, and whom they speak for; whatever else comes is refused in the same words."""

from __future__ import annotations

import base64
import datetime as dt
import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import OKPAlgorithm

from stagehand_testdata.access import issuers, oidc
from stagehand_testdata.access.oidc import Verified, faults, trusts, verify
from stagehand_testdata.exceptions import IssuerUnavailable, NotAuthenticated
from tests.making import changed

from .issuer import AUDIENCE, KEYS, Issuer, rsa_key

SHARED_CLAIMS = {"repository": "octo-org/shop"}


@pytest.fixture
def trusting(issuer: Issuer) -> Iterator[Callable[..., Any]]:
    """Within the test OIDC_TRUST has one entry, with these changes."""
    stack = []

    def trust(**changes: Any) -> None:
        stack.append(changed(OIDC_TRUST=[issuer.trust(**changes)]))
        stack[-1].__enter__()

    trust()
    yield trust
    for each in reversed(stack):
        each.__exit__(None, None, None)


def refused(token: str) -> None:
    with pytest.raises(NotAuthenticated) as caught:
        verify(token)
    assert caught.value.message == oidc.REFUSAL
    assert caught.value.details is None


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_a_jobs_token_is_believed(issuer: Issuer, trusting: Any) -> None:
    claims = issuer.claims()
    verified = verify(jwt.encode(claims, issuer.key, "RS256", {"kid": issuer.key_id}))
    assert verified.trust.name == "shop"
    assert verified.subject == "repo:octo-org/shop:environment:e2e"
    assert verified.expires_at == dt.datetime.fromtimestamp(claims["exp"], dt.UTC)
    assert len(verified.digest) == 64


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "PS256", "PS512"])
def test_signatures_of_rsa(issuer: Issuer, trusting: Any, algorithm: str) -> None:
    issuer.publish("key-0", issuer.key, alg=algorithm)
    assert verify(issuer.token(algorithm=algorithm))


@pytest.mark.parametrize(
    ("curve", "algorithm"), [(ec.SECP256R1(), "ES256"), (ec.SECP384R1(), "ES384"), (ec.SECP521R1(), "ES512")]
)
def test_signatures_of_elliptic_curves(issuer: Issuer, trusting: Any, curve: Any, algorithm: str) -> None:
    key = ec.generate_private_key(curve)
    issuer.publish("key-0", key)
    assert verify(issuer.token(key=key, algorithm=algorithm))


def test_signatures_of_edwards_curves(issuer: Issuer, trusting: Any) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    issuer.published["key-0"] = {**OKPAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "key-0"}
    assert verify(issuer.token(key=key, algorithm="EdDSA"))


def test_without_an_entry_nobody_is_believed_and_nobody_is_asked(issuer: Issuer) -> None:
    with changed(OIDC_TRUST=[]):
        refused(issuer.token())
    assert issuer.asked == []


class TestAForgedToken:
    def test_without_a_signature(self, issuer: Issuer, trusting: Any) -> None:
        for name in ("none", "None", "NONE", ""):
            for signature in ("", part(b"x" * 256)):
                header = part({"alg": name, "typ": "JWT", "kid": "key-0"})
                refused(f"{header}.{part(issuer.claims())}.{signature}")

    @pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
    def test_with_the_public_key_as_the_shared_secret(
        self, issuer: Issuer, trusting: Any, algorithm: str
    ) -> None:
        import hashlib
        import hmac

        for form in (PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1):
            for encoding in (Encoding.PEM, Encoding.DER):
                secret = issuer.key.public_key().public_bytes(encoding, form)
                header = part({"alg": algorithm, "typ": "JWT", "kid": "key-0"})
                signed = f"{header}.{part(issuer.claims())}"
                digest = hmac.new(secret, signed.encode(), getattr(hashlib, f"sha{algorithm[2:]}")).digest()
                refused(f"{signed}.{part(digest)}")

    def test_with_a_shared_secret_that_the_issuer_publishes(self, issuer: Issuer, trusting: Any) -> None:
        secret = b"s" * 32
        issuer.published["shared"] = {"kty": "oct", "k": part(secret), "kid": "shared", "alg": "HS256"}
        refused(issuer.token(key=secret, algorithm="HS256", headers={"kid": "shared"}))

    def test_with_another_key_under_the_issuers_id(self, issuer: Issuer, trusting: Any) -> None:
        refused(issuer.token(key=rsa_key(2)))

    def test_with_an_algorithm_that_is_not_the_keys(self, issuer: Issuer, trusting: Any) -> None:
        refused(issuer.token(algorithm="RS512"))

    def test_with_a_key_of_its_own_in_its_header(self, issuer: Issuer, trusting: Any) -> None:
        own = jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key(2).public_key(), as_dict=True)
        for header in ({"jwk": own}, {"jku": f"{issuer.url}/own"}, {"x5u": f"{issuer.url}/own"}):
            refused(issuer.token(key=rsa_key(2), headers={"kid": "key-0", **header}))
            refused(issuer.token(key=rsa_key(2), headers=header))
        assert all(path != "/own" for path in issuer.asked)

    @pytest.mark.parametrize("key_id", ["invented", "", "../key-0", "KEY-0", "key-0 "])
    def test_with_a_key_id_that_the_issuer_has_not(self, issuer: Issuer, trusting: Any, key_id: str) -> None:
        refused(issuer.token(headers={"kid": key_id}))

    @pytest.mark.parametrize("header", [{}, {"kid": 5}, {"kid": None}, {"kid": ["key-0"]}])
    def test_without_a_key_id(self, issuer: Issuer, trusting: Any, header: Any) -> None:
        signed = f"{part({'alg': 'RS256', **header})}.{part(issuer.claims())}"
        signature = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(
            signed.encode(), issuer.key
        )
        refused(f"{signed}.{part(signature)}")

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_changed_in_any_part(self, issuer: Issuer, trusting: Any, place: int) -> None:
        token = issuer.token()
        parts = token.split(".")
        for at in range(0, len(parts[place]), 7):
            letter = "A" if parts[place][at] != "A" else "B"
            changed_part = parts[place][:at] + letter + parts[place][at + 1 :]
            refused(".".join([*parts[:place], changed_part, *parts[place + 1 :]]))
        assert verify(token)

    def test_by_a_key_that_is_too_short(self, issuer: Issuer, trusting: Any) -> None:
        short = rsa.generate_private_key(public_exponent=65537, key_size=1024)
        issuer.publish("key-0", short)
        with pytest.warns(jwt.warnings.InsecureKeyLengthWarning):
            token = issuer.token(key=short)
        refused(token)

    def test_with_an_extension_that_must_be_understood(self, issuer: Issuer, trusting: Any) -> None:
        refused(issuer.token(headers={"kid": "key-0", "crit": ["exp"], "exp": 5}))


class TestATokenThatIsNone:
    @pytest.mark.parametrize(
        "text",
        [
            "x",
            ".",
            "..",
            "...",
            "a.b.c",
            "tdk_0123_abc",
            "Bearer x.y.z",
            "é.é.é",
            f"{part(b'[' * 8000)}.{part({})}.x",
            f"{part({'alg': 'RS256', 'kid': 'key-0'})}.{part(b'[' * 8000)}.x",
            f"{part({'alg': 'RS256', 'kid': 'key-0'})}.{part([])}.x",
            f"{part({'alg': 'RS256', 'kid': 'key-0'})}.{part(5)}.x",
            f"{part([])}.{part({})}.x",
            f"{part({'alg': 'RS256', 'kid': 'key-0'})}.{part(b'9' * 5000)}.x",
            f"{part({'alg': 'RS256', 'kid': 'key-0', 'b64': False, 'crit': ['b64']})}.x.x",
            "x" * (oidc.MAX_CHARACTERS + 1),
        ],
        ids=lambda text: text[:12],
    )
    def test_is_refused(self, trusting: Any, text: str) -> None:
        refused(text)

    def test_is_refused_where_it_is_too_long_and_signed(self, issuer: Issuer, trusting: Any) -> None:
        refused(issuer.token(padding="x" * oidc.MAX_CHARACTERS))

    @given(text=st.text(max_size=60) | st.lists(st.binary(max_size=30), max_size=4).map(
        lambda parts: ".".join(map(part, parts))
    ))  # fmt: skip
    def test_whatever_it_is(self, text: str) -> None:
        entry = {"name": "a", "issuer": "http://127.0.0.1:9", "audience": "b", "claims": SHARED_CLAIMS}
        with changed(OIDC_TRUST=[entry]):
            refused(text)


class TestTheClaims:
    @pytest.mark.parametrize("name", oidc.REQUIRED)
    def test_that_every_token_needs(self, issuer: Issuer, trusting: Any, name: str) -> None:
        refused(issuer.token(**{name: None}))

    @pytest.mark.parametrize("name", ["sub", "jti"])
    def test_that_may_not_be_empty(self, issuer: Issuer, trusting: Any, name: str) -> None:
        refused(issuer.token(**{name: ""}))

    def test_of_time(self, issuer: Issuer, trusting: Any) -> None:
        now = int(time.time())
        refused(issuer.token(iat=now - 400, nbf=now - 400, exp=now - 60))
        refused(issuer.token(nbf=now + 120))
        refused(issuer.token(iat=now + 120))
        refused(issuer.token(exp=now + 24 * 3600 + 60))
        assert verify(issuer.token(exp=now + 24 * 3600 - 60))
        assert verify(issuer.token(iat=now - 400, nbf=now - 400, exp=now - 5))  # the clocks may differ

    @pytest.mark.parametrize("value", ["soon", 1e400, float("nan"), -1e400, {}, 10**30])
    @pytest.mark.parametrize("name", ["iat", "nbf", "exp"])
    def test_of_time_that_are_no_time(self, issuer: Issuer, trusting: Any, name: str, value: Any) -> None:
        claims = part({**issuer.claims(), name: value})
        signed = f"{part({'alg': 'RS256', 'kid': 'key-0'})}.{claims}"
        signer = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256)
        refused(f"{signed}.{part(signer.sign(signed.encode(), issuer.key))}")

    @pytest.mark.parametrize(
        "audience",
        [
            "https://other.test",
            AUDIENCE + "/",
            AUDIENCE.upper(),
            "",
            [],
            ["https://other.test"],
            [AUDIENCE, "https://other.test"],
            ["https://other.test", AUDIENCE],
        ],
    )
    def test_for_another_audience(self, issuer: Issuer, trusting: Any, audience: Any) -> None:
        refused(issuer.token(aud=audience))

    def test_for_our_audience_alone_in_a_list(self, issuer: Issuer, trusting: Any) -> None:
        assert verify(issuer.token(aud=[AUDIENCE]))

    def test_of_another_issuer(self, issuer: Issuer, trusting: Any) -> None:
        for name in (issuer.url + "/", issuer.url.upper(), issuer.url.replace("127.0.0.1", "localhost")):
            refused(issuer.token(iss=name))
        with pytest.raises(TypeError):
            issuer.token(iss=[issuer.url])

    def test_of_another_issuer_that_is_trusted_too(self, issuer: Issuer) -> None:
        with Issuer() as other, changed(OIDC_TRUST=[issuer.trust(), other.trust(claims={"sub": "job"})]):
            assert verify(other.token(sub="job")).trust.issuer == other.url
            refused(other.token())
            refused(issuer.token(sub="job", repository="evil/shop"))
            other.key, other.key_id = rsa_key(3), "key-0"
            refused(other.token(iss=issuer.url))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("repository", "octo-org/shop2"),
            ("repository", "Octo-Org/shop"),
            ("repository", "evil/octo-org/shop"),
            ("repository", ["octo-org/shop"]),
            ("repository", {"octo-org/shop": 1}),
            ("repository", None),
            ("environment", "production"),
            ("environment", None),
            ("environment", ""),
        ],
    )
    def test_that_the_entry_does_not_have(self, issuer: Issuer, trusting: Any, name: str, value: Any) -> None:
        refused(issuer.token(**{name: value}))

    def test_that_are_numbers_and_flags_are_compared_as_text(self, issuer: Issuer, trusting: Any) -> None:
        trusting(claims={**SHARED_CLAIMS, "runner_id": "7", "protected": "true"})
        assert verify(issuer.token())
        refused(issuer.token(protected=False))
        refused(issuer.token(runner_id=71))

    def test_of_which_any_of_a_list_will_do(self, issuer: Issuer, trusting: Any) -> None:
        trusting(claims={"repository": ["octo-org/shop", "octo-org/till"]})
        assert verify(issuer.token(repository="octo-org/till"))
        refused(issuer.token(repository="octo-org/other"))

    @pytest.mark.parametrize(
        ("pattern", "value", "taken"),
        [
            ("octo-org/*", "octo-org/shop", True),
            ("octo-org/*", "octo-org/", True),
            ("octo-org/*", "octo-org-evil/shop", False),
            ("octo-org/*", "octo-org/shop/evil", False),
            ("octo-org/shop-*", "octo-org/shop-eu", True),
            ("octo-org/shop-*", "octo-org/shop", False),
            ("octo-org/sh.p", "octo-org/shop", False),
            ("octo-org/[a-z]*", "octo-org/shop", False),
            ("octo-org/sho?", "octo-org/shop", False),
            ("octo-org/shop", "octo-org/shop\n", False),
        ],
    )
    def test_and_patterns(self, issuer: Issuer, trusting: Any, pattern: str, value: str, taken: bool) -> None:
        trusting(claims={"repository": pattern})
        token = issuer.token(repository=value)
        assert verify(token) if taken else refused(token) is None

    def test_and_patterns_of_a_subject(self, issuer: Issuer, trusting: Any) -> None:
        trusting(claims={"sub": "repo:octo-org/shop:ref:refs/heads/*"})
        assert verify(issuer.token(sub="repo:octo-org/shop:ref:refs/heads/main"))
        for subject in (
            "repo:octo-org/shop:ref:refs/tags/main",
            "repo:octo-org/shop:ref:refs/heads/main:environment:e2e",
            "repo:octo-org/shop:ref:refs/heads/feature/x",
        ):
            refused(issuer.token(sub=subject))

    def test_decide_which_of_an_issuers_entries_it_is(self, issuer: Issuer) -> None:
        entries = [
            issuer.trust(name="till", claims={"repository": "octo-org/till"}),
            issuer.trust(name="staging", audience="https://staging.test"),
            issuer.trust(name="shop"),
        ]
        with changed(OIDC_TRUST=entries):
            assert verify(issuer.token()).trust.name == "shop"
            assert verify(issuer.token(aud="https://staging.test")).trust.name == "staging"
            assert verify(issuer.token(repository="octo-org/till")).trust.name == "till"
            refused(issuer.token(repository="octo-org/till", aud="https://staging.test"))


class TestTheOwner:
    def owner(self, issuer: Issuer, **claims: Any) -> str:
        return verify(issuer.token(**claims)).owner

    def test_is_the_subject_of_the_issuer(self, issuer: Issuer, trusting: Any) -> None:
        first = self.owner(issuer)
        assert first.startswith("oidc:")
        assert len(first) <= 128
        assert self.owner(issuer, ref="refs/heads/other") == first
        assert self.owner(issuer, sub="repo:octo-org/shop:ref:refs/heads/main") != first

    def test_is_what_the_entry_names(self, issuer: Issuer, trusting: Any) -> None:
        trusting(owner=["repository", "ref"])
        first = self.owner(issuer)
        assert self.owner(issuer, sub="another") == first
        assert self.owner(issuer, ref="refs/heads/other") != first
        assert verify(issuer.token()).subject == "octo-org/shop refs/heads/main"
        refused(issuer.token(ref=None))
        refused(issuer.token(ref=["refs/heads/main"]))

    def test_is_the_same_whichever_entry_lets_it_in(self, issuer: Issuer, trusting: Any) -> None:
        first = self.owner(issuer)
        trusting(name="another", claims={"sub": "repo:octo-org/shop:environment:e2e"})
        assert self.owner(issuer) == first

    def test_is_never_another_ones_by_the_way_it_is_put_together(self, issuer: Issuer, trusting: Any) -> None:
        trusting(owner=["repository_id", "ref"])
        assert self.owner(issuer, repository_id="1", ref="2 3") != self.owner(
            issuer, repository_id="1 2", ref="3"
        )

    def test_of_one_issuer_is_not_that_of_another(self, issuer: Issuer) -> None:
        with Issuer() as other, changed(OIDC_TRUST=[issuer.trust(), other.trust()]):
            assert self.owner(issuer) != self.owner(other)


def test_a_tokens_digest_is_its_own(issuer: Issuer, trusting: Any) -> None:
    def digest(jti: str) -> str:
        return verify(issuer.token(jti=jti)).digest

    assert digest("a") == digest("a")
    assert len({digest("a"), digest("A"), digest("a "), digest("b")}) == 4


def test_keys_that_the_issuer_turns_over_are_followed(
    issuer: Issuer, trusting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = issuer.token()
    assert verify(old)
    issuer.rotate()
    monkeypatch.setattr(issuers, "REFETCH_SECONDS", 0.0)
    assert verify(issuer.token())
    refused(old)


def test_an_issuer_that_cannot_be_asked_is_no_refusal(
    issuer: Issuer, trusting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = issuer.token()
    issuer.instead[KEYS] = (500, {}, b"")
    with pytest.raises(IssuerUnavailable):
        verify(token)
    issuer.recover()
    monkeypatch.setattr(issuers, "RETRY_SECONDS", 0.0)
    assert isinstance(verify(token), Verified)


def test_the_log_says_why_and_nothing_of_what_was_sent(
    issuer: Issuer, trusting: Any, caplog: pytest.LogCaptureFixture
) -> None:
    token = issuer.token(repository="evil/canary", jti="canary", sub="canary")
    with caplog.at_level(logging.DEBUG):
        refused(token)
        refused(issuer.token(headers={"kid": "canary"}))
        refused("canary.canary.canary")
        verify(issuer.token(jti="canary"))
    assert "no entry of OIDC_TRUST has its audience and claims" in caplog.text
    assert "canary" not in caplog.text
    assert token not in caplog.text


class TestAnEntry:
    @pytest.mark.parametrize(
        "changes",
        [
            {"claims": None},
            {"claims": {}},
            {"claims": {"environment": "e2e"}},
            {"claims": {"ref": "refs/heads/main", "repository_owner": "octo-org"}},
            {"claims": {"repository": "*"}},
            {"claims": {"repository": "*/shop"}},
            {"claims": {"repository": "octo-*/shop"}},
            {"claims": {"repository": ["octo-org/shop", "*"]}},
            {"claims": {"repository_id": "4*"}},
            {"claims": {"sub": "*"}},
            {"claims": {"sub": "repo:*"}},
            {"claims": {"sub": "repo:octo-*"}},
            {"claims": {"repository": ""}},
            {"claims": {"repository": []}},
            {"claims": {"repository": [""]}},
            {"claims": {"repository": 5}},
            {"claims": {"repository": None}},
            {"claims": {"repository": "octo-org/shop", "environment": 5}},
            {"claims": ["repository"]},
            {"owner": "environment"},
            {"owner": []},
            {"owner": [5]},
            {"owner": 5},
            {"name": None},
            {"name": ""},
            {"name": 5},
            {"audience": None},
            {"audience": ["a", "b"]},
            {"issuer": None},
            {"issuer": "http://gitlab.com"},
            {"issuer": "gitlab.com"},
            {"issuer": "https://gitlab.com?x"},
            {"jwks_uri": "http://gitlab.com/keys"},
            {"jwks_uri": 5},
        ],
        ids=str,
    )
    def test_that_trusts_too_many_or_nobody_counts_for_nothing(
        self, issuer: Issuer, trusting: Any, changes: Any
    ) -> None:
        entry = {**issuer.trust(), **changes}
        assert list(faults(entry))
        with changed(OIDC_TRUST=[entry]):
            assert list(trusts()) == []
            refused(issuer.token())

    @pytest.mark.parametrize("entry", [None, "shop", ["shop"], 5])
    def test_that_is_no_dict(self, entry: Any) -> None:
        assert list(faults(entry)) == ["is no dict"]
        with changed(OIDC_TRUST=[entry]):
            assert list(trusts()) == []

    @pytest.mark.parametrize("value", [None, "all", {"name": "a"}, 5])
    def test_where_the_setting_is_no_list_there_is_none(self, value: Any) -> None:
        with changed(OIDC_TRUST=value):
            assert list(trusts()) == []

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"claims": {"repository": "octo-org/*"}},
            {"claims": {"repository_id": "456789", "environment": "*"}},
            {"claims": {"project_path": ("group/shop", "group/*")}},
            {"claims": {"sub": "system:serviceaccount:ci:e2e"}},
            {"owner": "repository"},
            {"owner": ["repository_id", "environment"]},
            {"jwks_uri": "https://keys.test/keys"},
        ],
        ids=str,
    )
    def test_that_is_right(self, issuer: Issuer, changes: Any) -> None:
        assert list(faults({**issuer.trust(), **changes})) == []

    @pytest.mark.parametrize(
        ("host", "subject", "right"),
        [
            ("https://token.actions.githubusercontent.com", "repo:octo-org/shop:environment:e2e", True),
            ("https://token.actions.githubusercontent.com", "repo:octo-org@1/shop@2:environment:e2e", True),
            ("https://token.actions.githubusercontent.com", "repository_id:2:environment:e2e", True),
            ("https://token.actions.githubusercontent.com", "environment:e2e", False),
            ("https://token.actions.githubusercontent.com", "job_workflow_ref:octo-org/shop/.github", False),
            ("https://gitlab.com", "project_path:group/shop:ref_type:branch:ref:main", True),
            ("https://gitlab.com", "ref_type:branch:ref:main", False),
            ("https://git.shop.test", "ref_type:branch:ref:main", True),
        ],
    )
    def test_of_an_issuer_of_all_the_worlds_needs_a_subject_that_names_a_project(
        self, issuer: Issuer, host: str, subject: str, right: bool
    ) -> None:
        """Whoever has a project there can put subjects together that leave it out."""
        assert (list(faults(issuer.trust(issuer=host, claims={"sub": subject}))) == []) is right
