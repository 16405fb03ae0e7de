"""Base images without a registry: what is made stands in for the real one, in its places and its ways."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.core.errors import RunFailed
from labkit.servers import images, runtimes
from labkit.servers.images import bases, runs
from labkit.servers.images.build import public

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "docker.io/library/python:3.11-slim"
OLLAMA = "docker.io/ollama/ollama:0.24.0"


@pytest.fixture(autouse=True)
def podman(needs: Callable[[str], str]) -> str:
    return needs("podman")


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A package of one module, so that pip needs no network."""
    path = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("tiny.py", "def main():\n    print('tiny')\n")
        packed.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        packed.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr("tiny-1.0.dist-info/entry_points.txt", "[console_scripts]\ntiny = tiny:main\n")
        names = ["tiny.py", *(f"tiny-1.0.dist-info/{name}" for name in ("METADATA", "WHEEL", "entry_points.txt", "RECORD"))]
        packed.writestr("tiny-1.0.dist-info/RECORD", "".join(f"{name},,\n" for name in names))
    return path


def test_python_and_pip_work_as_in_the_real_image(wheel: Path) -> None:
    lines = [
        f"FROM {PYTHON} AS build",
        "COPY tiny-1.0-py3-none-any.whl /",
        "RUN pip install --no-index --prefix=/install /tiny-1.0-py3-none-any.whl",
        "RUN python -m venv /opt/venv && /opt/venv/bin/pip install --no-index /tiny-1.0-py3-none-any.whl",
        f"FROM {PYTHON}",
        "COPY --from=build /install /usr/local",
        "COPY --from=build /opt/venv /opt/venv",
        "USER 10001",
        'CMD ["python"]',
    ]
    (wheel.parent / "Containerfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    built = images.build(wheel.parent, "python-check")
    with images.run(built, command=["python", "-c", "import signal; signal.pause()"]) as running:
        said = running.exec(
            ["sh", "-c", "command -v python; command -v pip; command -v tiny; tiny; /opt/venv/bin/tiny"], check=True
        ).stdout.split()
        assert said == ["/usr/local/bin/python", "/usr/local/bin/pip", "/usr/local/bin/tiny", "tiny", "tiny"]
        where = running.exec(["python", "-c", "import sys, tiny; print(sys.version_info[:2], tiny.__file__)"], check=True).stdout
        assert where.strip() == "(3, 11) /usr/local/lib/python3.11/site-packages/tiny.py"
        assert running.exec(["python", "-c", "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"]).stdout.strip() != "0"
    built.remove()


def test_ollama_has_the_real_images_entry_point_and_version() -> None:
    images.ensure(OLLAMA)
    config = images.inspect(OLLAMA).inspect()["Config"]
    assert (config["Entrypoint"], config["Cmd"]) == (["/bin/ollama"], ["serve"])
    assert "OLLAMA_HOST=0.0.0.0:11434" in config["Env"] and "11434/tcp" in config["ExposedPorts"]
    with images.run(OLLAMA, port=11434, env={"HOME": "/tmp"}) as running:
        running.wait("/api/version")
        assert "0.24.0" in running.exec(["ollama", "--version"]).stdout


def test_the_table_has_the_runtimes_own_version() -> None:
    rows = [row for row in bases._rows() if "runtime" in row]
    assert rows and all(row["version"] == runtimes.open(row["runtime"]).version for row in rows)


def test_a_stand_in_says_that_it_is_one_and_is_of_no_run() -> None:
    for ref in bases.public_names():
        images.ensure(ref)
        labels = images.inspect(ref).inspect()["Config"]["Labels"] or {}
        if images.stand_in(ref):  # where a registry answers it is the real one
            assert labels["labkit.version"]
            assert "labkit.run" not in labels, "it would be removed with that run"


def test_what_does_not_run_is_not_kept() -> None:
    name = "localhost/labkit-test-broken:1"
    run = runs.current()
    images.ensure("debian:bookworm-slim")
    run.tool.run(["tag", "docker.io/library/debian:bookworm-slim", name])
    with pytest.raises(RunFailed, match="does not run"):
        bases._check(name, ["/no/such/program"])
    assert not bases.here(name)
    assert bases.here("debian:bookworm-slim"), "only the broken name goes"


def test_the_stacks_build_on_what_the_table_can_make() -> None:
    rows = bases.table()
    for recipe in sorted((ROOT / "labs" / "stacks").rglob("Containerfile")):
        for ref in public(recipe.read_text(encoding="utf-8"), {}):
            assert bases.normal(ref) in rows, f"{recipe}: {ref} is in no row of data/images.toml"


def test_the_stand_ins_files_are_linted_and_all_in_the_table() -> None:
    files = sorted((ROOT / "data" / "images").rglob("Containerfile"))
    assert {path.parent.name for path in files} == {row["folder"] for row in bases._rows() if "folder" in row}
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tables_file_has_no_other_tables() -> None:
    assert set(tomllib.loads((ROOT / "data" / "images.toml").read_text(encoding="utf-8"))) == {"image"}
