"""Every stack for real: built, hardened, healthy only with its model, answering, drained, and its Compose file started.

`life.serving()` is one container a stack, shared by the tests that only look. What takes a container down starts its own.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import openai
import pytest
from checklist import not_as_said
from conftest import Life
from layers import Finding, suspicious
from stack_table import MODEL, Stack, client, plain

from labkit.servers import images

TURNS: Any = [{"role": "user", "content": "Tell me a long story about the sea."}]


def listening(port: int) -> set[str]:
    """The addresses at which this machine listens on a port, as the kernel lists them."""
    found = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            address, number = local.split(":")
            if state == "0A" and int(number, 16) == port:
                found.add(address)
    return found


class Answer:
    """A streamed answer, read in a thread of its own."""

    def __init__(self, asked: openai.OpenAI, tokens: int) -> None:
        self.asked, self.tokens = asked, tokens
        self.times: list[float] = []
        self.end: str | None = None
        self.error: Exception | None = None
        self.begun = threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            for piece in self.asked.chat.completions.create(
                model=MODEL, messages=TURNS, max_tokens=self.tokens, temperature=0, stream=True
            ):
                choice = piece.choices[0] if piece.choices else None
                if choice and choice.delta.content:
                    self.times.append(time.monotonic())
                    if len(self.times) == 2:
                        self.begun.set()
                self.end = (choice.finish_reason if choice else None) or self.end
        except (openai.OpenAIError, OSError) as error:
            self.error = error
        finally:
            self.begun.set()
            self.asked.close()

    def whole(self) -> Answer:
        self.thread.join(120)
        assert self.error is None, self.error
        assert self.end in {"length", "stop"}, f"cut after {len(self.times)} pieces"
        return self


def tokens_for(asked: openai.OpenAI, seconds: float) -> int:
    """How many tokens take about that long here and now."""
    times = Answer(asked, 12).whole().times
    each = (times[-1] - times[0]) / (len(times) - 1)
    return max(4, min(150, int(seconds / each)))


def test_health_means_that_the_model_is_there(stack: Stack, life: Life) -> None:
    container = life.empty()
    time.sleep(1)
    assert not container.health() and container.alive(), "without a model"
    stack.put(container, life.folder)
    container.wait(seconds=stack.start_s)
    stack.take(container, life.folder)
    assert not container.health() and container.alive(), "after the model is gone"
    stack.put(container, life.folder)
    container.wait(seconds=stack.start_s)


def test_it_is_hardened_as_seen_from_inside(stack: Stack, life: Life) -> None:
    found = images.hardening(life.serving())
    assert found["uid"] >= 10000 and found["gid"] >= 10000
    assert found["cap_eff"] == found["cap_bnd"] == 0
    assert found["no_new_privs"] and found["read_only_root"]
    assert found["seccomp"] == 2
    assert (found["memory_limit_bytes"], found["cpus"], found["pids_limit"]) == (stack.memory_mb << 20, 2.0, stack.pids)


def test_the_official_client_gets_an_answer(life: Life) -> None:
    with client(life.serving().base_url) as asked:
        answer = asked.chat.completions.create(model=MODEL, messages=TURNS, max_tokens=8)
        assert answer.choices[0].message.content and answer.usage
        assert 0 < answer.usage.completion_tokens <= 8
        assert MODEL in [row.id.removesuffix(":latest") for row in asked.models.list()]


def test_only_this_machine_reaches_it(life: Life) -> None:
    container = life.serving()
    for port in container.ports.values():
        assert listening(port) == {"0100007F"}


def test_the_image_holds_nothing_of_this_machine(life: Life) -> None:
    found: list[Finding] = suspicious(life.image("with_model"))
    assert found == []


def test_the_image_without_the_model_is_smaller_by_the_model(life: Life) -> None:
    inside, outside = life.image("with_model"), life.image("without")
    done = life.serving().exec(["sh", "-c", "du -sbL /models | cut -f1"], check=True)
    assert inside.bytes - outside.bytes == pytest.approx(int(done.stdout), rel=0.02)


def own_time(container: images.Container) -> float:
    """Seconds that a command of the container tool takes before it does anything: on a busy machine that is no part of a stop."""
    took = []
    for _ in range(3):
        begin = time.monotonic()
        container.inspect()
        took.append(time.monotonic() - begin)
    return sorted(took)[1]


def test_each_item_of_the_readiness_checklist_prints_what_it_says(stack: Stack, life: Life) -> None:
    container, pair = life.serving(), (life.image("with_model"), life.image("without"))
    assert not_as_said(stack.folder, lambda text: stack.readme(text, container, *pair)) == []


def test_compose_starts_it_answers_and_stops_without_cutting_an_answer(stack: Stack, life: Life) -> None:
    with (stack.door or plain)(stack.folder) as door:
        env = {**door.env, **stack.compose_env, **stack.with_model, stack.image_variable: life.image("with_model").ref}
        project = images.compose(life.source, project=stack.name, env=env)
        before = images.leftovers()
        with project as running:
            running.up()
            running.wait(seconds=stack.start_s)
            assert listening(door.port) == {"0100007F"}
            published = {port for rows in running.services.values() for one in rows for port in one.ports.values()}
            assert published == {door.port}, "and nothing else"
            for one in (one for rows in running.services.values() for one in rows):
                found = images.hardening(one)
                assert found["uid"] >= 10000 and found["cap_bnd"] == 0 and found["no_new_privs"] and found["read_only_root"], one.name
                assert found["memory_limit_bytes"] and found["cpus"] and found["pids_limit"], one.name
            container = running.container(stack.service)
            words_s = own_time(container)
            tokens = tokens_for(door.client(), 1.5 + words_s)
            answer = Answer(door.client(), tokens)
            assert answer.begun.wait(60)
            told, told_at = time.monotonic(), time.time()
            container.stop(10)
            answer.whole()
            assert answer.times[-1] > told, f"it had ended before it was told to stop ({tokens} tokens)"
            assert datetime.fromisoformat(container.state["FinishedAt"]).timestamp() - told_at - words_s < 5
            assert container.exit_code == 0
        assert [row for row in images.leftovers() if row not in before and not row.startswith("image")] == []
    assert listening(door.port) == set()
