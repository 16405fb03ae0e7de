# ---
# labkit:
#   title: The life of a model in Ollama
#   minutes: 45
#   memory_gb: 1.2
#   track: [run, operate]
#   builds_on: [1, 2, 4]
#   prerequisites: ["Ollama (`labkit runtimes install ollama`, or one of your own) for your own figures; without it the lab plays its recording"]
#   expected:
#     - "the first request is slower by the time for loading; the next ones have almost none of it"
#     - "measured memory grows as predicted: by the KV cache of OLLAMA_NUM_PARALLEL times the context; the program itself adds 40 to 100 MB"
#     - "four clients at once: with four slots the last one waits much less for a first token than with one slot; tokens a second of all together: more, on a few cores less than four times as many"
#     - "a prompt of three times the context is shortened without a word, unless the request says truncate: false"
#   transfer:
#     - "Your service has 8 users and documents of 16,000 tokens. What do you set, what does it cost, and how do you check it before you buy memory?"
#     - "An answer takes 9 seconds in the morning and 2 later on. Which numbers of Ollama's last message do you look at, and what would you change?"
#     - "A colleague's answers differ from yours at temperature 0, on the same Ollama and the same model. Name three settings to compare."
#     - "You want the same model on 30 machines. What goes into the Modelfile, what into the environment of the service, and what into each request?"
#     - "A script of yours worked with Ollama 0.24 and fails on a colleague's newer one. How do you find out what changed, and where do you note it?"
# ---

# %% [markdown]
# # 10 · The life of a model in Ollama
#
# **The question this lab answers: what does Ollama do with a model from the first command to the last, and which of its settings really change something?**
#
# It builds on labs 01 (time to first token), 02 (KV cache) and 04 (quantization). About 45 minutes, 1.2 GB of memory. Nothing is downloaded.
#
# **Ollama** is a program with two halves. A *server* keeps models on the disk, loads them when a request comes and answers over HTTP.
# A *command line* asks that server. The arithmetic inside is llama.cpp's, as in labs 00 to 05.
#
# The lab starts an Ollama **of its own**, on a free port of this machine only, with an empty model store that goes when it stops.
# Your own Ollama, its port 11434 and your models are left alone.

# %% tags=["parameters"]
model: str = "smollm2-135m"  # catalogue name, or the path of a GGUF file
engine: str = "ollama"  # who answers; this lab is about no other
threads: int = 0  # 0: Ollama decides
seed: int = 1  # your own seed gives you your own exercise numbers
quick: bool = False  # True: fewer settings and tokens, for a fast check
results_path: str = "results.jsonl"  # results are appended here
context: int = 1024  # tokens of prompt and answer that a request may have

# %%
from labkit.learn import ollama_rows as ask
from labkit.learn import ollama_view as view
from labkit.learn.exercises import lab_10 as ex
from labkit.learn.lab import start

lab = start(
    "10_ollama", model=model, engine=engine, threads=threads, seed=seed, quick=quick, results_path=results_path, load=False, needs="ollama"
)
desk = view.Desk(lab.model, name=model, engine=engine, context=context, threads=threads or None)

# %% [markdown]
# ## 1. Get it
#
# One way for each system. **Run none of them now**: this lab has its Ollama already (or its recording).

# %% tags=["nbval-check-output"]
import pandas as pd

pd.set_option("display.max_colwidth", None)
print(pd.DataFrame(view.table("install"))[["system", "way", "command"]].to_string(index=False))

# %% [markdown]
# Three things to know before you choose:
#
# - **WinGet, the macOS application and the Linux script start a service** that is always there, on port 11434. Homebrew, the archive and conda-forge only bring the command.
# - The script runs as root. Read it first, or take the archive and compare its checksum, as `labkit runtimes install ollama` does.
# - `-p 11434:11434` in a container opens the port to your whole network, and Ollama asks nobody for a password. `127.0.0.1:` in front keeps it here.
#
# ## 2. Start it, and give it a model
#
# `ollama serve` is the server. It reads its settings from the **environment**, once, when it starts. The lab sets these:
#
# | variable | here | what it decides |
# |---|---|---|
# | `OLLAMA_HOST` | 127.0.0.1 and a free port | where it listens |
# | `OLLAMA_MODELS` | a temporary folder | where models are kept |
# | `OLLAMA_CONTEXT_LENGTH` | your `context` | tokens of prompt and answer of a request |
# | `OLLAMA_NUM_PARALLEL` | 1 | requests that are computed at the same time |
# | `OLLAMA_KEEP_ALIVE` | -1 | how long a model stays loaded after an answer; -1: until the server stops |
#
# A model gets in by its bytes. The file is sent as a **blob**, named by its sha256 (a checksum, lab 03), and `create` gives that blob a name:
#
# ```
# POST /api/blobs/sha256:…      the file's bytes
# POST /api/create              {"model": "NAME", "files": {"model.gguf": "sha256:…"}}
# ```

# %%
started = lab.step("start", lambda: ask.start_rows(desk))
version = started[0]["version"]
print(f"Ollama {version} answers after {started[0]['start_s']:.1f} s, with the model {started[0]['models']}")
print(f"its store takes {started[0]['stored_bytes'] / 1e6:.0f} MB")

# %% [markdown]
# Ollama changes fast. What this lab says of a version stands in a table, not in the text. For yours it says:

# %%
for row in view.behaviours(version):
    print("-", row["then"])

# %% [markdown]
# ## 3. The command line, from Python
#
# Everything the command line does can be automated. Two rules: give the words as a **list** (then no shell reads them, and no name with a blank or a `;` can do harm),
# and look at the **exit code**, not at the text. Below, `subprocess.run([...])` gets these lists; the last one is wrong on purpose.

# %%
words = [["list"], ["show", desk.name], ["cp", desk.name, "my-copy"], ["list"], ["rm", "my-copy"], ["rm", "my-copy"]]
commands = lab.step("commands", lambda: ask.command_rows(desk, words))
for row in commands:
    print(f"$ {row['command']}   -> exit code {row['exit_code']}")
    print("\n".join("    " + line for line in row["output"][:4]))

# %% [markdown]
# The copy took no room: both names point to the same blob.
#
# ## 4. A Modelfile
#
# A **Modelfile** is a short text that makes a new model out of one that is there: other parameters, a standing instruction (`SYSTEM`), another template.
# Its bytes are shared with the old one. An instruction is a word, a blank and its value; there are no equals signs:
#
# ```
# FROM smollm2-135m
# PARAMETER stop <|im_end|>
# SYSTEM You are a pirate.
# ```
#
# **Exercise 1.** Complete the function. The parameter for the context is `num_ctx`, and the standing instruction is: `Answer in one sentence.`

# %% tags=["exercise"] exercise="modelfile"
def modelfile(base, context, temperature):
    """The text of a Modelfile: from the model `base`, with these two parameters and the standing instruction."""
    ### BEGIN SOLUTION
    return f"FROM {base}\nPARAMETER num_ctx {context}\nPARAMETER temperature {temperature}\nSYSTEM Answer in one sentence."
    ### END SOLUTION

# %% tags=["check"] exercise="modelfile" points=2
ex.modelfile.check(modelfile, seed=seed)

# %% [markdown]
# Now two Modelfiles on the real Ollama. The second has a parameter that many tutorials print, and that does not exist. **Predict**: what happens?

# %%
files = {name: f"FROM {desk.name}\nPARAMETER {line}\nSYSTEM Answer in one sentence.\n" for name, line in (("good", "num_ctx 512"), ("wrong", "context_length 512"))}
print(files["good"])

# %%
made = lab.step("modelfile", lambda: ask.modelfile_rows(desk, files))
for row in made:
    print(f"$ {row['command']}   -> exit code {row['exit_code']}")
    print("\n".join("    " + line[:110] for line in row["output"][-3:]))

# %% [markdown]
# A wrong name in a **Modelfile** is refused, and `labkit lint Modelfile` finds it before Ollama does.
# In a `POST /api/create` over HTTP the same wrong name is dropped without a word: one of the claims at the end.
#
# ## 5. What an answer is made of
#
# A streamed answer is one JSON object a line (called NDJSON): pieces of text, and a last one with `"done": true`, which carries counts and durations.

# %%
question = "Why is the sky blue?"
parts = lab.step("stream", lambda: desk.rows(lambda c: list(c.generate(desk.name, question, stream=True, options={"num_predict": 8, "seed": seed}))))
print([part["response"] for part in parts])
last = parts[-1]
{key: last[key] for key in ("done_reason", "prompt_eval_count", "eval_count", "load_duration", "prompt_eval_duration", "eval_duration")}

# %% [markdown]
# **Exercise 2.** Those durations are whole numbers. Complete the function: tokens per second while the **answer** was made.

# %% tags=["exercise"] exercise="answer_rate"
def answer_rate(told):
    """Tokens per second. told: the last message, with eval_count, eval_duration, prompt_eval_count, total_duration, …"""
    ### BEGIN SOLUTION
    return told["eval_count"] / (told["eval_duration"] / 1e9)
    ### END SOLUTION

# %% tags=["check"] exercise="answer_rate" points=2
ex.answer_rate.check(answer_rate, seed=seed)

# %% [markdown]
# Next: the same kind of request four times. Before the first one the model is unloaded.
#
# **Predict.** Which share of the first request goes into loading the model? 0.5 is half of it.

# %%
my_guess_share = 0.5  # <- your number

# %%
tokens = 8 if quick else 24
stages = lab.step("stages", lambda: ask.stage_rows(desk, "Tell me about the sea.", tokens, warm=1 if quick else 3))
fig = view.draw_stages(stages, my_guess_share, lab.caption("stages"))
whole = sum(stages[0][f"{stage}_s"] for stage in ("load", "prompt", "answer"))
print(f"loading took {stages[0]['load_s']:.2f} s, {stages[0]['load_s'] / whole:.0%} of the first request")
assert len(fig.axes[0].patches) == 3 * len(stages)

# %% [markdown]
# A little of it stays in the later requests: Ollama looks the model up for each of them.
#
# The model here is small and lies in the disk's cache. A model of 5 GB that comes from a disk needs many seconds, and every user who comes first waits for them. So how long does a model stay?
#
# ## 6. keep_alive
#
# Each request may say how long the model stays in memory after its answer: `"5m"` (the default), seconds, `0` (not at all) or a negative number (until the server stops).

# %%
times = [0, "1s", "5m"] if quick else [0, "1s", "5m", -1]
stay = lab.step("keep_alive", lambda: ask.stay_rows(desk, times))
pd.DataFrame(stay)

# %% [markdown]
# **Exercise 3.** Complete the function. `answers_at` are the moments (in seconds) at which answers were finished; `at` is the moment that is asked about.

# %% tags=["exercise"] exercise="still_loaded"
def still_loaded(answers_at, keep_alive, at):
    """True where the model is in memory at the moment `at`. keep_alive in seconds; negative: until the server stops."""
    ### BEGIN SOLUTION
    past = [moment for moment in answers_at if moment <= at]
    return bool(past) and (keep_alive < 0 or at < max(past) + keep_alive)
    ### END SOLUTION

# %% tags=["check"] exercise="still_loaded" points=2
ex.still_loaded.check(still_loaded, seed=seed)

# %% [markdown]
# ## 7. Answers that a program can read
#
# `format` takes a **JSON schema**: a description of the fields and their types. At each step Ollama only allows tokens that can still lead to a text of that form.
# The form is then certain (if `num_predict` leaves room for all of it). The *content* is not: look at the number.

# %%
schema = {"type": "object", "properties": {"city": {"type": "string"}, "population": {"type": "integer"}}, "required": ["city", "population"]}
turns = [{"role": "user", "content": "Tell me about Paris, as JSON with city and population."}]
options = {"temperature": 0, "num_predict": 80}
formed = lab.step("schema", lambda: desk.rows(lambda c: [c.chat(desk.name, turns, options=options), c.chat(desk.name, turns, format=schema, options=options)]))
for name, answer in zip(("without", "with the schema"), formed, strict=True):
    print(f"{name}: {' '.join(answer['message']['content'].split())[:160]!r}")

# %% [markdown]
# **Log probabilities** show how sure the model was: `logprob` is the natural logarithm of a token's probability, so 0 is certain. `top_logprobs` asks for the runners-up.
# (Ollama has them since 0.12.11.)

# %%
import math

scored = lab.step("logprobs", lambda: desk.rows(lambda c: c.generate(desk.name, "The capital of France is", raw=True, logprobs=True, top_logprobs=3, options={"num_predict": 3, "temperature": 0})))
for place in scored[0].get("logprobs", []):
    print(f"{place['token']!r:>10}", [f"{other['token']!r} {math.exp(other['logprob']):.0%}" for other in place["top_logprobs"]])

# %% [markdown]
# `raw=True` sends the text as it is. Without it Ollama puts the model's chat template around it (lab 00).
#
# **Embeddings** are vectors that stand for a text's meaning; texts that mean the same should point the same way. The cosine is 1 for the same direction.
# A chat model is a poor source of them, and a newer Ollama refuses it (status 501): search needs an embedding model (lab 13).

# %%
texts = ["The cat sleeps on the sofa.", "A kitten is napping on the couch.", "Shares fell sharply on Monday."]
vectors = lab.step("embeddings", lambda: ask.embedding_rows(desk, texts))
pd.DataFrame(vectors)

# %% [markdown]
# Look at the last two rows: two sentences that have nothing in common are almost as close as two that mean the same. That is why one does not search with a chat model.
#
# ## 8. The prompt that was too long
#
# `context` holds prompt and answer together. A long prompt goes to a context of 128 tokens, and then to one of 1,024. Near its beginning stands: *The password is tulip.*
# It ends with: *What is the password? The password is*, for the model to go on. **Predict**: an error, or an answer? And which?

# %%
cut = lab.step("cut", lambda: ask.cut_rows(desk))
pd.DataFrame(cut)

# %% [markdown]
# Without `truncate: false` there is no error: Ollama keeps the first few tokens and the end, and drops what lies between, the password with it. The model goes on all the same.
# Nothing in the answer says so, except that `prompt_eval_count` (here `tokens_read`) is smaller than what you sent. Say `truncate: false` in each request; then it is an error.
#
# ## 9. The OpenAI endpoint
#
# Under `/v1` Ollama speaks the protocol of OpenAI's API. Programs that were written for that work when you change the base URL.
# The same question through both, with temperature 0, and once more with a model that was made for it:

# %%
both = lab.step("openai", lambda: ask.openai_rows(desk, "Name three colours.", 12))
pd.DataFrame(both)[["address", "model", "prompt_tokens", "output_tokens", "finish_reason", "text"]]

# %% [markdown]
# The same weights and the same prompt, and the first two texts often differ! Ollama's own API has options that OpenAI's protocol has no word for. One of them,
# `repeat_penalty`, is 1.1 unless it is set: it makes words that were just used less likely. labkit sets it to 1 (off) through Ollama's API and cannot do so through `/v1`.
# The model in the third row has `PARAMETER repeat_penalty 1` of its own: compare its text with the first.
#
# ## 10. Several users at once
#
# `OLLAMA_NUM_PARALLEL` is the number of requests that are computed together. Each of them needs a **KV cache** of its own (lab 02), for the whole context:
#
# > memory = weights + parallel × context × bytes of the cache a token + buffers
#
# **Exercise 4.** Complete the function. Numbers in the cache have 16 bits (f16).

# %% tags=["exercise"] exercise="cache_bytes"
def cache_bytes(layers, kv_heads, head_size, context, parallel):
    """Bytes of the KV cache of all parallel requests: keys and values, in each layer, for each token."""
    ### BEGIN SOLUTION
    return 2 * layers * kv_heads * head_size * 2 * context * parallel
    ### END SOLUTION

# %% tags=["check"] exercise="cache_bytes" points=2
ex.cache_bytes.check(cache_bytes, seed=seed)

# %% [markdown]
# **Predict.** The next cell starts Ollama with several settings and measures the memory of its processes. What will the last one take, in MB? The weights alone are 97 MB (default model).

# %%
my_guess_mb = 200  # <- your number

# %%
settings = [(512, 1), (2048, 4)] if quick else [(512, 1), (2048, 1), (2048, 4), (4096, 4)]
measured = lab.step("memory", lambda: ask.memory_rows(lab.model, settings))
fig = view.draw_memory(measured, my_guess_mb, lab.caption("memory"))
growth = [(r["measured_bytes"] - measured[0]["measured_bytes"], r["predicted_bytes"] - measured[0]["predicted_bytes"]) for r in measured[1:]]
print("growth over the first, measured / predicted in MB:", [f"{m / 1e6:.0f} / {p / 1e6:.0f}" for m, p in growth])
assert len(fig.axes[0].patches) == 2 * len(measured)

# %% [markdown]
# The measured bars are higher by nearly the same amount each: the programs themselves (a server, and a process for the model). What *grows* is the cache, as computed.
# Ollama's own figure, `size` in `ollama ps`, is an estimate made before loading.
#
# And what do four slots bring? Four clients ask at the same moment. With one slot they queue. **Predict** both: the tokens per second of all together, and the longest wait for a first token.

# %%
parallel = lab.step("parallel", lambda: ask.parallel_rows(lab.model, [1, 4] if quick else [1, 2, 4], clients=4, tokens=8 if quick else 24))
fig = view.draw_parallel(parallel, lab.caption("parallel"))
slots, gain = parallel[-1]["parallel"], parallel[-1]["tokens_per_s"] / parallel[0]["tokens_per_s"]
print(f"with {slots} slots all clients together get {gain:.1f} times as many tokens per second as with one")
assert len(fig.axes[0].patches) == len(parallel)

# %% [markdown]
# Look at the waiting first: with one slot the last client waits until three whole answers are finished; with four slots nobody does. Each single answer then takes longer.
#
# And the tokens together? Decode is limited by reading the weights (lab 02), and with four requests each reading serves four tokens. That gain is large on a GPU;
# on a processor with few cores arithmetic is soon the limit, and less than four times is left. The last line above says how much it is here.
#
# ## 11. Plan before you set
#
# The same arithmetic for larger models, **computed, not measured**. Phi-4-mini for 8 users with 8,192 tokens each fits 16 GB. Does it with 16,384 tokens each?
# What does the `q8_0` cache (with `OLLAMA_FLASH_ATTENTION=1`) save?

# %%
from labkit.learn.widgets import explore
from labkit.models import catalog, shape


def draw(larger, context, parallel, kv):
    return view.draw_plan(shape.header(catalog.get(larger), "Q4_0"), context, parallel, kv, f"computed for {larger} in Q4_0")


box = explore(draw, larger=["phi-4-mini", "qwen3-0.6b", "gemma3-1b"], context=[8192, 2048, 4096, 16384, 32768], parallel=[8, 1, 2, 4, 16], kv=["f16", "q8_0"])

# %% [markdown]
# ## 12. Smaller on the way in
#
# `create` can quantize: give it a 16-bit file and a type. It knows few types, and it refuses a file that is quantized already.

# %%
from labkit.quant import gguf

kinds = ["Q8_0", "Q4_0"] if quick else ["Q8_0", "Q4_K_M", "Q4_0"]
sizes = lab.step("quantize", lambda: ask.quantize_rows(gguf.as_type(lab.model, "F16", progress=False), kinds))
fig = view.draw_sizes(sizes, lab.caption("quantize"))
for row in sizes:
    print(f"{row['type']:<7}", f"{row['bytes'] / 1e6:.0f} MB" if row["bytes"] else f"refused: {row['error']}")

# %% [markdown]
# (The 16-bit file was unpacked from the default model's Q4_1 for this: the sizes are real, the quality cannot be better than Q4_1's. Lab 04 says why.)
#
# ## 13. Pull and push
#
# `ollama pull NAME` fetches a model from a registry, by default Ollama's own; `push` sends yours to one. Both need a network. So that you see on every machine how they fail,
# the next cell names a registry on this machine where nobody listens.

# %%
nowhere = "127.0.0.1:9/labkit/nothing"
questions = {
    "pull": lambda c: c.pull(nowhere, insecure=True),
    "push": lambda c: (c.copy(desk.name, nowhere), c.push(nowhere, insecure=True)),
    "generate with a model that is not here": lambda c: c.generate("no-such-model", "Hi"),
}
refused = lab.step("refused", lambda: ask.refused_rows(desk, questions))
pd.DataFrame(refused)

# %% [markdown]
# For machines without a network: carry the GGUF file over (lab 03, `labkit models bundle`) and `create` from it, as this lab did.
#
# ## 14. What people say

# %%
from labkit.facts import claims, live

ids = ["ollama-modelfile-context-length", "ollama-rest-option-typo", "ollama-health", "ollama-metrics", "ollama-embeddings-endpoint"]
checked = lab.step("claims", lambda: list(live.rows(ids, ask.world(desk))))
pd.DataFrame([{"they say": c["says"], "result": claims.in_words(c), "why": c["why"]} for c in checked])

# %% [markdown]
# The lab is done with its server. (It also goes when you close the notebook, and when a cell fails.)

# %%
desk.close()

# %% [markdown]
# ## To remember
#
# 1. A model in Ollama is a name for blobs: `create`, `cp` and a Modelfile cost no room, and settings come from three places: the service's environment, the Modelfile, the request.
# 2. Memory grows with `OLLAMA_NUM_PARALLEL` × context. Compute it before you set it, and look at `ollama ps` after it.
# 3. Over HTTP, wrong names in a request that makes a model and prompts that are too long fail **silently**. Read the counts in the last message; say `truncate: false`.
#
# **In production:** pin the version, and note what changes with it in a table like `data/ollama.toml`. Keep the server on 127.0.0.1 behind a proxy with keys (lab 15): it asks nobody who they are.
# Set `keep_alive` to -1 for a model that must answer at once. Measure in your client: Ollama has no `/metrics`.
#
# **Read more:** [API](https://docs.ollama.com/api) · [Modelfile](https://docs.ollama.com/modelfile) · [FAQ: settings of the server](https://docs.ollama.com/faq)
#
# **The same lab on a bigger model:** pass the path of a GGUF file: `labkit run 10 -p model PATH`. The lab's steps load it about ten times, so mind the time:

# %%
for name in ("qwen3-0.6b", "gemma3-1b", "phi-4-mini"):
    count = catalog.get(name).parameters
    cache = view.cache_gigabytes(shape.header(catalog.get(name), "Q4_0"), 4096, 4)
    print(f"{name}: download about {count * 4.5 / 8e9:.2f} GB (Q4_0), memory about {count * 4.5 / 8e9 + cache + 0.3:.1f} GB at 4 × 4,096 tokens")
