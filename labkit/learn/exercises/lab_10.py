"""The exercises of lab 10: a Modelfile, a rate out of Ollama's durations, memory of parallel slots, keep_alive."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from labkit.learn.check import Exercise, Part, Wrong, likely_mistake

# -- a Modelfile

_CONTEXTS = (512, 768, 1024, 1536, 3072)


def _lines(text: Any) -> list[list[str]]:
    return [line.split(None, 2) for line in str(text).splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _same_number(text: str, right: float) -> bool:
    try:
        return math.isclose(float(text), right)
    except ValueError:
        return False


def _modelfile(system: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        name = f"model-{int(rng.integers(100, 999))}"
        context, temperature = int(rng.choice(_CONTEXTS)), round(float(rng.uniform(0.1, 1.5)), 2)
        text = answer(name, context, temperature)
        if not isinstance(text, str):
            return "A Modelfile is a text: return a string, one instruction a line."
        lines = _lines(text)
        parameters = [line[1:] for line in lines if line[0].upper() == "PARAMETER"]
        if any(line[0].endswith(":") for line in lines) or any(":" in words[0] for words in parameters if words):
            return "An instruction, a name and a value stand apart with a space between them, without a colon."
        if not any(line[0].upper() == "FROM" for line in lines):
            return "Every Modelfile says FROM which model it is made."
        if [line[1:] for line in lines if line[0].upper() == "FROM"] != [[name]]:
            return "FROM takes the name of the model, and nothing else on its line."
        if any("=" in words[0] or words[-1].startswith("=") for words in parameters if words):
            return "A parameter's name and its value stand apart with a space between them, without an equals sign."
        if any(len(words) < 2 for words in parameters):
            return "PARAMETER, name and value stand on one line."
        given = {words[0]: words[1].strip() for words in parameters}
        if "context_length" in given or "max_tokens" in given:
            return "The parameter for the context is called num_ctx; Ollama refuses a Modelfile with a name that it does not know."
        if set(given) - {"num_ctx", "temperature"}:
            return f"Only the two parameters that were asked for: {', '.join(sorted(set(given) - {'num_ctx', 'temperature'}))} is another."
        if missing := {"num_ctx", "temperature"} - set(given):
            return f"A line PARAMETER {min(missing)} … is missing."
        if given["num_ctx"] != str(context) or not _same_number(given["temperature"], temperature):
            return "The values are those that the function gets, whatever they are."
        said = [line[1:] for line in lines if line[0].upper() == "SYSTEM"]
        if system and [" ".join(words).strip("\"' ") for words in said] != ["Answer in one sentence."]:
            return "The line SYSTEM gives the model its standing instruction: Answer in one sentence."
        return None

    return test


modelfile = Exercise(
    "modelfile",
    "Write a Modelfile",
    (Part(1, "FROM and PARAMETER", _modelfile(False)), Part(1, "SYSTEM", _modelfile(True))),
    (
        Wrong(
            'return f"FROM {base}\\nPARAMETER context_length {context}\\nPARAMETER temperature {temperature}\\n"'
            ' "SYSTEM Answer in one sentence."',
            "num_ctx",
            "takes a name that Ollama does not know",
        ),
        Wrong(
            'return f"PARAMETER num_ctx {context}\\nPARAMETER temperature {temperature}\\nSYSTEM Answer in one sentence."',
            "FROM",
            "forgets the model that it is made from",
        ),
        Wrong(
            'return f"FROM {base}\\nPARAMETER num_ctx={context}\\nPARAMETER temperature={temperature}\\nSYSTEM Answer in one sentence."',
            "equals sign",
            "writes an assignment",
        ),
        Wrong(
            'return f"FROM {base}\\nPARAMETER num_ctx: {context}\\nPARAMETER temperature: {temperature}\\nSYSTEM Answer in one sentence."',
            "without a colon",
            "writes it as in YAML",
        ),
        Wrong(
            'return f"FROM {base}\\nPARAMETER\\nnum_ctx {context}\\ntemperature {temperature}\\nSYSTEM Answer in one sentence."',
            "on one line",
            "makes a heading of PARAMETER",
        ),
        Wrong(
            'return f"FROM {base}\\nPARAMETER num_ctx {context}\\nPARAMETER temperature {temperature}"',
            "SYSTEM",
            "forgets the standing instruction",
        ),
    ),
)


# -- tokens per second


def _rate(first_request: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        tokens, prompt = int(rng.integers(20, 200)), int(rng.integers(201, 900))
        took, read = int(rng.integers(1, 9)) * 10**9 + 7, int(rng.integers(1, 9)) * 10**8 + 3
        load = int(rng.integers(2, 9)) * 10**8 if first_request else 5 * 10**7
        told = {
            "eval_count": tokens, "eval_duration": took, "prompt_eval_count": prompt, "prompt_eval_duration": read,
            "load_duration": load, "total_duration": took + read + load + 10**7,
        }  # fmt: skip
        given, right = answer(told), tokens / (took / 1e9)
        likely = (
            (tokens / took, "Ollama's durations are whole numbers of nanoseconds: divide by 1e9 to get seconds."),
            (tokens / (took / 1e6), "You divided by 1e6: that is tokens per millisecond. A second has 1e9 ns."),
            (
                tokens / (told["total_duration"] / 1e9),
                "total_duration also holds loading and reading. Use the answer's own duration.",
            ),
            ((tokens + prompt) / (took / 1e9), "Tokens of the prompt were read, not made: leave them out."),
            ((tokens + prompt) / (told["total_duration"] / 1e9), "That mixes reading and making. Take the answer's tokens and duration."),
            (prompt / (read / 1e9), "That is the rate of reading the prompt. Wanted is the rate of making the answer."),
            (took / 1e9 / tokens, "That is seconds per token: turn it over."),
            *((near, "Do not round.") for near in (round(right, 2), round(right, 1), round(right), int(right))),
        )
        return likely_mistake(given, right, "Tokens of the answer, divided by the seconds that making it took.", values=likely)

    return test


answer_rate = Exercise(
    "answer_rate",
    "Tokens per second out of durations",
    (Part(1, "a loaded model", _rate(False)), Part(1, "a first request, with loading", _rate(True))),
    (
        Wrong('return told["eval_count"] / told["eval_duration"]', "nanoseconds", "takes nanoseconds for seconds"),
        Wrong('return told["eval_count"] / (told["total_duration"] / 1e9)', "total_duration", "divides by the whole request"),
        Wrong(
            'return (told["eval_count"] + told["prompt_eval_count"]) / (told["eval_duration"] / 1e9)',
            "not made",
            "counts the prompt as output",
        ),
        Wrong('return told["prompt_eval_count"] / (told["prompt_eval_duration"] / 1e9)', "reading the prompt", "measures prefill"),
        Wrong('return told["eval_count"] / (told["eval_duration"] / 1e6)', "1e9 ns", "takes nanoseconds for microseconds"),
        Wrong('return round(told["eval_count"] / (told["eval_duration"] / 1e9))', "Do not round", "rounds"),
    ),
)


# -- memory of parallel slots


def _cache(grouped: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        layers, size = int(rng.integers(12, 48)), int(rng.choice([64, 96, 128]))
        kv_heads = int(rng.choice([2, 3, 4, 8])) if grouped else int(rng.integers(9, 20))
        context, parallel = int(rng.choice([1024, 2048, 4096])), int(rng.choice([3, 5, 7]))  # no power of two: a missing factor shows
        given = answer(layers, kv_heads, size, context, parallel)
        right = 2 * layers * kv_heads * size * 2 * context * parallel
        factors = {
            1 / parallel: "Each of the parallel requests has a cache of its own: multiply by their number.",
            0.5: "A factor of two is missing: a key and a value for each token, and two bytes for each of their numbers.",
            0.25: "Two factors of two are missing: a key and a value, and two bytes for each number (f16).",
            2.0: "Twice too much: f16 takes two bytes, and key and value are two.",
            8.0: "That is in bits. The answer is wanted in bytes.",
            1 / layers: "Every layer has a cache of its own.",
            1 / context: "That is for one token. Multiply by the context.",
            1 / (parallel * layers): "Every layer and every parallel request has a cache of its own.",
        }
        return likely_mistake(
            given, right, "Key and value, layers, heads, head size, two bytes, tokens of context, parallel requests: multiply all.",
            factors=factors,
        )  # fmt: skip

    return test


cache_bytes = Exercise(
    "cache_bytes",
    "Memory of parallel requests",
    (Part(1, "as many heads for keys as for queries", _cache(False)), Part(1, "grouped heads", _cache(True))),
    (
        Wrong("return 2 * layers * kv_heads * head_size * 2 * context", "their number", "forgets the parallel requests"),
        Wrong("return layers * kv_heads * head_size * 2 * context * parallel", "key and a value", "counts keys alone"),
        Wrong("return 2 * layers * kv_heads * head_size * 16 * context * parallel", "bits", "takes 16 bits for 16 bytes"),
        Wrong("return 2 * kv_heads * head_size * 2 * context * parallel", "layer", "forgets the layers"),
    ),
)


# -- keep_alive


def _loaded(answers_at: list[float], keep_alive: float, at: float) -> bool:
    last = max((t for t in answers_at if t <= at), default=None)
    if last is None:
        return False
    return keep_alive < 0 or at < last + keep_alive


def _stays(negative: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        keep = -1 if negative else int(rng.choice([30, 60, 300]))
        step = abs(keep) if keep > 0 else 100
        times = [float(step * k) for k in (0.1, 0.9)]
        forever = "A negative keep_alive means: until the server stops."
        cases = [
            (times, keep, step * 1.5, forever if negative else "Each answer starts the time anew: what counts is the last one before it."),
            (times, keep, step * 2.5, forever if negative else "After the last answer the time runs out, and the model is unloaded."),
            (times, keep, step * 0.05, "Before the first request nothing is loaded."),
            ([*times, step * 4.0], keep, step * 3.0, forever if negative else "An answer that is still to come keeps nothing loaded."),
            (times, 0, step * 0.95, "keep_alive 0 unloads the model as soon as the answer is there."),
        ]
        for moments, kept, at, hint in cases:
            given = answer(list(moments), kept, at)
            if bool(given) != _loaded(moments, kept, at):
                return hint
            if not isinstance(given, bool | int):
                return "Return True or False."
        return None

    return test


still_loaded = Exercise(
    "still_loaded",
    "Is the model still loaded?",
    (Part(1, "a time in seconds", _stays(False)), Part(1, "a negative time", _stays(True))),
    (
        Wrong("return at < answers_at[0] + keep_alive", "last one", "counts from the first answer"),
        Wrong("return at < max(answers_at) + keep_alive", "Before the first", "looks at answers that are still to come"),
        Wrong(
            "past = [t for t in answers_at if t <= at]\nreturn bool(past)",
            "unloaded",
            "never unloads",
        ),
        Wrong(
            "past = [t for t in answers_at if t <= at]\nreturn bool(past) and at < max(past) + keep_alive",
            "negative keep_alive",
            "takes a negative time literally",
        ),
    ),
)
