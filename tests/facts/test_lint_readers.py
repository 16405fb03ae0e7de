"""What files are read into: kinds, the lines of words, blocks of Markdown; and that damaged files do not bring the checker down."""

import random
from pathlib import Path

import pytest

from labkit.facts.lint import check_text, kinds, markdown, shell, vocabulary
from labkit.facts.lint.vocabulary import distance, nearest, table

GOOD = Path(__file__).parents[1] / "fixtures" / "lint" / "good"


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("Modelfile", "", "modelfile"),
        ("chat.Modelfile", "", "modelfile"),
        ("Modelfile.md", "# About", "markdown"),
        ("Containerfile", "", "dockerfile"),
        ("app.dockerfile", "", "dockerfile"),
        ("Dockerfile.dockerignore", "a", None),
        ("x/docker-compose.yml", "services: {}", "compose"),
        ("stack.yaml", "services: {a: {image: b}}", "compose"),
        ("values.yaml", "services: {a: {image: b}}", None),
        ("any.yaml", "apiVersion: v1\nkind: Pod\n", "kubernetes"),
        ("prometheus.yaml", "apiVersion: v1\nkind: Pod\n", "kubernetes"),
        ("templates/a.yaml", "apiVersion: v1\nkind: Pod\nx: {{ .Values.y }}\n", None),
        ("prometheus.yml", "scrape_configs: []", "prometheus"),
        ("alerts.yml", "groups: [{name: a, rules: []}]", "prometheus-rules"),
        (".github/workflows/a.yml", "on: push\njobs: {}", "workflow"),
        ("a.yml", "on: push\njobs: {a: {}}", "workflow"),
        ("mkdocs.yml", "site_name: a", None),
        ("start", "#!/usr/bin/env bash\n", "shell"),
        ("start", "FROM a\nPARAMETER seed 1\n", "modelfile"),
        ("start", "FROM a\nRUN b\n", "dockerfile"),
        ("notes.txt", "FROM a\nPARAMETER seed 1\n", None),
        ("prod.env", "", "env"),
        ("package.json", '{"name": "a"}', None),
        ("broken.json", '{"hardware": ', None),
        ("main.py", "import os", None),
    ],
)
def test_kinds_by_name_then_by_content(name, text, kind):
    assert kinds.recognise(name, text) == kind


def test_a_script_is_cut_into_commands_with_lines():
    text = (
        "# c\nA=1 b 'x y' \\\n  --z=\"$(d e)\" # f\nif ! g | h && i; then j; fi\nk 2>&1 > out\ncat > f <<'EOF'\nl m\nEOF\n"
        "case $1 in n) o ;; esac\nbash -c 'p; q'\n"
    )
    script = shell.parse(text, 10)
    found = {" ".join(word.text for word in command.words): command.line for command in script.commands}
    assert found["b x y --z=$(…)"] == 11
    assert found["d e"] == 12
    assert (found["g"], found["h"], found["i"], found["j"]) == (13, 13, 13, 13)
    assert (found["k"], found["cat"], found["o"]) == (14, 15, 18)
    assert (found["p"], found["q"]) == (19, 19)
    assert "l m" not in found
    assert [(here.text, here.line, here.target) for here in script.heredocs] == [("l m", 16, "f")]
    (first,) = (command for command in script.commands if command.name == "b")
    assert [(setting.name, setting.value) for setting in first.env] == [("A", "1")]
    assert [word.line for word in first.words] == [11, 11, 12]


def test_blocks_of_markdown_keep_the_lines_of_the_page():
    text = (
        "# t\n\n```sh\na b\n```\n- item\n\n  ~~~console\n  $ ollama ps\n  NAME\n  ~~~\n> ```yaml\n> a: 1\n> ```\n"
        "````md\n```sh\nno\n```\n````\n"
        "<!-- labkit lint: off -->\n```sh\noff\n```\n"
    )
    assert [(block.kind, block.text, block.line) for block in markdown.blocks(text)] == [
        ("shell", "a b", 4),
        ("shell", "ollama ps\n", 9),
        ("yaml", "a: 1", 13),
    ]


def plainly(one: str, other: str) -> int:
    """Optimal string alignment by its definition."""
    rows = [[max(i, j) if 0 in (i, j) else 0 for j in range(len(other) + 1)] for i in range(len(one) + 1)]
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            rows[i][j] = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (one[i - 1] != other[j - 1]))
            if i > 1 and j > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
                rows[i][j] = min(rows[i][j], rows[i - 2][j - 2] + 1)
    return rows[-1][-1]


def test_the_distance_is_that_of_the_definition_up_to_its_limit():
    chance = random.Random(3)
    for _ in range(3000):
        one, other = ("".join(chance.choice("abc") for _ in range(chance.randrange(9))) for _ in range(2))
        for limit in (1, 2, 3):
            assert distance(one, other, limit) == min(plainly(one, other), limit + 1), (one, other, limit)


def test_distances():
    assert [distance(*pair) for pair in (("ab", "ab"), ("ab", "ba"), ("ab", "b"), ("ab", "abb"), ("xaby", "zabw"))] == [0, 1, 1, 1, 2]
    assert distance("abcdef", "uvwxyz", 2) == 3
    assert nearest("num_cxt", ["num_ctx", "num_gpu"]) == "num_ctx"
    assert nearest("num_ctx", ["num_ctx"]) is None
    assert nearest("ab", ["ac"]) is None


@pytest.mark.parametrize("name", vocabulary.names())
def test_every_table_says_version_date_and_source(name):
    assert {"version", "date", "source"} <= set(table(name))


def test_damaged_files_are_read_to_the_end():
    chance = random.Random(7)
    marks = ['"', "'", "{", "[", "$(", "<<EOF\n", "\\", "\n  - ", '"""', "\x00", "é", ": ", "```\n", "{{ "]
    for path in sorted(path for path in GOOD.rglob("*") if path.is_file()):
        text = path.read_text(encoding="utf-8")
        for _ in range(6):
            at = chance.randrange(len(text))
            check_text(str(path), text[:at] if chance.random() < 0.4 else text[:at] + chance.choice(marks) + text[at:])


def test_what_is_meant_to_be_wrong_can_be_said_so():
    wrong = "ollama pul x\n"
    assert check_text("a.sh", wrong).findings
    assert check_text("a.sh", wrong.replace("\n", "  # labkit lint: off\n")).findings == []
    assert check_text("a.sh", "# labkit lint: off\n" + wrong).findings == []
    assert check_text("a.sh", "# labkit lint: off\n\n" + wrong).findings
