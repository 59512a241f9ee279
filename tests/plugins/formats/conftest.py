"""A Lever-Plus run in small, written by hand: rl-data, its beams, its embeddings."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RL_DATA: dict[str, Any] = {
    "_meta": {"version": "k64", "params": {"temps": [1.0, 1.3]}},
    "7": {
        "query": {"query_id": 7, "question_id": 70, "image_id": 1, "question": "这是什么?", "gt_answers_raw": ["猫"]},
        "candidate_pool_ids": [0, 3, 5],
        "pointer_candidates": [
            {
                "pointer": [2, 0],
                "pointer_global": [5, 0],
                "beam_score": None,
                "logprob_score": -2.5,
                "gen_method": "beam",
                "vqa_raw_generation": "猫. Question",
                "vqa_pred_answer": "猫",
                "vqa_correct": 1,
                "vqa_acc_score": 0.6,
                "vqa_gt_prob": 0.25,
                "vqa_rel_score": 1.0,
                "vqa_eval_mode": "vqaEval",
            },
            {
                "pointer": [0, 1],
                "gen_method": "random",
                "vqa_pred_answer": "dog",
                "vqa_correct": 1,
                "vqa_acc_score": 0.3,
            },
        ],
    },
    "3": {
        "candidate_pool_ids": [5, 7, 0],
        "pointer_candidates": [
            {"pointer": [1, 2], "gen_method": "beam", "vqa_pred_answer": "", "vqa_acc_score": 0, "vqa_gt_prob": 0.0},
        ],
    },
}
BEAMS: dict[str, Any] = {
    "7": {
        "beams": [
            {
                "shots": [{"id": 0, "score": 0.1}, {"id": 5, "score": 0.2}],
                "final_score": 0.3,
                "full_sequence": [5, 0, 7],
            },
            {
                "shots": [{"id": 3, "score": 0.1}, {"id": 0, "score": 0.4}],
                "final_score": 0.5,
                "full_sequence": [0, 3, 7],
            },
        ],
        "id_list": [[5, 0, 7], [0, 3, 7]],
        "score_list": [0.3, 0.5],
    },
    "2": {"id_list": [[0, 5, 2]], "score_list": [-1e-7]},
}

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def rl_data() -> dict[str, Any]:
    return copy.deepcopy(RL_DATA)


@pytest.fixture
def beams() -> dict[str, Any]:
    return copy.deepcopy(BEAMS)


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, object], Path]:
    """Write a value as JSON, or bytes as they are, to a file of `tmp_path`."""

    def write(name: str, value: object) -> Path:
        path = tmp_path / name
        path.write_bytes(value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode())
        return path

    return write
