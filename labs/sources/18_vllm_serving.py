# ---
# labkit:
#   title: A server that computes many answers at once
#   minutes: 45
#   memory_gb: 4
#   track: [operate]
#   builds_on: [1, 2, 10, 12]
#   prerequisites: ["vLLM for CPUs (`labkit runtimes install vllm`: Linux on x86, 5 GB of disk) and the extra `hf` (SET=all) for your own figures; without them the lab plays its recording"]
#   expected:
#     - "16 clients at once get several times the tokens per second of one client, and less than 16 times; each waits longer for every token"
#     - "with a common beginning of several hundred tokens the first token comes several times sooner; counter, usage and the arithmetic of blocks agree to the token"
#     - "tokens that fit into the KV cache: as computed, to the block"
#     - "beyond the capacity the queue grows as long as the load lasts, and goodput falls; with longer prompts the edge comes sooner"
#     - "vLLM starts many times slower and takes many times the memory of llama-server; which one gives more tokens depends on the number of clients and on the file"
#   transfer:
#     - "Your chatbot puts the date and the user's name in front of a system prompt of 2,000 tokens. What does that cost, and what do you change?"
#     - "A dashboard shows KV cache usage of 97 % and a rising vllm:num_preemptions_total. Name three settings or loads to change, and what each one costs."
#     - "A colleague doubled --max-num-seqs and measured 8 % more throughput, in one run before and one after. What do you ask?"
#     - "Monitoring says p95 of TTFT is 2.5 s, to the digit, on five servers. What do you suspect?"
#     - "Twenty people in an office share one machine without a GPU. Would you give them vLLM, llama-server or Ollama? Which measurements of this lab would change your mind?"
# ---

# %% [markdown]
# # 18 · A server that computes many answers at once
#
# **The question this lab answers: what does vLLM do that a server for one person does not, how do I read and set it, and when is it the wrong choice?**
#
# It builds on labs 01 (TTFT, TPOT), 02 (KV cache), 10 (parallel requests) and 12 (fair comparisons). About 45 minutes, of which the machine took 3 (AMD EPYC, 2 cores), and up to 12 where it is slower; **4 GB of memory**,
# and vLLM's own 5 GB on the disk (`labkit runtimes install vllm`, Linux on x86). On a smaller machine, or without vLLM, every figure is a **recording** and says so. Nothing is downloaded by the lab itself.
#
# Each start of vLLM takes 14 s (AMD EPYC, 2 cores) to several minutes. The lab starts it three times, with `quick` once, on a free port of this machine only, and stops it whatever happens.

# %% tags=["parameters"]
model: str = "smollm2-135m"  # catalogue name, or the path of a GGUF file with a chat template
engine: str = "openai"  # how the lab asks; every server here speaks this protocol
threads: int = 0  # for computing; 0: all cores but one, which is left for the clients
seed: int = 1  # your own seed gives you your own loads and exercise numbers
quick: bool = False  # True: one start, few requests; what needs a restart is played from the recording
results_path: str = "results.jsonl"  # results are appended here
dtype: str = "float32"  # numbers vLLM computes with; "bfloat16" where the processor has instructions for it (AMX, AVX-512 BF16)
kv_gib: float = 0.155  # GiB for the KV cache: little on purpose, to see its limit

# %%
from labkit.learn import versus_view, vllm_desk, vllm_plots, vllm_view
from labkit.learn import vllm_rows as ask
from labkit.learn.exercises import lab_18 as ex
from labkit.learn.lab import start

lab = start(
    "18_vllm_serving", model=model, engine=engine, threads=threads, seed=seed, quick=quick, results_path=results_path, load=False, needs=["vllm", "hf"]
)
settings = {"max_num_seqs": 16, "context": 1024, "kv_gib": kv_gib, "dtype": dtype, "threads": threads or versus_view.spare_threads()}
desk = vllm_desk.Desk(lab.model, **settings)

# %% [markdown]
# ## 1. What it is
#
# **vLLM** is a server for *many* users. It reads Hugging Face folders, it is written in Python over PyTorch, and its home is the GPU. It has three ideas that made it known, and this lab measures each:
#
# | idea | what it means | section |
# |---|---|---|
# | **continuous batching** | each step computes one token for *every* running request; who is done leaves, who waits comes in | 3 |
# | **prefix caching** | the KV cache of a prompt's beginning is kept for the next prompt that begins alike | 4 |
# | **paged KV cache** | the cache is cut into small **blocks**, so that no request holds memory that it does not use yet | 6 |
#
# llama-server and Ollama are servers for one or a few users: small, quick to start, with weights of 4 bits. That has a price, and vLLM's way has one, too.
#
# There is a build of vLLM for processors without a GPU, and it is what runs here. All that you learn about its API, its settings and its metrics holds on a GPU as well. The *times* do not.
#
# **Predict.** How many seconds from nothing to ready? How many GB of memory, for a model whose weights are 0.1 GB in Ollama?

# %%
my_guess_s = 10.0  # <- your number
my_guess_gb = 1.0  # <- your number

# %%
started = lab.step("start", lambda: ask.start_rows(desk))
fig = vllm_plots.draw_start(started, my_guess_s, my_guess_gb, lab.caption("start"))
for row in started:
    print(f"{row['server']} {row['version']}: ready after {row['start_s']:.1f} s, {row['memory_bytes'] / 1e9:.2f} GB")
assert len(fig.axes) == 2

# %% [markdown]
# (Both axes are logarithmic.) Take the sum apart: the weights are 135 million × 4 bytes = 0.54 GB, the KV cache, which is taken in full at the start, is 0.17 GB. The rest, about 1.9 GB in the recording, is the program: Python, PyTorch and their buffers.
#
# **Why `float32` here?** Many processors have no instruction for 16-bit products, and then `bfloat16` (vLLM's usual choice) is computed in a roundabout way, which can take
# several times as long. On a GPU, and on processors with AMX or AVX-512 BF16 (`lscpu` names them), take `dtype="bfloat16"`: half the memory, and usually faster. Then halve `kv_gib` too, or section 6 has no shortage to show.
#
# ## 2. Its API
#
# vLLM speaks OpenAI's protocol under `/v1`, with fields and routes of its own beside it. One request carries a spelling mistake. **Predict**: which of them are refused?

# %%
import pandas as pd

pd.set_option("display.max_colwidth", 70)
api = lab.step("api", lambda: ask.api_rows(desk))
pd.DataFrame(api)[["whose", "asked", "route", "status", "answer"]]

# %% [markdown]
# Three things to take away:
#
# - What OpenAI's clients do not know (`top_k`, `min_tokens`, `structured_outputs`) goes into `extra_body` of the official client.
# - **A misspelt field is not refused.** The answer is 200, and the text is the same as with temperature 0. Test that a setting changes something.
# - Asking for a longer answer than the context holds is an error (400), not a shorter answer.
#
# ## 3. Continuous batching
#
# Decode makes one token a step, and must read all weights for it (lab 02). With 16 requests in a **batch**, one reading serves 16 tokens. But answers have different lengths.
# If a batch stays together until its longest answer is done (**static batching**), the places of the others stand empty. With **continuous batching** a free place goes to the next request at the next step.
#
# Look first, with three places. The figure is *computed*: one step is one token for each place.

# %%
from labkit.learn.widgets import explore


def draw(places, batching, longest):
    lengths = [4, longest, 6, 9, 5, 12, 3, 8]
    return vllm_plots.draw_places(lengths, places, batching == "continuous", "computed, not measured")


box = explore(draw, places=[3, 2, 4, 8], batching=["continuous", "static"], longest=(4, 40, 1))

# %% [markdown]
# **Exercise 1.** `lengths` are the tokens of each answer, in the order of the requests; `slots` is the number of places. All requests are there at the start.
# Complete the function: how many steps until all are done, with continuous batching?

# %% tags=["exercise"] exercise="batch_steps"
def batch_steps(lengths, slots):
    """Decode steps until the last answer is done; a free place goes to the next request at once."""
    ### BEGIN SOLUTION
    free = [0] * slots
    for length in lengths:
        first = free.index(min(free))
        free[first] += length
    return max(free)
    ### END SOLUTION

# %% tags=["check"] exercise="batch_steps" points=3
ex.batch_steps.check(batch_steps, seed=seed)

# %% [markdown]
# Now the real server. More requests than places arrive at the same moment, with answers of different lengths. vLLM's `--max-num-seqs` is the number of places.
# While they run, the lab reads `/metrics` ten times a second.

# %%
from labkit.learn import vllm_sums

lengths = vllm_sums.lengths(seed, count=24, longest=24 if quick else 64)
burst = lab.step("burst", lambda: ask.burst_rows(desk, lengths))
fig = vllm_plots.draw_burst(burst, settings["max_num_seqs"], lab.caption("burst"))
assert len(fig.axes) == 2

# %% [markdown]
# Read the lower plot from left to right: At first it may show 1 running and none waiting, although all were sent: vLLM sets these gauges at the end of a step, and a step that reads many prompts is long. Then as many run as there are places, or one or two fewer for a step, and the rest wait. Each time a short answer is done, one of those who wait comes in, long before the longest answer is done.
# (A gap in the lines is a moment in which the server was too busy to answer `/metrics`.)
#
# **And what does it bring?** Clients that ask again as soon as they have an answer (a **closed loop**): 1, then more. All prompts differ from their first letter, so that no cache helps, and they are short: decode is what is measured.
#
# **Predict.** With 16 clients instead of one: how many times as many tokens per second, all together?

# %%
my_guess_gain = 8.0  # <- your number

# %%
levels, rounds, tokens = ([1, 4, 16], 1, 12) if quick else ([1, 2, 4, 8, 16], 2, 24)
batching = lab.step("batching", lambda: ask.batching_rows(desk, levels, rounds, tokens))
fig = vllm_plots.draw_batching(batching, my_guess_gain, lab.caption("batching"))
print("\n".join(vllm_view.told_batching(batching)))
assert len(fig.axes) == 3

# %% [markdown]
# Two sides of one thing: **all together** get more, and **each** waits longer for every token. A step shares what it does only once: reading the weights, and the program's own work
# (with so small a model on a processor that is most of a step, so the gain is large). What it does for each request, the arithmetic, is not shared. Where that becomes the limit, the blue line leaves the dotted one and TPOT grows with each further client.
#
# **Exercise 2.** Throughput follows from TTFT and TPOT. Each of `clients` asks again as soon as it has its answer of `output_tokens` tokens. Complete the function: tokens per second, all together.

# %% tags=["exercise"] exercise="tokens_per_s"
def tokens_per_s(clients, ttft_s, tpot_s, output_tokens):
    """Output tokens per second of all clients; ttft_s and tpot_s are what each client sees."""
    ### BEGIN SOLUTION
    return clients * output_tokens / (ttft_s + (output_tokens - 1) * tpot_s)
    ### END SOLUTION

# %% tags=["check"] exercise="tokens_per_s" points=2
ex.tokens_per_s.check(tokens_per_s, seed=seed)

# %% [markdown]
# Does that hold for the run above? *Predicted* is computed from the medians of TTFT and TPOT, *measured* is tokens divided by seconds:

# %%
fig = vllm_plots.draw_computed(batching, lab.caption("batching"))
assert len(fig.axes[0].patches) == 2 * len(levels) or lab.source == "recorded"

# %% [markdown]
# (It cannot fit to the digit: medians are no means, and at the end of a run some clients are done while others still work.)
#
# ## 4. Prefix caching
#
# Chat requests often begin alike: a system prompt, a document, the turns so far. vLLM keeps the KV cache of each *full block* of tokens, named by a hash of the tokens in it **and of all before it**.
# A new prompt takes every block from the cache as long as it is the same from the first token on. So it is the *beginning* that counts, and one different token at the front changes all names.
#
# **Exercise 3.** A prompt has `prompt_tokens`; its first `shared_tokens` stood in an earlier prompt. Only whole blocks are found, and the last token of a prompt is always computed
# (without it there is nothing to choose the first token of the answer from). Complete the function: how many tokens come from the cache?

# %% tags=["exercise"] exercise="cached_tokens"
def cached_tokens(prompt_tokens, shared_tokens, block_size):
    """Tokens that are not computed again."""
    ### BEGIN SOLUTION
    return min(shared_tokens, prompt_tokens - 1) // block_size * block_size
    ### END SOLUTION

# %% tags=["check"] exercise="cached_tokens" points=2
ex.cached_tokens.check(cached_tokens, seed=seed)

# %% [markdown]
# Now on the server: one long text with a short question at the end, three ways **in turn** on the same server.
#
# - *same beginning*: only the question differs.
# - *a `cache_salt` of its own*: the same text, but with a field of vLLM's that keeps users' caches apart. It belongs to the names of the blocks.
# - *other first words*: "Copy 7 of today" in front. People do this with dates, names and request numbers.
#
# **Predict.** Without the cache: how many times as long until the first token?

# %%
my_guess_times = 3.0  # <- your number

# %%
prefix = lab.step("prefix", lambda: ask.prefix_rows(desk, 2 if quick else 4, seed))
fig = vllm_plots.draw_prefix(prefix, lab.caption("prefix"))
print(f"you said {my_guess_times:g} times.", *vllm_view.told_prefix(prefix), sep="\n")
assert len(fig.axes) == 2

# %% [markdown]
# Three witnesses agree: your arithmetic, `usage.prompt_tokens_details.cached_tokens` of the answers (the server needs `--enable-prompt-tokens-details` to tell), and the growth of a counter.
# Put what changes at the **end** of the prompt. And salt the prompts of every load test, or its second run measures the cache.
#
# ## 5. Reading /metrics, and the edge of capacity
#
# `/metrics` is text, one number a line, for Prometheus to collect (lab 19). Three kinds:
#
# | kind | example | how to read it |
# |---|---|---|
# | **gauge** | `vllm:num_requests_waiting` | the value now |
# | **counter** | `vllm:generation_tokens_total` | since the start of the server; what counts is its *growth* |
# | **histogram** | `vllm:time_to_first_token_seconds` | counters by size: how many were at most 0.1 s, at most 0.25 s, … |
#
# **Exercise 4.** `buckets` is a list of pairs: an upper edge, and how many values were *at most* that; the last edge is `math.inf`. Complete the function: the quantile `q` (0.95 for p95).
# Its rank is q times the number of values. Find the bucket with that rank, and go linearly from its lower edge (0 for the first) to its upper edge. Beyond the last finite edge, return that edge. Prometheus does the same.

# %% tags=["exercise"] exercise="p95"
import math


def p95(buckets, q):
    """The quantile q of a histogram with cumulative counts."""
    ### BEGIN SOLUTION
    rank, below, low = q * buckets[-1][1], 0.0, 0.0
    for edge, count in buckets:
        if count >= rank:
            return low if math.isinf(edge) else low + (edge - low) * (rank - below) / (count - below)
        below, low = count, edge
    ### END SOLUTION

# %% tags=["check"] exercise="p95" points=3
ex.p95.check(p95, seed=seed)

# %% [markdown]
# Real users do not wait for each other. In an **open loop** requests come by chance, whatever the server does, and a latency counts from the moment at which the request was due.
# The lab takes the best throughput of section 3 as the **capacity**, and sends shares of it. One thing is different on purpose: these prompts are chats of about 60 tokens, and those of section 3 had 8.
# **Goodput** counts only requests whose first token came within the target.
#
# **Predict.** At 1.3 times the capacity of section 3: what is the p95 of the TTFT, in seconds, against a target of 1.5?

# %%
my_guess_p95 = 2.0  # <- your number

# %%
from labkit.measure.load import Slo

slo = Slo(ttft_s=1.5)
shares, seconds = ([0.5, 1.3], 5) if quick else ([0.5, 0.8, 1.3], 12)
capacity = vllm_view.best(batching)[1] / tokens
edge = lab.step("open", lambda: ask.open_rows(desk, shares, capacity, seconds, tokens, slo, seed))
fig = vllm_plots.draw_open(edge, slo, my_guess_p95, lab.caption("open"))
assert len(fig.axes) == 2

# %% [markdown]
# While the server keeps up, a queue comes and goes; when it does not, the queue grows for as long as the load lasts. That can be so already below the capacity of section 3, which was measured without prompts that arrive in between. So a p95 measured there says how long *you measured*, not how good the server is.
# And where is the edge? Sooner than section 3 promised, as each prompt has to be read, too, and reading is arithmetic that no batch shares. A capacity holds for the prompts it was measured with, and for no others.
# vLLM refuses nobody by itself: who does not get a place waits (`--max-num-queued-reqs` sets a limit; then it answers with an error).
#
# Now the same p95 from two sides: the client's own times, and out of the server's histogram.

# %%
fig = vllm_plots.draw_buckets(edge[-1], lab.caption("open"))
pd.DataFrame(vllm_view.p95_rows(edge)).round(2)

# %% [markdown]
# They differ, for two reasons. The buckets are wide: a p95 out of them lies *somewhere* in its bucket, and an alert at 2 s between the edges 1.0 and 2.5 is a guess. And the server's clock starts when the request
# has reached it, while the client's starts when it was due; that alone would make the server's p95 the smaller one. Where it is the larger, the bucket did it. With few requests the p95 itself is uncertain, too: `n` stands beside it.
#
# ## 6. Settings: places, and room in the KV cache
#
# `--max-num-seqs` is read once, at the start. To compare two values the server must be started again, and between two starts a machine can change. So **bracket** the change: the old setting, the new one, *the old one again*.
# The difference between the two outer runs is the noise; only what is larger counts.
#
# **Predict.** 16 clients, and 2 places instead of 16. Throughput falls to which share? And the first token: sooner or later?

# %%
my_guess_share = 0.5  # <- your number

# %%
bracket = lab.step("bracket", lambda: ask.bracket_rows(desk, [16, 2, 16], 16, tokens), left_out="a quick run starts vLLM once" if quick else "")
fig = vllm_plots.draw_bracket(bracket, my_guess_share, lab.caption("bracket"))
print("\n".join(vllm_view.told_bracket(bracket)))
assert len(fig.axes) == 2

# %% [markdown]
# With few places a request that has one is quick, but the others wait for theirs. More places than the machine can feed only lengthen everybody's TPOT; look for the bend in section 3's left plot.
#
# **Room.** Each token of each running request has its keys and values in the cache (lab 02): layers × KV heads × head size × 2 × bytes of a number. vLLM takes the memory at the start
# (`--kv-cache-memory-bytes`, on CPUs also `VLLM_CPU_KVCACHE_SPACE` in whole GiB; on a GPU a share of its memory) and cuts it into blocks. **Compute first**: how many tokens fit here?

# %%
space = lab.step("space", lambda: ask.space_rows(desk))
row = space[0]
print(f"{row['kv_bytes']:,} bytes / {row['bytes_per_token']:,.0f} bytes a token, in blocks of {row['block_size']}: {row['predicted_tokens']:,} tokens fit")
print(f"vLLM says {row['blocks']} blocks of {row['block_size']}: {row['told_tokens']:,} tokens. It keeps one block for itself: {row['blocks'] - 1} are for requests")

# %% [markdown]
# **Exercise 5.** `requests` is a list of pairs (prompt tokens, output tokens); the requests share nothing. Complete the function: how many blocks do they need when all are at their end at the same time?

# %% tags=["exercise"] exercise="blocks_needed"
def blocks_needed(requests, block_size):
    """Blocks of the KV cache for all requests together."""
    ### BEGIN SOLUTION
    return sum(-(-(prompt + output) // block_size) for prompt, output in requests)
    ### END SOLUTION

# %% tags=["check"] exercise="blocks_needed" points=2
ex.blocks_needed.check(blocks_needed, seed=seed)

# %% [markdown]
# What if it is not enough? A request is let in when there is room for its *prompt*; nobody knows how long its answer gets. When the blocks run out, vLLM **preempts** the request that came last:
# its blocks are given away, and later it is computed again from its beginning. Nobody is refused, nothing is lost, and the work is done twice.
#
# Requests of two blocks now, of 8 and of 16 clients in turn. They are let in with one block each. 8 clients need 16 blocks, 16 clients need 32, and the line above says how many there are. **Predict**: how many of the 16 must give their blocks away, until the others fit?

# %%
my_guess_preempted = 8  # <- your number

# %%
preempt = lab.step("preempt", lambda: ask.preempt_rows(desk, [8, 16], rounds=1, tokens=40, prompt=100))
fig = vllm_plots.draw_preempt(preempt, my_guess_preempted, lab.caption("preempt"))
pd.DataFrame(preempt)[["clients", "blocks_needed", "blocks", "most_running", "most_cache_usage", "preemptions", "tokens_per_s"]].round(2)

# %% [markdown]
# In the recording 27 blocks are for requests: 13 requests of two blocks fit and 14 do not, so 3 of the 16 have to go. The table does not show alone what that costs, as the number of clients changes too.
#
# `vllm:num_preemptions_total` should stand still in a healthy service. If it grows: more room, fewer places, or shorter requests. Wrong room does not show as an error, only as time.
#
# ## 7. When not to use it
#
# A table that is copied from page to page says: 25, 20 and 15 tokens per second for vLLM, Ollama and ONNX Runtime on a GPU, 8, 12 and 15 on a processor, with no machine, model or number of users.
# Test it: llama-server (the engine inside Ollama) and vLLM on *this* machine, in turn, with one client and with several. llama-server gets two files: the weights in 16 bits, and the model's own.
#
# **Predict.** Who gives more with one client? And with many?

# %%
my_guess_one, my_guess_many = "llama-server", "vLLM"  # <- your choice

# %%
compare = lab.step("compare", lambda: ask.compare_rows(desk, [1, 8] if quick else [1, 16], 1 if quick else 2, tokens), needs="llama_server")
fig = vllm_plots.draw_compare(compare, (my_guess_one, my_guess_many), lab.caption("compare"))
pd.DataFrame(vllm_view.table_rows(compare)).round(2)

# %% [markdown]
# The ratio depends on the number of clients and on the file, so one number for "vLLM" says nothing. For a laptop, or any machine without a GPU, look at this list before you take vLLM:
#
# - **one or a few users**: a small server with a 4-bit file starts in seconds, and takes a tenth of the memory;
# - **the model must come and go**: every start costs what section 1 showed;
# - **memory is scarce**: the program alone takes about 2 GB. vLLM can read 4-bit weights on a processor (AWQ, GPTQ), but not this 4-bit GGUF file: the lab unpacks it.
#
# Take vLLM for many users on a GPU, for its metrics and its many settings, and on a processor to *test* what will run on a GPU later.
#
# ## 8. What people say

# %%
from labkit.facts import claims

checked = lab.step("claims", lambda: ask.claim_rows(desk))
said = [*checked, vllm_view.table_claim(compare)]
pd.set_option("display.max_colwidth", None)
pd.DataFrame([{"they say": c["says"], "result": claims.in_words(c), "why": c["why"]} for c in said])

# %% [markdown]
# The lab is done with its server. (It also goes when you close the notebook, and when a cell fails.)

# %%
desk.close()

# %% [markdown]
# A dashboard or an alert with a wrong name shows nothing at all, and no error. `labkit lint` finds names that no vLLM has; here in a rule for an alert:

# %% tags=["nbval-check-output"]
from labkit.facts import lint

rule = """groups:
  - name: vllm
    rules:
      - alert: Queue
        expr: vllm:requests_waiting > 10
"""
for finding in lint.check_text("rules.yml", rule).findings:
    print(f"line {finding.line}: {finding.message}")

# %% [markdown]
# ## To remember
#
# 1. Continuous batching trades each user's speed for everybody's throughput. Measure on your machine with how many clients the throughput stops growing, and set `--max-num-seqs` there.
# 2. A prefix cache works from the first token on, in whole blocks. What changes belongs to the end of a prompt; load tests need salt.
# 3. Too little KV room and too much load give no error, only time: watch waiting requests, KV cache usage and preemptions, and read counters by their growth.
#
# **In production:** keep it on 127.0.0.1 behind a proxy with keys, TLS and limits (labs 15 and 16); `--api-key` guards `/v1` only, `/metrics` and `/health` stay open. Limit the queue, alert on waiting requests (lab 19),
# and let a request's salt be the tenant's, if tenants must not learn from timing what others asked.
#
# **Read more:** [vLLM's documentation](https://docs.vllm.ai) · [PagedAttention (Kwon et al., 2023)](https://arxiv.org/abs/2309.06180) ·
# [Orca: iteration-level scheduling (Yu et al., 2022)](https://www.usenix.org/conference/osdi22/presentation/yu) · [Prometheus: histograms](https://prometheus.io/docs/practices/histograms/)
#
# **The same lab on a bigger model:** `labkit run 18 -p model PATH -p dtype bfloat16 -p kv_gib 0.4` with a GGUF file that has a chat template (the room for the KV cache must hold one request of the whole context: 0.4 is for a model such as qwen3-0.6b). It is unpacked to 4 bytes a weight first. What vLLM then takes, with `dtype="bfloat16"`:

# %%
from labkit.models import catalog

for name in ("qwen3-0.6b", "gemma3-1b", "phi-4-mini"):
    count = catalog.get(name).parameters
    print(f"{name}: about {4 * count / 1e9:.1f} GB on the disk, {2 * count / 1e9 + 2.2 + kv_gib * 1.07:.1f} GB of memory")
