"""What docs/registry.md and `leverplus sql --help` say of the views is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from leverplus_core.cli.sql import sql
from leverplus_core.records import Image, Prediction, Question
from leverplus_core.registry import tables
from leverplus_core.registry.registry import Registry, RunRecord

PAGE = (Path(__file__).parents[3] / "docs" / "registry.md").read_text(encoding="utf-8")


def section(view: str) -> str:
    """The page's table of a view's columns."""
    return PAGE.split(f"**`{view}`**", 1)[1].split("\n\n", 2)[1]


@pytest.mark.parametrize("view", list(tables.VIEWS))
def test_every_column_is_documented_and_no_other(view: str) -> None:
    firsts = [line.split("|")[1] for line in section(view).splitlines()[2:]]
    named = [name for cell in firsts for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(named) == sorted(tables.VIEWS[view].selected_columns.keys())


def test_the_help_of_sql_names_every_table_and_column() -> None:
    words = set(re.findall(r"\w+", sql.__doc__ or ""))
    for name in (*tables.VIEWS, *tables.metadata.tables):
        assert name in words or name == "schema_version"
    for view in tables.VIEWS.values():
        assert set(view.selected_columns.keys()) <= words


def test_the_queries_of_the_page_answer(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path / 'r.db'}")
    for seed in (0, 1):
        run = RunRecord(
            str(seed), "demo", "f", "d", "m", seed, dataset_fingerprint="w", sweep="rewards", arm={"seed": seed}
        )
        registry.begin_run(run)
        registry.record_questions(run.id, [Question("q1", "what?", Image("i1"), ("a", "a"))])
        for method, right in (("random", 0.0), ("rce", float(seed))):
            rows = [(i, Prediction(method, 1, f"q{i}", f"i{i}", (), "", "", right * i)) for i in range(2)]
            registry.record_cell_predictions(run.id, method, 1, rows, [2])
        registry.record_methods(run.id, {"random": 0, "rce": 30})
        registry.record_evaluation(run.id, "e", "validation", [("q0", "i0"), ("q1", "i1")], ["random", "rce"])
    queries = [q for q in re.search(r"```sql\n(.*?)```", PAGE, re.DOTALL)[1].split(";") if q.strip()]  # type: ignore[index]
    best, samples, asked, against, wrong, seeds = (registry.sql(q)[1] for q in queries)
    assert sorted(best)[1] == ("demo", "rce", 1, 0.5) and len(best) == 2
    assert [row[1:] for row in samples] == [(2, 4, "demo")]
    [(world, split, runs, evaluations, when)] = asked
    assert (world, split, runs, evaluations) == ("w", "validation", 2, 2) and when.startswith("20")
    assert sorted(against)[1] == ("demo", "random", 0, 0.0) and ("demo", "rce", 30, 0.5) in against
    assert ("q0", None, None) in wrong and set(wrong) <= {("q0", None, None), ("q1", "what?", '["a", "a"]')}
    assert seeds == [(0, "random", 1, 0.0), (1, "random", 1, 0.0), (0, "rce", 1, 0.0), (1, "rce", 1, 0.5)]
