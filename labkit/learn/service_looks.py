"""How each of lab 17's probes looks at a running service, one function a probe: (does it hold?, what was seen).

What must hold is never a time of this machine: times are compared with other times of the same service.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from labkit.learn.service_asking import CHAT, HEALTH, Answer, Site, at_once, looks, worst
from labkit.measure import memory
from labkit.servers import Running

Saw = tuple[bool, str]
STORY = "Tell me a long story about a ship and its captain."
_LONG = "The harbour master wrote every ship into a big book. "


def long_prompt(site: Site, tokens: int) -> str:
    """A prompt of about so many tokens, the chat template's markers included; a little less, never more."""
    one, ten = site.prompt_tokens(_LONG), site.prompt_tokens(_LONG * 10)
    return _LONG * max(1, int((tokens - one) / ((ten - one) / 9)) + 1)


def _said(answer: Answer) -> str:
    return f"status {answer.status}" + (f", {answer.error[:70]}" if answer.error else "")


# -- the answer


def several_tokens(site: Site) -> Saw:
    few, many = site.answer(STORY, max_tokens=8), site.answer(STORY, max_tokens=24)
    counts = [len(site.text.tokenize(one.text)) for one in (few, many)]
    held = few.answered and counts[1] > counts[0] > 1 and many.text.startswith(few.text.rstrip("�"))
    return held, f"{counts[0]} tokens where 8 were asked for, {counts[1]} where 24 were"


def max_tokens(site: Site) -> Saw:
    got = site.answer(STORY, max_tokens=5)
    return got.tokens == 5 and got.reason == "length", f"5 asked for, {got.tokens} counted, finish_reason {got.reason}"


def stop(site: Site) -> Saw:
    whole = site.answer(STORY, max_tokens=24).text
    word = whole[len(whole) // 2 : len(whole) // 2 + 4]
    if len(word) < 4:
        return False, f"the answer is too short to stop in it: {whole[:40]!r}"
    got = site.answer(STORY, max_tokens=24, stop=[word])
    held = got.status == 200 and got.text == whole[: whole.find(word)] and got.reason == "stop"
    return held, f"the stop text is {'in' if word in got.text else 'not in'} the answer, finish_reason {got.reason}"


def usage(site: Site) -> Saw:
    got, right = site.answer(STORY, max_tokens=12), site.prompt_tokens(STORY)
    told = got.usage.get("prompt_tokens")
    made = len(site.text.tokenize(got.text))
    # the same text can be cut into tokens in more than one way, so the answer's count is held against what was asked for
    held = told == right and got.tokens == 12
    return held, f"it says {told} + {got.tokens}; by the tokenizer the prompt has {right}, and 12 were asked for (the text has {made})"


def streaming(site: Site) -> Saw:
    got = site.stream(STORY, max_tokens=64)
    apart = len(got.at_s) > 1 and got.at_s[0] < 0.9 * got.at_s[-1]
    held = got.whole and len(got.pieces) > 3 and apart and not got.error
    return held, f"{len(got.pieces)} pieces" + (
        f", the first after {got.at_s[0] / got.seconds:.0%} of the time" if got.at_s else f" ({_said(got)})"
    )


# -- what a client does wrong


def _refused(site: Site, statuses: Sequence[int], content: bytes) -> Saw:
    reply = site.post(content)
    return reply.status_code in statuses, f"status {reply.status_code}: {' '.join(reply.text.split())[:70]}"


def unknown_model(site: Site) -> Saw:
    got = site.answer("Hi", model="no-such-model", max_tokens=2)
    return got.status == 404, _said(got)


def not_json(site: Site) -> Saw:
    return _refused(site, (400, 422), b'{"model": "')


def wrong_types(site: Site) -> Saw:
    return _refused(site, (400, 422), b'{"model": 7, "messages": "hello", "max_tokens": "many"}')


def huge_body(site: Site) -> Saw:
    filler = b"x" * 4_000_000
    body = b'{"model": "%s", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "user": "%s"}'
    return _refused(site, (400, 413), body % (site.model.encode(), filler))


def too_long(site: Site) -> Saw:
    text = long_prompt(site, site.context + 200)
    got = site.answer(text, max_tokens=2)
    return got.status in (400, 413), f"{site.prompt_tokens(text)} tokens sent, context {site.context}: {_said(got)}"


# -- health


def no_model(site: Site) -> Saw:
    """Started with a folder whose model file is not there: did health ever say 200?"""
    with tempfile.TemporaryDirectory(prefix="labkit-nomodel-") as empty:
        for file in Path(site.folder).iterdir():
            if file.is_file() and not file.name.startswith("model.onnx"):
                shutil.copy2(file, empty)
        running = site.again(Path(empty))
        try:
            seen = _watch_health(site, running, seconds=15)
        finally:
            running.stop()
    told = ", ".join(map(str, dict.fromkeys(seen))) or "nobody listens"
    return 200 not in seen, f"/health of a service without a model: {told}"


def while_loading(site: Site) -> Saw:
    """From its start on: was there a moment when health said 200 and a request was not answered?"""
    running = site.again(None)
    try:
        seen = _watch_health(site, running, seconds=60, until_ready=True)
        reply = httpx.post(running.url + CHAT, json=site.body("Hi", max_tokens=1), timeout=60, trust_env=False)
        works = reply.status_code == 200 and "choices" in reply.json()
    finally:
        running.stop()
    told = ", ".join(map(str, dict.fromkeys(seen)))
    return works and seen[-1:] == [200], f"/health while it started: {told}; then a request was {'' if works else 'not '}answered"


def _watch_health(site: Site, running: Running, seconds: float, until_ready: bool = False) -> list[int]:
    """Status codes of /health since the start, as often as one can ask, until it ends, the time is over, or it says 200."""
    seen: list[int] = []
    end = time.monotonic() + seconds
    answered = None
    while time.monotonic() < end and running.alive():
        try:
            seen.append(httpx.get(running.url + HEALTH, timeout=2, trust_env=False).status_code)
            answered = answered or time.monotonic()
        except httpx.TransportError:
            pass  # nobody listens yet
        if seen and (seen[-1] == 200 or (not until_ready and time.monotonic() > (answered or 0) + 3)):
            break
        time.sleep(0.02)
    return seen


def model_gone(site: Site) -> Saw:
    """The process that holds the model is killed, which may be the service itself. What does health say two seconds later?"""
    running = site.again(None)
    try:
        running.wait(60)
        root = psutil.Process(running.pid)
        holder = max([root, *root.children(recursive=True)], key=memory.of)
        holder.kill()
        time.sleep(2)
        try:
            told = str(httpx.get(running.url + HEALTH, timeout=10, trust_env=False).status_code)
        except httpx.TransportError:
            told = "nobody listens"
    finally:
        running.stop()
    whose = "the service's own process" if holder.pid == root.pid else "a process of the service"
    return told != "200", f"the model was in {whose}; /health after its end: {told}"


def alive_while_answering(site: Site) -> Saw:
    """Is it heard while it computes? The longest silence is compared with the whole time of the answer."""
    long = long_prompt(site, site.context // 2)
    got, rows = looks(site.url, HEALTH, lambda: site.answer(long, max_tokens=48))
    silent = worst(rows)
    share = silent / got.seconds
    return (
        got.status == 200 and share < 0.5,
        f"longest silence {silent * 1e3:.0f} ms, {share:.0%} of an answer that took {got.seconds:.2f} s",
    )


# -- several clients


def four_at_once(site: Site) -> Saw:
    prompts = [f"Tell me about the number {n}." for n in ("one", "two", "three", "four")]
    got: list[Answer] = at_once(lambda n: site.stream(prompts[n], max_tokens=12), 4)
    whole = sum(one.status == 200 and not one.error and one.tokens == 12 for one in got)
    return whole == 4, f"{whole} of 4 answers have their 12 tokens"


def beyond_the_queue(site: Site) -> Saw:
    count = site.queue_length + site.parallel + 4
    long = long_prompt(site, site.context // 6)
    got: list[Answer] = at_once(lambda n: site.answer(f"{n} {long}", max_tokens=24), count)
    refused = [one for one in got if one.status == 429]
    times = [one.headers.get("retry-after", "") for one in refused]
    good = all(one.isdigit() and int(one) >= 1 for one in times)
    others = all(one.answered for one in got if one.status != 429)
    told = f", Retry-After {' '.join(sorted(set(times)))}" if refused else f"; the last waited {max(one.seconds for one in got):.1f} s"
    return bool(refused) and good and others, f"{count} at once: {len(refused)} refused{told}"


def client_leaves(site: Site) -> Saw:
    """A client leaves its long answer: does the next one get the place, or does the service go on for nobody?"""
    long = long_prompt(site, site.context // 2)
    whole = site.answer(f"0 {long}", max_tokens=200).seconds
    alone = site.answer("Hi", max_tokens=1).seconds
    left = 0.15 * whole
    at_once(lambda n: site.leave(f"{n + 1} {long}", left, max_tokens=200), site.parallel)
    next_one = site.answer("Hi", max_tokens=1)
    share = (next_one.seconds - alone) / (whole - left)
    return (
        next_one.answered and share < 0.5,
        f"the next client waited {max(0.0, share):.0%} of what was left of the answer that nobody reads",
    )


def metrics(site: Site) -> Saw:
    """Is there a counter that grows with a request?"""
    counts = []
    for _ in range(2):
        reply = site.get("/metrics")
        if reply.status_code != 200:
            return False, f"/metrics: status {reply.status_code}"
        families = text_string_to_metric_families(reply.text)
        counts.append(
            {s.name + str(s.labels): s.value for f in families if f.type == "counter" for s in f.samples if s.name.endswith("_total")}
        )
        site.answer("Hi", max_tokens=2)
    grown = [name for name, value in counts[1].items() if value > counts[0].get(name, 0)]
    return bool(grown), f"{len(counts[1])} counters, {len(grown)} of them grew with one request"


# -- the end


def graceful_stop(site: Site) -> Saw:
    """SIGTERM when two fifths of an answer's time are over: is the answer finished, and then the process gone?"""
    long = long_prompt(site, site.context // 3)
    running = site.again(None)
    try:
        running.wait(60)
        other = site.of(running)
        other.stream(long, max_tokens=4)  # warm
        first = other.stream(long, max_tokens=64)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(lambda: other.stream(long, max_tokens=64))
            time.sleep(0.4 * first.seconds)
            early = not asked.done()
            running.process.send_signal(signal.SIGTERM)
            got = asked.result()
        answered = time.monotonic()
        try:
            code = running.process.wait(10)
        except subprocess.TimeoutExpired:
            return False, "10 s after SIGTERM and the end of the answer it still runs"
    finally:
        running.stop()
    whole = got.answered and got.whole == first.whole and got.tokens == first.tokens
    told = f"SIGTERM {'in' if early else 'after'} an answer, which came {'whole' if whole else 'cut: ' + _said(got)}"
    return early and whole and code in (0, -signal.SIGTERM), f"{told}; it ended {time.monotonic() - answered:.1f} s later, code {code}"
