"""What a test looks for in a mail: the links to follow and the codes to type. Nothing is ever fetched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import urlsplit

_LINK = re.compile(r"""https?://[^\s<>"]+""", re.IGNORECASE)
_LONGEST_LINK = 2048
#: What ends a sentence rather than a link.
_AFTER_LINK = ".,;:!?'*_]}"

#: 4 to 8 digits that are no part of a word, an amount, a date or a number with a plus or a dash in it.
_CODE = re.compile(r"(?<![\w@#&=%/+-])(?<![0-9][.,:])[0-9]{4,8}(?![\w@%/-])(?![.,:][0-9])")


@dataclass(frozen=True, slots=True)
class Contents:
    """In the order of the mail, the text first, each once."""

    links: list[str]
    codes: list[str]


def read_contents(text: str, html: str) -> Contents:
    """The links and codes of a mail's bodies."""
    page = _Page.of(html)
    links = [*_links_in(text), *page.links]
    shown = _LINK.sub(" ", f"{text}\n{''.join(page.text)}")
    return Contents(_once(filter(_is_absolute, links)), _once(_CODE.findall(shown)))


def _links_in(text: str) -> Iterator[str]:
    for found in _LINK.findall(text):
        if len(found) > _LONGEST_LINK:
            continue
        link = found.rstrip(_AFTER_LINK)
        # "(see https://…)": the bracket is the link's own only where it opened it too.
        while link.endswith(")") and link.count("(") < link.count(")"):
            link = link[:-1].rstrip(_AFTER_LINK)
        yield link


def _is_absolute(link: str) -> bool:
    try:
        found = urlsplit(link)
    except ValueError:
        return False
    return found.scheme in ("http", "https") and bool(found.netloc)


def _once(found: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(found))


class _Page(HTMLParser):
    """The addresses that a page's links lead to, and the text that it shows."""

    _UNSEEN = ("script", "style", "title")

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.text: list[str] = []
        self._unseen = ""

    @classmethod
    def of(cls, html: str) -> _Page:
        page = cls()
        # It asserts that it knows each declaration; where it does not, what came before stands.
        with suppress(AssertionError):
            # The last tag lets the parser hand out the text before it. `close` would do so too, but in a time
            # that grows with the square of what is unfinished: minutes for 256 KB of "<a <a <a".
            page.feed(f"{html}<br>")
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._UNSEEN:
            self._unseen = tag
        if tag in ("a", "area"):
            self.links += [value.strip() for name, value in attrs if name == "href" and value]
        # Two cells of a table are no one word.
        self.text.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._unseen:
            self._unseen = ""
        self.text.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.text.append(data)
