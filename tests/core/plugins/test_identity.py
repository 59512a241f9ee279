"""A part's identity names its code: whatever changes what it computes changes its identity, and nothing else does."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from leverplus_core import Catalog, PluginError
from leverplus_core.plugins.source import code_hash

CODE = """
    from leverplus_core import Reward, hookimpl

    class Flat(Reward):
        \"\"\"All the same.\"\"\"

        def compute(self, group):
            return [1.0 for _ in group]

    @hookimpl
    def leverplus_rewards():
        return {"flat": __name__ + ":Flat"}
"""

Install = Callable[..., str]
Restart = Callable[[], None]


def test_identity_holds_distribution_version_and_a_hash_of_the_code() -> None:
    found = Catalog.load(disabled="").identity("sampler", "mixed")
    assert found["distribution"] == "leverplus" and found["version"] == importlib.metadata.version("leverplus")
    assert len(found["code"]) == 16 and int(found["code"], 16) >= 0
    assert found == Catalog.load(disabled="").identity("sampler", "random"), "one room, one code"
    assert found["code"] != Catalog.load(disabled="").identity("reward", "separated")["code"]
    with pytest.raises(PluginError, match="no sampler named 'mixd'"):
        Catalog.load(disabled="").identity("sampler", "mixd")


def test_identity_imports_no_part(install: Install) -> None:
    install("acme-flat", CODE.replace("__name__ + ", "").replace('":Flat"', '"acme_heavy.part:Flat"'))
    before = set(sys.modules)
    assert Catalog.load(disabled="").identity("reward", "flat")["code"] == ""  # nothing there to hash
    assert not {name for name in set(sys.modules) - before if name.startswith("acme_heavy")}


def test_an_edited_installed_module_has_another_identity(install: Install, restart: Restart) -> None:
    install("acme-flat", CODE)
    first = Catalog.load(disabled="").identity("reward", "flat")
    restart()
    assert Catalog.load(disabled="").identity("reward", "flat") == first, "the same code, the same identity"
    install("acme-flat", CODE.replace("[1.0", "[-1.0"))
    restart()
    second = Catalog.load(disabled="").identity("reward", "flat")
    assert second["code"] != first["code"] and second | {"code": ""} == first | {"code": ""}


def test_a_raised_version_has_another_identity(install: Install, restart: Restart) -> None:
    install("acme-flat", CODE)
    first = Catalog.load(disabled="").identity("reward", "flat")
    install("acme-flat", CODE, version="1.1")
    restart()
    assert Catalog.load(disabled="").identity("reward", "flat") == first | {"version": "1.1"}


def test_an_edited_helper_of_an_editable_package_has_another_identity(
    site: Path, install: Install, restart: Restart, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As an editable install leaves it: the package elsewhere, on the path through a .pth file."""
    home = tmp_path_factory.mktemp("checkout")
    package = home / "acme_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "helper.py").write_text("SIGN = 1.0\n", encoding="utf-8")
    (package / "part.py").write_text("from acme_package.helper import SIGN\n", encoding="utf-8")
    (package / "notes.txt").write_text("not code", encoding="utf-8")
    install("acme-editable", CODE.replace("__name__ + ", "").replace('":Flat"', '"acme_package.part:Flat"'))
    sys.path.append(str(home))
    try:
        restart()
        first = Catalog.load(disabled="").identity("reward", "flat")
        (package / "notes.txt").write_text("still not code", encoding="utf-8")
        restart()
        assert Catalog.load(disabled="").identity("reward", "flat") == first
        (package / "helper.py").write_text("SIGN = -1.0\n", encoding="utf-8")
        restart()
        assert Catalog.load(disabled="").identity("reward", "flat")["code"] != first["code"]
    finally:
        sys.path.remove(str(home))


def test_a_plugin_file_is_its_content_wherever_it_is(tmp_path: Path, restart: Restart) -> None:
    files = [tmp_path / folder / "my_identity_part.py" for folder in ("one", "two")]
    for file in files:
        file.parent.mkdir()
        file.write_text(CODE.replace("\n    ", "\n"), encoding="utf-8")
    found = []
    for file in files:
        found.append(Catalog.load([file], disabled="").identity("reward", "flat"))
        restart()
    assert found[0] == found[1]
    assert (found[0]["distribution"], found[0]["version"]) == ("my_identity_part.py", "")
    files[0].write_text(files[0].read_text(encoding="utf-8").replace("[1.0", "[-1.0"), encoding="utf-8")
    edited = Catalog.load([files[0]], disabled="").identity("reward", "flat")
    restart()
    assert edited["code"] != found[0]["code"]


def test_a_process_keeps_naming_the_code_that_it_imported(install: Install) -> None:
    install("acme-flat", CODE)
    catalog = Catalog.load(disabled="")
    part = catalog.build("reward", "flat", {})
    install("acme-flat", CODE.replace("[1.0", "[-1.0"))
    assert type(part) is type(catalog.build("reward", "flat", {}))
    before = catalog.identity("reward", "flat")
    code_hash.cache_clear()
    assert before["code"] != catalog.identity("reward", "flat")["code"]


def test_distributions_that_share_a_namespace_package_have_their_own_code(
    site: Path, install: Install, restart: Restart
) -> None:
    for name in ("one", "two"):
        (site / "acme_space" / name).mkdir(parents=True)
        (site / "acme_space" / name / "__init__.py").write_text(f"NAME = '{name}'\n", encoding="utf-8")
        target = f'"acme_space.{name}:Flat"'
        install(f"acme-{name}", CODE.replace('__name__ + ":Flat"', target).replace('"flat"', f'"{name}"'))
    first = {name: Catalog.load(disabled="").identity("reward", name)["code"] for name in ("one", "two")}
    shutil.rmtree(site / "acme_space" / "two")
    restart()
    assert first["one"] and first["two"] and first["one"] != first["two"]
    assert Catalog.load(disabled="").identity("reward", "one")["code"] == first["one"]


def _code_of_flat(restart: Restart) -> str:
    restart()
    return Catalog.load(disabled="").identity("reward", "flat")["code"]


def test_all_files_that_a_distribution_installed_are_its_code(site: Path, install: Install, restart: Restart) -> None:
    install("acme-flat", CODE)
    for name in ("acme_beside", "acme_stranger"):
        (site / f"{name}.py").write_text("ONE = 1\n", encoding="utf-8")
    (site / "acme_flat-1.0.dist-info" / "RECORD").write_text("acme_flat.py,,\nacme_beside.py,,\n", encoding="utf-8")
    first = _code_of_flat(restart)
    (site / "acme_stranger.py").write_text("ONE = 2\n", encoding="utf-8")
    assert _code_of_flat(restart) == first
    (site / "acme_beside.py").write_text("ONE = 2\n", encoding="utf-8")
    assert _code_of_flat(restart) != first


def test_what_an_editable_part_imports_of_its_project_is_its_code(
    site: Path, install: Install, restart: Restart, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pip leaves it: the project's folder is on the path, and the metadata says where it is."""
    project = site / "project"
    environment = project / ".venv" / "lib" / "site-packages"
    environment.mkdir(parents=True)
    modules = {project / f"acme_{name}.py": 1 for name in ("helper", "network", "stranger")}
    modules[environment / "acme_library.py"] = 1
    for file in modules:
        file.write_text("ONE = 1\n", encoding="utf-8")
    more = "    import acme_helper, acme_library\n    network = 'acme_network:Network'\n"
    (project / "acme_part.py").write_text(more.replace("    ", ""), encoding="utf-8")
    install("acme-flat", CODE.replace("__name__ + ", "").replace('":Flat"', '"acme_part:Flat"'))
    url = {"url": project.as_uri(), "dir_info": {"editable": True}}
    (site / "acme_flat-1.0.dist-info" / "direct_url.json").write_text(json.dumps(url), encoding="utf-8")
    for folder in (project, environment):
        monkeypatch.syspath_prepend(str(folder))
    known = _code_of_flat(restart)
    for name, is_other in (("helper", True), ("network", True), ("stranger", False), ("library", False)):
        [file] = [file for file in modules if file.stem == f"acme_{name}"]
        file.write_text("ONE = 2\n", encoding="utf-8")
        found = _code_of_flat(restart)
        assert (found != known) == is_other, name
        known = found


def test_what_a_plugin_file_imports_from_its_folder_is_its_code(site: Path, restart: Restart) -> None:
    file, helper = site / "my_helped_part.py", site / "my_helper_of_parts.py"
    file.write_text("import my_helper_of_parts\n" + CODE.replace("\n    ", "\n"), encoding="utf-8")
    helper.write_text("ONE = 1\n", encoding="utf-8")
    first = Catalog.load([file], disabled="").identity("reward", "flat")["code"]
    restart()
    helper.write_text("ONE = 2\n", encoding="utf-8")
    assert Catalog.load([file], disabled="").identity("reward", "flat")["code"] != first
