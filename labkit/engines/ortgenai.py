"""ONNX Runtime GenAI in this process. Also a Scorer.

It loads ONNX folders (labkit.quant.onnx.convert, or any with a genai_config.json). A GGUF file or a Hugging Face folder is
converted once, into the cache, by the recipe that is asked for. Sampling is the library's own; the end of a text is watched
here, so that a benchmark may go on past it. `keep_cache` holds for greedy requests: the library ties its random numbers to the
KV cache, and a sampled answer would then depend on what was asked before.

>>> session = engines.open("ortgenai").load(models.resolve("stdlib-10m"), recipe="int4", threads=1)
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from labkit.core import extras, machine
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.core.records import Chunk, Message, ModelRef, Request, Usage
from labkit.engines import stream
from labkit.engines.hf_text import HfText
from labkit.engines.options import parse
from labkit.quant import folders, onnx

_STEP = 128  # prompt tokens scored at once, so that memory stays bounded


class OrtGenAIOptions(BaseModel):
    """What `ortgenai` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int | None = Field(None, ge=1, description="None: all cores this process may use")
    context: int | None = Field(None, ge=32, description="tokens of prompt and answer together; None: 2048, or the model's where less")
    recipe: str = Field("int4", description="how a GGUF file or a Hugging Face folder is converted: labkit.quant.onnx.RECIPES")
    check_memory: bool = True


class OrtGenAI:
    name = "ortgenai"
    formats = frozenset({"onnx-genai", "hf", "gguf"})

    def missing(self) -> str | None:
        return onnx.missing()

    def version(self) -> str:
        return extras.version("onnx")

    def load(self, model: ModelRef, **options: Any) -> OrtGenAISession:
        """Options: see OrtGenAIOptions."""
        chosen = parse(OrtGenAIOptions, self.name, options)
        if model.format not in self.formats:
            raise BadInput(f"engine ortgenai reads ONNX folders and GGUF files, {model.name} is {model.format}", "labkit doctor")
        extras.require("onnx")
        if model.format != "onnx-genai":
            model = onnx.convert(model, chosen.recipe)
        return OrtGenAISession(model, chosen)


ENGINE = OrtGenAI()


def _library() -> Any:
    try:
        return importlib.import_module("onnxruntime_genai")  # it has no types
    except ImportError as error:  # an extra that is there and cannot be loaded: a second build of the same library is
        raise MissingPart(
            f"onnxruntime-genai cannot be loaded here ({str(error)[:120]})", "restart the kernel, and use one of ortgenai and foundry's SDK"
        ) from error


class OrtGenAISession:
    """A loaded ONNX model and its KV cache."""

    engine_name = OrtGenAI.name
    load_s: float | None
    has_vocabulary = True

    def __init__(self, model: ModelRef, options: OrtGenAIOptions) -> None:
        self.options = options
        self.model = model if model.sha256 else model.model_copy(update={"sha256": folders.digest(model.path)})
        config = _config(model)
        weights = sum(path.stat().st_size for pattern in ("*.onnx", "*.onnx.data") for path in model.path.glob(pattern))
        if options.check_memory and weights > machine.memory_available_bytes():
            raise BadInput(
                f"the weights of {model.name} take {weights / 1e9:.1f} GB, and {machine.memory_available_bytes() / 1e9:.1f} GB are free",
                "close other programs, or take a smaller model: labkit models",
            )
        longest = int(config["model"]["context_length"])
        if options.context and options.context > longest:
            raise BadInput(f"{model.name} reads at most {longest} tokens, context is {options.context}", f"context={longest}")
        self.context = options.context or min(2048, longest)
        self.threads: int | None = options.threads or machine.cores()
        self.n_vocab = int(config["model"]["vocab_size"])
        self._scores = config["model"]["decoder"]["outputs"]["logits"]
        ends = config["model"]["eos_token_id"]
        self._ends = set(ends) if isinstance(ends, list) else {ends}
        self.text = HfText(model.path)
        self.has_chat_template = self.text.chat_template is not None
        self._og = _library()
        started = time.perf_counter_ns()
        self._model = self._load()
        self.load_s = (time.perf_counter_ns() - started) / 1e9
        self._generator: Any = None  # holds the KV cache of the last request
        self._greedy = False  # was that one greedy?
        self._cached: list[int] = []  # tokens whose keys and values are in it
        self._usage = Usage()
        self.engine_version: str | None = ENGINE.version()

    def _load(self) -> Any:
        # waiting threads sleep: spinning ones halve the speed of a busy machine. No token ends a text: the session watches for it
        runtime = {"intra_op_num_threads": self.threads, "session.intra_op.allow_spinning": "0"}
        try:
            config = self._og.Config(str(self.model.path))
            config.overlay(json.dumps({"model": {"eos_token_id": -1, "decoder": {"session_options": runtime}}}))
            return self._og.Model(config)
        except RuntimeError as error:
            said = " ".join(str(error).split())[:200]
            raise BadInput(f"ONNX Runtime GenAI cannot load {self.model.path}: {said}", "convert the model again") from error

    @property
    def bos(self) -> int | None:
        """The token that this model wants in front of a text; None where it wants none."""
        return self.text.bos

    @property
    def settings(self) -> dict[str, Any]:
        found = folders.note_of(self.model.path)
        device = str(self._model.device_type).lower()
        return {"context": self.context, "recipe": found.get("recipe"), "source_type": found.get("precision"), "device": device}

    # -- text and tokens

    def tokenize(self, text: str, special: bool = False, bos: bool = False) -> list[int]:
        """Token ids of a text; `special` also reads markers such as <|im_start|>."""
        return self.text.tokenize(text, special, bos)

    def token_text(self, token: int, special: bool = False) -> str:
        return self.text.detokenize([token], special)

    def detokenize(self, tokens: Sequence[int], special: bool = False) -> str:
        return self.text.detokenize(tokens, special)

    def is_end(self, token: int) -> bool:
        """Is this an end-of-text or end-of-turn token?"""
        return token in self._ends

    def chat_prompt(self, messages: Sequence[Message]) -> str:
        """The text that the model sees; plain texts one after another where it has no chat template."""
        return self.text.chat_prompt(messages)

    def prompt_tokens(self, request: Request) -> list[int]:
        """The ids that a request puts in front of the model."""
        return self.text.prompt_tokens(request, self.n_vocab)

    # -- generation

    def stream(self, request: Request) -> Iterator[Chunk]:
        """One chunk a token. Raises BadInput where the prompt does not fit the context."""
        tokens = self.prompt_tokens(request)
        stream.check_prompt(tokens, self.context)
        return self._generate(request, tokens)

    def _generate(self, request: Request, tokens: list[int]) -> Iterator[Chunk]:
        from tokenizers.decoders import DecodeStream

        cached = self._ready(request, tokens)
        self._usage = Usage(prompt_tokens=len(tokens), output_tokens=0, cached_tokens=cached, finish_reason="cancelled")
        decoder, held, count, reason = DecodeStream(skip_special_tokens=True), "", 0, "length"
        most = min(request.max_tokens, self.context - len(tokens))
        try:
            self._run(lambda: self._generator.append_tokens(np.array(tokens[cached:], np.int32)))
            while count < most:
                self._run(self._generator.generate_next_token)
                token = int(self._generator.get_next_tokens()[0])
                if self.is_end(token) and not request.ignore_eos:
                    reason = "stop"
                    break
                count += 1
                self._usage = self._usage.model_copy(update={"output_tokens": count})
                held += decoder.step(self.text.plain, token) or ""
                text, held, stopped = stream.cut(held, request.stop)
                yield Chunk(text, 1)
                if stopped:
                    reason = "stop"
                    break
            if held and reason != "stop":
                yield Chunk(held, 0)
            self._usage = self._usage.model_copy(update={"finish_reason": reason})
        finally:
            if self._generator is not None:  # the last token was chosen and not computed yet
                self._cached = [int(token) for token in self._generator.get_sequence(0)[:-1]]

    def usage(self) -> Usage:
        return self._usage

    def set_threads(self, threads: int) -> None:
        """Change the number of threads: the library fixes it with the model, so the model is loaded again and its KV cache is empty."""
        if threads != self.threads:
            self._generator, self._cached, self._model = None, [], None
            self.threads = threads
            self._model = self._load()

    def _ready(self, request: Request, tokens: Sequence[int]) -> int:
        """A generator that holds the start of these tokens; returns how many of them."""
        greedy = request.temperature == 0
        if self._generator is not None and request.keep_cache and greedy and self._greedy:
            same = stream.same_start(tokens, self._cached, len(tokens))
            if same:
                self._generator.rewind_to(same)
                return same
        self._generator, self._cached, self._greedy = None, [], greedy
        self._generator = self._new(request)
        return 0

    def _new(self, request: Request | None = None) -> Any:
        """A generator with an empty KV cache of the session's context."""
        params = self._og.GeneratorParams(self._model)
        how: dict[str, Any] = {"do_sample": False}
        if request and request.temperature > 0:
            seed = request.seed & 0x7FFFFFFF
            how = {"do_sample": True, "temperature": request.temperature, "top_p": request.top_p, "top_k": 0, "random_seed": seed}
        params.set_search_options(max_length=self.context, **how)
        return self._og.Generator(self._model, params)

    def _run(self, step: Any) -> None:
        try:
            step()
        except RuntimeError as error:
            self._generator, self._cached = None, []
            said = " ".join(str(error).split())[:200]
            raise RunFailed(f"ONNX Runtime stopped: {said}", "a smaller context, or a shorter prompt") from error

    # -- scoring

    def logits(self, tokens: Sequence[int], start: int = 0) -> Iterator[np.ndarray]:
        """Scores for the next token at each position from `start` on: float32 [vocabulary] each."""
        stream.check_scored(tokens, self.context)
        generator = self._new()
        for first in range(0, len(tokens), _STEP):
            generator.append_tokens(np.array(tokens[first : first + _STEP], np.int32))
            if first + _STEP > start:
                found = np.asarray(generator.get_output(self._scores))[0].astype(np.float32, copy=False)
                yield from found[max(0, start - first) :]

    def close(self) -> None:
        self._generator, self._cached, self._model = None, [], None

    def __enter__(self) -> OrtGenAISession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _config(model: ModelRef) -> dict[str, Any]:
    """genai_config.json, with the keys that a session needs. Raises BadInput for a folder that has them not."""
    try:
        config: dict[str, Any] = json.loads((model.path / "genai_config.json").read_text(encoding="utf-8"))
        decoder = config["model"]["decoder"]
        known = decoder["outputs"]["logits"], config["model"]["eos_token_id"], config["model"]["context_length"]
        whole = (model.path / decoder["filename"]).is_file() and all(one is not None for one in known)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{model.path} has no whole genai_config.json ({error})", "convert the model again") from error
    if not whole:
        raise BadInput(f"{model.path} has no {decoder['filename']}", "convert the model again")
    return config
