"""Checkpoints by folder, hub id and packaged name; their identity; and the errors a user sees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from leverplus_core import CheckpointError, cache_folder, checkpoint_errors, checkpoint_identity, find_checkpoint
from leverplus_core import pick_device as pick


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").write_text("{}", encoding="utf-8")
    return tmp_path / "own"


@pytest.fixture
def packaged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that ships a checkpoint named `small`, and one whose folder is missing."""
    site = folder.parent
    (site / "acme_weights" / "checkpoint").mkdir(parents=True)
    (site / "acme_weights" / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    (site / "acme_weights" / "checkpoint" / "config.json").write_text("{}", encoding="utf-8")
    info = site / "acme_weights-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-weights\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(
        "[leverplus.checkpoints]\nsmall = acme_weights:checkpoint\nlost = acme_weights:elsewhere\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(site))
    return site / "acme_weights" / "checkpoint"


def test_a_packaged_checkpoint_is_found_by_name_without_importing_its_package(packaged: Path) -> None:
    assert find_checkpoint("small") == str(packaged)
    assert "acme_weights" not in sys.modules


def test_a_packaged_checkpoint_whose_folder_is_missing_names_its_distribution(packaged: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'lost' is not where .*elsewhere\. Reinstall acme-weights"):
        find_checkpoint("lost")


def test_folders_and_hub_ids_are_told_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_checkpoint(str(folder)) == str(folder)
    monkeypatch.setenv("HOME", str(folder.parent))
    assert find_checkpoint("~/own") == str(folder)
    assert find_checkpoint("some/model") == "some/model" and find_checkpoint("gpt2") == "gpt2"
    for absent in ("./absent", "/no/such/folder", "a/b/c"):
        with pytest.raises(CheckpointError, match=f"no checkpoint folder '{absent}'"):
            find_checkpoint(absent)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        find_checkpoint(str(folder.parent))


def test_identity_is_the_content_and_not_the_place(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "copy"
    other.mkdir()
    (other / "config.json").write_text("{}", encoding="utf-8")
    (other / "README.md").write_text("ignored", encoding="utf-8")
    assert checkpoint_identity(str(folder)) == checkpoint_identity(str(other))
    assert checkpoint_identity(str(folder)).startswith("sha256:")
    (other / "model.safetensors").write_bytes(b"weights")
    assert checkpoint_identity(str(folder)) != checkpoint_identity(str(other))
    assert checkpoint_identity("some/model") == "some/model@main"
    assert checkpoint_identity("some/model", "abc") == "some/model@abc"


def test_what_a_loader_raises_becomes_one_line(packaged: Path) -> None:
    with (
        pytest.raises(CheckpointError, match=r"cannot load 'that': no such file Give .* packaged one: .*small"),
        checkpoint_errors("that"),
    ):
        raise OSError("no such file")


def test_an_absent_device_is_one_line() -> None:
    assert pick("cpu").type == "cpu"
    with pytest.raises(CheckpointError, match="no device 'nonsense' on this machine"):
        pick("nonsense")


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LEVERPLUS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "leverplus"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "leverplus"
    monkeypatch.setenv("LEVERPLUS_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_importing_it_imports_neither_torch_nor_transformers() -> None:
    code = "import leverplus_core.pretrained, sys; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
