from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from leverplus_core.report.tables import (
    Grid,
    Remark,
    Title,
    View,
    bracket,
    count,
    csv_text,
    escape_markdown,
    interval,
    percent,
    points,
)  # fmt: skip
from leverplus_core.text import shown

VIEW = View([
    Title("a = x:rce\nb = [bold]y"),
    Grid(["method", "n", "accuracy", "mark"], [["my|[red]method", "1,000", "59.0\n[56.1, 61.9]", "better"]], "wnnm"),
    "",
    Remark("accuracy in *%*"),
])  # fmt: skip


def printed(view: View, width: int = 80) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(view)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_view_on_a_terminal_aligns_columns_and_takes_no_text_for_markup() -> None:
    lines = printed(VIEW)
    assert lines[:3] == ["a = x:rce", "b = [bold]y", "method             n     accuracy mark"]
    assert lines[4:] == ["my|[red]method 1,000         59.0 better", " " * 21 + "[56.1, 61.9]", "", "accuracy in *%*"]


def test_the_same_view_as_markdown_is_one_table_with_the_same_cells() -> None:
    text = VIEW.markdown()
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    cells = ["".join(c.content for c in t.children or ()) for t in tokens if t.type == "inline"]
    assert cells == [
        "a = x:rce, b = [bold]y", "method", "n", "accuracy", "mark",
        "my|[red]method", "1,000", "59.0 [56.1, 61.9]", "better", "accuracy in *%*",
    ]  # fmt: skip
    assert "| --- | ---: | ---: | --- |" in text and "\n\n\n" not in text


def test_a_list_of_names_and_values_has_no_head() -> None:
    view = View([Grid((), [["run", "demo"], ["question", "what?"]], "ww", gap=2)])
    assert printed(view) == ["run       demo", "question  what?"]


def test_csv_has_the_fields_asked_for_and_empty_ones_for_none() -> None:
    rows = [{"a": 1, "b": None, "c": "x,y"}, {"a": 2, "b": 0.5, "c": "z"}]
    assert list(csv.reader(io.StringIO(csv_text(rows, ["c", "b"])))) == [["c", "b"], ["x,y", ""], ["z", "0.5"]]


def test_numbers_as_they_are_written() -> None:
    assert (percent(0.5904), bracket(0.1, None), count(3.0), count(1234.5)) == ("59.0", "[10.0, ?]", "3", "1,234.5")
    assert [points(x) for x in (0.012, -0.012, 0.0001, -0.0001)] == ["+1.2", "-1.2", "0.0", "0.0"]
    assert points(0.0025, 2) == "+0.25"


def test_an_interval_that_excludes_zero_never_touches_it_in_print() -> None:
    assert interval(0.0004, 0.3) == "[+0.04, +30.00]"
    assert interval(-0.02, -0.00001) == "[-2.000, -0.001]"
    assert interval(-0.0000001, 0.01) == interval(0.0, 0.01) == "[0.0, +1.0]", "an end that belongs to it has no sign"
    assert interval(-0.01, 0.0) == "[-1.0, 0.0]"
    assert interval(-0.01, 0.02) == "[-1.0, +2.0]"


@given(st.text(max_size=30))
def test_escaped_text_reads_as_it_is_shown(text: str) -> None:
    plain = shown(" ".join(text.split()))
    for markdown in (f"a | b\n---|---\nx | {escape_markdown(text)}", f"- {escape_markdown(text)}"):
        inline = [t for t in MarkdownIt("commonmark").enable("table").parse(markdown) if t.type == "inline"]
        read = "".join(c.content for c in inline[-1].children or ()) if plain else ""
        assert read == plain


def test_escaping_leaves_what_needs_none() -> None:
    for text in ("qwen2_5_vl:demo", "+1.2 [-0.5, +2.9]", "separated · rce", "—", "57.48%", "样例数 (%)"):
        assert escape_markdown(text) == text


def test_a_long_path_is_broken_rather_than_the_table_split() -> None:
    path = ".leverplus/stages/propose-0123456789abcdef/candidates.jsonl"
    grid = Grid(["file", "questions", "per question"], [[path, "60", "10.5"]], "p")
    head, _, first, *rest = printed(View([grid]), width=56)
    assert head.split() == ["file", "questions", "per", "question"] and first.split()[1:] == ["60", "10.5"]
    assert "".join([first.split()[0], *(line.strip() for line in rest)]) == path
