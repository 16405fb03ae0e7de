"""Recordings: made from a measured run only, refused when they lack what a reader needs to trust them."""

import datetime
import hashlib
import json
import shutil

import pytest

from labkit.core import machine, paths, recordings, results
from labkit.core.errors import BadInput
from labkit.core.records import RunRecord
from labkit.teach import recordings as making

LAB = "01_first_model"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A checkout with one lab and no recordings."""
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    shutil.copy(paths.data("models.toml"), home / "data")
    (home / "labs" / "sources").mkdir(parents=True)
    (home / "labs" / "sources" / f"{LAB}.py").write_text("# %%\nprint(1)\n")
    monkeypatch.setenv("LABKIT_HOME", str(home))
    return home


def step(name, **changes):
    return {
        "schema": 1, "lab": LAB, "step": name, "source": "measured", "machine": machine.fingerprint(),
        "timestamp": "2026-01-02T03:04:05+00:00", "parameters": {"model": "/srv/models/a b.gguf", "seed": 1},
        "rows": [{"text": "the folder /home/you is what the model wrote", "ttft_s": 0.5}], **changes,
    }  # fmt: skip


def run_record(**changes):
    given = {
        "run_id": "0" * 16, "lab": LAB, "parameters": {"model": "/srv/models/b.gguf", "seed": 1}, "status": "ok", "source": "measured",
        "seconds": 2.5, "peak_memory_bytes": 10**8, "notebook": "/srv/somebody/runs/0/01.ipynb",
    }  # fmt: skip
    return RunRecord.model_validate({**given, **changes})


def make(home, run=None, steps=None):
    lines = home / "results.jsonl"
    lines.unlink(missing_ok=True)
    results.append(lines, steps if steps is not None else [step("answer"), step("bench", rows=[1, 2])])
    return making.record(run or run_record(), lines, home / "labs" / "sources" / f"{LAB}.py")


def test_paths_become_names_and_routes_stay(home):
    here = str(home / "data" / "models.toml")
    given = ["/api/chat", "/v1/chat/completions", "/tmp/x/Modelfile", "~/models/a.gguf", here, "POST /api/show", "/no/such/place"]
    make(home, steps=[step("answer", rows=[{"seen": given}])])
    found = recordings.load(LAB)[1]["answer"][0]["seen"]
    assert found == ["/api/chat", "/v1/chat/completions", "Modelfile", "a.gguf", "models.toml", "POST /api/show", "/no/such/place"]


def test_a_measured_run_becomes_a_recording_that_labs_can_play(home):
    path = make(home)
    assert path == home / "data" / "recordings" / f"{LAB}.jsonl"
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    header, steps = recordings.load(LAB)
    assert steps == {"answer": step("answer")["rows"], "bench": [1, 2]}
    assert header["recording"] == 1
    assert datetime.date.fromisoformat(header["date"]) == datetime.date(2026, 1, 2)
    assert header["machine"] == machine.fingerprint()
    assert {"labkit", "python", "llama-cpp-python"} <= set(header["versions"])
    assert header["notebook_sha256"] == hashlib.sha256(b"# %%\nprint(1)\n").hexdigest()
    run = RunRecord.model_validate(header["run"])
    assert (run.status, run.notebook, run.parameters) == ("ok", None, {"model": "b.gguf", "seed": 1})
    assert "/srv" not in path.read_text()
    assert "a b.gguf" in path.read_text()
    making.check(path)


@pytest.mark.parametrize(
    ("run", "steps", "says"),
    [
        ({"status": "failed"}, None, "only a measured run"),
        ({"source": "recorded"}, None, "only a measured run"),
        ({"source": None}, None, "only a measured run"),
        ({"lab": "02_model_selection"}, None, "not of 01_first_model"),
        ({}, [], "no result lines"),
        ({}, [step("answer", source="recorded")], "source"),
        ({}, [step("answer"), step("answer")], "answer is there twice"),
        ({}, [step("answer", lab="00_other")], "of lab 00_other"),
        ({}, [step("answer", rows=[{"log": "loaded from /home/you/models"}])], "names a local path"),
        ({}, [{"any": "thing"}], "its header: date"),
    ],
)
def test_what_is_no_recording_is_refused_and_the_old_one_stays(home, run, steps, says):
    before = make(home).read_bytes()
    with pytest.raises(BadInput) as caught:
        make(home, run_record(**run), steps)
    assert says in str(caught.value)
    assert recordings.path_of(LAB).read_bytes() == before
    assert [p.name for p in recordings.path_of(LAB).parent.iterdir()] == [f"{LAB}.jsonl"]


def without(*names):
    def change(header, lines):
        place = header
        for name in names[:-1]:
            place = place[name]
        del place[names[-1]]

    change.__name__ = "without " + ".".join(names)
    return change


def with_(**values):
    def change(header, lines):
        header.update(values)

    change.__name__ = f"with {values}"[:40]
    return change


BROKEN = [
    *[without(name) for name in ("recording", "date", "machine", "versions", "run", "notebook_sha256")],
    *[without("machine", name) for name in ("cpu", "cores", "memory_bytes", "id")],
    *[without("run", name) for name in ("run_id", "status", "source")],
    with_(recording=2), with_(date="lately"), with_(versions={}), with_(notebook_sha256="abc"), with_(more=1),
    lambda header, lines: header["run"].update(status="failed"),
    lambda header, lines: header["run"].update(lab="00_other"),
    lambda header, lines: header["run"].update(notebook="/tmp/x/01.ipynb"),
    lambda header, lines: lines.clear(),
    lambda header, lines: lines[1].pop("rows"),
    lambda header, lines: lines[0].update(machine={}),
]  # fmt: skip


@pytest.mark.parametrize("change", BROKEN, ids=lambda change: change.__name__)
def test_a_recording_that_lacks_something_is_refused(home, change):
    path = make(home)
    header, *lines = map(json.loads, path.read_text().splitlines())
    change(header, lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in (header, *lines)))
    with pytest.raises(BadInput, match=f"recording {LAB}.jsonl"):
        making.check(path)


@pytest.mark.parametrize("text", ["", "not JSON\n", "[1]\n", None])
def test_files_that_are_none(home, text):
    path = recordings.path_of(LAB)
    if text is not None:
        path.parent.mkdir()
        path.write_text(text)
    with pytest.raises(BadInput):
        recordings.load(LAB)


def test_a_cut_file_is_refused_wherever_it_is_cut(home):
    path = make(home)
    whole = path.read_bytes()
    ends = {n for n in range(1, len(whole)) if whole[n - 1 : n] == b"\n"}
    for cut in ({*range(0, len(whole), 97)} | {end - 1 for end in ends}) - ends:
        path.write_bytes(whole[:cut])
        with pytest.raises(BadInput):
            making.check(path)


def test_every_recording_of_the_course_is_whole():
    sources = {path.stem for path in paths.labs("sources").glob("*.py")}
    for path in paths.data("recordings").glob("*"):
        making.check(path)
        assert path.stem in sources
