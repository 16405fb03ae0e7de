"""MLX in this process, through mlx-lm. Also a Scorer. Made for Apple silicon; on Linux it computes on the CPU.

MLX's code for a CPU has no fast 16-bit arithmetic: on x86 a 4-bit product with float16 scales takes about 30 times as long
as one with float32 scales. So without a GPU the scales, biases and norms are widened to float32 when they are loaded. The
codes stay packed and the weights keep their values; the files are not touched. `compute="file"` leaves the types as they are.

It loads MLX folders (labkit.quant.mlx.convert, or any that mlx-lm made) and unquantized Hugging Face folders; a GGUF file
is converted once, into the cache. MLX chooses its own threads.

>>> session = engines.open("mlx").load(models.resolve("stdlib-10m"), bits=4, group_size=64)
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from labkit.core import machine
from labkit.core.errors import BadInput
from labkit.core.records import Chunk, Message, ModelRef, Request, Usage
from labkit.engines import stream, templates
from labkit.engines.options import parse
from labkit.quant import folders
from labkit.quant import mlx as convert


class MlxOptions(BaseModel):
    """What `mlx` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int | None = Field(None, ge=1, description="refused: MLX chooses its own threads")
    context: int = Field(2048, ge=32, description="tokens of prompt and answer together")
    bits: int | None = Field(4, description="of a GGUF file's conversion; None: unquantized")
    group_size: int = Field(64, description="of a GGUF file's conversion")
    compute: Literal["auto", "file", "float32"] = Field("auto", description="arithmetic; auto: float32 without a GPU")
    check_memory: bool = True


class Mlx:
    name = "mlx"
    formats = frozenset({"mlx", "hf", "gguf"})

    def missing(self) -> str | None:
        return convert.missing()

    def version(self) -> str:
        return importlib.metadata.version("mlx-lm")

    def load(self, model: ModelRef, **options: Any) -> MlxSession:
        """Options: see MlxOptions."""
        chosen = parse(MlxOptions, self.name, options)
        if chosen.threads:
            raise BadInput("engine mlx chooses its threads itself", "leave out threads")
        if model.format not in self.formats:
            raise BadInput(f"engine mlx reads MLX folders and GGUF files, {model.name} is {model.format}", "labkit doctor")
        convert.require()
        if model.format == "gguf":
            model = convert.convert(model, chosen.bits, chosen.group_size)
        return MlxSession(model, chosen)


ENGINE = Mlx()


class MlxSession:
    """A loaded MLX model and its KV cache."""

    engine_name = Mlx.name
    threads: int | None = None
    load_s: float | None

    def __init__(self, model: ModelRef, options: MlxOptions) -> None:
        self.options = options
        self.model = model if model.sha256 else model.model_copy(update={"sha256": folders.digest(model.path)})
        header = convert.inspect(model.path)
        if options.check_memory and header.tensor_bytes > machine.memory_available_bytes():
            raise BadInput(
                f"the weights of {model.name} take {header.tensor_bytes / 1e9:.1f} GB, "
                f"and {machine.memory_available_bytes() / 1e9:.1f} GB are free",
                "close other programs, or take a smaller model: labkit models",
            )
        with folders.offline(), folders.quiet_stdout(), convert.library() as mlx_lm:
            import mlx.core as mx
            from mlx_lm import sample_utils
            from mlx_lm.generate import generate_step
            from mlx_lm.models import cache

            self._mx, self._generate_step, self._sample, self._caches = mx, generate_step, sample_utils, cache
            started = time.perf_counter_ns()
            try:
                self._model, self._tokenizer = mlx_lm.load(str(model.path))
            except (ValueError, KeyError, TypeError, RuntimeError) as error:
                said = " ".join(str(error).split())[:200]
                raise BadInput(f"mlx-lm cannot load {model.path}: {said}", "convert the model again") from error
            gpu = mx.default_device() == mx.gpu
            if options.compute == "float32" or (options.compute == "auto" and not gpu):
                self._model.set_dtype(mx.float32)
                mx.eval(self._model.parameters())
            self.load_s = (time.perf_counter_ns() - started) / 1e9
        self.header, self.context = header, options.context
        self.n_vocab = next((t.shape[0] for t in header.tensors if t.kind == "embedding"), len(self._tokenizer.vocab))
        self.has_vocabulary = True
        self.has_chat_template = isinstance(self._tokenizer.chat_template, str)
        self._ends = set(self._tokenizer.eos_token_ids)
        self._cached: list[int] = []  # tokens whose keys and values are in the KV cache
        self._cache: list[Any] = []
        self._usage = Usage()
        self.engine_version: str | None = ENGINE.version()

    @property
    def bos(self) -> int | None:
        """The token that this model wants in front of a text; None where it wants none."""
        found = self._tokenizer.encode("")
        return int(found[0]) if found and found[0] == self._tokenizer.bos_token_id else None

    @property
    def settings(self) -> dict[str, Any]:
        how = {key: self.header.quantization.get(key) for key in ("bits", "group_size")}
        device = str(self._mx.default_device().type).rsplit(".", 1)[-1]
        return {**how, "context": self.context, "device": device, "compute": self.options.compute}

    # -- text and tokens

    def tokenize(self, text: str, special: bool = False, bos: bool = False) -> list[int]:
        """Token ids of a text; `special` also reads markers such as <|im_start|>."""
        return [int(token) for token in self._tokenizer.encode(text, add_special_tokens=bos, split_special_tokens=not special)]

    def token_text(self, token: int, special: bool = False) -> str:
        return self.detokenize([token], special)

    def detokenize(self, tokens: Sequence[int], special: bool = False) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=not special))

    def is_end(self, token: int) -> bool:
        """Is this an end-of-text or end-of-turn token?"""
        return token in self._ends

    def chat_prompt(self, messages: Sequence[Message]) -> str:
        """The text that the model sees; plain texts one after another where it has no chat template."""
        if not self.has_chat_template:
            return templates.plain(messages)
        known = self._tokenizer
        return templates.render(known.chat_template, messages, known.bos_token or "", known.eos_token or "")

    def prompt_tokens(self, request: Request) -> list[int]:
        """The ids that a request puts in front of the model."""
        if request.tokens is not None:
            return stream.check_ids(request.tokens, self.n_vocab, "give ids of this model's tokenizer")
        text = (request.prompt if request.messages is None else self.chat_prompt(request.messages)) or ""
        start = self._tokenizer.bos_token
        written = bool(start) and text.startswith(start)  # the template wrote it already
        return self.tokenize(text, special=request.messages is not None, bos=not written)

    # -- generation

    def stream(self, request: Request) -> Iterator[Chunk]:
        """One chunk a token. Raises BadInput where the prompt does not fit the context."""
        tokens = self.prompt_tokens(request)
        stream.check_prompt(tokens, self.context)
        return self._generate(request, tokens)

    def _generate(self, request: Request, tokens: list[int]) -> Iterator[Chunk]:
        from tokenizers.decoders import DecodeStream

        cached = self._rewind(tokens if request.keep_cache else [], len(tokens))
        self._usage = Usage(prompt_tokens=len(tokens), output_tokens=0, cached_tokens=cached, finish_reason="cancelled")
        decoder, plain = DecodeStream(skip_special_tokens=True), self._tokenizer.backend_tokenizer
        held, count, reason, made = "", 0, "length", list[int]()
        most = min(request.max_tokens, self.context - len(tokens) + 1)  # the last token needs no place
        steps = self._generate_step(
            self._mx.array(tokens[cached:]), self._model, max_tokens=most, sampler=self._sampler(request), prompt_cache=self._cache
        )
        try:
            for raw, _ in steps:
                token = int(raw)
                if self.is_end(token) and not request.ignore_eos:
                    reason = "stop"
                    break
                made.append(token)
                count += 1
                self._usage = self._usage.model_copy(update={"output_tokens": count})
                held += decoder.step(plain, token) or ""
                text, held, stopped = stream.cut(held, request.stop)
                yield Chunk(text, 1)
                if stopped:
                    reason = "stop"
                    break
            if held and reason != "stop":
                yield Chunk(held, 0)
            self._usage = self._usage.model_copy(update={"finish_reason": reason})
        finally:
            steps.close()
            self._cached = (tokens + made)[: self._held()]

    def usage(self) -> Usage:
        return self._usage

    def _held(self) -> int:
        """Tokens in the KV cache; mlx-lm computes one step ahead, so one of them may not have been given out."""
        return int(self._cache[0].offset) if self._cache else 0

    def _rewind(self, wanted: Sequence[int], length: int) -> int:
        """Keep the cached tokens that `wanted` starts with, drop the rest; at least one token is left to compute."""
        same = stream.same_start(wanted, self._cached, length)
        if not same or not self._caches.can_trim_prompt_cache(self._cache):
            self._cache, self._cached = self._caches.make_prompt_cache(self._model), []
            return 0
        self._caches.trim_prompt_cache(self._cache, self._held() - same)
        return same

    def _sampler(self, request: Request) -> Any:
        self._mx.random.seed(request.seed & 0xFFFFFFFF)
        return self._sample.make_sampler(temp=request.temperature, top_p=request.top_p if request.top_p < 1 else 0.0)

    # -- scoring

    def logits(self, tokens: Sequence[int], start: int = 0) -> Iterator[np.ndarray]:
        """Scores for the next token at each position from `start` on: float32 [vocabulary] each."""
        stream.check_scored(tokens, self.context)
        mx = self._mx
        cache = self._caches.make_prompt_cache(self._model)
        for first in range(0, len(tokens), 128):  # in steps, so that memory stays bounded
            found = self._model(mx.array([list(tokens[first : first + 128])]), cache=cache)[0].astype(mx.float32)
            yield from np.array(found)[max(0, start - first) :]

    def close(self) -> None:
        self._cache, self._cached, self._model = [], [], None
        self._mx.clear_cache()

    def __enter__(self) -> MlxSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
