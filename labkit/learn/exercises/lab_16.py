"""The exercises of lab 16: which steps are built anew, what a pull fetches, a memory limit, ports that the network reaches."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from labkit.learn.check import Exercise, Part, Wrong, likely_mistake, same_order

_FILES = ("model.gguf", "start.sh", "health.sh", "Modelfile", "page.html", "settings.json")

# -- which steps are built anew


def _steps(copied: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        names = [str(name) for name in rng.permutation(_FILES)]
        steps: list[list[str]] = [[], [], names[:1], [], names[1:3], [], names[3:4], []]
        changed = [names[2], names[3]] if copied else [names[4]]  # the second of two that one step copies, and a later one
        first = 4
        right = list(range(first, len(steps))) if copied else []
        given = answer([list(files) for files in steps], list(changed))
        if not isinstance(given, list | tuple | range):
            return "Return a list of numbers; it is empty where nothing is built anew."
        if same_order(given, right):
            return None
        found = list(given)
        if not copied:
            return "No step copies a file that has changed, so every step is taken from the cache: the list is empty."
        if found == [n for n, files in enumerate(steps) if set(files) & set(changed)]:
            return "A layer holds what is different from the one below it. So all steps after the first changed one are built anew too."
        if found == list(range(first + 1, len(steps))):
            return "The step that copies the changed file is itself built anew: begin with it."
        if found == list(range(first + 1)):
            return "That is the wrong side: steps before the change are taken from the cache."
        if found == list(range(len(steps))):
            return "Not all: steps before the first changed one are taken from the cache."
        if found == [n + 1 for n in right]:
            return "Steps are counted from 0."
        if found and found == list(range(int(found[0]), len(steps))) and found[0] > first:
            return "The first step that copies one of the changed files decides, also where it is the second file of that step."
        return "Find the first step that copies a changed file; it and all after it are built anew."

    return test


rebuilt = Exercise(
    "rebuilt",
    "Which steps are built anew?",
    (Part(1, "a changed file that is copied", _steps(True)), Part(1, "a changed file that no step copies", _steps(False))),
    (
        Wrong(
            "return [n for n, files in enumerate(steps) if set(files) & set(changed)]",
            "all steps after",
            "builds only the steps that copy the files",
        ),
        Wrong(
            "for n, files in enumerate(steps):\n    if set(files) & set(changed):\n        return list(range(n + 1, len(steps)))\n"
            "return []",
            "begin with it",
            "leaves the changed step out",
        ),
        Wrong(
            "for n, files in enumerate(steps):\n    if set(files) & set(changed):\n        return list(range(n, len(steps)))\n"
            "return list(range(len(steps)))",
            "the list is empty",
            "builds everything where nothing has changed",
        ),
        Wrong("return list(range(len(steps)))", "Not all", "knows of no cache"),
        Wrong(
            "for n, files in enumerate(steps):\n    if files and files[0] in changed:\n        return list(range(n, len(steps)))\n"
            "return []",
            "second file",
            "looks at each step's first file alone",
        ),
    ),
)


# -- what a pull fetches


def _pull(several: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        size = {f"sha256:{name}{int(rng.integers(10, 99))}": int(rng.integers(1, 400)) * 10**6 + 7 for name in "abcdefg"}
        ids = list(size)
        here = set(ids[:2])
        first = {one: size[one] for one in ids[:4]}
        second = {one: size[one] for one in (*ids[:3], *ids[4:6])}  # shares a layer with the first that is not here
        images = [first, second] if several else [first]
        wanted = {one: size[one] for image in images for one in image if one not in here}
        right = sum(wanted.values())
        every = sum(sum(image.values()) for image in images)
        twice = sum(size[one] for image in images for one in image if one not in here)
        likely = (
            (every, "Layers that are here already are not fetched again: leave out those in `here`."),
            (sum({**first, **second}.values()) if several else every, "Layers that are here already are not fetched again."),
            (twice, "A layer that two images share is fetched once."),
            (max(sum(b for one, b in image.items() if one not in here) for image in images), "Add up the layers of all images."),
            (sum(size[one] for one in here), "That is what is here already. Wanted is what is fetched."),
            (len(wanted), "That is a number of layers. Wanted are their bytes."),
        )
        return likely_mistake(
            answer([dict(image) for image in images], set(here)),
            right,
            "Add the bytes of each layer that is not here, once.",
            values=[(value, hint) for value, hint in likely if value != right],
        )

    return test


pull_bytes = Exercise(
    "pull_bytes",
    "What does a pull fetch?",
    (Part(1, "one image", _pull(False)), Part(1, "two that share layers", _pull(True))),
    (
        Wrong("return sum(sum(image.values()) for image in images)", "not fetched again", "adds up the images' sizes"),
        Wrong(
            "return sum(b for image in images for id, b in image.items() if id not in here)",
            "fetched once",
            "fetches a shared layer twice",
        ),
        Wrong("return len({id for image in images for id in image} - here)", "number of layers", "counts layers"),
        Wrong(
            "return max(sum(b for id, b in image.items() if id not in here) for image in images)",
            "all images",
            "takes the largest image for all",
        ),
    ),
)


# -- a memory limit

_MIB = 1 << 20


def _limit(parallel: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        weights = int(rng.integers(80, 4000)) * 10**6 + 11
        per_token = int(rng.integers(8, 120)) * 1024
        context, slots = int(rng.choice([1536, 2048, 4096])), int(rng.choice([3, 5, 7])) if parallel else 1
        program = int(rng.integers(60, 300)) * 10**6 + 3
        total = weights + per_token * context * slots + program
        right = math.ceil(total * 1.2 / _MIB)
        given = answer(weights, per_token, context, slots, program)
        if isinstance(given, int | float):
            return 'A limit is written as a text: a whole number and the letter m, such as "512m".'
        text = str(given).strip()
        if not text.endswith("m") or not text[:-1].isdigit():
            return 'A limit is a whole number and the letter m, without a blank, such as "512m".'
        likely = (
            (math.ceil(total * 1.2 / 10**6), "The letter m stands for 2**20 bytes (1,048,576), not for a million."),
            (int(total * 1.2 / _MIB), "Rounded down it is a little too small: round up (math.ceil)."),
            (math.ceil(total / _MIB), "A fifth more as a reserve is missing: times 1.2."),
            (math.ceil((weights + per_token * context + program) * 1.2 / _MIB), "Each parallel request has a cache of its own."),
            (math.ceil((weights + program) * 1.2 / _MIB), "The KV cache is missing: bytes a token, times tokens, times requests."),
            (math.ceil((weights + per_token * context * slots) * 1.2 / _MIB), "The program's own memory is missing."),
            (math.ceil(total * 0.2 / _MIB), "That is the reserve alone: the limit is 1.2 times the sum."),
        )
        return likely_mistake(
            int(text[:-1]),
            right,
            "Add weights, KV cache of all requests and the program; times 1.2; in units of 2**20 bytes, rounded up.",
            values=[(value, hint) for value, hint in likely if value != right],
        )

    return test


memory_limit = Exercise(
    "memory_limit",
    "A memory limit from arithmetic",
    (Part(1, "one request at a time", _limit(False)), Part(1, "parallel requests", _limit(True))),
    (
        Wrong(
            'return f"{math.ceil((weights + per_token * context * parallel + program) * 1.2 / 1e6)}m"',
            "not for a million",
            "takes m for a million bytes",
        ),
        Wrong(
            'return f"{math.ceil((weights + per_token * context + program) * 1.2 / 2**20)}m"',
            "cache of its own",
            "forgets the parallel requests",
        ),
        Wrong(
            'return f"{int((weights + per_token * context * parallel + program) * 1.2 / 2**20)}m"',
            "round up",
            "rounds down",
        ),
        Wrong(
            'return f"{math.ceil((weights + program) * 1.2 / 2**20)}m"',
            "KV cache is missing",
            "plans for the weights alone",
        ),
        Wrong(
            "return math.ceil((weights + per_token * context * parallel + program) * 1.2 / 2**20)",
            "written as a text",
            "returns a number",
        ),
    ),
)


# -- ports that the network reaches


def _ports(long: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        one, two, three = (int(port) for port in rng.choice(range(3000, 9900), 3, replace=False))
        ports = [f"{one}:11434", f"127.0.0.1:{two}:8443"]
        if long:
            ports += [f"0.0.0.0:{three}:80", f"[::1]:{one + 1}:80", "8080", f"127.0.0.1:{three + 1}:53/udp"]
        ports = [ports[n] for n in rng.permutation(len(ports))]
        inside = ("127.", "[::1]:")
        right = [port for port in ports if not port.startswith(inside)]
        given = answer(list(ports))
        if isinstance(given, str) or not hasattr(given, "__iter__"):
            return "Return a list of the entries."
        found = [str(port) for port in given]
        if found == right:
            return None
        if sorted(found) == sorted(right):
            return "Keep the order in which the entries stand."
        if sorted(found) == sorted(port for port in ports if port.startswith(inside)):
            return "That is the other half: those entries are reached from this machine alone."
        if any(port.startswith("[::1]:") for port in found):
            return "[::1] is this machine too: the loopback address of IPv6."
        if any(port not in found for port in right if ":" not in port):
            return "A port alone is published too: on a free port of every address."
        if any(port not in found for port in right if port.startswith("0.0.0.0")):  # noqa: S104 - a text
            return "0.0.0.0 is every address of the machine, the network's too."
        if any(port not in found for port in right if port.count(":") == 1):
            return "An entry without an address is published on every address of the machine."
        return "Reached from this machine alone are the entries with a loopback address in front: 127.… or [::1]."

    return test


reachable = Exercise(
    "reachable",
    "Which ports does the network reach?",
    (Part(1, "two entries", _ports(False)), Part(1, "other forms", _ports(True))),
    (
        Wrong('return [p for p in ports if p.startswith("127.") or p.startswith("[::1]")]', "other half", "returns the closed ones"),
        Wrong('return [p for p in ports if not p.startswith("127.")]', "IPv6", "knows IPv4 alone"),
        Wrong('return [p for p in ports if p.count(":") == 1]', "A port alone", "knows one form alone"),
        Wrong('return [p for p in ports if p.startswith("0.0.0.0")]', "without an address", "takes no address for a closed door"),
        Wrong('return sorted(p for p in ports if not p.startswith(("127.", "[::1]:")))', "order", "sorts"),
    ),
)
