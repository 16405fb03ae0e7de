"""Chat templates: messages to the text that a model was trained on. Templates come with the model, so they run sandboxed."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from labkit.core.errors import BadInput
from labkit.core.records import Message


def render(template: str, messages: Sequence[Message], bos: str = "", eos: str = "") -> str:
    """Apply a Jinja chat template, ending where the assistant begins to speak.

    Raises:
        BadInput: the template refuses these messages (some know no system role) or is broken.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> str:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: datetime.datetime.now().strftime(form)}
    try:
        return environment.from_string(template).render(
            messages=[m.model_dump() for m in messages], add_generation_prompt=True, bos_token=bos, eos_token=eos
        )
    except TemplateError as error:
        raise BadInput(
            f"the model's chat template refuses these messages: {error}", "leave out the system prompt, or give plain text"
        ) from error


def plain(messages: Sequence[Message]) -> str:
    """For a model without a chat template: the texts one after another, as plain completion."""
    return "\n\n".join(m.content for m in messages)
