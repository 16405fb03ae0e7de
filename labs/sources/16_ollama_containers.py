# ---
# labkit:
#   title: A model server in containers
#   minutes: 45
#   memory_gb: 1.8
#   track: [operate]
#   builds_on: [2, 10]
#   prerequisites: ["Podman or Docker (`labkit doctor` says how to get it), and Ollama for one comparison; without them the lab plays its recording"]
#   expected:
#     - "a container starts some tenths of a second later than the same program as a process, and its processes take the same memory"
#     - "a change in the last lines of the Containerfile costs seconds; a new model makes its layer and those above it anew, about 100 MB"
#     - "under a limit that is too small the kernel kills the model's process and the server lives on: status 500, and a counter in the control group; far too small, and the container ends with exit code 137"
#     - "tokens a second follow the CPU limit up to the number of threads that do work, not beyond"
#     - "the proxy answers 401 without the key, 413 and 429 beyond its limits, 403 or 404 for what is not offered, and 503 while the model server is away"
#   transfer:
#     - "Your image has 4.2 GB, 4 of them the model. You ship a new version of the start script every day to 40 machines. What do you change, and what does it save?"
#     - "A container answers 500 on one request in fifty, and its state is running. Where do you look before you read the logs, and what number do you expect there?"
#     - "A colleague publishes 11434:11434 'only for a test'. Who can reach it, and what can they do with it?"
#     - "With four threads and --cpus 1 an answer takes longer than with one thread and --cpus 1. Why, and how do you check it?"
#     - "Your pipeline is green, and the deployed server answers with yesterday's model. Which check was missing?"
# ---

# %% [markdown]
# # 16 · A model server in containers
#
# **The question this lab answers: what does a container add to a model server, what does it cost, and how do you see that the limits, the checks and the locks on it really hold?**
#
# It builds on labs 02 (memory from arithmetic) and 10 (Ollama). About 45 minutes, 1.8 GB of memory with its containers.
# Run in one go, without a learner, it took 2 to 3 minutes (two runs, AMD EPYC, 2 cores) once its images were built. The first time they are built from their base up, which takes some minutes more.
#
# You build an image with a model server in it, look at its layers, run it locked down, run into its limits on purpose,
# and end with two containers that work together: the server, which nobody can reach, and a proxy in front of it that asks for a key.
#
# The lab needs **Podman** or **Docker**. All that it makes is its own: your containers, images and volumes, and your own Ollama, are left alone. It publishes ports on this machine alone.

# %% tags=["parameters"]
model: str = "smollm2-135m"  # catalogue name, or the path of a GGUF file
engine: str = "ollama"  # what serves in the containers; this lab is about no other
threads: int = 1  # threads of the model; 0: one for each core
seed: int = 1  # your own seed gives you your own exercise numbers
quick: bool = False  # True: fewer rounds, settings and builds, for a fast check
results_path: str = "results.jsonl"  # results are appended here

# %%
from labkit.learn import containers_limits as limits
from labkit.learn import containers_rows as ask
from labkit.learn import containers_view as view
from labkit.learn.exercises import lab_16 as ex
from labkit.learn.lab import start

lab = start(
    "16_ollama_containers", model=model, engine=engine, threads=threads, seed=seed, quick=quick, results_path=results_path, load=False, needs="containers"
)
desk = ask.Desk(lab.model, threads=lab.threads, engine=engine)

# %% [markdown]
# ## 1. An image
#
# An **image** is a folder tree with a note beside it: which program to start, as which user, with which settings. A **container** is a running program that sees that tree as its whole disk.
# A **Containerfile** (Docker calls it Dockerfile) is the recipe for an image, a line a step. This is the one you build:

# %%
print(view.recipe())

# %% [markdown]
# The lab builds it twice: without a model (`MODEL=none`), and with yours in it (`MODEL=file`).

# %%
import pandas as pd

made = lab.step("image", lambda: ask.image_rows(desk))
print(f"{made[0]['tool']}; Ollama's image is {made[0]['base'] or 'the official one'}")
pd.DataFrame(made)[["image", "bytes", "layers", "seconds"]]

# %% [markdown]
# ## 2. What a container is, and what it is not
#
# A container is **no machine in the machine**. It is a process of this machine's kernel, with two things around it:
#
# - **namespaces** decide what it *sees*: its own process numbers, files, network, host name;
# - a **control group** (cgroup) decides what it may *use*: memory, processor time, number of processes.
#
# The next cell starts one and asks the same questions here and inside.

# %%
def both_sides():
    with desk.run("none", memory_mb=512, cpus=1) as container:
        container.wait("/api/version")
        return ask.side_rows(container)


sides = lab.step("sides", both_sides)
pd.DataFrame([row for row in sides if row["about"] == "sides"])[["what", "here", "inside"]]

# %% [markdown]
# Look at three lines. The **kernel** is the same: a container brings programs along, never a kernel. Its **first process** is number 1 inside and an ordinary number here: you could see it in `ps`.
# And the **memory and cores in sight** are the whole machine's, though it may use only a part. A program that plans by what it sees (a cache of half the memory, a thread for each core) plans wrongly.
# The limit stands elsewhere, in the control group; a good program reads it there.

# %%
pd.DataFrame([row for row in sides if row["about"] == "spaces"])[["namespace", "separates", "own"]]

# %% [markdown]
# What costs all that? **Predict**: how many seconds later does Ollama answer when it is started in a container, compared with the same program started as a process?

# %%
my_guess_extra_s = 1.0  # <- your number

# %%
starts = lab.step("start", lambda: ask.start_rows(desk, rounds=1 if quick else 3), needs="ollama")
fig = view.draw_start(starts, my_guess_extra_s, lab.caption("start"))
for way in ("process", "container"):
    rows = [row for row in starts if row["way"] == way]
    print(f"{way}: {view.spread([row['start_s'] for row in rows])}, memory {view.middle(rows, 'memory_bytes') / 1e6:.0f} MB")
assert len(fig.axes) == 2

# %% [markdown]
# The extra time is work of the container tool: it lays the layers on top of each other, makes namespaces and a network, and starts the program at last. It is paid once for each start.
# The memory is the same within a few MB: the same program, the same kernel, no second system.
#
# ## 3. Layers
#
# An image is a pile of **layers**. Each step that changes files makes one: it holds only what is different from the layers below. A layer is named by the checksum of its content,
# so a machine stores and fetches each of them once, however many images use it.

# %%
layers = lab.step("layers", lambda: ask.layer_rows(desk.image("file")))
fig = view.draw_layers(layers, lab.caption("layers"))
print(f"{sum(row['bytes'] for row in layers) / 1e6:.0f} MB in {sum(row['bytes'] > 0 for row in layers)} layers, from {len(layers)} steps")
assert len(fig.axes[0].patches) == sum(row["bytes"] > 0 for row in layers)

# %% [markdown]
# **Exercise 1.** A build takes a step from its **cache** when neither its line nor the files that it copies nor anything below it has changed. Complete the function.

# %% tags=["exercise"] exercise="rebuilt"
def rebuilt(steps, changed):
    """Numbers (from 0) of the steps that are built anew. steps: for each step the names of the files that it copies; changed: names of files that are different now."""
    ### BEGIN SOLUTION
    for number, files in enumerate(steps):
        if set(files) & set(changed):
            return list(range(number, len(steps)))
    return []
    ### END SOLUTION

# %% tags=["check"] exercise="rebuilt" points=2
ex.rebuilt.check(rebuilt, seed=seed)

# %% [markdown]
# Now for real. The lab changes one thing at a time and builds again: nothing at all; a line at the end; the model; the health check's script, which is copied *before* the model. **Predict** for each: cache or anew? How long?

# %%
changes = lab.step("cache", lambda: ask.cache_rows(desk, ask.changes(desk, quick)))
fig = view.draw_cache(changes, lab.caption("cache"))
print(pd.DataFrame(changes)[["change", "kept", "new", "new_bytes", "seconds"]].to_string(index=False))
assert len(fig.axes[0].patches) == 2 * len(changes)

# %% [markdown]
# A build that changes nothing is quick, and so is one whose change is near the end. A new model makes its own layer anew and what lies above it, and nothing below.
# So a Containerfile goes **from what changes seldom to what changes often**. `kept` counts layers with the same checksum as before: nobody has to fetch those again.
A script that lies below the model is a surprise: its step and the model's above it are run again, yet a layer whose content came out the same keeps its checksum.
(The seconds are those of the first time. When you run the lab again, your machine has these builds in its cache too.)
#
# **Exercise 2.** So what does a machine fetch when it pulls images? Complete the function.

# %% tags=["exercise"] exercise="pull_bytes"
def pull_bytes(images, here):
    """Bytes that are fetched. images: for each image a dict {layer: bytes}; here: the set of layers that this machine has."""
    ### BEGIN SOLUTION
    wanted = {layer: size for image in images for layer, size in image.items() if layer not in here}
    return sum(wanted.values())
    ### END SOLUTION

# %% tags=["check"] exercise="pull_bytes" points=2
ex.pull_bytes.check(pull_bytes, seed=seed)

# %% [markdown]
# ## 4. Where does the model live?
#
# | | in the image | in a volume |
# |---|---|---|
# | what it is | a layer | a folder that outlives containers, mounted into them |
# | which model runs? | what the image's checksum says, always | what somebody put there last |
# | a new machine needs | the image | the image, and the model by another way |
#
# **Predict**: which way starts faster? And which is faster when a new model has to replace the old one?

# %%
from labkit.quant import gguf

ways = lab.step("ways", lambda: ask.way_rows(desk, gguf.as_type(lab.model, "Q5_1", progress=False), rounds=1 if quick else 2))
fig = view.draw_ways(ways, lab.caption("ways"))
for row in ways:
    print(f"{row['way']}: healthy after {row['healthy_s']:.1f} s; the new model answers {row['update_s']:.1f} s after the decision")
assert len(fig.axes) == 3

# %% [markdown]
# Neither is better. **In the image**: one checksum names program and model together, it can be tested, signed and rolled back as one thing. **In a volume**: a small image, and a model of 5 GB moves once, not with each version of the program.
# Whoever takes a volume has to say elsewhere which model belongs in it (by its sha256, lab 03).
#
# ## 5. Locked down
#
# By default a container may do more than a model server needs. The stack starts its containers with these words, and you should too:
#
# | option | what it takes away |
# |---|---|
# | `USER 10001` in the image | being root: number 0 inside is number 0 outside |
# | `--cap-drop=all` | the parts of root's power that even a container's root keeps |
# | `--security-opt=no-new-privileges` | getting rights back by a program such as `sudo` |
# | `--read-only --tmpfs /tmp` | changing the image's files; only /tmp, in memory, can be written |
# | `--memory`, `--cpus`, `--pids-limit` | taking the machine away from the others |
#
# An option that was written down is a promise. Whether it is kept is read **inside**, from the kernel: in `/proc/1/status`, in the control group, and by trying.

# %%
locked = lab.step("hardening", lambda: limits.hardening_rows(desk))
pd.DataFrame(locked)[["what", "plain", "hardened"]]

# %% [markdown]
# ## 6. Health that means it
#
# A **health check** is a command that the engine runs inside now and then; exit code 0 means healthy. Most checks in circulation ask whether the *server* answers. A server without a model answers too!
# **Predict** each line of the next table before you run the cell: healthy or not?

# %%
health = lab.step("health", lambda: limits.health_rows(desk))
pd.DataFrame(health)[["moment", "running", "healthy"]]

# %% [markdown]
# The container was running at each of these moments. Only its health says whether somebody would get an answer from it.
#
# ## 7. A memory limit that is too small
#
# From lab 02 and lab 10: memory = weights + KV cache × parallel requests + buffers + the program. Now it decides about life and death.
#
# **Exercise 3.** Complete the function: the limit as `--memory` takes it, with a fifth more as a reserve. The letter `m` means units of 2**20 bytes; round up.

# %% tags=["exercise"] exercise="memory_limit"
import math


def memory_limit(weights, per_token, context, parallel, program):
    """A text such as "512m". weights, per_token (KV cache for one token of one request) and program in bytes."""
    ### BEGIN SOLUTION
    need = weights + per_token * context * parallel + program
    return f"{math.ceil(need * 1.2 / 2**20)}m"
    ### END SOLUTION

# %% tags=["check"] exercise="memory_limit" points=2
ex.memory_limit.check(memory_limit, seed=seed)

# %% [markdown]
# Four requests at a time with 4,096 tokens each. The lab computes what that needs (the program's own part is measured once, at a small setting), and then starts containers with limits below and above it.
# **Predict**: which is the smallest limit that will do, in MiB? And what does a client see below it?

# %%
my_guess_mib = 512  # <- your number

# %%
steps = [24, 320, 1024] if quick else [24, 320, 448, 704, 1024]
found = lab.step("memory", lambda: limits.memory_rows(desk, steps, context=4096, parallel=4))
fig = view.draw_limits(found, my_guess_mib, lab.caption("memory"))
pd.DataFrame(found)[["limit_mib", "end", "status", "said", "exit_code", "state_says_oom", "oom_kills", "peak_mib"]]

# %% [markdown]
# Three ends, and each looks different from outside:
#
# - **The container ends, exit code 137** = 128 + 9: its first process got signal 9, SIGKILL, which nobody can catch. The kernel sends it when a control group is full.
# - **The container lives, the request gets status 500.** Ollama computes in a process of its own. That one was the largest, so the kernel killed *it*. `podman ps` says "running", and not every tool sets the flag `OOMKilled` in the container's state. The truth is in the control group: its counter `oom_kill`.
# - **It answers.**
#
# So watch that counter, not the container's state. On Kubernetes both ends look like lab 21's restarts.
#
# ## 8. A processor limit
#
# `--cpus 0.5` gives a container half of each tenth of a second; then it waits for the next one. **Predict**: does half the limit mean half the tokens a second?

# %%
shares = [0.5, 1, 2] if quick else [0.25, 0.5, 1, 1.5, 2]
rates = lab.step("cpus", lambda: limits.cpu_rows(desk, shares, rounds=1 if quick else 3, tokens=12))
fig = view.draw_cpus(rates, lab.caption("cpus"))
assert len(fig.axes[0].lines) == 3

# %% [markdown]
# Up to what the threads can use (here: one core for each of `threads`) it is close to a straight line; beyond, nothing is gained. Mind the other direction: a program that sees 64 cores starts 64 threads and shares two cores among them,
# and llama.cpp's threads wait for each other at every layer: then more threads are slower. So set the number of threads **to the limit**, not to what is in sight. Ollama has no setting for it in its environment; it is `num_thread`, a parameter of the model.
#
# The third limit, on processes, counts **threads** too. What does the server need, and what happens to a command that wants a hundred?

# %%
crowd = lab.step("processes", lambda: limits.process_rows(desk))
pd.DataFrame(crowd)

# %% [markdown]
# ## 9. Variants
#
# The same recipe with another model: a **build argument** decides. The lab makes smaller and larger files of your model (lab 04) and builds an image with each.
# **Predict** the size of each model from its type's bits a weight (lab 05: Q4_0 has 4.5, Q8_0 8.5).

# %%
kinds = ["Q8_0"] if quick else ["Q4_0", "Q8_0"]
variants = lab.step("variants", lambda: ask.variant_rows(desk, kinds), needs="llamacpp")
fig = view.draw_variants(variants, lab.caption("variants"))
print("what a machine fetches for all of them, in MB:", view.shared_bytes(variants) // 10**6, "- and not", sum(row["image_bytes"] for row in variants) // 10**6)
assert len(fig.axes) == 2

# %% [markdown]
# (Where a file is larger than its bits a weight say: llama.cpp keeps the table of tokens in a finer type. Lab 04 shows which tensors.)
#
# ## 10. A stack
#
# **Compose** starts several containers from one file. `labs/stacks/ollama/compose.yaml` describes two services:
#
# - `model`: the image from above. It is on a network called `inside`, which is **internal**: there is no way out of it, and it publishes no port.
# - `proxy`: nginx. It is on `inside` and on `outside`, publishes one port on 127.0.0.1, speaks TLS, and lets nobody through without the key.

# %% tags=["nbval-check-output"]
from labkit.learn import containers_stack as stacks

print(pd.DataFrame(stacks.services()).to_string(index=False, justify="left"))

# %% [markdown]
# **Exercise 4.** An entry of `ports` is `PORT_INSIDE`, `PORT:PORT_INSIDE` or `ADDRESS:PORT:PORT_INSIDE`. Without an address it is published on **every** address of the machine.
# Complete the function: which entries can others on the network reach?

# %% tags=["exercise"] exercise="reachable"
def reachable(ports):
    """Those of the entries (texts) that are reached from other machines, in their order."""
    ### BEGIN SOLUTION
    return [entry for entry in ports if not entry.startswith(("127.", "[::1]:"))]
    ### END SOLUTION

# %% tags=["check"] exercise="reachable" points=2
ex.reachable.check(reachable, seed=seed)

# %% [markdown]
# The next cell makes the secrets (a certificate, and a key of 32 random bytes, in files that only the proxy can read), starts the stack and waits until both services are healthy.

# %%
front = stacks.Front(desk)
up = lab.step("stack", front.up, needs="compose")
for row in up:
    print(f"{row['service']}: {'healthy' if row['healthy'] else 'NOT healthy'}, published: {row['published']}")
print(f"up after {up[0]['start_s']:.1f} s; secrets: {up[0]['secrets']}")

# %% [markdown]
# **Predict** the status of each request below: 200, 401 (who are you?), 403 (nobody may), 413 (too large), 429 (too often)?

# %%
doors = lab.step("doors", lambda: stacks.door_rows(front), needs="compose")
pd.DataFrame(doors)

# %% [markdown]
# The last two lines but one are the client's own protection: it refuses a server whose certificate was not signed by an authority that it knows.
#
# And who reaches whom? The model server must not get out: whatever is in a prompt, or in a model file, stays in.

# %%
paths = lab.step("network", lambda: stacks.network_rows(front), needs="compose")
pd.DataFrame(paths)

# %% [markdown]
# Does the answer still **stream** through the proxy? By default nginx collects what it gets and passes it on in large pieces; `proxy_buffering off` stops that. The official client asks, with the authority's certificate:

# %%
pieces = lab.step("stream", lambda: stacks.stream_rows(front, tokens=16 if quick else 48), needs="compose")
fig = view.draw_stream(pieces, lab.caption("stream"))
print(f"streamed, the first piece comes after {pieces[0]['arrived_s'][0]:.2f} s; as a whole, everything after {pieces[1]['done_s']:.2f} s")

# %% [markdown]
# The same in a browser: the proxy also hands out a small **web page** that shows each piece when it comes. Its address and key are below. Your browser warns, since it does not know the lab's authority;
# and the page sits on this machine only. (Until the next cells are run: the last one stops the stack.)

# %%
print(stacks.invitation(front) if lab.source == "measured" else "recorded, not measured here: there is no page to open")

# %% [markdown]
# What happens to clients when the model server is replaced? Its new container has **another address**. A proxy that looks a name up once, when it starts (nginx does so by itself), would never find it again.

# %%
replaced = lab.step("replaced", lambda: stacks.replaced_rows(front), needs="compose")
pd.DataFrame(replaced)

# %% [markdown]
# A clean 503 with `Retry-After` instead of a hanging connection, and service again without touching the proxy. (`depends_on: condition: service_healthy` helps at the start only, and podman-compose 1.6 does not wait for it.)

# %%
front.close()

# %% [markdown]
# ## 11. The same steps, by a robot
#
# **Continuous integration** (CI) runs a list of steps for each change and says green or red. `labs/stacks/ollama/workflow.yaml` is such a list, in the form of GitHub Actions: lint, build, look inside, run, wait until healthy, ask, stop.
# Put into `.github/workflows/` of a repository, GitHub runs it. Here **each of its steps is run on this machine**, its text unchanged; only names and the tool are given by the lab.

# %%
from labkit.learn import containers_workflow as ci

job = ci.read(stacks.stack_folder() / "workflow.yaml")
ran = lab.step("workflow", lambda: list(stacks.workflow_rows(desk, job)), needs=["compose", "lint"])
fig = view.draw_workflow(ran, lab.caption("workflow"))
print("\n".join(f"{row['step']}: {row['said'][-1] if row['said'] else row['result']}" for row in ran))

# %% [markdown]
# A pipeline that cannot turn red is worth nothing. So once more, with a size budget that the image breaks. **Predict**: which steps run, and is anything left behind?

# %%
red = lab.step("red", lambda: list(stacks.workflow_rows(desk, job, BUDGET_MB="100")), needs=["compose", "lint"])
print("\n".join(f"{row['result']:<40} {row['step']}" for row in red))

# %% [markdown]
# ## 12. What people say

# %%
from labkit.facts import claims, live

ids = ["container-own-kernel", "container-sees-its-limit", "container-oom-ends-it", "container-port-loopback", "ollama-dockerfile-run-pull"]
checked = lab.step("claims", lambda: list(live.rows(ids, ask.world())), needs="ollama")
pd.DataFrame([{"they say": c["says"], "result": claims.in_words(c), "why": c["why"]} for c in checked])

# %% [markdown]
# ## 13. Plan a limit
#
# The arithmetic of section 7 for larger models, **computed, not measured**: does it fit?

# %%
from labkit.learn.widgets import explore
from labkit.models import catalog, shape


def draw(larger, context, parallel, limit_mib):
    return view.draw_need(shape.header(catalog.get(larger), "Q4_0"), context, parallel, limit_mib, f"computed for {larger} in Q4_0")


box = explore(draw, larger=["phi-4-mini", "qwen3-0.6b", "gemma3-1b"], context=[4096, 2048, 8192, 16384], parallel=[4, 1, 2, 8], limit_mib=[4096, 1024, 2048, 8192, 16384])

# %%
leftovers = lab.step("leftovers", lambda: stacks.close_all(desk, front))
print(f"left behind: {leftovers[0]['left'] or 'nothing'}; the most that containers of one moment held: {leftovers[0]['peak_bytes'] / 1e6:.0f} MB")

# %% [markdown]
# ## To remember
#
# 1. A container is a process with another view and a limit. It brings files, not a kernel, and its limits are not what programs see when they look around.
# 2. Layers from seldom to often; the model in the image when one checksum shall name everything, in a volume when it is large and changes on its own.
# 3. Every promise (hardening, health, limits, locks) is worth what you have seen of it: read it inside, make it fail once, watch `oom_kill`.
#
# **In production:** pin base images by digest; set memory from arithmetic and threads from the CPU limit; publish nothing but the proxy; keep keys out of images, and in files that one user can read;
# let CI ask a real question before it says green, and see it turn red once.
#
# **Read more:** [Dockerfile reference](https://docs.docker.com/reference/dockerfile/) · [Podman run](https://docs.podman.io/en/latest/markdown/podman-run.1.html) · [Compose specification](https://compose-spec.io) · [Ollama in Docker](https://docs.ollama.com/docker)
#
# **The same lab on a bigger model:** pass the path of a GGUF file: `labkit run 16 -p model PATH`. Limits of the containers in sections 5 to 9 are made for small ones; a model of more than 500 MB wants larger:

# %%
for name in ("qwen3-0.6b", "gemma3-1b", "phi-4-mini"):
    parts = view.need_bytes(shape.header(catalog.get(name), "Q4_0"), 1024, 1)
    print(f"{name}: download about {catalog.get(name).parameters * 4.5 / 8e9:.2f} GB (Q4_0), a container with one request of 1,024 tokens needs about {sum(parts.values()) / 1e9:.1f} GB")
