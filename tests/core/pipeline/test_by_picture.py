"""One picture is one image: the same picture under another name is not shown to a question about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leverplus_core.pipeline.by_picture import ByPicture, same_pictures
from leverplus_core.plugins.contracts import Bank, Dataset, Query, Split, allowed
from leverplus_core.records import Image, Question


def picture(folder: Path, name: str, content: bytes) -> Image:
    (folder / name).write_bytes(content)
    return Image(name, str(folder / name))


def test_images_with_the_same_bytes_have_the_id_of_the_first(tmp_path: Path) -> None:
    a, b = picture(tmp_path, "a", b"red"), picture(tmp_path, "b", b"sea")
    again = picture(tmp_path, "again", b"red")
    longer = picture(tmp_path, "longer", b"red.")
    assert same_pictures([a, b, again, longer]) == {"again": "a"}
    assert same_pictures([again, a, b]) == {"a": "again"}
    assert same_pictures([a, b, longer]) == {}


def test_images_of_one_id_or_one_file_are_one_through_others(tmp_path: Path) -> None:
    """x has two files, one of which is a copy of y's, whose other is a copy of z's."""
    one, two, other = (picture(tmp_path, name, name.encode()).path for name in ("one", "two", "six"))
    (tmp_path / "copy").write_bytes(b"two")
    images = [Image("w", other), Image("z", str(tmp_path / "copy")), Image("x", one), Image("y", one), Image("x", two)]
    assert same_pictures(images) == {"x": "z", "y": "z"}


def test_captions_and_files_that_are_absent_or_empty_are_what_their_ids_say(tmp_path: Path) -> None:
    empty = [picture(tmp_path, name, b"") for name in ("a", "b")]
    assert (
        same_pictures(
            [*empty, Image("c", str(tmp_path / "lost")), Image("d", None, "a cat"), Image("e", None, "a cat")]
        )
        == {}
    )


class _Copies(Dataset):
    """A validation question about a copy of the picture of the train question `t0`."""

    folder: str

    def questions(self, split: Split) -> Sequence[Question]:
        names = ("t0", "t1") if split == "train" else ("v0",)
        return [Question(name, "what?", Image(name, f"{self.folder}/{name}.png"), ("red",) * 10) for name in names]


def test_a_question_is_not_shown_a_copy_of_its_own_picture(tmp_path: Path) -> None:
    for name, content in (("t0", b"red"), ("t1", b"sea"), ("v0", b"red")):
        (tmp_path / f"{name}.png").write_bytes(content)
    plain = _Copies(folder=str(tmp_path))
    dataset = ByPicture(inner=plain)
    assert [d.image.id for d in dataset.demonstrations()] == ["t0", "t1"]
    (asked,) = dataset.questions("validation")
    assert (asked.image.id, asked.image.path) == ("t0", str(tmp_path / "v0.png"))
    bank = Bank.without_features(dataset.demonstrations())
    assert allowed(Query.of(asked, None, 0), bank).tolist() == [1]
    assert dataset.note() == "1 image is the same picture as another, and counted as one with it."
    assert dataset.identity() == plain.identity()
