"""Every word of the tables, misspelt by a swap, a drop or a doubling of letters, is found, unless the slip is itself a known word."""

import json
import re
from collections.abc import Callable, Iterable, Iterator

import pytest

from labkit.facts.lint import check_text
from labkit.facts.lint.vocabulary import route, table


def slips(word: str) -> Iterator[str]:
    """Two neighbours swapped, a letter dropped, a letter doubled; signs between letters stay."""
    for at, letter in enumerate(word):
        if letter.isalnum():
            yield word[:at] + word[at + 1 :]
            yield word[:at] + letter + word[at:]
            if at + 1 < len(word) and word[at + 1].isalnum() and word[at + 1] != letter:
                yield word[:at] + word[at + 1] + letter + word[at + 2 :]


def missed(words: Iterable[str], valid: Callable[[str], bool], name: str, line: str, before: str = "", after: str = "") -> list[str]:
    """The slips that nothing is found for, of all that are not `valid`. They are written into one file, one to a line."""
    rows = [(word, slip) for word in words for slip in sorted(set(slips(word))) if not valid(slip)]
    assert len(rows) > 2
    text = before + "".join(line.replace("@", slip) for _, slip in rows) + after
    step, first = line.count("\n"), before.count("\n") + 1
    found = {finding.line for finding in check_text(name, text).findings}
    return [f"{word} -> {slip}" for n, (word, slip) in enumerate(rows) if not found & set(range(first + n * step, first + (n + 1) * step))]


def one_of(*groups: Iterable[str]) -> Callable[[str], bool]:
    known = {word for group in groups for word in group}
    return known.__contains__


def test_slips_are_swaps_drops_and_doublings():
    assert set(slips("abc")) == {"bc", "ac", "ab", "aabc", "abbc", "abcc", "bac", "acb"}


def test_modelfile_parameters():
    rows = table("ollama")["modelfile"]
    valid = one_of(rows["parameters"], rows["retired_parameters"])
    assert missed(rows["parameters"], valid, "Modelfile", "PARAMETER @ 1\n", "FROM a\n") == []
    assert missed(rows["parameters"], valid, "a.md", "PARAMETER @ 1\n", "```modelfile\nFROM a\n", "```\n") == []


def test_modelfile_instructions_and_roles():
    rows = table("ollama")["modelfile"]
    for words in (rows["instructions"], [word.lower() for word in rows["instructions"]]):
        assert missed(words, lambda slip: slip.upper() in rows["instructions"], "Modelfile", "@ b\n", "FROM a\n") == []
    assert missed(rows["roles"], one_of(rows["roles"]), "Modelfile", "MESSAGE @ hi\n", "FROM a\n") == []
    fields = ["System", "Prompt", "Response", "Messages", "Content", "ToolCalls"]
    assert missed(fields, one_of(rows["template_fields"]), "Modelfile", 'TEMPLATE """{{ .@ }}"""\n', "FROM a\n") == []


@pytest.mark.parametrize(
    ("name", "line", "before"),
    [
        (".env", "@=1\n", ""),
        ("a.sh", "export @=1\n", ""),
        ("compose.yaml", "      @: 1\n", "services:\n  o:\n    image: ollama/ollama\n    environment:\n"),
        ("compose.yaml", "      - @=1\n", "services:\n  o:\n    image: ollama/ollama\n    environment:\n"),
        ("Dockerfile", "ENV @=1\n", "FROM ollama/ollama\n"),
        ("k.yaml", "    - {name: @, value: x}\n", "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: ollama/ollama\n    env:\n"),
    ],
)
def test_ollama_environment(name, line, before):
    rows = table("ollama")["env"]
    assert missed(rows["real"], one_of(rows["real"], rows["others"]["names"]), name, line, before) == []


@pytest.mark.parametrize("server", ["vllm", "llamacpp"])
def test_other_environments(server):
    rows = table(server)
    valid = one_of(rows["env"], rows.get("other_env", []), table("llamacpp_tools")["build"])
    assert missed(rows["env"], valid, ".env", "@=1\n") == []


@pytest.mark.parametrize(
    ("server", "line", "before"),
    [
        ("ollama", "curl -X OPTIONS http://localhost:11434@\n", ""),
        ("ollama", "curl -X OPTIONS $OLLAMA_HOST@\n", ""),
        ("vllm", "curl -X OPTIONS http://127.0.0.1:8000@\n", "vllm serve m &\n"),
        ("llamacpp", "curl -X OPTIONS http://127.0.0.1:8080@\n", "llama-server -m m.gguf &\n"),
        ("foundry", "curl -X OPTIONS http://127.0.0.1:5273@\n", ""),
    ],
)
def test_routes(server, line, before):
    words = [name for name in table(server)["routes"] if "{" not in name and name != "/"]
    # a slip that is a folder of routes, or a name behind one, may be meant
    assert missed(words, lambda slip: route(server, slip) is not None, "a.sh", line, before) == []


def test_probes():
    words = [name for name in table("ollama")["routes"] if "{" not in name and name != "/"]
    line = "  - {name: a, image: ollama/ollama, livenessProbe: {httpGet: {path: @, port: 11434}}}\n"
    before = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n"
    assert missed(words, lambda slip: route("ollama", slip) is not None, "k.yaml", line, before) == []


def test_ollama_commands_and_flags():
    rows = table("ollama")["commands"]
    assert missed(rows, one_of(rows), "a.sh", "ollama @ x\n") == []
    assert missed(rows, one_of(rows), "a.md", "ollama @ x\n", "```bash\n", "```\n") == []
    for command, flags in rows.items():
        long = [flag for flag in flags if flag.startswith("--")]
        valid = one_of(flags, ["--verbose", "--version", "--help", "--nowordwrap"])
        if long:
            assert missed(long, valid, "a.sh", f"ollama {command} x @\n") == []
    assert missed(["ollama"], one_of(["llama"]), "a.sh", "@ pull x\n") == []


def test_foundry_commands():
    rows = table("foundry")["commands"]
    assert missed(rows, one_of(rows), "a.sh", "foundry @ x\n") == []
    for group, known in rows.items():
        if known:
            assert missed(known, one_of(known), "a.sh", f"foundry {group} @ x\n") == []


def test_vllm_commands_and_flags():
    rows = table("vllm")
    flags = [f"--{flag}" for flag in rows["flags"] if len(flag) > 3]
    known = {f"--{flag}" for flag in [*rows["flags"], *rows["older_flags"]]}
    known |= {"--no-" + flag[2:] for flag in known}

    def valid(slip: str) -> bool:  # argparse takes a beginning that fits
        return any(flag.startswith(slip) for flag in known) or not re.match("--[a-z]", slip)

    assert missed(flags, valid, "a.sh", "vllm serve m @ 1\n") == []
    assert missed(rows["commands"], one_of(rows["commands"]), "a.sh", "vllm @ m\n") == []


def test_llamacpp_flags_and_programs():
    rows = table("llamacpp")
    known = {*rows["flags"], *rows["older_flags"]}
    long = [flag for flag in rows["flags"] if flag.startswith("--") and len(flag) > 6]
    assert missed(long, lambda slip: slip in known or not re.match("--[a-z]", slip), "a.sh", "llama-server -m a.gguf @ 1\n") == []
    tools = table("llamacpp_tools")["programs"]
    assert missed(tools, one_of(tools), "a.sh", "@ -m a.gguf\n") == []


def test_olive():
    rows = table("toolchains")
    assert missed(rows["commands"], one_of(rows["commands"]), "a.sh", "olive @ --help\n") == []
    lowered = {name.lower() for name in rows["passes"]}
    names = [name for name in rows["passes"] if len(name) > 3]
    wrong = [slip for name in names for slip in set(slips(name)) if slip.lower() not in lowered]
    text = json.dumps({"input_model": {"type": "HfModel"}, "passes": {str(n): {"type": slip} for n, slip in enumerate(wrong)}}, indent=0)
    told = " ".join(finding.message for finding in check_text("olive.json", text).findings)
    assert [slip for slip in wrong if f"pass {slip} " not in told + " "] == []


def test_metrics_and_prometheus_fields():
    rows = table("vllm")
    known = {*rows["metrics"], *rows["older_metrics"]}

    def valid(slip: str) -> bool:  # the program's own name in front is not ours to guess, nor the endings that Prometheus adds
        return not slip.startswith("vllm:") or re.sub("_(total|info|count|sum)$", "", slip) in known or slip in known

    before = "groups:\n- name: a\n  rules:\n"
    assert missed(rows["metrics"], valid, "r.yml", "  - {record: a, expr: '@'}\n", before) == []
    fields = table("prometheus")
    for level, before in {
        "top": "scrape_configs: []\n",
        "global": "scrape_configs: []\nglobal:\n",
        "scrape": "scrape_configs:\n- job_name: a\n",
        "rule": "groups:\n- name: a\n  rules:\n  - record: a\n    expr: a\n",
    }.items():
        indent = {"top": "", "global": "  ", "scrape": "  ", "rule": "    "}[level]
        name = "r.yml" if level == "rule" else "prometheus.yml"
        assert missed(fields[level], one_of(fields[level]), name, f"{indent}@: 1\n", before) == []


def test_images():
    assert missed(["ollama/ollama", "vllm/vllm-openai"], lambda _: False, "a.sh", "docker pull @\n") == []
