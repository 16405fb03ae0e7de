"""Lab 10: its tables, its desk on the real Ollama, what it draws; the exercises' hints on many seeds."""

import json
import os

import psutil
import pytest

from labkit import models
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.learn import ollama_rows as ask
from labkit.learn import ollama_view as view

REF = "stdlib-10m"


@pytest.fixture(scope="module")
def desk():
    with view.Desk(models.resolve(REF), context=256) as opened:
        yield opened


# -- tables


@pytest.mark.parametrize(
    ("version", "embeds", "refuses"), [("0.24.0", True, False), ("0.30.0", False, True), ("0.30.1-rc2", False, True), ("1.0", False, True)]
)
def test_a_behaviour_goes_by_the_version(version, embeds, refuses):
    assert view.holds("embed-with-chat-model", version) == embeds
    assert view.holds("embed-needs-embedding-model", version) == refuses


def test_the_table_of_behaviours_is_whole():
    for row in view.table("behaviour"):
        assert {"since", "until"} & set(row), row
        assert view.numbers(row.get("since", "0")) < view.numbers(row.get("until", "9999"))
        assert row["then"] and row["source"]
    assert not view.holds("logprobs", "0.12.10")
    with pytest.raises(BadInput, match="no behaviour"):
        view.holds("speed", "0.24.0")


def test_every_system_has_a_way_to_install_and_none_opens_the_port_to_the_network():
    rows = view.table("install")
    assert {"Windows", "macOS", "Linux", "any"} == {row["system"] for row in rows}
    assert {"WinGet", "Homebrew", "script", "container"} <= {row["way"] for row in rows}
    assert all("127.0.0.1:" in row["command"] for row in rows if "11434:" in row["command"])


# -- the desk


def test_the_desk_starts_and_says_its_version(desk):
    (row,) = ask.start_rows(desk)
    assert row["models"] == [REF]
    assert row["stored_bytes"] > 19e6
    assert view.behaviours(row["version"])


def test_a_killed_server_is_one_sentence_and_the_cell_works_again(desk, capsys):
    def kill_in_the_middle(client):
        for count, _ in enumerate(client.generate(REF, "def", stream=True, options={"num_predict": 200})):
            if count == 1:
                desk.running.process.kill()
                for child in psutil.Process(desk.running.pid).children(recursive=True):
                    child.kill()

    with pytest.raises(RunFailed, match="run the cell again"):
        desk.ask(kill_in_the_middle)
    assert desk.running is None
    assert desk.ask(lambda client: client.generate(REF, "def", options={"num_predict": 2})).eval_count
    desk.running.process.kill()
    desk.running.process.wait()
    assert desk.rows(lambda client: client.list())[0]["models"]
    assert "a new one is started" in capsys.readouterr().out


def test_ctrl_c_and_errors_leave_no_server(desk):
    def interrupted(client):
        raise KeyboardInterrupt

    pid = desk.server().pid
    with pytest.raises(KeyboardInterrupt):
        desk.ask(interrupted)
    assert desk.running is None
    assert not psutil.pid_exists(pid)
    with pytest.raises(RunFailed, match="404: model 'nothing' not found"):
        desk.ask(lambda client: client.generate("nothing", "x"))


def test_without_a_model_the_desk_says_what_is_missing():
    with pytest.raises(MissingPart, match="plays its recording"):
        view.Desk(None, name="any").server()
    with pytest.raises(BadInput, match="about Ollama"):
        view.Desk(None, engine="mlx")


# -- the questions


def test_commands_are_lists_and_errors_have_their_exit_code(desk):
    rows = ask.command_rows(desk, [["list"], ["cp", REF, "two words; rm x"], ["rm", "nothing"]])
    assert [row["exit_code"] for row in rows][0::2] == [0, 1]
    assert any(REF in line for line in rows[0]["output"])
    assert rows[1]["exit_code"] == 1, "one word, an invalid name, and no second command"
    assert "\x1b" not in json.dumps(rows)


def test_a_modelfile_with_a_wrong_name_is_refused(desk):
    text = f"FROM {REF}\nPARAMETER {{}} 128\n"
    rows = ask.modelfile_rows(desk, {"good": text.format("num_ctx"), "wrong": text.format("context_length")})
    assert [row["exit_code"] for row in rows] == [0, 1, 0, 0]
    assert "unknown parameter" in rows[1]["output"][-1]
    assert "num_ctx" in rows[2]["output"][0]


def test_the_first_request_loads_and_the_stages_are_drawn(desk):
    rows = ask.stage_rows(desk, "def", 4, warm=1)
    assert rows[0]["load_s"] > rows[1]["load_s"]
    assert len(view.draw_stages(rows, 0.5, "caption").axes[0].patches) == 6


def test_keep_alive_and_a_shortened_prompt(desk):
    gone, stays = ask.stay_rows(desk, [0, -1])
    assert (gone["loaded_later"], stays["loaded_later"]) == (False, True)
    silent, strict, whole = ask.cut_rows(desk)
    assert [row["status"] for row in (silent, strict, whole)] == [200, 400, 200]
    assert silent["tokens_read"] <= silent["context"] < silent["prompt_tokens"] == whole["tokens_read"] < whole["context"]
    assert silent["answer"]
    assert strict["error"] and not strict["answer"]


def test_embeddings_or_their_refusal_go_by_the_version(desk):
    rows = ask.embedding_rows(desk, ["def add", "def sum", "return"])
    version = ask.start_rows(desk)[0]["version"]
    if view.holds("embed-with-chat-model", version):
        assert rows[0]["cosine"] == pytest.approx(1)
        assert all(-1 <= row["cosine"] <= 1.001 for row in rows)
    else:
        assert {row["status"] for row in rows} == {501}


def test_what_must_fail_is_told_and_a_success_too(desk):
    rows = ask.refused_rows(
        desk,
        {
            "pull": lambda c: c.pull("127.0.0.1:9/labkit/nothing", insecure=True),
            "list": lambda c: c.list(),
        },
    )
    assert rows[0]["status"] >= 400
    assert "127.0.0.1:9" in rows[0]["error"]
    assert rows[1]["status"] == 200


def test_memory_grows_by_the_cache():
    ref = models.resolve("smollm2-135m")
    small, large = ask.memory_rows(ref, [(512, 1), (2048, 4)])
    grown = large["measured_bytes"] - small["measured_bytes"]
    assert grown == pytest.approx(large["predicted_bytes"] - small["predicted_bytes"], rel=0.25)
    assert large["kv_cache_bytes"] == 16 * small["kv_cache_bytes"]
    figure = view.draw_memory([small, large], 300, "caption")
    assert len(figure.axes[0].patches) == 4


def test_parallel_clients_are_all_answered():
    rows = ask.parallel_rows(models.resolve(REF), [1, 2], clients=2, tokens=4)
    assert all(row["tokens_per_s"] > 0 and row["best_ttft_s"] <= row["worst_ttft_s"] for row in rows)
    assert len(view.draw_parallel(rows, "caption").axes) == 2


def test_quantizing_on_create_says_what_it_refuses():
    from labkit.quant import gguf

    source = gguf.as_type(models.resolve("smollm2-135m"), "F16", progress=False)
    rows = {row["type"]: row for row in ask.quantize_rows(source, ["Q8_0", "Q4_0"])}
    assert 0.5 < rows["Q8_0"]["bytes"] / rows["F16"]["bytes"] < 0.6
    assert "unsupported" in rows["Q4_0"]["error"]
    assert len(view.draw_sizes(list(rows.values()), "caption").axes[0].patches) == 2


def test_the_plan_adds_up():
    from labkit.models import catalog, shape

    header = shape.header(catalog.get("phi-4-mini"), "Q4_0")
    assert view.cache_gigabytes(header, 8192, 8) == pytest.approx(8 * 8192 * 128 * 1024 / 1e9)
    assert "%" in view.draw_plan(header, 8192, 8, "f16", "caption").axes[0].get_title()


def test_the_lab_leaves_no_ollama_behind(desk):
    desk.close()
    mine = psutil.Process(os.getpid()).children(recursive=True)
    assert not [p.name() for p in mine if "ollama" in p.name()]
