import re
from pathlib import Path

from tests.repo.tree import ROOT, files

LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
PAGES = [path for path in files() if path.suffix == ".md"]


def headings(page: Path) -> set[str]:
    """Return the anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(page: Path) -> list[str]:
    """Return the links of a page, to files and to headings in them, that lead nowhere."""
    return [link for link in LINK.findall(FENCED.sub("", page.read_text())) if "://" not in link and lost(page, link)]


def lost(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    return not target.exists() or bool(anchor and anchor not in headings(target))


def test_no_link_between_the_pages_is_broken() -> None:
    assert len(PAGES) > 5
    assert [(str(page.relative_to(ROOT)), link) for page in PAGES for link in broken(page)] == []


def test_a_broken_link_or_anchor_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title\n[a](nowhere.md) [b](#a-title) [c](#no-title) [d](page.md#a-title) [e](https://x.example)\n"
    )
    assert broken(page) == ["nowhere.md", "#no-title"]


def test_each_decision_has_a_number_of_its_own_and_says_what_and_why() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [page.name[:3] for page in pages]
    assert all(page.name[:4] == f"{int(number):03}-" for page, number in zip(pages, numbers, strict=True))
    assert len(set(numbers)) == len(numbers) >= 12
    parts = ("## Context", "## Decision", "## Consequences")
    assert [page.name for page in pages if not all(part in page.read_text() for part in parts)] == []
