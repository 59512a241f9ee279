from __future__ import annotations

import json
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leverplus_core.cli import main
from leverplus_core.errors import DataError, RegistryError
from leverplus_core.records import PublishedTable
from leverplus_core.registry.registry import Registry
from leverplus_core.report.comparison import compare_rows
from leverplus_formats.table import TableImporter

ENGLISH = """# Results

| Sample size | Shot | Baseline | **Merged** | Balanced (%) |
|:--|--:|---|---|---|
| 100 | 1 | 64.20 | **65.00** ↑ | 65.0 |
| 100 | 2 | ↓ 61.5 | 61.50 | `60.1` |
| 1,000 | 1-shot | 50.15 | 50 | **100**↑ |
"""
CHINESE = """表 1

| 样本数 | 样例数 | 基线 | 合并 |
|---|---|---|---|
| 800 | 4 | **47.77%**↑ | 47.77\uff05 |
| 800 | \uff13 | 47.85% | 0.0% |
"""


def write(folder: Path, text: str, name: str = "table.md") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def read(file: Path, which: int | None = None) -> PublishedTable:
    return TableImporter(table=which).read(file)


def test_an_english_table(tmp_path: Path) -> None:
    table = read(write(tmp_path, ENGLISH))
    assert table.methods == ("Baseline", "Merged", "Balanced")
    assert [(c.method, c.shots, c.n, c.text, c.line) for c in table.cells] == [
        ("Baseline", 1, 100, "64.20", 5), ("Merged", 1, 100, "65.00", 5), ("Balanced", 1, 100, "65.0", 5),
        ("Baseline", 2, 100, "61.5", 6), ("Merged", 2, 100, "61.50", 6), ("Balanced", 2, 100, "60.1", 6),
        ("Baseline", 1, 1000, "50.15", 7), ("Merged", 1, 1000, "50", 7), ("Balanced", 1, 1000, "100", 7),
    ]  # fmt: skip
    assert table.cells[1].percent == table.cells[2].percent == Decimal(65)
    assert table.cells[6].accuracy == 0.5015
    assert table.absent == [(1000, 2)]


def test_a_chinese_table_with_percent_signs(tmp_path: Path) -> None:
    table = read(write(tmp_path, CHINESE))
    assert table.methods == ("基线", "合并")
    assert [(c.method, c.shots, c.n, c.text) for c in table.cells] == [
        ("基线", 4, 800, "47.77"), ("合并", 4, 800, "47.77"), ("基线", 3, 800, "47.85"), ("合并", 3, 800, "0.0"),
    ]  # fmt: skip


@pytest.mark.parametrize(("size", "shots"), [
    ("样本量", "Shots"), ("n", "k"), ("Sample Size", "Shot"), ("SAMPLES", "# shots"),
    ("样本数 (n)", "Shot 数"), ("Number of questions", "number of shots"), ("**样本数**", "**Shot**"),
    ("sample_size", "k-shot"), ("sample_num", "shot_num"),
])  # fmt: skip
def test_heads(tmp_path: Path, size: str, shots: str) -> None:
    table = read(write(tmp_path, f"| {size} | A | {shots} |\n|---|---|---|\n| 100 | 50.1 | 2 |\n"))
    assert [(c.method, c.n, c.shots, c.text) for c in table.cells] == [("A", 100, 2, "50.1")]


HEAD = "| n | shot | A | B |\n|---|---|---|---|\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no Markdown table in it"),
        ("no table here", r"no Markdown table in it.*Needed: a column of sample sizes"),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n", r"its tables have the columns a, b\..*Needed"),
        ("| n | a |\n|---|---|\n| 1 | 2 |\n", r"columns n, a\..*Needed"),
        ("| n | shot |\n|---|---|\n| 1 | 2 |\n", r":1: the table has no column of a method"),
        (HEAD, r":1: the table has no rows"),
        (HEAD + "| 100 | 1 | 50.1 | |\n", r":3: column 'B' has no value"),
        (HEAD + "| 100 | 1 | 50.1 |\n", r":3: column 'B' has no value"),
        (HEAD + "| 100 | 1 | 50.1 | - |\n", r":3: column 'B' has no value"),
        (HEAD + "| 100 | 1 | 50.1 | n/a |\n", r":3: column 'B' has no value"),
        (HEAD + "| 100 | 1 | 50.1 | 50.2 |\n|  | 2 | 50.1 | 50.2 |\n", r":4: column 'n' has no value"),
        (HEAD + "| 100 | 1 | 50.1 | 50.2 | 50.3 |\n", r":3: 5 cells under 4 columns"),
        (HEAD + "| 100 | 1 | 50.1 | 50.2% |\n", r":3: '50.2%' in column 'B' has a stray percent sign"),
        (HEAD + "| 100 | 1 | 50% | 50% |\n| 100 | 2 | 50.5% | 49 |\n", r":4: '49' in column 'B' has no percent sign"),
        (HEAD + "| 100 | 1 | 1 | 2 |\n| 100 | 1 | 3 | 4 |\n", r":4: a second row for n = 100 at 1"),
        (HEAD + "| 100 | 1 | 50.1 | 100.01 |\n", r":3: 100.01 in column 'B' is above 100"),
        (HEAD + "| 100 | 1 | 50.1 | -3 |\n", r":3: '-3' in column 'B' is not an accuracy"),
        (HEAD + "| 100 | 1 | 50.1 | 50.2 ± 1 |\n", r":3: '50.2 ± 1' in column 'B' is not an accuracy"),
        (HEAD + "| 100 | 1 | 50.1 | 1000 |\n", r":3: '1000' in column 'B' is not an accuracy in percent"),
        (HEAD + "| 100 | 1 | 50.1 | Baseline |\n", r":3: 'Baseline' in column 'B' .* or leave the column out"),
        (HEAD + "| 100 | 1 | 50.1 | 5e1 |\n", r":3: '5e1' in column 'B' is not an accuracy"),
        (HEAD + "| 100 | one | 50.1 | 50.2 |\n", r":3: 'one' in column 'shot' is not a whole number"),
        (HEAD + "| 0 | 1 | 50.1 | 50.2 |\n", r":3: '0' in column 'n' is not a whole number"),
        (HEAD + "| 100.5 | 1 | 50.1 | 50.2 |\n", r":3: '100.5' in column 'n' is not a whole number"),
        (HEAD + "| 100 | 1 | 0.501 | 0.502 |\n", r":1: no value is above 1, so these look like fractions"),
        ("| n | shot | A | A |\n|---|---|---|---|\n| 100 | 1 | 1 | 2 |\n", r":1: 2 columns have the name 'A'"),
        ("| n | shot | A | |\n|---|---|---|---|\n| 100 | 1 | 1 | 2 |\n", r":1: 1 columns have the name ''"),
        ("| n | shot | a:b |\n|---|---|---|\n| 100 | 1 | 1 |\n", r":1: column 'a:b' cannot name a method"),
        ("| n | shot | A |\n|---|---|---|\n| 100 | 1 | 3 |\n\nand\n\n" * 2, r"2 such tables, at lines 1, 7.*--table"),
    ],
)  # fmt: skip
def test_bad_tables_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as e:
        read(write(tmp_path, text))
    assert "\n" not in str(e.value) and "table.md" in str(e.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.md").write_bytes("| n | shot | é |".encode("latin-1"))
    for name, message in (("none.md", "No such file"), ("latin.md", "not UTF-8"), (".", "cannot be read")):
        with pytest.raises(DataError, match=message):
            read(tmp_path / name)


# The two tables of the Lever-Plus v3 report of 2025-12-13, which says of the differences: -0.27, 7 up, 7 down, 2 equal.
REPORT = """## Balanced vs Baseline

| 测试数据量 | Shot | Baseline (12-12) | Balanced (12-13) | 差异 | 评价 |
|-----------|------|------------------|------------------|------|------|
| **100** | 1 | 64.2% | 63.2% | -1.0% | ⬇️ |
| **100** | 2 | 64.8% | 65.8% | **+1.0%** | ⬆️ |
| **800** | 2 | 47.75% | 47.8% | +0.05% | ➡️ |

## Baseline, Merged, Balanced

| 测试数据量 | Shot | Baseline | Merged | Balanced | 最佳 |
|-----------|------|----------|--------|----------|------|
| **100** | 1 | 64.2% | 63.2% | 63.2% | Baseline |
| **100** | 2 | 64.8% | 64.8% | **65.8%** | Balanced |
| **100** | 3 | 62.8% | 63.2% | 61.2% | Merged |
| **100** | 4 | 61.4% | 61.8% | 60.8% | Merged |
| **200** | 1 | **57.2%** | 56.7% | 56.5% | Baseline |
| **200** | 2 | 56.3% | 55.6% | **56.6%** | Balanced |
| **200** | 3 | **54.9%** | 55.4% | 53.6% | Baseline/Merged |
| **200** | 4 | **54.9%** | 54.7% | 54.2% | Baseline |
| **400** | 1 | 52.6% | 52.45% | **53.25%** ⬆️ | Balanced |
| **400** | 2 | **51.2%** | 50.2% | 51.0% | Baseline |
| **400** | 3 | **51.25%** | 50.2% | 49.5% | Baseline |
| **400** | 4 | 49.75% | **50.25%** | **50.45%** | Balanced |
| **800** | 1 | 48.55% | 49.17% | **49.75%** | Balanced |
| **800** | 2 | **47.75%** | 47.35% | 47.8% | Balanced |
| **800** | 3 | **48.15%** | 47.48% | 47.0% | Baseline |
| **800** | 4 | 47.45% | **48.08%** | 48.12% | Balanced |

| 测试数据量 | Shot 1 | Shot 2 |
|-----------|--------|--------|
| **100** | 64.2% | 64.8% |
"""


def test_the_report_s_own_tables_are_read_without_the_columns_that_are_not_methods(tmp_path: Path) -> None:
    file = write(tmp_path, REPORT)
    first, second = read(file, 1), read(file, 2)
    assert (first.methods, first.left_out) == (("Baseline (12-12)", "Balanced (12-13)"), ("差异", "评价"))
    assert (second.methods, second.left_out) == (("Baseline", "Merged", "Balanced"), ("最佳",))
    assert {(c.n, c.shots) for c in second.cells} == {(n, s) for n in (100, 200, 400, 800) for s in (1, 2, 3, 4)}
    registry = Registry(f"sqlite:///{tmp_path / 'r.db'}")
    registry.record_published("v3", second)
    overall = next(r for r in compare_rows(registry, "v3:Balanced", "v3:Baseline") if r["cells"] == 16)
    assert (overall["delta_text"], overall["wins"], overall["losses"], overall["ties"]) == ("-0.276875", 7, 9, 0)


@pytest.mark.parametrize("head", ["最佳方法", "**Best**", "best method", "Δ", "Diff.", "Verdict", "平均差异 (%)"])
def test_a_column_that_is_not_a_method_is_left_out_whatever_it_holds(tmp_path: Path, head: str) -> None:
    table = read(write(tmp_path, f"| n | shot | A | {head} |\n|--|--|--|--|\n| 100 | 1 | 50.1 | = |\n"))
    assert table.methods == ("A",) and len(table.left_out) == 1


@pytest.mark.parametrize("method", ["Best-of-8", "few-shot kNN", "Delta tuning", "最近邻"])
def test_a_method_whose_name_resembles_such_a_head_stays_one(tmp_path: Path, method: str) -> None:
    assert read(write(tmp_path, f"| n | shot | {method} |\n|--|--|--|\n| 100 | 1 | 50.1 |\n")).methods == (method,)


def test_one_of_several_tables(tmp_path: Path) -> None:
    other = "| size of model | x |\n|---|---|\n| 3B | 1 |\n\n"
    file = write(tmp_path, other + ENGLISH + "\n" + other + CHINESE)
    assert read(file, 1).methods == ("Baseline", "Merged", "Balanced")
    assert read(file, 2).methods == ("基线", "合并")
    with pytest.raises(DataError, match=r"no table 3 .*There are 2, at lines"):
        read(file, 3)


@given(
    st.lists(
        st.tuples(st.integers(1, 999_999), st.integers(0, 16), st.decimals(0, 100, places=2)),
        min_size=1, unique_by=lambda row: row[:2],
    ),
    st.sampled_from(["{}", "**{}**", "{} ↑", "↓{}", "**{}** ▲", "__{}__"]),
    st.sampled_from(["", "%", " %"]),
)  # fmt: skip
def test_what_is_printed_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, Decimal]], form: str, sign: str
) -> None:
    values = [Decimal(100), *(value for _, _, value in rows)]  # one above 1, so that they are no fractions
    lines = [f"| {n} | {s} | {form.format(f'{v}{sign}')} |" for (n, s, _), v in zip(
        [(1_000_000, 1, None), *rows], values, strict=True)]  # fmt: skip
    file = write(tmp_path_factory.mktemp("printed"), "\n".join(["| n | shots | A |", "|--|--|--|", *lines]))
    assert [c.percent for c in read(file).cells] == values


def test_a_table_becomes_a_run(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path / 'r.db'}")
    table = read(write(tmp_path, ENGLISH))
    run_id = registry.record_published("report", table, dataset="okvqa", note="The report of 2025.", source="table.md")
    (run,) = registry.runs()
    assert (run["id"], run["source"], run["status"], run["dataset"]) == (run_id, "published", "done", "okvqa")
    assert run["recipe"]["published"] == {"file": "table.md", "methods": ["Baseline", "Merged", "Balanced"]}
    assert run["note"].startswith("The report of 2025. published table, no predictions")
    rows = registry.cells([run_id], method="Baseline", shots=1)
    assert [(r["n"], r["accuracy"], r["accuracy_text"], r["seed"], r["sample"]) for r in rows] == [
        (100, 0.642, "64.20", None, None), (1000, 0.5015, "50.15", None, None),
    ]  # fmt: skip
    assert all(r["ci_low"] < r["accuracy"] < r["ci_high"] for r in rows)
    assert registry.resolve("report")["id"] == run_id
    with pytest.raises(RegistryError, match="imported results only"):
        registry.resolve("latest")
    for name, message in (
        ("report", "holds a run named 'report' already.*another with --name"), (run_id, "already"),
        ("latest", "cannot be named"), ("a:b", "cannot be named"), (" ", "cannot be named"),
    ):  # fmt: skip
        with pytest.raises(RegistryError, match=message):
            registry.record_published(name, table)
    assert len(registry.runs()) == 1 and len(registry.cells()) == 9


def run_cli(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["leverplus", *words])
    with pytest.raises(SystemExit) as e:
        main()
    return e.value.code if isinstance(e.value.code, int) else 0


def test_the_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file, url = write(tmp_path, ENGLISH, "lever-plus.md"), f"sqlite:///{tmp_path / 'r.db'}"
    assert run_cli(monkeypatch, "import", "table", str(file), "--registry", url, "--model", "qwen", "--json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out) | {"run": ""} == {
        "run": "", "name": "lever-plus", "methods": "Baseline, Merged, Balanced", "n": "100, 1000", "shots": "1, 2",
        "cells": 9,
    }  # fmt: skip
    assert "no row for n = 1000 at 2 shots" in told.err
    assert run_cli(monkeypatch, "import", "table", str(file), "--registry", url) == 2
    assert "'lever-plus' already. Choose another with --name." in capsys.readouterr().err
    assert run_cli(monkeypatch, "import", "table", str(file), "--registry", url, "--name", "again") == 0
    with Registry.open_existing(url) as registry:
        assert [r["name"] for r in registry.runs()] == ["again", "lever-plus"]


def test_a_bad_file_makes_no_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, HEAD + "| 100 | 1 | 50.1 | |\n")
    assert run_cli(monkeypatch, "import", "table", str(file), "--registry", f"sqlite:///{tmp_path / 'r.db'}") == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and told.err.startswith("leverplus: ")
    assert not (tmp_path / "r.db").exists()
