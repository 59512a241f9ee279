from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import pytest
from rich.console import Console

from leverplus_core.errors import RegistryError
from leverplus_core.records import Prediction
from leverplus_core.registry.registry import Registry, RunRecord
from leverplus_core.report.comparison import compare_rows, compare_table
from leverplus_core.statistics import unpaired_interval
from leverplus_formats.table import TableImporter

# Made by hand, with ties, and differences that binary floats get wrong (49.99 + 0.16 is not 50.15 in them).
TABLE = """| 样本数 | Shot | Baseline | Merged | Balanced |
|---|---|---|---|---|
| 100 | 1 | 64.20 | 64.20 | **65.00** ↑ |
| 100 | 2 | 61.50 | **63.10** ↑ | 62.00 ↑ |
| 100 | 3 | **60.10** | 59.90 ↓ | 60.1 |
| 100 | 4 | 59.40 | 59.40 | 59.40 |
| 200 | 1 | 57.35 | **57.65** | 57.10 |
| 200 | 2 | 55.05 | 55.95 | **56.25** |
| 200 | 3 | **54.60** | 54.05 | 54.60 |
| 200 | 4 | 53.80 | **54.15** | 53.10 |
| 400 | 1 | 52.48 | 52.43 | **52.60** |
| 400 | 2 | 51.10 | 51.28 | **51.33** |
| 400 | 3 | 50.05 | **50.25** | 49.98 |
| 400 | 4 | **49.70** | 49.55 | 49.63 |
| 800 | 1 | 49.99 | 50.01 | **50.15** |
| 800 | 2 | 48.71 | **48.83** | 48.80 |
| 800 | 3 | 47.84 | **47.85** | 47.81 |
| 800 | 4 | 47.70 | 47.69 | **47.77** |
"""
METHODS = ("Baseline", "Merged", "Balanced")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "t.md").write_text(TABLE, encoding="utf-8")
    registry = Registry(f"sqlite:///{tmp_path / 'r.db'}")
    registry.record_published("lever-plus", TableImporter().read(tmp_path / "t.md"))
    return registry


def printed() -> dict[tuple[int, int], dict[str, Fraction]]:
    """The table as fractions, read without the code under test."""
    rows = {}
    for line in TABLE.splitlines()[2:]:
        cells = [cell.strip(" *↑↓") for cell in line.strip("|").split("|")]
        rows[int(cells[0]), int(cells[1])] = dict(zip(METHODS, map(Fraction, cells[2:]), strict=True))
    return rows


@pytest.mark.parametrize(("a", "b"), [(a, b) for a in METHODS for b in METHODS if a != b])
def test_all_of_it_agrees_with_fractions(registry: Registry, a: str, b: str) -> None:
    """Cells, means and tallies over all cells, each number of shots and each size, in exact arithmetic."""
    rows, table = compare_rows(registry, f"lever-plus:{a}", f"lever-plus:{b}"), printed()
    assert len(rows) == 16 + 9
    for row in rows:
        cells = [v for (n, shots), v in table.items() if row["n"] in (None, n) and row["shots"] in (None, shots)]
        differences = [v[a] - v[b] for v in cells]
        assert row["cells"] == len(cells) == (1 if row["verdict"] else 16 if row["n"] is row["shots"] is None else 4)
        assert Fraction(row["a_text"]) == sum(v[a] for v in cells) / len(cells)
        assert Fraction(row["delta_text"]) == sum(differences) / len(cells)
        signs = (sum(d > 0 for d in differences), sum(d < 0 for d in differences), differences.count(0))
        assert (row["wins"], row["losses"], row["ties"]) == signs


def test_compare_tells_cells_and_means(registry: Registry) -> None:
    rows = compare_rows(registry, "lever-plus:Balanced", "lever-plus:Baseline")
    cells, means = rows[:16], rows[16:]
    (one,) = [r for r in cells if (r["n"], r["shots"]) == (800, 1)]
    assert (one["a_text"], one["b_text"], one["delta_text"]) == ("50.15", "49.99", "+0.16")
    assert (one["delta"], one["p_value"], one["paired"]) == (0.0016, None, False)
    assert (one["ci_low"], one["ci_high"]) == unpaired_interval(0.5015, 800, 0.4999, 800)
    assert (one["corrected_low"], one["corrected_high"]) == unpaired_interval(0.5015, 800, 0.4999, 800, 1 - 0.05 / 16)
    assert {r["verdict"] for r in cells} == {"no difference seen"} and one["comparisons"] == 16
    assert [(r["shots"], r["n"], r["cells"]) for r in means] == [
        (None, None, 16), *((s, None, 4) for s in (1, 2, 3, 4)), *((None, n, 4) for n in (100, 200, 400, 800)),
    ]  # fmt: skip
    assert (means[0]["a_text"], means[0]["delta_text"]) == ("54.10125", "+0.128125")
    assert (means[0]["wins"], means[0]["losses"], means[0]["ties"]) == (8, 5, 3)
    assert means[0]["verdict"] is means[0]["ci_low"] is None


def test_compare_reads_well_at_80_columns(registry: Registry) -> None:
    out = io.StringIO()
    rows = compare_rows(registry, "lever-plus", "lever-plus:Baseline")
    Console(file=out, width=80, color_system=None).print(compare_table(rows))
    lines = out.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines) and "…" not in out.getvalue()
    assert [line for line in lines if line.startswith("a = ")] == ["a = lever-plus:Merged", "a = lever-plus:Balanced"]
    assert "all cells    16 54.10125 53.973125 +0.128125       8     5     3" in lines
    assert any(line.split()[:5] == ["1", "800", "50.15", "49.99", "+0.16"] for line in lines)
    assert "unpaired" in lines[2] and any("Without predictions" in line for line in lines)
    assert "32 comparisons were made: intervals are corrected for all of them (Bonferroni)." in lines


def test_a_run_of_our_own_against_a_table(registry: Registry) -> None:
    registry.begin_run(RunRecord("abc", "ours", "f", "okvqa", "m", 0))
    answers = [(i, Prediction("rce", 1, f"q{i}", f"i{i}", ("d",), "", "", 1.0 if i < 199 else 0.0)) for i in range(200)]
    registry.record_cell_predictions("abc", "rce", 1, answers, [100, 200])
    rows = [r for r in compare_rows(registry, "ours:rce", "lever-plus:Merged") if r["verdict"]]
    assert [(r["n"], r["a_text"], r["b_text"], r["delta_text"], r["verdict"]) for r in rows] == [
        (100, "100", "64.20", "+35.80", "a better"), (200, "99.5", "57.65", "+41.85", "a better"),
    ]  # fmt: skip
    with pytest.raises(RegistryError, match="no number of shots and sample size in common"):
        registry.record_cell_predictions(
            "abc", "random", 7, [(0, Prediction("random", 7, "q", "i", (), "", "", 1))], [1]
        )
        compare_rows(registry, "ours:random", "lever-plus:Merged")
