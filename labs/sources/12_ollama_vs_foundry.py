# ---
# labkit:
#   title: Who is faster, and who says so?
#   minutes: 45
#   memory_gb: 3.3
#   track: [run, operate]
#   builds_on: [1, 4, 7, 10, 11]
#   prerequisites: ["the extras `onnx` and `foundry` (SET=all) and Ollama (`labkit runtimes install ollama`) for your own figures; without one of them the lab plays its recording"]
#   expected:
#     - "prompt tokens and output tokens agree to the last one over all engines; otherwise the lab refuses to compare"
#     - "llama.cpp in process and Ollama: within about 20 % of each other in time per token, because the same library computes both"
#     - "requests at once: engines in this process stay flat; a server gains where it computes requests together"
#     - "the int4 ONNX folder lies farther from the 16-bit copy than the Q4_1 file that both stem from"
#   transfer:
#     - "Somebody measured engine A on Monday and engine B on Tuesday and found B 15 % faster. What would you ask, and how would you repeat it?"
#     - "Two engines give different texts for the same prompt at temperature 0. Name three reasons that are no error."
#     - "Your service has 20 users who each want 10 tokens a second. Which figures of this lab do you need, and what do they not tell you?"
#     - "A vendor's table says: fast start-up. Which two times would you measure, and when does each matter?"
#     - "Your company's cloud bill is 40 euros a month. Work out whether a machine for 900 euros pays, and list what your sum leaves out."
# ---

# %% [markdown]
# # 12 · Who is faster, and who says so?
#
# **The question this lab answers: how do we compare Ollama, Foundry Local, ONNX Runtime GenAI and llama.cpp so that the result is worth something, and which one do I take?**
#
# It builds on labs 01 (time to first token), 04 (quality), 07 (ONNX), 10 (Ollama) and 11 (Foundry Local). About 45 minutes, 2 GB of memory;
# the first time the model is converted to ONNX, unless lab 07 or 11 has done so, which takes up to 3.3 GB for a minute (with less, look at the recording). Nothing is downloaded. Servers are started for each step on this machine only, and stopped after it.
#
# Many tables on the web compare these programs. Most of them do not say which model, which prompt, which processor. Here you build
# a comparison that you can defend, and then use it to check the best known of those tables, row by row.

# %% tags=["parameters"]
model: str = "smollm2-135m"  # catalogue name, or the path of a GGUF file with a chat template
engines: list[str] = ["llamacpp", "ollama", "ortgenai", "foundry"]  # who competes; openai adds llama-server
threads: int = 0  # the same for every engine; 0: all cores but one, which is left for the rest
seed: int = 1  # your own seed gives you your own prompts and exercise numbers
quick: bool = False  # True: few rounds and few tokens, for a fast check
results_path: str = "results.jsonl"  # results are appended here

# %%
from labkit.learn import versus_plots, versus_view
from labkit.learn.exercises import lab_12 as ex
from labkit.learn.lab import start

lab = start(
    "12_ollama_vs_foundry", model=model, threads=threads, seed=seed, quick=quick, results_path=results_path, load=False, needs=engines
)
contest = versus_view.Contest(lab.model, engines, threads or versus_view.spare_threads(), seed, quick)

# %% [markdown]
# ## 1. Four programs, two engines, one model
#
# | | who computes | the model's file | how we ask |
# |---|---|---|---|
# | **llama.cpp** | llama.cpp | GGUF | in this process |
# | **Ollama** | llama.cpp, in a process of Ollama's | the same GGUF | over HTTP |
# | **ONNX Runtime GenAI** | ONNX Runtime | an ONNX folder | in this process |
# | **Foundry Local** | ONNX Runtime GenAI, in a process of its own | the same ONNX folder | over HTTP |
#
# So there are really two engines, and each has a form without and a form with a server around it. That is a gift for a fair comparison: the difference between
# a pair is what the server and its own build of the engine change together. (Foundry Local loads its own build of ONNX Runtime GenAI, Ollama one of llama.cpp.
# With a better build, a server may even be ahead.)
#
# **Are the weights the same?** As nearly as can be. The GGUF file has blocks of 4-bit codes (SmolLM2: Q4_1). For ONNX it is unpacked and quantized to
# 4 bits again. So both stem from the same file, and the ONNX folder has been rounded once more. Section 6 measures what that costs.
#
# ## 2. The same question, to the byte
#
# A **chat template** turns messages into the text that the model reads. If two engines use different templates, they are asked different questions,
# and a longer prompt looks like a slower engine. So labkit makes the text once, with the template in the GGUF file, and gives every engine *that text*
# (or its token ids). Foundry Local takes only messages; for it the text is worked out with its folder's own template and compared.
# One byte more, and the comparison is refused:

# %% tags=["nbval-check-output"]
from labkit.learn.expect import expect_error
from labkit.measure import versus

ring, prompt = versus_view.careless_ring("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
with expect_error():
    versus.check_text(ring, [prompt])

# %% [markdown]
# The number of prompt tokens that each engine counts must agree as well, and so must the number of output tokens: whoever stops early has had less to do.
#
# Three more rules. Sampling is greedy for all. Each prompt begins with a number of its own, so that no cache of earlier prompts helps. And
# each engine answers once before anything counts (**warm-up**).
#
# ## 3. In turn
#
# A machine's speed drifts: it gets warm, a backup starts, another program wakes up. If engine A runs ten times and then engine B runs ten times, the drift is
# in the result. So engines run **in turn**: one round has every engine once. And the direction changes each round, because the one that follows
# a heavy neighbour has a disadvantage, which should not always hit the same.
#
# **Exercise 1.** Complete the function: the order of all runs, forwards in the first round, backwards in the second, and so on.


# %% tags=["exercise"] exercise="fair_order"
def fair_order(names, rounds):
    """A list of names, one a run: every name once in each round, with alternating direction."""
    ### BEGIN SOLUTION
    order = []
    for turn in range(rounds):
        order += names if turn % 2 == 0 else names[::-1]
    return order
    ### END SOLUTION


# %% tags=["check"] exercise="fair_order" points=2
ex.fair_order.check(fair_order, seed=seed)

# %% [markdown]
# **Predict.** Who has the shortest time per output token here? And how many times as long does the slowest take?

# %%
my_guess_fastest = "ollama"  # <- llamacpp, ollama, ortgenai or foundry
my_guess_times = 2.0  # <- your number

# %%
records = lab.step("compare", contest.compare, needs=engines)
figures = versus.figures(records)
fig = versus_plots.draw_latency(figures, my_guess_fastest, lab.caption("compare"))
assert len(fig.axes) == 2

# %% [markdown]
# A symbol is the median, a line its 95 % interval. Where two intervals overlap, this measurement does not say who is faster.
#
# Was it fair? The table comes from the records themselves. `turns` is the place of each run in the whole order.

# %%
import pandas as pd

pd.set_option("display.max_colwidth", None)
pd.DataFrame(versus_view.fairness_rows(records)).set_index("engine")

# %%
for sentence in versus_view.told_latency(figures, my_guess_fastest, my_guess_times):
    print(sentence)

# %% [markdown]
# **Is it the engine, or the file?** If ONNX Runtime wins here, do not write "llama.cpp is slow" yet. SmolLM2's file is Q4_1. Weights in Q4_0 llama.cpp rearranges when it loads them,
# so that the processor's widest instructions fit; for Q4_1 it has no such form. The next cell runs llama.cpp on both files, in turn, with the same prompts:

# %%
formats = versus.figures(lab.step("formats", contest.formats, needs="llamacpp"))
print("\n".join(versus_view.told_formats(formats)))

# %% [markdown]
# So "same weights" has a price: the format that the weights happen to be in may suit one engine better than another. A fair report names it.
# (Q4_0 is not free either: section 6 shows what it loses.)
#
# Two of the times contain HTTP and two do not; the plot says which. Is that unfair? It is what you would get: there is no Ollama without HTTP. But say it,
# and do not conclude anything about the *engine* inside. Compare within the pairs to see what the server, with its build of the engine, changes.
#
# Rounds differ: their prompts do, and the machine does. So compare two engines round by round: divide the times of the *same* round, then take the median of the ratios.
#
# **Exercise 2.** `a` and `b` are lists of times in seconds, one a round. How many times as long does B take?

# %% tags=["exercise"] exercise="paired_ratio"
import numpy as np


def paired_ratio(a, b):
    """Median over the rounds of B's time divided by A's."""
    ### BEGIN SOLUTION
    return float(np.median(np.array(b) / np.array(a)))
    ### END SOLUTION


# %% tags=["check"] exercise="paired_ratio" points=2
ex.paired_ratio.check(paired_ratio, seed=seed)

# %% [markdown]
# ## 4. From nothing to the first token
#
# "Starts fast" may mean several things. Each engine now gets a fresh process: it loads the model (an engine with a server starts the server), answers, closes,
# and loads again. The whole bar is the time from nothing to the first token; its dark part is until the model is loaded. The second time the files are in the system's cache. Memory is read after the answer, over all processes that belong
# to the engine: the **proportional set size**, in which a page that several processes share is counted once in all.
#
# **Predict.** Which one needs the most memory?

# %%
my_guess_largest = "foundry"  # <- llamacpp, ollama, ortgenai or foundry

# %%
cold = lab.step("start", contest.start, needs=engines)
fig = versus_plots.draw_start(cold, lab.caption("start"))
assert len(fig.axes[1].patches) == len(cold)
print(versus_view.told_largest(cold, my_guess_largest))

# %% [markdown]
# ## 5. Many at once
#
# One person at a time is easy. Now 1, 2, 4 and 8 requests arrive at once. An engine inside a program has one model and answers one after another. A server may
# compute several requests in one step: the weights are read once for all of them (lab 02), so all together get more.
# Does each server do so? **Throughput** is the answer:
#
# **Exercise 3.** `requests` is a list of dictionaries with `start_s`, `end_s` and `tokens`. The requests overlap. Complete the function: output tokens per second, in all.


# %% tags=["exercise"] exercise="throughput"
def throughput(requests):
    """Output tokens per second of all requests together."""
    ### BEGIN SOLUTION
    seconds = max(r["end_s"] for r in requests) - min(r["start_s"] for r in requests)
    return sum(r["tokens"] for r in requests) / seconds
    ### END SOLUTION


# %% tags=["check"] exercise="throughput" points=2
ex.throughput.check(throughput, seed=seed)

# %%
many = lab.step("parallel", contest.parallel, needs=engines)
fig = versus_plots.draw_parallel(many, lab.caption("parallel"))
assert len(fig.axes[0].lines) == len({row["engine"] for row in many})

# %% [markdown]
# On the left higher is better, on the right lower. A flat line on the left means that nothing is gained: a queue, or equal shares (lab 11). The right plot tells which:
# in a queue the last one waits for all the others, with equal shares each begins early and is slow. With few processor cores even a good
# server gains little, because reading the prompts is arithmetic for each request, and that cannot be shared. A machine with a GPU shows a very different picture (lab 18).
#
# ## 6. And is it still the same model?
#
# Speed is easy to gain with a worse model. So look at quality beside it: how far is each *file* from the 16-bit copy, on the same tokens (lab 04)? Ollama and Foundry Local
# serve the files measured here (Foundry Local: *ONNX int4*), but they do not show all scores, so llama.cpp and ONNX Runtime GenAI stand in for them. *int4-shared* stores the table of
# tokens once, in few bits, where *int4* keeps it in more: it is about as large as the Q4_0 file. Compare those two.

# %%
quality = lab.step("quality", contest.quality, needs=("ortgenai", "onnx"))
fig = versus_plots.draw_quality(quality, lab.caption("quality"))
columns = ["name", "bytes", "perplexity", "perplexity_stderr", "kl_mean", "kl_stderr", "top1_agreement"]
pd.DataFrame(quality)[columns].round(4)

# %% [markdown]
# If your model is `smollm2-135m`, its GGUF file is Q4_1, and *both* formats stem from it. The Q4_1 point is the file itself: its distance from its own
# 16-bit copy is only that of the arithmetic. Q4_0 and both ONNX folders were quantized a second time, and pay for it. So compare these with each other, at equal size, and not with Q4_1.
# For a verdict about formats, start from an original with 16 bits.
#
# The next lines show it from the other side: how much of each answer in section 3 is the same text as llama.cpp's, from the beginning on? One token that was nearly a tie is enough
# for two texts to part for good, so less than 100 % is no error.

# %%
for row in figures:
    print(f"{versus_view.title(row['engine']):20} same text as llama.cpp: {row['same_text']:.0%}")

# %% [markdown]
# ## 7. Your decision table
#
# Fill in the second column, from the plots above. The next cell holds your choices against the measurements.

# %%
my_choices = {
    "one person waits for long answers": "llamacpp",
    "a long document, a short answer": "llamacpp",
    "started for one question, then ended": "ollama",
    "many people at once on one machine": "foundry",
    "a machine with little memory": "ollama",
}

# %%
options = versus_view.options(figures, cold, many)
pd.DataFrame(versus_view.judge(my_choices, options)).set_index("situation")

# %% [markdown]
# **One local process, or containers?** One copy of an engine gives so many tokens per second and no more. If all your users together want more, you need
# several copies, each with its own memory, and something that shares the requests out: that is what containers and an orchestrator are for (labs 16, 20 and 21).
# If one copy is enough, a local process is simpler. Move the sliders. The figure is *computed* from your measurements; it assumes that each copy has processors of its own.

# %%
from labkit.learn.widgets import explore


def draw(people, tokens_per_s_each, memory_gb):
    return versus_plots.draw_copies(options, people, tokens_per_s_each, memory_gb, lab.caption("compare", "start", "parallel"))


box = explore(draw, people=(1, 64, 1), tokens_per_s_each=(1, 20, 1), memory_gb=(1, 16, 1))

# %% [markdown]
# ## 8. Local or cloud?
#
# "No price per token" is true of the bill, not of the cost. Your own token takes electricity: watts ÷ tokens per second is joules for a token,
# and a kilowatt-hour is 3.6 million joules. The hardware is paid once.
#
# **Exercise 4.** After how many output tokens has the hardware paid for itself? `fee_per_million` is what a cloud takes for a million tokens. Return `math.inf` where it never pays.

# %% tags=["exercise"] exercise="break_even"
import math


def break_even(hardware, fee_per_million, watts, price_per_kwh, tokens_per_s):
    """Tokens until saved fees have paid for the hardware; math.inf where a token's electricity costs more than its fee."""
    ### BEGIN SOLUTION
    electricity = watts / tokens_per_s / 3.6e6 * price_per_kwh
    saved = fee_per_million / 1e6 - electricity
    return hardware / saved if saved > 0 else math.inf
    ### END SOLUTION


# %% tags=["check"] exercise="break_even" points=3
ex.break_even.check(break_even, seed=seed)

# %% [markdown]
# With your measured rate, and prices that **you** must replace by your own (these are only an example, all in one currency):

# %%
from labkit.facts import comparison

rate = max(row["decode_tokens_per_s"] for row in figures)
tokens = comparison.break_even_tokens(fee_per_million=0.40, hardware=900, watts=60, price_per_kwh=0.30, tokens_per_s=rate)
days = tokens / rate / 86400 if tokens else math.inf
print(f"at {rate:.0f} tokens/s: " + (f"{tokens / 1e6:,.0f} million tokens, {days:,.0f} days without a pause" if tokens else "never"))

# %% [markdown]
# The sum leaves out people's time, idle hours, repairs, and above all that the two models are not equally good. It also leaves out the best reasons for a local model: data that
# must not leave the house, and work without a network.
#
# ## 9. The well-known table, row by row
#
# This comparison is copied from page to page. Here each statement gets what *this machine* showed: by the rows of your steps, by a claim of the course's ledger that is checked
# live on both servers, or by a note why no run can decide it (a service level is a contract, not a measurement).

# %%
claims = lab.step("claims", contest.claims, needs=("ollama", "foundry", "onnx"))
evidence = {"compare": figures, "start": cold, "parallel": many, "quality": quality, "claims": claims}
table = comparison.table(evidence)
pd.DataFrame(versus_view.table_words(table)).set_index("aspect")

# %%
print("\n".join(versus_view.told_table(table)))
assert len(table) == 15

# %% [markdown]
# The rows on format, enterprise, monitoring, security, set-up and customisation are about the product: another machine changes little in them. The rows on speed, start, memory and scale
# are decided by your processor, your number of users and your file: on another machine some of them come out the other way. *Holds in part* means here that this machine shows only a part of what is said.
# That is why a table without a machine, a model and a date says so little.
#
# ## To remember
#
# 1. Same bytes in, same number of tokens out, the same sampling, in turn, with an interval: otherwise it is two measurements, and no comparison.
# 2. Say what is in the number: HTTP, loading, waiting. A server around an engine is not the engine.
# 3. Choose by need: one long answer, a cold start, many at once and little memory may have different winners.
#
# **In production:** repeat this comparison with your own prompts, your own model and your machine, and again after each update of an engine; labkit's records name the versions.
# Neither server asks for a key, so put them behind a proxy that does (section 9).
#
# **Read more:** [Ollama's API](https://github.com/ollama/ollama/blob/main/docs/api.md) ·
# [Foundry Local](https://github.com/microsoft/Foundry-Local) ·
# [ONNX Runtime GenAI](https://onnxruntime.ai/docs/genai/) ·
# [Systems benchmarking crimes (Heiser)](https://gernot-heiser.org/benchmarking-crimes.html)
#
# **The same lab on a bigger model:** get a GGUF file with a chat template and run `labkit run 12 -p model PATH`. Fewer engines: `-p engines llamacpp,ollama`.
# What one copy takes in each format (GGUF at 4.5 bits a weight), and what the conversion takes (extrapolated from two small models):

# %%
from labkit.learn import onnx_rows

for row in onnx_rows.bigger_rows():
    gb = {key: value / 1e9 for key, value in row.items() if key.endswith("_bytes")}
    print(f"{row['model']}: {gb['gguf_bytes']:.2f} GB as GGUF, {gb['onnx_bytes']:.2f} GB as ONNX int4;")
    print(f"    in between {gb['folder_bytes']:.1f} GB on the disk, and about {gb['convert_bytes']:.0f} GB of memory")
