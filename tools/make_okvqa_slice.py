"""Make the slice of OK-VQA that ships with the package out of the official validation files.

    python tools/make_okvqa_slice.py FOLDER

FOLDER holds the official val2014 question and annotation files and PICa's captions_vinvl_val2014.json. Both splits
of the slice are drawn from the validation questions, split by image. The same input gives the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

from leverplus_core import Split
from leverplus_datasets import vqa_json
from leverplus_datasets.reading import read_text

TRAIN, VALIDATION, SEED = 4000, 1000, 20_251_213
OUT = Path(vqa_json.__file__).parent / "okvqa_slice"


def write(name: str, document: object) -> None:
    """Gzip without name or time in the header."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    (OUT / name).write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def main() -> None:
    """Write the files of the slice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    # Three validation questions have blank answers and are left out, so three more are drawn.
    sizes = vqa_json.SplitByImage(train=TRAIN + 3, validation=VALIDATION + 3, seed=SEED)
    dataset = vqa_json.VqaJson(folder=str(folder), split_by_image=sizes)
    questions: dict[str, Any] = json.loads(read_text(folder / "OpenEnded_mscoco_val2014_questions.json"))
    annotations: dict[str, Any] = json.loads(read_text(folder / "mscoco_val2014_annotations.json"))
    captions: dict[str, str] = {}
    OUT.mkdir(exist_ok=True)
    splits: tuple[tuple[str, Split, int], ...] = (("train", "train", TRAIN), ("val", "validation", VALIDATION))
    for short, split, count in splits:
        whole = [q for q in dataset.questions(split) if all(a.strip() for a in q.answers)][:count]
        kept = {q.id for q in whole}
        captions |= {q.image.id: q.image.caption or "" for q in whole}
        for kind, document in (("questions", questions), ("annotations", annotations)):
            rows = sorted((r for r in document[kind] if str(r["question_id"]) in kept), key=lambda r: r["question_id"])
            write(f"slice_{short}_{kind}.json.gz", {**document, kind: rows})
    write("captions_vinvl_val2014.json.gz", dict(sorted(captions.items(), key=lambda item: int(item[0]))))


if __name__ == "__main__":
    main()
