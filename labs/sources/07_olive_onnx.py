# ---
# labkit:
#   title: Olive and ONNX
#   minutes: 40
#   memory_gb: 3.0
#   track: [shrink]
#   builds_on: [3, 4, 5]
#   prerequisites: ["the extra `onnx` (SET=all) and 1.6 GB of memory for your own figures, 3.3 GB with SmolLM2; on a smaller machine, or without the extra, the lab plays its recording"]
#   expected:
#     - "bits per weight of stdlib-10m: int4 12.3, int4-shared 5.2, olive-rtn 5.4, olive-int8 10.0; counted within 5 % of the arithmetic, the rest are tables of sines"
#     - "nodes: 21 MatMul before; 21 MatMulNBits after RTN; 21 MatMulInteger and 17 DynamicQuantizeLinear after dynamic int8"
#     - "KL divergence at about 5 bits, stdlib-10m: Q4_1 smallest (0.015), MLX in groups of 32 next, ONNX int4-shared twice as large (0.030)"
#     - "Olive asked for int8 by its model builder: exit code 0, no model"
#   transfer:
#     - "An int4 ONNX folder of a 4 B model takes 3.3 GB where you expected 2.0. Name two likely reasons, and how you would tell them apart."
#     - "A build script ends with `olive run ... && upload model`. What can go wrong, and which line do you add?"
#     - "Dynamic int8 made a model smaller, and slower on one machine. Which nodes of the graph would you count, and why?"
#     - "A colleague has an int4 ONNX model made for a CPU and wants to run it on a Snapdragon's NPU. Which of Olive's passes tell you what is still to do?"
#     - "Two files have 5 bits per weight and perplexities of 130.5 and 131.7, each with an error of 11. How do you find out which one is better?"
# ---

# %% [markdown]
# # 07 · Olive and ONNX
#
# **The question this lab answers: how do you make a small ONNX model, what is really in it, and is it as good as a GGUF or MLX file of the same size?**
#
# It builds on labs 03 (converting), 04 (perplexity and KL divergence) and 05 (blocks with a scale). About 40 minutes.
#
# **It needs 1.6 GB of memory** with the default model, up to 3.3 GB with SmolLM2: converting takes that for a minute. On a smaller machine start Jupyter with `LABKIT_WITHOUT=onnx`:
# the lab then plays its recording, and says so under every plot. Nothing is downloaded.
#
# **ONNX** is a file format for a *graph*: a list of operations, called **nodes**, such as `MatMul`, with the arrays that they use, called **initializers**.
# **ONNX Runtime** runs such a graph; **ONNX Runtime GenAI** adds what a language model needs around it: a tokenizer, a KV cache, sampling.
# **Olive** is Microsoft's tool that changes a model step by step, for a chosen kind of hardware. Windows ML and Foundry Local (lab 11) run what it makes.

# %% tags=["parameters"]
model: str = "stdlib-10m"  # catalogue name (also smollm2-135m), or the path of a GGUF file
engine: str = "ortgenai"  # who runs the ONNX models
threads: int = 0  # 0: all cores
seed: int = 1  # your own seed gives you your own exercise numbers
quick: bool = False  # True: fewer models and tokens, for a fast check
results_path: str = "results.jsonl"  # results are appended here
tokens: int = 2048  # of the evaluation text that every model reads

# %%
from labkit.learn import onnx_rows, onnx_view, plots
from labkit.learn.exercises import lab_07 as ex
from labkit.learn.lab import start

lab = start(
    "07_olive_onnx", model=model, engine=engine, threads=threads, seed=seed, quick=quick, results_path=results_path, load=False, needs="onnx"
)

# %% [markdown]
# ## 1. How many bits is "int4"?
#
# Two tools make the models of this lab:
#
# - The **model builder**, a part of ONNX Runtime GenAI, knows some architectures and writes their graph straight from the weights.
# - **Olive** runs **passes** one after another. A pass takes a model and gives a model. Olive's first pass here is the model builder again, in 32 bits;
#   a second pass then makes the weights smaller.
#
# Neither reads GGUF, so labkit first unpacks the file into a Hugging Face folder (lab 03).
#
# Both quantize in **blocks**: 4-bit codes and one scale for each block. A scale has 32 bits here. This is what the codes and scales of a weight take:

# %% tags=["nbval-check-output"]
for block_size in (16, 32, 64, 128, 256):
    print(f"blocks of {block_size:>3}: {4 + 32 / block_size:.3f} bits per weight")

# %% [markdown]
# The model builder takes blocks of 32. **Predict.** How many bits for each weight does its whole int4 model take, everything counted?

# %%
my_guess_bits = 4.0  # <- your number

# %% [markdown]
# There is one thing more to know. Many small models have **tied** embeddings: one matrix is used twice. As the *embedding table* a row is looked up for each token;
# as the *output matrix* all rows are multiplied to get the scores. The model builder's default quantizes what is multiplied. What is looked up stays a table in 32 bits,
# so that matrix is stored twice.
#
# **Exercise 1.** Complete the function. `matrix_weights` are the weights of all matrices, the tied one counted once; `table_weights` are those of the tied one.
# Result: bits for each of the model's weights.

# %% tags=["exercise"] exercise="int4_bits"
def int4_bits(matrix_weights, table_weights, block_size):
    """Bits per weight: 4-bit codes and a 32-bit scale a block, and the table once more in 32 bits."""
    ### BEGIN SOLUTION
    quantized = matrix_weights * (4 + 32 / block_size)
    return (quantized + 32 * table_weights) / matrix_weights
    ### END SOLUTION

# %% tags=["check"] exercise="int4_bits" points=2
ex.int4_bits.check(int4_bits, seed=seed)

# %% [markdown]
# ## 2. Build, and count
#
# The next cell builds the models. Each takes about 20 seconds the first time, and nothing after that: labkit keeps them in your cache.
#
# | recipe | how |
# |---|---|
# | int4 | model builder, its defaults |
# | int4-shared | model builder with `shared_embeddings=true`: the tied matrix is stored once, in 4 bits |
# | olive-rtn | Olive: model builder in 32 bits, then `OnnxBlockWiseRtnQuantization` (RTN: round to nearest; blocks of 128) |
# | olive-int8 | Olive: model builder in 32 bits, then `OnnxDynamicQuantization` (weights and activations in 8 bits) |
#
# Then it counts the bytes of the initializers. Predicted is the arithmetic from the shapes, counted is what lies in the files.

# %%
recipes = onnx_rows.QUICK if quick else onnx_rows.RECIPES
built = lab.step("build", lambda: onnx_rows.build_rows(lab.model, (*recipes, onnx_rows.BEFORE)))
small = [row for row in built if row["recipe"] != onnx_rows.BEFORE]
fig = onnx_view.draw_bits(small, my_guess_bits, lab.caption())
assert len(fig.axes[0].patches) == 2 * len(small)

# %% [markdown]
# A model called int4 may take three times its name. Where do the bytes go? (The tables of sines hold the rotations that tell positions apart. They are no weights;
# in a large model nobody notices them, in this one they are the few percent between predicted and counted.)

# %%
fig = onnx_view.draw_parts(small, lab.caption("build"))
assert len(fig.axes[0].patches) == 5 * len(small)

# %% [markdown]
# This is no trouble of small models alone. Phi-4-mini is tied as well: its table costs 5.1 bits per weight (2.5 GB), that of qwen3-0.6b 8.4.
# Only a model with an output matrix of its own stores nothing twice. The last cell of this lab computes the sizes.
#
# ## 3. What Olive writes down
#
# Olive keeps a record of its work, the **footprint** (`footprint.json`): each model that it made, the pass that made it, its settings, and what an evaluator measured.
# Here the evaluator notes the size on the disk.

# %%
import pandas as pd

pd.set_option("display.max_colwidth", None)
told = [recipe for recipe in recipes if recipe.startswith("olive")]
history = lab.step("footprint", lambda: onnx_rows.history_rows(lab.model, told))
pd.DataFrame(history)[["recipe", "step", "from_pass", "seconds", "metrics"]]

# %% [markdown]
# The settings say what you did not choose. These are the ones of the last pass. Look for `block_size` and `is_symmetric`, or `per_channel`.

# %%
for row in history:
    if row["from_pass"] and row["from_pass"] != "modelbuilder":
        print(f"{row['recipe']}, {row['from_pass']}: {row['settings']}")

# %% [markdown]
# In the file, each entry names its model's parent. With a search over settings, Olive tries many passes, and the footprint becomes a tree.
#
# **Exercise 2.** Complete the function. `footprint` is a dictionary: model id → `{"parent_model_id": …, "from_pass": …}`; both are `None` for the input model.
# Result: the names of the passes that led to the model `last`, the first pass first.

# %% tags=["exercise"] exercise="passes_of"
def passes_of(footprint, last):
    """The names of the passes from the input model to `last`, as a list."""
    ### BEGIN SOLUTION
    names = []
    while footprint[last]["parent_model_id"]:
        names.append(footprint[last]["from_pass"])
        last = footprint[last]["parent_model_id"]
    return names[::-1]
    ### END SOLUTION

# %% tags=["check"] exercise="passes_of" points=2
ex.passes_of.check(passes_of, seed=seed)

# %% [markdown]
# **A trap.** The model builder has no int8. Ask it by name, and labkit refuses at once. Ask through Olive, and see how the run ends.

# %%
from labkit.learn.expect import expect_error
from labkit.quant import onnx

with expect_error():
    onnx.recipe("int8")

# %%
(asked,) = lab.step("refusal", lambda: onnx_rows.refusal_rows(lab.model))
print("exit code:", asked["exit_code"], " a model was made:", asked["model_made"])
print("in the log:", asked["said"])

# %% [markdown]
# Exit code 0 means "all well" to every script and every CI system. labkit looks for `model.onnx` after each run, and turns a missing one into an error with the end of the log.
#
# ## 4. What the passes do to the graph
#
# **Predict.** The graph in 32 bits has some `MatMul` nodes: matrix products (21 in the default model). How many are left after RTN? And how many after dynamic int8?

# %%
my_guess_after_rtn = 10  # <- your number of MatMul nodes
my_guess_after_int8 = 10  # <- and here

# %%
graphs = {row["recipe"]: row for row in built}
shown = [graphs[name] for name in (onnx_rows.BEFORE, *told)]
fig = onnx_view.draw_nodes(shown, lab.caption("build"))
after = graphs["olive-rtn"]["nodes"]
print(f"MatMul after RTN: {after.get('MatMul', 0)} (your guess: {my_guess_after_rtn}); MatMulNBits: {after['MatMulNBits']}")
if "olive-int8" in graphs:
    print(f"MatMul after int8: {graphs['olive-int8']['nodes'].get('MatMul', 0)} (your guess: {my_guess_after_int8})")
assert len(fig.axes[0].patches) == 9 * len(shown)

# %% [markdown]
# - **RTN** swaps each product for `MatMulNBits`, which multiplies by packed 4-bit codes. (The letters stand for *n bits*.) The table becomes `GatherBlockQuantized`.
# - **Dynamic int8** swaps each product for several nodes: `DynamicQuantizeLinear` quantizes the *activations* while the model runs, `MatMulInteger` multiplies whole numbers,
#   and `Cast` and `Mul` bring the result back to the right scale.
# - The model builder has done the **graph optimisation** already. `GroupQueryAttention` and `SkipSimplifiedLayerNormalization` are *fused* nodes:
#   each does the work of many small ones, and fewer nodes mean less reading and writing of memory.
#
# **Exercise 3.** `DynamicQuantizeLinear` finds a scale and a zero point for each array of activations. Codes go from 0 to 255. With
# `low` = the smallest value, or 0 if that is smaller, and `high` = the largest value, or 0 if that is larger:
# scale = (high − low) / 255, and the zero point is the code that stands for 0. Complete the function.

# %% tags=["exercise"] exercise="dynamic_range"
def dynamic_range(values):
    """(scale, zero_point) for a list of activations; the zero point is a whole number."""
    ### BEGIN SOLUTION
    low, high = min(0.0, min(values)), max(0.0, max(values))
    scale = (high - low) / 255
    return scale, round(-low / scale)
    ### END SOLUTION

# %% tags=["check"] exercise="dynamic_range" points=2
ex.dynamic_range.check(dynamic_range, seed=seed)

# %% [markdown]
# ## 5. For which hardware?
#
# An **execution provider** is the part of ONNX Runtime that runs nodes on one kind of hardware. A graph is split: each node goes to the first provider in your list
# that can run it, the rest to the CPU. The next cell lists what *your* ONNX Runtime has, and which of Olive's passes are made for a named provider.

# %%
providers = lab.step("providers", onnx_rows.provider_rows)
table = pd.DataFrame(providers)
table["provider"] = table["provider"].str.removesuffix("ExecutionProvider")
table["passes"] = [len(names) for names in table["passes"]]
table[["provider", "here", "for", "needs", "passes"]]

# %%
for row in providers:
    if row["provider"].startswith(("QNN", "Dml", "OpenVINO")):
        print(f"{row['provider']}: {', '.join(row['passes'])}")

# %% [markdown]
# An NPU is a good example of what a hardware pass is for. Qualcomm's wants fixed shapes and a graph compiled ahead of time, and runs best on whole numbers
# for weights *and* activations. For each of these there is a pass (`EPContextBinaryGenerator` compiles). So "it is ONNX, it runs anywhere" is half true. The CPU provider runs it anywhere;
# another one runs what was prepared for it.
#
# ## 6. One table: GGUF, ONNX, MLX
#
# MLX (lab 08) is Apple's library, with a file format of its own. Every model now reads the same tokens. **Perplexity** says how surprised a model is by the text (lab 04). Its error is large on so few tokens, and it hides small losses.
# **KL divergence** from the 16-bit model is sharper: how far do the predictions move, token by token? 0 means: not at all.
#
# **Predict.** At about 5 bits per weight: whose predictions stay closest to the original's?

# %%
my_guess_best = "ONNX int4-shared"  # <- or "GGUF Q4_1", or "MLX 4 bit, 32"

# %%
types, few = (onnx_rows.QUICK_GGUF, min(tokens, 1024)) if quick else (onnx_rows.GGUF, tokens)
groups = onnx_rows.mlx_groups(lab.model, quick)
rows = lab.step("equal", lambda: onnx_rows.equal_rows(lab.model, few, types, (*recipes, onnx_rows.BEFORE), groups, threads or None))
print(onnx_view.origin(rows))
columns = ["family", "name", "bits_per_weight", "bytes", "perplexity", "perplexity_stderr", "kl_mean", "top1_agreement"]
pd.DataFrame(rows)[columns].sort_values("bits_per_weight").round(4)

# %%
fig = onnx_view.draw_equal(rows, lab.caption("equal"))
near = onnx_rows.near(rows, 5.2)
print("about 5 bits, best first:", "; ".join(f"{r['family']} {r['name']}" for r in near), f"(your guess: {my_guess_best})")
print("\n".join(onnx_view.says_equal(near)))
assert fig.axes[0].get_yscale() == "log"

# %% [markdown]
# Read the table in this order:
#
# 1. *ONNX fp32* has the perplexity of the 16-bit GGUF file, to several digits. So converting and running are right, and what follows is quantization alone.
# 2. *Equal size, spent differently.* llama.cpp gives the tied matrix 6.6 bits (Q6_K) in a "Q4" file; its other matrices have 4.5 or 5.
#    The ONNX and MLX files here give every matrix the same. The output matrix decides every prediction, so those bits are well spent.
# 3. *A block.* Q4_1 stores a scale **and** a smallest value for 32 weights, in 16 bits each: 5 bits. MLX in groups of 32 stores the same two numbers.
#    ONNX's symmetric blocks store one scale in 32 bits: 5 bits as well, and a worse fit.
# 4. *int4 against int4-shared*: the table in 32 bits buys something too. It costs 7 bits per weight.
# 5. The model builder's int4 for a CPU also quantizes **activations** to 8 bits while it runs (`accuracy_level` 4 in its nodes). That buys speed, and is a part of its distance.
# 6. *olive-int8* has one scale for a whole matrix (`per_channel` False in the footprint). At 10 bits per weight it is further away than Q8_0 at 8.5.
#
# Points 2 to 6 are about a true 16-bit source. With SmolLM2 read the sentence above the table first.
#
# These are settings, not fates: `OnnxKQuantQuantization` and `int4_algo_config=k_quant_mixed` exist, and every one of them costs size or time. Measure on your own model.
#
# ## 7. Look around
#
# Choose a size. The red circle is the format with the smallest divergence among those that fit.

# %%
from labkit.learn.widgets import explore


def draw(at_most):
    return onnx_view.draw_equal(rows, lab.caption("equal"), at_most)


box = explore(draw, at_most=[5.5, 4.6, 5.1, 6.5, 9.0, 12.5])

# %% [markdown]
# ## 8. The same by hand
#
# ```sh
# python -m onnxruntime_genai.models.builder -i FOLDER -o OUT -p int4 -e cpu -c TMP --extra_options int4_algo_config=rtn shared_embeddings=true
# CI=true olive run --config run.json
# labkit evaluate OUT --engine ortgenai
# ```
#
# `FOLDER` is a Hugging Face folder. `CI=true` switches Olive's telemetry off. This is the start of a `run.json`, as labkit writes it:

# %%
import json
from pathlib import Path

config = onnx.olive_config(Path("FOLDER"), onnx.recipe("olive-rtn"), Path("OUT"), Path("TMP"))
print(json.dumps({key: config[key] for key in ("input_model", "passes", "systems", "output_dir")}, indent=1))

# %% [markdown]
# ## 9. What people say

# %%
from labkit.facts import claims, live
from labkit.facts import onnx as facts
from labkit.facts.live.world import World

checked = [facts.four_bits(built), facts.exit_code([asked]), facts.same_bits_same_quality(rows), live.check("olive-classes", World())]
pd.DataFrame([{"they say": c["says"], "result": claims.in_words(c), "why": c["why"]} for c in checked])

# %% [markdown]
# ## To remember
#
# 1. Count the bytes. "int4" names the codes; scales, and a table that stays in 32 bits, may take more than the codes do.
# 2. A pass changes nodes. Count them before and after, and read the footprint for the settings that nobody chose.
# 3. Compare formats at equal size, on the same tokens, by KL divergence; and know what all the files were made from.
#
# **In production:** pin the versions of Olive, ONNX Runtime GenAI and transformers together, look for the model instead of trusting the exit code, check perplexity against the original
# after *every* conversion, and keep footprint and checksums with the model. Check the tokens too: a tokenizer converted along with a model can differ in how it cuts numbers.
#
# **Read more:** [Olive](https://microsoft.github.io/Olive/) · [the model builder](https://github.com/microsoft/onnxruntime-genai/blob/main/src/python/py/models/README.md) ·
# [execution providers](https://onnxruntime.ai/docs/execution-providers/) · [DynamicQuantizeLinear](https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html)
#
# **The same lab on a bigger model:** `labkit run 07 -p model smollm2-135m -p tokens 1024` needs up to 3.3 GB, no download and about ten minutes
# (its source is Q4_1: say so with its figures).
# For others: get a GGUF file and pass its path. The memory is a rule from two measured models, stdlib-10m and SmolLM2; for larger ones it is extrapolated:

# %%
for row in onnx_rows.bigger_rows():
    size, memory = f"{row['onnx_bytes'] / 1e9:.2f} GB as int4", f"about {row['convert_bytes'] / 1e9:.0f} GB of memory to convert"
    print(f"{row['model']}: download about {row['gguf_bytes'] / 1e9:.2f} GB (Q4_0), {memory}, {size}")
