"""What is wrong with a data set, row by row, before a run finds it in hour three: in one pass, in bounded memory.

Rows go into a temporary SQLite file; duplicates and leaks are questions to it. Two questions are the same where their
words and the bytes of their pictures are (of pictures without a file: their ids).
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from leverplus_core import (
    DataError,
    Dataset,
    PictureError,
    PictureSettings,
    Progress,
    Question,
    Silent,
    Split,
    file_hashes,
    header_size,
)
from leverplus_datasets.from_rows import RowDataset
from leverplus_datasets.reading import RowError

EXAMPLES = 3
"""Of each finding where no other number is asked for, and questions that are shown."""
_SPLITS: tuple[Split, Split] = ("train", "validation")
_CHUNK = 2000
_KNOWN = 20_000
"""Distinct answers that are counted; later ones are not, so that the memory is bounded."""
_TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32000;
CREATE TABLE rows (n INTEGER PRIMARY KEY, place TEXT, id TEXT, split TEXT, words BLOB, image TEXT, path TEXT);
CREATE TABLE files (path TEXT PRIMARY KEY, size INTEGER, content TEXT);
"""


@dataclass
class Finding:
    """How often something is wrong, with the first examples."""

    kind: str
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str, most: int = EXAMPLES) -> None:
        """Count one more, and keep it where fewer than `most` are kept."""
        self.count += 1
        if len(self.examples) < most:
            self.examples.append(example)


@dataclass
class Checked:
    """What was found. `wrong` is what spoils a run or its result; `remarks` is what its user should know."""

    rows: int = 0
    questions: dict[str, int] = field(default_factory=dict)
    pictures: int = 0
    answers: dict[str, Any] = field(default_factory=dict)
    wrong: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def data(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


def check_dataset(
    dataset: Dataset,
    reader: PictureSettings | None = None,
    decode: bool = True,
    progress: Progress | None = None,
    examples: int = EXAMPLES,
) -> Checked:
    """Everything that is wrong with a data set, with the first `examples` of each finding.

    Without `decode`, only the headers of pictures are read.

    A data set that is not read row by row (`vqa_json`, a plugin's) stops at the first bad row, which is then the one
    finding. Raises DataError where its settings name no rows.
    """
    with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(Path(folder) / "rows.sqlite")) as db:
        db.executescript(_TABLES)
        check = _Check(dataset, db, reader or PictureSettings(), decode, progress or Silent(), examples)
        return check.run()


class _Check:
    def __init__(
        self,
        dataset: Dataset,
        db: sqlite3.Connection,
        reader: PictureSettings,
        decode: bool,
        progress: Progress,
        examples: int,
    ) -> None:
        self.dataset, self.db, self.reader, self.decode, self.progress = dataset, db, reader, decode, progress
        self.examples = examples
        self.found = Checked()
        self.root = _root(dataset)
        self.kinds: dict[str, Finding] = {}
        self.said: Counter[str] = Counter()
        self.answer_counts: Counter[int] = Counter()
        self.words: Counter[int] = Counter()

    def run(self) -> Checked:
        with self.progress.task("rows", 0) as bar:
            batch: list[tuple[Any, ...]] = []
            for where, question, split in self._rows():
                words = blake2b(" ".join(question.text.lower().split()).encode(), digest_size=12).digest()
                image, path = question.image.id, question.image.path
                batch.append((self.found.rows, where, question.id, split, words, image, path))
                self._count(question, split)
                if len(batch) >= _CHUNK:
                    self._keep(batch)
                    bar.advance(len(batch))
                    batch = []
            self._keep(batch)
        self._pictures()
        self._draw_splits()
        self._duplicates()
        self._summary()
        return self.found

    def _rows(self) -> Iterator[tuple[str, Question, Split | None]]:
        dataset = self.dataset
        if not isinstance(dataset, RowDataset):
            try:
                every = [(split, question) for split in _SPLITS for question in dataset.questions(split)]
            except DataError as e:
                self._refused(e)
                return
            for of, question in every:
                self.found.rows += 1
                yield f"{of} question {question.id}", question, of
            return
        fetched = dataset.fetched() if dataset.download else {}
        for role in dataset.sources():
            try:
                for number, (where, row) in enumerate(dataset.rows(role), 1):
                    self.found.rows += 1
                    try:
                        question, split, given = dataset.question(row, role, where, number, fetched)
                    except DataError as e:
                        self._refused(e)
                        continue
                    yield where, replace(question, answers=question.answers[:given]), split
            except DataError as e:  # the rest of the file cannot be read
                self._refused(e, str(e))

    def _near(self, text: str) -> str:
        """A message with paths as they are seen from the folder of the rows."""
        return text.replace(self.root, "") if self.root else text

    def _refused(self, error: DataError, what: str = "") -> None:
        kind = error.kind if isinstance(error, RowError) else "rows that cannot be used"
        self._wrong(what or error.what, kind)

    def _wrong(self, what: str, kind: str) -> None:
        self.kinds.setdefault(kind, Finding(kind)).add(self._near(what), self.examples)

    def _count(self, question: Question, split: Split | None) -> None:
        given = [answer for answer in question.answers if answer.strip()]
        self.answer_counts[len(set(given))] += 1
        for answer in dict.fromkeys(given):
            if answer in self.said or len(self.said) < _KNOWN:
                self.said[answer] += 1
            self.words[len(answer.split())] += 1
        if len(self.found.examples) < EXAMPLES:
            size = header_size(question.image.path) if question.image.path else None
            self.found.examples.append({
                "id": question.id, "split": split, "question": question.text, "image": question.image.id,
                "path": question.image.path, "size": list(size) if size else None, "caption": question.image.caption,
                "answers": dict(Counter(question.answers).most_common(5)),
            })  # fmt: skip

    def _keep(self, batch: Sequence[tuple[Any, ...]]) -> None:
        self.db.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)", batch)

    def _draw_splits(self) -> None:
        """What the data set does with rows without a split (`validation_share`)."""
        dataset = self.dataset
        share = dataset.validation_share if isinstance(dataset, RowDataset) else None
        if share is None:
            return
        assert isinstance(dataset, RowDataset)
        # With MIN, SQLite takes the other columns from the row that has it: an image is the picture of its first row.
        self.db.execute(
            "CREATE TABLE of_image AS SELECT image, COALESCE(content, image) AS picture, MIN(n) AS first FROM rows "
            "LEFT JOIN files ON files.path = rows.path WHERE split IS NULL GROUP BY image"
        )
        pictures = self.db.execute("SELECT COUNT(DISTINCT picture) FROM of_image").fetchone()[0]
        drawn = set(dataset.drawn(pictures).tolist()) if pictures else set()
        self.db.execute("CREATE TABLE drawn (picture TEXT PRIMARY KEY)")
        ordered = self.db.execute("SELECT picture FROM of_image GROUP BY picture ORDER BY MIN(first)").fetchall()
        self.db.executemany("INSERT INTO drawn VALUES (?)", (one for n, one in enumerate(ordered) if n in drawn))
        self.db.execute(
            "UPDATE rows SET split = CASE WHEN image IN (SELECT image FROM of_image JOIN drawn USING (picture)) "
            "THEN 'validation' ELSE 'train' END WHERE split IS NULL"
        )

    def _pictures(self) -> None:
        """Read every picture once, and hash those whose size another has, too."""
        self.found.pictures = self.db.execute("SELECT COUNT(DISTINCT image) FROM rows").fetchone()[0]
        self.db.execute("INSERT INTO files SELECT DISTINCT path, 0, path FROM rows WHERE path IS NOT NULL")
        total = self.db.execute("SELECT COUNT(*) FROM files").fetchone()[0]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool, self.progress.task("pictures", total) as bar:
            for paths in self._chunks():
                for path, (size, why) in zip(paths, pool.map(self._read, paths), strict=True):
                    self.db.execute("UPDATE files SET size = ? WHERE path = ?", (size, path))
                    if why:
                        (place,) = self.db.execute("SELECT place FROM rows WHERE path = ? LIMIT 1", (path,)).fetchone()
                        self._wrong(f"{place}: picture {path} {why}", "pictures that cannot be read")
                bar.advance(len(paths))
        self.db.execute("CREATE INDEX by_size ON files (size)")
        other = "SELECT 1 FROM files AS other WHERE other.size = files.size AND other.path != files.path"
        for paths in self._chunks(f"size > 0 AND EXISTS ({other})"):
            hashes = file_hashes(paths)
            self.db.executemany("UPDATE files SET content = ? WHERE path = ?", [(hashes[p], p) for p in paths])

    def _chunks(self, condition: str = "TRUE") -> Iterator[list[str]]:
        """The paths of pictures in their order, some at a time; what else is known of them may be written between."""
        query = f"SELECT path FROM files WHERE path > ? AND {condition} ORDER BY path LIMIT {_CHUNK}"
        last = ""
        while rows := self.db.execute(query, (last,)).fetchall():
            yield [path for (path,) in rows]
            (last,) = rows[-1]

    def _read(self, path: str) -> tuple[int, str]:
        """(bytes of a picture, why it cannot be read)."""
        try:
            size = os.stat(path).st_size
            data = self.reader.read_file(path)
            if self.decode:
                self.reader.read_picture(data, path, lambda width, height: (width // 8 or 1, height // 8 or 1))
            else:
                self.reader.picture_size(data, path)
        except PictureError as e:
            return 0, e.reason
        except OSError as e:
            return 0, f"cannot be read: {e.strerror}"
        return size, ""

    def _duplicates(self) -> None:
        self.db.execute("CREATE INDEX by_id ON rows (id)")
        twice = "SELECT id, COUNT(*), COUNT(DISTINCT split) FROM rows GROUP BY id HAVING COUNT(*) > 1 ORDER BY MIN(n)"
        for key, count, splits in self.db.execute(twice):
            kind = "ids that are in both splits" if splits > 1 else "ids that are there twice"
            self._found(kind, f"id {key}: {self._places('id = ?', (key,))}", count - 1)
        self.db.execute(
            "CREATE TABLE seen AS SELECT n, place, split, words, COALESCE(content, image) AS picture FROM rows "
            "LEFT JOIN files ON files.path = rows.path"
        )
        self.db.execute("CREATE INDEX by_words ON seen (words, picture)")
        again = (
            "SELECT COUNT(*), COUNT(DISTINCT split), MIN(n), MAX(n) FROM seen GROUP BY words, picture "
            "HAVING COUNT(*) > 1 ORDER BY MIN(n)"
        )
        repeated = 0
        for count, splits, first, last in self.db.execute(again):
            if splits > 1:
                self._found(
                    "questions that are in both splits, about the same picture",
                    f"the same question about the same picture: {self._places('n IN (?, ?)', (first, last))}",
                    count - 1,
                )
            else:
                repeated += count - 1
        if repeated:
            self.found.remarks.append(
                f"questions that repeat another of their split, on the same picture: {repeated:,}"
            )
        shared = self.db.execute(
            "SELECT COUNT(*) FROM (SELECT picture FROM seen GROUP BY picture HAVING COUNT(DISTINCT split) > 1)"
        ).fetchone()[0]
        if shared:
            self.found.remarks.append(
                f"pictures in both splits: {shared:,}; no question is shown a demonstration with its own picture"
            )

    def _found(self, kind: str, example: str, count: int) -> None:
        finding = self.kinds.setdefault(kind, Finding(kind))
        finding.add(self._near(example), self.examples)
        finding.count += count - 1

    def _places(self, condition: str, values: tuple[Any, ...]) -> str:
        rows = self.db.execute(f"SELECT place FROM rows WHERE {condition} ORDER BY n LIMIT 3", values)
        return " and ".join(place for (place,) in rows)

    def _summary(self) -> None:
        found = self.found
        counts = self.db.execute("SELECT split, COUNT(*) FROM rows GROUP BY split ORDER BY split")
        found.questions = {split: 0 for split in _SPLITS} | {str(split): count for split, count in counts}
        for split in _SPLITS:
            if not found.questions[split]:
                self._found(f"no {split} questions", f"no row is a {split} question", 1)
        for example in found.examples:
            row = self.db.execute("SELECT split FROM rows WHERE id = ? LIMIT 1", (example["id"],)).fetchone()
            example["split"] = row[0] if row else None
        answered = sum(self.answer_counts.values())
        if answered:
            words = sum(length * count for length, count in self.words.items()) / max(self.words.total(), 1)
            found.answers = {
                "distinct_a_question": sum(n * count for n, count in self.answer_counts.items()) / answered,
                "words": words,
                "most_frequent": dict(self.said.most_common(5)),
            }
            if words > 3:
                found.remarks.append(
                    f"answers have {words:.1f} words on average: decoding.max_new_tokens must be large enough, and VQA "
                    "accuracy wants an answer word by word"
                )
        found.wrong = list(self.kinds.values())


def _root(dataset: Dataset) -> str:
    """The folder of the files of rows, with its slash; '' where there is none."""
    try:
        files = [file for of in dataset.sources().values() for file in of] if isinstance(dataset, RowDataset) else []
    except DataError:
        files = []
    return f"{os.path.commonpath([os.path.abspath(file.parent) for file in files])}/" if files else ""
