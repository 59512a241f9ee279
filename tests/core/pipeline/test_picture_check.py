"""Pictures that cannot be read are found before a run, and named with their questions where one stops at them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image as Pil

from leverplus_core.errors import DataError
from leverplus_core.pictures import PictureError, PictureSettings
from leverplus_core.pipeline.picture_check import check_pictures, naming_questions
from leverplus_core.records import Image, Question

DATASET = '''
from leverplus_core import Dataset, Encoder, Image, PictureSettings, Question, hookimpl


class Photos(Dataset):
    """Train questions about pictures 0 to 5, validation questions about 4 to 9."""

    folder: str = "."

    def questions(self, split):
        rows = range(0, 6) if split == "train" else range(4, 10)
        return [
            Question(f"{split}{i}", "what?", Image(f"{i}", f"{self.folder}/{i}.png", "a thing"), ("red",) * 10)
            for i in rows
        ]


class Decoder(PictureSettings, Encoder):
    """One number a picture."""

    def images(self, images, model=None):
        import numpy as np

        for image in images:
            self.read_picture(self.read_file(image.path), image.path)
        return np.ones((len(images), 1), np.float32)

    def texts(self, texts, model=None):
        import numpy as np

        return np.ones((len(texts), 1), np.float32)


@hookimpl
def leverplus_datasets():
    return {"photos": "photo_parts:Photos"}


@hookimpl
def leverplus_encoders():
    return {"decoder": "photo_parts:Decoder"}
'''


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(10):
        Pil.new("RGB", (8, 8), (25 * i, 0, 0)).save(folder / f"{i}.png")
    return folder


def questions(photos: Path) -> list[Question]:
    names = [(f"q{i}", f"{i}.png") for i in range(10)] + [("again", "3.png")]
    asked = [Question(q, "what?", Image(name, str(photos / name)), ("red",)) for q, name in names]
    return [*asked, Question("caption", "what?", Image("c", None, "a cat"), ("red",))]


def test_every_file_is_decoded_once(photos: Path) -> None:
    assert check_pictures(questions(photos), PictureSettings()) == 10


def test_damaged_pictures_are_counted_and_the_first_are_named_with_their_questions(photos: Path) -> None:
    for i in (3, 5):
        (photos / f"{i}.png").write_bytes((photos / f"{i}.png").read_bytes()[:45])
    (photos / "7.png").unlink()
    with pytest.raises(DataError) as found:
        check_pictures(questions(photos), PictureSettings())
    assert str(found.value).startswith(f"3 of 10 pictures cannot be used: question q3 and 1 more: '{photos}/3.png' ")
    assert f"; question q7: '{photos}/7.png' cannot be read: No such file or directory." in str(found.value)
    (photos / "0.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"^4 of 10 pictures cannot be used, such as question q0: '.*0.png' is empty; "
    ) as e:
        check_pictures(questions(photos), PictureSettings())
    assert "7.png" not in str(e.value) and "\n" not in str(e.value)
    with pytest.raises(
        DataError, match=r"10 of 10 pictures .* has 8 x 8 pixels, more than the limit of 6e-05 megapixels"
    ):
        check_pictures(questions(photos), PictureSettings(max_file_megapixels=0.00006))


def test_a_picture_that_stops_a_run_is_named_with_its_questions(photos: Path) -> None:
    path = str(photos / "3.png")
    named = r"^question q3 and 1 more: image '.*3.png' is empty. Replace the file"
    with pytest.raises(DataError, match=named), naming_questions(lambda: questions(photos)):
        raise PictureError(path, "is empty")
    with pytest.raises(PictureError, match=r"^image 'other.png' is empty"), naming_questions(lambda: questions(photos)):
        raise PictureError("other.png", "is empty")


def test_validate_and_run_name_a_damaged_picture(
    cli: Callable[..., tuple[int, str, str]], photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "photo_parts.py").write_text(DATASET)
    recipe = ("demo", "--plugin", "photo_parts.py", "--set", f"dataset={{name: photos, folder: {photos}}}")
    more = ("--set", "encoder=decoder", "--set", "sampler={name: random, k: 3}", "--set", "threads=1")
    shots = ("--set", "evaluation.shots=[1]", "--set", "scoring.beam_search={shots: 1}")
    candidates = ("--set", "scoring.candidates={shots: [1]}", "--set", "evaluation.sizes=[6]")
    settings = (*recipe, *more, *shots, *candidates)
    code, out, err = cli("validate", *settings, "--data")
    assert (code, "10, all of which can be read" in out) == (0, True), err
    (photos / "4.png").write_bytes(b"no picture")
    assert cli("validate", *settings)[0] == 0, "the pictures are read with --data only"
    code, out, err = cli("validate", *settings, "--data")
    assert code == 2 and "question train4 and 1 more" in " ".join(err.split()), err
    code, out, err = cli("run", *settings, "--until", "encode")
    assert code == 2 and "question train4 and 1 more: image" in " ".join(err.split()), err
