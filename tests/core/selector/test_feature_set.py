"""Features as a file: what is written is read, and a file that is not whole is one error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leverplus_core.errors import DataError
from leverplus_core.plugins.contracts import Features
from leverplus_core.selector.feature_set import FeatureSet


def _rows(count: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def _set(states: bool = False) -> FeatureSet:
    demonstrations = Features(_rows(3, 4), _rows(3, 2, 1), _rows(3, 2, 2), _rows(3, 5, 3) if states else None)
    questions = Features(_rows(2, 4, 4), _rows(2, 2, 5), state=_rows(2, 5, 6) if states else None)
    return FeatureSet(["d0", "ä", "7"], demonstrations, ["q0", "中"], questions)


def _equal(one: Features, other: Features) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("image", "text", "answer", "state")]
    return all((a is None) == (b is None) and (a is None or np.array_equal(a, b)) for a, b in pairs)


@pytest.mark.parametrize("states", [False, True])
def test_what_is_written_is_read(tmp_path: Path, states: bool) -> None:
    features, path = _set(states), tmp_path / "sub" / "features.npz"
    features.write(path)
    found = FeatureSet.read(path)
    assert found.demonstration_ids == ["d0", "ä", "7"] and found.question_ids == ["q0", "中"]
    assert _equal(found.demonstrations, features.demonstrations) and _equal(found.questions, features.questions)
    assert found.questions.answer is None and (found.questions.state is not None) == states
    assert found.demonstrations.image.dtype == np.float32


def test_rows_follow_the_ids_that_are_asked_for() -> None:
    features = _set(states=True)
    found = features.of_questions(["中", "q0", "中"])
    assert np.array_equal(found.image, features.questions.image[[1, 0, 1]])
    assert found.state is not None and features.questions.state is not None and found.answer is None
    assert np.array_equal(found.state, features.questions.state[[1, 0, 1]])
    with pytest.raises(DataError, match=r"question q9 has no features\. Features and dataset are of different data"):
        features.of_questions(["q0", "q9"])


def test_a_file_without_question_ids_has_rows_that_are_questions_too(tmp_path: Path) -> None:
    """Imported features: each row is a train question, shown to others as a demonstration."""
    bank = _set(states=True).demonstrations
    blocks = {f"bank_{name}": getattr(bank, name) for name in ("image", "text", "answer", "state")}
    np.savez(tmp_path / "features.npz", ids=np.array(["a", "b", "c"]), **blocks)
    found = FeatureSet.read(tmp_path / "features.npz")
    assert found.question_ids == found.demonstration_ids == ["a", "b", "c"]
    assert _equal(found.demonstrations, bank) and found.questions.answer is None
    assert np.array_equal(found.of_questions(["c"]).text, bank.text[[2]])


@pytest.mark.parametrize("size", [0, 1, 20, 400, -1])
def test_a_cut_file_is_one_error(tmp_path: Path, size: int) -> None:
    path = tmp_path / "features.npz"
    _set().write(path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"features\.npz cannot be read: .*Delete .* and run again") as caught:
        FeatureSet.read(path)
    assert "\n" not in str(caught.value)


def test_a_file_compressed_in_a_way_that_is_not_known_or_damaged_inside_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "features.npz"
    np.savez_compressed(path, ids=np.array(["a"] * 100))
    whole = path.read_bytes()
    local, directory = 8, whole.index(b"PK\x01\x02") + 10  # where the method of compression stands
    for method in (9, 97):
        changed = bytearray(whole)
        changed[local] = changed[directory] = method
        path.write_bytes(changed)
        with pytest.raises(DataError, match=r"features\.npz cannot be read: "):
            FeatureSet.read(path)
    path.write_bytes(whole[:60] + bytes(20) + whole[80:])
    with pytest.raises(DataError, match=r"features\.npz cannot be read: "):
        FeatureSet.read(path)


def test_an_absent_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"features\.npz cannot be read"):
        FeatureSet.read(tmp_path / "features.npz")


@pytest.mark.parametrize(
    "missing",
    ["ids", "bank_image", "bank_text", "bank_answer", "question_image", "question_text"],
)
def test_a_missing_array_is_named(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "features.npz"
    _set().write(path)
    with np.load(path) as arrays:
        kept = {name: arrays[name] for name in arrays.files if name != missing}
    np.savez(path, **kept)
    with pytest.raises(DataError, match=rf"cannot be read: .*{missing}"):
        FeatureSet.read(path)


def test_rows_that_are_not_one_per_id_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "features.npz"
    _set().write(path)
    with np.load(path) as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    for name, rows in (("bank_text", 3), ("question_image", 2)):
        np.savez(path, **{**kept, name: kept[name][:-1]})
        with pytest.raises(DataError, match=rf"cannot be read: {name} has {rows - 1} rows for {rows} ids"):
            FeatureSet.read(path)


def test_blocks_lie_in_the_file_where_they_can_be_used_without_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "features.npz"
    _set(True).write(path)
    found = FeatureSet.read(path)
    for block in (found.demonstrations.text, found.demonstrations.state, found.questions.image):
        assert block is not None and block.flags.aligned and isinstance(block.base, np.memmap)
        block[:] = 0  # of this process alone
    assert _equal(FeatureSet.read(path).demonstrations, _set(True).demonstrations)
