"""The tables of Ollama against the running program: parameters, instructions, routes, methods, commands, flags and environment names."""

import os
import re
import subprocess

import httpx
import pytest

from labkit import models, servers
from labkit.facts.lint import check_text
from labkit.facts.lint.vocabulary import table
from labkit.servers import runtimes

REF = "stdlib-10m"
ROWS = table("ollama")


@pytest.fixture(scope="module")
def running():
    with servers.open("ollama").start(models.resolve(REF), context=256, parallel=1, threads=1) as server:
        yield server


@pytest.fixture(scope="module")
def ollama(running):
    """ollama("create", …) asks that server; gives exit code and what is printed."""
    program = str(runtimes.open("ollama").require().path)
    env = {**os.environ, "OLLAMA_HOST": running.url, "HOME": str(running.folder)}

    def call(*words):
        done = subprocess.run([program, *words], capture_output=True, text=True, env=env, check=False, timeout=60)
        return done.returncode, done.stdout + done.stderr

    return call


def create(ollama, tmp_path, text):
    path = tmp_path / "Modelfile"
    path.write_text(text, encoding="utf-8")
    return ollama("create", "lint-check", "-f", str(path))


def test_it_is_the_version_that_the_table_says(ollama):
    assert ROWS["version"] in ollama("--version")[1]


def test_parameters_are_taken_and_misspelt_ones_refused(ollama, tmp_path):
    good = {"int": "1", "float": "0.5", "bool": "true", "text": "END"}
    rows = ROWS["modelfile"]["parameters"]
    text = f"FROM {REF}\n" + "".join(f"PARAMETER {name} {good[kind]}\n" for name, kind in rows.items())
    assert check_text("Modelfile", text).findings == []
    assert create(ollama, tmp_path, text)[0] == 0
    for name in [*(name[:-1] for name in rows), *ROWS["modelfile"]["meant"]]:
        if name not in rows:
            text = f"FROM {REF}\nPARAMETER {name} 1\n"
            code, said = create(ollama, tmp_path, text)
            assert code != 0
            assert f"unknown parameter '{name}'" in said
            assert [found.rule for found in check_text("Modelfile", text).findings] == ["modelfile-parameter"]


@pytest.mark.parametrize("value", ["4k", "4096 # tokens", "1.5", "many", "0x10", '"8"', "-1", "+2"])
@pytest.mark.parametrize("name", ["num_ctx", "temperature", "use_mmap", "stop"])
def test_values_are_judged_as_the_program_does(ollama, tmp_path, name, value):
    text = f"FROM {REF}\nPARAMETER {name} {value}\n"
    refused = create(ollama, tmp_path, text)[0] != 0
    assert bool(check_text("Modelfile", text).findings) == refused


def test_retired_parameters_are_taken_with_a_warning(ollama, tmp_path):
    text = f"FROM {REF}\n" + "".join(f"PARAMETER {name} 1\n" for name in ROWS["modelfile"]["retired_parameters"])
    code, said = create(ollama, tmp_path, text)
    assert code == 0
    assert all(f"parameter {name} is deprecated" in said for name in ROWS["modelfile"]["retired_parameters"])


INSTRUCTIONS = {
    "FROM": REF, "PARAMETER": "num_ctx 64", "TEMPLATE": "{{ .Prompt }}", "SYSTEM": "Be brief.", "LICENSE": "MIT", "MESSAGE": "user hello",
    "REQUIRES": "0.14.0", "RENDERER": "none", "PARSER": "none", "ADAPTER": "./none.gguf", "DRAFT": "none",
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS["modelfile"]["instructions"])
def test_an_instruction_is_known_and_a_misspelt_one_is_not(ollama, tmp_path, name):
    lines = "" if name == "FROM" else f"FROM {REF}\n"
    assert "command must be one of" not in create(ollama, tmp_path, f"{lines}{name} {INSTRUCTIONS[name]}\n")[1]
    code, said = create(ollama, tmp_path, f"FROM {REF}\n{name}{name[-1]} {INSTRUCTIONS[name]}\n")
    assert code != 0
    assert "command must be one of" in said


@pytest.mark.parametrize(
    "text",
    [
        "SYSTEM Be brief.\n",
        f'FROM {REF}\nSYSTEM """\nBe brief.\n',
        f"FROM {REF}\nMESSAGE human hi\n",
        f"FROM {REF}\nREQUIRES newest\n",
        f"FROM {REF}\nFILE ./a.txt\n",
        f"FROM {REF}\nSYSTEM You are a cat.\nYou purr.\n",
        f'FROM {REF}\nTEMPLATE """{{{{ if .System }}}}{{{{ .Prompt }}}}"""\n',
        f"FROM {REF}\nSYSTEM Be brief.\nMESSAGE assistant yes\n",
        f'from {REF}\nsystem """two\nlines"""\nparameter stop "<|end|>"\n',
        f'FROM {REF}\n  # a comment\nLICENSE """\nFILE is a word here\n"""\n',
        f"FROM {REF}\nREQUIRES v0.14\n",
    ],
)
def test_a_file_is_refused_by_both_or_by_neither(ollama, tmp_path, text):
    refused = create(ollama, tmp_path, text)[0] != 0
    assert bool(check_text("Modelfile", text).findings) == refused


def test_routes_answer_and_only_with_their_methods(running):
    for name, methods in ROWS["routes"].items():
        if name in {"/api/signout", "/api/me", "/api/user/keys/{key}", "/api/experimental/model-recommendations"}:
            continue  # they ask ollama.com
        path = re.sub(r"\{\w+\}", "sha256:0" if "blobs" in name else "none", name)
        for method in ("GET", "POST", "DELETE", "HEAD"):
            answer = httpx.request(method, running.url + path, timeout=30)
            if method in methods:
                assert answer.status_code != 405, (method, name)
                assert "404 page not found" not in answer.text, (method, name)
            else:
                assert answer.status_code in (404, 405), (method, name, answer.status_code)


def test_what_people_ask_for_instead_is_not_there(running):
    for path in [*ROWS["routes_meant"], "/metrics", "/api/genrate", "/api/v1/chat"]:
        assert httpx.get(running.url + path, timeout=30).status_code == 404, path
        assert check_text("a.sh", f"curl http://localhost:11434{path}\n").findings


def test_commands_and_flags_exist(ollama):
    for command, flags in ROWS["commands"].items():
        if command in {"runner", "completion"}:
            continue
        code, said = ollama(command, "--help")
        assert code == 0, command
        shown = set(re.findall(r"(?<!\S)(--?[\w-]+)", said))
        hidden = {"--imagegen", "--width", "--height", "--steps", "--seed", "--negative"}
        assert set(flags) - shown - hidden == set(), command
    for command in ROWS["commands_meant"]:
        code, said = ollama(command)
        assert code != 0
        assert "unknown command" in said


def test_environment_names_are_those_that_serve_lists(ollama):
    said = ollama("serve", "--help")[1]
    listed = set(re.findall(r"\bOLLAMA_[A-Z_]+", said))
    assert listed - set(ROWS["env"]["real"]) == set()
    wrong = {*ROWS["env"]["removed"], *ROWS["env"]["never"]}
    assert listed & wrong == set()
    # the program holds every name that it reads, and none that it does not
    program = runtimes.open("ollama").require().path.read_bytes()
    assert [name for name in ROWS["env"]["real"] if name.encode() not in program] == []
    words = {word.decode() for word in re.findall(rb"OLLAMA_[A-Z_]+", program)}
    assert words & (wrong - {"OLLAMA_MAX_VRAM"}) == set()
