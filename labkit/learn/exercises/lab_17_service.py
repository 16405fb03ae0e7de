"""Three exercises of lab 17: what health says, a status code for each case, and Retry-After."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from labkit.learn.check import Exercise, Part, Wrong, likely_mistake

# -- health(state)

_CASES = (
    # process of the model alive, loaded, stopping, queue full -> (live, ready), and what a wrong answer has not seen
    (
        (False, True, False, False),
        (False, False),
        "The process that holds the model is gone. It does not come back by itself: neither live nor ready.",
    ),
    (
        (True, False, False, False),
        (True, False),
        "While the model is being loaded nothing can be answered (not ready), but a restart would begin the loading again (live).",
    ),
    ((True, True, False, False), (True, True), "The model is loaded and nothing is wrong: live and ready."),
    ((True, True, True, False), (True, False), "A service that is stopping finishes its answers (live) and takes no new ones (not ready)."),
    (
        (True, True, False, True),
        (True, True),
        "A full queue is no illness: 429 says it to each client. Taken out for it, this replica would push its load onto the others.",
    ),
)


def _health(which: int) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        for (alive, loaded, stopping, full), right, hint in _CASES:
            bound = int(rng.integers(4, 33))
            state = {
                "model_process_alive": alive, "loaded": loaded, "stopping": stopping,
                "waiting": bound if full else int(rng.integers(0, bound)), "queue_bound": bound,
            }  # fmt: skip
            given = answer(state)
            if not isinstance(given, (tuple, list)) or len(given) != 2 or not all(isinstance(one, (bool, int)) for one in given):
                return "Return two truth values: (live, ready)."
            if bool(given[which]) != right[which]:
                return hint
        return None

    return test


health = Exercise(
    "health",
    "What health says",
    (Part(1, "live: leave it running?", _health(0)), Part(1, "ready: send it requests?", _health(1))),
    (
        Wrong("return True, True", "gone", "is always well"),
        Wrong(
            'ready = state["model_process_alive"] and state["loaded"] and not state["stopping"]\nreturn ready, ready',
            "begin the loading again",
            "has one answer for two questions",
        ),
        Wrong(
            'live = state["model_process_alive"]\n'
            'return live, live and state["loaded"] and not state["stopping"] and state["waiting"] < state["queue_bound"]',
            "no illness",
            "takes a full queue for an illness",
        ),
        Wrong(
            'live = state["model_process_alive"]\nreturn live, live and state["loaded"]', "takes no new ones", "forgets that it is stopping"
        ),
        Wrong('return True, state["loaded"] and not state["stopping"]', "gone", "trusts what was true when it was loaded"),
    ),
)


# -- status(case)

_STATUS = {
    "good": (200, "Nothing is wrong with this request, and there is a place for it: 200."),
    "no json": (
        (400, 422),
        "This body is not JSON. The client must mend it, so the code begins with 4: 400 (or 422), whatever else is wrong with it.",
    ),
    "unknown model": (404, "There is no model of this name here: 404, as for an address that does not exist."),
    "too long": ((400, 413), "The prompt and max_tokens do not fit the context. Waiting does not help, so it is 400 (or 413)."),
    "too long and full": (
        (400, 413),
        "The queue is full, and this request would never fit. 429 says 'come again', which would never end: look at the request first.",
    ),
    "full": (429, "All places in the queue are taken: 429, with a Retry-After header. 503 would say that the service is not well."),
    "loading": (503, "The model is not there (yet): 503. The request is good, the service is not ready."),
    "just fits": (200, "Prompt and max_tokens fill the context to its last token. That fits."),
}


def _status(kinds: tuple[str, ...]) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        for kind in kinds:
            context, bound = int(rng.choice([1024, 2048, 4096])), int(rng.integers(2, 30))
            prompt = int(rng.integers(20, 500))
            case = {
                "is_json": True, "model_known": True, "prompt_tokens": prompt, "max_tokens": int(rng.integers(1, 400)), "context": context,
                "ready": True, "waiting": int(rng.integers(0, bound)), "queue_bound": bound,
            }  # fmt: skip
            if kind == "no json":
                case |= {"is_json": False, "model_known": False, "prompt_tokens": 0, "max_tokens": 0}
            case |= {"model_known": False} if kind == "unknown model" else {}
            case |= {"max_tokens": context - prompt + int(rng.integers(1, 300))} if kind.startswith("too long") else {}
            case |= {"max_tokens": context - prompt} if kind == "just fits" else {}
            case |= {"waiting": bound} if kind.endswith("full") else {}
            case |= {"ready": False} if kind == "loading" else {}
            given, (right, hint) = answer(dict(case)), _STATUS[kind]
            if given not in (right if isinstance(right, tuple) else (right,)):
                if isinstance(given, int) and 200 <= given < 300 and kind not in ("good", "just fits"):
                    return f"200 for a request that fails: every client takes it for an answer, and no monitor sees it. {hint}"
                if isinstance(given, int) and given == 500:
                    return f"500 says that the service has a bug. {hint}"
                return hint
        return None

    return test


_CODES = 'if not case["is_json"]:\n    return 400\nif not case["model_known"]:\n    return 404\n'
_FIT = 'if case["prompt_tokens"] + case["max_tokens"] > case["context"]:\n    return 400\n'
_PLACE = 'if case["waiting"] >= case["queue_bound"]:\n    return 429\n'
_READY = 'if not case["ready"]:\n    return 503\n'

status = Exercise(
    "status",
    "A status code for each case",
    (
        Part(1, "the client's mistakes", _status(("no json", "unknown model", "too long", "just fits", "good"))),
        Part(1, "the service's limits", _status(("too long and full", "full", "loading", "good"))),
    ),
    (
        Wrong("return 200", "every client takes it for an answer", "says 200 to everything"),
        Wrong("return 200 if case['is_json'] and case['model_known'] else 500", "has a bug", "says 500 for the client's mistakes"),
        Wrong(_CODES + _READY + _PLACE + _FIT + "return 200", "would never end", "sends a client round in circles"),
        Wrong(
            _CODES + _FIT + _READY + _PLACE.replace("429", "503") + "return 200",
            "not well",
            "says 503 for a full queue",
        ),
        Wrong(_CODES + _FIT.replace(">", ">=") + _READY + _PLACE + "return 200", "last token", "refuses what just fits"),
        Wrong(
            _CODES + _FIT.replace(' + case["max_tokens"]', "") + _READY + _PLACE + "return 200",
            "do not fit",
            "forgets that the answer needs room too",
        ),
    ),
)


# -- retry_after(waiting, running, slots, service_s)


def _retry(busy: bool) -> Callable[[Any, Any], str | None]:
    def test(answer: Any, rng: Any) -> str | None:
        slots = int(rng.integers(2, 5)) if busy else 1
        waiting = int(rng.integers(4, 20))
        service = round(float(rng.uniform(0.6, 4)), 2)
        while math.isclose((waiting + 1) * service / slots % 1, 0, abs_tol=0.03) or waiting * service / slots % 1 > 0.97:
            service += 0.07  # no case where rounding up and rounding give the same, or where two mistakes look alike
        right = max(1, math.ceil((waiting + 1) * service / slots))
        given = answer(waiting, slots, service)
        exact = (waiting + 1) * service / slots
        likely = (
            (exact, "The header takes whole seconds. Round up: a client that comes a little early is refused again."),
            (math.floor(exact), "Round up, not down: a client that comes too early is refused again."),
            (math.ceil((waiting + 1) * service), "Several answers are computed at a time (slots), so the line moves faster than that."),
            (math.ceil(service / slots), "That is when the next place is free. All who were refused would come back for that one place."),
            (math.ceil(service), "That is the time of one answer. How many are in front?"),
            (math.ceil((waiting + 1) * slots * service), "More slots make the line shorter: divide by their number."),
        )
        return likely_mistake(
            given, right, "The answers in front and one's own, each service_s long, slots at a time; rounded up.", values=likely
        )

    return test


def _at_least_one(answer: Any, rng: Any) -> str | None:
    given = answer(0, int(rng.integers(3, 9)), round(float(rng.uniform(0.01, 0.2)), 3))
    if given == 0:
        return "Retry-After: 0 says 'at once': the client comes back in a loop. Say at least 1."
    return likely_mistake(given, 1, "Answers that take a few milliseconds: round up to whole seconds, so 1.")


retry_after = Exercise(
    "retry_after",
    "When to come again",
    (
        Part(1, "one answer at a time", _retry(False)),
        Part(1, "several answers at a time", _retry(True)),
        Part(1, "very short answers", _at_least_one),
    ),
    (
        Wrong("return (waiting + 1) * service_s / slots", "whole seconds", "gives a fraction"),
        Wrong("return int((waiting + 1) * service_s / slots)", "Round up", "rounds down"),
        Wrong("import math\nreturn math.ceil((waiting + 1) * service_s)", "slots", "forgets the slots"),
        Wrong("import math\nreturn math.ceil(service_s / slots)", "one place", "waits for the next place alone"),
        Wrong("return round((waiting + 1) * service_s / slots - 0.5)", "Round up", "rounds to something near"),
    ),
)
