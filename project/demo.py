"""The whole cycle against a live server: `python -m project.demo`, or `--serve` to keep it running."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import html
import io
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LEDGER = "stagehand_testdata"
START_SECONDS = 60
STOP_SECONDS = 10

Tables = dict[str, list[tuple[Any, ...]]]


class DemoError(Exception):
    """What went wrong, in a line for whoever watches."""


def main(argv: list[str] | None = None) -> int:
    """Exit status 0: every step worked and the host's tables are as they were."""
    parser = argparse.ArgumentParser(prog="python -m project.demo", description=__doc__)
    parser.add_argument("--serve", action="store_true", help="keep the server running and say where it is")
    parser.add_argument("--port", type=int, default=8000, help="for --serve; a free one where it is taken")
    options = parser.parse_args(argv)
    for signum in (signal.SIGINT, signal.SIGTERM):  # both end it through every `finally`
        signal.signal(signum, signal.default_int_handler)
    try:
        if options.serve:
            serve(options.port)
        else:
            with tempfile.TemporaryDirectory(prefix="stagehand-demo-") as directory:
                demonstrate(Path(directory) / "demo.sqlite3")
    except DemoError as failure:
        print(f"\nFAILED: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.")
        return 0 if options.serve else 130
    return 0


def demonstrate(path: Path) -> None:
    """The life of one test, and the proof that it left nothing behind."""
    prepare(path)
    before = host_tables()
    with running_server() as (url, _):
        print(f"A marketplace with real rows answers on {url}. A test comes along.\n")
        tell_the_story(Story(url))
    compare(before, host_tables())


def serve(port: int) -> None:
    """Keep the product running until it is stopped."""
    path = ROOT / ".demo" / "db.sqlite3"
    path.parent.mkdir(exist_ok=True)
    prepare(path)
    password = reset_admin()
    with running_server(port) as (url, process):
        print(f"Listing    {url}/marketplace/builders")
        print(f"API        {url}/api/test/docs")
        print(f"Admin      {url}/admin/")
        print(f"Log in as  admin / {password}")
        print("Test mode is on and asks for no key; the server listens on loopback only.")
        print("Ctrl-C stops it.", flush=True)
        raise DemoError(f"the server ended by itself with status {process.wait()}")


def prepare(path: Path) -> None:
    """A migrated database with a few real rows, for this process and for the server that it starts."""
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "DATABASE_URL": f"sqlite:///{urllib.parse.quote(str(path))}",
        "STAGEHAND_TESTDATA_ENABLED": "1",
        "STAGEHAND_TESTDATA_REQUIRE_ACCESS_KEY": "0",
        "SERVE_STATIC": "1",
    }
    os.environ.setdefault("LOG_LEVEL", "ERROR")
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    call_command("testdata", "guards", "install", stdout=io.StringIO())

    from project.seed import seed
    from stagehand_testdata.marketplace.models import Builder

    if not Builder.objects.exists():
        seed()


def reset_admin() -> str:
    """The password of a superuser `admin`, new at every start."""
    from django.contrib.auth import get_user_model

    password = secrets.token_urlsafe(12)
    users = get_user_model().objects
    admin = users.filter(username="admin").first() or users.create_superuser(username="admin")
    admin.set_password(password)
    admin.save()
    return password


@contextlib.contextmanager
def running_server(port: int = 0) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """gunicorn on loopback: its address and its process, which ends with the block."""
    with bound_socket(port) as listener:
        bind = f"fd://{listener.fileno()}"
        url = "http://{}:{}".format(*listener.getsockname())
        # The server inherits the bound socket: nobody can take the port in between.
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "gunicorn",
                "-c",
                "project/gunicorn_config.py",
                "-b",
                bind,
                "project.wsgi",
            ],
            cwd=ROOT,
            pass_fds=[listener.fileno()],
        )
    try:
        wait_until_it_answers(url, process)
        yield url, process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def bound_socket(port: int) -> socket.socket:
    """A socket bound to this port of loopback, or to a free one where it is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.bind(("127.0.0.1", 0))
    return listener


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    """Raises DemoError where the server ends or keeps silent."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DemoError(f"the server ended with status {process.returncode} before it answered")
        with contextlib.suppress(OSError, DemoError):
            fetch(f"{url}/marketplace/builders")
            return
        time.sleep(0.05)
    raise DemoError(f"the server did not answer within {START_SECONDS} s")


def fetch(
    url: str,
    method: str = "GET",
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    expect: int = 200,
    *,
    form: Mapping[str, str] | None = None,
) -> str:
    """The text of an answer; raises DemoError where its status is another than expected."""
    sent, data = dict(headers or {}), None
    if form is not None:
        data = urllib.parse.urlencode(form).encode()
    elif body is not None:
        sent["Content-Type"] = "application/json"
        data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, sent, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            status, text = int(answer.status), str(answer.read(), "utf-8")
    except urllib.error.HTTPError as error:
        with error:
            status, text = error.code, str(error.read(), "utf-8", "replace")
    if status != expect:
        raise DemoError(f"{method} {url} answered {status} instead of {expect}: {text[:500]}")
    return text


class Story:
    """The steps of one test, each told with its time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.test_id = f"stagehand_test_demo_{secrets.token_hex(4)}"
        self.steps = 0
        #: The header that puts a request of the product under the run.
        self.test_pass: dict[str, str] = {}

    def step(
        self,
        title: str,
        method: str,
        path: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        expect: int = 200,
        form: Mapping[str, str] | None = None,
    ) -> str:
        """One request: the text of its answer."""
        started = time.perf_counter()
        text = fetch(self.url + path, method, body, headers, expect, form=form)
        milliseconds = (time.perf_counter() - started) * 1000
        self.steps += 1
        where = path.replace(self.test_id, "{testId}")
        print(f"{self.steps:2}. {title:<34}{milliseconds:8.1f} ms   {method} {where}")
        return text

    def post(self, title: str, operation: str, body: Any, expect: int = 201) -> Any:
        path, headers = f"/api/test/{operation}", {"X-Test-ID": self.test_id}
        return json.loads(self.step(title, "POST", path, body=body, headers=headers, expect=expect))

    def get(self, title: str, resource: str) -> Any:
        return json.loads(
            self.step(title, "GET", f"/api/test/{resource}", headers={"X-Test-ID": self.test_id})
        )

    def visit(self, title: str, path: str, *, under_the_run: bool, expect: int = 200) -> str:
        """A page of the product, as the browser under test sees it or as anybody else does."""
        headers = self.test_pass if under_the_run else {}
        return self.step(title, "GET", f"/marketplace/{path}", headers=headers, expect=expect)

    def send_form(self, title: str, path: str, form: Mapping[str, str]) -> str:
        """A form of the product, sent by the browser under test: the page that comes after it."""
        secret = secrets.token_hex(16)
        headers = {**self.test_pass, "Cookie": f"csrftoken={secret}", "X-CSRFToken": secret}
        return self.step(title, "POST", f"/marketplace/{path}", headers=headers, form=form)

    def tell(self, line: str) -> None:
        print(f"      {line}")


def tell_the_story(story: Story) -> None:
    """Every operation of the document once; raises DemoError at the first that does not keep its word."""
    listing = story.visit("Anybody opens the listing", "builders", under_the_run=False)
    run = story.post("Open a run", "verify-access", {"label": "demo", "seed": 42}, 200)
    story.tell(f"{run['testId']} may make test data until {run['expiresAt']}")
    builder = story.post("Make a builder", "builders", {"name": "Grace", "expertise": ["COBOL", "React"]})
    story.tell(f"{builder['name']}, {builder['hourlyRate']} an hour, {builder['email']}")
    offers = [
        {"name": "First look", "duration": 30, "price": 40},
        {"name": "Code review", "duration": 90, "price": 120},
    ]
    body = {"builderId": builder["id"], "sessionTypes": offers}
    sessions = story.post("Make two session types", "session-types", body)
    story.tell(
        " and ".join(f"{each['name']}, {each['duration']} min at {each['price']}" for each in sessions)
    )
    client = story.post("Make a client", "clients", {"companyName": "Hopper & Co."})
    story.tell(f"{client['name']}, {client['email']}")
    body = {"builderId": builder["id"], "clientId": client["id"], "sessionTypeId": sessions[1]["id"]}
    booking = story.post("Book the second session", "booking-scenarios", {**body, "status": "CONFIRMED"})
    story.tell(f"booking {booking['id']}: {booking['status']}, {booking['amount']} {booking['currency']}")
    products = story.post("Use the shop's own factory", "entities/product", {"count": 3})
    story.tell(", ".join(each["fields"]["title"] for each in products))
    look_around(story)
    see_both_sides(story, builder, listing)
    book_in_the_product(story, builder, sessions[0])
    clean_up(story, builder)


def look_around(story: Story) -> None:
    """What the ledger knows."""
    run = story.get("Look at the run", f"runs/{story.test_id}")
    story.tell(f"{run['state']}, with {run['entities']['live']} rows")
    entries = story.get("List its rows", f"runs/{story.test_id}/entities")["results"]
    story.tell(counted(Counter(each["type"] for each in entries)))


def see_both_sides(story: Story, builder: dict[str, Any], listing: str) -> None:
    """The product shows the run's rows to whoever carries its pass, and to nobody else."""
    granted = story.post("Ask for a pass", f"runs/{story.test_id}/pass", {})
    story.test_pass = {granted["header"]: granted["token"]}
    story.tell(f"the header {granted['header']}, or the cookie {granted['cookie']['name']} for a browser")
    name, page = html.escape(builder["name"]), f"builders/{builder['id']}"
    if name not in story.visit("With the pass: the listing", "builders", under_the_run=True):
        raise DemoError(f"the listing does not show {builder['name']!r} to its run")
    if name not in story.visit("With the pass: the builder", page, under_the_run=True):
        raise DemoError(f"the public page does not show {builder['name']!r} to its run")
    story.tell(f"both show {builder['name']!r}")
    if story.visit("Anybody else: the listing", "builders", under_the_run=False) != listing:
        raise DemoError("a stranger's listing is not what it was before the run")
    story.visit("Anybody else: the builder", page, under_the_run=False, expect=404)
    story.tell("the listing is byte for byte what it was before the run; there is no such builder")


def book_in_the_product(story: Story, builder: dict[str, Any], session: dict[str, Any]) -> None:
    """What the product's own form makes under the run is the run's too."""
    start = dt.datetime.now(dt.UTC) + dt.timedelta(days=7)
    form = {
        "name": "Zoe",
        "email": "zoe@example.com",
        "session_type": session["id"],
        "start_time": start.strftime("%Y-%m-%dT%H:%M"),
    }
    page = story.send_form("With the pass: book by the form", f"builders/{builder['id']}", form)
    if "Booking received" not in page:
        raise DemoError("the product's own form made no booking under the run")
    captured = story.get("What did that make?", f"runs/{story.test_id}/entities?origin=captured")["results"]
    story.tell(f"captured for the run: {counted(Counter(each['type'] for each in captured))}")
    if [each["type"] for each in captured] != ["booking"]:
        raise DemoError(f"the run was not given the booking that the product made: {captured}")


def clean_up(story: Story, builder: dict[str, Any]) -> None:
    """Only the test id is sent: the server's own record says what is to be removed."""
    receipt = story.post("Clean up", "cleanup", {}, 200)
    story.tell(f"removed {counted(receipt['removed'])}")
    story.tell(f"{receipt['remaining']} rows remain, the run is {receipt['state']}")
    if not receipt["success"] or receipt["remaining"]:
        raise DemoError(f"the clean-up left something: {receipt}")
    story.visit("With the pass: the builder", f"builders/{builder['id']}", under_the_run=True, expect=404)
    story.tell("it is gone, and the pass counts no more")


def counted(types: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in types.items())


def host_tables() -> Tables:
    """Every row of every table, but those of the ledger itself."""
    from django.apps import apps
    from django.db import connection

    ledger = {model._meta.db_table for model in apps.get_app_config(LEDGER).get_models()}
    rows: Tables = {}
    with connection.cursor() as cursor:
        for table in sorted(set(connection.introspection.table_names()) - ledger):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            rows[table] = cursor.fetchall()
    connection.close()
    return rows


def compare(before: Tables, after: Tables) -> None:
    """Print the counts; raises DemoError where a row of the host is another than it was."""
    print(f"\n{'Table of the host':<45}{'before':>8}{'after':>8}")
    for table, rows in before.items():
        print(f"{table:<45}{len(rows):>8}{len(after.get(table, [])):>8}")
    changed = [table for table in before | after if set(before.get(table, [])) != set(after.get(table, []))]
    if changed:
        raise DemoError(f"not as they were: {', '.join(changed)}")
    print(f"\nOK: all {sum(map(len, before.values()))} rows in {len(before)} tables are what they were.")


if __name__ == "__main__":
    sys.exit(main())
