"""The notebook of the docs runs from its first cell to its last, and so do the blocks of the page about it."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import nbclient
import nbformat
import pandas
import pytest

from leverplus_core.registry.registry import Registry
from tests.docs import pages

DOCS = pages.ROOT / "docs"
SPEC = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "language": "python"}


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(the notebook as it was executed, the folder in which it was)."""
    folder = tmp_path_factory.mktemp("notebook")
    spec = folder / "jupyter" / "kernels" / "here"  # this Python, whatever kernels are installed
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps({**SPEC, "display_name": "here"}))
    notebook = nbformat.read(DOCS / "notebook.ipynb", as_version=4)
    with pytest.MonkeyPatch.context() as patched:
        for name in ("JUPYTER_PATH", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
            patched.setenv(name, str(folder / "jupyter"))
        patched.setenv("JUPYTER_PLATFORM_DIRS", "1")
        client = nbclient.NotebookClient(
            notebook, timeout=90, kernel_name="here", resources={"metadata": {"path": str(folder)}}
        )
        client.execute()
    return notebook, folder


def _cell(notebook: Any, beginning: str) -> Any:
    (found,) = [cell for cell in notebook.cells if cell.source.startswith(beginning)]
    return found


def test_the_notebook_is_stored_without_outputs() -> None:
    notebook = nbformat.read(DOCS / "notebook.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_a_run_in_a_notebook_is_one_output_with_a_line_for_each_stage(executed: Any) -> None:
    notebook, _ = executed
    shown, returned = _cell(notebook, "result = run(").outputs
    assert shown.output_type == "display_data" and returned.output_type == "execute_result"
    lines = shown.data["text/plain"].splitlines()
    stages = [line.partition(":")[0] for line in lines if re.fullmatch(r"\w+: [\d.]+ s", line)]
    names = ["encode", "pool", "beam_search", "sft", "propose", "balance", "mrt", "choose_baseline", "evaluate"]
    assert stages == names and not any("stage 9 of 9" in line or "[###" in line for line in lines)


def test_nothing_in_the_notebook_is_written_to_standard_error(executed: Any) -> None:
    notebook, _ = executed
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    assert [out.text for out in outputs if out.output_type == "stream" and out.name == "stderr"] == []


def test_the_frames_plot_and_own_reward_of_the_notebook_are_there(executed: Any) -> None:
    notebook, folder = executed
    assert "image/png" in _cell(notebook, "import matplotlib").outputs[0].data
    assert "text/html" in _cell(notebook, "both = ").outputs[0].data
    assert "'mrt': 'done'" in _cell(notebook, "from pathlib").outputs[0].data["text/plain"].replace("\n", "") or any(
        "'mrt': 'done'" in out.get("data", {}).get("text/plain", "") for out in _cell(notebook, "from pathlib").outputs
    )
    with Registry(f"sqlite:///{folder}/small.db") as registry:
        board = registry.leaderboard()
        assert set(board.name) == {"small", "gap"} and set(board.n) == {40}
        assert set(board.method) == {"zero_shot", "random", "text_image_knn", "sft", "mrt"}


def test_the_blocks_of_the_page_run_in_order(
    executed: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = executed  # the same recipe: what the notebook computed is there
    monkeypatch.chdir(folder)
    blocks = [block.text for block in pages.blocks("python") if pages.name(block.page) == "docs/notebooks.md"]
    assert len(blocks) == 6
    names: dict[str, Any] = {}
    for text in blocks:
        exec(text, names)
    assert (
        "unknown key 'scoring.question' in the keyword arguments. Did you mean 'questions'?" in capsys.readouterr().out
    )
    assert names["result"].calls == 0 and set(names["result"].stages.values()) <= {"reused", "off"}
    assert isinstance(names["mrt"], pandas.DataFrame) and list(names["mrt"].index) == [0, 1, 2]
    assert names["shown"].sum() == 2 * 40
    names["registry"].close()
