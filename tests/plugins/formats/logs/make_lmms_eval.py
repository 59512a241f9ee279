"""Makes the logs of lmms-eval in this folder: `python make_lmms_eval.py` where lmms_eval 0.7.3 is installed.

Its evaluator scores twelve answers about pictures of three colors and its tracker writes them; only the task and the
model stand in for real ones. One metric is a number, one an object with a `score`, as of tasks that score in groups.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

from lmms_eval.api.instance import Instance
from lmms_eval.evaluator import _process_document_results
from lmms_eval.loggers.evaluation_tracker import EvaluationTracker
from lmms_eval.utils import get_lmms_eval_version_string
from PIL import Image

HERE = Path(__file__).parent
COLORS = ("red", "green", "blue")
WRONG = {"base": {1, 4, 5, 7}, "new": {5}}
TIMES = {"base": "20261128_120000", "new": "20261128_130000"}


class Colors:
    """Which color is the picture?"""

    config = SimpleNamespace(repeats=1)

    def process_results(self, doc, results):
        right = float(results[0].strip().rstrip(".") == doc["answer"])
        return {
            "exact_match": right,
            "color_accuracy": {"question_id": doc["question_id"], "score": right, "category": doc["answer"]},
            "submission": {"question_id": doc["question_id"], "answer": results[0]},
        }

    def doc_to_target(self, doc):
        return doc["answer"]


def main() -> None:
    task = Colors()
    for name, wrong in WRONG.items():
        samples = []
        for i in range(12):
            answer = COLORS[i % 3]
            doc = {"question_id": 700 + i, "question": "Which color is it?", "answer": answer,
                   "image": Image.new("RGB", (8, 8), answer)}  # fmt: skip
            prompt = "Which color is it?\nAnswer with one word."
            arguments = (prompt, {"max_new_tokens": 4}, lambda doc: [doc["image"]], i, "colors", "test")
            request = Instance("generate_until", arguments, 0, {"task": "colors", "doc_id": i, "repeats": 1})
            request.resps = [COLORS[(i + (i in wrong)) % 3] + "."]
            request.filtered_resps = {"none": request.resps[0]}
            found = _process_document_results(
                (i, doc, [request]), task=task, filter_key="none", reasoning_tags=None, log_samples=True
            )
            samples.append(found.logged_sample)
        with TemporaryDirectory() as scratch:
            tracker = EvaluationTracker(output_path=scratch)
            tracker.general_config_tracker.log_experiment_args("stub", f"pretrained=acme/eye-{name}", "", "", False)
            results = {
                "results": {"colors": {"exact_match,none": 1 - len(wrong) / 12}}, "versions": {"colors": "1.0"},
                "n-shot": {"colors": 0}, "higher_is_better": {"colors": {"exact_match": True}},
                "lmms_eval_version": get_lmms_eval_version_string(),
            }  # fmt: skip
            tracker.save_results_aggregated(results, {"colors": samples}, TIMES[name])
            tracker.save_results_samples("colors", samples)
            for made in Path(scratch).rglob("*.json*"):
                made.replace(HERE / "lmms_eval" / made.name)


if __name__ == "__main__":
    (HERE / "lmms_eval").mkdir(exist_ok=True)
    main()
