"""A comparison of engines is fair, or it is refused: with sessions that only pretend, and with the real ones."""

import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest

from labkit import models
from labkit.core.errors import BadInput, RunFailed
from labkit.core.records import Chunk, Message, ModelRef, Usage
from labkit.measure import versus, versus_parallel, versus_quality, versus_start

TEXT = "<|im_start|>user\nHello {n}<|im_end|>\n<|im_start|>assistant\n"


def prompt(n):
    text = TEXT.format(n=n)
    return versus.Prompt((Message(role="user", content=f"Hello {n}"),), text, tuple(text.encode()))


class Pretender:
    """A session in which each byte is a token; `change` alters what it reads, `short` what it answers."""

    model = ModelRef(name="pretender", path=Path("/nowhere"), format="gguf")
    engine_name, engine_version, threads, load_s = "pretender", "1", 1, 0.0
    settings: ClassVar[dict] = {}

    def __init__(self, change=lambda text: text, short=0, extra=0, seconds=0.0):
        self.change, self.short, self.extra, self.seconds = change, short, extra, seconds
        self.asked = []
        self._usage = Usage()

    def detokenize(self, tokens, special=False):
        return self.change(bytes(tokens).decode())

    def chat_prompt(self, messages):
        return self.change(TEXT.format(n=messages[-1].content.split()[-1]))

    def stream(self, request):
        self.asked.append(request)
        given = request.tokens or self.change(request.prompt or self.chat_prompt(request.messages or ())).encode()
        count = request.max_tokens - self.short
        for number in range(count):
            time.sleep(self.seconds)
            yield Chunk("abcdefgh"[number % 8])
        self._usage = Usage(prompt_tokens=len(given) + self.extra, output_tokens=count, finish_reason="length")

    def usage(self):
        return self._usage

    def close(self):
        pass


def ring(**sessions):
    ways = {"tokens": versus.Way("tokens", False), "prompt": versus.Way("prompt", True), "messages": versus.Way("messages", True, "load")}
    given = {name: versus.Contender(name, session, ways[name.split("_")[0]]) for name, session in sessions.items()}
    return versus.Ring(given, None, {"threads": 1, "context": 512})


def test_the_order_is_interleaved_and_turns_round():
    found = versus.compare(
        ring(tokens=Pretender(), prompt=Pretender(), messages=Pretender()), [prompt(n) for n in range(5)], 4, progress=False
    )
    names = ["tokens", "prompt", "messages"]
    assert [m.engine for m in found] == [*names, *names[::-1], *names, *names[::-1]]
    assert [m.settings["turn"] for m in found] == list(range(12))
    assert [m.settings["round"] for m in found] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3, "round 0 is the warm-up"
    assert all(a.marks_ns.start < b.marks_ns.start for a, b in pairwise(found))


def test_each_is_asked_the_same_in_its_own_form_greedily():
    sessions = {"tokens": Pretender(), "prompt": Pretender(), "messages": Pretender()}
    some = [prompt(n) for n in range(3)]
    versus.compare(ring(**sessions), some, 4, progress=False)
    for number, one in enumerate(some):
        tokens, plain, messages = (session.asked[number] for session in sessions.values())
        assert tokens.tokens == tuple(plain.prompt.encode()) == one.tokens
        assert messages.messages == one.messages
        assert {(r.temperature, r.max_tokens, r.top_p) for r in (tokens, plain, messages)} == {(0.0, 4, 1.0)}
        assert [r.ignore_eos for r in (tokens, plain, messages)] == [True, True, False]


def test_the_records_say_what_is_in_their_numbers():
    found = versus.compare(ring(tokens=Pretender(), prompt=Pretender()), [prompt(n) for n in range(3)], 4, progress=False)
    assert {m.engine: m.settings["includes_http"] for m in found} == {"tokens": False, "prompt": True}
    assert {m.settings["shared_tokens"] for m in found} == {len("<|im_start|>user\nHello ")}
    rows = versus.figures(found)
    assert [row["repeats"] for row in rows] == [2, 2]
    assert all(row["ttft_s_low"] <= row["ttft_s"] <= row["ttft_s_high"] for row in rows)
    assert all(row["same_text"] is None for row in rows), "there is no llama.cpp to hold it against"


@pytest.mark.parametrize(
    ("sessions", "words"),
    [
        (
            {"tokens": Pretender(), "messages": Pretender(change=lambda t: t + " ")},
            r"messages's prompt differs from byte 57 on: b' ' instead",
        ),
        ({"tokens": Pretender(change=lambda t: t.replace("user", "User")), "prompt": Pretender()}, r"differs from byte 12 on: b'User"),
        ({"tokens": Pretender(), "prompt": Pretender(extra=1)}, r"has 57 tokens, and prompt counts 58"),
        ({"tokens": Pretender(), "prompt": Pretender(short=1)}, r"prompt gave 3 tokens of 4"),
    ],
)
def test_a_difference_is_refused_and_named(sessions, words):
    with pytest.raises(BadInput, match=words):
        versus.compare(ring(**sessions), [prompt(n) for n in range(2)], 4, progress=False)


def test_an_engine_that_does_not_say_what_it_reads_is_refused():
    silent = Pretender()
    silent.chat_prompt = None
    with pytest.raises(BadInput, match="does not say what text"):
        versus.check_text(ring(messages=silent), [prompt(1)])


def test_a_folder_with_another_template_is_refused(tmp_path):
    session = Pretender()
    session.chat_prompt, session.model = None, ModelRef(name="m", path=tmp_path, format="onnx-genai")
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{{ '<|im_start|>assistant\\n' }}"
    (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
    assert versus.check_text(ring(messages=session), [prompt(1)])[0]["takes"] == "messages"
    (tmp_path / "chat_template.jinja").write_text(template + " ", encoding="utf-8")
    with pytest.raises(BadInput, match="differs from byte"):
        versus.check_text(ring(messages=session), [prompt(1)])


@pytest.mark.parametrize(("a", "b", "at"), [(b"abc", b"abc", None), (b"abc", b"abd", 2), (b"ab", b"abc", 2), (b"", b"a", 0)])
def test_the_first_difference(a, b, at):
    assert versus.first_difference(a, b) == versus.first_difference(b, a) == at


def test_text_is_held_against_that_of_llama_cpp_round_by_round():
    found = versus.compare(ring(tokens=Pretender(), prompt=Pretender()), [prompt(n) for n in range(3)], 4, progress=False)
    changes = {"prompt": {"text": "abXd"}, "tokens": {"engine": "llamacpp"}}
    other = [m.model_copy(update=changes[m.engine]) for m in found]
    assert [row["same_text"] for row in versus.figures(other)] == [1.0, 0.5]


def test_names_are_given_once():
    for names in ([], ["llamacpp", "llamacpp"]):
        with pytest.raises(BadInput, match="once"), versus.opened(models.resolve("smollm2-135m"), names, 1):
            pass


# -- several at once


class Counting(Pretender):
    """Says how many streams ran at once at most."""

    def __init__(self, **more):
        super().__init__(**more)
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def stream(self, request):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        yield from super().stream(request)
        with self.lock:
            self.now -= 1


def test_one_session_answers_one_after_another_and_the_wait_counts():
    session = Counting(seconds=0.005)
    one = ring(tokens=session).contenders["tokens"]
    row = versus_parallel.at_once(one, [session], [prompt(n) for n in range(4)], 4, max_tokens=4)
    assert session.most == 1
    assert (row["sessions"], row["requests"], row["output_tokens"]) == (1, 4, 16)
    assert row["ttft_s_max"] > 2 * row["ttft_s_median"] * 0.5
    assert row["tokens_per_s"] == pytest.approx(16 / row["seconds"])


def test_several_sessions_really_overlap():
    sessions = [Counting(seconds=0.01) for _ in range(4)]
    shared = threading.Barrier(4, timeout=30)
    for session in sessions:
        inner = session.stream
        session.stream = lambda request, inner=inner: (shared.wait(), inner(request))[1]
    one = ring(tokens=sessions[0]).contenders["tokens"]
    row = versus_parallel.at_once(one, sessions, [prompt(n) for n in range(4)], 4, max_tokens=4)
    assert row["sessions"] == 4
    assert row["requests"] == 4, "the barrier opens only when all four are under way"


def test_a_failure_in_one_stream_ends_the_level():
    class Broken(Pretender):
        def stream(self, request):
            raise RunFailed("the server at http://127.0.0.1:1 broke off", "start it again")

    sessions = [Pretender(), Broken()]
    with pytest.raises(RunFailed, match="broke off"):
        versus_parallel.at_once(ring(tokens=sessions[0]).contenders["tokens"], sessions, [prompt(n) for n in range(4)], 2, 4)


def test_requests_go_to_this_machine_only():
    session = Pretender()
    session.url = "http://example.org:11434"
    with pytest.raises(BadInput, match="not on this machine"):
        versus_parallel.throughput(ring(prompt=session), lambda count, first: [prompt(n) for n in range(count)], (1, 2), progress=False)
    with pytest.raises(BadInput, match="requests at once"):
        versus_parallel.throughput(ring(prompt=session), lambda count, first: [], (0,))


# -- the real ones


@pytest.fixture(scope="module")
def small():
    return models.resolve("smollm2-135m")


def test_real_engines_read_the_same_bytes_and_answer_equally_long(small):
    names = ["llamacpp", "ollama", "ortgenai", "foundry"]
    with versus.opened(small, names, threads=1) as real:
        some = versus.prompts(real, 3)
        assert versus.shared_tokens(some) <= 4
        assert [row["includes_http"] for row in versus.check_text(real, some)] == [False, True, False, True]
        found = versus.compare(real, some, max_tokens=6, progress=False)
        processes = [c.session for c in real.contenders.values()]
        altered = versus.Prompt(some[1].messages, some[1].text + " ", some[1].tokens)
        with pytest.raises(BadInput, match="differs from byte"):
            versus.check_text(real, [altered])
    assert [m.engine for m in found] == names + names[::-1]
    for number in (1, 2):
        mine = [m for m in found if m.settings["round"] == number]
        assert {m.prompt_tokens for m in mine} == {len(some[number].tokens)}
        assert {m.output_tokens for m in mine} == {6}
    assert all(m.ttft_s > 0 and m.tpot_s > 0 for m in found)
    assert len(processes) == 4


def test_a_server_that_is_killed_is_one_sentence_and_the_next_try_works(small):
    import os
    import signal

    def once(kill):
        with versus.opened(small, ["llamacpp", "ollama"], threads=1) as real:
            session = real.contenders["ollama"].session
            pid = session._running.pid
            if kill:
                os.kill(pid, signal.SIGKILL)
            return versus.compare(real, versus.prompts(real, 2), 4, progress=False), pid

    with pytest.raises(RunFailed, match=r"127\.0\.0\.1") as told:
        once(kill=True)
    assert "\n" not in str(told.value)
    assert told.value.next
    found, pid = once(kill=False)
    assert len(found) == 2
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_fresh_process_says_what_it_took(small):
    with versus.opened(small, ["llamacpp"], 1) as real:
        (one,) = versus.prompts(real, 1)
    rows = [versus_start.fresh(name, small, one, 1, max_tokens=2) for name in ("llamacpp", "ollama")]
    for row in rows:
        assert 0 < row["import_s"] < row["ready_s"] < row["first_token_s"]
        assert row["again_s"] > 0
    assert rows[0]["processes"] == 1 < rows[1]["processes"], "Ollama's server and its runner are counted"
    assert rows[1]["memory_bytes"] > 50e6
    with pytest.raises(RunFailed, match="ollama did not start"):
        versus_start.fresh("ollama", small.model_copy(update={"path": Path("/nowhere.gguf")}), one, 1)


def test_quality_on_the_same_tokens(small):
    rows = versus_quality.rows(small, {}, rungs=("Q8_0",), tokens=512, threads=1, progress=False)
    assert [row["name"] for row in rows] == ["Q4_1", "Q8_0"]
    assert {row["tokens"] for row in rows} == {512}
    assert all(0 < row["kl_mean"] < 0.1 for row in rows)
    assert rows[0]["bytes"] < rows[1]["bytes"]
