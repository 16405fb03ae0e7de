"""A worker process: imports papermill once, then executes one task a line of standard input, one answer a line back.

`python -m labkit.teach.batch.worker PARENT_PID`. It ends, and its kernels with it, when its parent ends: its input
closes then, and on Linux the kernel of the system tells it too. Standard output is the answers' alone; what kernels
and libraries print goes to log.txt in the run's folder.

A line is `{"task": Task, "folder": run folder}`; an answer `{"status": "ok|failed|disk", "error": sentence or null}`.
"""

from __future__ import annotations

import errno
import json
import os
import queue
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import IO, Any

import psutil

from labkit.core.errors import LabkitError
from labkit.teach.batch import task as tasks
from labkit.teach.batch.task import Task

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SCRATCH = ".scratch"
SOCKETS = "LABKIT_BATCH_SOCKETS"  # a folder with a short path, for the kernels' sockets
_SOCKET_PATH = 90  # bytes: the limit is 104 on macOS, 108 on Linux, and a suffix is added
_ending = threading.Lock()
# executed by IPython at the start of each kernel: a kernel whose worker was killed must not live on
_KERNEL_STARTUP = "import ctypes as _c, signal as _s\n_c.CDLL(None).prctl(1, int(_s.SIGKILL))\ndel _c, _s\n"


def main() -> None:
    """Serve tasks until standard input closes."""
    parent = int(sys.argv[1]) if len(sys.argv) > 1 else os.getppid()
    if sys.platform == "linux":
        import ctypes

        # not SIGTERM: nbclient takes that over while a notebook runs, and leaves it at its default
        signal.signal(signal.SIGUSR1, lambda *_: _end())
        ctypes.CDLL(None).prctl(1, int(signal.SIGUSR1))  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            _end()  # the parent was gone before we could ask
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")  # not inherited by kernels
    os.dup2(2, 1)
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(sys.stdin, lines), daemon=True).start()

    # jsonschema's check of internationalised links, which no notebook needs, compiles a grammar for 3 s of CPU
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import papermill  # noqa: F401 - the work that every later task of this process saves

    _answer(answers, {"ready": os.getpid()})
    while True:
        message = json.loads(lines.get())
        _answer(answers, execute(Task.model_validate(message["task"]), Path(message["folder"])))


def execute(task: Task, folder: Path) -> dict[str, Any]:
    """Execute one task in its folder; the answer is a dict for one line of JSON. Nothing escapes but a stop."""
    back = Path.cwd()
    try:
        _redirect(folder / "log.txt")
        os.chdir(folder)
        _execute(task, folder)
        return {"status": "ok", "error": None}
    except OSError as error:
        if error.errno in _FULL:
            return {"status": "disk", "error": error.strerror}
        return {"status": "failed", "error": sentence(error)}
    except Exception as error:  # noqa: BLE001 - whatever a notebook or a library raises is this run's failure
        return {"status": "failed", "error": sentence(error)}
    finally:
        os.chdir(back)
        _redirect(Path(os.devnull))
        shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
        log = folder / "log.txt"
        if log.exists() and not log.stat().st_size:
            log.unlink()


def sentence(error: Exception) -> str:
    """One line that says what went wrong and in which cell."""
    name, value, count = (getattr(error, key, None) for key in ("ename", "evalue", "exec_count"))
    if name is not None:  # papermill's, of a cell
        text = (f"{name}: {value}" if value else str(name)) + (f" (cell In [{count}])" if count else "")
    elif type(error).__name__ == "DeadKernelError":
        text = "the notebook's kernel died: out of memory, or a crash in native code (its last words are in log.txt)"
    elif isinstance(error, LabkitError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    line = " ".join(text.split())
    return line if len(line) <= 400 else line[:399] + "…"


def _execute(task: Task, folder: Path) -> None:
    import papermill

    if tasks.content_sha256(task.notebook) != task.content:
        raise LabkitError(f"{task.notebook.name} was changed after the batch had started", "start the batch again")
    os.environ.update(_kernel_environment(folder / _SCRATCH))
    node = _with_kernel(_node(task))
    papermill.execute_notebook(
        node,
        # papermill fills in {names} in paths
        f"{task.lab}.ipynb".replace("{", "{{").replace("}", "}}"),
        parameters=task.parameters,
        config=_connection(task.run_id),
        progress_bar=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )


def _node(task: Task) -> Any:
    """Our labs in their solved form, built here; an instructor's notebook as it is."""
    if task.notebook.suffix == ".py":
        from labkit.teach import notebooks

        return notebooks.build(task.notebook, solved=True)
    import nbformat

    return nbformat.read(task.notebook, as_version=4)


def _with_kernel(node: Any) -> Any:
    """This environment's Python for a notebook that names no kernel, or a Python that is not installed."""
    from jupyter_client.kernelspec import KernelSpecManager

    spec = node.metadata.get("kernelspec", {})
    language = spec.get("language") or node.metadata.get("language_info", {}).get("name") or "python"
    if language == "python" and spec.get("name") not in KernelSpecManager().find_kernel_specs():
        node.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    return node


def _kernel_environment(scratch: Path) -> dict[str, str]:
    """Profile and connection files in the run's own folder: nobody's startup files, history or settings take part."""
    startup = scratch / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    if sys.platform == "linux":
        (startup / "00-end-with-the-worker.py").write_text(_KERNEL_STARTUP)
    return {"IPYTHONDIR": str(scratch / "ipython"), "JUPYTER_RUNTIME_DIR": str(scratch / "runtime")}


def _connection(name: str) -> Any:
    """Kernels talk over socket files. Over TCP, jupyter_client looks for free ports and lets them go again before the
    kernel takes them: workers that start kernels at the same time then get each other's, in about one run of sixty.
    """
    from traitlets.config import Config

    file = Path(os.environ[SOCKETS]) / f"{name[:8]}.json"
    if sys.platform == "win32" or len(os.fsencode(file)) > _SOCKET_PATH:
        return Config()
    return Config({"KernelManager": {"transport": "ipc", "connection_file": str(file)}})


def environment(mark: dict[str, str]) -> dict[str, str]:
    """What a worker's environment is made of; its kernels inherit it."""
    env = {**os.environ, "OMP_WAIT_POLICY": "passive", "JUPYTER_PREFER_ENV_PATH": "1", "JUPYTER_PLATFORM_DIRS": "1", **mark}
    for name in ("MPLBACKEND", "PYTHONSTARTUP", "PYTHONBREAKPOINT"):
        env.pop(name, None)  # with any MPLBACKEND set, kernels would not choose the inline back end, and figures would be lost
    return {**env, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def _listen(stream: IO[str], lines: queue.Queue[str]) -> None:
    for line in stream:
        lines.put(line)
    _end()  # the parent closed our input, or is gone


def _end() -> None:
    """Leave at once, and leave nothing running."""
    if not _ending.acquire(blocking=False):
        return  # our input closed and the signal came, both: one of them is enough

    for process in psutil.Process().children(recursive=True):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    if SOCKETS in os.environ:
        shutil.rmtree(os.environ[SOCKETS], ignore_errors=True)
    os._exit(0)


def _answer(stream: IO[str], answer: dict[str, Any]) -> None:
    stream.write(json.dumps(answer) + "\n")
    stream.flush()


def _redirect(path: Path) -> None:
    """Send what this process and the kernels it starts print to a file."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


if __name__ == "__main__":
    main()
