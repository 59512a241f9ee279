"""`leverplus data init`: a folder with a recipe for own data, ready to run."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leverplus_datasets.data_check import ColumnOpt

if TYPE_CHECKING:
    from leverplus_core import Dataset
    from leverplus_datasets.checking import Checked

_DEMO_MODEL = "model: {name: qwen2_5_vl, path: demo}"
RECIPE, README = "recipe.yaml", "README.md"
EXAMPLE = {"train": 120, "validation": 40}
POOL = 16
_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")
_PATHS = ("train", "validation", "path", "images")

_RECIPE = """\
# Made by `leverplus data init`. `leverplus run {file}` takes about a minute on a CPU.
# Paths begin in the folder of this file. Every setting: `leverplus recipes show {file} --full`.
extends: {base}
name: {name}
threads: 1

dataset:
{dataset}
# The tiny demo model shows that all works{honest}.
# With a GPU: model: {{name: qwen2_5_vl, path: Qwen/Qwen2.5-VL-3B-Instruct}}, threads: null, and larger numbers below.
{model}
sampler: {{name: mixed, k: {pool}, text: 0.25, image: 0.5}}
scoring:
  questions: {questions}  # train questions that the search measures; null for all
  beam_search: {{num_beams: 2, shots: 2, expand_top_k: 3}}
  candidates: {{questions: {questions}, shots: [1, 2], num_beams: 2, retrieval: 2}}
training:
  sft: {{epochs: 5}}
  mrt: {{epochs: 5}}
evaluation:
  split: validation
  shots: [1, 2]
  sizes: [{evaluated}]
  ablations: []
  baselines: [zero_shot, random, text_knn, {{name: oracle, num_beams: 1, expand_top_k: 2}}]
"""

_README = """\
# {name}

{about}

```console
$ leverplus data check {recipe}        # what is wrong with the rows and pictures, and three examples
$ leverplus validate {recipe}          # what a run will use, before its first prompt
$ leverplus run {recipe}               # about a minute on a CPU
$ leverplus report latest -o report.html
```

- `{recipe}` is the whole experiment; its paths begin in this folder.
- {rows}
- Which model answers is `model` in the recipe. The demo model knows nothing but its own toy world: its accuracy with
  your pictures says that the data is read, no more. docs/models.md lists models for a GPU, a laptop or a server.
"""


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder, or the one of FILE.")],
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Your questions: JSON lines, CSV, Parquet.")
    ] = None,
    column: ColumnOpt = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="FOLDER", help="Where the pictures of FILE are, if not beside it."),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch pictures that FILE gives as addresses, now and in a run.")
    ] = False,
) -> None:
    """Write a recipe for own data that runs in about a minute on a CPU, and what to do next.

    Without --from it is a small example with pictures. With it, the columns of FILE are guessed, the guesses are told,
    and the first rows are checked; FILE stays where it is.
    """
    from leverplus_core import DataError, StorageError, output

    folder = Path(os.path.expanduser(folder))
    if there := next((name for name in (RECIPE, README) if (folder / name).exists()), None):
        raise StorageError(f"{folder / there} is there already.", "Name another folder, or move it away.")
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise StorageError(f"{folder} is no folder.", "Name one.")
    if source is None:
        settings, about = _example(folder), "Questions about drawn pictures, as an example of how rows look."
    else:
        from leverplus_datasets.guess import guess, parse_columns

        if images is not None and not (images := Path(os.path.expanduser(images))).is_dir():
            raise DataError(f"--images {images} is no folder.", "Name the one that holds the pictures.")
        guessed = guess(Path(os.path.expanduser(source)), parse_columns(column or []), images)
        for line in guessed.said:
            output.say(f"guessed: {line}")
        asked = {"download": True} if download else {}
        settings, about = {**guessed.settings, **asked}, f"Questions of `{source.name}`."
    found = _checked(settings)
    if found.wrong and not any(found.questions.values()):
        first = found.wrong[0]
        hint = (
            "Say what a column holds with --column, and where the pictures are with --images; --download fetches them."
        )
        raise DataError(f"no row can be used: {first.kind}: {first.examples[0]}", hint)
    _write(folder, settings, found, about, source is None)
    if source is not None and _pictured(found):
        output.say(
            "the recipe's demo model knows nothing of your pictures: set `model` in it before you believe a result"
        )
    for finding in found.wrong:
        output.warn(f"{finding.kind}: {finding.count:,}, such as {finding.examples[0]}")
    typer.echo(f"{folder / RECIPE}: {found.questions['train']:,} train, {found.questions['validation']:,} validation")
    typer.echo(f"next: leverplus data check {folder / RECIPE}, then leverplus run {folder / RECIPE}")


def _checked(settings: Mapping[str, Any]) -> Checked:
    from leverplus_core import Bars
    from leverplus_datasets.checking import check_dataset
    from leverplus_datasets.table import Table

    with Bars() as bars:
        return check_dataset(Table.model_validate(dict(settings)), decode=False, progress=bars)


def _pictured(found: Checked) -> bool:
    return any(one["path"] for one in found.examples)


def _example(folder: Path) -> dict[str, Any]:
    """Rows and pictures of the demo world, written into the folder; the settings for them."""
    from leverplus_core import Catalog

    settings = {"key_attributes": 2, "keep": 0.3, **EXAMPLE}
    world: Dataset = Catalog.load().build("dataset", "demo_world", settings)
    for split in EXAMPLE:
        _example_rows(folder, world, split)
    return {split: str(folder.resolve() / f"{split}.jsonl") for split in EXAMPLE}


def _example_rows(folder: Path, world: Dataset, split: Any) -> None:
    import json

    from leverplus_core import atomic_write, storage_errors

    pictures = folder / "pictures"
    with storage_errors(pictures):
        pictures.mkdir(parents=True, exist_ok=True)
        lines = []
        for question in world.questions(split):
            name = Path(str(question.image.path)).name
            shutil.copyfile(str(question.image.path), pictures / name)
            row = {"id": question.id, "question": question.text, "image": f"pictures/{name}"}
            lines.append(json.dumps({**row, "answers": list(question.answers)}) + "\n")
    with atomic_write(folder / f"{split}.jsonl") as f:
        f.write("".join(lines).encode())


def _write(folder: Path, settings: Mapping[str, Any], found: Checked, about: str, example: bool) -> None:
    from leverplus_core import atomic_write

    train, validation = found.questions["train"], found.questions["validation"]
    pictured = _pictured(found)
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in folder.resolve().name).strip("-.") or "mine"
    relative = {key: _beside(folder, value) if key in _PATHS else value for key, value in settings.items()}
    text = _RECIPE.format(
        file=RECIPE,
        base="demo" if pictured else "okvqa-laptop",
        name=name,
        dataset=_yaml({"name": "table", **relative}),
        honest="" if example else "; it knows nothing of your pictures, so its accuracy means nothing",
        model=_DEMO_MODEL if pictured else "# The model is that of okvqa-laptop, which reads captions.",
        pool=max(1, min(POOL, train // 3)),
        questions=max(1, min(40, train)),
        evaluated=max(1, min(40, validation)),
    )
    rows = (
        "`train.jsonl` and `validation.jsonl` hold a question a line: `id`, `question`, `image` (a path), `answers`\n"
        "  (one per annotator, or `answer`). CSV and Parquet are read as well."
        if example
        else "The columns are named in `dataset`; what they may hold is in docs/datasets.md."
    )
    for file, content in ((RECIPE, text), (README, _README.format(name=name, about=about, recipe=RECIPE, rows=rows))):
        with atomic_write(folder / file) as f:
            f.write(content.encode())


def _beside(folder: Path, path: str) -> str:
    """A path as the recipe in `folder` names it: from there where it lies in it."""
    file, base = Path(path), folder.resolve()
    return file.relative_to(base).as_posix() or "." if file.is_relative_to(base) else path


def _yaml(values: Mapping[str, Any]) -> str:
    """Settings as lines of a recipe; texts in quotes where they could be read as something else."""
    import json

    lines = []
    for key, value in values.items():
        shown = value if isinstance(value, str) and _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
        lines.append(f"  {key}: {shown}\n")
    return "".join(lines)
