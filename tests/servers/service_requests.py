"""Requests that are wrong, drawn from a seed: what is sent to the ONNX service by test_onnx_service_malformed.py.

A request is bytes on a socket, so that also what no HTTP client would send can be sent. Each kind is one function in KINDS, with
the statuses that are right for it; a new kind is one entry.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Draw = Callable[[random.Random, str], bytes]
REFUSED = frozenset({400, 404, 405, 408, 413, 415, 422, 429})
WORDS = [
    "",
    " ",
    "x" * 5000,
    "\u0000",
    "日本" * 50,
    "🙂",
    "\\",
    '"',
    "${jndi:ldap://x}",
    "../../etc/passwd",
    "<|im_end|>",
    "%s%n",
    "\u202e",
]
ODD: list[Any] = [
    None, True, False, 0, -1, 1.5, -0.0, 1e308, 10**30, -(2**63) - 1, 2**64, "", "x", "12", [], [[]], {}, {"a": 1}, [None], [1, "x"],
]  # fmt: skip
FIELDS = {
    "messages": [
        None, 0, "hello", {}, [], [None], ["hello"], [{}], [{"role": "user"}], [{"content": "x"}], [{"role": "king", "content": "x"}],
        [{"role": "user", "content": None}], [{"role": "user", "content": 7}], [{"role": "user", "content": [{"type": "image_url"}]}],
        [{"role": 3, "content": "x"}], [{"role": "user", "content": "a\u0000b"}], [[{"role": "user", "content": "x"}]],
    ],
    "model": [None, 7, [], {}, True, "no-such-model", "x" * 10_000, "../x"],
    "max_tokens": [0, -1, -(10**20), 10**20, 1.5, "12", [], {}, True],
    "temperature": [-0.1, 2.1, 1e308, -1e308, "hot", [], {}, True],
    "top_p": [0, -1, 1.0001, 5, "x", [], {}, True],
    "seed": [1.5, "x", [], {}, 2**63, -(2**63) - 1, 10**40],
    "stop": [7, True, {}, [""], "", ["a"] * 5, [1], [None], "x" * 101, [["a"]]],
    "stream": [1, "true", [], {}, 0.5],
    "stream_options": [1, "x", [], {"include_usage": "yes"}, {"include_usage": 1}],
    "n": [0, 2, -1, "1", [], 1.5],
    "tools": [[{"type": "function"}], "x", 7],
    "logprobs": [True, 5, "x"],
    "response_format": [{"type": "json_object"}, "json", 7, []],
    "presence_penalty": [1, -2, "x", []],
}  # fmt: skip
FIELDS_OF_COMPLETIONS = {"prompt": [None, 7, {}, [], [""], ["a", "b"], [-1], [2**31], [1.5], [True], [[1, 2]], "a\u0000b", [49_152]]}


@dataclass(frozen=True)
class Kind:
    """`draw`: the bytes of a request. `statuses`: what may answer it; none: the connection is left, and nothing is read."""

    draw: Draw
    statuses: frozenset[int] = REFUSED


def post(body: bytes, path: str = "/v1/chat/completions", length: object = None, headers: str = "", method: str = "POST") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n{headers}"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def good(model: str, **changed: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0} | changed


def wrong_field(draw: random.Random, model: str) -> bytes:
    name = draw.choice(list(FIELDS))
    return post(json.dumps(good(model) | {name: draw.choice(FIELDS[name])}).encode())


def wrong_completion(draw: random.Random, model: str) -> bytes:
    known = {
        name: values for name, values in FIELDS.items() if name not in ("messages", "tools", "response_format")
    } | FIELDS_OF_COMPLETIONS
    name = draw.choice(list(known))
    body = {"model": model, "prompt": "Hi", "max_tokens": 1} | {name: draw.choice(known[name])}
    return post(json.dumps(body).encode(), "/v1/completions")


def missing_field(draw: random.Random, model: str) -> bytes:
    body = good(model)
    del body[draw.choice(["model", "messages"])]
    return post(json.dumps(body).encode())


def no_object(draw: random.Random, model: str) -> bytes:
    return post(json.dumps(draw.choice(ODD)).encode())


def no_json(draw: random.Random, model: str) -> bytes:
    whole = json.dumps(good(model)).encode()
    broken = [
        whole[: draw.randrange(1, len(whole))],
        whole + b"}",
        b"{'a': 1}",
        b"",
        b"NaN",
        b"<xml/>",
        b"{" * 5,
        whole.replace(b":", b"=", 1),
    ]
    return post(draw.choice(broken))


def not_utf8(draw: random.Random, model: str) -> bytes:
    bad = draw.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\xaf"])
    return post(json.dumps(good(model, user="@")).encode().replace(b"@", bad))


def surrogate(draw: random.Random, model: str) -> bytes:
    """Half of a pair of UTF-16, escaped: JSON allows it, and no encoder can write it."""
    name = draw.choice(['"model"', '"messages"'])
    text = json.dumps(good(model))
    if name == '"model"':
        text = text.replace(json.dumps(model), '"x\\ud800"')
    return post(text.replace('"Hi"', '"a\\udfff b"').encode())


def not_a_number(draw: random.Random, model: str) -> bytes:
    name = draw.choice(["temperature", "top_p", "max_tokens", "seed"])
    text = json.dumps(good(model) | {name: "@"}).replace('"@"', draw.choice(["NaN", "Infinity", "-Infinity", "1e999", "-1e999"]))
    return post(text.encode())


def long_number(draw: random.Random, model: str) -> bytes:
    return post(json.dumps(good(model, max_tokens="@")).replace('"@"', "9" * draw.choice([400, 5000])).encode())


def deep(draw: random.Random, model: str) -> bytes:
    depth = draw.choice([33, 100, 1_000, 50_000])
    opening, closing = draw.choice([("[", "]"), ('{"a":', "}")])
    return post(json.dumps(good(model, user="@")).replace('"@"', opening * depth + "1" + closing * depth).encode())


def huge(draw: random.Random, model: str) -> bytes:
    return post(json.dumps(good(model, user="x" * draw.choice([262_144, 400_000]))).encode())


def too_many(draw: random.Random, model: str) -> bytes:
    return post(json.dumps(good(model, messages=[{"role": "user", "content": "x"}] * 300)).encode())


def too_long_a_prompt(draw: random.Random, model: str) -> bytes:
    return post(json.dumps(good(model, messages=[{"role": "user", "content": "one two " * draw.choice([2_000, 20_000])}])).encode())


def announced_too_long(draw: random.Random, model: str) -> bytes:
    return post(b'{"model":', length=draw.choice([10**7, 10**12, 10**19]))


def bad_length(draw: random.Random, model: str) -> bytes:
    return post(json.dumps(good(model)).encode(), length=draw.choice(["-1", "x", "1e3", "0x10", "", "5, 6", "99999999999999999999999"]))


def two_lengths(draw: random.Random, model: str) -> bytes:
    return post(json.dumps(good(model)).encode(), headers=draw.choice(["Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n"]))


def bad_chunks(draw: random.Random, model: str) -> bytes:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + draw.choice([b"zz\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n", b"ffffffffffffffffffffffff\r\nx", b"5\r\nhelloXX0\r\n\r\n"])


def no_http(draw: random.Random, model: str) -> bytes:
    junk = bytes(draw.randrange(256) for _ in range(60))
    return draw.choice(
        [
            junk + b"\r\n\r\n",
            b"GET\r\n\r\n",
            b"POST / HTTP/9.9\r\nConnection: close\r\n\r\n",
            b"\x16\x03\x01\x02\x00" + junk + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
        ]
    )


def huge_head(draw: random.Random, model: str) -> bytes:
    return b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: " + b"a" * draw.choice([40_000, 200_000]) + b"\r\n\r\n"


PLACES = [
    ("DELETE", "/v1/chat/completions"), ("PUT", "/v1/models"), ("POST", "/"), ("GET", "/v1/chat/completions"), ("POST", "/v1/%ff%00"),
    ("GET", "/v1/models/%00"), ("GET", "/v1/models/" + "a" * 3000), ("POST", "/health/ready"),
]  # fmt: skip


def wrong_place(draw: random.Random, model: str) -> bytes:
    method, path = draw.choice(PLACES)
    return post(b"{}", path, method=method)


def other_type(draw: random.Random, model: str) -> bytes:
    kind = draw.choice(["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", "x" * 500])
    return post(json.dumps(good(model)).encode()).replace(b"application/json", kind.encode())


def words_everywhere(draw: random.Random, model: str) -> bytes:
    """Odd texts where texts belong: some are good requests, and are answered."""
    content = draw.choice(WORDS[:2] + WORDS[4:]) + draw.choice(WORDS[:2] + WORDS[4:])
    return post(json.dumps(good(draw.choice([model, *WORDS]), messages=[{"role": "user", "content": content}])).encode())


def left(draw: random.Random, model: str) -> bytes:
    """A part of a good request, whose sender then goes away."""
    whole = post(json.dumps(good(model)).encode())
    return whole[: draw.randrange(len(whole))]


def left_stream(draw: random.Random, model: str) -> bytes:
    """A whole request for a long stream, whose sender does not wait for it."""
    return post(json.dumps(good(model, stream=True, max_tokens=200)).encode())


KINDS: dict[str, Kind] = {
    "wrong field": Kind(wrong_field),
    "wrong completion": Kind(wrong_completion),
    "missing field": Kind(missing_field),
    "no object": Kind(no_object),
    "no JSON": Kind(no_json),
    "not UTF-8": Kind(not_utf8),
    "half a pair": Kind(surrogate),
    "not a number": Kind(not_a_number),
    "long number": Kind(long_number),
    "deep": Kind(deep, frozenset({400, 413})),
    "huge": Kind(huge, frozenset({413})),
    "too many messages": Kind(too_many),
    "too long a prompt": Kind(too_long_a_prompt, frozenset({400, 413})),
    "announced too long": Kind(announced_too_long),
    "bad length": Kind(bad_length),
    "two lengths": Kind(two_lengths),
    "bad chunks": Kind(bad_chunks),
    "no HTTP": Kind(no_http),
    "huge head": Kind(huge_head, REFUSED | {200}),  # a long one that came in one piece is no harm
    "wrong place": Kind(wrong_place),
    "other type": Kind(other_type),
    "odd words": Kind(words_everywhere, REFUSED | {200}),
    "left": Kind(left, frozenset()),
    "left stream": Kind(left_stream, frozenset()),
}


def drawn(seed: int, count: int, model: str) -> list[tuple[str, bytes, frozenset[int]]]:
    """(kind, bytes, right statuses) of `count` requests, every kind as often as every other."""
    draw, names = random.Random(seed), list(KINDS)
    return [(name, KINDS[name].draw(draw, model), KINDS[name].statuses) for name in (names[n % len(names)] for n in range(count))]
