"""Every statement and commit of a connection, in order, and something done at one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Point(NamedTuple):
    """One statement, or one commit: drivers send those without a statement of Django's."""

    text: str
    is_commit: bool = False

    @property
    def kind(self) -> str:
        return "commit" if self.is_commit else "statement"


#: What to do in place of a point: it gets the connection, what goes on with the point as it was meant, and
#: what runs another statement in its place (a commit has none).
Strike = Callable[[Any, Callable[[], Any], Any], Any]


class Watch:
    """Counts the points of a connection, and strikes at one of them, once."""

    def __init__(self, stop: int | None = None, strike: Strike | None = None) -> None:
        self.points: list[Point] = []
        self._stop = stop
        self._strike = strike

    @contextmanager
    def on(self, connection: Any) -> Iterator[None]:
        plain = connection._commit
        connection._commit = lambda: self._pass(connection, Point("COMMIT", True), plain, None)
        try:
            with connection.execute_wrapper(self._statement):
                yield
        finally:
            del connection._commit

    def _statement(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        return self._pass(
            context["connection"],
            Point(str(sql)[:200]),
            lambda: execute(sql, params, many, context),
            lambda instead: execute(instead, None, False, context),
        )

    def _pass(self, connection: Any, point: Point, go_on: Callable[[], Any], run: Any) -> Any:
        number = len(self.points)
        self.points.append(point)
        if self._strike is None or number != self._stop:
            return go_on()
        return self._strike(connection, go_on, run)
