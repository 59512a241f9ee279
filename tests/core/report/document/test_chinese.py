# ruff: noqa: RUF001 -- Chinese punctuation is what these tests are about.
"""The Chinese report keeps the typographic rules of Chinese text (GB/T 15834), in its phrases and as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from leverplus_core.registry.registry import Registry
from leverplus_core.report.document.content import report_content
from leverplus_core.report.document.i18n import Translator, phrases
from leverplus_core.report.document.render import markdown_text
from leverplus_core.report.document.summary import summary

HAN = "\u4e00-\u9fff"
FULL = "，。；：、！？（）《》“”"
RULES = {
    "an ASCII mark beside a Chinese character": rf"[{HAN}][,;:!?]|[{HAN}] ?\(|[,;!?(][{HAN}]|\) ?[{HAN}]",
    "an ASCII full stop after a Chinese character": rf"[{HAN}]\.",
    "a space beside a full-width mark": rf"[{FULL}] | [{FULL}]",
    "a space between Chinese characters": rf"[{HAN}] +[{HAN}]",
    "two marks in a row": r"[，。；：、]{2}",
    "a Latin word or a figure without a space beside a Chinese character": rf"[{HAN}][A-Za-z0-9]|[A-Za-z0-9%][{HAN}]",
    "an ASCII quotation mark": r"\"|'",
    "a measure word without 个": r"\d+ (?:单元格|种子|百分点|示例|候选|轮次|实验组)",
    "a literal translation for what papers call 示例 and 主要指标": "样例|终点",
}


def broken(text: str) -> Iterator[str]:
    for rule, pattern in RULES.items():
        for match in re.finditer(pattern, text):
            yield f"{rule}: {text[max(0, match.start() - 12) : match.end() + 12]!r}"


@pytest.mark.parametrize(
    "wrong",
    ["单元格, 优于", "甲。 乙", "样本 (n)", "优于mrt", "12个", "方法 优于", "甲，。乙", "5 单元格", "完成.", '"甲"'],
)
def test_each_rule_finds_what_it_is_for(wrong: str) -> None:
    assert list(broken(wrong))


def test_every_phrase_keeps_the_rules() -> None:
    """A placeholder stands for a Latin name or a figure, unless a whole phrase is put in its place."""
    whole = {
        "seeds",
        "first",
        "second",
        "sentence",
        "names",
        "share",
        "shares",
        "note",
        "label",
        "list",
        "shots",
        "corrected",
    }
    for key, phrase in phrases("zh").items():
        filled = re.sub(r"\{(\w+)\}", lambda name: "甲" if name[1] in whole else "A1", phrase)
        found = [one for one in broken(filled.strip()) if "甲" not in one]
        assert not found, (key, found)


def test_the_summary_and_the_report_keep_the_rules(swept: Registry) -> None:
    content, say = report_content(swept, ["sw"], "separated:rce"), Translator("zh")
    assert not list(broken("\n".join(summary(content, say))))
    page = re.sub(r"`[^`]*`|\]\([^)]*\)|<[^>]*>| *\| *", "\n", markdown_text(content, say))
    assert not list(broken(page))


def test_a_count_of_cells_is_said_as_a_chinese_paper_says_it(swept: Registry) -> None:
    text = "\n".join(summary(report_content(swept, ["sw"], "separated:rce"), Translator("zh")))
    assert re.search(r"在全部 4 个单元格中，mixed 优于 separated 的有 \d 个；", text)
    assert re.search(r"在 [12] 个示例、(30|60) 题、4 个种子的条件下，差值为 \+\d+\.\d 个百分点 \[", text)
