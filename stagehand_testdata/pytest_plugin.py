"""pytest: a run for each test that asks for one, and a line about all of them at the end.

Loaded by every pytest of the environment, so nothing is imported before a test asks for a run.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .client import TestDataManager

_LEASE_MINUTES = "5"
_MAX_AGE_MINUTES = "60"
_BOOK = pytest.StashKey["Book"]()
_RUNS = pytest.StashKey[list["TestDataManager"]]()
#: The fixtures of pytest-django that a test has a database by.
_DATABASES = {"db", "transactional_db", "live_server"}
#: The attribute of a report that carries what became of runs from a worker of xdist to whoever sums up.
_TOLD = "testdata"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("testdata", "test data in a product that runs (stagehand_testdata)")
    group.addoption("--testdata-url", metavar="URL", help="of the product; also the ini value testdata_url")
    group.addoption("--testdata-environment", metavar="NAME", help="one of stagehand-testdata.toml")
    group.addoption("--testdata-seed", type=int, metavar="N", help="what every run's values are drawn from")
    group.addoption("--testdata-keep", action="store_true", help="clean nothing up, to look at it")
    parser.addini("testdata_url", "the product's URL")
    parser.addini("testdata_environment", "one of stagehand-testdata.toml")
    parser.addini("testdata_lease_minutes", "how long a run outlives a killed test", default=_LEASE_MINUTES)
    parser.addini("testdata_max_age_minutes", "how long a run lives at most", default=_MAX_AGE_MINUTES)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_BOOK] = book = Book()
    config.pluginmanager.register(Reporter(config, book), "testdata-reporter")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Without a server a test works on Django's database, and pytest-django is to know before it begins.

    Before it puts those on real transactions last, too: they empty the tables.
    """
    if config.pluginmanager.hasplugin("django") and not any(_server_named(config)):
        for item in items:
            if "testdata_run" in getattr(item, "fixturenames", ()) and not _has_database(item):
                item.add_marker(pytest.mark.django_db)
    yield


# --- fixtures ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def testdata_url(pytestconfig: pytest.Config) -> str | None:
    """Where the product answers: override it to start one. None for Django's test database."""
    url, name = _server_named(pytestconfig)
    if url:
        return url
    if name:
        _require_httpx()
        from .client.environments import load
        from .client.errors import Misuse

        try:
            return load(pytestconfig.rootpath).server(name).url
        except Misuse as error:
            raise pytest.UsageError(str(error)) from None
    if pytestconfig.pluginmanager.hasplugin("django"):
        return None
    raise pytest.UsageError("Where is the product? Give --testdata-url, or testdata_url in the ini file.")


@pytest.fixture(scope="session")
def testdata_options() -> dict[str, Any]:
    """What else `TestDataManager` is told of each run: override it."""
    return {}


@pytest.fixture
def testdata_run(
    request: pytest.FixtureRequest, testdata_url: str | None, testdata_options: dict[str, Any]
) -> Iterator[TestDataManager]:
    """A run of this test's own: `TestDataManager`, cleaned up after the test.

    With pytest-playwright, the test's browser context carries its pass. Without a URL it is on Django's test
    database.
    """
    if testdata_url is None:
        # pytest-django makes no test database for who asks in passing: it would be the real one.
        if not _has_database(request.node):
            raise pytest.UsageError("testdata_run without a server must be an argument of the test itself.")
        for name in _DATABASES:
            if name in request.node.fixturenames:
                request.getfixturevalue(name)
    with _opened(request, testdata_url, testdata_options) as run:
        request.node.stash.setdefault(_RUNS, []).append(run)
        if testdata_url is not None and _has_browser(request):
            run.carry_pass(request.getfixturevalue("context"))
        yield run


@pytest.fixture(scope="session")
def testdata_session(
    request: pytest.FixtureRequest, testdata_url: str | None, testdata_options: dict[str, Any]
) -> Iterator[TestDataManager]:
    """One run for all tests of this process: with xdist, one for each worker."""
    if testdata_url is None:
        raise pytest.UsageError(
            "testdata_session needs a server (--testdata-url): a test's database is its own."
        )
    with _opened(request, testdata_url, testdata_options) as run:
        request.config.stash[_BOOK].session = run
        yield run


@contextmanager
def _opened(
    request: pytest.FixtureRequest, url: str | None, options: dict[str, Any]
) -> Iterator[TestDataManager]:
    config, book = request.config, request.config.stash[_BOOK]
    keep = bool(config.getoption("--testdata-keep"))
    told: dict[str, Any] = {
        "label": request.node.nodeid or "session",
        "seed": config.getoption("--testdata-seed"),
        "max_age_minutes": float(config.getini("testdata_max_age_minutes")),
        **options,
    }
    _require_httpx()
    if url is None:
        from .testing import in_process

        run = in_process(**told)
    else:
        from .client import TestDataManager
        from .client.environments import load

        told = {
            **load(config.rootpath).having(url)._asdict(),
            "lease_minutes": float(config.getini("testdata_lease_minutes")),
            "keep": True if keep else None,
            **told,
        }
        run = TestDataManager(**told)
        if run.url in book.down:
            pytest.fail(book.down[run.url], pytrace=False)
    try:
        with ExitStack() as stack:
            _enter(stack, run, book)
            yield run
            if url is None and not (keep or run.is_over):
                run.cleanup()
    finally:
        # One that nobody could be asked for is none.
        if run.access is not None or run.url not in book.down:
            book.enter(run, kept=keep)


def _enter(stack: ExitStack, run: TestDataManager, book: Book) -> None:
    """Begin the run; where its server is down, that is told in a line, and asked no more."""
    from .client.errors import ConnectionFailed

    try:
        stack.enter_context(run)
        return
    except ConnectionFailed as error:
        book.down[run.url] = str(error)
    # Out here nothing else is shown with it.
    pytest.fail(book.down[run.url], pytrace=False)


def _server_named(config: pytest.Config) -> tuple[str, str]:
    """(URL, name of an environment), one of them empty: what the options say, the ini file, the environment.

    Nobody's only environment is taken unasked: it may be production, and a Django test means its database.
    """
    said = (
        (config.getoption("--testdata-url"), config.getoption("--testdata-environment")),
        (config.getini("testdata_url"), config.getini("testdata_environment")),
        (os.environ.get("STAGEHAND_TESTDATA_URL"), os.environ.get("STAGEHAND_TESTDATA_ENVIRONMENT")),
    )
    for url, name in said:
        if url or name:
            return str(url or ""), "" if url else str(name)
    return "", ""


def _has_database(item: pytest.Item) -> bool:
    return item.get_closest_marker("django_db") is not None or bool(
        _DATABASES & set(getattr(item, "fixturenames", ()))
    )


def _require_httpx() -> None:
    try:
        import httpx  # noqa: F401
    except ImportError:
        raise pytest.UsageError(
            "The fixtures of stagehand_testdata need httpx: pip install 'stagehand-testdata[client]'"
        ) from None


def _has_browser(request: pytest.FixtureRequest) -> bool:
    """Whether the test has a context of pytest-playwright's."""
    return "context" in request.fixturenames and request.config.pluginmanager.hasplugin("playwright")


# --- what is told -----------------------------------------------------------------------------------------


class Book:
    """What became of the runs of this process, until a report takes it along."""

    def __init__(self) -> None:
        self.pending: list[dict[str, Any]] = []
        self.session: TestDataManager | None = None
        #: The servers that could not be reached, after all patience, and what was said of each.
        self.down: dict[str, str] = {}

    def enter(self, run: TestDataManager, *, kept: bool) -> None:
        receipt = run.receipt
        self.pending.append(
            {
                "test_id": run.test_id,
                "url": run.url,
                "removed": sum(receipt.removed.values()) if receipt else 0,
                "left": receipt.remaining if receipt else None,
                "held": [str(each) for each in receipt.quarantined] if receipt else [],
                "kept": kept,
            }
        )

    def take(self) -> list[dict[str, Any]]:
        taken, self.pending = self.pending, []
        return taken


class Reporter:
    """A failure says which run it was; the end says what all of them left."""

    def __init__(self, config: pytest.Config, book: Book) -> None:
        self.config, self.book = config, book
        self.told: list[dict[str, Any]] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        runs = [*item.stash.setdefault(_RUNS, [])]
        if self.book.session is not None and "testdata_session" in getattr(item, "fixturenames", ()):
            runs.append(self.book.session)
        if report.failed and runs:
            report.sections.append(("testdata", "\n".join(_story(item, run) for run in runs)))
        if taken := self.book.take():
            setattr(report, _TOLD, taken)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.told += getattr(report, _TOLD, [])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.told:
            return
        kept = [each for each in self.told if each["kept"]]
        bad = [each for each in self.told if each["left"] != 0 and not each["kept"]]
        removed = sum(each["removed"] for each in self.told)
        left = sum(each["left"] or 0 for each in bad)
        line = f"testdata: {len(self.told)} runs, {removed} rows removed, {left} left"
        unknown = sum(each["left"] is None for each in bad)
        line += f", {unknown} runs not cleaned up: their leases end them" if unknown else ""
        line += f", {len(kept)} runs kept" if kept else ""
        terminalreporter.write_line(line, red=bool(bad), green=not bad)
        for each in bad:
            for held in each["held"] or ["not cleaned up"]:
                terminalreporter.write_line(f"  {each['test_id']}: {held}", red=True)
        for each in kept:
            words = ["stagehand-testdata", "cleanup", "--url", each["url"], "--test-id", each["test_id"]]
            terminalreporter.write_line(f"  kept: {shlex.join(words)}")


def _story(item: pytest.Item, run: TestDataManager) -> str:
    lines = [f"run {run.test_id} at {run.url}, seed {run.seed}"]
    if run.seed is not None:
        again = ["pytest", item.nodeid, "--testdata-seed", str(run.seed)]
        lines.append(f"to replay: {shlex.join(again)} (with --testdata-keep its rows stay)")
    return "\n".join(lines)
