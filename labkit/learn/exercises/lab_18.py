"""The exercises of lab 18: steps of a batch, throughput from TTFT and TPOT, cached tokens, blocks, a quantile of a histogram."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from labkit.learn import vllm_sums as sums
from labkit.learn.check import Exercise, Part, Wrong, close, likely_mistake

Test = Callable[[Any, Any], str | None]

# -- continuous batching


def _steps(enough: bool) -> Test:
    def test(answer: Any, rng: Any) -> str | None:
        while True:  # a draw in which each likely mistake gives another number
            count, slots = int(rng.integers(6, 10)), int(rng.integers(2, 5))
            lengths = [int(n) for n in rng.integers(4, 60, count)]
            slots = count + slots if enough else slots
            right = sums.steps(lengths, slots)
            others = [sum(lengths), math.ceil(sum(lengths) / slots), sum(lengths) // slots]
            others += [] if enough else [sums.static_steps(lengths, slots), max(lengths)]
            if right not in others:
                break
        likely = (
            (sum(lengths), "That is one request after another. Each step gives a token to every request that has a place."),
            (
                sums.static_steps(lengths, slots),
                "Your places wait for the longest of their batch. A free place goes to the next request at once.",
            ),
            (max(lengths), "There are fewer places than requests, so somebody has to wait for a place."),
            (math.ceil(sum(lengths) / slots), "That would keep every place busy to the end. The last requests leave places empty."),
            (sum(lengths) // slots, "That would keep every place busy to the end. The last requests leave places empty."),
        )
        given = answer(list(lengths), slots)
        return likely_mistake(given, right, "Play a small case on paper: which place is free first, and who takes it?", values=likely)

    return test


batch_steps = Exercise(
    "batch_steps",
    "Steps of a continuous batch",
    (Part(1, "a place for everyone", _steps(True)), Part(2, "fewer places than requests", _steps(False))),
    (
        Wrong(
            "return sum(max(lengths[at : at + slots]) for at in range(0, len(lengths), slots))",
            "longest of their batch",
            "static batches",
        ),
        Wrong("return sum(lengths)", "one request after another", "no batch at all"),
        Wrong("return -(-sum(lengths) // slots)", "every place busy to the end", "places that are always full"),
        Wrong("return max(lengths)", "fewer places than requests", "places without end"),
    ),
)


# -- throughput and latency


def _throughput(answer: Any, rng: Any) -> str | None:
    clients, tokens = int(rng.integers(3, 17)), int(rng.integers(12, 90))
    ttft, tpot = round(float(rng.uniform(0.2, 2)), 3), round(float(rng.uniform(0.02, 0.2)), 4)
    one = ttft + (tokens - 1) * tpot
    right = sums.tokens_per_s(clients, ttft, tpot, tokens)
    likely = (
        (clients / tpot, "While a client waits for its first token it gets none: the TTFT belongs to the time of a request."),
        (1 / tpot, "That is one client after its first token. All clients get tokens at the same time."),
        (tokens / one, "That is what one client gets. All clients get as much at the same time."),
        (
            clients * tokens / (ttft + tokens * tpot),
            "The first token comes at the end of the TTFT: one gap less than tokens is left.",
        ),
        (clients * (tokens - 1) / one, "The first token counts too: the clients get all tokens in that time."),
        (tokens / (one * clients), "The clients do not share one stream: TPOT is what each of them sees."),
        (clients / one, "Those are requests per second. The question is tokens."),
        (
            clients * tokens / (ttft + (tokens - 1) * tpot * clients),
            "TPOT was measured with all clients at work: it is not multiplied again.",
        ),
    )
    given = answer(clients, ttft, tpot, tokens)
    return likely_mistake(
        given,
        right,
        "Begin with one client: how long does one whole request take it, and how many tokens does it have then?",
        values=likely,
    )


tokens_per_s = Exercise(
    "tokens_per_s",
    "Throughput from TTFT and TPOT",
    (Part(2, "clients that ask again at once", _throughput),),
    (
        Wrong("return clients / tpot_s", "waits for its first token", "forgets the wait"),
        Wrong(
            "return output_tokens / (ttft_s + (output_tokens - 1) * tpot_s)",
            "what one client gets",
            "forgets the other clients",
        ),
        Wrong(
            "return clients * output_tokens / (ttft_s + output_tokens * tpot_s)",
            "one gap less",
            "counts a gap too many",
        ),
        Wrong(
            "return clients / (ttft_s + (output_tokens - 1) * tpot_s)",
            "requests per second",
            "counts requests",
        ),
    ),
)


# -- the prefix cache


def _cached(whole: bool) -> Test:
    def test(answer: Any, rng: Any) -> str | None:
        block = int(rng.choice([16, 32, 64, 128]))
        if whole:
            prompt = shared = block * int(rng.integers(3, 9))
        else:
            shared = block * int(rng.integers(2, 9)) + int(rng.integers(1, block // 2))
            prompt = shared + int(rng.integers(2 * block + 3, 4 * block))
        right = sums.cached_tokens(prompt, shared, block)
        all_of_it = (
            "The last token of a prompt is always computed: without it there is nothing to choose the first token of the answer from."
        )
        likely = (
            (prompt // block * block, all_of_it if whole else "Only the beginning that both prompts share can be there already."),
            (shared, "The cache knows whole blocks only: the rest of a block that is not full is computed again."),
            (shared // block, "That is blocks. The answer is wanted in tokens."),
            ((shared // block + 1) * block, "The cache knows whole blocks only: round down, not up."),
            (prompt - right, "Those are the tokens that are computed. The question is which are not."),
        )
        given = answer(prompt, shared, block)
        return likely_mistake(given, right, "Whole blocks of the shared beginning, and never all of the prompt.", values=likely)

    return test


cached_tokens = Exercise(
    "cached_tokens",
    "Tokens from the prefix cache",
    (Part(1, "a common beginning", _cached(False)), Part(1, "the same prompt again", _cached(True))),
    (
        Wrong("return shared_tokens", "whole blocks only", "forgets the blocks"),
        Wrong("return -(-shared_tokens // block_size) * block_size", "round down", "rounds up"),
        Wrong("return shared_tokens // block_size", "in tokens", "counts blocks"),
        Wrong("return shared_tokens // block_size * block_size", "last token of a prompt", "takes the whole prompt from the cache"),
        Wrong("return prompt_tokens // block_size * block_size", "beginning that both prompts share", "looks at the prompt alone"),
    ),
)


# -- blocks of the KV cache


def _blocks(one: bool) -> Test:
    def test(answer: Any, rng: Any) -> str | None:
        while True:
            block = int(rng.choice([16, 32, 128]))
            count = 1 if one else int(rng.integers(4, 9))
            some = [
                (int(rng.integers(2, 6)) * block + int(rng.integers(2, block)), int(rng.integers(2 * block + 1, 4 * block)))
                for _ in range(count)
            ]
            total = sum(map(sum, some))
            right = sums.blocks_needed(some, block)
            others = [
                sum(math.ceil(p / block) for p, _ in some),
                sum((p + o) // block for p, o in some),
                sum(math.ceil(p / block) + math.ceil(o / block) for p, o in some),
            ]
            others += [] if one else [math.ceil(total / block)]
            # a last token that nobody reads back needs no place: where that would change the number, draw again
            if len({right, *others}) == 1 + len(others) and all((p + o) % block > 1 for p, o in some):
                break
        likely = (
            (total, "Those are tokens. The question is blocks."),
            (math.ceil(total / block), "A block belongs to one request: round up for each of them, then add."),
            (total / block, "A block is taken whole: round up for each request."),
            (others[0], "The answer's tokens are kept, too: they are read again at each further step."),
            (others[1], "The last block of a request is taken even if it is not full: round up."),
            (others[2], "Prompt and answer lie behind each other: the answer begins in the prompt's last block."),
        )
        given = answer([tuple(pair) for pair in some], block)
        return likely_mistake(
            given,
            right,
            "Begin with one request: how many tokens does it hold at its end, and who else may use its last block?",
            values=likely,
        )

    return test


blocks_needed = Exercise(
    "blocks_needed",
    "Blocks of the KV cache",
    (Part(1, "one request", _blocks(True)), Part(1, "many requests", _blocks(False))),
    (
        Wrong(
            "return -(-sum(prompt + output for prompt, output in requests) // block_size)",
            "belongs to one request",
            "lets requests share a block",
        ),
        Wrong("return sum(-(-prompt // block_size) for prompt, output in requests)", "kept, too", "forgets the answers"),
        Wrong("return sum((prompt + output) // block_size for prompt, output in requests)", "round up", "rounds down"),
        Wrong("return sum(prompt + output for prompt, output in requests)", "tokens", "counts tokens"),
    ),
)


# -- a quantile out of a histogram


_EDGES = (0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


def _quantile(beyond: bool = False, first: bool = False) -> Test:
    def test(answer: Any, rng: Any) -> str | None:
        while True:
            edges = [*_EDGES[: int(rng.integers(5, 9))], math.inf]
            counts = [int(n) for n in rng.integers(2, 40, len(edges))]
            counts[-1] = int(sum(counts) * 0.3) if beyond else 0
            summed = [sum(counts[: at + 1]) for at in range(len(counts))]
            buckets = list(zip(edges, map(float, summed), strict=True))
            q = 0.95 if beyond else float(rng.choice([0.1, 0.2] if first else [0.5, 0.9, 0.95]))
            right, rank = sums.quantile(buckets, q), q * summed[-1]
            at = next(n for n, count in enumerate(summed) if count >= rank)
            if first:
                if at == 0 and 0.1 < rank / counts[0] < 0.45:
                    break
            elif beyond or (at >= 1 and 0.1 < (rank - summed[at - 1]) / counts[at] < 0.45):
                break
        low, high = edges[at - 1] if at else 0.0, edges[at]
        given = answer(list(buckets), q)
        if beyond and isinstance(given, float) and math.isinf(given):
            return "Nothing is known beyond the last finite edge: return that edge."
        wrong_rank = [(edge, count) for edge, count in buckets if count >= q * sum(summed)]
        likely = [
            (high, "That is the upper edge of the right bucket. Go only as far into it as the rank lies between the two counts."),
            (low, "That is the lower edge of the right bucket. Go as far into it as the rank lies between the two counts."),
            ((low + high) / 2, "That is the middle of the right bucket. Go as far into it as the rank lies between the two counts."),
            (
                low + (high - low) * rank / summed[at],
                "The counts are of all values up to an edge: take off the count of the edge below first.",
            ),
            (q * edges[-2], "A quantile is a place among the values, not a share of the largest."),
        ]
        if wrong_rank:
            likely.append((wrong_rank[0][0], "The counts are of all values up to an edge: the last one is the number of values."))
        return likely_mistake(
            given, right, "Rank: q times the last count. Find its bucket, and go linearly from its lower to its upper edge.",
            values=[pair for pair in likely if not close(pair[0], right)],
        )  # fmt: skip

    return test


p95 = Exercise(
    "p95",
    "A quantile from buckets",
    (
        Part(1, "inside the buckets", _quantile()),
        Part(1, "in the first bucket", _quantile(first=True)),
        Part(1, "beyond the last edge", _quantile(beyond=True)),
    ),
    (
        Wrong(
            "rank = q * buckets[-1][1]\nreturn next(edge for edge, count in buckets if count >= rank)",
            "upper edge",
            "takes the upper edge",
        ),
        Wrong(
            "rank, low = q * buckets[-1][1], 0.0\n"
            "for edge, count in buckets:\n"
            "    if count >= rank:\n"
            "        return (low + edge) / 2\n"
            "    low = edge",
            "middle",
            "takes the middle",
        ),
        Wrong(
            "rank, low = q * buckets[-1][1], 0.0\n"
            "for edge, count in buckets:\n"
            "    if count >= rank:\n"
            "        return low + (edge - low) * rank / count\n"
            "    low = edge",
            "take off the count",
            "forgets that the counts add up",
        ),
        Wrong(
            "rank, below, low = q * buckets[-1][1], 0.0, 0.0\n"
            "for edge, count in buckets:\n"
            "    if count >= rank:\n"
            "        return low + (edge - low) * (rank - below) / (count - below)\n"
            "    below, low = count, edge",
            "last finite edge",
            "goes to infinity",
        ),
        Wrong(
            "rank, below, low = q * buckets[-1][1], 0.0, buckets[0][0]\n"
            "for edge, count in buckets:\n"
            "    if count >= rank:\n"
            "        return low if edge == float('inf') else low + (edge - low) * (rank - below) / (count - below)\n"
            "    below, low = count, edge",
            "upper edge",
            "begins the first bucket at its own edge",
        ),
    ),
)
