"""Nobody in: a checkpoint's code and pickles are not run, and a hub that does not answer is not waited for."""

from __future__ import annotations

import json
import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from leverplus_core import CheckpointError, DataError, load_model, load_pretrained, pretrained
from leverplus_core.selector.feature_set import FeatureSet
from leverplus_core.training import trainer

GPT2 = {"model_type": "gpt2", "n_embd": 4, "n_layer": 1, "n_head": 1, "vocab_size": 8, "n_positions": 8}


class Bomb:
    """A pickle of it makes a file where it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "executed"


def test_the_bomb_of_these_tests_goes_off_where_pickles_are_run(mark: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()


def test_pickled_weights_that_hold_code_are_refused_in_one_line(tmp_path: Path, mark: Path) -> None:
    from transformers import GPT2LMHeadModel

    (tmp_path / "config.json").write_text(json.dumps(GPT2), encoding="utf-8")
    torch.save({"wte.weight": Bomb(mark)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="its weights are a pickle that holds more than tensors, and is not run"):
        load_model(GPT2LMHeadModel, str(tmp_path))
    assert not mark.exists()


def test_code_that_a_checkpoint_brings_is_not_run(tmp_path: Path, mark: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    code = f"import os\nos.mkdir({str(mark)!r})\nclass Own: pass\n"
    (tmp_path / "own.py").write_text(code, encoding="utf-8")
    own = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "own.Own") | {"AutoTokenizer": ["own.Own", None]}
    for kind in ("unheard_of", "gpt2"):
        config = json.dumps({**GPT2, "model_type": kind, "auto_map": own})
        for name in ("config.json", "tokenizer_config.json"):
            (tmp_path / name).write_text(config, encoding="utf-8")
        for cls in (AutoConfig, AutoTokenizer, AutoModelForCausalLM):
            try:
                load = load_model if cls is AutoModelForCausalLM else load_pretrained
                load(cls, str(tmp_path))
            except CheckpointError as error:
                assert "\n" not in str(error)
            assert not mark.exists(), (kind, cls)


def test_arrays_and_the_state_of_a_training_are_read_without_running_a_pickle(tmp_path: Path, mark: Path) -> None:
    features, state = tmp_path / "features.npz", tmp_path / "state.pt"
    np.savez(features, ids=np.array([Bomb(mark)], dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        FeatureSet.read(features)
    torch.save({"identity": Bomb(mark)}, state)
    for _ in ("as torch writes it", "a bare pickle"):
        with pytest.raises(CheckpointError, match=r"state\.pt is damaged \(UnpicklingError\)"):
            trainer._load(state, "x", torch.nn.Linear(1, 1), None, None)  # type: ignore[arg-type]
        state.write_bytes(pickle.dumps(Bomb(mark), protocol=2))
    assert not mark.exists()


# Off the network.


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """A machine without downloaded checkpoints, whose hub is at an address that a test gives."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    pretrained._answers.cache_clear()
    yield monkeypatch
    pretrained._answers.cache_clear()


def refusal(hub: pytest.MonkeyPatch, address: str) -> str:
    from huggingface_hub import constants
    from transformers import AutoConfig

    hub.setattr(constants, "ENDPOINT", address)
    began = time.monotonic()
    with pytest.raises(CheckpointError) as refused:
        load_pretrained(AutoConfig, "some/model")
    assert time.monotonic() - began < pretrained.HUB_WAIT + 5, "a minute, where the libraries try again and again"
    return str(refused.value)


def test_a_hub_that_cannot_be_reached_is_said_at_once(
    hub: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    told = refusal(hub, "http://127.0.0.1:1")
    assert told.startswith(
        "'some/model' is no folder here and was not downloaded, and http://127.0.0.1:1 does not answer. "
        "Run `hf download some/model` where the network is and copy the folder, or name one that has config.json"
    )
    assert capfd.readouterr() == ("", "")
    with pytest.raises(CheckpointError, match="'some/model' is no folder here"):
        pretrained.Pretrained(path="some/model", device="cpu").check_machine()


def test_a_hub_that_says_nothing_is_waited_for_once(hub: pytest.MonkeyPatch) -> None:
    hub.setattr(pretrained, "HUB_WAIT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert "does not answer" in refusal(hub, address)
        silent.setblocking(False)
        silent.accept()[0].close()
        assert "does not answer" in refusal(hub, address)
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_offline_by_wish_asks_nobody(hub: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    hub.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refusal(hub, "http://127.0.0.1:1")


def test_what_was_downloaded_is_read_without_the_network(hub: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants
    from transformers import AutoConfig

    hub.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    folder = tmp_path / "hub" / "models--some--model"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc", encoding="utf-8")
    (folder / "snapshots" / "abc" / "config.json").write_text(json.dumps(GPT2), encoding="utf-8")
    assert load_pretrained(AutoConfig, "some/model").n_embd == 4


def test_any_answer_of_a_server_is_one(hub: pytest.MonkeyPatch) -> None:
    class NotHere(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), NotHere) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert pretrained._answers(f"http://127.0.0.1:{server.server_port}")
    assert not pretrained._answers("no address")
