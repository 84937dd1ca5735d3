"""Reading the pages of reports, and the checks that hold for the page of every job."""

from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from typing import Any

from beam_pipelines.runs.report import render_report


class Checker(HTMLParser):
    """Collects tags, attributes and text, and fails where tags do not balance."""

    VOID = frozenset({"meta", "br", "hr", "img", "input", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _, _ in self.attributes}

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert not checker.open
    return checker


def check_page(manifest_of: Callable[[], dict[str, Any]]) -> Checker:
    """Check that the page of a manifest is whole, loads nothing from outside, adds up, and is the same each time."""
    page = render_report(manifest_of())
    checker = read(page)
    assert "<script" not in page and "http://" not in page and "https://" not in page and "url(" not in page
    assert not [entry for entry in checker.attributes if entry[1] in ("src", "href") or entry[1].startswith("on")]
    assert "does not add up" not in checker.text
    assert render_report(manifest_of()) == page
    return checker
