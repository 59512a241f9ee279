from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from leverplus_core import Catalog, DataError, LeverplusError, Pipeline, Recipe, Registry, RunContext, run
from leverplus_core.pipeline.checks import check

Compose = Callable[..., RunContext]
TRAIN = 12


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Recipe]:
    """Twelve train questions, of which q0 and q1 are about one picture, and four to evaluate."""
    rows = [
        {"id": f"{split}{i}", "question": "What is it?", "image": f"{split}{max(i, 1)}.png", "answer": "red",
         "split": split}
        for split, count in (("train", TRAIN), ("validation", 4)) for i in range(count)
    ]  # fmt: skip
    for row in rows:
        (tmp_path / row["image"]).write_bytes(row["image"].encode())
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def of(*overrides: str) -> Recipe:
        mine = ["dataset.name=table", f"dataset={{name: table, path: {tmp_path}/all.jsonl}}", "sampler.k=4",
                "evaluation.sizes=[4]", "scoring.questions=6", "scoring.candidates.questions=null"]  # fmt: skip
        return Recipe.load("demo", [*mine, *overrides])

    return of


@pytest.fixture
def compose(recipe: Callable[..., Recipe], tmp_path: Path) -> Compose:
    return lambda *overrides: RunContext(recipe(*overrides), Catalog.load(disabled=""), tmp_path / "work")


def test_a_recipe_that_can_run_has_no_remarks(compose: Compose, tmp_path: Path) -> None:
    assert check(compose()) == check(compose("sampler.k=10")) == []
    assert not (tmp_path / "work").exists()


def test_without_a_search_nothing_learns_from_sequences(compose: Compose) -> None:
    context = compose("scoring.beam_search.num_beams=0", "scoring.beam_search.shots=9", "evaluation.baselines=[random]")
    assert check(context) == []  # what is not searched need not fit into a pool
    enabled = Pipeline(context).enabled
    assert [name for name in ("beam_search", "sft", "propose", "mrt", "evaluate") if enabled[name]] == [
        "propose",
        "mrt",
        "evaluate",
    ]
    with pytest.raises(LeverplusError, match=r"training\.mrt\.start .* is 'sft', which does not train before mrt"):
        compose("scoring.beam_search.num_beams=0", "training.mrt={epochs: 1, start: sft}")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            "sampler.k=11",
            r"sampler.k in --set sampler.k is 11, and question train0 may be shown 10 of 12 demonstrations",
        ),
        ("model.path=./nothing", "no checkpoint folder './nothing'"),
        ("model.path=" + "x" * 500, "neither a folder nor an id that a hub could have"),
        ("model.device=cuda:97", "no device 'cuda:97' on this machine"),
        ("model.device=abacus", "no device 'abacus' on this machine"),
        ("model.name=caption_lm", "model CaptionLm has no image and text features of its own"),
        ("evaluation={sizes: [4, 9], primary: {n: 9}}", "evaluation.primary.n in .* is 9, and there are 4 questions"),
        ("evaluation.shots=[5]", "5 shots cannot be filled from a pool of 4"),
    ],
)
def test_what_would_end_a_run_later_ends_it_before_anything_is_written(
    recipe: Callable[..., Recipe], tmp_path: Path, override: str, says: str
) -> None:
    mine = recipe(*(["model={name: caption_lm}"] if "caption_lm" in override else [override]))
    with pytest.raises(LeverplusError, match=says):
        check(RunContext(mine, Catalog.load(disabled=""), tmp_path / "work"))
    with pytest.raises(LeverplusError, match=says):
        run(mine, f"sqlite:///{tmp_path / 'r.db'}", tmp_path / "work")
    assert not (tmp_path / "work").exists() and not (tmp_path / "r.db").exists()


def test_sample_sizes_beyond_the_questions_are_told(compose: Compose) -> None:
    [remark] = check(compose("evaluation.sizes=[2,100,200]"))
    assert remark == (
        "evaluation.sizes in --set evaluation.sizes: there are 4 questions to evaluate, so a sample of 100, 200 is one "
        "of 4"
    )


def test_images_without_what_the_parts_read_of_them_are_told_with_the_question(
    compose: Compose, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"question train0: image 'train1.png' has no caption. Encoder sentence reads"):
        check(compose("encoder={name: sentence, path: demo}"))
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    for row in rows:
        row["caption"] = row.pop("image")
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(
        DataError, match=r"question train0: image 'caption-\w+' has no file. Set the dataset's image folder"
    ):
        check(compose(f"dataset.path={tmp_path}/captions.jsonl"))


def test_checking_a_recipe_loads_no_torch(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe()  # writes its questions
    program = """
import sys
from leverplus_core import Catalog, Recipe, RunContext
from leverplus_core.pipeline.checks import check
settings = ["dataset={name: table, path: " + sys.argv[1] + "}", "sampler.k=4"]
check(RunContext(Recipe.load("demo", settings), Catalog.load()))
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "all.jsonl")], check=False)
    assert done.returncode == 0


def test_a_home_folder_in_urls_and_folders_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Callable[..., Recipe]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Registry("sqlite:///~/mine/x.db").runs()
    assert (tmp_path / "mine" / "x.db").is_file() and not (tmp_path / "~").exists()
    assert RunContext(recipe(), Catalog.load(disabled=""), Path("~/w")).workspace.root == tmp_path / "w"
