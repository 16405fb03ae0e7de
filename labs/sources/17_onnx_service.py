# ---
# labkit:
#   title: An ONNX Runtime service that is correct
#   minutes: 45
#   memory_gb: 2
#   track: [operate]
#   builds_on: [1, 2, 7]
#   prerequisites: ["the extra `onnx` (SET=all) for your own figures; Podman or Docker for the last part; without them the lab plays its recording"]
#   expected:
#     - "the naive service keeps a few of the promises, the correct one all of them"
#     - "one more token costs several times as much when everything is read again, and the more the longer the text is; with the KV cache it hardly changes"
#     - "health is silent for almost the whole answer of the naive service; beside the correct one's it answers within milliseconds"
#     - "beyond its capacity, waits without a bound grow with every arrival; with a bound they stay, and some clients are refused"
#   transfer:
#     - "A service of yours answers 200 to everything. Which three graphs on your dashboard are now wrong, and why does no alert go off?"
#     - "Your model answers in 4 s, two at a time, and users give up after 20 s. Which bound do you give the queue, and which Retry-After does the first refused client get?"
#     - "Kubernetes kills a pod of yours whenever it gets a long prompt. The logs show no error. What do you look at first?"
#     - "A colleague streams Japanese text and sees black diamonds now and then. Explain, and name the line that you would change."
#     - "Prompts of up to 4,000 tokens shall be allowed instead of 1,000. What do you compute before you change the container's memory limit, and how do you check it?"
# ---

# %% [markdown]
# # 17 · An ONNX Runtime service that is correct
#
# **The question this lab answers: what must a model service do, beside answering, so that others can rely on it, and how do I prove that mine does?**
#
# It builds on labs 01 (time to first token), 02 (KV cache) and 07 (ONNX models). About 45 minutes, at most 2 GB of memory, containers included.
# Run in one go, without a learner, it took a minute and a half (AMD EPYC, 2 cores).
# Two things are made once and kept: the model as an ONNX folder (a minute, and for that minute up to 3.3 GB, as in lab 11), and the layers of an image
# (a few minutes, in the last part). Both are quick from then on.
# On a smaller machine, play the recording: start Jupyter with `LABKIT_WITHOUT=onnx` in its environment.
#
# A **service** is a program that others call over the network. Two of them wait for you in `labs/stacks/onnx`:
#
# - `naive.py`, as many courses print it: 80 lines, and at first sight it works;
# - `service/`, the correct one.
#
# Both have the same model and the same address, `/v1/chat/completions`. You put the same questions to both, and write the parts that make the difference.

# %% tags=["parameters"]
model: str = "smollm2-135m"  # catalogue name, or the path of a GGUF file or an ONNX folder; with a chat template
engine: str = "ortgenai"  # ONNX Runtime GenAI; this lab is about no other
threads: int = 0  # of the service; 0: all cores
seed: int = 1  # your own seed gives you your own exercise numbers
quick: bool = False  # True: fewer repeats and shorter loads, for a fast check
results_path: str = "results.jsonl"  # results are appended here
context: int = 1024  # tokens of prompt and answer that a request may have

# %%
from labkit.learn import service_asking, service_plots, service_probes
from labkit.learn import service_rows as ask
from labkit.learn import service_view as view
from labkit.learn.exercises import lab_17 as ex
from labkit.learn.lab import start

lab = start(
    "17_onnx_service", model=model, engine=engine, threads=threads, seed=seed, quick=quick, results_path=results_path, load=False, needs=view.PARTS
)
desk = view.Desk(lab.model, threads=threads or None, context=context)

# %% [markdown]
# ## 1. The naive service
#
# This is its heart, as it stands in `labs/stacks/onnx/naive.py`. Each line that says MISTAKE is one that published courses have. Read it before you run the next cells:
# what would you have let pass?

# %% tags=["nbval-check-output"]
print(ask.lines_of(view.source("naive.py"), '@app.get("/health")', 'return {"error"'))

# %% [markdown]
# Now it really runs, in a process of its own, on a free port of this machine. One question, at most 16 tokens of answer:

# %%
first = lab.step("first", lambda: ask.first_rows(desk, "Tell me a story about a ship."))
for key in ("ready_s", "status", "reason", "usage", "text"):
    print(f"{key:>8}: {first[0][key]!r}")

# %% [markdown]
# It is fast, its status is 200, and the text has English words. But read it. It is not an answer: for each place of *your question* it is the word that the model would have put next.
# In a demonstration nobody notices.
#
# ## 2. Questions with a yes or a no
#
# "It works" is no test. The table below is one: each line says what is asked, what must hold, and what it costs in production where it does not hold.
# It knows nothing of either service, only their address, and it compares times with other times of the same service, so it holds on any machine.

# %%
import pandas as pd

pd.set_option("display.max_colwidth", None)
pd.DataFrame([{"question": one.question, "asks": one.asks, "must hold": one.holds, "why": one.why} for one in service_probes.PROBES])

# %% [markdown]
# **Predict.** For how many of these questions does the naive service do what must hold?

# %%
my_guess_holds = 10  # <- your number
print(f"of {len(service_probes.PROBES)} questions")

# %%
naive = lab.step("naive", lambda: ask.probe_rows(desk, "naive"))
fig = service_plots.draw_matrix(naive, my_guess_holds, lab.caption("naive"))
assert len(fig.axes[0].lines) == len(naive)

# %% [markdown]
# What it does right comes from others: the web server (uvicorn) listens only when the model is there, and on SIGTERM it lets a running request finish.
# All that the service's own code had to do is missing. Now for the parts, one after another.
#
# ## 3. The loop
#
# One pass of the model gives scores for the *next* token. An answer takes one pass for each of its tokens: choose a token, put it behind the text, and ask again.
# In ONNX Runtime GenAI (lab 07) it is this loop; the `generator` keeps the keys and values of all tokens so far, the **KV cache** of lab 02:
#
# ```python
# generator = og.Generator(model, params)
# generator.append_tokens(prompt)            # reads the prompt: one pass
# while not generator.is_done():
#     generator.generate_next_token()        # one step: reads one token
#     token = generator.get_next_tokens()[0]
# ```
#
# Without the cache each step would read everything again. With the words of lab 01: each token would take a whole time to first token.
#
# **Predict.** With 512 tokens before it, one more token costs how much when everything is read again? In seconds. (With the cache it is some hundredths.)

# %%
my_guess_token_s = 0.1  # <- your number

# %%
cores = threads or lab.threads
lengths = [64, 512] if quick else [64, 128, 256, 512]
loop = lab.step("loop", lambda: ask.loop_rows(desk.model, cores, lengths, repeats=1 if quick else 3))
fig = service_plots.draw_loop(loop, my_guess_token_s, lab.caption("loop"))
anew_s, cached_s = service_plots.whole_answer_s(loop, prompt=64, tokens=200)
print(f"200 tokens after a prompt of 64: {anew_s:.1f} s when all is read again, {cached_s:.1f} s with the cache")
assert len(fig.axes[0].lines) == 5

# %% [markdown]
# (The last line is computed from the measured points: nobody should have to wait for it.)
#
# The loop has three ends. The model ends its answer itself; `max_tokens` are used up; or a **stop text** of the client appears, which may begin in one piece and end in the next.
# The client must learn which end it was: `finish_reason` is `"stop"` for the first and the last, `"length"` where the answer was cut off.
#
# **Exercise 1.** Complete the loop. `pieces` gives the model's next piece of text each time you ask it, one a token, and every one costs computing time.
# Return two texts: the answer without the stop text, and the reason.

# %% tags=["exercise"] exercise="answer"
def answer(pieces, max_tokens, stop):
    """(text, reason). pieces: an iterator over texts, one a token; stop: a list of texts."""
    ### BEGIN SOLUTION
    text = ""
    for count, piece in enumerate(pieces):
        if count == max_tokens:
            return text, "length"
        text += piece
        found = [text.find(one) for one in stop if one in text]
        if found:
            return text[: min(found)], "stop"
    return text, "stop"
    ### END SOLUTION

# %% tags=["check"] exercise="answer" points=3
ex.answer.check(answer, seed=seed)

# %% [markdown]
# The loop of the correct service is `Generation.turn` in `labs/stacks/onnx/service/decode.py`. It does one step and returns: so the service can take **turns**, one token of each running request,
# and four clients stream at the same time.
#
# ## 4. Half a character
#
# A token is a piece of *bytes*, not of text. In UTF-8 an `ß` has two bytes, a `日` three, a `🙂` four, and a token may end in the middle.
# Whoever turns each token into text alone gets the replacement character `�`. Look at the real tokenizer:

# %%
written = "Größe 日本 🙂"
pieces = lab.step("pieces", lambda: ask.piece_rows(desk.text, written))
pd.DataFrame(pieces)

# %% [markdown]
# The right column waits until a character is whole. That is all, but every stream of every service needs it.
#
# **Exercise 2.** Complete the function. It gets the bytes of an answer's tokens. Return one text for each token: what can be sent after it, and an empty text where nothing is whole yet.
# Bytes that never become whole (the answer was cut off in the middle of a character) are left out. `held.decode()` raises `UnicodeDecodeError` where bytes end in the middle.

# %% tags=["exercise"] exercise="whole_pieces"
def whole_pieces(tokens):
    """A list of texts, one a token. tokens: a list of bytes."""
    ### BEGIN SOLUTION
    held, texts = b"", []
    for token in tokens:
        held += token
        try:
            text, held = held.decode(), b""
        except UnicodeDecodeError:
            text = ""
        texts.append(text)
    return texts
    ### END SOLUTION

# %% tags=["check"] exercise="whole_pieces" points=3
ex.whole_pieces.check(whole_pieces, seed=seed)

# %% [markdown]
# ## 5. Who is heard while it computes?
#
# The naive route begins with `async def`. In Python's asyncio *one* thread runs all requests in turn, and a turn ends only where a function **waits** (`await`). A function that computes does not wait.
#
# **Predict**, before you look: a long request runs, and every 50 ms somebody asks `/health`. How long is the longest silence, for the naive service and for the correct one?

# %%
quiet_times = lab.step("health", lambda: ask.health_rows(desk, max_tokens=32 if quick else 64))
fig = service_plots.draw_health(quiet_times, lab.caption("health"))
for kind in view.KINDS:
    rows = [row for row in quiet_times if row["service"] == kind]
    print(f"{kind}: {len(rows)} looks, the longest silence {service_asking.worst(rows):.3f} s of {rows[0]['answer_s']:.1f} s")
assert len(fig.axes[0].lines) == 2

# %% [markdown]
# A health check has a time limit, usually a second or a few. Where it is silent for longer the service counts as dead, and is restarted: in the middle of an answer, and just when it has most to do.
#
# The correct service has **two processes**: one speaks HTTP, the other owns the model. A thread would not do: ONNX Runtime GenAI 0.14 computes while it holds Python's global lock, so no other thread runs.
#
# ## 6. What health says
#
# Two questions are often taken for one. **Live**: shall this process be left running? If not, it is restarted. **Ready**: shall it get requests? If not, they go elsewhere, and nothing is restarted.
#
# **Exercise 3.** Complete the function. The state has `model_process_alive`, `loaded`, `stopping` (true or false), `waiting` and `queue_bound` (numbers).
# Think of a service that is still loading, one that has been told to stop, and one whose queue is full.

# %% tags=["exercise"] exercise="health"
def health(state):
    """(live, ready), two truth values."""
    ### BEGIN SOLUTION
    live = state["model_process_alive"]
    return live, live and state["loaded"] and not state["stopping"]
    ### END SOLUTION

# %% tags=["check"] exercise="health" points=2
ex.health.check(health, seed=seed)

# %% [markdown]
# ## 7. A status code for each case
#
# A status code is read by machines: clients decide by it whether to try again, monitors count by it, load balancers take a copy out by it. The first digit says whose turn it is:
# 2 it went well, 4 the client must change something, 5 the service must.
#
# **Exercise 4.** Complete the function: 200, 400, 404, 429 (too many requests now: come again) or 503 (not ready). The order of your questions matters.

# %% tags=["exercise"] exercise="status"
def status(case):
    """A number. case: is_json, model_known, prompt_tokens, max_tokens, context, ready, waiting, queue_bound."""
    ### BEGIN SOLUTION
    if not case["is_json"]:
        return 400
    if not case["model_known"]:
        return 404
    if case["prompt_tokens"] + case["max_tokens"] > case["context"]:
        return 400
    if not case["ready"]:
        return 503
    return 429 if case["waiting"] >= case["queue_bound"] else 200
    ### END SOLUTION

# %% tags=["check"] exercise="status" points=2
ex.status.check(status, seed=seed)

# %% [markdown]
# ## 8. A queue with an end
#
# When requests come faster than they can be answered, something has to give. Without a bound the queue grows, and with it the wait of *everybody*, without end.
# With a bound the wait has a limit, and who comes too much is refused at once: 429, and in the header `Retry-After` the seconds after which to come again.
# Play with it (computed: requests come evenly, every answer takes the same time):

# %%
from labkit.learn.widgets import explore


def draw(requests_per_s, seconds_per_answer, at_a_time, queue_bound):
    return service_plots.draw_waits(requests_per_s, seconds_per_answer, at_a_time, queue_bound, "computed, not measured")


box = explore(draw, requests_per_s=(0.5, 4.0, 0.25), seconds_per_answer=(0.2, 2.0, 0.1), at_a_time=[2, 1, 4], queue_bound=[4, 0, 16, 64])

# %% [markdown]
# At a load below 100 % both look alike. Above it they do not, however little it is.
#
# **Exercise 5.** Complete the function: the value of `Retry-After` for a client that is refused now. `waiting` requests are in the queue, `slots` are answered at a time, each takes `service_s`.
# Say when everybody in front of it *and its own answer* would be done, in whole seconds.

# %% tags=["exercise"] exercise="retry_after"
def retry_after(waiting, slots, service_s):
    """Whole seconds, at least 1."""
    ### BEGIN SOLUTION
    import math

    return math.ceil((waiting + 1) * service_s / slots)
    ### END SOLUTION

# %% tags=["check"] exercise="retry_after" points=3
ex.retry_after.check(retry_after, seed=seed)

# %% [markdown]
# Now the real one. The correct service gets twice as many requests as it was measured to answer, at fixed times, whatever becomes of the earlier ones (an **open loop**: real users do not wait for each other).
# Once with its queue of 4, once with one that is never full. **Predict:** how long does the last client wait for its first token, in each?

# %%
bounds = [4, 1000]
bound = lab.step("bound", lambda: ask.bound_rows(desk, bounds, over=2, requests=24 if quick else 36))
fig = service_plots.draw_bound(bound, lab.caption("bound"))
for length in bounds:
    print(f"queue of {length}: the longest wait for a first token {ask.worst_wait_s(bound, length):.1f} s")
assert len(fig.axes) == 2

# %% [markdown]
# The refused clients have lost nothing: they know at once, and can come later or go elsewhere. The others got their answers soon.
# In the unbounded queue everyone waits longer than the one before, and it would go on like that as long as the load lasts.
#
# ## 9. The same questions again
#
# The correct service, asked the very same table:

# %%
correct = lab.step("correct", lambda: ask.probe_rows(desk, "correct"))
fig = service_plots.draw_matrix([*naive, *correct], my_guess_holds, lab.caption("naive", "correct"))
print("does not hold:", [row["question"] for row in correct if not row["holds"]] or "nothing")
assert len(fig.axes[0].lines) == 2 * len(service_probes.PROBES)

# %% [markdown]
# The proof is not that the code looks right, but that this table can be run again: after each change, and on each new machine.
#
# ## 10. As an image
#
# A service is deployed as an **image**: its files, layer upon layer, and the command to start. This one's recipe is `labs/stacks/onnx/Containerfile`. From here on the lab needs Podman or Docker;
# without one it plays its recording. (The first build fetches the packages, which takes minutes. Later ones find the layers there already.)

# %%
from labkit.learn import containers_view
from labkit.learn import service_image as image

box = image.Box(desk)
layers = lab.step("layers", lambda: box.rows(lambda: image.layer_rows(box)), needs="containers")
fig = containers_view.draw_layers(layers, lab.caption("layers"))
print(f"{sum(row['bytes'] for row in layers) / 1e6:.0f} MB in all, the model not included")
assert fig.axes[0].patches

# %% [markdown]
# Look at the proportions: the service's own code is some 70 kB. Nearly all is Python, ONNX Runtime and the libraries beside it. The model (90 MB) is in none of the layers: its folder is mounted when the
# container starts, so one image serves every model, and a new model needs no new image. (`--build-arg MODEL=folder` puts it into a layer: then image and model are always the same pair.)
#
# Now it is run **hardened**: not as root, its files read-only, without any of root's special rights (capabilities), with limits. Promises on a command line are worth little, so they are read
# **inside** the running container:

# %%
hardened = lab.step("hardened", lambda: box.rows(lambda: image.hardening_rows(box)), needs="containers")
pd.DataFrame(hardened)

# %% [markdown]
# ## 11. How much memory does it need?
#
# A limit that is too small kills the service, one that is too large costs money. So compute it, as in lab 02, and then measure:
#
# > the programs + the weights + requests at a time × context × bytes of the KV cache a token + scores of one turn
#
# The weights' file itself is only mapped: what counts is a copy of about its size, which ONNX Runtime packs for this processor when it loads the model.
# The graph computes in 32 bits, so a number of the cache has 4 bytes. One turn reads at most 64 tokens of a prompt, and gets for each a score for every word of the vocabulary.
#
# **Predict.** What will the container hold when it answers two requests that fill the context, in MB? The weights are 87 MB (default model).

# %%
my_guess_mb = 200  # <- your number

# %%
memory = lab.step("memory", lambda: box.rows(lambda: image.memory_rows(box)), needs="containers")
fig = service_plots.draw_memory(memory, my_guess_mb, lab.caption("memory"))
pd.DataFrame([{"MB": row["moment"], **{name: f"{size / 1e6:.0f}" for name, size in row["parts"].items()}} for row in memory]).fillna("")

# %% [markdown]
# What is measured here is the memory that the kernel cannot take back (*anonymous* memory, in the container's own account, its **control group**).
# The naive service has no such sum: it takes a prompt of any length in one pass, with scores for every place of it. At 8,000 tokens these alone are 1.6 GB.
#
# And a limit that is too small? The first one here has not even room for the weights:

# %%
small = lab.step("limit", lambda: box.rows(lambda: image.limit_rows(box, 96)), needs="containers")
pd.DataFrame(small)

# %% [markdown]
# The kernel kills a process in the container when its memory is used up: the model's (`killed` counts it, and health says so), or the first one, and the container ends. Either way nobody is told 200.
#
# ## 12. SIGTERM in the middle of an answer
#
# Each update, and each move to another machine, stops the container: SIGTERM first, and after some seconds SIGKILL. The answer that is being written then belongs to a user.

# %%
stopped = lab.step("sigterm", lambda: box.rows(lambda: image.stop_rows(box)), needs="containers")
pd.DataFrame(stopped)

# %% [markdown]
# ## 13. What people say

# %%
from labkit.facts import claims

checked = lab.step("claims", lambda: desk.rows(lambda: ask.claim_rows(desk)))
pd.DataFrame([{"they say": row["says"], "result": claims.in_words(row), "why": row["why"]} for row in checked])

# %% [markdown]
# The lab is done with its services and its container. (They also go when you close the notebook, and when a cell fails.)

# %%
box.close()
desk.close()

# %% [markdown]
# ## To remember
#
# 1. An answer is a loop with three ends and a KV cache; text goes out in whole characters, and usage is counted in tokens.
# 2. Health means the model: not ready while it loads, not ready when it is gone, and heard while it computes. Errors have status codes; a queue has an end, and 429 says when to come again.
# 3. What a service promises is a table of questions that can be asked again: of the process, of the image, after each change.
#
# **In production:** run these probes against every new image before it gets users (lab 14's gates). Give each container the memory that you computed plus a margin, and watch it. Put a proxy with TLS and keys in front (lab 15):
# this service asks nobody who they are. Let the time between SIGTERM and SIGKILL be longer than your longest answer.
#
# **Read more:** [ONNX Runtime GenAI](https://onnxruntime.ai/docs/genai/) · [concurrency in FastAPI](https://fastapi.tiangolo.com/async/) ·
# [status codes, RFC 9110](https://www.rfc-editor.org/rfc/rfc9110#name-status-codes) · [Retry-After](https://www.rfc-editor.org/rfc/rfc9110#name-retry-after)
#
# **The same lab on a bigger model:** `labkit run 17 -p model PATH`, with the path of a GGUF file or of an ONNX Runtime GenAI folder. Its int4 weights, and the limit that the lab would give the container:

# %%
from labkit.models import catalog

for name in ("qwen3-0.6b", "gemma3-1b", "phi-4-mini"):
    weights = catalog.get(name).parameters * 5 / 8e9
    print(f"{name}: weights about {weights:.1f} GB, the container about {0.6 + 1.2 * weights:.1f} GB; converting needs several times as much")
