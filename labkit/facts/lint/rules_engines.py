"""Rules for command lines of engines: vllm, llama.cpp, olive, mlx_lm."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.facts.lint.model import Command, Document, Edit, Hit, Word
from labkit.facts.lint.rules_commands import named
from labkit.facts.lint.vocabulary import nearest, table

_HF_ORGANISATIONS = (
    "meta-llama/",
    "mistralai/",
    "microsoft/",
    "Qwen/",
    "google/",
    "HuggingFaceTB/",
    "facebook/",
    "ibm-granite/",
    "deepseek-ai/",
    "tiiuae/",
)


def vllm_command(document: Document) -> Iterator[Hit]:
    known = table("vllm")["commands"]
    for _, words in named(document, "vllm"):
        if (
            words
            and re.fullmatch(r"[a-z][a-z-]*", words[0].text)
            and words[0].text not in known
            and (near := nearest(words[0].text, known, 2 if len(words[0].text) > 6 else 1))
        ):
            yield Hit(
                words[0].line,
                {"word": f"vllm {words[0].text}", "fix": f"vllm {near}"},
                Edit(words[0].line, f"vllm {words[0].text}", f"vllm {near}"),
            )


def serving(document: Document) -> Iterator[tuple[Command, list[Word]]]:
    """Commands that start vLLM's server."""
    for command, words in named(document, "vllm"):
        if words and words[0].text == "serve":
            yield command, words[1:]
    for command in document.commands:
        plain = [word.text for word in command.words]
        if "vllm.entrypoints.openai.api_server" in plain:
            yield command, command.words[plain.index("vllm.entrypoints.openai.api_server") + 1 :]
        elif command.name in {"docker", "podman"} and "run" in plain:
            at = next((n for n, word in enumerate(plain) if re.match(r"(docker\.io/)?vllm/vllm-openai(-\w+)?(:|@|$)", word)), None)
            if at is not None:
                yield command, command.words[at + 1 :]


def vllm_flag(document: Document) -> Iterator[Hit]:
    rows = table("vllm")
    known = {f"--{flag}" for flag in [*rows["flags"], *rows["older_flags"]]}
    for _, words in serving(document):
        yield from _flags(words, known | {"--no-" + flag[2:] for flag in known}, rows["flags_meant"], "vllm serve", abbreviated=True)


def _flags(words: list[Word], known: set[str], meant: dict[str, str], program_name: str, abbreviated: bool = False) -> Iterator[Hit]:
    for word in words:
        flag = re.split(r"[= ]", word.text)[0].split(".")[0]
        if word.quoted or not re.fullmatch(r"--[a-zA-Z][\w-]{2,}", flag) or flag in known or flag.replace("_", "-") in known:
            continue
        if abbreviated and any(name.startswith(flag) for name in known):
            continue  # argparse takes a beginning that fits
        if near := meant.get(flag) or nearest(flag, known, 2 if len(flag) > 9 else 1):
            yield Hit(word.line, {"command": program_name, "flag": flag, "fix": near}, Edit(word.line, flag, near))


def _list(word: str) -> bool:
    return bool(re.fullmatch(r"\$(@|\*|\{\w+\[[@*]\][^}]*\}|\{[@*]\}|\(.*\))", word))


def _variable(word: str) -> bool:
    return bool(re.fullmatch(r"\$\{?\w+([:-][^}]*)?\}?", word))


def _takes_value(flag: str) -> bool:
    """A flag with a value of its own behind it, as far as the name says."""
    return flag.startswith("--") and "=" not in flag and not re.match(r"--(enable|disable|no|trust|enforce)-", flag)


def vllm_tools(document: Document) -> Iterator[Hit]:
    for _, words in serving(document):
        text = [word.text for word in words]
        if "--enable-auto-tool-choice" not in text or any(re.match(r"--tool[-_]call[-_]parser|--config\b", word) for word in text):
            continue
        if any(_list(word) or (_variable(word) and not _takes_value(text[n - 1])) for n, word in enumerate(text) if n):
            continue  # an unknown list of options may hold it
        yield Hit(words[text.index("--enable-auto-tool-choice")].line)


def vllm_parser(document: Document) -> Iterator[Hit]:
    known = table("vllm")["tool_parsers"]
    for _, words in serving(document):
        plugin = any(word.text.startswith("--tool-parser-plugin") for word in words)
        for n, word in enumerate(words):
            flag, equals, value = word.text.partition("=")
            if flag == "--tool-call-parser" and not plugin:
                value = value if equals else words[n + 1].text if n + 1 < len(words) else ""
                if value not in known and (near := nearest(value, known, 1)) and not re.search(r"\d", value[-1:]):
                    yield Hit(word.line if equals else words[n + 1].line, {"word": value, "fix": near}, Edit(words[n].line, value, near))


def vllm_awq(document: Document) -> Iterator[Hit]:
    for _, words in serving(document):
        text = [word.text for word in words]
        model = next(
            (
                w
                for n, w in enumerate(text)
                if w.startswith(_HF_ORGANISATIONS) and (n == 0 or text[n - 1] == "--model" or not text[n - 1].startswith("-"))
            ),
            "",
        )
        how = re.search(r"(?:--quantization|-q)[ =](awq|gptq)(_marlin)?(\s|$)", " ".join(text))
        if how and model and not re.search(r"awq|gptq|int4|w4a16|quantized|-4bit", model, re.IGNORECASE):
            line = next(word.line for word in words if word.text.startswith(("--quantization", "-q")))
            yield Hit(line, {"model": model, "how": how[1].upper()})


def llama_flag(document: Document) -> Iterator[Hit]:
    rows = table("llamacpp")
    known = {*rows["flags"], *rows["older_flags"]}
    for command, words in named(document, "llama-server", "llama-cli"):
        yield from _flags(words, known, rows["flags_meant"], command.name if command.name.startswith("llama") else "llama-server")


def llama_old(document: Document) -> Iterator[Hit]:
    rows = table("llamacpp_tools")
    inside = any(
        "llama.cpp" in word.text for command in document.commands for word in command.words if command.name in {"cd", "git", "pushd"}
    )
    for command in document.commands:
        if not command.words:
            continue
        path, text = command.words[0].text, " ".join(word.text for word in command.words)
        name = command.name.removesuffix(".exe")
        model = ".gguf" in text or ".ggml" in text or re.search(r"ggml-model", text)
        asks = re.search(r"\s-m\s", text) and re.search(r"\s(-ngl|--n-gpu-layers|--n-predict)\s", text)
        if name in rows["renamed"] and "/" in path and (model or "llama.cpp/" in path or asks):
            new = rows["renamed"][name]
            yield Hit(command.line, {"word": path, "fix": new}, Edit(command.line, path, path[: len(path) - len(command.name)] + new))
        for word in command.words[:3]:
            script = word.text.rsplit("/", 1)[-1]
            if script in rows["scripts"] and (
                script != "convert.py"
                or inside
                or "llama.cpp" in word.text
                or re.search(r"--outtype|--vocab-type|--vocabtype|\.gguf", text)
            ):
                yield Hit(word.line, {"word": script, "fix": rows["scripts"][script]}, Edit(word.line, script, rows["scripts"][script]))
        # options of the build: -DNAME=, make NAME=1, CMAKE_ARGS="-DNAME=on" in front of a command or exported
        built = [(text, command.line)] if command.name in {"cmake", "make"} else []
        built += [(setting.value or "", setting.line) for setting in command.env if setting.name == "CMAKE_ARGS"]
        built += [(f"{s.name}=", s.line) for s in command.env if command.name in {"cmake", "make"}]
        for given, line in built:
            for option in re.findall(r"(?:-D|\b)((?:LLAMA|GGML)_[A-Z0-9_]+)=", given):
                if new := rows["build"].get(option):
                    yield Hit(line, {"word": option, "fix": new}, Edit(line, option, new))


def olive_command(document: Document) -> Iterator[Hit]:
    known = table("toolchains")["commands"]
    for _, words in named(document, "olive"):
        if (
            words
            and re.fullmatch(r"[a-z][a-z-]+", words[0].text)
            and words[0].text not in known
            and (near := nearest(words[0].text, known, 2 if len(words[0].text) > 6 else 1))
        ):
            yield Hit(words[0].line, {"word": f"olive {words[0].text}", "fix": f"olive {near}"}, Edit(words[0].line, words[0].text, near))


def mlx_flag(document: Document) -> Iterator[Hit]:
    meant = table("toolchains")["mlx_flags_meant"]
    for command in document.commands:
        plain = [word.text for word in command.words]
        if command.name in {"mlx_lm.generate", "mlx_lm.chat", "mlx_lm.server"} or any(
            word in {"mlx_lm.generate", "mlx_lm.chat", "mlx_lm.server"} for word in plain[:3]
        ):
            for word in command.words:
                flag = word.text.split("=")[0]
                if flag in meant:
                    yield Hit(word.line, {"command": "mlx_lm", "flag": flag, "fix": meant[flag]}, Edit(word.line, flag, meant[flag]))
