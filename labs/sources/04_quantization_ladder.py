# ---
# labkit:
#   title: Which rung of the ladder?
#   minutes: 45
#   memory_gb: 1.5
#   track: [shrink]
#   builds_on: [2]
#   expected:
#     - "stdlib-10m: KL divergence grows as the bits fall; TQ2_0 is far off the scale of all others"
#     - "by perplexity most neighbours are tied, by KL divergence most are told apart"
#     - "smollm2-135m: Q4_1 is closer to its 16-bit copy than Q5_1 and Q8_0, because the source is Q4_1; its Q4_K_M is mostly Q5_0"
#   transfer:
#     - "A colleague measured perplexity 12.1 for one file and 12.3 for another, on 2,000 tokens, and calls the first one better. What do you ask?"
#     - "You find a model on a hub as Q8_0 only, and need 4 bits. What do you expect from quantizing that file again, and what would you look for instead?"
#     - "A model has rows of 2,880 weights. Which quantization types will not be what their name says, and where do you look it up?"
#     - "Your server gets half the memory. Name the two ways to fit the model, and what you would measure before choosing between them."
#     - "A team checks each new rung by 50 questions of its own. How large must a loss be until they notice, and what would you add?"
# ---

# %% [markdown]
# # 04 · Which rung of the ladder?
#
# **The question this lab answers: how many bits does each weight of my model need, and which quantized file should I take?**
#
# It builds on lab 02 (bits per weight, memory, decode speed). About 45 minutes, 1.5 GB of memory, 1 GB of disk for the
# files, which stay in labkit's cache (`labkit cache --clean` removes them). Nothing is downloaded.
#
# A model's file can be written again with fewer bits for each weight. That is **quantization**. The formats make a ladder:
# at the top F16 with 16 bits a weight, at the bottom formats with about 2. Each rung down saves memory and loses something.
# You will climb two ladders, measure what is lost, and learn when a difference is large enough to count.

# %% tags=["parameters"]
model: str = "smollm2-135m"  # the second ladder: a catalogue name, or the path of a GGUF file
engine: str = "llamacpp"  # who answers; see labkit doctor
threads: int = 0  # 0: choose by measuring
seed: int = 1  # your own seed gives you your own exercise numbers
quick: bool = False  # True: fewer rungs and less text, for a fast check
results_path: str = "results.jsonl"  # results are appended here
budget_mb: int = 19  # memory that the first model may use, in MB

# %%
from labkit import models
from labkit.learn import ladder_plots, ladders
from labkit.learn import ladder_words as words
from labkit.learn.exercises import lab_04 as ex
from labkit.learn.lab import start

lab = start(
    "04_quantization_ladder", model=model, engine=engine, threads=threads, seed=seed, quick=quick, results_path=results_path
)

# %% [markdown]
# ## 1. What is in a rung
#
# Most formats store weights in **blocks**. A block has a few bits for each of its weights, and something that all of them share:
# a scale, in some formats also a smallest value. Q4_0 has blocks of 32 weights: 4 bits each, and a scale of 2 bytes. That
# makes 18 bytes, or 4.5 bits per weight.
#
# The formats with a `K` have blocks of 256 weights, cut into smaller groups; the scales of the groups are quantized themselves.
# `TQ2_0` knows only three values for a weight: minus one, zero and one, times a scale (**ternary**).

# %% tags=["nbval-check-output"]
for kind, weights, size, bits in ladders.block_table():
    print(f"{kind:6} {weights:4} weights in {size:4} bytes: {bits:g} bits per weight")

# %% [markdown]
# A *file* is rarely one format. Its small parts stay in 32 bits, and the names on a hub's page, such as `Q4_K_M`, are recipes:
# most matrices in one format, the sensitive ones in a better one. So read the true figure from the file.
#
# **Exercise 1.** A **tensor** is an array of numbers; a model's weights lie in some hundred of them, mostly matrices. A file's tensor table is a list
# of dictionaries with `name`, `type`, `shape` and `bytes`. `shape` is a tuple; it has one number where the tensor is a mere row. Complete the
# function: the true bits per weight of the whole file.

# %% tags=["exercise"] exercise="bits_per_weight"
import math


def bits_per_weight(tensors):
    """All bits of the tensors, divided by all their weights."""
    ### BEGIN SOLUTION
    weights = sum(math.prod(t["shape"]) for t in tensors)
    return 8 * sum(t["bytes"] for t in tensors) / weights
    ### END SOLUTION

# %% tags=["check"] exercise="bits_per_weight" points=2
ex.bits_per_weight.check(bits_per_weight, seed=seed)

# %% [markdown]
# Now the two models.
#
# - **`stdlib-10m`** is the course's own: 9.4 million weights, trained on the source of Python's standard library. It continues
#   Python code. Its file is true F16: the numbers that training gave, in 16 bits.
# - **Your `model`**, by default `smollm2-135m`. Its file is Q4_1: somebody quantized it before you got it. A 16-bit file made
#   from it holds 16-bit numbers, but they still lie on the 4-bit grid. It is a **dequantized** file, no original,
#   and it is called `F16-from-Q4_1` here.
#
# The next cell writes the files (about half a minute the first time) and reads what is in each.

# %%
import pandas as pd

small = models.resolve("stdlib-10m")
full, short = (ladders.QUICK_FULL, ladders.QUICK_SHORT) if quick else (ladders.FULL, ladders.SHORT)
small_files = lab.step("files stdlib-10m", lambda: ladders.contents_rows(small, full))
model_files = lab.step("files model", lambda: ladders.contents_rows(lab.model, short))
table = pd.DataFrame(small_files + model_files).assign(mb=lambda t: t["bytes"] / 1e6)
table[["model", "label", "mb", "bits_per_weight"]].round(2)

# %% [markdown]
# A block may not reach over the end of a row of the matrix. A K-quant's block has 256 weights, so it needs rows of a multiple of
# 256. `stdlib-10m` has rows of 512 and 768. SmolLM2's rows have 576 weights: there most K-quants are impossible, and llama.cpp
# **falls back** to another format without failing. Look at what the names really hold:

# %%
for row in small_files + model_files:
    if row["type"] in ("Q4_K_M", "Q4_0", "Q4_1"):
        print(words.told_contents(row))

# %% [markdown]
# ## 2. Perplexity, and its error
#
# How do we see what was lost? Let the model read a text that it was not trained on, and look at the probability that it gave to each
# token that really came next. Its logarithm is the **log-probability** of the token. **Perplexity** is
#
# > exp( − mean of the log-probabilities )
#
# A perplexity of 20 means: as unsure as somebody who picks one of 20 equally likely tokens. Lower is better.
#
# **Exercise 2.** Complete the function. `logprobs` is a list of natural logarithms. It may be long: the product of thousands of
# probabilities is too small for a computer's numbers.

# %% tags=["exercise"] exercise="perplexity"
import math


def perplexity(logprobs):
    """exp of minus the mean."""
    ### BEGIN SOLUTION
    return math.exp(-sum(logprobs) / len(logprobs))
    ### END SOLUTION

# %% tags=["check"] exercise="perplexity" points=2
ex.perplexity.check(perplexity, seed=seed)

# %% [markdown]
# **Predict.** `Q4_0` has less than a third of the bits of the 16-bit file. How many times as large as that of F16 will its perplexity be? (1 means
# no loss.)

# %%
my_guess_ratio = 1.20  # <- your number

# %% [markdown]
# Now climb. The text is source code that `stdlib-10m` has not seen in training. Every rung reads the same tokens.

# %%
tokens = 2048 if quick else 6144
small_rungs = lab.step("ladder stdlib-10m", lambda: ladders.rung_rows(small, full, tokens, lab.threads))
columns = ["label", "bits_per_weight", "perplexity", "perplexity_stderr", "kl_mean", "kl_stderr", "top1_agreement"]
pd.DataFrame(small_rungs)[columns].round(4)

# %%
caption = lab.caption("ladder stdlib-10m") + words.told_cached(small_rungs)
fig = ladder_plots.draw({"stdlib-10m": small_rungs}, caption, figures=["perplexity"])
ladder_plots.mark_ratio(fig.axes[0], small_rungs, "Q4_0", my_guess_ratio)
assert fig.axes[0].lines
print(words.told_ratio(small_rungs, "Q4_0", my_guess_ratio))
print(words.told_ties(small_rungs, "perplexity"))

# %% [markdown]
# A vertical bar is a **95 % interval**: the standard error times 1.96, up and down. It comes from the text. Some tokens are easy, some are
# hard, and with another text the mean would have been another. Two rungs whose difference is smaller than the error of a difference
# are **tied**: this measurement does not say which is better. (Tokens of one text resemble each other, so the true error
# is rather a little larger than the bar.)
#
# The bars are long because tokens differ so much. That part is the same for all rungs, since all read the same tokens. The last sentence of
# the ratio compares the two files token by token, so that the common part cancels. `labkit ladder` finds its ties in that way.
#
# A triangle at the top is a rung that is off the scale.
#
# ## 3. KL divergence: compare with the original, token by token
#
# There is a better question than "how well does the rung predict the text?": **how far is it from the file it was made from?** Both
# files read the same text. At every position each gives a probability to every token of the vocabulary: `p` the reference, `q` the
# rung. The **Kullback–Leibler divergence** of the two is
#
# > the sum over the vocabulary of p × (log p − log q)
#
# It is 0 when both agree, and it grows with every difference. The luck of the text concerns both files alike, so most of it cancels, and
# the bars become short. The unit, with natural logarithms, is the **nat**.
#
# **Exercise 3.** Complete the function for one position. `reference` and `other` are NumPy arrays of **logits**: the scores from
# which softmax makes probabilities (lab 00). Logits may be large, and exp(1000) overflows: subtract the maximum first.

# %% tags=["exercise"] exercise="kl_divergence"
import numpy as np


def kl_divergence(reference, other):
    """Sum of p * (log p - log q), in nats: p from the reference's logits, q from the other's."""
    ### BEGIN SOLUTION
    log_p, log_q = reference - reference.max(), other - other.max()
    log_p, log_q = log_p - np.log(np.exp(log_p).sum()), log_q - np.log(np.exp(log_q).sum())
    return float((np.exp(log_p) * (log_p - log_q)).sum())
    ### END SOLUTION

# %% tags=["check"] exercise="kl_divergence" points=3
ex.kl_divergence.check(kl_divergence, seed=seed)

# %% [markdown]
# **Predict.** Which rung is the smallest whose divergence from F16 stays below 0.01? Write one of the names from the table in section 1.

# %%
my_guess_rung = "Q4_0"  # <- your rung

# %%
limit = 0.01
fig = ladder_plots.draw({"stdlib-10m": small_rungs}, caption, figures=["kl_mean"])
ladder_plots.mark_limit(fig.axes[0], limit, small_rungs, my_guess_rung)
assert fig.axes[0].lines
print(words.told_within(small_rungs, limit, my_guess_rung))
print(words.told_ties(small_rungs, "kl_mean"))

# %% [markdown]
# The same text, the same files: count the ties again. The scale is logarithmic: each line down is ten times closer to the original.
# (Most bars are so short that the dots hide them. F16 itself is not drawn: its divergence from itself is 0, which has no place on such a scale.)
# A column of the table that is easier to imagine is `top1_agreement`: at which share of the positions do both files put the same token
# first?
#
# Where two rungs have about the same number of bits, compare them: a smallest value beside the scale (`_1`), or scales for small groups (`K`),
# use the same bits differently. Lab 05 opens the blocks and shows why.
#
# ## 4. The second ladder: where did the file come from?
#
# Now your own model. It is larger, so this ladder has fewer rungs and reads less text. The reference is its 16-bit copy.
#
# **Predict** before you run it: the file of `smollm2-135m` is Q4_1. Which of Q8_0 (8.5 bits), Q5_1 (6 bits) and Q4_1 (5 bits) will be
# closest to the 16-bit copy?

# %%
closest = "Q8_0"  # <- your rung
few = 512 if quick else 1024
model_rungs = lab.step("ladder model", lambda: ladders.rung_rows(lab.model, short, few, lab.threads))
pd.DataFrame(model_rungs)[columns].round(5)

# %%
both = {"stdlib-10m": small_rungs, model_rungs[0]["model"]: model_rungs}
steps = ("ladder stdlib-10m", "ladder model")
fig = ladder_plots.draw(both, lab.caption(*steps) + words.told_cached(small_rungs, model_rungs), figures=["kl_mean"])
ladder_plots.mark_rung(fig.axes[1], model_rungs, closest)
assert all(ax.lines for ax in fig.axes)
print(words.told_closest(model_rungs, closest))
print(words.told_inversions(model_rungs))
print(words.told_floor(model_rungs))

# %% [markdown]
# If your model is `smollm2-135m`, its curve does not fall with the bits. Nothing is wrong with the measurement. All weights of the 16-bit copy
# already lie on Q4_1's grid, so writing them as Q4_1 does not move them. Q8_0 has more bits, but *its* grid points lie elsewhere: every
# weight moves a little. Q5_1 has a grid of 32 steps where the source has 16; the two do not coincide either.
#
# And why is the divergence not 0 where no weight has moved? A product has two factors. When the weights are quantized, llama.cpp rounds
# the other factor (the intermediate results) to 8 bits as well, because whole numbers multiply fast. So the arithmetic alone costs
# a little, on every quantized rung.
#
# Three things follow.
#
# 1. **The source decides.** A ladder that starts at a quantized file shows the distance from that file. What was lost
#    before, it cannot see. More bits bring nothing back.
# 2. **Quantize once, from the original.** Look for the F16, BF16 or safetensors file.
# 3. **The width decides.** What is called Q4_K_M here is mostly something else, as you saw in section 1.
#
# If your model's file has 16 bits, its curve falls as that of `stdlib-10m`.
#
# ## 5. Memory and speed
#
# The reason for all this is memory and speed. labkit loads each file in a fresh process and reads how much it grew; then it measures
# decode in turn: each round runs every file once, so that a busy moment of the machine hits all alike. (Speed is measured now, in any case; it
# never comes from the cache.)

# %%
rounds = 1 if quick else 3
small_memory = lab.step("memory stdlib-10m", lambda: ladders.memory_rows(small, full, lab.threads))
model_memory = lab.step("memory model", lambda: ladders.memory_rows(lab.model, short, lab.threads))
small_speed = lab.step("speed stdlib-10m", lambda: ladders.speed_rows(small, full, lab.threads, rounds))
model_speed = lab.step("speed model", lambda: ladders.speed_rows(lab.model, short, lab.threads, rounds))
small_all = ladders.with_context(ladders.joined(small_rungs, small_memory, small_speed), 512)
model_all = ladders.with_context(ladders.joined(model_rungs, model_memory, model_speed), 512)
ladders.speed_table(small_all + model_all)

# %% [markdown]
# Now everything in one picture, both ladders side by side. The colour is the speed. The black line is the **Pareto front**: the
# rungs that no other beats in both directions, fewer bits and smaller loss. (The 16-bit file always belongs to it; the KL panels cannot show
# its 0.) A rung above the line is beaten. But look at the grey links
# first: where they join two rungs, the front may run through the other one next time.

# %%
both = {"stdlib-10m": small_all, model_all[0]["model"]: model_all}
cached = words.told_cached(small_rungs, model_rungs)
fig = ladder_plots.draw(both, lab.caption() + cached, front=True)
assert len(fig.axes) >= 4
for name, rows in both.items():
    print(name + ":", words.told_front(rows))

# %% [markdown]
# Three things are worth a look. Speed does not simply follow the size: a small model fits into the processor's own cache, and a format that is
# hard to unpack costs more arithmetic than it saves reading. Memory does not either: a Q4_0 file may take twice its size, because llama.cpp keeps a
# second, rearranged copy (lab 02). And the front ends somewhere: below it a smaller file is bought with a loss that is no longer small.
#
# ## 6. A budget in, a rung out
#
# Move the sliders; the model is `stdlib-10m`. Memory is the measured one, plus the KV cache for the context that you ask for (lab 02). The
# filled bar is the rung to take. Hatched bars are tied with it in quality. Three things to try:
#
# - Leave the budget, and let the context grow. What happens to the choice?
# - Find a budget at which a bar is hatched. (The full ladder has such a pair; a quick run may not.)
# - Go down until one rung is left. The rule still says "take it". Look at its divergence: what fits is not yet good enough.
#
# (Not your own `model`: where its file was quantized before, the "16-bit" reference is a dequantized copy, and with enough memory the rule would
# choose it, though it holds nothing that the smaller source has not.)

# %%
from labkit.learn.widgets import explore

low, high, step = ladder_plots.budgets(small_all, (512, 8192))


def draw(budget, context):
    return ladder_plots.draw_choice(small_all, budget, context, lab.caption())


box = explore(draw, budget=(low, high, step), context=(512, 8192, 512))

# %% [markdown]
# The rule behind it: of the rungs that fit, find the one with the lowest divergence; of those tied with it, take the smallest.
#
# **Exercise 4.** Complete the function. `rungs` is a list of dictionaries with `type`, `memory_mb`, `kl` and `error` (half of
# the 95 % interval). Two rungs are tied if their `kl` differ by at most the square root of the sum of their squared errors.
# A rung fits if it needs at most `budget_mb`. Return the type of the rung to take, or `"none"` if none fits.

# %% tags=["exercise"] exercise="choose_rung"
import math


def choose_rung(rungs, budget_mb):
    """Type of the smallest rung that is tied with the best one that fits, or "none"."""
    ### BEGIN SOLUTION
    fits = [r for r in rungs if r["memory_mb"] <= budget_mb]
    if not fits:
        return "none"
    best = min(fits, key=lambda r: r["kl"])
    tied = [r for r in fits if abs(r["kl"] - best["kl"]) <= math.hypot(r["error"], best["error"])]
    return min(tied, key=lambda r: r["memory_mb"])["type"]
    ### END SOLUTION

# %% tags=["check"] exercise="choose_rung" points=4
ex.choose_rung.check(choose_rung, seed=seed)

# %% [markdown]
# The same choice with labkit, for the budget in the parameters cell:

# %%
print(words.told_choice(small_all, budget_mb))

# %% [markdown]
# ## 7. But does it still answer right?
#
# A divergence is no task. So ask questions with four possible continuations, and count how often the right one gets the highest
# probability. The course's own set has a group for each model: completions of Python code, and simple English sentences.
# Chance is 25 %.
#
# With few questions a share is uncertain. **Wilson's interval** says how uncertain: it holds the shares that would not be surprised by
# what we counted.

# %%
shares = lab.step("choices", lambda: ladders.asked_rows(small, lab.model, lab.threads, quick))
fig = ladder_plots.draw_shares(shares, lab.caption("choices"))
assert len(fig.axes[0].lines) >= len(shares)
for group in ("python", "english"):
    print(f"-- {group}\n" + words.told_shares([row for row in shares if row["group"] == group]))

# %% [markdown]
# That is the trap of small tests: they can show a collapse, and hardly anything else. The divergence saw the same files with
# thousands of positions, and with the whole vocabulary at each. Use questions to find out whether the model is good enough
# for your task, with hundreds of them; use the divergence to compare rungs. The divergence in turn says how much has changed, not
# whether the change hurts: among rungs that are all close to the original, only the task itself can tell.
#
# ## 8. What people say
#
# Statements from published material, with what your own figures say about each (`data/claims.toml` has the sources).

# %%
from labkit.facts import quantization as said

every = small_all + model_all
checked = [said.four_bits(model_files + small_files), said.lossless(every), said.more_bits(model_rungs)]
checked += [said.four_times_as_fast(small_speed + model_speed), said.ternary(small_rungs)]
pd.set_option("display.max_colwidth", None)
pd.DataFrame([{"they say": c["says"], "result": said.in_words(c), "why": c["why"]} for c in checked])

# %% [markdown]
# ## To remember
#
# 1. A rung's name is a recipe. Read the true bits per weight, and the tensor types, from the file.
# 2. Compare rungs by KL divergence against the file they were made from, with its interval. What is within the error is tied: take the smaller.
# 3. The source decides: quantize once, from the original. More bits than the source had bring nothing back.
#
# **In production:** keep the reference file and its checksum, and measure the divergence on *your* text before you roll a smaller rung out; the loss
# differs from model to model, and small models lose more. Then run your task's own test with enough questions (lab 14).
#
# **Read more:** [llama.cpp's quantize tool](https://github.com/ggml-org/llama.cpp/blob/master/tools/quantize/README.md) ·
# [its perplexity tool, with KL divergence](https://github.com/ggml-org/llama.cpp/blob/master/tools/perplexity/README.md) ·
# [Dutta et al.: Accuracy is Not All You Need (2024)](https://arxiv.org/abs/2407.09141) ·
# [Nikolić et al.: Displacement Is Not Direction (2026)](https://arxiv.org/abs/2606.19558)
#
# **The same lab on a bigger model:** get a GGUF file, at best with 16 bits, and run `labkit run 04 -p model PATH`. The lab writes six
# more files of it into the cache. What to expect:

# %%
from labkit.models import catalog, footprint, shape

for name in ("qwen3-0.6b", "gemma3-1b", "phi-4-mini"):
    plan = shape.header(catalog.get(name), "F16")
    need = footprint.predict(plan, context=512).total_bytes
    print(f"{name}: download {plan.tensor_bytes / 1e9:.1f} GB (F16), {3.2 * plan.tensor_bytes / 1e9:.0f} GB of disk for all, memory {need / 1e9:.1f} GB")
