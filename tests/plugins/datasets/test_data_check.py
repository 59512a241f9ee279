"""`leverplus data check`: what is wrong is counted and shown row by row, from a file or a recipe, in bounded memory."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from leverplus_core import Question
from leverplus_datasets import checking
from leverplus_datasets.checking import check_dataset
from leverplus_datasets.from_rows import RowDataset
from leverplus_datasets.table import Table

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVERPLUS_CACHE", str(tmp_path / "cache"))
    for name, color in (("a", "red"), ("b", "blue"), ("c", "green")):
        Image.new("RGB", (8, 8), color).save(tmp_path / f"{name}.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "a.png").read_bytes())
    Image.effect_noise((64, 64), 50).save(tmp_path / "broken.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "broken.png").read_bytes()[:2000])


def row(key: str, image: str = "a.png", **more: Any) -> dict[str, Any]:
    return {"id": key, "question": f"What is {key}?", "image": image, "answers": ["x", "x", "y"], **more}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return path


BAD = (
    row("1", split="train"), '{"id": "2", ', row("3", "lost.png", split="train"), row("4", answers=[], split="train"),
    row("1", "b.png", split="validation"), row("5", "broken.png", split="train"), row("6", split="other"),
    row("7", "copy.png", question="What  is 1?", split="validation"), row("8", "c.png", split="train", question=""),
    {"id": "9"}, row("8", "c.png", split="train"), row("8", "c.png", split="train", answers=["z"]),
)  # fmt: skip
FOUND = {
    "rows that are not JSON": 1, "pictures that are missing": 1, "rows without an answer": 1,
    "ids that are in both splits": 1, "pictures that cannot be read": 1, "rows whose split is not known": 2,
    "questions that are in both splits, about the same picture": 1, "rows without a question": 1,
    "ids that are there twice": 1,
}  # fmt: skip


def test_as_many_rows_of_a_finding_are_shown_as_are_asked_for(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "all.jsonl", row("0"), *(row(str(n), answers=[]) for n in range(1, 9)))
    for given, shown in (((), 3), (("--examples", "1"), 1), (("--examples", "100"), 8)):
        code, out, _ = cli("data", "check", "all.jsonl", "--set", "dataset.validation_share=0.3", "--json", *given)
        (found,) = (one for one in json.loads(out)["wrong"] if one["kind"] == "rows without an answer")
        assert code == 1 and found["count"] == 8 and len(found["examples"]) == shown


def test_each_thing_that_is_wrong_is_counted_and_named_by_its_row(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "all.jsonl", *BAD)
    code, out, err = cli("data", "check", "all.jsonl", "--json")
    found = json.loads(out)
    assert code == 1 and {one["kind"]: one["count"] for one in found["wrong"]} == FOUND
    examples = {one["kind"]: one["examples"][0] for one in found["wrong"]}
    assert examples["rows that are not JSON"].startswith("all.jsonl:2 is not JSON")
    assert examples["pictures that are missing"].startswith("all.jsonl:3 (id 3): there is no image file lost.png.")
    assert examples["pictures that cannot be read"].startswith("all.jsonl:6: picture broken.png cannot be read")
    assert examples["ids that are in both splits"] == "id 1: all.jsonl:1 and all.jsonl:5"
    assert examples["questions that are in both splits, about the same picture"].endswith("all.jsonl:1 and all.jsonl:8")
    assert found["rows"] == 12 and found["questions"] == {"train": 4, "validation": 2}
    assert [one["id"] for one in found["examples"]] == ["1", "1", "5"] and found["pictures"] == 5
    assert "guessed: answers: column 'answers'" in err


def test_what_is_wrong_is_told_from_the_texts_of_the_rows(cli: Cli, tmp_path: Path) -> None:
    first, second = row("no question", answers=[], split="train"), row("2", split="cannot be fetched")
    write(tmp_path / "no id.jsonl", first, second)
    _, out, _ = cli("data", "check", "no id.jsonl", "--json")
    kinds = [one["kind"] for one in json.loads(out)["wrong"]]
    assert kinds[:2] == ["rows without an answer", "rows whose split is not known"]


def test_it_is_shown_for_eighty_columns(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "all.jsonl", *BAD)
    code, out, _ = cli("data", "check", "all.jsonl")
    assert code == 1 and max(map(len, out.splitlines())) <= 80
    for text in (
        "12 rows: 4 train, 2 validation questions, about 5 pictures",
        "most frequent answers: x (5), y (5), z (1)",
        "example 1: 1 (train)",
        "answers: x (2), y",
        "8 x 8 pixels",
        "wrong: rows without an answer: 1",
    ):
        assert text in out, text


def test_good_data_of_a_recipe_ends_with_code_zero(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for name in "abc":
        (tmp_path / f"{name}.png").rename(tmp_path / "own" / f"{name}.png")
    write(tmp_path / "own" / "t.jsonl", row("1"), row("2", "b.png"), row("2b", "b.png", question="What is 2?"))
    write(tmp_path / "own" / "v.jsonl", row("3", "c.png"), row("4", "b.png"))
    recipe = "extends: demo\ndataset: {name: table, train: t.jsonl, validation: v.jsonl}\n"
    (tmp_path / "own" / "r.yaml").write_text(recipe)
    code, out, err = cli("data", "check", "own/r.yaml")
    assert code == 0 and "nothing is wrong" in out and err == ""
    assert "repeat another of their split, on the same picture: 1" in out and "in both splits: 1" in out
    (tmp_path / "own" / "c.png").write_bytes((tmp_path / "broken.png").read_bytes())
    code, out, _ = cli("data", "check", "own/r.yaml")
    assert code == 1 and "v.jsonl:1: picture c.png cannot be read" in " ".join(out.split())
    assert cli("data", "check", "own/r.yaml", "--fast")[0] == 0, "its header is whole"


def test_a_data_set_that_is_not_read_row_by_row_stops_at_its_first_mistake(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("data", "check", "okvqa-laptop", "--json")
    found = json.loads(out)
    assert code == 0 and found["questions"]["validation"] > 0 and found["examples"][0]["caption"]
    code, out, _ = cli("data", "check", "okvqa-laptop", "--set", "dataset.captions=lost.json")
    assert code == 1 and "there is no file" in " ".join(out.split())


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_splits_of_a_share_are_those_that_a_run_has(tmp_path: Path, share: float) -> None:
    rows = [row(str(i), f"{'abc'[i % 3]}.png") for i in range(9)] + [row("k", "copy.png")]
    dataset = Table(path=str(write(tmp_path / "r.jsonl", *rows)), validation_share=share)
    found = check_dataset(dataset)
    splits: dict[str, tuple[Question, ...]] = {
        "train": dataset.questions("train"),
        "validation": dataset.questions("validation"),
    }
    assert found.questions == {split: len(questions) for split, questions in splits.items()}
    assert found.wrong == [] and {one["id"]: one["split"] for one in found.examples} == {
        key: next(split for split, questions in splits.items() if any(q.id == key for q in questions)) for key in "012"
    }


class _Many(RowDataset):
    """Captions without end: rows of no file."""

    count: int = 0

    def sources(self) -> Any:
        return {"train": [], "validation": []}

    def named(self, role: str) -> str:
        return role

    def rows(self, role: str) -> Iterator[Any]:
        for i in range(self.count if role == "train" else 1):
            key = f"{role}{i}"
            yield f"{role} row {i}", {"id": key, "question": f"what is {key}?", "caption": key, "answer": str(i % 7)}


def test_memory_does_not_grow_with_the_rows() -> None:
    peaks = []
    for count in (4_000, 16_000):
        tracemalloc.start()
        found = check_dataset(_Many(count=count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.rows == count + 1 and found.wrong == []
    assert peaks[1] < 1.2 * peaks[0]


def test_equal_pictures_are_found_wherever_they_stand_among_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures are taken some at a time: here two of each size, of which every third pair has equal bytes."""
    monkeypatch.setattr(checking, "_CHUNK", 2)
    rows = []
    for pair in range(9):
        for half, split in enumerate(("train", "validation")):
            name = f"{half}-{pair}.png"
            Image.new("RGB", (8 + pair, 8), (200, 0, half * (pair % 3 > 0))).save(tmp_path / name)
            rows.append(row(f"{half}-{pair}", name, question=f"What is {pair}?", split=split))
    found = check_dataset(Table(path=str(write(tmp_path / "all.jsonl", *rows))))
    assert [(one.kind, one.count) for one in found.wrong] == [
        ("questions that are in both splits, about the same picture", 3)
    ]


def test_a_file_without_a_question_or_an_answer_is_told_with_its_columns(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "odd.jsonl", {"id": 1, "what": "?", "image": "a.png", "answer": "x"})
    code, _, err = cli("data", "check", "odd.jsonl")
    assert code == 2 and "no column of" in err and "looks like the question: it has id, what, image, answer" in err
    assert "--column question=COLUMN" in err
    code, _, err = cli("data", "check", "odd.jsonl", "--column", "question=wha")
    assert code == 2 and "has no column 'wha'. Did you mean 'what'?" in err
    code, _, err = cli("data", "check", "odd.jsonl", "--column", "query=what")
    assert code == 2 and "--column 'query=what' is not NAME=COLUMN" in err
    write(tmp_path / "odd.jsonl", *({"id": i, "what": "?", "image": f"{i}.png", "answer": "x"} for i in "abc"))
    assert cli("data", "check", "odd.jsonl", "--column", "question=what")[0] == 0
    assert cli("data", "check", "lost.jsonl")[2].startswith("leverplus: there is no file")


def test_a_folder_and_a_split_that_is_not_there_say_what_to_write(cli: Cli, tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    one = datasets.Dataset.from_list([{"question": "?", "caption": "c", "answer": "x"}])
    one.save_to_disk(str(tmp_path / "saved"))
    for command in (("check", "saved"), ("init", "mine", "--from", "saved")):
        code, _, err = cli("data", *command)
        assert code == 2 and "saved is a folder." in err and "dataset: {name: hub, path: FOLDER}" in err
    (tmp_path / "hub.yaml").write_text("extends: demo\ndataset: {name: hub, path: saved, columns: {id: '#'}}\n")
    code, out, _ = cli("data", "check", "hub.yaml", "--json")
    (found,) = (one for one in json.loads(out)["wrong"] if "no split 'validation'" in one["examples"][0])
    assert code == 1 and "or to null with dataset.validation_share=0.3." in found["examples"][0]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "a.csv",
            "id;question;image;answer\n1;what?;a.png;red\n",
            "separates its columns by semicolons, not by commas",
        ),
        ("a.csv", "id\tquestion\timage\n1\twhat?\ta.png\n", r"by tabs, not by commas\. Save it as \.tsv"),
        ("a.tsv", "id,question,image\n1,what?,a.png\n", r"by commas, not by tabs\. Save it as \.csv"),
        ("a.csv", "id,question,image,answer\n1,what?,a.png\n", "a.csv:2 has 3 cells, and the first line 4"),
        ("a.jsonl", '{"id": "1", "id": "2"}\n', "a.jsonl:1 is not JSON: the key 'id' stands twice"),
        ("a.csv", "id,question,image,answer\n", "has no rows"),
        ("a.xlsx", "PK\x03\x04", "has no name that says what it is"),
    ],
)
def test_a_file_without_a_row_that_can_be_read_is_told_why(
    name: str, content: str, says: str, tmp_path: Path, cli: Cli
) -> None:
    (tmp_path / name).write_text(content)
    code, _, error = cli("data", "check", str(tmp_path / name))
    assert code == 2 and re.search(says, error), error


def test_a_parquet_file_with_two_columns_of_one_name_is_refused_as_csv_is(tmp_path: Path, cli: Cli) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = [pa.array([text]) for text in ("1", "what?", "which?", "a.png", "red")]
    pq.write_table(pa.table(columns, ["id", "question", "question", "image", "answer"]), tmp_path / "a.parquet")
    code, _, error = cli("data", "check", str(tmp_path / "a.parquet"))
    assert code == 2 and "a.parquet names the column 'question' twice" in error


def test_columns_named_in_chinese_and_names_in_capitals_are_read_and_long_examples_are_cut(
    tmp_path: Path, cli: Cli
) -> None:
    rows = "".join(f"{i},{'长' * 1000}{i},一只猫{i},红\n" for i in range(9))
    (tmp_path / "A.CSV").write_text(f"编号,问题,描述,答案\n{rows}", encoding="utf-8")
    code, out, error = cli("data", "check", str(tmp_path / "A.CSV"))
    assert code == 0 and "question: column '问题'" in error and "[1,001 characters]" in out, error + out
