"""Lab 16 without containers: its tables and plots, and the runner of workflow files on small ones."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest
import yaml

from labkit.core.errors import BadInput, MissingPart
from labkit.learn import containers_desk as desks
from labkit.learn import containers_stack as stacks
from labkit.learn import containers_view as view
from labkit.learn import containers_workflow as ci
from labkit.models import catalog, shape

# -- tables and plots


def test_the_tables_of_the_stack_are_what_its_files_say():
    rows = {row["setting"]: row for row in stacks.services()}
    assert rows["ports"]["model"] == "none"
    assert rows["ports"]["proxy"].startswith("127.0.0.1:")
    assert rows["networks"] == {"setting": "networks", "model": "inside", "proxy": "inside, outside"}
    assert all(row["model"] != "none" and row["proxy"] != "none" for name, row in rows.items() if name not in {"ports", "secrets"})
    assert "FROM docker.io/ollama/ollama" in view.recipe()
    assert "HEALTHCHECK" in view.recipe()


def test_the_model_server_has_no_way_out_and_the_proxy_publishes_on_loopback_alone():
    tree = yaml.safe_load((stacks.stack_folder() / "compose.yaml").read_text(encoding="utf-8"))
    assert tree["networks"]["inside"] == {"internal": True}
    assert "ports" not in tree["services"]["model"]
    assert all(port.startswith("127.0.0.1:") for port in tree["services"]["proxy"]["ports"])


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("/bin/sh -c #(nop) COPY dir:0123456789abcdef01 in /models/ ", "COPY … /models/"),
        ("/bin/sh -c apt-get update     && true", "RUN apt-get update && true"),
        ("|1 MODEL=file /bin/sh -c mkdir /weights", "RUN mkdir /weights"),
    ],
)
def test_a_layer_is_called_by_the_line_that_made_it(made, said):
    assert view.short(made) == said
    assert len(view.short("x" * 200)) <= 46


def test_starts_layers_and_ways_are_drawn():
    starts = [{"way": way, "start_s": s, "memory_bytes": 2e8} for way, s in (("process", 0.2), ("container", 0.8), ("process", 0.3))]
    figure = view.draw_start(starts, 0.5, "caption")
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["process", "container"]
    assert max(line.get_ydata()[0] for line in figure.axes[0].lines) == pytest.approx(0.8)
    layers = [{"bytes": 100_000_000, "command": "COPY a"}, {"bytes": 0, "command": "ENV b"}, {"bytes": 5_000, "command": "RUN c"}]
    assert len(view.draw_layers(layers, "caption").axes[0].patches) == 2
    ways = [dict.fromkeys(("image_bytes", "volume_bytes", "update_bytes", "healthy_s"), 5.0) | {"way": way} for way in "ab"]
    assert [len(ax.patches) for ax in view.draw_ways(ways, "caption").axes] == [4, 2, 2]
    changes = [{"change": "a", "kept_bytes": 5e6, "new_bytes": 1e6, "seconds": 2.0}]
    assert len(view.draw_cache(changes, "caption").axes[0].patches) == 2


def test_each_end_under_a_limit_has_its_own_sign():
    ends = ["container killed", "model killed", "answered"]
    rows = [{"limit_mib": 32 * 4**n, "end": end, "predicted_mib": 200.0} for n, end in enumerate(ends)]
    figure = view.draw_limits(rows, 256, "caption")
    drawn = {line.get_marker(): list(line.get_xdata()) for line in figure.axes[0].lines if line.get_marker() != "None"}
    assert drawn == {"s": [32], "X": [128], "o": [512]}
    assert [line.get_xdata()[0] for line in figure.axes[0].lines[-2:]] == [200.0, 256]


def test_the_line_of_the_cpu_plot_goes_through_the_smallest_limit():
    rows = [{"cpus": c, "tokens_per_s": t} for c, t in ((0.5, 10.0), (0.5, 12.0), (2.0, 30.0))]
    line = view.draw_cpus(rows, "caption").axes[0].lines[0]
    assert list(line.get_ydata()) == pytest.approx([11, 44])


def test_variants_share_all_but_the_model():
    rows = [{"variant": k, "image_bytes": 200 + m, "model_bytes": m, "predicted_bytes": m} for k, m in (("Q4_0", 80), ("Q8_0", 140))]
    assert view.shared_bytes(rows) == 200 + 80 + 140
    assert len(view.draw_variants(rows, "caption").axes) == 2


def test_the_plan_says_whether_it_fits():
    header = shape.header(catalog.get("phi-4-mini"), "Q4_0")
    need = sum(view.need_bytes(header, 4096, 4).values()) / view.MIB
    assert "does not fit" in view.draw_need(header, 4096, 4, int(need) - 1, "caption").axes[0].get_title()
    assert "it fits" in view.draw_need(header, 4096, 4, int(need) + 1, "caption").axes[0].get_title()
    parts = view.need_bytes(header, 4096, 1), view.need_bytes(header, 4096, 4)
    assert parts[1]["kv_cache_bytes"] == 4 * parts[0]["kv_cache_bytes"]


def test_a_desk_says_what_is_missing():
    with pytest.raises(BadInput, match="about Ollama"):
        desks.Desk(None, engine="mlx")
    with pytest.raises(MissingPart, match="plays its recording"):
        desks.Desk(None).require()


# -- workflow files


def job(folder: Path, *steps: dict, env: dict | None = None) -> ci.Job:
    tree = {"on": "push", "jobs": {"one": {"runs-on": "here", "env": env or {}, "steps": list(steps)}}}
    path = folder / "workflow.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return ci.read(path)


def run(found: ci.Job, folder: Path, seconds: float = 30, **given: str) -> list[dict]:
    return list(ci.run(found, given, folder, contextlib.nullcontext, seconds))


def test_steps_run_in_order_with_the_files_environment_and_ours(tmp_path):
    steps = [{"uses": "actions/checkout@v5"}, {"name": "a", "run": 'echo "$WORD $TOOL"; echo x > "$RUNNER_TEMP/kept"'}]
    steps.append({"name": "b", "run": 'cat "$RUNNER_TEMP/kept"', "env": {"WORD": "other"}})
    rows = run(job(tmp_path, *steps, env={"WORD": "hello", "TOOL": "docker"}), tmp_path, TOOL="podman")
    assert [row["exit_code"] for row in rows] == [None, 0, 0]
    assert [row["said"] for row in rows[1:]] == [["hello podman"], ["x"]]
    assert "runner" in rows[0]["result"]


def test_a_failure_skips_all_but_what_always_runs(tmp_path):
    steps = [
        {"name": "fails", "run": "false\necho not reached"},
        {"name": "pipe", "run": "true"},
        {"name": "tidy", "run": "echo tidy", "if": "always()"},
    ]
    rows = run(job(tmp_path, *steps), tmp_path)
    assert [(row["exit_code"], row["result"].split(":")[0]) for row in rows] == [(1, "FAILED"), (None, "skipped"), (0, "passed")]
    assert rows[0]["said"] == []
    (piped,) = run(job(tmp_path, {"name": "p", "run": "false | cat"}), tmp_path)
    assert piped["exit_code"] == 1, "pipefail, as on the hosted runner"


def test_a_step_that_hangs_is_ended_with_what_it_started(tmp_path):
    step = {"name": "h", "run": f"sleep 60 & echo $! > {tmp_path}/pid\nwait"}
    (row,) = run(job(tmp_path, step), tmp_path, seconds=1)
    assert row["exit_code"] == 124
    pid = int((tmp_path / "pid").read_text())
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the step's child lives on")


@pytest.mark.parametrize(
    "step",
    [{"run": "echo ${{ github.sha }}"}, {"run": "true", "if": "github.ref == 'x'"}, {"run": "true", "env": {"A": "${{ secrets.B }}"}}],
)
def test_what_only_the_hosted_runner_knows_is_refused(tmp_path, step):
    with pytest.raises(BadInput, match="hosted runner"):
        job(tmp_path, step)


def test_a_file_that_is_no_workflow_is_one_sentence(tmp_path):
    (tmp_path / "workflow.yaml").write_text("jobs: [1", encoding="utf-8")
    with pytest.raises(BadInput, match="no workflow"):
        ci.read(tmp_path / "workflow.yaml")


def test_the_stacks_workflow_is_whole():
    found = ci.read(stacks.stack_folder() / "workflow.yaml")
    names = [step.name for step in found.steps]
    assert names.index("Lint") < names.index("Build") < names.index("Ask it") < names.index("Tidy up")
    assert [step.name for step in found.steps if step.always] == ["Tidy up"]
    assert found.folder == "labs/stacks/ollama"
