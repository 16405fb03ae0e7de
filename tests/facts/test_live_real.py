"""The ledger on real servers: nothing seen here contradicts it, and enough is seen. A part that is missing fails the test."""

from __future__ import annotations

import tempfile
from collections import Counter

import psutil
import pytest

from labkit.core.errors import BadInput
from labkit.facts import claims, live
from labkit.facts.live import start

# what a machine like this one cannot decide: a GPU, programs that labkit does not install, a context that the small model has not
NOT_HERE = {"ollama-num-gpu", "foundry-cli-name", "llamacpp-tools", "ollama-apt", "memory-is-size-times-two", "ollama-context-2048"}


@pytest.fixture(scope="module")
def rows(short_folder):
    folder = short_folder  # of our own, since other tests use the usual one
    children = {p.pid for p in psutil.Process().children(recursive=True)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        found = {row["id"]: row for row in start.decide(live_too=True, model="stdlib-10m")}
    left = {p.pid for p in psutil.Process().children(recursive=True)} - children
    return found | {"left": {"processes": left, "files": list(folder.iterdir())}}


def test_nothing_contradicts_the_ledger(rows):
    assert {id: row["why"] for id, row in rows.items() if row.get("shown") == "refuted"} == {}


def test_every_live_check_is_decided(rows):
    undecided = {id: rows[id]["why"] for id in live.CHECKS if rows[id]["shown"] == "not-run" and id not in NOT_HERE}
    assert undecided == {}


def test_enough_is_decided_and_on_real_servers(rows):
    decided = [id for id in live.CHECKS if rows[id]["shown"] != "not-run"]
    servers = Counter(live.server_of(id) for id in decided)
    assert len(decided) >= 25
    assert servers["ollama"] + servers["foundry"] >= 15
    assert servers["ollama"] and servers["foundry"] and servers["llama"]


def test_each_row_quotes_what_was_seen(rows):
    assert len(claims.load()) >= 50
    assert all(len(rows[id]["why"]) > 15 for id in claims.load())


def test_no_process_and_no_folder_is_left(rows):
    assert rows["left"] == {"processes": set(), "files": []}


def test_an_unknown_id_starts_nothing(monkeypatch):
    monkeypatch.setattr(start, "_STARTS", {})
    with pytest.raises(BadInput, match="did you mean foundry-metrics"):
        next(start.decide(["foundry-metric"], live_too=True))


def test_a_server_that_cannot_be_had_leaves_its_claims_undecided(monkeypatch):
    monkeypatch.setenv("LABKIT_WITHOUT", "foundry")
    [row] = start.decide(["foundry-metrics"], live_too=True, model="stdlib-10m")
    assert row["shown"] == "not-run"
    assert "uv sync" in row["why"]
