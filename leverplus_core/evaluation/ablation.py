"""Ablations of the evaluation: demonstrations without their image, their answer, or their order.

Min et al., EMNLP 2022 (arXiv:2202.12837), shuffle the labels of demonstrations; images and order are
ablated likewise. Training and selection do not change, only what the selected demonstrations show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from leverplus_core.errors import DataError
from leverplus_core.io import atomic_write
from leverplus_core.recipes.settings import Ablation, PromptSettings
from leverplus_core.records import Demonstration, Image
from leverplus_core.seeding import rng

BLANK_CAPTION = "a blank picture"


def ablated(
    demonstrations: Mapping[str, Demonstration], prompt: PromptSettings, ablation: Ablation, seed: int, folder: Path
) -> tuple[Mapping[str, Demonstration], PromptSettings]:
    """The demonstrations as they are shown under `ablation`, by their own ids, and the prompt's settings.

    `blank_images` are gray pictures of the same size, written to `folder`; `shuffled_images` and `shuffled_answers`
    come from another demonstration, a fixed one for each; `reversed` shows a sequence in reverse. Raises DataError
    where nothing can be exchanged: all demonstrations share one image, or one answer.
    """
    if ablation == "reversed":
        return demonstrations, prompt.model_copy(update={"order": "prepend" if prompt.order == "append" else "append"})
    if ablation == "blank_images":
        return {i: replace(d, image=_blank(d.image, folder)) for i, d in demonstrations.items()}, prompt
    if ablation == "shuffled_images":
        donor = _donors(demonstrations, lambda d: d.image.id, "image", seed)
        return {i: replace(d, image=demonstrations[donor[i]].image) for i, d in demonstrations.items()}, prompt
    donor = _donors(demonstrations, lambda d: d.answer, "answer", seed)
    return {i: replace(d, answer=demonstrations[donor[i]].answer) for i, d in demonstrations.items()}, prompt


def _donors(
    demonstrations: Mapping[str, Demonstration], of: Callable[[Demonstration], str], what: str, seed: int
) -> dict[str, str]:
    """For each demonstration the next in a seeded order that has another `of`."""
    ids = sorted(demonstrations)
    order = [ids[i] for i in rng(seed, "ablation", what).permutation(len(ids))]
    values = [of(demonstrations[i]) for i in order]
    if len(set(values)) < 2:
        raise DataError(f"all demonstrations have the same {what}: there is nothing to shuffle.", "Choose another.")
    # The next position, cyclically, where another value begins.
    following = [0] * len(order)
    place = next(i for i in range(len(order)) if values[i] != values[-1])
    for i in reversed(range(len(order))):
        following[i] = place
        if values[i] != values[i - 1]:
            place = i
    return {order[i]: order[following[i]] for i in range(len(order))}


def _blank(image: Image, folder: Path) -> Image:
    """A gray picture of the size of `image`; without a file, only its caption changes."""
    if image.path is None:
        return Image("blank", None, BLANK_CAPTION)
    from PIL import Image as Picture

    from leverplus_core.pictures import PictureSettings

    reader = PictureSettings()
    width, height = reader.picture_size(reader.read_file(image.path), image.path)
    path = folder / f"blank-{width}x{height}.png"
    if not path.exists():
        with atomic_write(path) as f:
            Picture.new("RGB", (width, height), (128, 128, 128)).save(f, format="PNG")
    return Image(f"blank-{width}x{height}", str(path), BLANK_CAPTION)
