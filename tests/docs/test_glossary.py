"""The glossary has the words that the commands and tables use, each once, and sends nobody to an empty place."""

from __future__ import annotations

import re

from leverplus_core.plugins.manager import KINDS, Catalog
from tests.docs import pages

PAGE = pages.ROOT / "docs" / "glossary.md"
ROWS = re.findall(r"^\| (.+?) \| (.+?) \|(.*)\|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
TERMS = [term.strip() for row in ROWS if row[0] not in ("word", "---") for term in row[0].split(",")]
KINDS_OF_FILES = {"dataset", "encoder", "sampler", "model", "trainer", "importer", "exporter"}
"""Kinds of parts whose name says what they are."""


def test_each_term_stands_there_once() -> None:
    assert len(TERMS) > 60
    assert sorted({term for term in TERMS if TERMS.count(term) > 1}) == []


def test_words_of_papers_lead_to_ours() -> None:
    row = next(row for row in ROWS if row[0].startswith("demonstration"))
    assert {"ICD", "ICE", "example"} <= {term.strip() for term in row[0].split(",")}
    assert {"InfoScore", "oracle", "headroom", "candidate", "pool", "shots", "baseline", "kNN"} <= set(TERMS)


def test_kinds_of_parts_and_trainers_are_explained() -> None:
    kinds = {kind.replace("_", " ") for kind in KINDS} - KINDS_OF_FILES
    assert kinds <= set(TERMS)
    trainers = [
        e.name for e in Catalog.load(disabled="").entries() if (e.kind, e.distribution) == ("trainer", "leverplus")
    ]
    assert {name.upper() for name in trainers} <= set(TERMS)


def test_statuses_and_marks_of_a_comparison_are_explained() -> None:
    assert {"no difference seen", "primary endpoint", "best baseline", "family", "paired", "copied"} <= set(TERMS)


def test_every_first_term_is_used_on_another_page() -> None:
    others = [page for page in pages.PAGES if page != PAGE]
    text = " ".join(" ".join(page.read_text(encoding="utf-8").lower().split()) for page in others)
    terms = [row[0].split(",")[0] for row in ROWS if row[0] not in ("word", "---")]
    assert [term for term in terms if not re.search(rf"\b{re.escape(term.lower())}", text)] == []
