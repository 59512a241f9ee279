"""An imported folder as training reads it: candidates, pools, beams and features of one Lever-Plus file or several."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from leverplus_core.candidates.store import CANDIDATES, iter_groups
from leverplus_core.errors import DataError
from leverplus_core.interchange.features import read_features
from leverplus_core.interchange.importing import import_rl_data
from leverplus_core.interchange.layout import BEAMS, FEATURES, POOLS
from leverplus_core.interchange.manifest import MANIFEST, Manifest, building, hash_of, seal
from leverplus_core.interchange.rows import Rows
from leverplus_core.io import fingerprint, write_jsonl
from leverplus_core.plugins.contracts import Features
from leverplus_core.progress import Progress

Content = Literal["candidates", "pools", "beams", "features"]
FILES: dict[Content, str] = {
    "candidates": CANDIDATES,
    "pools": POOLS,
    "beams": BEAMS,
    "features": FEATURES,
}


@dataclass(frozen=True)
class ImportedFolder:
    """A folder that `leverplus import` made, whole and unchanged. The files are in the formats that stages write."""

    root: Path
    manifest: Manifest

    @classmethod
    def load(cls, root: Path) -> ImportedFolder:
        """Raises DataError when there is none, or a file of it is cut, edited or missing."""
        return cls(root, Manifest.read(root))

    @cached_property
    def fingerprint(self) -> str:
        """Of the content that training reads: the same file imported twice, anywhere, has the same."""
        return fingerprint({name: self.manifest.files[FILES[name]] for name in FILES if self.has(name)})

    def has(self, content: Content) -> bool:
        return FILES[content] in self.manifest.files

    def path(self, content: Content) -> Path:
        """Raises DataError when the folder has no such content."""
        if not self.has(content):
            there = ", ".join(name for name in FILES if self.has(name))
            raise DataError(f"{self.root} has no {content}, only {there}.", "Import a file that has them into it.")
        return self.root / FILES[content]

    def features(self) -> tuple[list[str], Features]:
        """The ids (N) of all questions and demonstrations, and their rows; image or text may be of width 0."""
        return read_features(self.path("features"))


def ensure_imported(
    source: Path,
    work: Path,
    rows: Rows | None = None,
    *,
    correct_threshold: float = 0.5,
    mixed_shots: bool = False,
    progress: Progress | None = None,
) -> ImportedFolder:
    """The imported folder `source`, or what a file makes below `work`/imported, once: rl-data, or candidates (.jsonl).

    Raises DataError as `ImportedFolder.load`, `import_rl_data` and `read_candidates` do.
    """
    if source.is_dir():
        return ImportedFolder.load(source)
    own = source.suffix == ".jsonl"
    rows = rows or Rows()
    made_from = [hash_of(source)] if own else [hash_of(source), correct_threshold, mixed_shots, rows.identity()]
    root = work / "imported" / fingerprint(made_from)
    if not (root / MANIFEST).is_file():
        try:
            if own:
                _take_candidates(source, root)
            else:
                import_rl_data(
                    source, root, rows, correct_threshold=correct_threshold, mixed_shots=mixed_shots, progress=progress
                )
        except DataError:
            if not (root / MANIFEST).is_file():  # else another run has just made it
                raise
    return ImportedFolder.load(root)


def _take_candidates(source: Path, root: Path) -> None:
    """A folder that holds the candidates of a file and nothing else; the recipe has the dataset and the pools."""
    with building(root) as scratch:
        write_jsonl(scratch / CANDIDATES, (asdict(c) for _, (group,) in iter_groups([source]) for c in group))
        seal(scratch, {"candidates": {"file": source.name, "sha256": hash_of(source)}})
