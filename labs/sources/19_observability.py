# ---
# labkit:
#   title: Seeing what a model service does
#   minutes: 45
#   memory_gb: 2
#   track: [operate]
#   builds_on: [1, 10, 18]
#   prerequisites: ["llama-server, HAProxy, Prometheus, Alertmanager and Loki (Linux: `labkit doctor` says how to get each) for your own figures; without them the lab plays its recording"]
#   expected:
#     - "requests that wait and requests in flight move within a look or two of the busy time; rates over 10 seconds come up to some seconds later"
#     - "from the kill of a replica to the notification: about as computed, 4 to 8 seconds with the lab's settings"
#     - "the slow request is far above the others in the log, its two records agree on its tokens, and no line has a word of its prompt"
#     - "log and clients agree on p50 and p95 to some per cent; the slowest request is several times the mean"
#   transfer:
#     - "A dashboard shows 0.4 requests/s and 9 requests in flight. Is that much or little load, and which further panel do you look at first?"
#     - "An alert on CPU above 80 % fires all day on your model server, and nobody reads it any more. What do you alert on instead?"
#     - "After a deployment a colleague's graph of requests per second shows a fall to minus 40. What did the query forget?"
#     - "A user complains about an answer at 14:03 and sends you the X-Request-ID. Which two searches do you type, and what do they tell you?"
#     - "Your company wants prompts in the log, to debug with. What do you say, and what do you offer instead?"
# ---

# %% [markdown]
# # 19 · Seeing what a model service does
#
# **The question this lab answers: is my service well, who is told when it is not, and where did this one slow request lose its time?**
#
# It builds on labs 01 (TTFT, TPOT), 10 (parallel requests) and 18 (reading `/metrics`). About 45 minutes, of which the machine takes 2 (AMD EPYC, 2 cores); at most 2 GB of memory. Nothing is downloaded.
#
# You start a small service as a company would run it, on this machine alone: two **replicas** (equal copies) of llama-server and a **balancer**, HAProxy, which gives each request to one of them. Beside them stand the programs that watch:
#
# | program | its part |
# |---|---|
# | **Prometheus** | asks everybody for their figures (**metrics**) every second, keeps them, and answers questions about them |
# | **Alertmanager** | tells people what Prometheus finds wrong: once, not every second |
# | **Loki** | keeps log lines of all servers and finds them again |
#
# Where one of them is missing, every figure is a **recording** and says so.

# %% tags=["parameters"]
model: str = "smollm2-135m"  # catalogue name, or the path of a GGUF file
engine: str = "openai"  # how the lab asks; the balancer and its replicas speak this protocol
threads: int = 1  # of each replica
seed: int = 1  # your own seed gives you your own exercise numbers
quick: bool = False  # True: shorter times, for a fast check
results_path: str = "results.jsonl"  # results are appended here

# %%
from labkit.learn import watch_desk, watch_plots
from labkit.learn import watch_rows as ask
from labkit.learn.exercises import lab_19 as ex
from labkit.learn.lab import start

lab = start(
    "19_observability", model=model, engine=engine, threads=threads, seed=seed, quick=quick, results_path=results_path, load=False,
    needs=watch_desk.PARTS,
)
desk = watch_desk.Desk(lab.model, threads=threads)

# %% [markdown]
# ## 1. What a server says of itself
#
# llama-server has a page `/metrics`: one number a line. Here are those numbers before and after *one* request of about 24 prompt tokens and 16 tokens of answer.

# %%
import pandas as pd

raw = lab.step("raw", lambda: desk.rows(lambda: ask.raw_rows(desk)))
pd.DataFrame(raw)

# %% [markdown]
# Two kinds. A **gauge** is a value now: requests that are computed, requests that are *deferred*, which means that they wait for a place. A **counter** only grows; alone it says nothing, but its growth does: tokens per second, seconds per token.
# (The prompt has more tokens than its 24 letters: the chat template adds its own, lab 00. The two gauges `…_tokens_seconds` are tokens *per* second, in spite of their name.)
#
# Growth has a trap: when a server is restarted, its counters begin at 0 again.
#
# **Exercise 1.** `samples` are pairs (time in seconds, value of the counter), oldest first. Complete the function: how fast did the counter grow, per second, between the first and the last sample? Where it falls, the server was restarted.

# %% tags=["exercise"] exercise="rate"
def rate(samples):
    """Growth per second of a counter, restarts included."""
    ### BEGIN SOLUTION
    grown = 0
    for (_, before), (_, after) in zip(samples, samples[1:]):
        grown += after - before if after >= before else after
    return grown / (samples[-1][0] - samples[0][0])
    ### END SOLUTION

# %% tags=["check"] exercise="rate" points=3
ex.rate.check(rate, seed=seed)

# %% [markdown]
# Prometheus does this for you: `rate(llamacpp:tokens_predicted_total[10s])`. This language of questions is **PromQL**. The part in brackets is the **window**: how far back it looks. (At the ends of the window Prometheus also guesses on a little; this lab's own `rate` does not.)
#
# ## 2. A dashboard
#
# A quiet time, a busy one (ten users who ask again as soon as they have their answer; the service has four places), and a quiet one. Prometheus watches, and then it is asked the questions of `labkit.scale.observe.CATALOGUE`, one panel for each.
#
# **Predict.** After how many seconds of the busy time does the *first* panel show at least twice what it showed before?

# %%
my_guess_first_s = 5.0  # <- your number

# %%
quiet_s, busy_s = (6, 8) if quick else (15, 18)
phases = [("quiet", quiet_s, {"rate": 1, "seed": seed}), ("busy", busy_s, {"concurrency": 10}), ("quiet again", quiet_s, {"rate": 1, "seed": seed + 1})]
seen = lab.step("phases", lambda: desk.rows(lambda: ask.phase_rows(desk, phases)))
fig = watch_plots.draw_dashboard(seen, lab.caption("phases"))
for row in watch_plots.kinds(seen, "phase"):
    print(f"{row['name']}: {row['ok']} of {row['requests']} requests answered, p95 of their time to first token {row['ttft_p95_s']:.2f} s")
assert len(fig.axes) >= 9

# %% [markdown]
# (Grey: the busy time.) Which panel moved first?

# %%
print(f"you said {my_guess_first_s:g} s")
for title, seconds in watch_plots.first_to_move(seen):
    print(f"{seconds:5.1f} s  {title}")

# %% [markdown]
# *Requests in flight* and *requests that wait* are gauges: one look, and they are right. A rate over 10 seconds still has 9 quiet seconds in it after the first busy one. And look at requests per second: when the service is full it stays where it is, however many users wait. For a model service, whose answers take seconds,
# **requests in flight against the number of places** is the figure to watch, and to scale by (lab 20). *Tokens a second* says what the machine can do; *seconds per token* says what users feel of it.
#
# The same panels as a Grafana dashboard: it is made by code from the same catalogue, so the two cannot differ. (No Grafana is needed here, and none was run.)

# %%
from labkit.scale import dashboards, observe

exported = dict(dashboards.panels(dashboards.text()))
drawn = {observe.CATALOGUE[row["query"]].title for row in watch_plots.kinds(seen, "series")}
print(f"{len(drawn & set(exported))} of the {len(drawn)} panels above are in the dashboard's JSON; one of them:")
print(exported["Tokens made a second"])

# %% [markdown]
# **How long a window?** Try it on this counter of yours. A short window is quick and restless, a long one smooth and late. It should hold at least four looks, or a single missed look leaves nothing to draw.

# %%
from labkit.learn.widgets import explore


def draw(window_s):
    return watch_plots.draw_rates(seen, window_s, lab.caption("phases"))


box = explore(draw, window_s=[10, 2, 5, 20, 40])

# %% [markdown]
# ## 3. An alert
#
# Nobody looks at a dashboard at night. An **alert** is a question that Prometheus asks again and again, and a limit. It is *pending* when the value is beyond the limit, and *fires* when it has been so for some time. Only then somebody is told.
#
# **Exercise 2.** `values` are looks (time in seconds, value), one after another. Complete the function: the alert's state at each look, as a list of `"inactive"`, `"pending"` and `"firing"`.
# It is about values *above* `limit`, and fires from the look on that is at least `hold_s` seconds after the first look above it, if all looks in between were above it, too.

# %% tags=["exercise"] exercise="states"
def states(values, limit, hold_s):
    """The alert's state at each look."""
    ### BEGIN SOLUTION
    since, found = None, []
    for now, value in values:
        since = None if value <= limit else now if since is None else since
        if since is None:
            found.append("inactive")
        else:
            found.append("firing" if now - since >= hold_s else "pending")
    return found
    ### END SOLUTION

# %% tags=["check"] exercise="states" points=3
ex.states.check(states, seed=seed)

# %% [markdown]
# Now for real. Under a light load one replica is killed, as if the machine had run out of memory, and some seconds after the notification it is started again. This is the rule, as Prometheus reads it:

# %%
import yaml

from labkit.scale import rules

rule = next(row for row in rules.groups(desk.limits)["groups"][1]["rules"] if row["alert"] == ask.ALERT)
print(yaml.safe_dump(rule, sort_keys=False, width=120))

# %% [markdown]
# Everybody waits for the one before: HAProxy looks at its replicas every 0.5 s and believes the second failure, or notices at once when a request fails; Prometheus asks HAProxy every second, and looks at its rules every second; the rule holds for 3 s (`for`); Alertmanager waits 1 s for alerts that belong together.
#
# **Predict.** How many seconds from the kill until somebody is told?

# %%
my_guess_told_s = 3.0  # <- your number

# %%
alert = lab.step("alert", lambda: desk.rows(lambda: ask.alert_rows(desk)))
fig = watch_plots.draw_alert(alert, my_guess_told_s, ask.shortest_s(desk.limits), lab.caption("alert"))
(counts,) = watch_plots.kinds(alert, "requests")
print("requests meanwhile:", ", ".join(f"{counts[key]} {key}" for key in ("ok", "cut", "refused", "error", "timeout") if counts[key] or key in ("ok", "cut")))
assert len(fig.axes) == 2

# %% [markdown]
# The computed span is `for` and Alertmanager's wait, which always pass, and the looks, which may come at once or a whole interval later. In production the same numbers are larger: 15 to 60 s between looks and minutes of `for` are usual, and they add up in the same way.
#
# The balancer sent new requests to the other replica, so users hardly noticed. Only an answer that was *running* on the dead replica can be lost: its client sees a stream that is **cut** and must ask again (lab 20).
# Which alerts should wake somebody? Those about what users feel: no answer, errors, slow first tokens. That one of two replicas is down can wait for the morning, and this rule's `severity` says so: `ticket`, not `page`.
#
# **Exercise 3.** How many errors are too many? An **objective** says which share of requests must be good, 0.99 for instance. The rest may fail: that is the **error budget**. Complete the function: which share of the budget is used? 1.0 is all of it.

# %% tags=["exercise"] exercise="budget_used"
def budget_used(good, total, objective):
    """Share of the error budget that is used, from requests that were good and all requests."""
    ### BEGIN SOLUTION
    return (total - good) / (total * (1 - objective))
    ### END SOLUTION

# %% tags=["check"] exercise="budget_used" points=2
ex.budget_used.check(budget_used, seed=seed)

# %% [markdown]
# ## 4. One slow request
#
# Metrics say *that* something is slow. Which request it was, and why, stands in the **log**: one line for each request, here as JSON. HAProxy gives each request an id, and tells it to the client in the header `X-Request-ID`. A **shipper** takes the lines of all servers to Loki.
#
# While short requests come, one user sends a long question and wants a long answer.
#
# **Predict.** About 40 requests of some tenths of a second each, and one of some seconds. What is the *mean* time of a request?

# %%
my_guess_mean_s = 1.0  # <- your number

# %%
LIMIT_MS = 1000
word = f"zanzibar{seed}"  # stands in the long question
slow_one = lab.step("slow", lambda: desk.rows(lambda: ask.slow_rows(desk, 5 if quick else 10, 2.5, word)))
fig = watch_plots.draw_lines(slow_one, LIMIT_MS, lab.caption("slow"))
assert len(fig.axes) == 1

# %% [markdown]
# Loki was asked `{job="haproxy"}`, which gives all lines of the balancer. The question for slow ones only would be `{job="haproxy"} | json | total_ms > 1000`. Do that by hand once:
#
# **Exercise 4.** `lines` are log lines, each a JSON text with `request_id` and `total_ms` (milliseconds) among other things. Complete the function: the ids of the requests that took longer than `limit_ms`, the slowest first.

# %% tags=["exercise"] exercise="slow"
import json


def slow(lines, limit_ms):
    """Ids of the slow requests, the slowest first."""
    ### BEGIN SOLUTION
    rows = [json.loads(line) for line in lines]
    rows = [row for row in rows if row["total_ms"] > limit_ms]
    return [row["request_id"] for row in sorted(rows, key=lambda row: row["total_ms"], reverse=True)]
    ### END SOLUTION

# %% tags=["check"] exercise="slow" points=2
ex.slow.check(slow, seed=seed)

# %% [markdown]
# From the id to the cause. The balancer's line says who answered and how long each part took; the replica's own record says what it computed.

# %%
needle = watch_plots.kinds(slow_one, "needle")[0]
told = watch_plots.line_of(slow_one, needle["request_id"])
print("the client waited    ", f"{needle['took_s']:.2f} s, and was told the id {needle['request_id']}")
print("the balancer wrote   ", {key: told[key] for key in ("server", "status", "wait_ms", "total_ms")})
record = max(watch_plots.kinds(slow_one, "replica"), key=lambda row: row["output_tokens"] or 0)
print("the replica wrote    ", {key: record[key] for key in ("server", "prompt_tokens", "prompt_ms", "output_tokens", "output_ms")})
print("lines with its words ", watch_plots.kinds(slow_one, "secret")[0]["lines"])
assert record["server"] == told["server"]

# %% [markdown]
# It did not wait (`wait_ms`), and nothing was broken: its answer had twenty times as many tokens as the others'. That is the usual end of such a search with language models: look at the **tokens** before you look for a fault.
#
# And no line holds a word of the question. Prompts are people's letters, questions to a doctor, passwords. Whoever can read the log could read them all, for as long as the log is kept. Log counts and times; log text only when it was asked for and the people concerned know it.
#
# ## 5. Mean and percentile

# %%
fig = watch_plots.draw_quantiles(slow_one, my_guess_mean_s, lab.caption("slow"))
assert len(fig.axes) == 1

# %% [markdown]
# The slow request is hardly to be seen in the mean, nor in the p50, and whether it is in the p95 depends on how many others there were. A percentile says how many users it is about; what became of one user stands in the log alone.
# The quantiles *from the log* were computed by Loki, over the lines (`quantile_over_time(0.95, … | unwrap total_ms [30s])`). They are a little shorter than the clients' own: the balancer's clock starts when the request has come, and the client's when it was due.
#
# llama-server could not have told you a percentile. Look at the table of section 1 again: there is no histogram in it (lab 18 had some).
#
# ## 6. What people say

# %%
from labkit.facts import claims, observing

mean = watch_plots.kinds(slow_one, "mean")[0]
said = [observing.no_percentile(raw), observing.mean_hides(mean["clients_s"], needle["took_s"], mean["n"])]
pd.set_option("display.max_colwidth", None)
pd.DataFrame([{"they say": c["says"], "result": claims.in_words(c), "why": c["why"]} for c in said])

# %% [markdown]
# The lab is done with its servers. (They also go when you close the notebook, and when a cell fails.)

# %%
desk.close()

# %% [markdown]
# A name that no server has gives an empty panel, and no error. `labkit lint` finds such names in rules and dashboards:

# %% tags=["nbval-check-output"]
from labkit.facts import lint

wrong = """groups:
  - name: service
    rules:
      - alert: Queue
        expr: vllm:requests_waiting > 10
"""
for finding in lint.check_text("rules.yml", wrong).findings:
    print(f"line {finding.line}: {finding.message}")

# %% [markdown]
# ## To remember
#
# 1. Gauges tell of now, counters by their growth. For a model service, requests in flight against its places come first.
# 2. An alert is a question, a limit and a time; add up who waits for whom, and wake people only for what users feel.
# 3. Metrics say that, logs say which and why. Give each request an id, tell it to the client, and write down counts and times, not words.
#
# **In production:** the same catalogue with a longer window (60 s) and longer holds; rules and dashboards in version control, the rules tested with `promtool test rules`; metrics and logs reachable from inside only, since they have no password of their own. `docs/how-to/watch.md` shows it for a service of your own.
#
# **Read more:** [Prometheus: querying](https://prometheus.io/docs/prometheus/latest/querying/basics/) · [alerting on what users feel (Site Reliability Engineering, chapter 6)](https://sre.google/sre-book/monitoring-distributed-systems/) ·
# [LogQL](https://grafana.com/docs/loki/latest/query/) · [OpenTelemetry's names for generative AI](https://opentelemetry.io/docs/specs/semconv/gen-ai/)
#
# **The same lab on a bigger model:** `labkit run 19 -p model PATH` with a GGUF file. Two replicas hold it twice; what both take with 4-bit weights:

# %%
from labkit.models import catalog

for name in ("qwen3-0.6b", "gemma3-1b", "phi-4-mini"):
    weights = catalog.get(name).parameters * 4.5 / 8e9
    print(f"{name}: about {weights:.1f} GB on the disk, {2 * (weights + 0.2) + 0.6:.1f} GB of memory with all that watches")
