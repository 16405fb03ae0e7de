"""Weights that make codecs differ: one family a kind of trouble. All float32 [n, 256], the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

F32 = np.float32
MAX = np.finfo(F32).max


def families(seed: int, rows: int) -> Iterator[tuple[str, np.ndarray]]:
    """(name, float32 [rows, 256]) for each family; finite throughout."""
    rng = np.random.default_rng(seed)
    shape = (rows, 256)
    normal = rng.normal(size=shape).astype(F32)
    yield "normal", normal * F32(0.02)
    yield "any scale", _finite(normal.astype(np.float64) * 10.0 ** rng.uniform(-46, 38.2, (rows, 1)))
    yield "any scale a block of 16", _finite(normal.astype(np.float64) * np.repeat(10.0 ** rng.uniform(-12, 12, (rows, 16)), 16, axis=1))
    yield "heavy tails", _finite(rng.standard_cauchy(shape))
    yield "outliers", np.where(rng.random(shape) < 0.01, normal * F32(1000), normal)
    steps = rng.integers(1, 40, (rows, 1))
    yield "ties", (rng.integers(-steps, steps + 1, shape) * rng.choice([0.25, 0.5, 1.0, 0.1, 3.0], (rows, 1))).astype(F32)
    yield "halves", (rng.integers(-255, 256, shape) * 0.5).astype(F32)
    yield "grid of 16", (rng.integers(-8, 8, shape) * rng.uniform(0.001, 1, (rows, 1))).astype(np.float16).astype(F32)
    yield "same size, both signs", np.where(rng.random(shape) < 0.5, F32(1), F32(-1)) * normal[:, :1]
    yield "all equal", np.broadcast_to(normal[:, :1], shape).copy()
    yield "equal in blocks of 32", np.repeat(normal[:, :8], 32, axis=1)
    yield "zeros of both signs", np.where(rng.random(shape) < 0.5, F32(0), F32(-0.0))
    zeros = np.zeros(shape, F32)
    zeros[::2] = -0.0
    yield "all zero", zeros
    yield "sparse", np.where(rng.random(shape) < 0.03, normal, np.where(rng.random(shape) < 0.5, F32(0), F32(-0.0)))
    yield "one in a block", np.where(np.arange(256) == rng.integers(0, 256, (rows, 1)), normal, F32(0))
    yield "positive", np.abs(normal)
    yield "negative", -np.abs(normal)
    yield "far from zero", normal * F32(1e-4) + F32(3)
    yield (
        "denormal",
        (rng.integers(-(10 ** rng.integers(1, 7, (rows, 1))), 10 ** rng.integers(1, 7, (rows, 1)), shape) * 2.0**-149).astype(F32),
    )
    yield "near the smallest halves", (normal.astype(np.float64) * 10.0 ** rng.uniform(-9, -3, (rows, 1))).astype(F32)
    yield "near the largest halves", _finite(normal.astype(np.float64) * 10.0 ** rng.uniform(3, 8, (rows, 1)))
    yield "largest", np.where(rng.random(shape) < 0.5, F32(MAX), F32(-MAX)) * rng.choice([0.0, 0.5, 1.0], shape).astype(F32)
    bits = rng.integers(0, 1 << 32, shape, dtype=np.uint64).astype(np.uint32)
    yield "any bits", np.where(bits >> 23 & 255 == 255, F32(0), bits.view(F32))
    yield "ternary", (rng.integers(-1, 2, shape) * np.abs(normal[:, :1])).astype(F32)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.clip(np.nan_to_num(values, nan=0.0), -MAX, MAX).astype(F32)
