from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from leverplus_core.cli import main
from leverplus_core.errors import RegistryError
from leverplus_core.records import Demonstration, Image, Prediction, Question
from leverplus_core.registry.registry import Registry, RunRecord
from leverplus_core.report.question import question_record, question_view
from leverplus_formats.table import TableImporter

ASKED = Question("q1", "what color is the [bold]hat?", Image("i1", "pictures/i1.png"), ("red", "blue", "red"))
SHOWN = Demonstration("d1", "which animal?", Image("i9", None, "a cat"), "cat")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(f"sqlite:///{tmp_path / 'r.db'}")
    registry.begin_run(RunRecord("abc", "demo", "f", "d", "m", 0))
    registry.record_questions("abc", [ASKED], [SHOWN])
    for method, shots, ids, raw, answer, accuracy in (
        ("rce", 2, ("d1", "d2"), " red Question: why", "red", 0.6), ("rce", 1, ("d2",), "blue", "blue", 0.3),
        ("zero_shot", 0, (), " red", "red", 0.6),
    ):  # fmt: skip
        other = Prediction(method, shots, "q0", "i0", ids, "no", "no", 0.0)
        mine = Prediction(method, shots, "q1", "i1", ids, raw, answer, accuracy)
        registry.record_cell_predictions("abc", method, shots, [(0, other), (1, mine)], [2])
    return registry


def test_facts(registry: Registry) -> None:
    metadata = question_record(registry, "demo", "q1")
    assert metadata["question"] == {
        "id": "q1", "text": ASKED.text, "image_id": "i1", "image_path": "pictures/i1.png", "caption": None,
        "answers": ["red", "blue", "red"],
    }  # fmt: skip
    assert [(m["method"], m["shots"], m["prediction"], m["accuracy"]) for m in metadata["methods"]] == [
        ("zero_shot", 0, "red", 0.6), ("rce", 1, "blue", 0.3), ("rce", 2, "red", 0.6),
    ]  # fmt: skip
    known, unknown = metadata["methods"][2]["demonstrations"]
    assert known == {
        "id": "d1", "text": "which animal?", "image_id": "i9", "image_path": None, "caption": "a cat", "answer": "cat",
    }  # fmt: skip
    assert unknown["id"] == "d2" and unknown["text"] is unknown["answer"] is None
    assert [m["shots"] for m in question_record(registry, "abc", "q1", ["rce"], [2])["methods"]] == [2]


def test_it_reads_well_at_80_columns(registry: Registry) -> None:
    out = io.StringIO()
    Console(file=out, width=80, color_system=None).print(question_view(question_record(registry, "latest", "q1")))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert all(len(line) <= 80 for line in lines)
    assert "question  q1: what color is the [bold]hat?" in lines
    assert "image     pictures/i1.png" in lines and "answers   red (2), blue (1)" in lines
    row = next(i for i, line in enumerate(lines) if line.startswith("rce            2"))
    assert lines[row].split() == ["rce", "2", "60.0", "red", "d1:", "which", "animal?", "cat"]
    assert "from ' red" in lines[row + 1] and "d2" in lines[row + 1]


def test_a_question_that_was_not_recorded(registry: Registry) -> None:
    metadata = question_record(registry, "demo", "q0")
    assert metadata["question"]["text"] is None and len(metadata["methods"]) == 3
    out = io.StringIO()
    Console(file=out, width=80, color_system=None).print(question_view(metadata))
    assert "not recorded" in out.getvalue()


def test_what_is_not_there(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "t.md").write_text("| n | shot | A |\n|---|---|---|\n| 10 | 1 | 50.1 |\n")
    registry.record_published("paper", TableImporter().read(tmp_path / "t.md"))
    registry.begin_run(RunRecord("new", "new", "f", "d", "m", 0))
    for (run, question, *only), message in {
        ("demo", "q7"): "answered no question 'q7'. It answered q0, q1 and others",
        ("new", "q0"): "It has evaluated nothing yet",
        ("paper", "q0"): "is a published table",
        ("nobody", "q0"): "no run 'nobody'",
        ("demo", "q1", "rec"): "no method rec. Did you mean 'rce'?",
    }.items():
        with pytest.raises(RegistryError) as e:
            question_record(registry, run, question, only)
        assert message in str(e.value) and "\n" not in str(e.value)
    with pytest.raises(RegistryError, match="no shots 3"):
        question_record(registry, "demo", "q1", shots=[3])


def test_the_verb(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["show", "demo", "--question", "q1", "--registry", f"sqlite:///{tmp_path / 'r.db'}"]
    for more, code in (([], 0), (["--json", "--method", "rce", "--shots", "1"], 0), (["--method", "x"], 2)):
        monkeypatch.setattr(sys, "argv", ["leverplus", *words, *more])
        with pytest.raises(SystemExit) as e:
            main()
        assert e.value.code == code
        out = capsys.readouterr().out
        if "--json" in more:
            assert [m["prediction"] for m in json.loads(out)["methods"]] == ["blue"]
