# ---
# labkit:
#   title: More users than one server can take
#   minutes: 45
#   memory_gb: 2
#   track: [operate]
#   builds_on: [10, 18, 19]
#   prerequisites: ["llama-server, HAProxy and Prometheus (Linux: `labkit doctor` says how to get each) for your own figures; without them the lab plays its recording"]
#   expected:
#     - "on two cores two servers of one thread give more tokens per second than one of two threads, but not twice as many as one of one thread"
#     - "p50 and p95, predicted for loads that had no part in the calibration, lie within 15 % of the measured ones or inside their interval, most of them"
#     - "leastconn and random(2) have a lower p95 than roundrobin where short and long answers are mixed"
#     - "naive: every second request fails after the kill; good: none does, and streams that were cut are answered at the second try"
#     - "replicas follow the load some seconds late on the way up, and much later on the way down"
#   transfer:
#     - "Your service has 70 % utilisation and a p95 of 2 s. Marketing expects 30 % more users. What happens to the p95, and what do you compute?"
#     - "A colleague scales by CPU, target 80 %. Why does that never add a replica to a llama-server with 2 threads on 4 cores, and what would you scale by?"
#     - "After a kill your dashboard shows no errors, and still users complain. What did they see, and where do you find it?"
#     - "The autoscaler goes up and down every minute. Which two settings do you change, and what does each cost?"
#     - "Your replicas are busy 20 % of the time. A hosted API costs three times as much per token as a busy replica. Which is cheaper, and what would change it?"
# ---

# %% [markdown]
# # 20 · More users than one server can take
#
# **The question this lab answers: how many servers does a load need, how is it shared out, what happens when one dies, and what does it all cost?**
#
# It builds on labs 10 (parallel requests), 18 (continuous batching) and 19 (metrics, HAProxy). About 45 minutes, of which the machine takes 4 (AMD EPYC, 2 cores); at most 2 GB of memory. Nothing is downloaded.
#
# Two cores are soon full: a second model server takes from the first what it needs. So some sections put a **stand-in** in the model server's place. It keeps the *measured* times of a real one and computes nothing, so that many fit on your machine.
# Balancer, connections, metrics and clients are real. What stand-ins or a simulator say is called ***modelled*** wherever it shows. Where HAProxy or Prometheus are missing, figures are a **recording** and say so.

# %% tags=["parameters"]
model: str = "smollm2-135m"  # catalogue name, or the path of a GGUF file
engine: str = "openai"  # how the lab asks; every server here speaks this protocol
threads: int = 1  # of a small server; the larger one has two
seed: int = 1  # your own seed gives you your own arrivals and exercise numbers
quick: bool = False  # True: shorter loads, for a fast check
results_path: str = "results.jsonl"  # results are appended here
price_per_hour: float = 0.5  # of one replica, in your currency: your own price
api_price: float = 0.3  # of a million output tokens at a hosted API, in the same currency: your own price

# %%
from labkit.learn import scaling_plots
from labkit.learn import scaling_rows as ask
from labkit.learn.exercises import lab_20 as ex
from labkit.learn.lab import start

PARTS = ("llama_server", "haproxy", "prometheus")
lab = start(
    "20_scaling", model=model, engine=engine, threads=threads, seed=seed, quick=quick, results_path=results_path, load=False, needs=PARTS
)

# %% [markdown]
# ## 1. Larger, or more?
#
# A service that is too slow can get a larger machine (**vertical** scaling) or more machines (**horizontal** scaling). Here: one llama-server with one thread, one with two threads, and two servers with one thread each behind HAProxy. Four users, each of whom asks again as soon as the answer is there; the three ways in turn.
#
# **Predict.** Two small servers give how many times the tokens per second of one?

# %%
my_guess_gain = 2.0  # <- your number

# %%
sides = lab.step("sides", lambda: ask.sides_rows(lab.model, 1 if quick else 3, 8))
fig = scaling_plots.draw_sides(sides, my_guess_gain, lab.caption("sides"))
assert len(fig.axes) == 3

# %% [markdown]
# Threads of one server wait for each other after every step of the model (lab 01), so the second thread brings less than the first. Two servers wait for nobody. But they hold the weights twice, one user alone gets nothing from the second one, and here both share one machine with the balancer and the clients.
# On machines of their own nothing is shared, and horizontal scaling also survives the death of one, section 5.
#
# ## 2. The wait
#
# Requests come by chance. Even when there is room for all *on average*, some come while others are served, and wait. For one server that takes one at a time the mean wait is known:
#
# utilisation = rate × service time, wait = utilisation / (1 − utilisation) × service time
#
# **Exercise 1.** Complete the function: mean seconds in the queue. From a utilisation of 1 on it is `math.inf`.


# %% tags=["exercise"] exercise="wait_s"
import math


def wait_s(rate, service_s):
    """Mean wait in front of one server; rate in requests per second."""
    ### BEGIN SOLUTION
    busy = rate * service_s
    return math.inf if busy >= 1 else busy / (1 - busy) * service_s
    ### END SOLUTION


# %% tags=["check"] exercise="wait_s" points=3
ex.wait_s.check(wait_s, seed=seed)

# %% [markdown]
# More places in front of one queue wait less at the same utilisation. Try it (Erlang's formula, *computed*). `cv` says how different the requests are: 0 all alike, 1 as different as chance, 2 more still, as with answers of a sentence and of a page.

# %%
from labkit.learn.widgets import explore


def draw(places, cv):
    return scaling_plots.draw_queue(1.0, places, cv, "computed for services of 1 s on average")


box = explore(draw, places=[1, 2, 4, 16], cv=[1.0, 0.0, 2.0])

# %% [markdown]
# ## 3. Predicted against measured
#
# A model server does not take one request at a time: it computes several in each step, and each slows the others down (lab 18). So a **simulator** plays its steps. It needs four numbers, and they are measured: what a step takes by itself, more for each request in it, more for each prompt token read, and what a request takes outside of all steps.

# %%
shares, seconds, repeats = ([0.4, 0.8], 10, 2) if quick else ([0.3, 0.55, 0.8], 25, 3)
measured = lab.step("calibrate", lambda: ask.calibrate_rows(lab.model, shares, seconds, repeats))
speed = ask.speed_of(measured)
most = scaling_plots.kinds(measured, "speed")[0]["most_per_s"]
fig = scaling_plots.draw_fit(measured, lab.caption("calibrate"))
print(f"at most {most:.2f} requests a second of this kind, with {speed.slots} places")
assert len(fig.axes) == 2

# %% [markdown]
# Then the server got loads that the numbers know nothing of. The simulator plays the very same arrivals.
#
# **Predict.** At the highest of these loads: the p95 of the time to first token, in seconds?

# %%
my_guess_p95 = 1.0  # <- your number

# %%
fig = scaling_plots.draw_levels(measured, my_guess_p95, lab.caption("calibrate"))
levels = scaling_plots.kinds(measured, "level")
print(f"{sum(row['agrees'] for row in levels)} of {len(levels)} figures within 15 % or inside the measured interval")
assert len(fig.axes) == 2

# %% [markdown]
# (Bars: where the true value lies with 95 % certainty; one that is open says that so few requests cannot tell.) The curve bends upwards long before the server is full. That is why a p95 is kept by *room*, and not by speed alone.
#
# ## 4. Who gets the next request?
#
# A balancer has a **policy**: in turn (`roundrobin`), to the one with the fewest requests in flight (`leastconn`), or to the better of two that are drawn at random (`random(2)`, for balancers that know little of each other).
#
# **Exercise 2.** `in_flight` are the requests that each replica has now, `up` says which of them are well. Complete the function: the number, from 0, of the replica that `leastconn` takes; of equal ones the first.


# %% tags=["exercise"] exercise="choose"
def choose(in_flight, up):
    """The number of the replica that gets the next request."""
    ### BEGIN SOLUTION
    well = [number for number in range(len(up)) if up[number]]
    return min(well, key=lambda number: in_flight[number])
    ### END SOLUTION


# %% tags=["check"] exercise="choose" points=2
ex.choose.check(choose, seed=seed)

# %% [markdown]
# Four stand-ins with the speed from section 3, four times as fast so that it does not take all day, get short and long answers mixed: 85 % of 8 tokens and 15 % of 120. Each policy gets the same arrivals.

# %%
fast = ask.faster(speed, 4)
rate = 0.7 * 4 * ask.most(fast, 24, 0.85 * ask.SHORT + 0.15 * ask.LONG)
policies = lab.step("policies", lambda: ask.policy_rows(fast, 4, rate, 6 if quick else 12, 1 if quick else 2, seed))
fig = scaling_plots.draw_policies(policies, lab.caption("policies") + "; modelled")
assert len(fig.axes) == 2

# %% [markdown]
# In turn is fair to servers that are all asked for the same. With answers of 8 and of 120 tokens it sends short requests behind long ones, though another replica is free. For models, prefer a policy that looks at requests in flight.
#
# ## 5. One dies
#
# Two *real* llama-servers behind HAProxy, a steady load, and half-way one is killed. Once HAProxy has the configuration that one finds in many first tries (in turn, no health checks, no second try), once a good one. The client is the same: a stream that is *cut* in its middle it asks for again.
#
# **Predict.** How many requests fail with the naive configuration, of all that come after the kill?

# %%
my_guess_failed = 0.2  # <- a share

# %%
kill = lab.step("kill", lambda: ask.kill_rows(lab.model, 1.5, 10 if quick else 20, seed))
fig = scaling_plots.draw_kill(kill, lab.caption("kill"))
print(
    f"you said {my_guess_failed:.0%}; naive: {ask.failed(kill, 'naive'):.0%} of the requests after the kill failed, good: {ask.failed(kill, 'good'):.0%}"
)
assert len(fig.axes) == 2

# %% [markdown]
# The naive balancer sends every second request to a dead server, for ever: status 503. The good one notices at the first failure, and what has no byte of an answer yet it sends to the other server, unseen. Only streams that had *begun* on the dead server are cut: half an answer cannot be taken back, so the client must ask again.
#
# ## 6. Replicas that follow the load
#
# An **autoscaler** looks at a figure and sets the number of replicas. Kubernetes' formula, for requests in flight (KEDA asks Prometheus for them): enough replicas that each has its target; but nothing changes while the load of one is within a tenth of its target.
#
# **Exercise 3.** `in_flight` are the requests in all replicas together, `target` what one should have. Complete the function: how many replicas should there be? At least 1, at most `most`; with `current` ones and a load within 10 % of their target, `current`.


# %% tags=["exercise"] exercise="wanted"
import math


def wanted(current, in_flight, target, most):
    """The number of replicas that the autoscaler sets."""
    ### BEGIN SOLUTION
    ratio = in_flight / (target * current)
    if 0.9 <= ratio <= 1.1:
        return current
    return min(most, max(1, math.ceil(in_flight / target)))
    ### END SOLUTION


# %% tags=["check"] exercise="wanted" points=3
ex.wanted.check(wanted, seed=seed)

# %% [markdown]
# The library's own, for three replicas that should have 4 requests each, and six loads:

# %% tags=["nbval-check-output"]
from labkit.scale.autoscale import Hpa

formula = Hpa(minimum=1, maximum=12, target=4, average=False)
print([(load, formula.wanted(3, load)) for load in (2, 11, 12, 13, 14, 30)])

# %% [markdown]
# Here the formula is at work, in **the lab's own controller**: a loop of a few lines that asks the real Prometheus every second, applies the formula of Kubernetes and KEDA, and resizes a pool of stand-ins behind the real HAProxy (lab 21 has the real ones). A new stand-in takes 2 s until it is ready, as a model that is loaded. On the way down it waits 8 s before it believes a lower load; Kubernetes waits 5 minutes.
#
# **Predict.** The load is low, then four times as high, then low again. How many replicas will it want at most? (One should have 2 requests in flight.)

# %%
my_guess_most = 3  # <- your number

# %%
calm = 0.6 * ask.most(fast, 24, 40)
steps = [(6, calm), (10, 4 * calm), (10, calm)] if quick else [(10, calm), (20, 4 * calm), (20, calm)]
follow = lab.step("autoscale", lambda: ask.autoscale_rows(fast, steps, 6, 2, 24, 40, seed))
fig = scaling_plots.draw_autoscale(follow, my_guess_most, lab.caption("autoscale") + "; stand-ins, modelled")
assert len(fig.axes) == 3

# %% [markdown]
# Look at the beginning of the high load: users wait until Prometheus has asked, the formula has been applied and a new replica is ready. An autoscaler is *late by as much as a replica takes to start*. Against a sudden crowd only replicas that are there already help, and a queue with an end.
#
# ## 7. Beyond this machine, and what it costs
#
# The simulator has no machine to wait for. For each rate: the fewest replicas (of the real speed of section 3) with which 95 % of the first tokens come within the target. All of this is *modelled*.

# %%
from labkit.scale import capacity

target_s = 4 * ask.alone_s(speed, 40)
rates = [0.5, 5, 50] if quick else [0.5, 5, 50, 500]
plans = [
    capacity.replicas_for(r, speed, target_s, prompt_tokens=40, output_tokens=40, seconds=600 if r < 5 else 120, seed=seed) for r in rates
]
fig = scaling_plots.draw_capacity(plans, f"modelled, from the speed {lab.caption('calibrate')}")
assert len(fig.axes) == 2

# %% [markdown]
# Replicas that share a queue help each other out: ten times the load needs less than ten times the replicas.
#
# **Exercise 4.** A replica costs `price_per_hour` whether it works or not. When it works it makes `tokens_per_s`, and it works for the share `busy` of the time. Complete the function: the price of a million tokens.


# %% tags=["exercise"] exercise="cost_per_million"
def cost_per_million(price_per_hour, tokens_per_s, busy):
    """Price of a million output tokens, in the currency of the price."""
    ### BEGIN SOLUTION
    return price_per_hour / (tokens_per_s * busy * 3600) * 1_000_000
    ### END SOLUTION


# %% tags=["check"] exercise="cost_per_million" points=2
ex.cost_per_million.check(cost_per_million, seed=seed)

# %% [markdown]
# With the two prices that *you* gave in the parameters (they are examples, not offers):

# %%
import pandas as pd


def price(plan):
    return capacity.cost_per_million(price_per_hour, plan.tokens_per_s_each)


pd.DataFrame(
    [{"requests/s": p.rate, "replicas": p.replicas, "tokens/s each": p.tokens_per_s_each, "a million tokens cost": price(p)} for p in plans]
).round(2)

# %%
needed = capacity.break_even(price_per_hour, api_price)
can = plans[-1].tokens_per_s_each * 3600 / 1e6
print(f"one replica of your own is cheaper than the API from {needed:.2f} million tokens an hour on; one of these makes {can:.3f}")

# %% [markdown]
# (A small model on two cores against a price for a large one on a GPU is no fair fight. The arithmetic is what you take away: put in your own measured speed and your own prices.)
#
# ## 8. What people say

# %%
from labkit.facts import claims, scaling

said = [scaling.twice_as_many(sides), scaling.no_request_lost(kill)]
pd.set_option("display.max_colwidth", None)
pd.DataFrame([{"they say": c["says"], "result": claims.in_words(c), "why": c["why"]} for c in said])

# %% [markdown]
# ## To remember
#
# 1. Waits grow like 1 / (1 − utilisation): plan room, and check a prediction with loads that it was not made from.
# 2. Balance by requests in flight, check health, try again what nobody has seen; clients ask again when a stream is cut.
# 3. Autoscalers are late by a replica's start. Cost per token is the price divided by what a replica *really* makes.
#
# **In production:** keep a replica more than the p95 needs, so that one may die; scale by requests in flight; measure the start of a replica, and bound the queue in front (lab 17's 429). Lab 21 does the same with Kubernetes' own controllers.
#
# **Read more:** [Kubernetes: the autoscaler's algorithm](https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details) · [KEDA's Prometheus trigger](https://keda.sh/docs/latest/scalers/prometheus/) ·
# [HAProxy: balance](https://docs.haproxy.org/2.6/configuration.html#4-balance) · [The Tail at Scale (Dean and Barroso, 2013)](https://research.google/pubs/the-tail-at-scale/)
#
# **The same lab on a bigger model:** `labkit run 20 -p model PATH` with a GGUF file. Section 1 holds it four times; with 4-bit weights:

# %%
from labkit.models import catalog

for name in ("qwen3-0.6b", "gemma3-1b", "phi-4-mini"):
    weights = catalog.get(name).parameters * 4.5 / 8e9
    print(f"{name}: about {weights:.1f} GB on the disk, {4 * (weights + 0.15) + 0.3:.1f} GB of memory")
