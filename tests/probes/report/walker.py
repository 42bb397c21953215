"""Walks a page: tags close in order, ids are unique, and no address leads out of it."""

import re
from html.parser import HTMLParser

VOID = frozenset({"meta", "img", "br", "link", "wbr"})


class _Walker(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        places = {"href", "src", "xlink:href", "action", "srcset"}
        self.addresses += [value for name, value in attrs if name in places]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def walk(html: str) -> list[str]:
    """The page's addresses, all of them inside it."""
    walker = _Walker()
    walker.feed(html)
    assert walker.open == []
    assert len(walker.ids) == len(set(walker.ids))
    for address in walker.addresses:
        assert address.startswith("data:") or address[1:] in walker.ids, address[:60]
    assert not re.search(r"https?://|@import|url\(|<script|<iframe|<object", html)
    return walker.addresses


def text_of(html: str) -> str:
    """What a reader sees."""
    return re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>|<wbr>", "", html, flags=re.DOTALL))
