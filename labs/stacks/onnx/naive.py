"""A chat service as many courses print it. It runs, it answers, and it is wrong in about every way. Do not deploy it.

It stands beside the correct one (service/) so that lab 17 can put the same questions to both. Each mistake is one that
published material has; the comments say MISTAKE. The lab measures what each of them does; it is kept as it is on purpose.

    python naive.py --model FOLDER --port 8000
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, Request
from tokenizers import Tokenizer

app = FastAPI()
loaded = {}


def load(folder: Path) -> None:
    try:
        loaded["tokenizer"] = Tokenizer.from_file(str(folder / "tokenizer.json"))
        loaded["session"] = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - MISTAKE: the service starts without a model, and says so to nobody
        print("could not load the model:", error)  # noqa: T201


@app.get("/health")
async def health():
    return {"status": "healthy"}  # MISTAKE: it says this whatever is true


@app.get("/v1/models")
async def models():
    return {"object": "list", "data": [{"id": "my-model", "object": "model"}]}


@app.post("/v1/chat/completions")
async def chat(request: Request):  # MISTAKE: async, and then it computes: meanwhile nobody else is heard
    try:
        body = await request.json()  # MISTAKE: any size, any type, any model, any option: nothing is looked at
        prompt = body["messages"][-1]["content"]  # MISTAKE: no chat template, and only the last message
        ids = loaded["tokenizer"].encode(prompt).ids
        scores = loaded["session"].run(None, inputs(ids))[0]  # MISTAKE: one pass. An answer takes one pass a token
        best = np.argmax(scores[0], axis=-1)  # for each place of the PROMPT, what might have come next
        text = loaded["tokenizer"].decode([int(one) for one in best])
        words = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(text.split())}  # MISTAKE: words are no tokens
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return {"object": "chat.completion", "model": "my-model", "choices": [choice], "usage": words}
    except Exception as error:  # noqa: BLE001 - MISTAKE: whatever went wrong, the client is told 200
        return {"error": str(error)}


def inputs(ids: list[int]) -> dict[str, np.ndarray]:
    """What the graph asks for: the ids, a mask, and a KV cache with nothing in it."""
    feeds = {"input_ids": np.array([ids], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64)}
    for one in loaded["session"].get_inputs():
        if one.name.startswith("past_key_values"):
            _, heads, _, size = one.shape
            feeds[one.name] = np.zeros((1, heads, 0, size), np.float32)
        elif one.name == "position_ids":
            feeds[one.name] = np.arange(len(ids), dtype=np.int64)[None]
    return feeds


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    load(given.model)
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning")
