# ---
# labkit:
#   title: Your first model, measured
#   minutes: 35
#   memory_gb: 0.6
#   track: [run]
#   builds_on: [0]
#   platforms: [Linux, macOS, Windows]
#   expected:
#     - "Wait for the first token: grows about as the prompt grows. For a prompt 8 times as long usually 5 to 9 times."
#     - "Time per output token: nearly the same for both prompts, a ratio of about 0.9 to 1.4."
#     - "Prefill rate of the long prompt: usually above the decode rate, 1 to 4 times with one thread on a small CPU, far more on a GPU."
#     - "First run after loading: 0.8 to 3 times the median of the runs after it. On a busy machine it does not stand out."
#     - "Threads: up to the number of free cores usually faster, but less than in proportion; with more threads than cores often slower. On a busy machine one thread may win, or tie."
#     - "Memory: the growth for a context of 4096 exceeds that for 512 by the KV cache, for the default model by about as much as the file itself takes."
#     - "Second turn with the cache kept: most of its prompt tokens come from the cache, and the wait shrinks to a fraction."
#   transfer:
#     - "A vendor's page says '1,200 tokens per second'. Which three questions do you ask before you compare it with your own figure?"
#     - "Two servers have the same TPOT. One has twice the TTFT. For which kinds of application does that matter, and for which not?"
#     - "A colleague measured once before a change and once after it, and reports 8 % more speed. What would convince you?"
#     - "The same notebook runs on a laptop with 8 fast and 8 slow cores. What do you expect of 16 threads, and how do you find out?"
#     - "Your answers end with finish_reason 'length' in one case of ten. What do the users see, and what would you change?"
# ---

# %% [markdown]
# # Lab 01: Your first model, measured
#
# **How fast does a small language model answer on this machine, and which numbers say so?**
#
# You run a real model, watch its answer arrive, and read four numbers off the clock: the wait, the pace, the rate and
# the memory. Then you use them to make a decision: how many threads should it get?
#
# - **Builds on** lab 00: you know what a token, a prompt and the context are.
# - **Time** 35 minutes. **Memory** below 0.6 GB. **Network** none: the model is on this machine already.
# - **How it goes:** first you predict, then you measure, then you explain. A wrong prediction is worth more than a
#   right one.

# %% tags=["parameters"]
model: str = "smollm2-135m"  # catalogue name, or the path of a GGUF file
engine: str = "llamacpp"  # the program that runs the model
threads: int = 0  # 0: choose by measuring (section 5)
seed: int = 1  # seed of the exercises' cases
quick: bool = False  # fewer repeats and shorter answers
results_path: str = "results.jsonl"  # results are appended to this file

# %% [markdown]
# ## 1. Load the model
#
# A model is a file of numbers, its **weights**. The program that computes with them is called an **engine**. This lab
# uses llama.cpp, which runs inside this notebook: no server, no other machine.
#
# A **core** is a part of the processor that does one thing at a time. A **thread** is a worker that the engine starts.
# Threads share the cores. We begin with one thread (or with the number you set above); in section 5 you choose better.

# %%
from labkit.learn.exercises import lab_01 as ex
from labkit.learn.lab import start

lab = start(
    "01_first_model", model=model, engine=engine, threads=threads or 1, seed=seed, quick=quick, results_path=results_path
)

# %% [markdown]
# Read what was printed. If it says that a part is missing, the lab goes on with a **recording**: real figures from
# another machine, marked as recorded everywhere. If it says that the model has no chat template, the model just
# continues your text and does not answer as an assistant would. If it has no vocabulary, its answers mean nothing, but
# its speed and memory are real.
#
# ## 2. One answer, as it comes
#
# A model writes one token after another. **Streaming** means that you get each token when it is there, and do not
# wait for the whole answer. `measure.one` streams a request and reads the clock at each token. The clock readings are
# called **marks**.
#
# `max_tokens` is the most tokens that we allow. `ignore_eos=True` makes the model go on where it would like to end, so
# that all runs have the same length. You would not use it in an application.
#
# Watch the answer while it comes. Do you notice the wait before the first word?

# %%
from labkit import measure
from labkit.core.records import Request

answer_tokens = 16 if quick else 40
request = Request.chat("Explain in two sentences why the sky is blue.", max_tokens=answer_tokens, ignore_eos=True)


def say(text):
    print(text, end="", flush=True)


first = lab.step("first_answer", lambda: [measure.one(lab.session, request, on_text=say)])[0]
if lab.source == "recorded":
    print(first.text)

# %% [markdown]
# The text may be wrong: this is a very small model. It may also stop in the middle of a sentence, because we allowed
# only so many tokens. Here we look at the clock, not at the content.
#
# **Where did the time go?** The orange bar is the wait for the first token: the model reads the prompt (**prefill**).
# Each blue line is one token of the answer (**decode**).

# %%
from labkit.learn import plots

fig, ax = plots.figure(lab.caption(), height=2.4)
plots.timeline(ax, [first], [f"{first.prompt_tokens} prompt tokens"])
assert len(ax.lines[0].get_xdata()) == len(first.token_marks_ns or ())  # one line a token

# %% [markdown]
# Four numbers describe this picture:
#
# | name | meaning | how to get it |
# |---|---|---|
# | **TTFT**, time to first token | the wait | first mark minus start |
# | **ITL**, inter-token latency | one gap between two tokens | one mark minus the mark before |
# | **TPOT**, time per output token | the usual pace | first mark to last mark, divided by the number of gaps |
# | **decode rate** | tokens per second while it writes | 1 / TPOT |
#
# Marks are in **nanoseconds** (ns): 1 second is 1,000,000,000 ns, or 1e9 ns. A single mark means nothing, because the clock
# counts from some unknown moment. Only differences mean something.
#
# The next cell does it by hand; its output is printed below it. A request starts at 0 ms, and five tokens come at 400, 500, 600, 800 and
# 900 ms. How many gaps are there? What are TTFT, TPOT and the decode rate?

# %% tags=["nbval-check-output"]
from labkit.core.records import Marks, Measurement
from labkit.learn import timing

marks_ns = (400_000_000, 500_000_000, 600_000_000, 800_000_000, 900_000_000)
ends_ns = Marks(start=0, first=marks_ns[0], last=marks_ns[-1])
toy = Measurement(model="toy", engine="none", output_tokens=5, marks_ns=ends_ns, token_marks_ns=marks_ns)
print("gaps (ITL):", [round(gap, 3) for gap in timing.gaps_s(marks_ns)], "s")
print(f"TTFT {toy.ttft_s:.3f} s   TPOT {toy.tpot_s:.3f} s   decode rate {toy.decode_tokens_per_s:.1f} tokens/s")

# %% [markdown]
# Five tokens, but **four** gaps. To divide by the tokens instead of the gaps is a frequent mistake in home-made
# benchmarks.
#
# ### Exercise 1: time to first token
# Complete the function. Run the cell, then run the check cell below it. You may try as often as you like.

# %% tags=["exercise"] exercise="ttft_s"
def ttft_s(start_ns, marks_ns):
    """Seconds from the request to the first token. marks_ns: one clock reading for each token, in order."""
    ### BEGIN SOLUTION
    return (marks_ns[0] - start_ns) / 1e9
    ### END SOLUTION


# %% tags=["check"] exercise="ttft_s" points=2
ex.ttft_s.check(ttft_s, seed=seed)

# %% [markdown]
# ### Exercise 2: time per output token
# The mean of the gaps, in seconds. There are always at least two marks.

# %% tags=["exercise"] exercise="tpot_s"
def tpot_s(marks_ns):
    """Seconds for each token after the first."""
    ### BEGIN SOLUTION
    return (marks_ns[-1] - marks_ns[0]) / (len(marks_ns) - 1) / 1e9
    ### END SOLUTION


# %% tags=["check"] exercise="tpot_s" points=2
ex.tpot_s.check(tpot_s, seed=seed)

# %% [markdown]
# Now the same numbers for your real answer. labkit computes them from the marks, just as you did.

# %%
gaps = sorted(timing.gaps_s(first.token_marks_ns)) or [float("nan")]
print(f"TTFT         {first.ttft_s:.3f} s")
print(f"TPOT         {first.tpot_s or float('nan'):.4f} s, from {len(gaps)} gaps")
print(f"ITL          {gaps[0]:.4f} s the shortest, {gaps[-1]:.4f} s the longest")
print(f"decode rate  {first.decode_tokens_per_s or float('nan'):.1f} tokens/s")
print(f"load time    {first.load_s:.2f} s, paid once before the first request")

# %% [markdown]
# TPOT is a mean, so it hides the longest gap. A reader sees that gap as a stutter. That is why ITL has a name of its
# own.
#
# ## 3. Once is not a measurement
#
# Other programs want the processor too. Memory and caches are cold at first. So the next run gives another number.
# Let us repeat the very same request and look at all runs.
#
# **Predict:** is the first run after loading slower than the others? By how much?

# %%
my_first_run_factor = 1.5  # your prediction: first wait / usual wait

# %%
import numpy as np

again = lab.step("again", lambda: measure.run(lab.session, request, repeats=3 if quick else 6, warmup=0))
waits, rates = [m.ttft_s for m in again], [m.decode_tokens_per_s for m in again]
print(timing.told_first(first.ttft_s, waits))

# %%
fig, axes = plots.figure(lab.caption(), columns=2)
plots.points(axes[0], {"first run": [first.ttft_s], "runs after it": waits}, "TTFT in seconds")
timing.mark_prediction(axes[0], 0, np.median(waits) * my_first_run_factor)
plots.points(axes[1], {"first run": [first.decode_tokens_per_s], "runs after it": rates}, "decode tokens/s")
assert len(axes[0].lines) == 3 and len(axes[1].lines) == 2  # both groups, and the prediction

# %% [markdown]
# Every dot is one run; the black bar is the **median**, the run in the middle (of an even number: halfway between the
# two in the middle). Why may the first run differ? The model file is touched for the first time, caches are empty, and
# the processor may still be in a slow, power-saving state. On a busy machine you may not see it at all.
#
# You cannot know beforehand. So measure like this:
#
# 1. **Warm up**: one run that does not count (but if your users meet cold starts, measure those too, separately).
# 2. **Repeat**, and report the median. A mean follows one disturbed run; a median does not.
# 3. **Say how sure you are**: an interval, and **n**, the number of runs.
#
# `measure.spread` gives the median and an interval. It draws n of your runs at random, again and again (a run may come
# twice), and looks where the median falls in 95 of 100 draws. This is called a *bootstrap*. With five runs or fewer the
# interval is simply from the slowest to the fastest.

# %%
print("TTFT  ", timing.told(measure.spread(waits), "s"))
print("TPOT  ", timing.told(measure.spread(m.tpot_s for m in again), "s"))
print("decode", timing.told(measure.spread(rates), "tokens/s"))

# %% [markdown]
# ### Exercise 3: the first run against the usual one
# `seconds` holds the waits of several runs in the order they were made. How many times as long as the usual run was
# the first? "Usual" is the **median of the runs after the first**. (`numpy.median` knows what to do with an even number.)

# %% tags=["exercise"] exercise="first_run_factor"
import numpy as np


def first_run_factor(seconds):
    """First run divided by the median of the runs after it."""
    ### BEGIN SOLUTION
    return seconds[0] / float(np.median(seconds[1:]))
    ### END SOLUTION


# %% tags=["check"] exercise="first_run_factor" points=3
ex.first_run_factor.check(first_run_factor, seed=seed)

# %% [markdown]
# ## 4. Two kinds of tokens
#
# A model **reads** the prompt's tokens and **writes** the answer's tokens. Reading goes through many tokens at once.
# Writing goes one token at a time, because each token depends on the one before.
#
# We give the model a short prompt and one that is 8 times as long. Both answers have the same length.
#
# **Predict** two factors, long prompt against short prompt: for the wait, and for the time per token after it.

# %%
my_wait_factor = 3.0  # your prediction: how many times as long is the wait for the first token?
my_tpot_factor = 2.0  # your prediction: how many times as long is the time per output token?

# %%
def two_lengths():
    short = 12 if quick else 32
    prompts = {n: timing.token_prompt(n, lab.session.n_vocab) for n in (short, 8 * short)}
    asks = {n: Request(tokens=tokens, max_tokens=8, ignore_eos=True) for n, tokens in prompts.items()}
    cases = {n: lambda ask=ask: measure.one(lab.session, ask) for n, ask in asks.items()}
    found = measure.ab(cases, repeats=2 if quick else 4, warmup=0)
    return [m for rows in found.values() for m in rows]


phases = lab.step("prompt_lengths", two_lengths)

# %% [markdown]
# The prompts are lists of token numbers, so that their length is exact. What they say does not matter to the speed.
# `measure.ab` runs the two cases **in turn** (short, long, long, short …): if the machine slows down meanwhile, it slows
# down for both.

# %%
wait, pace = (timing.medians(phases, "prompt_tokens", name) for name in ("ttft_s", "tpot_s"))
short, long = min(wait), max(wait)
factors = [wait[long] / wait[short], pace[long] / pace[short]]
print(f"The prompt is {long / short:.0f} times as long.")
print(f"Wait: {factors[0]:.1f} times. Time per token: {factors[1]:.2f} times.")

# %%
fig, ax = plots.figure(lab.caption())
names = ["wait (TTFT)", "time per token (TPOT)"]
plots.predicted_measured(ax, names, [my_wait_factor, my_tpot_factor], factors, "long prompt / short prompt")
assert len(ax.patches) == 4  # two predictions, two measurements

# %% [markdown]
# The number above each pair is prediction divided by measurement. The wait grows about as the prompt grows, because
# prefill has work to do for every token of the *prompt*. The time per output token hardly changes: each new token needs
# one pass over the weights, however long the prompt was. (It grows slowly, because each token also looks back at all
# tokens before it.)
#
# So "tokens per second" says nothing until you know **which tokens**. Here is one and the same run, told in four ways.
# Each of them is some number of tokens in some number of seconds:

# %%
run = max(phases, key=lambda m: m.prompt_tokens)
print(f"one run: {run.prompt_tokens} prompt tokens, {run.output_tokens} output tokens, {run.threads} thread(s)\n")
for name, value in timing.claims(run).items():
    print(f"{value or float('nan'):8.1f} tokens/s   {name}")

# %% [markdown]
# The second and the third change when you only change the length of the prompt, although the model is as fast as
# before. Report the **decode rate** for writing and the **prefill rate** for reading, and always say which.
#
# ### Exercise 4: the decode rate
# Tokens per second while the model writes: output tokens after the first one, and the time after the first one. The
# first token belongs to the wait. (You get three arguments. You may not need them all.)

# %% tags=["exercise"] exercise="decode_tokens_per_s"
def decode_tokens_per_s(prompt_tokens, start_ns, marks_ns):
    """Rate of the output tokens. prompt_tokens: how many were read; marks_ns: one mark for each token written."""
    ### BEGIN SOLUTION
    return (len(marks_ns) - 1) / ((marks_ns[-1] - marks_ns[0]) / 1e9)
    ### END SOLUTION


# %% tags=["check"] exercise="decode_tokens_per_s" points=2
ex.decode_tokens_per_s.check(decode_tokens_per_s, seed=seed)

# %% [markdown]
# ### How long will I wait?
# With two rates you can predict the wait for any prompt and answer. Move the sliders. When does the prompt decide how
# long you wait, and when does the answer? (The rates are those measured above. For very long prompts both go down, so
# there the drawing is too kind.)

# %%
from functools import partial

from labkit.learn import widgets

prefill = timing.medians(phases, "prompt_tokens", "prefill_tokens_per_s")[long]
decode = timing.medians(phases, "prompt_tokens", "decode_tokens_per_s")[long]
caption = "predicted from rates " + lab.caption()
draw = partial(timing.draw_wait, prefill_tokens_per_s=prefill, decode_tokens_per_s=decode, caption=caption)
widgets.explore(draw, prompt_tokens=(16, 1024, 16), output_tokens=(8, 256, 8));

# %% [markdown]
# ## 5. How many threads?
#
# "More threads are faster." Is that so here? Threads share the cores, they wait for one another after every step, and
# while the model writes they all wait for the same memory. Other programs want the cores too.
#
# **Predict:** which count writes fastest, and how many times as fast as one thread?

# %%
from labkit.core import machine

print(f"This machine lets us use {machine.cores()} core(s).")
my_fastest_count = 2  # your prediction: 1, 2, … threads
my_speedup = 2.0  # your prediction: how many times as fast as one thread

# %%
def sweep():
    cores = machine.cores()
    counts = sorted({1, 2, max(1, cores // 2), cores} | (set() if quick else {2 * cores}))
    prompt = timing.token_prompt(24, lab.session.n_vocab)
    ask = Request(tokens=prompt, max_tokens=8 if quick else 12, ignore_eos=True)
    return measure.sweep_threads(lab.session, ask, counts, repeats=3 if quick else 5)


swept = lab.step("threads", sweep)

# %% [markdown]
# `sweep_threads` takes the counts in turn, as above, on one loaded model. In the full run one count is twice the
# number of cores, to see what too many threads do.

# %%
writing, reading = (timing.by(swept, "threads", name) for name in ("decode_tokens_per_s", "prefill_tokens_per_s"))
print("WRITING\n" + timing.told_threads(writing))
print("\nREADING\n" + timing.told_threads(reading))

# %%
fig, axes = plots.figure(lab.caption(), columns=2)
plots.points(axes[0], writing, "decode tokens/s")
plots.points(axes[1], reading, "prefill tokens/s", colour=plots.GREEN)
one_thread = np.median(writing[min(writing)])
timing.mark_prediction(axes[0], timing.column(writing, my_fastest_count), my_speedup * one_thread)
for ax in axes:
    ax.set_xlabel("threads")
assert len(axes[0].lines) == len(writing) + 1  # each count, and the prediction

# %% [markdown]
# Did the belief hold? It may be true, false, or **tied** on your machine, and the sentence above says which. Look at
# the intervals before you look at the medians. Two counts are tied when the data cannot tell them apart; then take the
# one with fewer threads, and leave the other cores to somebody else. (On a machine that others use as well, many
# threads may win only because they take a larger share from the others. Measure under the load that you will have.)
#
# Writing and reading can have different best counts. Prefill is one large piece of work that is easily shared. Writing
# a token is a little work in many small steps, and after each step the threads wait for the slowest. In a big model
# memory sets the limit as well, and the threads share that too (lab 02 measures it).
#
# ### Exercise 5: choose a thread count
# `rows` is a list such as `[{"threads": 1, "tokens_per_s": 20.1}, {"threads": 2, "tokens_per_s": 31.0}, …]`, with
# several repeats of each count, in any order. Return the thread count to use:
#
# 1. Find the count with the best **median**.
# 2. A smaller count is *tied* with it when its median is **not below the slowest repeat of the best count**.
# 3. Return the fewest threads among the best and those tied with it.

# %% tags=["exercise"] exercise="which_threads"
import numpy as np


def which_threads(rows):
    """The thread count to use: the best median, or fewer threads where they are tied."""
    ### BEGIN SOLUTION
    repeats = {}
    for row in rows:
        repeats.setdefault(row["threads"], []).append(row["tokens_per_s"])
    best = max(repeats.values(), key=np.median)
    return min(count for count, rates in repeats.items() if np.median(rates) >= min(best))
    ### END SOLUTION


# %% tags=["check"] exercise="which_threads" points=3
ex.which_threads.check(which_threads, seed=seed)

# %% [markdown]
# The lab goes on with the count that the writing measurement chose, or with the one you set in the parameters.

# %%
chosen = threads or timing.fewest_tied(writing)
if lab.session is not None:
    lab.session.set_threads(chosen)
print(f"From here on: {chosen} thread(s).")

# %% [markdown]
# ## 6. Talk to it from code
#
# ### When does an answer end?
# The engine says why it stopped, in `finish_reason`:
#
# - `stop`: the model ended its answer, or a **stop string** appeared (a text that you name; it is cut off),
# - `length`: it reached `max_tokens`, or the context was full. The answer is cut in the middle!
# - `cancelled`: you stopped listening.
#
# Three requests. Guess each `finish_reason` before you look.

# %%
asks = {
    "count, at most 6 tokens": Request(prompt="Count: 1, 2, 3, 4,", max_tokens=6),
    "count, stop at 8": Request(prompt="Count: 1, 2, 3, 4,", max_tokens=24, stop=("8",)),
    "a question": Request.chat("What is 2 + 2?", max_tokens=24),
}


def three_ends():
    return [timing.ending(name, ask, measure.one(lab.session, ask)) for name, ask in asks.items()]


ends = lab.step("ends", three_ends)

# %%
import pandas as pd

pd.set_option("display.max_colwidth", None)
pd.DataFrame(ends).set_index("asked")

# %% [markdown]
# The first two are **plain completions** (`prompt=`): the model just continues the text. The third is a **chat**: the
# model's template marks who speaks (a model without a template just gets the texts). If your model never wrote an "8",
# or never ended by itself, you see `length`. If it had nothing to say, you see `stop` after 0 tokens. A program that
# ignores `finish_reason` shows half sentences to its users.
#
# ### Several turns
# The model remembers nothing between two requests. A chat works because the program sends the **whole history** again,
# every time. The engine can keep the keys and values of the tokens that it has read (the **KV cache**, lab 00), so that
# only the new part has to be computed: `keep_cache=True`.
#
# **Predict:** the second turn has the longer prompt. Is its wait longer or shorter?

# %%
from labkit.core.records import Message

def turns():
    size, ask = 12 if quick else 24, "Name three fruits."
    one = measure.one(lab.session, Request.chat(ask, max_tokens=size))
    history = [Message(role="user", content=ask), Message(role="assistant", content=one.text)]
    kept = Request.chat("Which one is yellow?", history=history, max_tokens=size, ignore_eos=True, keep_cache=True)
    fresh = kept.model_copy(update={"keep_cache": False})
    return [one, measure.one(lab.session, kept), measure.one(lab.session, fresh)]


chat = lab.step("turns", turns)

# %%
for name, m in zip(("turn 1", "turn 2, cache kept", "turn 2, computed anew"), chat):
    seconds = m.ttft_s or float("nan")  # unknown where the model had nothing to say
    print(f"{name:22} prompt {m.prompt_tokens:3} tokens, {m.cached_tokens or 0:3} from the cache, wait {seconds:.2f} s")
print(f"With the cache the second turn waits {chat[1].ttft_s / chat[2].ttft_s:.2f} times as long as without.")

# %% [markdown]
# The longer the talk, the more this saves. (Some models look back over a sliding window only; for them the engine may
# have to compute everything anew, and the two lines are alike.)
#
# ### A system prompt
# A **system prompt** comes before the user's words and says how to answer. The same question, two system prompts,
# side by side:

# %%
systems = ("You answer in one short, plain sentence.", "You are a pirate. You talk like a pirate.")
asked = "What is a computer?"

def two_systems():
    size = 16 if quick else 40
    requests = [timing.system_request(lab.session, system, asked, max_tokens=size) for system in systems]
    found = [measure.one(lab.session, ask) for ask in requests]
    return [{"system prompt": s, "prompt tokens": m.prompt_tokens, "answer": m.text} for s, m in zip(systems, found)]


pd.DataFrame(lab.step("systems", two_systems)).set_index("system prompt").T

# %% [markdown]
# A very small model follows a system prompt only loosely. Note that the system prompt costs prompt tokens, in every
# request. (Some models have no system role. Then labkit puts the text in front of the question.)
#
# ### Cancel
# A user closes the page in the middle of an answer. To cancel, stop reading the stream and close it. The engine then
# computes nothing more.

# %%
def cancel_after(tokens):
    stream = lab.session.stream(Request.chat("Tell me a long story.", max_tokens=400, ignore_eos=True))
    for number, chunk in enumerate(stream, 1):
        if number == tokens:
            break
    stream.close()
    return [{"asked_for": 400} | lab.session.usage().model_dump()]


lab.step("cancel", lambda: cancel_after(5))[0]

# %% [markdown]
# `output_tokens` is what was really computed. An application that forgets to cancel pays for the rest of the answer,
# although nobody reads it.
#
# ## 7. How much memory?
#
# A fresh process notes its memory, loads the model with a small context of 512 tokens, and sends a short request. We
# look at how much it **grew**. Then another fresh process does the same with a larger context (4096 tokens, or 1024 for
# a bigger model).
#
# **Predict:** the file's size is printed below. By how much does a process grow that loads it? And how much more is it
# with the larger context?

# %%
from labkit.measure import memory

def grow():
    ref = lab.session.model
    file_bytes = ref.path.stat().st_size
    large = 4096 if file_bytes < 300e6 else 1024  # so that the lab stays below 2 GB with a bigger model
    found = {size: memory.growth(ref, context=size, fill=16) for size in (512, large)}
    return [{"context": size, "file_bytes": file_bytes} | row for size, row in found.items()]


grown = lab.step("memory", grow)
print(f"The model file has {grown[0]['file_bytes'] / 1e6:.0f} MB.")

# %%
fig, ax = plots.figure(lab.caption(), height=3.6)
loaded, more = ([row[a] / 1e6 for row in grown] for a in ("loaded_bytes", "measured_bytes"))
after = [max(0, b - a) for a, b in zip(loaded, more)]
parts = {"loaded, with its context": loaded, "after the first request": after}
plots.stacked(ax, [f"context {row['context']}" for row in grown], parts, "growth in MB")
ax.axhline(grown[0]["file_bytes"] / 1e6, color=plots.BLACK, ls=":", label="size of the model file")
ax.set_ylim(0, 1.4 * max(more))
ax.legend(frameon=False, loc="upper left")
assert len(ax.patches) == 4 and len(ax.lines) == 1

# %%
print(timing.told_memory(grown[0]["measured_bytes"], grown[0]["file_bytes"]))
extra = grown[1]["measured_bytes"] - grown[0]["measured_bytes"]
tokens = grown[1]["context"] - grown[0]["context"]
print(f"A context larger by {tokens} tokens takes {extra / 1e6:.0f} MB more:")
print(f"{extra / tokens / 1000:.1f} kB for each token it can hold.")

# %% [markdown]
# - The engine does not copy the file. It **maps** it: pages of the file appear in the memory of the process. Two
#   processes with the same file share those pages. This notebook has the file open too.
# - So "how much memory does it take?" has two answers. The **resident set** (RSS) counts every page that a process
#   holds; the figures above are its growth. The **proportional set size** (PSS, on Linux) counts a page that two
#   processes share by half for each. To add up several processes take PSS, or shared pages count twice.
# - The **KV cache** is private, and its size is fixed when the context is made, not when it is filled
#   (the engine clears all of it at once, so all of it counts). A long context
#   can cost as much as the model itself. Lab 02 computes it beforehand.
#
# ## 8. The record
#
# A number without its circumstances cannot be compared. So labkit keeps a **record** of each run. We run the same fixed
# request on every machine, warmed up and repeated, with the threads chosen above:

# %%
bench_request = Request.chat("Write one sentence about rivers.", max_tokens=16, ignore_eos=True)
bench = lab.step("bench", lambda: measure.run(lab.session, bench_request, repeats=3 if quick else 7))
print("TTFT  ", timing.told(measure.spread(m.ttft_s for m in bench), "s"))
print("decode", timing.told(measure.spread(m.decode_tokens_per_s for m in bench), "tokens/s"))
print(f"with {bench[0].threads} thread(s)")

# %%
import pprint

record = bench[0].model_dump(mode="json")
record["token_marks_ns"] = (record["token_marks_ns"] or [])[:3] + ["…"]
pprint.pp(record, width=120, compact=True)

# %% [markdown]
# Read it once. What is in it, and why:
#
# | fields | why |
# |---|---|
# | `model`, `model_sha256` | a name can be given to any file; the checksum says which file it was |
# | `engine`, `engine_version`, `settings`, `threads` | another version or setting is another measurement |
# | `machine` | processor, cores and memory; no name of a person or computer |
# | `prompt_tokens`, `output_tokens`, `cached_tokens`, `finish_reason` | without counts there is no rate |
# | `marks_ns`, `token_marks_ns` | the raw clock readings: every rate can be computed again from them |
# | `ttft_s`, `tpot_s`, `decode_tokens_per_s`, `prefill_tokens_per_s` | computed from the above, for convenience |
# | `schema`, `timestamp` | so that a later program knows how to read it |
#
# An unknown value is `null` (in Python `None`). It is never a guess: 0 would be a claim.
#
# All steps of this lab were appended to a file, one JSON object a line. If you ran the lab before, your earlier runs
# are in it too:

# %%
from labkit.core import results

table = pd.DataFrame(timing.benches(results.read(results_path)))
assert len(table) >= 1  # at least the run of just now
table.round(3)

# %% [markdown]
# A class can pool its runs: put all files one after another (`cat */results.jsonl > class.jsonl`) and read that file
# instead. The column `machine` is a fingerprint: group by it, or compare it. Rows with `source` = `recorded` were not
# measured on that machine; leave them out.
#
# ## What to remember
#
# 1. TTFT is the wait, TPOT is the pace. Never mix prompt tokens and output tokens in one rate.
# 2. Warm up, repeat, and report a median with an interval and n. One number is an anecdote.
# 3. More threads are not always faster. Measure in turn, look at the intervals, and take the fewest that are tied.
#
# **What this means in production.** Set targets for TTFT and TPOT separately: the prompt's length drives one, the
# answer's length multiplies the other. Set the thread count yourself, especially in a container, where a program may
# see more cores than it is given. Watch `finish_reason`, cancel what nobody reads, and plan memory for the context you
# promise.
#
# **Where to read more**
# - llama.cpp, the engine: <https://github.com/ggml-org/llama.cpp>
# - The model: <https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct>
# - PSS in the Linux documentation: <https://www.kernel.org/doc/html/latest/filesystems/proc.html>
#
# **The same lab on a bigger model.** Set `model` in the parameters cell to the path of any GGUF file and run all cells
# again. No download at hand? `labkit models shape qwen3-0.6b` writes a file of the same shape with random weights: its
# text means nothing, but its speed and memory are real (lab 02). This is what three well-known models need at 4.5 bits
# per weight (Q4_0), computed from their shapes:

# %%
from labkit.models import catalog, footprint, shape

for name in ("qwen3-0.6b", "gemma3-1b", "phi-4-mini"):
    header = shape.header(catalog.get(name), "Q4_0")
    need = footprint.predict(header, context=2048).total_bytes
    print(f"{name:12} download {header.file_bytes / 1e9:.2f} GB, memory {need / 1e9:.2f} GB with a context of 2048 tokens")
