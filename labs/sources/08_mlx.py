# ---
# labkit:
#   title: A model for Apple silicon
#   minutes: 35
#   memory_gb: 1.0
#   track: [shrink]
#   builds_on: [2, 5]
#   prerequisites: ["the extra `mlx` (SET=all) for your own figures; without it the lab plays its recording"]
#   expected:
#     - "bits per weight: within 1 % of the arithmetic; 4.5 for 4 bits in groups of 64 with 16-bit scales, 5.0 with 32-bit scales"
#     - "errors on stdlib-10m at 4.5 bits per weight: Q4_K smallest, then Q4_0, then MLX in groups of 64"
#     - "on a PC: MLX with 16-bit arithmetic 0.1 to 5 tokens/s, with 32-bit arithmetic 10 times as fast or more, llama.cpp fastest by far; on a Mac's GPU MLX is fast in every form"
#   transfer:
#     - "You may choose 4 bits in groups of 32 or 5 bits in groups of 64. Which one is smaller, which one is closer to the original, and how do you find out?"
#     - "A converted 8 B model takes 5.0 GB where you expected 4.5. Name two likely reasons, and where you would look."
#     - "A matrix has rows of 576 weights. Which group sizes can it take, and what does mlx-lm do with the others?"
#     - "A colleague measured MLX on a Linux server and finds it a hundred times slower than llama.cpp. What would you check before you conclude anything about Macs?"
#     - "A Mac with 24 GB of unified memory and a PC with 24 GB of memory and an 8 GB GPU: which models fit each, and what limits their decode speed?"
# ---

# %% [markdown]
# # 08 · A model for Apple silicon
#
# **The question this lab answers: what is in an MLX model, how many bits does it really take, and is it as good as a GGUF file of the same size?**
#
# It builds on labs 02 (bytes decide the speed) and 05 (blocks with a scale). About 35 minutes. The default model takes 1 GB of memory,
# most of it for the tools that convert; SmolLM2 takes 1.7 GB. Nothing is downloaded.
#
# **MLX** is Apple's library for computing with arrays, as NumPy is, on the processor and the GPU of a Mac. **mlx-lm** is the package on top of it
# that converts and runs language models. You can do all of this lab on Linux; only the speed is not what a Mac would show.

# %% tags=["parameters"]
model: str = "stdlib-10m"  # catalogue name, or the path of a GGUF file
engine: str = "mlx"  # who runs the converted model
threads: int = 0  # MLX chooses its own threads; 0 also leaves llama.cpp free
seed: int = 1  # your own seed gives you your own exercise numbers, and another group of weights
quick: bool = False  # True: fewer variants and weights, for a fast check
results_path: str = "results.jsonl"  # results are appended here
bits: int = 4  # of the model that is looked into: 2, 3, 4, 5, 6 or 8
group_size: int = 64  # weights that share a scale and a bias: 32, 64 or 128

# %%
from labkit.learn import mlx_view, plots
from labkit.learn.exercises import lab_08 as ex
from labkit.learn.lab import start

lab = start(
    "08_mlx", model=model, engine=engine, threads=threads, seed=seed, quick=quick, results_path=results_path, load=False, needs="mlx"
)

# %% [markdown]
# ## 1. One memory
#
# A PC with a graphics card has two memories. The processor reads the main memory, the GPU reads its own. A model must be copied into
# the GPU's memory before the GPU can use it, and what does not fit there cannot run there.
#
# Apple silicon has **unified memory**: processor and GPU read the same memory. Nothing is copied, and a model may take most of what the Mac has.
# Two consequences follow:
#
# - *Size:* a Mac with 24 GB can hold a model that a graphics card with 8 GB cannot.
# - *Speed:* decode still reads every weight once for a token (lab 02). So the ceiling is memory bandwidth ÷ bytes of the weights, for the GPU as well.
#
# The table divides published bandwidths by the bytes of a small model in 4.5 bits per weight. It is **computed, not measured**: a ceiling, never reached.

# %% tags=["nbval-check-output"]
import pandas as pd

from labkit.models import catalog

phi = catalog.get("phi-4-mini")
macs = mlx_view.ceilings(phi.parameters * 4.5 / 8)
print(pd.DataFrame(macs).round(0).to_string(index=False))

# %% [markdown]
# (Phi-4-mini, 3.8 billion weights. Bandwidths: Apple's announcements of M2, 2022, and of the M4 family, 2024; each chip's largest version.)
#
# That is why the number of bits per weight matters on a Mac too: half the bits, twice the ceiling.
#
# ## 2. How many bits is "4-bit"?
#
# MLX cuts each row of a matrix into **groups** of 64 weights. A weight becomes a whole number from 0 to 15, its **code**: 4 bits.
# To get weights back, each group also keeps two numbers of 16 bits: a **scale** (how large one step is) and a **bias**
# (where the steps begin; this has nothing to do with a model's bias vectors):
#
# > weight = scale × code + bias
#
# **Predict.** How many bits does a "4-bit" model take for each weight, all things counted? Write your number down.

# %%
my_guess_bits = 4.0  # <- your number

# %% [markdown]
# **Exercise 1.** Complete the function: the bits that a weight takes, with its share of the group's scale and bias.

# %% tags=["exercise"] exercise="group_bits"
def group_bits(bits, group_size, scale_bits):
    """Bits per weight. bits: of one code; scale_bits: of the scale, and as many of the bias."""
    ### BEGIN SOLUTION
    return bits + 2 * scale_bits / group_size
    ### END SOLUTION

# %% tags=["check"] exercise="group_bits" points=2
ex.group_bits.check(group_bits, seed=seed)

# %% [markdown]
# ## 3. Convert, and count
#
# The way from a GGUF file to MLX has two steps:
#
# 1. **GGUF → Hugging Face folder.** The `transformers` package unpacks every weight to a 32-bit number and writes `config.json`,
#    `model.safetensors` and `tokenizer.json`. (Safetensors is a plain list of arrays with a header; lab 03 says why it is called safe.)
# 2. **Hugging Face folder → MLX folder.** mlx-lm reads that folder, quantizes the matrices, and writes a folder with the same file names.
#
# labkit does both once and keeps the results in your cache. The next cell converts the model in several ways and counts the bytes in the files:
# codes, scales, biases, and what stays unquantized (small vectors called norms).

# %%
variants = mlx_view.VARIANTS[: 2 if quick else None]
rows = lab.step("convert", lambda: mlx_view.conversion_rows(lab.model, variants))
fig = mlx_view.draw_bits(rows, my_guess_bits, lab.caption())
assert len(fig.axes[0].patches) == 2 * len(rows)

# %% [markdown]
# Look at the first two pairs: both are "4 bit, groups of 64", and yet one is a ninth larger. Scales and biases take the type of the weights that mlx-lm *reads*.
# Our folder holds 32-bit weights, so without a word about the type the scales would take 32 bits each, and no message says so.
# labkit asks for `float16`. On the command line that is `--dtype float16`. The next table has the parts, in MB.

# %%
parts = ["codes_bytes", "scales_bytes", "biases_bytes", "unquantized_bytes", "bytes"]
table = pd.DataFrame(rows).set_index("name")
shown = (table[parts] / 1e6).round(2)
shown.columns = [name.removesuffix("_bytes") + " (MB)" for name in [*parts[:-1], "all_bytes"]]
shown.assign(**{"bits per weight": table["bits_per_weight"].round(3)})

# %% [markdown]
# Which tensors are quantized? Here are those of your model by kind; the type `affine` is MLX's name for scale × code + bias. The embedding (the table that
# has a row of numbers for each token) and the output share one matrix in small models, and MLX quantizes it too
# (llama.cpp often gives that matrix more bits than the rest). A matrix whose rows do not divide into groups stays as it is.

# %%
tensors = lab.step("tensors", lambda: mlx_view.tensor_rows(lab.model, bits, group_size))
view = pd.DataFrame(tensors)
view["shape"] = ["x".join(map(str, shape)) for shape in view["shape"]]
view.groupby(["kind", "type"]).agg(tensors=("name", "count"), MB=("bytes", lambda b: b.sum() / 1e6), bits_per_weight=("bits_per_weight", "mean")).round(3)

# %% [markdown]
# ## 4. Inside a group
#
# The codes lie in words of 32 bits, eight codes in a word. The *first* code is in the *lowest* four bits. Take the word `0x76543210`, in hexadecimal:
# each hexadecimal digit is four bits, the lowest one is written last, so its codes are 0, 1, 2, … 7. `>>` shifts bits down, `&` keeps chosen bits.

# %% tags=["nbval-check-output"]
word = 0x76543210
print("the word in bits:", f"{word:032b}")
print("its lowest four bits:", word & 15)
print("the four bits above them:", word >> 4 & 15)

# %% [markdown]
# **Exercise 2.** Complete the function: the eight codes of a word, the first one first.

# %% tags=["exercise"] exercise="unpack_word"
def unpack_word(word):
    """A list of the eight 4-bit numbers in a 32-bit word."""
    ### BEGIN SOLUTION
    return [word >> 4 * n & 15 for n in range(8)]
    ### END SOLUTION

# %% tags=["check"] exercise="unpack_word" points=2
ex.unpack_word.check(unpack_word, seed=seed)

# %% [markdown]
# Now a real group of your model, as it lies in the file. Your seed chose it.

# %%
(group,) = lab.step("group", lambda: mlx_view.group_rows(lab.model, seed, bits, group_size))
print(f"{group['tensor']}, row {group['row']}, group {group['group']}")
print("words:", " ".join(f"{word:08x}" for word in group["words"]))
print(f"scale: {group['scale']:.6f}   bias: {group['bias']:.6f}")

# %% [markdown]
# **Exercise 3.** Complete the function: the weights that a list of codes stands for.

# %% tags=["exercise"] exercise="restore_group"
def restore_group(codes, scale, bias):
    """A list of weights, one a code."""
    ### BEGIN SOLUTION
    return [scale * code + bias for code in codes]
    ### END SOLUTION

# %% tags=["check"] exercise="restore_group" points=2
ex.restore_group.check(restore_group, seed=seed)

# %% [markdown]
# The next plot shows the original weights of that group, the 16 values that a code can stand for (grey lines), and what comes back.
# The red strokes are the errors: half a step at most, except near the end of the range that the lines may not quite reach.
#
# Is the scale negative? About half of them are. MLX starts at the end of the range that is farther from zero, so that this largest weight comes
# back exactly; and it moves the lines a little so that zero lies on one of them.

# %%
fig = mlx_view.draw_group(group, lab.caption("group"))
step = abs(group["scale"])
worst = max(abs(a - b) for a, b in zip(group["original"], mlx_view.restored(group), strict=True))
print(f"one step is {step:.5f}; the largest error is {worst:.5f}, {worst / step:.2f} steps")
assert len(fig.axes[0].lines) > 2

# %% [markdown]
# **Exercise 4.** The way back, as MLX's documentation describes it: the step is (largest − smallest weight) ÷ (2^bits − 1),
# and a code is the number of steps from the smallest weight, rounded. (The real code adds the two refinements above.)

# %% tags=["exercise"] exercise="encode_group"
def encode_group(weights, bits):
    """A list of codes, one a weight: whole numbers from 0 to 2**bits - 1."""
    ### BEGIN SOLUTION
    low, high = min(weights), max(weights)
    step = (high - low) / (2**bits - 1)
    return [round((weight - low) / step) for weight in weights]
    ### END SOLUTION

# %% tags=["check"] exercise="encode_group" points=2
ex.encode_group.check(encode_group, seed=seed)

# %% [markdown]
# ## 5. The same weights in GGUF's formats
#
# Q4_0 also takes 4.5 bits: blocks of 32 weights, one 16-bit scale, no bias. Q4_1 takes 5.0: blocks of 32, a scale and a smallest value.
# Q4_K takes 4.5 again: 256 weights together, with small scales inside a large one (lab 05). Which is closest to the original at the same size?
#
# The error is the root mean square of the differences, in percent of that of the weights. All formats get the same weights.
#
# **Predict.** At 4.5 bits per weight, who has the smallest error: MLX in groups of 64, Q4_0 or Q4_K?

# %%
my_guess_best = "MLX 4 bit, 64"  # <- or "Q4_0", or "Q4_K"

# %%
weights = 400_000 if quick else 2_000_000
errors = lab.step("errors", lambda: mlx_view.error_rows(lab.model.path, weights))
fig = mlx_view.draw_errors(errors, lab.caption("errors"))
print(f"{errors[0]['weights']:,} weights, stored in the source as {', '.join(errors[0]['source_types'])}")
assert len(fig.axes[0].lines) == 5

# %%
same_size = sorted((r for r in errors if r["bits_per_weight"] == 4.5), key=lambda r: r["error"])
for place, row in enumerate(same_size, 1):
    mark = "  <- your guess" if row["name"] == my_guess_best else ""
    print(f"{place}. {row['name']:<14} error {row['error']:.2%}{mark}")

# %% [markdown]
# What decides? Three things pull in different directions:
#
# - **Smaller groups** fit their range better, and cost more for scales. MLX has groups of 64 where Q4_0 has 32.
# - **A bias** lets the range lie anywhere. Q4_0 has none and saves those bits; weights spread evenly about zero hardly miss it.
# - **Small scales** inside a large one (Q4_K) make small groups cheap.
#
# Now compare MLX's three lines at equal size. Which is lowest? Where weights have few outliers, a bit spent on codes buys more than a bit spent on scales,
# so large groups win; where a few weights are far larger than the rest, small groups keep the damage small.
#
# Careful: an error of weights is not yet an error of answers. Lab 04 measures that (perplexity, KL divergence).
# And if the source line above does not say F16, BF16 or F32, the "original" here was quantized before; a format with the same grid then looks better than it is.
#
# ## 6. Look around
#
# Choose bits and group size; the red circle is your choice. Find the cheapest format with an error below 5 %.

# %%
from labkit.learn.widgets import explore


def draw(bits, group_size):
    return mlx_view.draw_errors(errors, lab.caption("errors"), chosen=(bits, group_size))


box = explore(draw, bits=[4, 2, 3, 5, 6, 8], group_size=[64, 32, 128])

# %% [markdown]
# ## 7. A few tokens
#
# Now run it. **This is not what MLX is for**, unless you sit at a Mac: without Apple's GPU it falls back to plain processor code.
# One thing makes it slower still: MLX calculates in the type of the scales, and its code for a PC's processor converts every 16-bit number to 32 bits
# and back at each step. So labkit widens the scales to 32 bits when it loads a model without a GPU; the codes and the weights' values stay as they are.
# The first bar shows what happens without that.
#
# llama.cpp runs beside it, because its 4-bit code was written for such processors. On a Mac, the same cell shows you the GPU (it says *gpu*).

# %%
tokens = 6 if quick else 16
runs = lab.step("run", lambda: mlx_view.run_rows(lab.model, "def add(a, b):\n    return", tokens, repeats=1 if quick else 3))
fig = mlx_view.draw_speed(runs, lab.caption("run"))
assert len(fig.axes[0].patches) == len(runs)

# %%
for row in runs:
    print(f"{row['name']}: {row['output_tokens']} tokens, n={row['repeats']}: {row['text']!r}")

# %% [markdown]
# The texts begin alike: the same weights, up to rounding. (On a PC the slow first form is asked for 3 tokens only, so its text is shorter.) (The default model continues Python code and knows nothing else.)
#
# ## 8. On a Mac
#
# The same commands, for a real model. They need a Mac with Apple silicon, macOS 14 or newer and Python for arm64.
#
# ```sh
# uv sync --inexact --extra mlx
# .venv/bin/python -m mlx_lm convert --hf-path FOLDER --mlx-path my-mlx -q --q-bits 4 --q-group-size 64 --dtype float16
# .venv/bin/python -m mlx_lm generate --model my-mlx --prompt "Why is the sky blue?" --max-tokens 100 --temp 0
# .venv/bin/python -m mlx_lm server --model my-mlx --host 127.0.0.1 --port 8080
# ```
#
# `FOLDER` is a Hugging Face folder, or a name on the Hub such as `microsoft/Phi-4-mini-instruct` (then 7.7 GB are downloaded).
# `generate` prints tokens per second for prompt and answer. Close other programs first: unified memory is everybody's memory.
# And here the same lab runs with `labkit run 08 -p model PATH`.
#
# ## 9. What people say

# %%
from labkit.facts import claims
from labkit.facts import mlx as facts

asked = lab.step("keywords", lambda: mlx_view.keyword_rows(lab.model))
checked = [facts.four_bits(rows), facts.same_bits_same_error(errors), facts.only_on_a_mac(runs), facts.temperature(asked)]
pd.set_option("display.max_colwidth", None)
pd.DataFrame([{"they say": c["says"], "result": claims.in_words(c), "why": c["why"]} for c in checked])

# %% [markdown]
# ## To remember
#
# 1. An MLX weight is scale × code + bias. Bits per weight = bits + 2 × scale bits ÷ group size: 4.5 for "4 bit", and 5.0 if nobody watches the scales' type.
# 2. Equal size is not equal error. At 4.5 bits per weight formats differ, and only measuring on your weights tells by how much.
# 3. Unified memory removes the copy and the GPU's small memory. The bandwidth still sets the ceiling of decode.
#
# **In production:** convert once, on a build machine, from the *unquantized* original; keep the checksum and the versions (labkit writes them to `labkit.json`
# in the folder). Serve on Macs with mlx-lm's server or any OpenAI-compatible one, and test the same questions on both formats before you mix Macs and Linux servers.
#
# **Read more:** [unified memory in MLX](https://ml-explore.github.io/mlx/build/html/usage/unified_memory.html) ·
# [mlx.core.quantize](https://ml-explore.github.io/mlx/build/html/python/_autosummary/mlx.core.quantize.html) ·
# [mlx-lm](https://github.com/ml-explore/mlx-lm)
#
# **The same lab on a bigger model:** `labkit run 08 -p model smollm2-135m` needs 1.7 GB and no download (its source is Q4_1: say so with its errors).
# For others: get a GGUF file and pass its path. Unpacking to 32 bits takes 4 bytes a weight on the disk, and about 6 in memory while it is done:

# %%
from labkit.quant import hf

for name in ("qwen3-0.6b", "gemma3-1b", "phi-4-mini"):
    count = catalog.get(name).parameters
    print(f"{name}: download about {count * 4.5 / 8e9:.2f} GB (Q4_0), memory about {hf.conversion_bytes(count) / 1e9:.1f} GB to convert, {count * 4.5 / 8e9:.2f} GB as MLX")
