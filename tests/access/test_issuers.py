"""An issuer's keys are fetched from it alone, kept, looked for once a minute, and never waited for long."""

from __future__ import annotations

import datetime as dt
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stagehand_testdata.access import issuers
from stagehand_testdata.access.issuers import fault_of_url, keys_of
from stagehand_testdata.exceptions import IssuerUnavailable
from stagehand_testdata.isolation import sockets

from .issuer import DISCOVERY, KEYS, Issuer


def find(issuer: Issuer, key_id: str | None = None, jwks_uri: str = "") -> Any:
    return keys_of(issuer.url, jwks_uri).find(key_id or issuer.key_id)


def test_keys_are_found_by_way_of_the_issuers_own_document_and_kept(issuer: Issuer) -> None:
    for _ in range(3):
        assert find(issuer).key_id == "key-0"
    assert issuer.asked == [DISCOVERY, KEYS]


def test_a_place_that_the_host_names_needs_no_document(issuer: Issuer) -> None:
    issuer.instead[DISCOVERY] = (500, {}, b"")
    assert find(issuer, jwks_uri=issuer.url + KEYS).key_id == "key-0"
    assert issuer.asked == [KEYS]


def test_an_issuer_with_a_path_has_its_document_below_it(issuer: Issuer) -> None:
    with pytest.raises(IssuerUnavailable):
        keys_of(issuer.url + "/tenant/", "").find("key-0")
    assert issuer.asked == [f"/tenant{DISCOVERY}"]


def test_keys_count_for_a_while_and_are_then_fetched_again(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    find(issuer)
    issuer.rotate()
    monkeypatch.setattr(issuers, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(issuers, "REFETCH_SECONDS", 0.0)
    keys_of(issuer.url, "").find("key-0")
    monkeypatch.undo()
    assert keys_of(issuer.url, "").find("key-0") is None
    assert find(issuer).key_id == "key-1"


def test_keys_past_their_time_do_not_count_while_the_issuer_is_away(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    find(issuer)
    issuer.instead[KEYS] = (503, {}, b"")
    monkeypatch.setattr(issuers, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(issuers, "REFETCH_SECONDS", 0.0)
    with pytest.raises(IssuerUnavailable):
        find(issuer)


class TestAnUnknownKey:
    def test_is_looked_for_once_a_minute_however_often_it_is_sent(self, issuer: Issuer) -> None:
        find(issuer)
        for number in range(50):
            assert find(issuer, f"invented-{number}") is None
        assert issuer.asked == [DISCOVERY, KEYS]

    def test_is_found_after_that_minute_where_the_issuer_turned_its_keys_over(
        self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        find(issuer)
        issuer.rotate()
        assert find(issuer) is None
        monkeypatch.setattr(issuers, "REFETCH_SECONDS", 0.0)
        assert find(issuer).key_id == "key-1"
        assert find(issuer, "key-0") is None

    def test_sends_one_thread_out_however_many_wait(
        self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        find(issuer)
        monkeypatch.setattr(issuers, "REFETCH_SECONDS", 0.3)
        time.sleep(0.3)
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda number: find(issuer, f"invented-{number}"), range(64)))
        assert found == [None] * 64
        assert issuer.asked.count(KEYS) == 2


class TestAnIssuerThatFails:
    @pytest.mark.parametrize(
        ("path", "answer"),
        [
            (DISCOVERY, (500, {}, b"{}")),
            (DISCOVERY, (204, {}, b"")),
            (DISCOVERY, (200, {}, b"not JSON")),
            (DISCOVERY, (200, {}, b"[]")),
            (DISCOVERY, (200, {}, b"{}")),
            (DISCOVERY, (200, {}, b"[" * 100_000)),
            (DISCOVERY, (200, {}, b'{"issuer": "' + b"x" * issuers.MAX_BYTES + b'"}')),
            (KEYS, (500, {}, b"{}")),
            (KEYS, (404, {}, b"{}")),
            (KEYS, (200, {}, b'{"keys": []}')),
            (KEYS, (200, {}, b'{"keys": [{"kty": "RSA", "kid": "key-0", "alg": []}]}')),
            (KEYS, (200, {}, b'{"keys": "all of them"}')),
            (KEYS, (200, {}, b"\xff\xfe")),
        ],
    )
    def test_gives_no_keys_and_is_asked_again_when_it_is_well(
        self,
        issuer: Issuer,
        monkeypatch: pytest.MonkeyPatch,
        path: str,
        answer: tuple[int, dict[str, str], bytes],
    ) -> None:
        issuer.instead[path] = answer
        with pytest.raises(IssuerUnavailable):
            find(issuer)
        issuer.recover()
        monkeypatch.setattr(issuers, "RETRY_SECONDS", 0.0)
        assert find(issuer).key_id == "key-0"

    def test_is_left_alone_for_a_while(self, issuer: Issuer) -> None:
        issuer.instead[DISCOVERY] = (500, {}, b"")
        for _ in range(20):
            with pytest.raises(IssuerUnavailable):
                find(issuer)
        assert issuer.asked == [DISCOVERY]

    def test_does_not_take_the_keys_away_that_count_still(
        self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        find(issuer)
        monkeypatch.setattr(issuers, "REFETCH_SECONDS", 0.0)
        issuer.instead[KEYS] = (500, {}, b"")
        with pytest.raises(IssuerUnavailable):
            find(issuer, "invented")
        assert find(issuer).key_id == "key-0"

    @pytest.mark.parametrize("how", ["hanging", "dripping"])
    def test_is_not_waited_for_and_holds_nobody_twice(
        self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        monkeypatch.setattr(issuers, "WAIT_SECONDS", 0.4)
        monkeypatch.setattr(issuers, "RETRY_SECONDS", 60.0)
        setattr(issuer, how, True)

        def refused(_: int) -> float:
            begin = time.monotonic()
            with pytest.raises(IssuerUnavailable):
                find(issuer)
            return time.monotonic() - begin

        with ThreadPoolExecutor(8) as pool:
            assert max(pool.map(refused, range(8))) < 1.5
        assert refused(0) < 0.2
        assert issuer.asked == [DISCOVERY]

    def test_is_asked_anew_where_the_thread_that_asked_is_lost(
        self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As in a child of a process that forked meanwhile."""
        monkeypatch.setattr(issuers, "WAIT_SECONDS", 0.1)
        monkeypatch.setattr(issuers, "REFETCH_SECONDS", 0.3)
        with monkeypatch.context() as lost:
            lost.setattr(threading.Thread, "start", lambda thread: None)
            with pytest.raises(IssuerUnavailable):
                find(issuer)
        time.sleep(0.3)
        monkeypatch.setattr(issuers, "WAIT_SECONDS", 5.0)
        assert find(issuer).key_id == "key-0"


class TestKeysFromElsewhere:
    def test_are_not_fetched_from_another_origin_than_the_issuers(self, issuer: Issuer) -> None:
        with Issuer() as other:
            issuer.document["jwks_uri"] = other.url + KEYS
            with pytest.raises(IssuerUnavailable):
                find(issuer)
            assert other.asked == []

    @pytest.mark.parametrize(
        "uri", ["file:///etc/passwd", "ftp://127.0.0.1/keys", "http://shop.test/keys", 5]
    )
    def test_are_not_fetched_in_another_way(self, issuer: Issuer, uri: Any) -> None:
        issuer.document["jwks_uri"] = uri
        with pytest.raises(IssuerUnavailable):
            find(issuer)
        assert issuer.asked == [DISCOVERY]

    @pytest.mark.parametrize("path", [DISCOVERY, KEYS])
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_are_not_fetched_where_the_issuer_sends_us(self, issuer: Issuer, path: str, status: int) -> None:
        with Issuer() as other:
            issuer.instead[path] = (status, {"Location": other.url + path}, b"")
            with pytest.raises(IssuerUnavailable):
                find(issuer)
            assert other.asked == []

    def test_do_not_count_where_the_document_is_another_issuers(self, issuer: Issuer) -> None:
        issuer.document["issuer"] = issuer.url + "/"
        with pytest.raises(IssuerUnavailable):
            find(issuer)


def test_an_issuer_whose_certificate_nobody_vouches_for_gives_no_keys(
    issuer: Issuer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed("localhost", tmp_path))
    issuer.server.socket = context.wrap_socket(issuer.server.socket, server_side=True)
    url = issuer.url.replace("http://127.0.0.1", "https://localhost")
    with pytest.raises(IssuerUnavailable):
        keys_of(url, url + KEYS).find("key-0")
    assert issuer.asked == []
    assert "URLError" in caplog.text


def self_signed(host: str, directory: Path) -> Path:
    """A file with a key and a certificate for this host that no authority has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + dt.timedelta(hours=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = directory / "issuer.pem"
    path.write_bytes(private + certificate.public_bytes(pem))
    return path


def test_keys_for_another_use_or_without_an_id_are_none(issuer: Issuer) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer.publish("for-encryption", key, use="enc")
    issuer.publish("", key)
    assert find(issuer, "for-encryption") is None
    assert keys_of(issuer.url, "").find("") is None
    assert find(issuer).key_id == "key-0"


def test_a_run_under_way_has_no_say_in_it(issuer: Issuer) -> None:
    """The guard of sockets leaves loopback alone; that an issuer can be asked under a run is what counts."""
    with sockets.guard() as escapes:
        assert find(issuer).key_id == "key-0"
    assert escapes == []


@pytest.mark.parametrize(
    "url",
    [
        "https://gitlab.com",
        "https://gitlab.com:8443/path/",
        "http://127.0.0.1:8000",
        "http://localhost",
        "http://[::1]:8000/keys",
    ],
)
def test_https_and_loopback_are_fetched_from(url: str) -> None:
    assert fault_of_url(url) is None


@pytest.mark.parametrize(
    "url",
    [
        None,
        5,
        "",
        "gitlab.com",
        "//gitlab.com",
        "http://gitlab.com",
        "http://localhost.gitlab.com",
        "http://0.0.0.0/",
        "http://128.0.0.1/",
        "ftp://gitlab.com",
        "file:///etc/passwd",
        "https://user@gitlab.com",
        "https://user:pass@gitlab.com",
        "https://gitlab.com?x",
        "https://gitlab.com#x",
        "https://gitlab.com:port",
        "https://gitlab.com:99999",
        "https://[::1",
        "https://git lab.com",
        "https://gitlab.com\\@evil.test",
        "https://gitlab.com\n",
        "https://",
    ],
)
def test_nothing_is_fetched_from_anywhere_else(url: Any) -> None:
    assert fault_of_url(url) is not None
