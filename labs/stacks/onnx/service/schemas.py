"""What a request may say: types, ranges, and what this service honestly cannot do.

Types are strict: "12" is no number. What a client may send and this service cannot do is refused by name, for an answer that
ignores it would look right and be wrong. Fields of no meaning here (user, metadata, …) are ignored, as other servers do.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

MOST_TOKENS = 1_000_000  # far above any context; the engine knows the real limit


def _writable(text: str) -> str:
    """JSON can say texts that the tokenizer cannot take: they are refused here, where that is one client's error and no one else's."""
    if "\0" in text:
        raise ValueError("the text has a NUL character in it, where the tokenizer would end it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text has half of a surrogate pair in it, which is no character") from None
    return text


Text = Annotated[str, AfterValidator(_writable)]
TokenId = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
Stop = Annotated[Text, StringConstraints(min_length=1, max_length=100)]
UNSUPPORTED = ("tools", "functions", "tool_choice", "function_call", "logprobs", "top_logprobs", "logit_bias", "audio", "suffix", "echo")


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class StreamOptions(_Strict):
    include_usage: bool = False


class Common(_Strict):
    """What both kinds of request have."""

    model: Text
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(1.0, ge=0, le=2)
    top_p: float | None = Field(1.0, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    n: Literal[1] | None = 1
    ignore_eos: bool = False  # not OpenAI's: go on past the end of text, for a benchmark

    @model_validator(mode="before")
    @classmethod
    def _only_what_it_can(cls, given: Any) -> Any:
        if isinstance(given, dict):
            for name in UNSUPPORTED:
                if given.get(name) not in (None, False, [], {}, "none", "auto", 0):
                    raise ValueError(f"{name} is not supported by this service")
            for name in ("presence_penalty", "frequency_penalty"):
                if given.get(name) not in (None, 0):
                    raise ValueError(f"{name} is not supported by this service")
            if given.get("response_format") not in (None, {"type": "text"}):
                raise ValueError("response_format is not supported by this service")
        return given

    def command(self) -> dict[str, Any]:
        """The request in the engine's words (engine.py), without its prompt."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop
        return {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed, "stop": stops, "ignore_eos": self.ignore_eos}

    @property
    def with_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class TextPart(_Strict):
    type: Literal["text"]
    text: Text


class ChatMessage(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]

    def plain(self) -> dict[str, str]:
        """Role and text as chat templates know them: "developer" is OpenAI's newer word for "system"."""
        text = self.content if isinstance(self.content, str) else "".join(one.text for one in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(Common):
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    max_completion_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)  # the newer name of the same

    def command(self) -> dict[str, Any]:
        limit = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        return super().command() | {"messages": [one.plain() for one in self.messages], "max_tokens": limit}


class CompletionRequest(Common):
    prompt: Text | Annotated[list[TokenId], Field(min_length=1)]
    max_tokens: int | None = Field(16, ge=1, le=MOST_TOKENS)  # OpenAI's default for this route
    best_of: Literal[1] | None = None

    def command(self) -> dict[str, Any]:
        kind = "prompt" if isinstance(self.prompt, str) else "tokens"
        return super().command() | {kind: self.prompt, "max_tokens": self.max_tokens}
