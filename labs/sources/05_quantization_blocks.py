# ---
# labkit:
#   title: What is inside a quantized file?
#   minutes: 45
#   memory_gb: 0.5
#   track: [shrink]
#   builds_on: [2]
#   expected:
#     - "Q4_0's error is about 16 times Q8_0's: 127 / 8, the ratio of the two steps"
#     - "stdlib-10m: from Q8_0 down to Q4_0 each bit less doubles the error; Q4_K is below Q4_0 at the same 4.5 bits; ternary is far off"
#     - "smollm2-135m: Q4_1 has no error at all and Q5_1 has more than Q5_0, because the file is Q4_1"
#   transfer:
#     - "A new format stores 3 bits a weight in blocks of 16 with a float16 scale. What does it take per weight, and which block size brings it below 3.5 bits?"
#     - "One tensor of a model has a few weights that are 50 times as large as the rest. Which of this lab's formats would you try first for it, and why?"
#     - "Someone offers a Q8_0 file and says it is the best quality there is. What do you have to know before you believe it?"
#     - "Two programs write Q8_0 files from the same model, and some bytes differ by one. Name two places in the code where you would look."
#     - "A matrix has the relative error 0.08 under Q4_0. Why does that not tell you by how much the model's answers get worse, and what would you measure?"
# ---

# %% [markdown]
# # 05 · What is inside a quantized file?
#
# **The question this lab answers: what do 4-bit and 8-bit files store for each weight, and where does the error go?**
#
# It builds on lab 02 (weights, bits per weight). About 45 minutes, 0.5 GB of memory. Nothing is downloaded.
#
# A model's weights are trained as numbers of 16 or 32 bits. **Quantization** replaces each by the nearest value of a coarse grid,
# and stores only the number of that value. In this lab you write two such formats of llama.cpp yourself, to the last byte,
# and then look at what each format loses.

# %% tags=["parameters"]
model: str = "stdlib-10m"  # catalogue name, or the path of a GGUF file, best one with 16-bit weights
engine: str = "llamacpp"  # whose compiled code your bytes are compared with (no other engine has these formats)
threads: int = 1  # not used: this lab measures no speed
seed: int = 1  # your own seed gives you your own block and exercise numbers
quick: bool = False  # True: fewer tensors, for a fast check
results_path: str = "results.jsonl"  # results are appended here
tensor: str = ""  # which tensor to look at; empty: one from the middle of the model

# %%
from labkit.learn import blocks_rows, blocks_view, plots
from labkit.learn.exercises import lab_05 as ex
from labkit.learn.lab import start

names = {"model": model, "engine": engine, "threads": threads, "seed": seed, "quick": quick, "results_path": results_path}
lab = start("05_quantization_blocks", **names, load=False)

# %% [markdown]
# ## 1. Some weights
#
# The default model, `stdlib-10m`, was trained for this course and keeps its weights as **F16** (floating-point numbers of 16 bits).
# So nothing has been quantized yet. Most models are published like that, or as **BF16**, which has the same size, a
# wider range and fewer digits.
#
# One weight matrix of the model is a **tensor** in the file. From one in the middle of the model we take 256 weights that
# follow one another.

# %%
import numpy as np

found = lab.step("weights", lambda: blocks_rows.weights_rows(lab.model, tensor, seed))[0]
weights = np.array(found["weights"], np.float32)
source = f"{found['model']}, {found['tensor']} ({found['type']})"
print(f"{source}: {found['shape'][0]} × {found['shape'][1]} weights, typical size (RMS) {found['rms']:.4f}, largest {found['largest']:.3f}")
print("This file was quantized before; section 6 says what that means." if found["quantized"] else "Not quantized yet.")
print(weights[:8])

# %% [markdown]
# (**RMS**, root mean square: square all values, take the mean, take the root. A measure of how large they typically are.)
#
# ## 2. A block and its grid
#
# A grid needs a step. If all weights of a matrix shared one step, the largest of them would decide it for all.
# So the formats cut each row into **blocks** of 32 weights, and each block has a step of its own: its **scale**.
#
# **Q8_0** gives each weight a whole number from -127 to 127 (8 bits). **Q4_0** has 16 numbers (4 bits). Both add a scale of two bytes
# to each block of 32.
#
# **Exercise 1.** How many bits does a weight take, with its share of what the block stores besides? Complete the function.

# %% tags=["exercise"] exercise="bits_per_weight"
def bits_per_weight(weights, bits, shared_bytes):
    """weights: how many a block has. bits: for each of them. shared_bytes: scales and the like, once a block."""
    ### BEGIN SOLUTION
    return bits + 8 * shared_bytes / weights
    ### END SOLUTION

# %% tags=["check"] exercise="bits_per_weight" points=1
ex.bits_per_weight.check(bits_per_weight, seed=seed)

# %% [markdown]
# These are the formats that labkit can write. The last digit of the old names says what a block shares: `_0` a scale, `_1` a scale
# and a smallest value. `K` and `TQ` come in sections 7 and 8.

# %% tags=["nbval-check-output"]
from labkit.quant import blocks

for kind, size in blocks.KINDS.items():
    print(f"{kind:5} {size.block:3} weights in {size.bytes:3} bytes: {blocks.bits_per_weight(kind):7.4f} bits per weight")

# %% [markdown]
# Now look at a block of yours. The grey lines are the grid. A blue dot is a weight, a red cross what the file will say.

# %%
fig = blocks_view.draw_block(weights, "Q4_0", f"{source}; Q4_0")
assert len(fig.axes[1].patches) == 32

# %% [markdown]
# One weight lies on the grid exactly: the largest. The others are off by up to half a step, except near the end on the other side,
# where the grid is one step shorter (section 4 says why).
#
# ## 3. Write Q8_0
#
# The recipe, as llama.cpp follows it. All arithmetic is in float32 (numbers of 32 bits).
#
# 1. The scale `d` is the largest magnitude of the block, divided by 127.
# 2. Each weight is multiplied by `1 / d` (by 0 if `d` is 0) and rounded to the nearest whole number. Exactly in the middle, it goes
#    away from zero: 2.5 becomes 3, and -2.5 becomes -3.
# 3. The file gets `d` as float16 (two bytes), then the 32 numbers as signed bytes.
#
# Let NumPy do it for the block above, step by step, before you write the function:

# %%
block = weights[:32]
d = np.abs(block).max() / np.float32(127)
print("scale:", d, "as two bytes:", np.array([d], np.float16).view(np.uint8))
print("quotients:", (block * (1 / d))[:6].round(2))
print("a number as a byte: -3 is", np.array([-3], np.int8).view(np.uint8)[0])

# %% [markdown]
# **Exercise 2.** Complete the encoder. Your bytes are compared with those of llama.cpp; not one may differ.
# `.view(np.uint8)` shows an array's bytes, `np.concatenate` joins arrays. Careful: `np.round` sends the middle
# to the even number. `np.floor(x + 0.5)` is right for positive x; what about negative ones?

# %% tags=["exercise"] exercise="encode_q8_0"
import numpy as np

def encode_q8_0(block):
    """32 weights (float32) -> 34 bytes (uint8)."""
    ### BEGIN SOLUTION
    d = np.abs(block).max() / np.float32(127)
    inverse = np.float32(1) / d if d else np.float32(0)
    x = (block * inverse).astype(float)
    q = (np.sign(x) * np.floor(np.abs(x) + 0.5)).astype(np.int8)
    return np.concatenate([np.array([d], np.float16).view(np.uint8), q.view(np.uint8)])
    ### END SOLUTION

# %% tags=["check"] exercise="encode_q8_0" points=4
ex.encode_q8_0.check(encode_q8_0, seed=seed)

# %% [markdown]
# The engine must get the weights back. It multiplies.
#
# **Exercise 3.** Complete the decoder. Turn the scale into float32 before you multiply: NumPy rounds a product of a float16 and an int8 to float16.

# %% tags=["exercise"] exercise="decode_q8_0"
import numpy as np

def decode_q8_0(data):
    """34 bytes (uint8) -> 32 weights (float32)."""
    ### BEGIN SOLUTION
    d = data[:2].view(np.float16)[0].astype(np.float32)
    return data[2:].view(np.int8) * d
    ### END SOLUTION

# %% tags=["check"] exercise="decode_q8_0" points=2
ex.decode_q8_0.check(decode_q8_0, seed=seed)

# %% [markdown]
# ## 4. Write Q4_0
#
# Half a byte has 16 numbers and no sign. Q4_0 uses all 16: it stores `q` from 0 to 15, and the weight is `d × (q - 8)`.
#
# 1. Find the weight with the largest magnitude, *with its sign*; the first of them, if two are equally large. The scale `d` is that weight divided by -8. So this weight gets `q = 0`,
#    and the grid reaches one step further on its side than on the other.
# 2. `q` is the weight times `1 / d`, plus 8.5, with the digits behind the point cut off (that rounds), and at most 15.
# 3. The file gets `d` as float16, then 16 bytes. Byte `j` holds weight `j` in its low half and weight `j + 16` in its high half:
#    `low | (high << 4)`: `<< 4` shifts the bits up by four places, `|` puts the two halves together.
#
# **Exercise 4.** Complete the encoder.

# %% tags=["exercise"] exercise="encode_q4_0"
import numpy as np

def encode_q4_0(block):
    """32 weights (float32) -> 18 bytes (uint8)."""
    ### BEGIN SOLUTION
    largest = block[np.abs(block).argmax()]
    d = largest / np.float32(-8)
    inverse = np.float32(1) / d if d else np.float32(0)
    q = np.minimum(15, block * inverse + np.float32(8.5)).astype(np.uint8)
    return np.concatenate([np.array([d], np.float16).view(np.uint8), q[:16] | (q[16:] << 4)])
    ### END SOLUTION

# %% tags=["check"] exercise="encode_q4_0" points=5
ex.encode_q4_0.check(encode_q4_0, seed=seed)

# %% [markdown]
# The checks use labkit's own codecs. Are *those* right? Here llama.cpp's compiled code encodes your 256 weights too, and the bytes
# are compared. (The project's tests do the same over more than ten million weights for each format.)

# %%
kinds = [kind for kind in blocks.KINDS if found["shape"][0] % blocks.KINDS[kind].block == 0]
referee = lab.step("referee", lambda: blocks_rows.referee_rows(weights, kinds), needs="llamacpp")
print(", ".join(f"{r['kind']}: {r['differing']} of {r['bytes']} bytes differ" for r in referee))

# %% [markdown]
# ## 5. How large is the error?
#
# **Exercise 5.** To compare tensors of different size we want the error as a share of the weights: the RMS of the error, divided by the RMS
# of the weights. Complete the function.

# %% tags=["exercise"] exercise="relative_error"
import numpy as np

def relative_error(weights, back):
    """weights: as they were. back: as they are after encoding and decoding. Both are arrays of the same shape."""
    ### BEGIN SOLUTION
    return np.sqrt(np.mean((weights - back) ** 2)) / np.sqrt(np.mean(weights ** 2))
    ### END SOLUTION

# %% tags=["check"] exercise="relative_error" points=2
ex.relative_error.check(relative_error, seed=seed)

# %% [markdown]
# **Predict.** Q4_0 has about half the bits of Q8_0. How many times as large is its error? Write down a number before you go on.

# %%
my_guess = 2  # <- your number

# %%
only = ("attn_q", "ffn_down") if quick else ()
rows = lab.step("errors", lambda: blocks_rows.error_rows(lab.model, only, most=2**16 if quick else 2**18))
fig = blocks_view.draw_ratio(rows, my_guess, f"{found['model']}; {lab.caption('errors')}")
ratios = blocks_rows.ratios(rows)
print(f"{min(ratios.values()):.1f} to {max(ratios.values()):.1f} times" if ratios else "no error under Q8_0: the file is Q8_0 already")
assert len(fig.axes[0].lines) == 3

# %% [markdown]
# The number of bits was halved, but the number of *values* fell from 255 to 16. What counts is the step: `largest / 127` against `largest / 8`.
# Each bit less doubles the step, and the error with it.
#
# An error that may be anything between minus and plus half a step has the RMS *step ÷ √12*. That is all there is to it, as the
# next section shows.
#
# ## 6. All formats, and a warning
#
# Here is each block format's error over the matrices of the model's middle layer. The right side is SmolLM2, the course's other model.
# Look at its Q4_1, and at Q5_0 beside Q5_1, before you read on.

# %%
from labkit import models

smollm2 = lambda: blocks_rows.error_rows(models.resolve("smollm2-135m"), ("ffn_down", "attn_q")[: 1 if quick else 2], most=2**16)
series = {found["model"]: rows, "SmolLM2 (its file is Q4_1)": lab.step("errors_smollm2", smollm2)}
fig = blocks_view.draw_errors(series, lab.caption("errors", "errors_smollm2"))
assert len(fig.axes) == 2

# %% [markdown]
# For `stdlib-10m` the picture is orderly: fewer bits, more error, about twice as much for each bit.
#
# For SmolLM2 it is not. Its Q4_1 has *no error at all*, at 5 bits, and Q5_1 looks worse than Q5_0, which has fewer bits. No format is that good.
# The file that we have was **quantized to Q4_1 before it came to us**: its weights lie on Q4_1's grid already, so Q4_1 finds them all,
# and a grid that lies elsewhere misses them. (Q4_K comes close: it too has a scale and a smallest value for each 32 weights, so its grid can nearly
# coincide with Q4_1's.) What it lost on the way to Q4_1 we cannot see: the 16-bit weights are not in this file.
#
# So an error is always an error *against something*. Ask what the source was before you believe a comparison of formats.
# And do not quantize a quantized file again if you can get the 16-bit one: the errors of the two steps join. Their squares add up, about, since
# the two errors have little to do with each other.

# %%
twice = lab.step("twice", lambda: blocks_rows.twice_rows(lab.model, tensor))
for r in twice:
    print(f"these weights -> {r['via']:4} -> {r['to']}: error {r['relative_error']:.4f}")

one = {r["kind"]: r["relative_error"] for r in rows if r["tensor"] == found["tensor"]}
if {"Q4_0", "Q4_1"} <= one.keys():
    print(f"expected after Q4_1: root of {one['Q4_1']:.3f}² + {one['Q4_0']:.3f}² = {np.hypot(one['Q4_1'], one['Q4_0']):.3f}")

# %% [markdown]
# ## 7. Where the error goes
#
# A block's step follows from its largest weight. So blocks with a large weight have a large error, all 32 weights of them.
# Each dot is a block under Q4_0; the line is *step ÷ √12*.

# %%
spread = lab.step("spread", lambda: blocks_rows.spread_rows(lab.model, tensor, count=200 if quick else 600))
fig = blocks_view.draw_spread(spread, f"{source}; {lab.caption('spread')}")
assert len(fig.axes[0].lines) == 2

# %% [markdown]
# Make one weight of your block larger with the slider, and watch the other 31. From some size on they all become zero.
# Then compare formats: which one suffers least from the same outlier? In which does the outlier reach beyond the block? (The plot draws the first 32 of
# your 256 weights; the title on the right also has the error of the other 224.)

# %%
from labkit.learn.widgets import explore


def draw(kind, outlier):
    return blocks_view.draw_block(weights, kind, f"{source}; its largest weight made {outlier} times as large", outlier)


box = explore(draw, kind=["Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q4_K", "TQ2_0"], outlier=[*range(1, 20)])

# %% [markdown]
# Q8_0 suffers least: with 255 numbers a step is still small when the range has grown. Beyond the block the outlier reaches where more than 32 weights share
# something: in `TQ2_0` all 256 have one scale, so the other 224 fall to zero with the rest; in `Q4_K` the eight groups' scales are numbers of 6 bits
# under one common scale, so the other groups' scales become coarser. In the others each block of 32 is on its own.
#
# Smaller blocks protect more weights from an outlier, but each block costs a scale. The next plot tries other sizes with Q4_0's recipe.
# (Only the one with 32 is a real format.)

# %%
sizes = lab.step("sizes", lambda: blocks_rows.size_rows(lab.model, tensor))
fig = blocks_view.draw_sizes(sizes, f"{source}; {lab.caption('sizes')}")
assert len(fig.axes[0].lines) == 1

# %% [markdown]
# ## 8. Further steps: a smallest value, superblocks, three values
#
# **Q4_1** stores a smallest value too, so its 16 numbers lie exactly between the block's lowest and highest weight. It pays two bytes more
# for it: 5 bits.
#
# **Q4_K** gets the same for 4.5 bits. It takes 256 weights together, a **superblock**. Each of its eight groups of 32 has a scale and a smallest
# value, but these are quantized themselves, to 6 bits each; only the superblock has two float16 numbers. And it does not just take
# the extremes: it tries 21 scales for each group and keeps the one with the least error, where large weights count more.
#
# | bytes | Q4_0, eight blocks | Q4_K, one superblock |
# |---|---|---|
# | scales | 8 × 2 | 2 + 2, and 12 for 16 numbers of 6 bits |
# | weights | 8 × 16 | 128 |
# | together | 144 | 144 |

# %%
fig = blocks_view.draw_superblock(weights, f"{source}, your 256 weights")
assert len(fig.axes[0].patches) == 16

# %% [markdown]
# The same number of bytes, but Q4_K's grids fit more closely. (It may cut off an extreme weight on purpose, where that helps the others.)
#
# **TQ2_0** and **TQ1_0** know only three values: minus the scale, zero, plus the scale (**ternary**). The scale is the largest of 256 weights,
# so every weight below half of it becomes zero. How many of yours is that?

# %%
zeros = float((np.abs(weights) < np.abs(weights).max() / 2).mean())
middle = blocks_rows.medians(rows)
print(f"{zeros:.0%} of your 256 weights become zero under TQ2_0.")
print("median error over the tensors:", {kind: round(middle[kind], 3) for kind in ("Q4_0", "Q4_1", "Q4_K", "TQ2_0") if kind in middle})

# %% [markdown]
# An error of 0.8 means that most of what was in the weights is gone. Such a format is made for models that were *trained* with three values.
# Lab 06 trains one.
#
# ## 9. What people say
#
# Statements from published material, and what your own figures say about them. The ledger with sources is `data/claims.toml`.

# %%
import pandas as pd

from labkit.facts import block_formats

pd.set_option("display.max_colwidth", None)
checked = [block_formats.half_a_byte(), block_formats.superblocks(rows), block_formats.requantized(twice)]
pd.DataFrame([{"they say": c["says"], "result": block_formats.in_words(c), "why": c["why"]} for c in checked])

# %% [markdown]
# The error of the weights is not yet the harm to the model. Some matrices matter more than others, and what a model *says* may hardly change.
# Lab 04 measures that, with perplexity and KL divergence.
#
# ## To remember
#
# 1. A block format stores a scale for each block and a small whole number for each weight. The shared part counts: Q4_0 takes 4.5 bits.
# 2. The error follows from the step, the step from the largest weight of the block. One bit less doubles both.
# 3. An error is measured against a source. A file that was quantized before makes its own format look perfect.
#
# **In production:** start from the 16-bit weights, note the source's checksum beside each file you make, and look at the types of the tensors
# in a file (`labkit inspect FILE`), not at its name. If rows are a multiple of 256 take a K-quant.
#
# **Read more:** [block layouts in ggml-common.h](https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h) ·
# [the pull request that brought K-quants](https://github.com/ggml-org/llama.cpp/pull/1684) ·
# [Dettmers, Zettlemoyer: the case for 4-bit precision (2022)](https://arxiv.org/abs/2212.09720)
#
# **The same lab on a bigger model:** any GGUF file with 16-bit weights: `labkit run 05 -p model PATH`, and `-p tensor NAME` for another tensor.
# Memory stays below 0.5 GB, since only a part of each tensor is read. What you would download:

# %%
from labkit.models import catalog, shape

for name in ("qwen3-0.6b", "gemma3-1b", "phi-4-mini"):
    print(f"{name}: download about {shape.header(catalog.get(name), 'BF16').tensor_bytes / 1e9:.2f} GB as BF16")
