"""Claims on sizes and errors that block formats decide, on random weights: no model, no server, well under a second."""

from __future__ import annotations

from typing import Any

import numpy as np

from labkit.facts import block_formats, claims, ternary
from labkit.facts.live.tools import of_row
from labkit.facts.live.world import Seen, World


def _blocks(world: World) -> Any:
    return world.module("labkit.quant.blocks")


def _weights() -> np.ndarray:
    return np.random.default_rng(7).normal(size=(64, 1024)).astype(np.float32)


def _back(world: World, kind: str, weights: np.ndarray) -> np.ndarray:
    codec = _blocks(world)
    return np.asarray(codec.decode(kind, codec.encode(kind, weights))).reshape(weights.shape)


def _error(weights: np.ndarray, back: np.ndarray) -> float:
    return float(np.linalg.norm(back - weights) / np.linalg.norm(weights))


def savings(world: World) -> Seen:
    """`quant-q4-75-percent`"""
    return of_row(claims.savings(_blocks(world).bits_per_weight))


def half_a_byte(world: World) -> Seen:
    """`quant-int4-half-a-byte`"""
    return of_row(block_formats.half_a_byte(bits_per_weight=_blocks(world).bits_per_weight))


def speed_ceiling(world: World) -> Seen:
    """`quant-4bit-four-times-as-fast`: what is read for each weight sets a ceiling, whatever the machine."""
    ceiling = _blocks(world).bits_per_weight("F16") / _blocks(world).bits_per_weight("Q4_0")
    return (
        ceiling < 4,
        f"Q4_0 reads {ceiling:.2f} times fewer bytes than F16, so no machine makes it more than that much faster by reading less",
    )


def lossless(world: World) -> Seen:
    """`quant-q8-lossless`"""
    weights = _weights()
    error = _error(weights, _back(world, "Q8_0", weights))
    return error > 0, f"on random weights the error of Q8_0 is {error:.2%}"


def same_size(world: World) -> Seen:
    """`quant-kquant-same-size`"""
    weights = _weights()
    rows = [
        {"tensor": "random", "kind": kind, "source": "F32", "relative_error": _error(weights, _back(world, kind, weights))}
        for kind in ("Q4_0", "Q4_K")
    ]
    return of_row(block_formats.superblocks(rows))


def twice(world: World) -> Seen:
    """`quant-requantize`"""
    weights = _weights()
    rows = [
        {"via": via, "source": "F32", "relative_error": _error(weights, _back(world, "Q4_0", _back(world, via, weights)))}
        for via in ("F16", "Q4_1")
    ]
    return of_row(block_formats.requantized(rows))


def ternary_bits(world: World) -> Seen:
    """`ternary-file-bits`"""
    return of_row(
        ternary.file_bits([{"type": kind, "bits_per_weight": _blocks(world).bits_per_weight(kind)} for kind in ("TQ1_0", "TQ2_0")])
    )


def ternary_energy(world: World) -> Seen:
    """`ternary-energy-71-times`"""
    return of_row(ternary.energy_factor(world.module("labkit.quant.energy").per_weight))
