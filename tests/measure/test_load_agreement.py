"""Does the load generator find what an independent one finds? Against `vllm bench serve`, on the same server, in turn.

Short runs of the two follow each other (A B, B A, …), so that a machine that drifts drifts under both. Equal in both: prompts
(never the same text twice, so that no cache helps), token counts, arrivals, connections that are kept. Each pair of neighbours gives
a ratio; the median ratio of TTFT, TPOT and throughput must be within 5 % of 1. The two define a first token alike (the first piece of
the stream) and take counts from the server's usage; vLLM counts a closing piece without text as the end of the last token, which
an echo server sends at the same moment.
"""

import json
import os
import statistics
import subprocess
from pathlib import Path

import pytest

from labkit import models, servers
from labkit.measure import clock, load
from labkit.measure.load import Plan
from labkit.servers import echo, runtimes
from labkit.servers.runtimes.vllm import QUIET

pytestmark = pytest.mark.alone
WITHIN = 0.05
FIGURES = ("ttft_s", "tpot_s", "tokens_per_s")


def each(answers, prompt_tokens, output_tokens):
    """Tokens of one answer: their client ends a request without an answer now and then (why, is not known), and counts it in no figure."""
    assert answers > 0
    return prompt_tokens / answers, output_tokens / answers


class Bench:
    """The other load generator, waiting for work."""

    def __init__(self, folder):
        python = runtimes.open("vllm").require().path.with_name("python")
        self.folder, self.log = folder, folder / "bench.log"
        words = [python, Path(__file__).with_name("vllm_bench.py")]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | QUIET, cwd=folder
            )
        self.answer()

    def answer(self):
        said = []
        for line in self.process.stdout:
            said.append(line)
            if line.startswith("RESULT"):
                return json.loads(line.removeprefix("RESULT"))
        raise AssertionError("".join(said[-20:]) + self.log.read_text()[-2000:])

    def run(self, url, model, plan, nonce):
        prompts = self.folder / "prompts.jsonl"
        texts = plan.texts(nonce)
        prompts.write_text("".join(json.dumps({"prompt": next(texts)}) + "\n" for _ in range(plan.requests)))
        extra = {"temperature": plan.temperature}
        route = (
            {"backend": "openai-chat", "endpoint": "/v1/chat/completions"}
            if plan.chat
            else {"backend": "openai", "endpoint": "/v1/completions"}
        )
        how = {"base-url": url.removesuffix("/v1"), "model": model, **route}
        how |= {"dataset-name": "custom", "dataset-path": prompts, "custom-output-len": plan.output_tokens}
        how |= {"num-prompts": plan.requests, "extra-body": json.dumps(extra)}
        how |= {"max-concurrency": plan.concurrency} if plan.concurrency else {"request-rate": plan.rate, "burstiness": "inf"}
        words = [word for name, value in how.items() for word in (f"--{name}", str(value))]
        words += ["--skip-tokenizer-init", "--skip-chat-template", "--disable-tqdm", "--disable-shuffle", "--ready-check-timeout-sec", "0"]
        self.process.stdin.write(json.dumps([*words, "--ignore-eos"] if plan.ignore_eos else words) + "\n")
        self.process.stdin.flush()
        found = self.answer()
        return {
            "ttft_s": found["median_ttft_ms"] / 1e3,
            "tpot_s": found["median_tpot_ms"] / 1e3,
            "tokens_per_s": found["output_throughput"],
            "counts": each(found["completed"], found["total_input"], found["total_output"]),
        }

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(60)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    made = Bench(tmp_path_factory.mktemp("bench"))
    yield made
    made.close()


def ours(url, model, plan):
    found = load.summarize(load.run(url, model, plan), plan)
    assert found.ok == plan.requests, found
    counts = each(found.ok, found.prompt_tokens, found.output_tokens)
    return {"ttft_s": found.ttft_s.p50, "tpot_s": found.tpot_s.p50, "tokens_per_s": found.tokens_per_s, "counts": counts}


def compare(bench, url, model, plan, rounds):
    """Median ratio of each figure, ours over theirs, over the rounds; with what both found."""
    nonces = iter(range(10_000))
    found = clock.ab(
        {"ours": lambda: ours(url, model, plan), "theirs": lambda: bench.run(url, model, plan, f"theirs{next(nonces)}")}, repeats=rounds
    )
    assert {row["counts"] for side in found.values() for row in side} == {found["ours"][0]["counts"]}, found
    return {key: statistics.median(a[key] / b[key] for a, b in zip(found["ours"], found["theirs"], strict=True)) for key in FIGURES}, found


# their duration begins a gap before the first request, ours with it: with 60 of them that is less than 2 %
ARRIVALS = {"open": {"rate": 10, "arrivals": "constant", "requests": 60}, "closed": {"concurrency": 2, "requests": 16}}


@pytest.mark.parametrize("arrivals", ARRIVALS)
def test_the_two_agree_on_a_server_of_known_times(bench, arrivals):
    plan = Plan(**ARRIVALS[arrivals], prompt_tokens=20, output_tokens=8, chat=False, warmup=0)
    # times that are long beside what either client costs a processor that others use too: it is the measuring that is compared
    with echo.start(ttft_s=0.5, tpot_s=0.05) as running:
        ratios, found = compare(bench, running.base_url, "echo", plan, rounds=2)
    assert all(abs(ratio - 1) < WITHIN for ratio in ratios.values()), (ratios, found)


def test_the_two_agree_on_a_real_model(bench, cache):
    # as messages: llama.cpp's usage for plain text stands in a piece with a choice, where vLLM's client does not look
    # short runs, many of them: a processor's speed drifts by more than 5 % from one second to the next
    # a model of some 10 ms a token: of the smallest one's 0.7 ms, what a client costs is more than 5 %
    model = models.resolve("smollm2-135m")
    plan = Plan(concurrency=1, requests=3, prompt_tokens=60, output_tokens=16, ignore_eos=True, warmup=0)
    with servers.open("llama_server").start(model, context=512, parallel=1, threads=1, cache_prompt=False) as running:
        ratios, found = compare(bench, running.base_url, model.name, plan, rounds=12)
    assert all(abs(ratio - 1) < WITHIN for ratio in ratios.values()), (ratios, found)
