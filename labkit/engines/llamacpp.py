"""llama.cpp in this process, through the C API of llama-cpp-python. Also a Scorer.

The C API is used directly: its high-level class costs time per token that a measurement would count as the model's.
Works with any GGUF decoder; one without a vocabulary (a shape-true model) takes each byte of a text as a token.
"""

from __future__ import annotations

import codecs
import collections
import ctypes
import importlib.metadata
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from labkit.core import machine
from labkit.core.errors import BadInput, MissingPart, RunFailed
from labkit.core.records import Chunk, Message, ModelRef, Request, Usage
from labkit.engines import stream, templates
from labkit.engines.options import LlamaOptions, parse
from labkit.models import footprint, inspect

INSTALL = "uv sync --inexact (it compiles, so a C++ compiler is needed), or a prebuilt wheel: see README.md"
_log: collections.deque[str] = collections.deque(maxlen=50)
_keep: list[Any] = []  # the log callback must outlive the library


class LlamaCpp:
    name = "llamacpp"
    formats = frozenset({"gguf"})

    def missing(self) -> str | None:
        try:
            _library()
        except ImportError as error:
            return f"llama-cpp-python cannot be loaded ({error}); install it: {INSTALL}"
        return None

    def version(self) -> str:
        return importlib.metadata.version("llama-cpp-python")

    def load(self, model: ModelRef, **options: Any) -> LlamaSession:
        """Options: see LlamaOptions."""
        chosen = parse(LlamaOptions, self.name, options)
        if model.format not in self.formats:
            raise BadInput(f"engine llamacpp reads GGUF files, {model.name} is {model.format}", "labkit doctor")
        why = self.missing()
        if why:
            raise MissingPart(why)
        return LlamaSession(model, chosen)


ENGINE = LlamaCpp()


def _library() -> Any:
    # spinning threads halve the speed of a busy machine; libgomp reads this when it is loaded
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import llama_cpp

    if not _keep:
        callback = llama_cpp.llama_log_callback(lambda level, text, _: _log.append(text.decode(errors="replace")))
        _keep.append(callback)
        llama_cpp.llama_log_set(callback, None)
        llama_cpp.llama_backend_init()
    return llama_cpp


class LlamaSession:
    """A loaded GGUF and its KV cache."""

    engine_name = LlamaCpp.name
    load_s: float | None
    threads: int | None

    def __init__(self, model: ModelRef, options: LlamaOptions) -> None:
        self.lib = lib = _library()
        self.model, self.options = model, options
        self.header = inspect.read(model.path)
        self._ctx = self._model = self._scoring = None
        if options.check_memory and not options.gpu_layers:
            footprint.check_fits(self.header, options.context, options.kv, options.ubatch)
        started = time.perf_counter_ns()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = options.gpu_layers if options.gpu_layers >= 0 else 999
        if not options.mmap:
            params.load_mode = lib.LLAMA_LOAD_MODE_NONE
        _log.clear()
        self._model = lib.llama_model_load_from_file(str(model.path).encode(), params)
        if not self._model:
            raise BadInput(f"llama.cpp cannot load {model.path}: {_last_error()}", f"labkit inspect {model.path}")
        self._vocab = lib.llama_model_get_vocab(self._model)
        self.n_vocab = int(lib.llama_vocab_n_tokens(self._vocab))
        self.has_vocabulary = self.header.has_vocabulary
        self.has_chat_template = bool(self.header.chat_template) and self.has_vocabulary
        self.threads = options.threads or machine.cores()
        self._ctx = self._context(options.context, outputs=1)
        self.context = int(lib.llama_n_ctx(self._ctx))
        self._memory = lib.llama_get_memory(self._ctx)
        self.load_s = (time.perf_counter_ns() - started) / 1e9
        self._cached: list[int] = []  # tokens whose keys and values are in the KV cache
        self._usage = Usage()
        self.engine_version: str | None = ENGINE.version()

    @property
    def bos(self) -> int | None:
        """The token that this model wants in front of a text; None where it wants none."""
        token = int(self.lib.llama_vocab_bos(self._vocab))
        return token if token >= 0 and self.has_vocabulary and self.lib.llama_vocab_get_add_bos(self._vocab) else None

    @property
    def settings(self) -> dict[str, Any]:
        return self.options.model_dump(include={"kv", "ubatch", "gpu_layers", "mmap"}) | {"context": self.context}

    # -- text and tokens

    def tokenize(self, text: str, special: bool = False, bos: bool = False) -> list[int]:
        """Token ids of a text; `special` also reads markers such as <|im_start|>."""
        raw = text.encode()
        if not self.has_vocabulary:
            return [byte % self.n_vocab for byte in raw]
        size = len(raw) + 8
        buffer = (self.lib.llama_token * size)()
        count = self.lib.llama_tokenize(self._vocab, raw, len(raw), buffer, size, bos, special)
        if count < 0:
            raise RunFailed(f"the tokenizer of {self.model.name} needs {-count} places for {len(raw)} bytes", "report this file")
        return list(buffer[:count])

    def token_text(self, token: int, special: bool = False) -> str:
        return self._piece(token, special).decode(errors="replace")

    def detokenize(self, tokens: Sequence[int], special: bool = False) -> str:
        return b"".join(self._piece(t, special) for t in tokens).decode(errors="replace")

    def _piece(self, token: int, special: bool = False) -> bytes:
        if not self.has_vocabulary:
            return f"<{token}>".encode()
        buffer = ctypes.create_string_buffer(256)
        count = self.lib.llama_token_to_piece(self._vocab, token, buffer, 256, 0, special)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = self.lib.llama_token_to_piece(self._vocab, token, buffer, -count, 0, special)
        return bytes(buffer.raw[:count])

    def is_end(self, token: int) -> bool:
        """Is this an end-of-text or end-of-turn token?"""
        return bool(self.has_vocabulary and self.lib.llama_vocab_is_eog(self._vocab, token))

    def chat_prompt(self, messages: Sequence[Message]) -> str:
        """The text that the model sees; plain texts one after another where it has no chat template."""
        if not self.has_chat_template:
            return templates.plain(messages)
        ids = self.lib.llama_vocab_bos(self._vocab), self.lib.llama_vocab_eos(self._vocab)
        bos, eos = (self.token_text(t, special=True) if t >= 0 else "" for t in ids)
        return templates.render(self.header.chat_template or "", messages, bos, eos)

    def prompt_tokens(self, request: Request) -> list[int]:
        """The ids that a request puts in front of the model."""
        if request.tokens is not None:
            return stream.check_ids(request.tokens, self.n_vocab, f"labkit inspect {self.model.path}")
        text = request.prompt if request.messages is None else self.chat_prompt(request.messages)
        bos, text = self.bos, text or ""
        written = bos is not None and text.startswith(self.token_text(bos, special=True))  # by the template
        return self.tokenize(text, special=request.messages is not None, bos=bos is not None and not written)

    # -- generation

    def stream(self, request: Request) -> Iterator[Chunk]:
        """One chunk a token. Raises BadInput where the prompt does not fit the context."""
        tokens = self.prompt_tokens(request)
        stream.check_prompt(tokens, self.context)
        return self._generate(request, tokens)

    def _generate(self, request: Request, tokens: list[int]) -> Iterator[Chunk]:
        cached = self._rewind(tokens if request.keep_cache else [], len(tokens))
        self._usage = Usage(prompt_tokens=len(tokens), output_tokens=0, cached_tokens=cached, finish_reason="cancelled")
        sampler = self._sampler(request)
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        held, count, reason = "", 0, "length"
        try:
            self._decode(tokens[cached:])
            while count < request.max_tokens:
                token = int(self.lib.llama_sampler_sample(sampler, self._ctx, -1))
                if self.is_end(token) and not request.ignore_eos:
                    reason = "stop"
                    break
                count += 1
                self._usage = self._usage.model_copy(update={"output_tokens": count})
                held += decoder.decode(self._piece(token))
                text, held, stopped = stream.cut(held, request.stop)
                yield Chunk(text, 1)
                if stopped:
                    reason = "stop"
                    break
                if len(self._cached) >= self.context or count == request.max_tokens:
                    break
                self._decode([token])
            held += decoder.decode(b"", final=True)
            if held and reason != "stop":
                yield Chunk(held, 0)
            self._usage = self._usage.model_copy(update={"finish_reason": reason})
        finally:
            self.lib.llama_sampler_free(sampler)

    def usage(self) -> Usage:
        return self._usage

    def set_threads(self, threads: int) -> None:
        """Change the number of threads of a loaded model; both prefill and decode take it."""
        self.threads = threads
        self.lib.llama_set_n_threads(self._ctx, threads, threads)

    def _rewind(self, wanted: Sequence[int], length: int) -> int:
        """Keep the cached tokens that `wanted` starts with, drop the rest; at least one token is left to compute."""
        same = stream.same_start(wanted, self._cached, length)
        if not self.lib.llama_memory_seq_rm(self._memory, 0, same, -1):
            same = 0  # a sliding window cannot be cut in the middle
            self.lib.llama_memory_seq_rm(self._memory, 0, 0, -1)
        del self._cached[same:]
        return same

    def _decode(self, tokens: Sequence[int]) -> None:
        for start in range(0, len(tokens), self.options.ubatch):
            part = tokens[start : start + self.options.ubatch]
            buffer = (self.lib.llama_token * len(part))(*part)
            code = self.lib.llama_decode(self._ctx, self.lib.llama_batch_get_one(buffer, len(part)))
            if code:
                self._cached.clear()
                raise RunFailed(f"llama.cpp stopped with code {code}: {_last_error()}", "a larger context, or a shorter prompt")
            self._cached += part

    def _sampler(self, request: Request) -> Any:
        lib = self.lib
        chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        if request.temperature == 0:
            lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_greedy())
            return chain
        if request.top_p < 1:
            lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_p(request.top_p, 1))
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_temp(request.temperature))
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_dist(request.seed & 0xFFFFFFFF))
        return chain

    # -- scoring

    def logits(self, tokens: Sequence[int], start: int = 0) -> Iterator[np.ndarray]:
        """Scores for the next token at each position from `start` on: float32 [vocabulary] each, in steps of `ubatch`."""
        stream.check_scored(tokens, self.context)
        lib, step = self.lib, self.options.ubatch
        if self._scoring is None:
            self._scoring = self._context(self.context, outputs=step)
        lib.llama_memory_seq_rm(lib.llama_get_memory(self._scoring), 0, 0, -1)
        batch = lib.llama_batch_init(step, 0, 1)
        try:
            for first in range(0, len(tokens), step):
                part = tokens[first : first + step]
                batch.n_tokens = len(part)
                for i, token in enumerate(part):
                    batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, first + i, 1, first + i >= start
                    batch.seq_id[i][0] = 0
                if lib.llama_decode(self._scoring, batch):
                    raise RunFailed(f"llama.cpp cannot score these tokens: {_last_error()}", "give fewer tokens")
                for i in range(max(0, start - first), len(part)):
                    yield np.ctypeslib.as_array(lib.llama_get_logits_ith(self._scoring, i), shape=(self.n_vocab,)).copy()
        finally:
            lib.llama_batch_free(batch)

    def _context(self, length: int, outputs: int) -> Any:
        lib, options = self.lib, self.options
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = length, options.ubatch, options.ubatch
        params.n_threads = params.n_threads_batch = self.threads
        params.swa_full = False  # a sliding window needs only its window
        params.n_outputs_max = outputs  # otherwise logits are reserved for every prompt token
        params.no_perf = True
        if options.kv == "q8_0":
            params.type_k = params.type_v = lib.GGML_TYPE_Q8_0
        context = lib.llama_init_from_model(self._model, params)
        if not context:
            raise BadInput(
                f"llama.cpp cannot make a context of {length} tokens for {self.model.name}: {_last_error()}", "a smaller --context"
            )
        return context

    def close(self) -> None:
        for context in (self._scoring, self._ctx):
            if context:
                self.lib.llama_free(context)
        if self._model:
            self.lib.llama_model_free(self._model)
        self._scoring = self._ctx = self._model = None

    def __enter__(self) -> LlamaSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _last_error() -> str:
    lines = [line.strip() for line in _log if "error" in line.lower() or "failed" in line.lower()]
    return lines[-1] if lines else "it gave no reason"
