"""README and site: they build offline, what they take from the code is current, and what they name exists."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from parts import network_namespace

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
# what labs 00 to 02 use without saying more
TERMS = """token; tokenizer; vocabulary; bos; eos; chat template; logit; softmax; greedy; temperature; top-p; seed; context window;
prefill; decode; kv cache; ttft; tpot; itl; throughput; goodput; parameter; weight; bits per weight; quantization; gguf; repacking;
footprint; mmap; pss; sliding-window attention; grouped-query attention; mixture of experts; moe; active parameters; roofline;
memory bandwidth; pareto front; licence; percentile; median; interleaved a/b; warm-up; recording; shape-true model; engine; layer;
head; hidden size; prompt; system prompt; stop sequence; sampling; compute buffer; perplexity"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly and without a network."""
    prefix = network_namespace() or []  # where there is none, the links below are still looked at
    folder = tmp_path_factory.mktemp("site")
    command = [*prefix, sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_site_takes_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert site / "index.html" in pages
    loads = re.compile(
        r"<(?:script|img|iframe|source)[^>]+src=[\"']?(?:https?:)?//[^>]*>|<link[^>]+rel=[\"']?stylesheet[^>]+href=[\"']?https?:[^>]*>"
    )
    found = {page.name: loads.findall(page.read_text(encoding="utf-8")) for page in pages}
    assert not {name: tags for name, tags in found.items() if tags}
    imports = [
        css.name
        for css in site.rglob("*.css")
        if re.search(r"@import\s+url\(['\"]?https?:|src:\s*url\(['\"]?https?:", css.read_text(encoding="utf-8"))
    ]
    assert not imports


def test_site_has_a_page_for_every_built_lab(site: Path) -> None:
    built = [path.stem for path in (ROOT / "labs").glob("[0-9][0-9]_*.ipynb")]
    assert built, "no lab is built: labkit build"
    assert sorted(built) == sorted(page.stem for page in (site / "notebooks").glob("*.html"))


def test_a_lab_is_ready_or_planned_and_not_both() -> None:
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    planned = set(re.findall(r"^\| (\d\d) ", page, re.MULTILINE))
    ready = {path.name[:2] for path in (ROOT / "labs" / "sources").glob("[0-9][0-9]_*.py")}
    assert planned & ready == set(), "strike it from the table of planned labs"
    assert planned | ready <= {f"{n:02}" for n in range(24)}


def test_generated_pages_are_current(reference) -> None:
    assert reference.main(["--check"]) == 0, "run make docs"


def test_a_stale_page_is_noticed(reference, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference.COMMANDS = ROOT / "docs" / "reference" / "commands-that-are-not-there.md"
    assert reference.main(["--check"]) == 1
    assert "commands-that-are-not-there.md" in capsys.readouterr().err
    assert not reference.COMMANDS.exists()


def test_every_command_is_on_the_page(reference) -> None:
    page = reference.commands_page()
    for command in ("chat", "bench", "footprint", "inspect", "models verify", "models shape", "cache", "serve", "run", "batch", "report"):
        assert f"\n## `labkit {command}`\n" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_to_files_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and not target.startswith(("http:", "https:", "mailto:"))]
    # the site keeps the built notebooks at notebooks/; everywhere else a link is a file
    missing = [
        t for t in local if not (ROOT / "labs" / t.removeprefix("notebooks/") if t.startswith("notebooks/") else page.parent / t).exists()
    ]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_in_the_pages_exist(page: Path, reference, needs: Callable[[str], str]) -> None:
    text = page.read_text(encoding="utf-8")
    known = set(re.findall(r"^## `labkit ([a-z]+)", reference.commands_page(), flags=re.MULTILINE))
    code = "\n".join(re.findall(r"```(?:sh|powershell)\n(.*?)```", text, flags=re.DOTALL) + re.findall(r"`([^`\n]+)`", text))
    used = set(re.findall(r"(?:bin/labkit|run --no-sync labkit|^labkit) ([a-z]+)", code, flags=re.MULTILINE))
    assert used <= known
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"(?:^|[\s`])make ([a-z]+)", code, flags=re.MULTILINE)) <= targets


def glossary() -> list[str]:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    return re.findall(r"^### (.+)$", text, flags=re.MULTILINE)


def test_glossary_has_every_term_in_order() -> None:
    entries = glossary()
    assert [entry.lower() for entry in entries] == sorted(entry.lower() for entry in entries)
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").lower()
    heads = " ; ".join(entries).lower()
    missing = [term for term in (t.strip() for t in TERMS.replace("\n", " ").split(";")) if term not in heads and f"*{term}*" not in text]
    assert not missing


def test_site_is_configured_for_offline_use() -> None:
    theme = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["theme"]
    assert theme["font"] is False


def test_screenshot_is_a_picture() -> None:
    picture = (ROOT / "docs" / "img" / "lab02.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000


@pytest.fixture
def reference():
    """scripts/reference.py as a module, fresh for each test."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
