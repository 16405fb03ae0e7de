# ---
# labkit:
#   title: Three values a weight?
#   minutes: 40
#   memory_gb: 1.5
#   track: [shrink]
#   builds_on: [2, 4]
#   expected:
#     - "TQ2_0 and TQ1_0 made from a finished model: perplexity many times that of the 16-bit file; the two hold the same weights"
#     - "trained in: within 10 % of the full-precision loss; made ternary afterwards: a third or more above both after a full run"
#     - "the exported model gives the same predictions in llama.cpp as in torch: KL divergence far below 0.01"
#   transfer:
#     - "A hub offers a TQ2_0 file of a model that was published in 16 bits, half the size of Q4_0. What do you ask before you download it?"
#     - "Your team wants to train in ternary weights to save memory in training. Why does that not follow from what you saw?"
#     - "A vendor says that ternary weights cut the energy by a factor of 70. Which part of the energy is meant, and what would you measure?"
#     - "A trained-in ternary model is 10 % worse in loss than a full-precision one of the same shape. How could it still be the better choice for a phone?"
#     - "Someone quantizes a trained-in ternary model to Q4_0. What happens to the quality, what to the size, and why would one do that at all?"
# ---

# %% [markdown]
# # 06 · Three values a weight?
#
# **The question this lab answers: can a model work with weights that are only -1, 0 or +1, and why must it be trained that way?**
#
# It builds on lab 02 (bits per weight) and lab 04 (perplexity, KL divergence). About 40 minutes, 1.5 GB of memory.
# Nothing is downloaded.
#
# Microsoft's **BitNet b1.58** models have **ternary** weights: each is one of three values, times a scale that a whole
# matrix shares. You will see what happens when such values are forced on a finished model, train a small model that has them from
# its first step, and run your own ternary model in llama.cpp.
#
# Training needs PyTorch (`make run SET=all`). Without it this lab shows the recording of those steps, and says so.

# %% tags=["parameters"]
model: str = "stdlib-10m"  # the model to make ternary: catalogue name, or the path of a GGUF file
engine: str = "llamacpp"  # who answers; see labkit doctor
threads: int = 0  # 0: all cores
seed: int = 1  # your own seed gives you your own exercise numbers
quick: bool = False  # True: one model, one seed and few training steps, for a fast check
results_path: str = "results.jsonl"  # results are appended here

# %%
from labkit.learn import plots, ternary_view
from labkit.learn.exercises import lab_06 as ex
from labkit.learn.lab import start

where = {"model": model, "engine": engine, "threads": threads, "results_path": results_path}
lab = start("06_ternary_bitnet", **where, seed=seed, quick=quick, load=False)

# %% [markdown]
# ## 1. A finished model, made ternary
#
# The simplest idea first: take a finished model and round its weights. llama.cpp has two formats for that, **TQ1_0** and **TQ2_0**.
# Both keep 256 weights as -1, 0 or +1, with one scale for the 256. (How many bits that takes is section 3.)
#
# `stdlib-10m` is the course's own small model: it continues Python code. Its file has 16 bits a weight.
#
# **Predict.** In lab 04, Q4_0 cost the model nothing that could be measured in perplexity. (Perplexity says among how many tokens the model is as unsure as in a fair
# draw: less is better.) How many times that of the 16-bit file will the perplexity be as TQ2_0? A wrong guess costs nothing: it is
# drawn beside the measurement.

# %%
my_guess_times = 1.5  # <- your number

# %%
names = [model] if quick else [model, "smollm2-135m"]
rows = lab.step("collapse", lambda: ternary_view.collapse_rows(names, 512, lab.threads), needs="llamacpp")
fig = ternary_view.draw_collapse(rows, my_guess_times, lab.caption("collapse"))
assert len(fig.axes[0].patches) == len(rows)

# %%
import numpy as np
import pandas as pd

columns = ["bits_per_weight", "ternary_share", "perplexity", "kl_mean", "top1_agreement"]
pd.DataFrame(rows).set_index(["model", "type"])[columns].round(3)

# %% [markdown]
# The model is not a little worse: most of it is gone. `top1_agreement` is the share of places where the file still prefers the same token as the
# 16-bit one. (512 tokens of text tell no small differences. These are not small. Lab 04 read more text, so its values are others; compare only
# within a table.)
#
# The full run adds SmolLM2. Its perplexity ends far above 49,152, the size of its vocabulary: worse than drawing a token blindly. And that
# although only a fifth of its weights became ternary.
#
# TQ1_0 and TQ2_0 agree, because they hold the same three values and differ only in how they pack them.
# `ternary_share` is less than 1, because llama.cpp keeps some matrices (the table of the tokens among them) in more bits, and so it does with
# those whose rows are no multiple of 256, such as most of SmolLM2's.
#
# ## 2. What rounding to three values does
#
# BitNet b1.58 makes a matrix ternary by **absmean**: the scale is the mean of the weights' magnitudes; each weight
# is divided by it, rounded, and cut off at -1 and +1.
#
# **Exercise 1.** Complete the function. (`np.clip` cuts off. The matrix is a NumPy array; `numpy` is there as `np`.)

# %% tags=["exercise"] exercise="ternarise"
import numpy as np


def ternarise(weights):
    """(matrix of -1, 0 and 1, scale) of a matrix, by absmean; one scale for all of it."""
    ### BEGIN SOLUTION
    scale = np.abs(weights).mean()
    return np.clip(np.round(weights / scale), -1, 1), scale
    ### END SOLUTION

# %% tags=["check"] exercise="ternarise" points=3
ex.ternarise.check(ternarise, seed=seed)

# %% [markdown]
# Look at a real matrix, from the first model's second layer. The widget shows what each weight becomes. Both controls are in
# units of the mean magnitude: `scale` is the value that +1 stands for, and weights below `threshold` become 0. The number on top is the
# error: the size of what was lost, relative to the size of the weights. Try these:
#
# - absmean: scale 1, threshold 0.5;
# - the way llama.cpp makes TQ2_0: the scale is the *largest* of 256 weights, here about 3.8, and the threshold half of it. Look at how many weights become 0.
#   The format was made for weights that are ternary already; for those both ways give the same;
# - then make the error as small as you can.

# %%
from labkit import models
from labkit.learn.widgets import explore

weights = ternary_view.matrix(models.resolve(model).path)


def draw(scale, threshold):
    return ternary_view.draw_rounding(weights, scale, threshold, f"one matrix of {model}: {weights.size:,} weights")


scales = [1.0, 0.5, 0.8, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2.0, 3.0, 3.8]  # it starts with the first
thresholds = [0.5, 0.0, 0.3, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5, 1.9]
box = explore(draw, scale=scales, threshold=thresholds)

# %% [markdown]
# However you set them, an error of 40 % of the weights' size or more stays. (Q4_0 leaves about 9 %.) This happens in every matrix of every
# layer, and the errors pile up. A better scale helps, but three values say too little about weights that were not made for three values.
# Section 4 uses absmean also for the finished model, so that the comparison is fair.
#
# ## 3. Bits
#
# A choice among three values carries log2(3) = 1.58 bits. That is where the name comes from. A file needs a little more: bytes are whole, and scales are stored as well.
# TQ1_0 puts five weights into a byte, since 3 × 3 × 3 × 3 × 3 = 243 fits into 256. The three values are then called **trits**, digits of base 3.
#
# **Exercise 2.** Pack five values into one number from 0 to 242. Each value plus 1 is a digit: 0, 1 or 2. The first value is the most
# significant digit, as in writing: in base 10 the digits 4, 0, 7 make (4 × 10 + 0) × 10 + 7.

# %% tags=["exercise"] exercise="pack"
def pack(trits):
    """Five values of -1, 0 or 1 as one number from 0 to 242."""
    ### BEGIN SOLUTION
    number = 0
    for t in trits:
        number = number * 3 + t + 1
    return number
    ### END SOLUTION

# %% tags=["check"] exercise="pack" points=2
ex.pack.check(pack, seed=seed)

# %% [markdown]
# **Exercise 3.** And back: a number from 0 to 242 into its five values.

# %% tags=["exercise"] exercise="unpack"
def unpack(number):
    """The five values of -1, 0 or 1 of a packed number, as a list."""
    ### BEGIN SOLUTION
    trits = []
    for _ in range(5):
        trits.append(number % 3 - 1)
        number //= 3
    return trits[::-1]
    ### END SOLUTION

# %% tags=["check"] exercise="unpack" points=2
ex.unpack.check(unpack, seed=seed)

# %% [markdown]
# (llama.cpp stores this number scaled up to 256, so that a fast multiplication pushes the digits out one by one. The idea is the same.)
#
# **Exercise 4.** A block holds `block` weights, `per_byte` of them in each byte, and a scale of `scale_bytes` bytes. How many bits
# does a weight take? A byte is stored whole, even where its last places stay empty. (`math.ceil` rounds up.)

# %% tags=["exercise"] exercise="bits_per_weight"
import math


def bits_per_weight(block, per_byte, scale_bytes):
    """Stored bits for one weight, the scale included."""
    ### BEGIN SOLUTION
    return 8 * (math.ceil(block / per_byte) + scale_bytes) / block
    ### END SOLUTION

# %% tags=["check"] exercise="bits_per_weight" points=2
ex.bits_per_weight.check(bits_per_weight, seed=seed)

# %% [markdown]
# TQ1_0 and TQ2_0 have blocks of 256 weights and a scale of 2 bytes. TQ2_0 keeps it simple, four weights in a byte: more bits, but
# quicker to unpack.

# %% tags=["nbval-check-output"]
from labkit.quant import blocks, energy

print(f"log2(3)  {energy.LOG2_3:.4f} bits")
for kind in ("TQ1_0", "TQ2_0", "Q4_0", "Q8_0", "F16"):
    print(f"{kind:8} {blocks.bits_per_weight(kind):7.4f} bits per weight")

# %% [markdown]
# ## 4. Train it in
#
# Now the other way: let the model feel the three values while it learns. **BitLinear** takes the place of each
# matrix multiplication:
#
# - the layer keeps ordinary weights, and in every step multiplies with their ternary copy (absmean, as in exercise 1);
# - the numbers that flow through the model, the **activations**, are rounded to 8 bits, with one scale for each token;
# - rounding has no slope that training could follow. So when training asks how to change the weights, BitLinear acts as if nothing had been rounded.
#   This is called the **straight-through estimator**.
#
# The model is tiny: two layers, about a million weights, and a vocabulary of the 256 bytes. It reads Newton's *Opticks* (1704) for
# some minutes. One tenth of the text is held out, and the **loss** is the mean surprise on that part: -ln(probability) of each next byte.
# Less is better; blind guessing among 256 bytes has 5.5. There are three forms:
#
# - **full precision**: ordinary training;
# - **ternary, trained in**: BitLinear from the first step;
# - **ternary, afterwards**: the full-precision weights, made ternary by the same BitLinear, at each point of the curve.
#
# Each form got the learning rate and the spread of its first, random weights that suited it best in a small search. The rate came out the
# same; the ternary form starts from weights that are a third larger.
#
# **Predict.** By how many percent will the loss of *trained in* lie above that of full precision, at the end?

# %%
my_guess_percent = 40  # <- your number

# %%
runs = ternary_view.Runs()
seeds = [1] if quick else [1, 2, 3]
curves = lab.step("train", lambda: runs.train(seeds, quick), needs="torch")
fig = ternary_view.draw_curves(curves, my_guess_percent, lab.caption("train"))
assert len(fig.axes[0].lines) == 4

# %%
found = ternary_view.ends(curves)
base = np.mean(found["full precision"])
for form, losses in found.items():
    spread = f"{min(losses):.2f} to {max(losses):.2f}" if len(losses) > 1 else "one seed"
    print(f"{form:20} loss {np.mean(losses):.2f} ({spread}), {np.mean(losses) / base - 1:+.0%}")

# %% [markdown]
# Both ternary models have the same format and the same size. One of them learned under it, the other did not.
# Look at the red curve: its distance to the dashed blue one grows while the full-precision model learns. What it learns is lost again in the rounding.
#
# Two limits of what you see here. The model and its text are tiny, and the training is short: the BitNet team reports that small models which train for long
# stay behind full precision, and that the gap closes at about 3 billion weights. And training itself became no cheaper: it keeps the ordinary
# weights, and rounds them in every step. What becomes cheap is using the model afterwards.
#
# ## 5. Your model in llama.cpp
#
# A ternary matrix fits TQ2_0 exactly: three values and a scale (rounded to 16 bits). So the trained model becomes a file with nothing lost.
# The next step writes all three forms as GGUF files, loads each in llama.cpp, and compares its predictions with PyTorch's.

# %%
files = lab.step("files", lambda: runs.files(), needs=("torch", "llamacpp"))
pd.DataFrame(files).set_index("form").drop(columns="text").round(6)

# %% [markdown]
# `kl_from_torch` is the mean KL divergence (lab 04) between the two programs, in nats: 0 means the same predictions. It is not exactly
# 0, because llama.cpp adds in another order, keeps the KV cache in 16 bits, and rounds activations to 8 bits in groups of 256 where
# BitLinear does so for a whole token.
#
# `bits_per_weight` is that of the whole file. It is well above 2.06, because the table of the tokens stays at 16 bits (the **embedding**: a row of
# numbers for each token; here 257 tokens, the 256 bytes and one that ends a text). In large models that table is a
# smaller share.
#
# And how do they write? Each continues the same words. (They have read one small book for some minutes: look at the spelling, not the sense.)

# %%
for row in files:
    print(f"--- {row['form']}, {row['bytes'] / 1e6:.2f} MB\n{row['text']}\n")

# %% [markdown]
# ## 6. Energy
#
# With weights of -1, 0 and +1 a product needs no multiplication: a number is added, left out or subtracted.
# How much does that save? The next table is **arithmetic, not measured**: published energies of single operations on a chip of 2014
# (Horowitz), times the number of operations for one token. A model of 2.4 billion weights, the size of BitNet b1.58 2B4T, all of them in one format;
# each weight is read from memory once.

# %%
table = ternary_view.energy_rows(2_412_820_480)
fig = ternary_view.draw_energy(table, "arithmetic from published figures (Horowitz 2014, 45 nm), not measured")
assert len(fig.axes[0].patches) == 2 * len(table)

# %%
f16, tq2 = energy.per_weight("F16"), energy.per_weight("TQ2_0")
print(f"arithmetic alone:        {f16.arithmetic_pj / tq2.arithmetic_pj:.0f} times less energy as TQ2_0 than as F16")
print(f"with reading the weights: {f16.total_pj / tq2.total_pj:.1f} times less")

# %% [markdown]
# The arithmetic nearly vanishes, but it was a small part to begin with. When one user waits for one answer, reading the weights costs far more, and
# that falls with the bits: 16 ÷ 2.06. So fewer bits save energy in any format, and ternary ones save the most.
# (A server that answers many users at once reads a weight once for all of them; then arithmetic counts for more.)
#
# ## 7. What people say
#
# Four statements from published material, against your own figures. The last two rows are computed from the formats and from section 6.

# %%
from labkit.facts import claims, quantization, ternary

checked = [quantization.ternary([r for r in rows if r["model"] == rows[0]["model"]]), ternary.trained_in(curves)]
checked += [ternary.file_bits(files), ternary.energy_factor()]
pd.set_option("display.max_colwidth", None)
pd.DataFrame([{"they say": c["says"], "result": claims.in_words(c), "why": c["why"]} for c in checked])

# %% [markdown]
# Why 71.4 there and 15 here? The published factor (Ma et al. 2024) is for the arithmetic of matrix products alone, computed with energies of a chip of 7 nm.
# Ours has those of 45 nm, and adds into 32-bit sums, since 8 bits cannot hold a sum of many 8-bit numbers; with 8-bit additions it would be 50.
# Neither counts the reading of the weights (section 6).
#
# ## To remember
#
# 1. Ternary weights must be trained in. Forced on a finished model they destroy it.
# 2. 1.58 bits is what three values carry; a file takes 1.69 (TQ1_0) or 2.06 (TQ2_0), and its embedding more.
# 3. For one user, the saving comes from reading fewer bits; the missing multiplications are a small part of it.
#
# **In production:** take a ternary file only of a model that was trained that way, and check it with your own questions (lab 14). From
# an ordinary model take Q4_K_M or Q4_0 (lab 04).
#
# **Read more:** [BitNet b1.58](https://arxiv.org/abs/2402.17764) ·
# [BitNet b1.58 2B4T, technical report](https://arxiv.org/abs/2504.12285) ·
# [how TQ1_0 and TQ2_0 came to llama.cpp](https://github.com/ggml-org/llama.cpp/pull/8151) ·
# [making a finished model ternary by training on](https://huggingface.co/blog/1_58_llm_extreme_quantization)
#
# **The same lab on a bigger model:** get a GGUF file and pass its path, in a terminal: `labkit run 06 -p model PATH`. Sections 1 and 2 then use that model.
# What the ternary files would take, with the embedding in Q6_K (they will not answer usefully, unless the model was trained that way):

# %%
from labkit.models import catalog, footprint, shape

for name in ("qwen3-0.6b", "gemma3-1b", "phi-4-mini", "bitnet-b1.58-2b-4t"):
    whole, plan = shape.header(catalog.get(name), "F16"), ternary_view.ternary_plan(catalog.get(name))
    need = footprint.predict(plan, context=4096)
    f16_gb, ternary_gb = whole.tensor_bytes / 1e9, plan.tensor_bytes / 1e9
    print(f"{name}: F16 {f16_gb:.2f} GB, TQ2_0 {ternary_gb:.2f} GB, memory {need.total_bytes / 1e9:.2f} GB with 4,096 tokens")
