"""Makes the logs of lm-eval in this folder: `python make_lm_eval.py` where lm_eval 0.4.13 is installed.

Two models without weights answer twelve sums, with two examples in the prompt. Of the answers two filters are made, so
each document has two rows. `base` answers all twelve, `new` the first ten (`--limit`), `changed` others of these ids.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ |= {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}

from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

HERE = Path(__file__).parent
WRONG = {"base": {1, 4, 7, 9, 11}, "new": {4, 9}, "changed": set[int]()}
FILES = {name: HERE / f"lm_eval_{name}" for name in WRONG}


class Sums(LM):
    """Answers `the sum is N`, wrongly for some N, and 3 with nothing around it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def generate_until(self, requests, disable_tqdm=False):
        found = []
        for request in requests:
            number = int(request.args[0].rpartition("is ")[2].partition(" ")[0])
            total = 2 * number + (number in WRONG[self.name])
            found.append(str(total) if number == 3 else f"the sum is {total}")
        return found

    def loglikelihood(self, requests, disable_tqdm=False):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


def main() -> None:
    for name, folder in FILES.items():
        with TemporaryDirectory() as scratch:
            shift = 100 if name == "changed" else 0
            for split, numbers in (("train", range(20, 24)), ("test", range(shift, shift + 12))):
                rows = [{"question": f"What is {i} + {i}?", "total": str(2 * i)} for i in numbers]
                (Path(scratch) / f"{split}.json").write_text("\n".join(map(json.dumps, rows)))
            task = {
                "task": "sums", "dataset_path": "json", "output_type": "generate_until", "num_fewshot": 2,
                "dataset_kwargs": {"data_files": {s: f"{scratch}/{s}.json" for s in ("train", "test")}},
                "fewshot_split": "train", "test_split": "test", "doc_to_text": "{{question}}", "doc_to_target": "total",
                "generation_kwargs": {"until": ["\n"]}, "metadata": {"version": 1.0},
                "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
                "filter_list": [
                    {"name": "number", "filter": [
                        {"function": "regex", "regex_pattern": r"(\d+)$"}, {"function": "take_first"}]},
                    {"name": "strict", "filter": [{"function": "take_first"}]},
                ],
            }  # fmt: skip
            tracker = EvaluationTracker(output_path=str(Path(scratch) / "out"))
            tracker.general_config_tracker.log_experiment_args(
                "sums", f"pretrained=acme/sums-{name}", None, None, False
            )
            results = simple_evaluate(
                Sums(name), tasks=[task], limit=10 if name == "new" else None, task_manager=TaskManager(),
                evaluation_tracker=None, bootstrap_iters=0,
            )  # fmt: skip
            samples = results.pop("samples")
            kept = ("lm_eval_version", "versions", "n-shot", "higher_is_better", "results", "n-samples", "config")
            tracker.save_results_aggregated({key: results[key] for key in kept}, samples)
            tracker.save_results_samples("sums", samples["sums"])
            folder.mkdir(exist_ok=True)
            for old in folder.iterdir():
                old.unlink()
            for made in (Path(scratch) / "out").rglob("*.json*"):
                made.rename(folder / made.name)


if __name__ == "__main__":
    main()
