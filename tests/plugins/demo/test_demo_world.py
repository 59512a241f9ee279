"""The demo world: the same rows and pictures every time, and the packaged checkpoint beside it."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from leverplus_core.metrics import accuracy
from leverplus_core.testing import check_dataset
from leverplus_demo import two_attributes, world
from leverplus_demo.demo_world import DemoWorld


@pytest.fixture
def demo(tmp_path: Path) -> DemoWorld:
    return DemoWorld(train=40, validation=20, cache=str(tmp_path / "cache"))


def test_demo_world_keeps_the_contract(demo: DemoWorld) -> None:
    check_dataset(demo)
    assert len(demo.questions("train")) == len(demo.demonstrations()) == 40
    assert [q.id for q in demo.questions("train")] == [d.id for d in demo.demonstrations()]
    assert len({q.image.id for split in ("train", "validation") for q in demo.questions(split)}) == 60


def test_demo_world_answers_follow_one_table(demo: DemoWorld) -> None:
    topics = {text: name for name, topic in world.TOPICS.items() for text in topic.phrasings}
    for question in (*demo.questions("train"), *demo.questions("validation")):
        assert question.image.caption is not None
        _, color, shape, _, background = question.image.caption.split()
        truth = world.answer(topics[question.text], world.Scene(shape, color, background), demo.table)
        assert len(question.answers) == 10
        assert accuracy(truth, question.answers) == 1.0
    shown = {d.id: d.answer for d in demo.demonstrations()}
    assert all(accuracy(shown[q.id], q.answers) == 1.0 for q in demo.questions("train"))


def test_demo_world_draws_its_pictures_once(demo: DemoWorld) -> None:
    path = Path(demo.questions("train")[3].image.path or "")
    with PIL.Image.open(path) as picture:
        assert picture.size == (world.SIDE, world.SIDE) and picture.mode == "RGB"
    first, drawn = path.read_bytes(), path.stat().st_mtime_ns
    again = DemoWorld(**demo.model_dump())
    assert again.questions("train") == demo.questions("train")
    assert path.stat().st_mtime_ns == drawn, "a picture that is there is not drawn again"
    path.unlink()
    DemoWorld(**demo.model_dump()).questions("train")
    assert path.read_bytes() == first, "a lost picture comes back the same"
    assert not list(path.parent.glob(".*")), "no scratch files are left"


def test_demo_world_picture_shows_what_the_caption_says(demo: DemoWorld) -> None:
    for question in demo.questions("validation"):
        assert question.image.path and question.image.caption
        background = question.image.caption.split()[-1]
        with PIL.Image.open(question.image.path) as picture:
            corner = np.asarray(picture, dtype=float)[:3, :3].mean(axis=(0, 1))
        nearest = min(world.BACKGROUNDS, key=lambda name: float(np.abs(corner - world.BACKGROUNDS[name]).sum()))
        assert nearest == background


def test_demo_world_grows_without_changing_its_rows(demo: DemoWorld) -> None:
    larger = DemoWorld(train=60, validation=20, cache=demo.cache)
    assert larger.questions("train")[:40] == demo.questions("train")
    assert larger.identity() != demo.identity()


def test_demo_world_identity_is_free_of_the_cache_and_follows_the_seed(demo: DemoWorld, tmp_path: Path) -> None:
    moved = DemoWorld(train=40, validation=20, cache=str(tmp_path / "other"))
    assert moved.identity() == demo.identity()
    assert str(tmp_path) not in json.dumps(demo.identity())
    other = DemoWorld(seed=8, train=40, validation=20, cache=demo.cache)
    assert other.identity() != demo.identity() and other.picture_folder != demo.picture_folder
    assert other.table != demo.table


def test_demo_world_keep_is_the_share_of_default_facts() -> None:
    default = world.default_table()
    assert DemoWorld(keep=1).table == default
    changed = DemoWorld(keep=0).table
    assert sum(changed[cell] == default[cell] for cell in default) < len(default) / 4


def test_demo_world_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("LEVERPLUS_CACHE", raising=False)
    assert DemoWorld().picture_folder.is_relative_to(tmp_path / "xdg" / "leverplus" / "demo_world")
    monkeypatch.setenv("LEVERPLUS_CACHE", str(tmp_path / "own"))
    assert DemoWorld().picture_folder.is_relative_to(tmp_path / "own" / "demo_world")


@pytest.mark.parametrize(
    ("settings", "texts", "pixels"),
    [
        (
            {},
            "cf4527d12867e523dec8b3171372d917b6a90f3adb8de0e7fd03a522873e3b3c",
            "ef486377c5fd053001468ee202a951bf4eb0f2b5993ad1b15c0c71f6785c003b",
        ),
        (
            {"seed": 11, "keep": 0.7, "agreement": 0.6},
            "74a243df6fa408d8fce75094c79652ff74e70b6848f68e440831617df4565523",
            "9c932bcadf5b2c081dccb74f2a3410db3e480e607c8bb5c4d71316bee869e872",
        ),
    ],
)
def test_a_seed_gives_the_same_world_as_before(
    settings: dict[str, float], texts: str, pixels: str, tmp_path: Path
) -> None:
    """Published results and the checkpoint depend on these rows: a change of the code must not change them."""
    dataset = DemoWorld.model_validate({"train": 30, "validation": 20, "cache": str(tmp_path), **settings})
    questions = [*dataset.questions("train"), *dataset.questions("validation")]
    rows: list[list[object]] = [[q.id, q.text, q.image.id, q.image.caption, list(q.answers)] for q in questions]
    rows += [[d.id, d.text, d.image.id, d.answer] for d in dataset.demonstrations()]
    rows += [[*cell, word] for cell, word in dataset.table.items()]
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest() == texts
    drawn = hashlib.sha256()
    for question in questions:
        with PIL.Image.open(question.image.path or "") as picture:
            drawn.update(np.asarray(picture).tobytes())
    assert drawn.hexdigest() == pixels


def _hard(**settings: object) -> DemoWorld:
    return DemoWorld.model_validate({"key_attributes": 2, "train": 30, "validation": 20, **settings})


def test_with_two_attributes_a_fact_needs_the_shape_and_the_color() -> None:
    """Worked out by hand on a table of three cells that differ in one attribute each."""
    table = {
        ("guild", "circle", "red"): "bakers",
        ("guild", "circle", "blue"): "smiths",
        ("guild", "star", "red"): "potters",
        ("stone", "circle", "red"): "jade",
    }
    red, blue = world.Scene("circle", "red", "white"), world.Scene("circle", "blue", "white")
    assert two_attributes.answer("guild", red, table) == "bakers"
    assert two_attributes.answer("guild", blue, table) == "smiths"
    assert two_attributes.answer("guild", world.Scene("star", "red", "white"), table) == "potters"
    assert two_attributes.answer("guild", world.Scene("circle", "red", "black"), table) == "bakers"
    assert two_attributes.answer("stone", red, table) == "jade"
    assert (
        two_attributes.answer("shape", blue, table) == "circle"
        and two_attributes.answer("colour", blue, table) == "blue"
    )


def test_with_two_attributes_each_topic_has_a_fact_for_each_pair() -> None:
    table = _hard().pair_table
    assert len(table) == len(world.KNOWLEDGE) * len(world.SHAPES) * len(world.COLORS)
    assert all(word in world.TOPICS[topic].words for (topic, _, _), word in table.items())
    assert _hard(seed=8).pair_table != table


def test_with_two_attributes_keep_is_the_share_of_the_defaults_of_the_model_s_key() -> None:
    default = world.default_table()

    def known(keep: float) -> float:
        table = _hard(keep=keep).pair_table
        keys = {name: world.TOPICS[name].key for name in world.KNOWLEDGE}
        right = [word == default[t, s if keys[t] == "shape" else c] for (t, s, c), word in table.items()]
        return float(np.mean(right))

    assert known(1) == 1
    assert known(0) == pytest.approx(1 / 12, abs=0.05), "a topic has twelve words"
    assert known(0.5) == pytest.approx(0.5 + 0.5 / 12, abs=0.06)


def test_worlds_of_one_and_two_attributes_differ_in_their_answers_alone(tmp_path: Path) -> None:
    plain, hard = _hard(key_attributes=1, cache=str(tmp_path)), _hard(cache=str(tmp_path))
    assert plain.picture_folder == hard.picture_folder
    pairs = list(zip(plain.questions("validation"), hard.questions("validation"), strict=True))
    assert all((a.id, a.text, a.image) == (b.id, b.text, b.image) for a, b in pairs)
    topics = {text: name for name, topic in world.TOPICS.items() for text in topic.phrasings}
    for a, b in pairs:
        assert b.image.caption is not None
        _, color, shape, _, background = b.image.caption.split()
        truth = two_attributes.answer(topics[b.text], world.Scene(shape, color, background), hard.pair_table)
        assert accuracy(truth, b.answers) == 1.0
        assert a.answers == b.answers or not world.TOPICS[topics[b.text]].perceptual
    assert any(a.answers != b.answers for a, b in pairs)


def test_identity_tells_the_worlds_of_one_and_two_attributes_apart() -> None:
    plain, hard = DemoWorld(), DemoWorld(key_attributes=2)
    assert plain.identity() != hard.identity() and plain.identity().keys() < hard.identity().keys()
    # The datasets of earlier runs keep their fingerprints.
    assert plain.identity().keys() == {"seed", "train", "validation", "keep", "agreement", "world"}


def test_the_checkpoint_is_found_by_its_entry_point() -> None:
    (found,) = entry_points(group="leverplus.checkpoints", name="demo")
    package, _, folder = found.value.partition(":")
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    files = {file.name for file in (Path(spec.submodule_search_locations[0]) / folder).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"} <= files
