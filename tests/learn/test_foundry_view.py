"""What lab 11 measures and draws: the SDK's own answers, a service that is killed, shares of a processor, the exercises' hints."""

import ast
import glob
import importlib.util
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from labkit import models
from labkit.core.errors import MissingPart, RunFailed
from labkit.learn import foundry_child, foundry_view
from labkit.learn.lab import start
from labkit.servers import foundry
from labkit.teach.notebooks import find
from labkit.teach.notebooks.exercises import in_source


@pytest.fixture(scope="module")
def small():
    return foundry.as_onnx(models.resolve("stdlib-10m")).path


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    where = str(tmp_path_factory.mktemp("lab") / "results.jsonl")
    lab = start(
        "11_foundry_local", model="smollm2-135m", engine="foundry", threads=0, seed=1, quick=True, results_path=where,
        load=False, needs=foundry_view.PARTS,
    )  # fmt: skip
    assert lab.source == "measured", lab.missing
    made = foundry_view.Service(lab)
    yield made
    made.stop()


# -- the SDK itself


def test_ids_that_the_sdk_takes_are_those_of_exercise_1(small):
    rows = foundry_child.run("register", folder=small, name="ships")
    said = {row["asked"]: row for row in rows}
    assert not said["list"]["said"].count("ships")
    assert said["close it, open it again, list"]["said"] == "ships-generic-cpu:2, ships-generic-cpu:1"
    assert said["look up ships"]["said"] == "ships-generic-cpu:2"
    first = "register ships-generic-cpu:1"
    tried = [row for row in rows if row["asked"].startswith("register") and row["asked"] != first and "/" not in row["asked"]]
    solution = in_source(find("11").source)[0].grade_solution(1)
    assert solution.points == solution.max_points
    versions = {row["asked"].removeprefix("register "): row["done"] for row in tried}
    assert versions == {
        "ships-generic-cpu:2": True, "ships-generic-cpu": False, "ships-generic-cpu:02": False, "ships-generic-cpu:-3": False,
        "ships-generic-cpu:latest": False,
    }  # fmt: skip


def test_a_session_keeps_what_it_computed_unless_an_answer_was_cut_off(service):
    rows = foundry_child.run("session", folder=service.model.path, name="ships", turns=foundry_view.turns(quick=True), cut=3)
    ways = {way: list(some) for way, some in itertools.groupby(rows, key=lambda r: r["way"])}
    assert list(ways) == ["one session", "one session, answers cut off", "sent anew"]
    assert [r["prompt_tokens"] for r in ways["one session"]] == [r["prompt_tokens"] for r in ways["sent anew"]]
    for before, row, anew in zip(ways["one session"], ways["one session"][1:], ways["sent anew"][1:], strict=False):
        if before["finish_reason"] == "stop":
            assert row["ttft_s"] < anew["ttft_s"] / 2, "only the new message was computed"
    assert {r["finish_reason"] for r in ways["one session, answers cut off"]} == {"length"}
    assert all(r["pieces"] == r["output_tokens"] for r in rows)
    fig = foundry_view.draw_session(rows, 0.5, "caption")
    assert len(fig.axes[0].lines) == 4


def test_the_private_catalogue_is_asked_only_for_what_runs_here(small):
    rows = foundry_child.run("catalogue", folder=small)
    assert {r["device"] for r in rows if "id" in r} == {"CPU"}
    assert {r["id"] for r in rows if "id" in r} == {"our-assistant-generic-cpu:3", "our-coder-generic-cpu:1"}
    asked = {f["field"].rpartition("/")[2]: f["values"] for f in rows[-1]["asked"]}
    assert asked["device"] == ["cpu"]
    assert asked["executionProvider"] == ["CPUExecutionProvider"]


def test_a_catalogue_that_nobody_answers_for_gives_none_and_says_why():
    (row,) = foundry_child.run("look_up", alias="qwen2.5-0.5b", online=False)
    assert row["done"] is False
    assert "127.0.0.1" in row["said"]
    assert "azure" not in row["said"]


def test_providers_found_here_are_in_the_table():
    rows = foundry_view.provider_rows(foundry_child.run("providers"))
    assert {r["name"]: r["here"] for r in rows}["CPUExecutionProvider"] == "yes"
    assert all(r["needs"] for r in rows)
    assert all(r["source"] for kind in foundry_view.tables().values() for r in kind)


def test_the_sdk_says_no_in_one_sentence(tmp_path):
    with pytest.raises(RunFailed, match=r"SDK failed: .*run this cell again"):
        foundry_child.run("session", folder=tmp_path, name="x", turns=["a"], cut=1)
    assert foundry_child.told("a.cc:3 f(int, const g&) the name is bad") == "the name is bad"


def test_without_the_sdk_the_command_is_named(monkeypatch):
    monkeypatch.setenv("LABKIT_WITHOUT", "foundry")
    with pytest.raises(MissingPart, match="--extra foundry"):
        foundry_child.run("providers")


# -- the service


def test_its_routes(service):
    found = {(r["path"], r["model"]): r["status"] for r in foundry_view.route_rows(service)}
    api = "/catalogs/local/v1"
    assert found[f"{api}/models", ""] == found[f"{api}/chat/completions", service.model_id] == 200
    assert found[f"{api}/chat/completions", "smollm2-135m"] == found["/v1/chat/completions", service.model_id] == 404
    assert found["/metrics", ""] == found["/api/metrics", ""] == found["/health", ""] == 404


def test_killed_in_the_middle_one_sentence_and_the_cell_works_again(service):
    def ask():
        return [{"models": len(httpx.get(f"{service.base_url}/models", timeout=10).json()["data"])}]

    def killed():
        url, process = service.base_url, service.running.process  # asked again for `running`, it would start another in a dead one's place
        process.kill()
        process.wait()
        return [{"status": httpx.get(f"{url}/models", timeout=10).status_code}]

    assert service.step("ask", ask) == [{"models": 1}]
    before, folder = service.running.pid, service.running.folder
    with pytest.raises(RunFailed, match="ended in the middle — run this cell again"):
        service.step("ask", killed)
    assert service.step("ask", ask) == [{"models": 1}]
    assert service.running.pid != before
    assert not folder.exists()


def test_in_a_notebook_an_error_of_labkits_is_one_sentence(capsys):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.run_cell("from labkit.core.errors import RunFailed\nraise RunFailed('it ended', 'run this cell again')")
    assert capsys.readouterr().out.strip().splitlines() == ["RunFailed: it ended — run this cell again"]


def test_stopping_says_what_is_left_and_a_second_time_nothing(service):
    folder = service.running.folder
    assert service.stop() == [{"part": part, "left": "nothing"} for part in ("process", "port", "folder")]
    assert not folder.exists()
    assert service.stop() == []


def test_four_at_once_share_the_processor(service):
    rows = foundry_view.parallel_rows(service, lengths=(4, 8, 12, 16), repeats=1)
    assert [r["parallel"] for r in rows] == [1, 2, 4]
    assert all(r["tokens"] == [4, 8, 12, 16] for r in rows)
    fig = foundry_view.draw_parallel(rows, 100.0, "caption")
    assert len(fig.axes[1].patches) == 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_a_step_that_is_interrupted_leaves_nothing(service, tmp_path, number):
    code = (
        "from labkit.learn import foundry_child, foundry_view\n"
        f"foundry_child.run('session', folder={str(service.model.path)!r}, name='x', turns=foundry_view.turns(), cut=3)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(tmp_path)}, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not glob.glob(f"{tmp_path}/labkit-foundry-*/foundry/*"):  # noqa: PTH207 - a pattern over two levels
        assert time.monotonic() < end
        time.sleep(0.05)
    child.send_signal(number)
    child.wait(30)
    while list(tmp_path.glob("labkit-foundry-*")):
        assert time.monotonic() < end, "still there"
        time.sleep(0.2)


# -- arithmetic and pictures


def test_shares_by_hand():
    assert foundry_view.shared_finish([1, 2]) == [2, 3]
    assert foundry_view.shared_finish([2, 1]) == [3, 2]
    assert foundry_view.shared_finish([1, 1, 1]) == [3, 3, 3]
    assert foundry_view.queued_finish([1, 2]) == [1, 3]
    alone = list(np.random.default_rng(1).uniform(0.1, 2, 6))
    assert np.allclose(foundry_view.shared_finish(alone), [sum(min(a, b) for b in alone) for a in alone])
    assert max(foundry_view.shared_finish(alone)) == pytest.approx(sum(alone))


def test_the_widget_draws_every_choice():
    for requests, tokens in itertools.product((1, 8), (16, 256)):
        assert len(foundry_view.draw_disciplines(requests, tokens, 50.0, "caption").axes[0].patches) == 3 * requests


def test_the_names_that_the_lab_shows_are_the_sdks():
    text = find("11").source.read_text(encoding="utf-8")
    blocks = re.findall(r"# ```python\n(.*?)# ```", text, re.DOTALL)
    assert len(blocks) == 3
    sdk = Path(importlib.util.find_spec("foundry_local_sdk").origin).parent
    known = "\n".join(path.read_text(encoding="utf-8") for path in sdk.glob("*.py"))
    for block in blocks:
        tree = ast.parse("\n".join(line.removeprefix("#").removeprefix(" ") for line in block.splitlines()))
        imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
        used = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        assert len(used) >= 3
        assert [name for name in imported + used if not re.search(rf"\b{name}\b", known)] == []
