"""The other tools: what they find is named after them, at its line; one that is missing is told once, and hygiene stays out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.facts import lint
from labkit.facts.lint import tools

LABKIT = str(Path(sys.executable).parent / "labkit")

CASES = {
    "Dockerfile": ("hadolint/DL1000", 3, "FROM debian:latest\nRUN apt-get update\nCOPPY a b\n"),
    "compose.yaml": ("check-jsonschema/schema", 4, "services:\n  a:\n    image: x\n    prots: ['1:2']\n"),
    ".github/workflows/ci.yml": ("check-jsonschema/schema", 5, "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    stpes: []\n"),
    "pod.yaml": (
        "kubernetes-validate/schema",
        9,
        "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n"
        "    - {name: a, imge: b}\n",
    ),
    "prometheus.yml": ("yamllint/key-duplicates", 3, "scrape_configs: []\nrule_files: []\nrule_files: []\n"),
    "broken/compose.yaml": ("yamllint/syntax", 3, "services:\n  a: [1\n  b: 2\n"),
}


@pytest.fixture
def needs_tools():
    missing = [tool for tool in tools.missing() if tool != "promtool"]
    assert missing == [], "make install SET=all"


@pytest.mark.parametrize("name", CASES)
def test_a_tool_finds_at_its_line(name, tmp_path, needs_tools):
    rule, line, text = CASES[name]
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    found = [(finding.rule, finding.line) for finding in lint.check(path).findings if "/" in finding.rule]
    assert (rule, line) in found


def test_hygiene_is_left_out(tmp_path, needs_tools):
    path = tmp_path / "Dockerfile"
    path.write_text("FROM debian:latest\nRUN apt-get update\nRUN apt-get install -y curl\nADD a /a\nUSER root\n", encoding="utf-8")
    assert lint.check(path).findings == []


def test_a_missing_tool_is_told_with_the_command_that_gets_it(tmp_path, monkeypatch):
    def gone(path, kind):
        raise ImportError

    monkeypatch.setitem(tools.TOOLS, "yamllint", (("prometheus",), gone, ""))
    path = tmp_path / "prometheus.yml"
    path.write_text("scrape_configs: []\n", encoding="utf-8")
    told: list[str] = []
    assert lint.check(path, told.append).findings == []
    assert any("yamllint is not installed" in sentence and "--extra lint" in sentence for sentence in told)


def test_a_tool_that_does_not_end_is_left_out(tmp_path, monkeypatch):
    def slow(path, kind):
        raise subprocess.TimeoutExpired("hadolint", 1)

    monkeypatch.setitem(tools.TOOLS, "hadolint", (("dockerfile",), slow, ""))
    path = tmp_path / "Dockerfile"
    path.write_text("FROM debian\n", encoding="utf-8")
    told: list[str] = []
    assert lint.check(path, told.append).findings == []
    assert "did not end" in told[0]


def labkit(*words):
    return subprocess.run([LABKIT, "lint", *map(str, words)], capture_output=True, text=True, check=False)


def test_the_command_prints_findings_as_the_contract_says(tmp_path):
    bad, good, other = tmp_path / "Modelfile", tmp_path / "ok.modelfile", tmp_path / "notes.txt"
    bad.write_text("FROM a\nPARAMETER context_length 1\nFILE x\n", encoding="utf-8")
    good.write_text("FROM a\n", encoding="utf-8")
    other.write_text("FROM a\nPARAMETER context_length 1\n", encoding="utf-8")
    done = labkit(good, bad, other, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [list(row) for row in rows] == [["file", "line", "rule", "message", "fix", "source"]] * 2
    assert [(row["file"], row["line"], row["rule"]) for row in rows] == [
        (str(bad), 2, "modelfile-parameter"),
        (str(bad), 3, "modelfile-instruction"),
    ]
    assert "notes.txt: of no kind" in done.stderr
    assert labkit(other).returncode == 0
    assert labkit(good).returncode == 0
    table = labkit(bad)
    assert table.returncode == 1
    assert "PARAMETER num_ctx" in table.stdout


def test_bad_input_is_one_sentence_and_changes_nothing(tmp_path):
    bad = tmp_path / "Modelfile"
    bad.write_text("FROM a\nPARAMETER context_length 1\n", encoding="utf-8")
    binary = tmp_path / "Dockerfile"
    binary.write_bytes(b"FROM \xff\xfe")
    for wrong in (tmp_path / "none", tmp_path, binary):
        done = labkit("--fix", bad, wrong)
        assert done.returncode == 2
        assert done.stdout == ""
        assert len(done.stderr.strip().splitlines()) == 1
    assert "context_length" in bad.read_text(encoding="utf-8")


def test_fix_mends_in_place_keeps_the_mode_and_line_ends_and_is_idempotent(tmp_path):
    path = tmp_path / "run.sh"
    path.write_bytes(b"#!/bin/sh\r\nollama pul phi4:mini\r\nfoundry-local init\r\n")
    path.chmod(0o755)
    done = labkit("--fix", path)
    assert done.returncode == 1  # foundry-local init has no mechanical fix
    assert "foundry-cli-name" in done.stdout or "foundry" in done.stdout
    once = path.read_bytes()
    assert once == b"#!/bin/sh\r\nollama pull phi4-mini\r\nfoundry-local init\r\n"
    assert path.stat().st_mode & 0o777 == 0o755
    assert labkit("--fix", path).returncode == 1
    assert path.read_bytes() == once
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.sh"]


@pytest.mark.parametrize(
    ("said", "rows"),
    [
        ('\nr.yml: 5:15: group "g", rule 1: could not parse expression: 1:35: parse error: unexpected <by>', [(5, "group")]),
        (" parsing YAML file r.yml: yaml: unmarshal errors:\n  line 2: field job_nam not found", [(2, "field job_nam")]),
        (' parsing YAML file r.yml: not a valid duration string: "15x"', [(1, "not a valid duration")]),
    ],
)
def test_what_promtool_says_becomes_lines_of_the_file(said, rows):
    """In the words of promtool 2.42."""
    found = list(tools._promtool_rows(said, "r.yml"))
    assert [(line, message[: len(start)]) for (line, _, message), (_, start) in zip(found, rows, strict=True)] == rows
