"""What lab 12 says and draws; the exercises' hints on many seeds; a step whose server is killed, and the same step again."""

import os
import signal

import psutil
import pytest

from labkit import models
from labkit.core.errors import BadInput, RunFailed
from labkit.core.records import Marks, Measurement
from labkit.facts import comparison
from labkit.learn import versus_plots, versus_view
from labkit.measure import versus
from labkit.servers.base import Running

ENGINES = ("llamacpp", "ollama", "ortgenai", "foundry")


def figure(engine, milliseconds, http=False):
    row = {"engine": engine, "includes_http": http, "repeats": 5, "same_text": 1.0}
    for key, value in (("ttft_s", 0.01 * milliseconds), ("tpot_s", 0.001 * milliseconds), ("decode_tokens_per_s", 1000 / milliseconds)):
        row |= {key: value, f"{key}_low": 0.95 * value, f"{key}_high": 1.05 * value}
    return row | {"prefill_tokens_per_s": 3000 / milliseconds}


FIGURES = [figure("llamacpp", 20), figure("ollama", 20.5, True), figure("ortgenai", 14), figure("foundry", 14.2, True)]
COLD = [
    {
        "engine": name,
        "includes_http": http,
        "ready_s": s,
        "again_s": s / 2,
        "first_token_s": s + 0.2,
        "memory_bytes": mb * 10**6,
        "processes": n,
    }
    for name, http, s, mb, n in (
        ("llamacpp", False, 0.3, 140, 1),
        ("ollama", True, 1.2, 220, 3),
        ("ortgenai", False, 0.5, 210, 1),
        ("foundry", True, 2.5, 290, 2),
    )
]
MANY = [
    {
        "engine": name,
        "parallel": level,
        "sessions": level if http else 1,
        "tokens_per_s": rate * (1.5 if http and level > 1 else 1),
        "ttft_s_max": 0.2 * level,
    }
    for name, http, rate in (("llamacpp", False, 40), ("ollama", True, 38), ("ortgenai", False, 60), ("foundry", True, 58))
    for level in (1, 4)
]
QUALITY = [
    {"name": name, "format": form, "bytes": size, "kl_mean": kl, "kl_stderr": kl / 20, "perplexity": 30.0, "reference": "m-F16"}
    for name, form, size, kl in (("Q4_1", "gguf", 98e6, 0.003), ("Q4_0", "gguf", 91e6, 0.25), ("ONNX int4", "onnx-genai", 203e6, 0.36))
]
OPTIONS = versus_view.options(FIGURES, COLD, MANY)


def test_the_careless_template_is_refused_with_its_place():
    ring, prompt = versus_view.careless_ring("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    with pytest.raises(BadInput, match="careless's prompt differs from byte 52"):
        versus.check_text(ring, [prompt])


def test_fairness_is_read_from_the_records():
    def record(engine, turn, http):
        settings = {"turn": turn, "includes_http": http, "takes": "prompt" if http else "tokens"}
        return Measurement(model="m", engine=engine, prompt_tokens=10, output_tokens=4, marks_ns=Marks(start=0), settings=settings)

    rows = versus_view.fairness_rows(
        [record("llamacpp", 0, False), record("ollama", 1, True), record("ollama", 2, True), record("llamacpp", 3, False)]
    )
    assert [row["turns"] for row in rows] == ["0 3", "1 2"]
    assert [row["prompt tokens"] for row in rows] == [20, 20]
    assert [row["HTTP in its times"] for row in rows] == [False, True]


def test_words_about_the_fastest():
    said = versus_view.told_latency(FIGURES, "ollama", 2.0)
    assert "Shortest time per token: ONNX Runtime GenAI, 14 ms." in said
    assert "Not to be told from it here: Foundry Local." in said
    assert any("Ollama takes 1.5 times as long; your guess was 2." in line for line in said)
    assert "does not agree" in said[-1]
    assert "agrees with that" in versus_view.told_latency(FIGURES, "foundry", 2.0)[-1], "a tie is no wrong guess"
    assert "Foundry Local takes the most memory: 290 MB in 2" in versus_view.told_largest(COLD, "ollama")


def test_options_put_all_figures_of_an_engine_together():
    assert [row["engine"] for row in OPTIONS] == list(ENGINES)
    assert [row["most_tokens_per_s"] for row in OPTIONS] == [40, 57, 60, 87]
    assert [row["one_tokens_per_s"] for row in OPTIONS] == [40, 38, 60, 58]
    assert versus_view.options(FIGURES[:1], [], [])[0]["memory_bytes"] is None


def test_the_decision_table_is_held_against_the_figures():
    best = dict(zip(versus_view.NEEDS, ("foundry", "ortgenai", "llamacpp", "foundry", "llamacpp"), strict=True))
    for row in versus_view.judge(best, OPTIONS):
        assert row["verdict"].startswith("the figures agree"), row
    worst = dict(zip(versus_view.NEEDS, ("ollama", "ollama", "foundry", "ollama", "foundry"), strict=True))
    assert all("the figures disagree" in row["verdict"] for row in versus_view.judge(worst, OPTIONS))
    (shared,) = versus_view.judge({"many people at once on one machine": "ortgenai"}, OPTIONS)
    assert "inside one program" in shared["verdict"]
    (unknown,) = versus_view.judge({"a machine with little memory": "ollama"}, versus_view.options(FIGURES, [], []))
    assert unknown["verdict"] == "not decided here"


@pytest.mark.parametrize(
    ("choices", "words"), [({"a boat": "ollama"}, "no situation"), ({"a machine with little memory": "vllm"}, "not measured")]
)
def test_a_choice_that_is_none_is_refused(choices, words):
    with pytest.raises(BadInput, match=words):
        versus_view.judge(choices, OPTIONS)


def test_copies_for_people():
    row = OPTIONS[0]  # 40 tokens/s at most, 140 MB
    assert versus_view.deployment(row, 4, 10)["how"] == "one local process"
    several = versus_view.deployment(row, 10, 10)
    assert (several["copies"], several["how"], several["memory_bytes"]) == (3, "3 copies", 3 * 140e6)
    assert versus_view.deployment(row, 1, 60)["how"] == "too slow for one"


def test_the_plots_show_every_row():
    latency = versus_plots.draw_latency(FIGURES, "ollama", "caption")
    assert [len(ax.containers) for ax in latency.axes] == [4, 4]
    assert sum(text.get_text() == "your guess" for ax in latency.axes for text in ax.texts) == 2
    parallel = versus_plots.draw_parallel(MANY, "caption")
    assert [line.get_linestyle() for line in parallel.axes[0].lines] == ["--", "-", "--", "-"]
    started = versus_plots.draw_start(COLD, "caption")
    assert [len(ax.patches) for ax in started.axes] == [12, 4]
    ends = [bar.get_x() + bar.get_width() for bar in started.axes[0].patches[4:8]]
    assert ends == pytest.approx([row["first_token_s"] for row in COLD]), "the figure by which the verdict is given"
    slow = versus_plots.draw_latency([figure("llamacpp", 103)], "ollama", "caption")
    assert "1030" in [text.get_text() for text in slow.axes[0].texts]
    assert len(versus_plots.draw_quality(QUALITY, "caption").axes[0].containers) == 3
    copies = versus_plots.draw_copies(OPTIONS, 10, 10, 0.5, "measured")
    assert copies.axes[0].patches[0].get_hatch() == ""
    assert versus_plots.draw_copies(OPTIONS, 10, 10, 0.3, "measured").axes[0].patches[0].get_hatch() == "xx"
    assert "computed" in copies.texts[0].get_text()


def test_the_feature_table_as_it_is_shown():
    rows = versus_view.table_words(comparison.table({}))
    assert len(rows) == 15
    assert set(rows[0]) == {"aspect", "Ollama …", "Ollama: here", "Foundry Local …", "Foundry Local: here"}


# -- nothing stays behind


def contest(engines=("llamacpp", "ollama")):
    return versus_view.Contest(models.resolve("smollm2-135m"), list(engines), 1, 1, quick=True)


@pytest.fixture
def started(monkeypatch):
    """The pids of the servers that are started meanwhile."""
    pids, inner = [], Running.__init__

    def note(self, server, process, *rest):
        pids.append(process.pid)
        inner(self, server, process, *rest)

    monkeypatch.setattr(Running, "__init__", note)
    return pids


def test_a_step_whose_server_is_killed_says_one_sentence_and_runs_again(started, monkeypatch):
    inner = versus.compare

    def killed(ring, *rest, **more):
        os.kill(started[-1], signal.SIGKILL)
        return inner(ring, *rest, **more)

    monkeypatch.setattr(versus, "compare", killed)
    with pytest.raises(RunFailed) as told:
        contest().compare()
    assert "\n" not in str(told.value)
    assert told.value.next
    monkeypatch.setattr(versus, "compare", inner)
    assert len(contest().compare()) == 4
    assert [psutil.pid_exists(pid) for pid in started] == [False, False]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_no_server_stays_after_ctrl_c_or_an_error(started, monkeypatch, error):
    def stop(*_, **__):
        raise error

    monkeypatch.setattr(versus, "compare", stop)
    with pytest.raises(error):
        contest(("llamacpp", "ollama", "foundry")).compare()
    assert len(started) == 2
    assert not any(psutil.pid_exists(pid) for pid in started)
