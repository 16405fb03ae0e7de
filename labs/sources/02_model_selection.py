# ---
# labkit:
#   title: Which model fits?
#   minutes: 40
#   memory_gb: 1.7
#   track: [run]
#   builds_on: [0, 1]
#   expected:
#     - "memory: the arithmetic is within 10 % of the measurement for every model and context"
#     - "decode: measured rates reach 20 to 100 % of the memory ceiling; small models stay further below it"
#     - "the mixture of experts decodes faster than a dense model with the same total of weights"
#   transfer:
#     - "Your application needs a context of 32,000 tokens instead of 4,000. Which part of the memory grows, and which model of the catalogue suffers least?"
#     - "A colleague says: the file is 2 GB, so 2.5 GB of memory is enough. What do you ask before you agree?"
#     - "Two models have 1.3 billion weights; one is a mixture of experts. Which differences do you expect in memory, in decode speed and in prefill speed?"
#     - "The same laptop gets memory that is twice as fast. Which of this lab's figures double, and which do not?"
#     - "A published table gives 62 for one model and 60 for another, from two teams. What would you do before choosing by it?"
# ---

# %% [markdown]
# # 02 · Which model fits?
#
# **The question this lab answers: out of dozens of small models, which one fits my memory, my speed, my licence, and is good enough?**
#
# It builds on labs 00 (token, context, KV cache) and 01 (prefill, decode, tokens per second).
# About 40 minutes, 1.7 GB of memory. Nothing is downloaded. Step 4 writes files of up to 0.9 GB into the temporary folder
# and deletes each one after its measurement.
#
# You will work the sum out first, measure afterwards, and look at the difference. All sizes are in MB (a million bytes) and GB (1,000 MB).

# %% tags=["parameters"]
model: str = "smollm2-135m"  # catalogue name, or the path of a GGUF file
engine: str = "llamacpp"  # who answers; see labkit doctor
threads: int = 0  # 0: choose by measuring
seed: int = 1  # your own seed gives you your own exercise numbers
quick: bool = False  # True: fewer contexts and families, for a fast check
results_path: str = "results.jsonl"  # results are appended here
memory_budget_gb: float = 4.0  # what your model may use, in GB

# %%
from labkit.learn import plots, sizing
from labkit.learn.exercises import lab_02 as ex
from labkit.learn.lab import start

lab = start(
    "02_model_selection", model=model, engine=engine, threads=threads, seed=seed, quick=quick, results_path=results_path
)

# %% [markdown]
# ## 1. The field
#
# People sort small language models by their number of **parameters** (also called weights): the numbers that training found.
#
# - **micro**: 0.1 to 1.4 billion. Runs anywhere. Good for one narrow task.
# - **small**: 1.5 to 13.9 billion. A laptop's size, the upper half with patience.
# - **medium**: 14 to about 30 billion. A workstation, or one GPU.
#
# The table is the course's catalogue. Each row's source and date are in `data/models.toml`.
# `Q4_0` is a common way to store a weight in 4.5 bits. `KV` is what one token of context costs in the **KV cache** (lab 00).
# `window` is a **sliding window**: most layers of such a model look back only so many tokens, so beyond that the cost per
# token falls to a fraction. `active` differs from `parameters` for a **mixture of experts**: a model that uses only some of
# its weights for each token.

# %%
import pandas as pd

pd.set_option("display.max_colwidth", None)
table = pd.DataFrame(sizing.classes()).set_index("model")
table

# %% [markdown]
# Look at two things. Models of the same size can differ tenfold in KV cache per token.
# And the licence column is not decoration: it may forbid what you plan.
#
# ## 2. The weights
#
# A file's size is *weights × bits per weight ÷ 8*. A 16-bit format (F16, BF16) uses 16 bits. Q4_0 keeps 32 weights in a
# block of 18 bytes: 16 bytes for 32 numbers of 4 bits, and 2 bytes for their common scale. That makes 18 × 8 ÷ 32 = 4.5 bits.
#
# **Exercise 1.** Complete the function: the bytes of a model's weights.

# %% tags=["exercise"] exercise="weights_bytes"
def weights_bytes(parameters, bits_per_weight):
    """Bytes that the weights take in a file."""
    ### BEGIN SOLUTION
    return parameters * bits_per_weight / 8
    ### END SOLUTION

# %% tags=["check"] exercise="weights_bytes" points=1
ex.weights_bytes.check(weights_bytes, seed=seed)

# %% [markdown]
# The next cell does the same sum for Phi-4-mini from its published shape, in three formats.
# You have perhaps read that it runs "in production on a GPU of 4 to 6 GB, at full precision" (16 bits: BF16).

# %% tags=["nbval-check-output"]
from labkit.models import catalog, footprint, shape

phi = catalog.get("phi-4-mini")
for kind in ("BF16", "Q8_0", "Q4_0"):
    print(kind, round(shape.header(phi, kind).tensor_bytes / 1e9, 2), "GB")

# %% [markdown]
# So at full precision the weights alone exceed it. Q8_0 fits into 6 GB only with a short context, Q4_0 with a longer one.
#
# ## 3. The KV cache, and what the sum forgets
#
# A model is a stack of **layers**; a token passes through all of them. In each layer it looks back at the earlier tokens
# through several **heads**, and each head works with a short list of numbers, `head_dim` of them. (The default model: 30 layers,
# 3 key/value heads, 64 numbers each.)
#
# While a model reads and writes, every layer keeps two lists of numbers for every token: a **key** and a **value**.
# Without them it would have to read the whole text again for each new token. That store is the KV cache.
#
# One token adds, in each layer, `kv_heads × head_dim` numbers for the key and as many for the value.
# Modern models share one key/value head among several attention heads (**grouped-query attention**), which makes the cache
# smaller; so it is the number of *KV* heads that counts.
#
# **Exercise 2.** Complete the function. `bits` is 16 for an f16 cache.

# %% tags=["exercise"] exercise="kv_bytes_per_token"
def kv_bytes_per_token(layers, kv_heads, head_dim, bits):
    """Bytes that one more token adds to the KV cache."""
    ### BEGIN SOLUTION
    return 2 * layers * kv_heads * head_dim * bits / 8
    ### END SOLUTION

# %% tags=["check"] exercise="kv_bytes_per_token" points=2
ex.kv_bytes_per_token.check(kv_bytes_per_token, seed=seed)

# %% [markdown]
# **Predict.** How much memory will your model take with a context of 2048 tokens, in MB? Write down a number before you go on.
# (The default model's weights have 97 MB: its file mixes formats of 5 and 8.5 bits, so it is larger than in the table.
# A wrong guess costs nothing: it is drawn beside the measurement.)

# %%
my_guess_mb = 150  # <- your number

# %% [markdown]
# Now measure. For each row labkit starts a fresh process, loads the model, lets it read a short prompt in one step
# of 64 tokens, and reads how much the process grew. The figure is its **resident set**: every page of memory that the process holds, including the pages of
# the model's file that it has read.
#
# The prediction has three parts: **weights**, **KV cache**, and **compute**: room for the intermediate results of one step,
# one score for each token of the vocabulary, and the library's own tables.

# %%
contexts = [512, 2048, 8192]
cases = [(context, kv) for context in contexts for kv in ("f16", "q8_0")][: 3 if quick else 6]
rows = lab.step("memory", lambda: sizing.memory_rows(lab.session.model, cases, lab.session.threads))
fig = sizing.draw_residual(rows, lab.caption())
ax = fig.axes[0]
ax.axhline(my_guess_mb, color=plots.RED, ls=":", label="your guess for 2048 tokens, f16")
ax.legend(frameon=False)
assert len(ax.patches) == 2 * len(rows)

# %% [markdown]
# The number above each pair is prediction ÷ measurement. It is not exactly 1, and that is worth a look:
#
# - the arithmetic gives every model the same allowance for the library's own tables and buffers, a real one needs a little more or less;
# - memory comes in pages, and a page counts when it is touched: a buffer that is reserved and never used costs nothing
#   (the KV cache is cleared when it is made, so all of it is touched at once, even when the text is short);
# - the f16 and q8_0 columns differ only in the cache: q8_0 keeps a number in 8.5 bits instead of 16.
#
# The next table shows the parts, in MB. Which part grows with the context? Which does not?

# %%
columns = ["weights_bytes", "kv_cache_bytes", "compute_bytes", "total_bytes", "measured_bytes"]
parts = pd.DataFrame(rows).set_index("name")[columns] / 1e6
parts.columns = [name.removesuffix("_bytes").replace("_", " ") + " (MB)" for name in columns]
parts.assign(residual=lambda t: t["measured (MB)"] - t["total (MB)"]).round(1)

# %% [markdown]
# ## 4. Other families, without their downloads
#
# Does the arithmetic hold for models that you do not have? Memory and speed depend on the *shape* of a model (how many layers,
# how wide, which format), not on what its weights say. So labkit can write a **shape-true model**: a file with a family's
# real architecture and shape, filled with random weights. Its memory and speed on your machine are real. Its text would mean nothing.
#
# The families are chosen to differ: Gemma 3 has a vocabulary of 262,144 tokens and a **sliding window** (most layers look back
# only 512 tokens); Granite 1B-A400M is a mixture of experts (a quick run leaves it out).
# The black tick is the size of the weights in the file.

# %%
families = sizing.FAMILIES[:2] if quick else sizing.FAMILIES
family_rows = lab.step("families", lambda: sizing.family_rows(families, lab.session.threads))
fig = sizing.draw_residual(family_rows, lab.caption())
assert len(fig.axes[0].patches) == 2 * len(family_rows)

# %% [markdown]
# Some models take about *twice* the size of their file. That is no error. On many processors llama.cpp keeps a second copy of
# some formats (Q4_0 among them), rearranged so that the processor can multiply eight rows at once: a **repacked** copy.
# The first copy is the file itself, mapped into memory; the system may drop its pages when memory gets tight.
# Q8_0 and Q5_0 are used as they are on a PC, so those models take what their file says.

# %%
shown = pd.DataFrame(family_rows).set_index("name")
view = shown[["file_bytes", "repacked_bytes", "kv_cache_bytes", "compute_bytes", "measured_bytes"]] / 1e6
view.columns = [name.removesuffix("_bytes").replace("_", " ") + " (MB)" for name in view.columns]
view.insert(0, "type", shown["type"])
view.round(1)

# %% [markdown]
# ## 5. The speed limit
#
# To write one token, the processor must read every weight once. A model is too large for the processor's own small cache,
# so decode cannot be faster than
#
# > memory bandwidth (bytes per second) ÷ bytes read per token
#
# This ceiling is one side of the **roofline** model; the other side is how fast the processor can calculate, which limits
# prefill. First measure how fast this machine reads memory.

# %%
from labkit.measure import bandwidth

found = lab.step("bandwidth", lambda: [bandwidth.read_bandwidth(lab.session.threads)._asdict()])[0]
print(f"{found['median'] / 1e9:.1f} GB/s, 95 % interval {found['low'] / 1e9:.1f} to {found['high'] / 1e9:.1f}, n={found['n']}")

# %% [markdown]
# **Exercise 3.** Complete the function. Careful: a mixture of experts reads only its *active* share for one token,
# and every token also reads the KV cache so far.

# %% tags=["exercise"] exercise="decode_ceiling"
def decode_ceiling(bandwidth_bytes_per_s, stored_bytes, active_share, kv_cache_bytes):
    """Tokens per second at most.

    stored_bytes: all weights, without the cache. active_share: 1.0 for a dense model, less for a mixture of experts.
    """
    ### BEGIN SOLUTION
    return bandwidth_bytes_per_s / (stored_bytes * active_share + kv_cache_bytes)
    ### END SOLUTION

# %% tags=["check"] exercise="decode_ceiling" points=2
ex.decode_ceiling.check(decode_ceiling, seed=seed)

# %%
fig = sizing.draw_roofline(family_rows, found, lab.caption())
assert len(fig.axes[0].lines) == 2

# %% [markdown]
# The line leaves out the KV cache, which is short here; the band is the interval of the bandwidth. Points usually lie below
# the line, because a real processor must also unpack and multiply what it reads. How far below says what
# limits a model here: near the line the memory does, far below the arithmetic does. Very small models, unusual formats and
# huge vocabularies stay further below.
#
# Look at the mixture of experts (in a full run). It *stores* more than a billion weights, and *reads* 0.4 billion for a token:
# it costs the memory of the large model and is limited like a small one.

# %%
shares = [r["decode_tokens_per_s"] * r["active_bytes"] / found["median"] for r in family_rows]
efficiency = float(pd.Series(shares).median())
print(f"median share of the ceiling reached here: {efficiency:.0%} (n={len(shares)}, {lab.source})")

# %% [markdown]
# ## 6. Look around
#
# Move the sliders. How does the picture change from 2,000 to 32,000 tokens? Which model hardly minds, and why?
# (These bars are computed, not measured: you have just seen how well the arithmetic holds.)

# %%
from labkit.learn.widgets import explore

names = ["qwen3-0.6b", "gemma3-1b", "llama3.2-1b", "qwen3-4b", "phi-4-mini", "gemma3-4b"]


def draw(context_k, kv):
    return sizing.draw_footprints(context_k * 1024, kv, names, "computed from each model's shape", memory_budget_gb)


box = explore(draw, context_k=(2, 32, 2), kv=["f16", "q8_0"])

# %% [markdown]
# In this picture Gemma 3 minds the context least: of its layers only every sixth looks back over the whole text.
#
# ## 7. Choose
#
# Now all limits together. Memory and speed are computed for *this* machine: speed is the ceiling times the share that you
# measured. Quality is published, not measured: a score on MMLU, a test of school and university questions (chance is 25).
# The teams ran it in different ways, so a few points of difference mean nothing.
#
# Only models with a published MMLU score are shown. Their memory counts both copies of a repacked format; under pressure the
# system could give back about one file's size. Speed is rough for the larger ones, since your share comes from small models.
# BitNet is sized at TQ2_0, about 2 bits a weight, because it was trained for that.
#
# The **Pareto front** joins the models that no other beats in both memory and quality. Everything off the front is beaten.
# (Speed is not in this picture; it is in the table below.)

# %%
rows_all = sizing.candidates(found["median"], efficiency, context=4096)
fig, ax = plots.figure(f"memory and speed computed, {lab.caption()}; quality published", width=8.5, height=5)
front = plots.pareto(ax, rows_all, "memory_gb", "quality", "memory with 4,096 tokens of context, in GB", "MMLU, published (%)")
ax.axvline(memory_budget_gb, color=plots.RED, ls="--", label="your budget")
ax.legend(frameon=False, loc="lower right")
print("front:", ", ".join(front))
assert ax.lines

# %%
columns = ["name", "type", "memory_gb", "tokens_per_s", "quality", "benchmark", "context", "licence"]
pd.DataFrame(rows_all)[columns].sort_values("memory_gb").round(2)

# %% [markdown]
# **Exercise 4.** Complete the function that chooses. It gets rows (dictionaries) and limits, and returns the *name* of the best
# allowed model by `quality`. A row is allowed if it needs at most `memory_gb`, offers at least `context`, reaches at least
# `tokens_per_s`, and its licence is one of `licences`. Return `"none"` if nothing is allowed: no model is an answer too.

# %% tags=["exercise"] exercise="choose"
def choose(rows, memory_gb, context, tokens_per_s, licences):
    """Name of the best allowed model, or "none"."""
    ### BEGIN SOLUTION
    fits = [r for r in rows if r["memory_gb"] <= memory_gb and r["context"] >= context]
    fits = [r for r in fits if r["tokens_per_s"] >= tokens_per_s and r["licence"] in licences]
    return max(fits, key=lambda r: r["quality"])["name"] if fits else "none"
    ### END SOLUTION

# %% tags=["check"] exercise="choose" points=3
ex.choose.check(choose, seed=seed)

# %% [markdown]
# The same choice with labkit, for an application that wants 8,000 tokens of context, at least 5 tokens per second, and a
# licence without conditions on use. Change the limits and run it again.

# %%
rows_8k = sizing.candidates(found["median"], efficiency, context=8000)
fits = sizing.allowed(rows_8k, memory_budget_gb, context=8000, licences=("Apache-2.0", "MIT"), tokens_per_s=5)
pd.DataFrame(fits, columns=["name", "memory_gb", "tokens_per_s", "quality", "licence"]).sort_values("quality").round(2)

# %% [markdown]
# ## 8. What people say
#
# Four statements from published material. The course keeps a ledger of such statements with the truth and its source
# (`data/claims.toml`). The column *result* says what your own figures say about each: the first two rows are computed from
# shapes, the other two use what you measured above.

# %%
from labkit.facts import claims

header = sizing.header_of(lab)
f16_rows = [r for r in rows if r["kv"] == "f16"]
checked = [claims.savings(), claims.phi_on_a_small_gpu()]
checked += [claims.size_times_two(header, f16_rows, factor=claims.rule_factor(header)), claims.tokens_per_second(family_rows)]
pd.DataFrame([{"they say": c["says"], "result": claims.in_words(c), "why": c["why"]} for c in checked])

# %% [markdown]
# ## To remember
#
# 1. Memory = weights + KV cache + compute. The file's size is only the first part, and some formats are held twice.
# 2. The context decides how much the KV cache takes; layers, KV heads and sliding windows decide its price per token.
# 3. Decode is limited by bandwidth ÷ bytes read per token. Total weights decide memory, *active* weights decide speed.
#
# **In production:** set a container's memory limit from the footprint at the longest context that you allow, times the number of
# parallel requests. Lab 21 does that on a real cluster.
#
# **Read more:** [the GGUF format](https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) ·
# [Williams, Waterman, Patterson: Roofline (2009)](https://doi.org/10.1145/1498765.1498785) ·
# [Ainslie et al.: grouped-query attention (2023)](https://arxiv.org/abs/2305.13245)
#
# **The same lab on a bigger model:** get a GGUF file and pass its path, in a terminal: `labkit run 02 -p model PATH`.
# What to expect (published Q4_0 files keep some parts in more bits, so they are a little larger):

# %%
bigger = {name: shape.header(catalog.get(name), "Q4_0") for name in ("qwen3-0.6b", "gemma3-1b", "phi-4-mini")}
for name, plan in bigger.items():
    need = footprint.predict(plan, context=8192)
    print(f"{name}: download about {plan.tensor_bytes / 1e9:.2f} GB, memory {need.total_bytes / 1e9:.2f} GB with 8,192 tokens")
