"""Makes the logs of inspect in this folder: `python make_inspect.py` where inspect_ai 0.3.285 is installed.

Two mock models, mockllm/base and mockllm/new, answer twelve sums in two epochs. One scorer gives C or I, the other
several values, one of which it cannot always tell. Times, ids and hosts differ from one call to the next; scores and
texts do not.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log, write_eval_log
from inspect_ai.model import ChatMessageUser, ContentText, ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import Score, match, mean, scorer
from inspect_ai.solver import generate

HERE = Path(__file__).parent
SAMPLES = [
    Sample(id=f"sum-{i}", target=str(2 * i), input=[ChatMessageUser(content=[ContentText(text=f"What is {i} + {i}?")])])
    for i in range(12)
]


@scorer(metrics={"close": [mean()], "brief": [mean()]})
def distance():
    async def score(state, target):
        text = state.output.completion
        if text == "no idea":
            return Score.unscored(reason="refusal", answer=text)
        off = abs(int(text) - int(target.text))
        return Score(value={"close": max(0.0, 1 - off / 10), "brief": len(text) < 2}, answer=text)

    return score


def answers(wrong: set[tuple[int, int]], silent: set[int]):
    """An answer for each question in each epoch, in the order in which they are asked: epoch by epoch."""
    for epoch in (1, 2):
        for i in range(12):
            text = "no idea" if i in silent else str(2 * i + ((i, epoch) in wrong))
            output = ModelOutput.from_content("mockllm", text)
            output.usage = ModelUsage(input_tokens=9, output_tokens=1, total_tokens=10)  # else it downloads
            yield output


def main() -> None:
    wrong = {"base": {(1, 1), (1, 2), (4, 1), (7, 2), (9, 1), (9, 2)}, "new": {(4, 2), (9, 1)}}
    with TemporaryDirectory() as folder:
        for name, silent in (("base", {11}), ("new", set())):
            model = get_model(f"mockllm/{name}", custom_outputs=answers(wrong[name], silent), memoize=False)
            task = Task(name="sums", dataset=SAMPLES, solver=generate(), scorer=[match(), distance()], epochs=2)
            (log,) = eval(task, model=model, log_dir=folder, max_samples=1, max_connections=1, display="none")
            assert log.status == "success", log.error
            shutil.copy(log.location.removeprefix("file://"), HERE / f"inspect_mockllm_{name}.eval")
        log = read_eval_log(str(HERE / "inspect_mockllm_new.eval"))
        for sample in log.samples or []:
            sample.events = []  # most of the file, and not read
        write_eval_log(log, str(HERE / "inspect_mockllm_new.json"))


if __name__ == "__main__":
    main()
