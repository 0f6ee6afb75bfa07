"""A page taken apart: is it balanced, what does it fetch, what does it say."""

import base64
import hashlib
import re
from html.parser import HTMLParser

VOID = {"meta", "img", "input", "br", "link", "hr"}
FETCHING = {"src", "href", "srcset", "poster", "action", "formaction", "data", "background", "ping"}


class Page(HTMLParser):
    """Raises AssertionError at the first tag that does not close what was opened last.

    Attributes:
        tags: of every element, its attributes.
        text: all words between tags.
        scripts: text of each script.
        styles: text of each style sheet.
    """

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute of {tag} stands twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        where = self.open[-1] if self.open else ""
        {"script": self.scripts, "style": self.styles}.get(where, self.words).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]


def check(html: str) -> Page:
    """The page, once it is known to be sound, to fetch nothing and to be readable without pictures."""
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    for tag, attributes in page.tags:
        for name in FETCHING & attributes.keys():
            assert re.match(r"data:image/|#", attributes[name] or ""), f"{tag} fetches {attributes[name]}"
        assert not any(name.startswith("on") for name in attributes), f"{tag} has a handler"
        style = " ".join(re.findall(r"url\(([^)]*)\)", f"{attributes.get('style')} {attributes.get('clip-path')}"))
        assert all(each.startswith("#") for each in style.split())
    assert "@import" not in html and "url(" not in "".join(page.styles)
    assert {tag for tag, _ in page.tags}.isdisjoint({"link", "iframe", "object", "embed", "form", "base", "audio"})
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in (*page.all("a"), *page.all("use")):
        assert (attributes["href"] or "").removeprefix("#") in ids
    assert all(attributes.get("alt") for attributes in page.all("img"))
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    assert len(page.all("h1")) == 1
    check_policy(page)
    return page


def check_policy(page: Page) -> None:
    """The browser itself refuses whatever is not in the file, and every script but this one."""
    (policy,) = [each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    (script,) = page.scripts
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}';" in policy
