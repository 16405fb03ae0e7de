"""The instructor's page of a lab: generated, so that it cannot say something else than the lab does.

>>> print(page("02").splitlines()[0])  # doctest: +SKIP
# Lab 02: Which model fits?
"""

from __future__ import annotations

from pathlib import Path

from labkit.core import paths
from labkit.core.errors import BadInput
from labkit.teach.notebooks.exercises import InLab, in_source
from labkit.teach.notebooks.front import Front, front
from labkit.teach.notebooks.locate import LabFile, find, sources

QUESTIONS = 5


def page(lab: LabFile | str | int) -> str:
    """The page in Markdown: what the lab needs, what to expect, likely wrong answers, questions for another setting.

    Raises:
        BadInput: the lab's header lacks minutes, memory, expected ranges, or has not five transfer questions.
    """
    lab = lab if isinstance(lab, LabFile) else find(lab)
    if lab.source is None:
        raise BadInput(f"{lab.name} is not a lab of the course", "give the number of a lab")
    about = front(lab.source)
    _complete(lab.source, about)
    lines = [
        f"# Lab {lab.number}: {about.title}",
        "",
        "For instructors. This page is generated from the lab's source; `labkit build` writes it.",
        "",
        *_needs(about),
        *_section("Expected ranges", about.expected),
        "## Exercises",
        "",
    ]
    for one in in_source(lab.source):
        lines += _exercise(one)
    lines += ["## Transfer questions", "", *(f"{n}. {text}" for n, text in enumerate(about.transfer, 1)), ""]
    return "\n".join(lines)


def write_pages(check: bool = False, root: Path | None = None) -> list[dict[str, str]]:
    """Write docs/labs/NN_topic.md for every lab; with `check` write nothing and list the differences only."""
    home = root or paths.home()
    report = []
    for source in sources(home):
        text = page(LabFile(source.stem, source.parent.parent / f"{source.stem}.ipynb", source))
        path = home / "docs" / "labs" / f"{source.stem}.md"
        same = path.is_file() and path.read_text(encoding="utf-8") == text
        if check and not same:
            report.append({"path": path.relative_to(home).as_posix(), "reason": "differs from its lab: run labkit build"})
        elif not check:
            report.append(
                {"path": path.relative_to(home).as_posix(), "reason": "unchanged" if same else "new" if not path.is_file() else "changed"}
            )
            if not same:
                with paths.atomic(path) as file:
                    file.write(text.encode())
    return report


def _complete(source: Path, about: Front) -> None:
    missing = [name for name in ("minutes", "memory_gb", "expected") if not getattr(about, name)]
    if missing:
        raise BadInput(f"{source.name}: its header has no {missing[0]}", "add it under labkit:")
    if len(about.transfer) != QUESTIONS:
        raise BadInput(f"{source.name}: {len(about.transfer)} transfer questions, not {QUESTIONS}", "add them under labkit: transfer:")


def _needs(about: Front) -> list[str]:
    before = [*(f"lab {number}" for number in about.builds_on), *about.prerequisites]
    rows = [
        ("Prerequisites", ", ".join(before) or "none"),
        ("Minutes for a learner", f"{about.minutes:g}"),
        ("Memory", f"{about.memory_gb:g} GB"),
        ("Platforms", ", ".join(about.platforms)),
        ("Track", ", ".join(about.track) or "none"),
    ]
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""]


def _section(title: str, items: tuple[str, ...]) -> list[str]:
    return [f"## {title}", "", *(f"- {item}" for item in items), ""]


def _exercise(one: InLab) -> list[str]:
    exercise = one.exercise
    parts = "; ".join(f"{part.name} {part.points:g}" for part in exercise.parts)
    lines = [f"### {exercise.title} (`{one.id}`, {one.points:g} points)", "", f"Points: {parts}.", ""]
    lines += ["Likely wrong answers, and what the learner then reads:", ""]
    for wrong in exercise.wrong:
        grade = one.grade(wrong.code)
        lines += [f"- {wrong.why}", "", "  ```python", *(f"  {line}".rstrip() for line in wrong.code.strip("\n").splitlines()), "  ```", ""]
        lines += [f"  {grade.sentence} {grade.hint}".rstrip(), ""]
    return lines
