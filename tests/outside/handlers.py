"""What a host would write: one small class for each kind of thing outside."""

from __future__ import annotations

import json
import os
import smtplib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from email.message import EmailMessage
from typing import Any

from stagehand_testdata.registry import ExternalHandler


class Account(ExternalHandler):
    """An account at an HTTP service, which keeps idempotency keys as such services do."""

    attempts = 3
    backoff = 0.01
    timeout = 0.5

    def create(self, key: str, fields: Mapping[str, Any]) -> str:
        answer = self._send("POST", "/accounts", key=key, body=dict(fields))
        return str(json.loads(answer)["id"])

    def remove(self, key: str, reference: str) -> None:
        path = f"/accounts/{reference}" if reference else "/accounts?" + urllib.parse.urlencode({"key": key})
        try:
            self._send("DELETE", path, key=key)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise

    def _send(self, method: str, path: str, *, key: str, body: Any = None) -> bytes:
        headers = {"Idempotency-Key": key, "X-Process": str(os.getpid())}
        url = os.environ["OUTSIDE_HTTP"] + path
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                answer: bytes = response.read()
                return answer
        except urllib.error.HTTPError as error:
            error.close()
            raise


class Mailbox(ExternalHandler):
    """A mailbox at a mail robot: asked for, and given back, by mail. It has no name but the key."""

    attempts = 3
    backoff = 0.01
    timeout = 0.5

    def create(self, key: str, fields: Mapping[str, Any]) -> str:
        self._send("create", key)
        return ""

    def remove(self, key: str, reference: str) -> None:
        self._send("remove", key)

    def _send(self, order: str, key: str) -> None:
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = "host@example.com", "robot@example.com", order
        mail.set_content(key)
        host, port = os.environ["OUTSIDE_SMTP"].split(":")
        with smtplib.SMTP(host, int(port), timeout=self.timeout) as robot:
            robot.send_message(mail)
