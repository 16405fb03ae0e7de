"""Which tool, and what it is asked: a fake podman and a fake docker write down their words. No container is started."""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.servers import images
from labkit.servers.images import bases, long, runs, sweep
from labkit.servers.images.build import public
from labkit.servers.images.compose import _program
from labkit.servers.images.tool import environment

FAKE = """#!{python} -I
import json, os, sys
words = sys.argv[1:]
with open({log!r}, "a", encoding="utf-8") as log:
    log.write(json.dumps([{name!r}, *words]) + "\\n")
image = {{"Id": "sha256:1", "Size": 5, "Config": {{"User": {user!r}}}}}
if words[:1] in (["info"], ["version"]):
    print({version!r} if "Version" in words[-1] else "")
    sys.exit({code})
elif words[:2] == ["image", "inspect"]:
    print(json.dumps([image]))
elif words[:1] == ["history"]:
    print('[{{"size": 5, "CreatedBy": "RUN x"}}]' if "json" in words else "5\\tRUN x")
elif words[:1] == ["run"]:
    print("abc123")
elif words[:1] == ["port"]:
    print("127.0.0.1:40001")
elif words[:2] == ["container", "inspect"]:
    test = {{"Healthcheck": {{"Test": ["CMD-SHELL", "check me"]}}}}
    print(json.dumps([{{"State": {{"Running": True, "Pid": 0}}, "Config": test}}]))
"""
Calls = Callable[[], list[list[str]]]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Calls]:
    """fake("docker") puts a program of that name on an otherwise empty path; it returns what gives its calls."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(runs, "_runs", {})
    monkeypatch.setattr(runs.Run, "kept", lambda self: None)
    monkeypatch.setattr(runs.atexit, "register", lambda *_: None)
    log = tmp_path / "calls"

    def make(name: str, version: str = "27.0", code: int = 0, user: str = "10001") -> Calls:
        text = FAKE.format(python=sys.executable, log=str(log), name=name, version=version, code=code, user=user)
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
        return lambda: [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []

    return make


def test_podman_comes_first(fake: Callable) -> None:
    fake("docker")
    fake("podman", "4.3.1")
    assert images.tool().name == "podman" and images.version() == "podman 4.3.1"
    assert images.missing() is None


def test_docker_counts_where_its_engine_answers(fake: Callable) -> None:
    fake("docker", "27.1")
    assert images.version() == "docker 27.1"


def test_a_docker_client_without_its_engine_does_not_count(fake: Callable) -> None:
    fake("docker", code=1)
    said = images.missing()
    assert said and "engine does not answer" in said and said.count("install it: ") == 1
    fake("docker")
    assert images.missing() is None, "an engine that is started later is found"


def test_nothing_there_is_one_sentence_with_the_install_command(fake: Callable) -> None:
    said = images.missing()
    assert said and said.startswith("neither podman nor Docker is installed; install it: ")
    with pytest.raises(MissingPart):
        images.tool()


@pytest.mark.parametrize(("hidden", "left"), [("containers", None), ("podman", "docker"), ("podman,docker", None), ("mlx", "podman")])
def test_a_tool_can_be_hidden(hidden: str, left: str | None, fake: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("podman")
    fake("docker")
    monkeypatch.setenv("LABKIT_WITHOUT", hidden)
    assert (images.missing() is None) == (left is not None)
    if left:
        assert images.tool().name == left


@pytest.mark.parametrize("name", ["podman", "docker"])
def test_a_hardened_run_says_so_to_both_tools(name: str, fake: Callable, tmp_path: Path) -> None:
    calls = fake(name)
    volume = images.Volume("kept")
    given = {"memory_mb": 96, "cpus": 0.5, "pids": 40, "env": {"A": "b c"}, "tmpfs": ["/run:size=1m"]}
    container = images.run("localhost/x", port=8080, volumes=[(tmp_path, "/in", "ro"), (volume, "/kept", "rw")], command=["serve"], **given)
    words = next(call for call in calls() if call[1] == "run")
    for word in ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--cpus=0.5", "--pids-limit=40"]:
        assert word in words
    assert "--memory=100663296b" in words and "--memory-swap=100663296b" in words, "no swap beside the memory"
    assert {"--tmpfs=/tmp", "--tmpfs=/run:size=1m", "--env=A=b c", "--publish=127.0.0.1::8080"} <= set(words)
    assert {f"--volume={tmp_path}:/in:ro", "--volume=kept:/kept:rw"} <= set(words)
    assert words[-2:] == ["localhost/x", "serve"]
    assert words[words.index("--label") + 1] == runs.current().label
    assert not any(word.startswith("--user") for word in words), "the image names its own user"
    assert container.url == "http://127.0.0.1:40001"


@pytest.mark.parametrize("name", ["podman", "docker"])
@pytest.mark.parametrize("user", ["", "0", "root", "0:0"])
def test_no_hardened_container_is_root(name: str, user: str, fake: Callable) -> None:
    calls = fake(name, user=user)
    images.run("localhost/x")
    assert "--user=65532:65532" in next(call for call in calls() if call[1] == "run")


def test_what_is_not_hardened_has_no_limits(fake: Callable) -> None:
    calls = fake("docker")
    images.run("localhost/x", port=1, hardened=False)
    words = next(call for call in calls() if call[1] == "run")
    assert not [word for word in words if word.startswith(("--read", "--cap", "--sec", "--mem", "--cpus", "--pids", "--tmpfs"))]
    assert "--publish=127.0.0.1::1" in words, "loopback alone, hardened or not"


@pytest.mark.parametrize(
    ("name", "words"), [("podman", ["healthcheck", "run", "abc123"]), ("docker", ["exec", "abc123", "sh", "-c", "check me"])]
)
def test_both_tools_run_the_images_own_health_check(name: str, words: list[str], fake: Callable) -> None:
    calls = fake(name)
    assert images.run("localhost/x").health()
    assert [name, *words] in calls()


@pytest.mark.parametrize("name", ["podman", "docker"])
def test_a_build_is_tagged_and_labelled_for_its_run(name: str, fake: Callable, tmp_path: Path) -> None:
    calls = fake(name)
    (tmp_path / "Containerfile").write_text("FROM debian:bookworm-slim\n", encoding="utf-8")
    image = images.build(tmp_path, "x:q8", args={"A": "1"}, target="last", contexts={"more": tmp_path})
    words = next(call for call in calls() if call[1] == "build")
    assert image.layers == [(5, "RUN x")] and image.id == "1"
    assert image.ref == f"localhost/labkit-x:q8-{runs.current().id}"
    pairs = list(itertools.pairwise(words))
    assert ("--tag", image.ref) in pairs and ("--label", runs.current().label) in pairs
    assert ("--build-arg", "A=1") in pairs and ("--target", "last") in pairs and ("--build-context", f"more={tmp_path}") in pairs
    assert ("--network", "host") in pairs
    assert (("--format", "docker") in pairs) == (name == "podman")
    assert words[-1] == str(tmp_path)


def test_docker_mounts_nothing_while_it_builds(fake: Callable, tmp_path: Path) -> None:
    fake("docker")
    (tmp_path / "Containerfile").write_text("FROM debian:bookworm-slim\n", encoding="utf-8")
    with pytest.raises(BadInput, match="while it builds"):
        images.build(tmp_path, "x", volumes=[(tmp_path, "/x", "ro")])


@pytest.mark.parametrize("name", ["podman", "docker"])
def test_what_a_run_made_is_looked_for_by_its_label_and_its_projects(name: str, fake: Callable) -> None:
    calls = fake(name)
    sweep.sweep(str(Path(os.environ["PATH"]) / name), "labkit.run=1-a", "", ["labkit-1-a-chat"])
    asked = {call[call.index("--filter") + 1] for call in calls() if "--filter" in call}
    assert asked == {
        "label=labkit.run=1-a",
        "label=io.podman.compose.project=labkit-1-a-chat",
        "label=com.docker.compose.project=labkit-1-a-chat",
    }
    assert not [call for call in calls() if call[1] in {"rm", "rmi"}], "what is not of this run is left alone"


def test_compose_is_a_part_of_its_own(fake: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("podman")
    assert images.missing_compose() is None
    assert _program("docker") == ["docker", "compose"]
    monkeypatch.setenv("LABKIT_WITHOUT", "compose")
    assert "podman-compose" in str(images.missing_compose())


def test_a_machine_without_systemd_gets_a_configuration_of_labkits_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    monkeypatch.delenv("CONTAINERS_CONF", raising=False)
    monkeypatch.setattr(sys.modules[environment.__module__], "needs_conf", lambda: True)
    path = Path(environment()["CONTAINERS_CONF"])
    assert path.is_relative_to(tmp_path)
    assert 'cgroup_manager = "cgroupfs"' in path.read_text(encoding="utf-8")
    monkeypatch.setattr(sys.modules[environment.__module__], "needs_conf", lambda: False)
    assert "CONTAINERS_CONF" not in environment()


def test_the_users_own_configuration_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINERS_CONF", "/mine.conf")
    assert environment()["CONTAINERS_CONF"] == "/mine.conf"


@pytest.mark.parametrize(
    ("recipe", "args", "found"),
    [
        ("FROM python:3.11-slim AS build\nFROM build\nFROM debian", {}, ["python:3.11-slim", "debian"]),
        ("ARG V=1\nFROM --platform=linux/amd64 a/b:${V}\n", {"V": "2"}, ["a/b:2"]),
        ('ARG BASE="x:1"\nFROM $BASE', {}, ["x:1"]),
        ("FROM scratch\nCOPY --from=ghcr.io/astral-sh/uv:0.9 /uv /\nCOPY --from=stage / /", {}, ["ghcr.io/astral-sh/uv:0.9"]),
        ("# FROM no\nFROM a:1\nRUN echo FROM b", {}, ["a:1"]),
    ],
)
def test_the_images_that_a_containerfile_builds_on(recipe: str, args: dict[str, str], found: list[str]) -> None:
    assert public(recipe, args) == found


@pytest.mark.parametrize(
    ("ref", "full"),
    [
        ("debian", "docker.io/library/debian:latest"),
        ("python:3.11-slim", "docker.io/library/python:3.11-slim"),
        ("ollama/ollama:0.24.0", "docker.io/ollama/ollama:0.24.0"),
        ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
        ("docker.io/library/debian@sha256:ab", "docker.io/library/debian@sha256:ab"),
    ],
)
def test_public_names_are_written_out(ref: str, full: str) -> None:
    assert bases.normal(ref) == full


def test_an_image_that_nobody_has_is_one_sentence(fake: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("podman")
    monkeypatch.setattr(bases, "here", lambda ref: False)
    monkeypatch.setattr(bases, "_silent", lambda host: f"{host} cannot be reached")
    with pytest.raises(RunFailed, match=r"registry-1\.docker\.io cannot be reached.*did you mean .*debian"):
        images.ensure("debain:bookworm-slim")
    with pytest.raises(BadInput, match="build it first"):
        images.ensure("localhost/mine")


def test_a_dead_registry_is_given_up_at_once() -> None:
    bases._silent.cache_clear()
    assert "cannot be reached" in str(bases._silent("127.0.0.1:9"))


def test_every_row_of_the_table_can_be_made_and_says_when_it_was_seen_to_work() -> None:
    for name, row in bases.table().items():
        assert bases.normal(name) == name
        assert row["how"] in bases._HOW
        assert {"version", "date", "platform", "what"} <= set(row)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["STEP 2/2: RUN pip", "ERROR: no such package", 'Error: building at STEP "RUN pip": exit status 1'], "ERROR: no such package"),
        (["Error: no such image"], "no such image"),
        ([], "it said nothing"),
    ],
)
def test_what_went_wrong_in_a_build(lines: list[str], said: str) -> None:
    assert said in long.error_line(lines)


BROKEN = """#!{python} -I
import pathlib, sys
mended, here = pathlib.Path({folder!r}, "mended"), {image!r}
if sys.argv[1] == "rmi":
    mended.write_text(sys.argv[-1])
elif sys.argv[1] == "images" and not (mended.exists() and {mends}):
    sys.exit(f'Error: locating item named "manifest" for image with ID "{{here}}" (consider removing the image): file does not exist')
else:
    print("localhost/labkit-x:1 12ab")
"""


@pytest.mark.parametrize("mends", [True, False])
def test_an_image_that_was_being_written_is_removed_or_the_listing_fails(
    mends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing seen is not nothing there."""
    monkeypatch.setattr(sweep.time, "sleep", lambda _: None)
    program = tmp_path / "podman"
    program.write_text(BROKEN.format(python=sys.executable, folder=str(tmp_path), image="ab" * 32, mends=mends), encoding="utf-8")
    program.chmod(0o755)
    if mends:
        assert sweep.found(str(program), "labkit.run=1-a", [])["image"] == ["localhost/labkit-x:1"]
    else:
        with pytest.raises(OSError, match="manifest"):
            sweep.found(str(program), "labkit.run=1-a", [])
    assert (tmp_path / "mended").read_text() == "ab" * 32
