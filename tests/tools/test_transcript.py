"""Pages are recorded by running what they show."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools import transcript

PAGE = """Before.

<!-- file: words.txt -->
```yaml
a: 1
b: 2
```

```
$ cat words.txt
old
```

<!-- keep: ^[ad] -->
```
$ printf 'a\\n──\\nb\\nc\\n──\\nd\\n' \\
    | cat
```

After.
"""


def test_commands_see_the_files_of_the_page_and_their_output_replaces_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["transcript", "page.md"])
    transcript.main()
    text = page.read_text(encoding="utf-8")
    assert "$ cat words.txt\na: 1\nb: 2\n```\n" in text and "old" not in text
    assert "    | cat\na\n──\n...\nd\n```\n\nAfter.\n" in text
    transcript.main()
    assert page.read_text(encoding="utf-8") == text


def test_a_command_that_fails_ends_the_recording_and_leaves_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("```\n$ false\nold\n```\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["transcript", str(page)])
    with pytest.raises(SystemExit, match="failed with exit code 1"):
        transcript.main()
    assert "old" in page.read_text(encoding="utf-8")
