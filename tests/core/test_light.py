"""`import labkit` costs next to nothing, and the wings keep their order."""

import json
import subprocess
import sys

from labkit.core import errors, machine, paths

HEAVY = ["torch", "llama_cpp", "matplotlib", "pandas", "papermill", "numpy", "pydantic"]


def test_import_labkit_loads_nothing_heavy():
    code = f"import labkit, sys, json; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_the_wings_import_only_from_those_above():
    done = subprocess.run(["lint-imports"], capture_output=True, text=True, check=False, cwd=paths.home(), executable=_tool("lint-imports"))
    assert done.returncode == 0, done.stdout


def test_no_module_is_much_longer_than_300_lines():
    long = {p.name: n for p in paths.home().joinpath("labkit").rglob("*.py") if (n := len(p.read_text().splitlines())) > 350}
    assert long == {}


def test_the_fingerprint_has_no_name_of_a_person_or_a_host():
    import getpass
    import platform

    text = json.dumps(machine.fingerprint())
    assert platform.node() not in text
    assert f'"{getpass.getuser()}"' not in text
    assert machine.fingerprint()["memory_bytes"] == machine.memory_limit_bytes() > 0


def test_an_error_says_the_cause_and_the_next_command():
    assert str(errors.BadInput("no such thing", "labkit models")) == "no such thing — labkit models"
    assert errors.nearest("smollm2-135", ["smollm2-135m", "phi-4-mini"]) == "did you mean smollm2-135m?"


def test_atomic_leaves_no_half_file(tmp_path):
    target = tmp_path / "f"
    try:
        with paths.atomic(target) as file:
            file.write(b"half")
            raise RuntimeError("stop")
    except RuntimeError:
        pass
    assert list(tmp_path.iterdir()) == []


def _tool(name):
    from pathlib import Path

    return str(Path(sys.executable).parent / name)
