# ---
# labkit:
#   title: What does Foundry Local do for a program?
#   minutes: 40
#   memory_gb: 3.3
#   track: [run, operate]
#   builds_on: [1, 3, 7]
#   prerequisites: ["the extras `onnx` and `foundry` (SET=all) for your own figures; without them the lab plays its recording"]
#   expected:
#     - "time to first token in turn 2: in one session 0.1 s or less, with everything sent anew 10 times as long or more, on any processor"
#     - "requests at once: with 4 at a time, the tokens per second in all stay within about 40 % of one at a time"
#     - "the ends of four requests that share a processor: predicted within about 20 %"
#     - "routes: 200 under /catalogs/local/v1 with the model's id; 404 with its alias, and for /health and /metrics"
#   transfer:
#     - "Your program keeps a ChatSession open for each of 50 users. What does it gain, and what does it cost? Which number would you look at first?"
#     - "A colleague's requests to Foundry Local all end in 404, though the model is loaded. Name three causes, and how you would tell them apart."
#     - "You limit answers to 60 tokens to save time, and the second turn of a chat becomes slower. Explain."
#     - "A team wants to serve 30 people from one PC with Foundry Local. Which measurement do you show them, and what do you propose?"
#     - "Which parts of an application must change when it moves from this lab's Linux machine to a PC with an NPU, and which do not?"
# ---

# %% [markdown]
# # 11 · What does Foundry Local do for a program?
#
# **The question this lab answers: how do I put a model of my own behind Foundry Local, and what do I get: in one program, over HTTP, and for several users at once?**
#
# It builds on labs 01 (time to first token), 03 (catalogues) and 07 (ONNX models). About 40 minutes, 1.3 GB of memory.
# The first run also converts the model, which takes up to **3.3 GB** for a minute (lab 12 uses the same folder later). On a smaller machine, play
# the recording instead: start Jupyter with `LABKIT_WITHOUT=foundry` in its environment. Nothing is downloaded, and nothing is asked outside this machine.
#
# **Foundry Local** is Microsoft's way to run language models on a user's own device. It has three parts:
#
# - an **SDK**: a library in your program that finds models, loads them and runs them, with ONNX Runtime GenAI inside (lab 07);
# - a **catalogue**: a list of models. The public one is Microsoft's; you can have a *local* one on your disk, and a *private* one of your company;
# - a **web service**, if you want one: the same models over HTTP, with the OpenAI API.

# %% tags=["parameters"]
model: str = "smollm2-135m"  # catalogue name, or the path of a GGUF file or an ONNX folder; with a chat template
engine: str = "foundry"  # who answers
threads: int = 0  # of the web service; 0: all cores
seed: int = 1  # your own seed gives you your own exercise numbers
quick: bool = False  # True: a shorter conversation and fewer repeats, for a fast check
results_path: str = "results.jsonl"  # results are appended here
online: bool = False  # True: section 8 asks Microsoft's real catalogue (nothing is downloaded)

# %%
from labkit.learn import foundry_child, foundry_view
from labkit.learn.exercises import lab_11 as ex
from labkit.learn.lab import start

lab = start(
    "11_foundry_local", model=model, engine=engine, threads=threads, seed=seed, quick=quick, results_path=results_path, load=False, needs=foundry_view.PARTS
)
service = foundry_view.Service(lab)  # its process starts when it is first needed

# %% [markdown]
# ## 1. What to install
#
# The SDK is a package like any other, and that is all this lab needs. The command line `foundry` is a program of its own, for Windows and macOS.

# %% tags=["nbval-check-output"]
for row in foundry_view.tables()["install"]:
    print(f"{row['system']:<22} {row['what']:<23} {row['command']}")

# %% [markdown]
# ## 2. Register a model of your own
#
# Foundry Local wants a folder with ONNX files and a `genai_config.json`, as lab 07 makes it. labkit converts your model once (GGUF → Hugging Face → ONNX int4).
# Then you **register** it: you tell the local catalogue where the folder is and what the model's **id** shall be. Nothing is copied.
#
# ```python
# from foundry_local_sdk import CatalogType, Configuration, FoundryLocalManager, ModelInfoBuilder
#
# FoundryLocalManager.initialize(Configuration(app_name="my-app", app_data_dir=folder, disable_nonessential_telemetry=True))
# manager = FoundryLocalManager.instance
# local = manager.get_catalog(CatalogType.LOCAL)
# with ModelInfoBuilder() as about:
#     about.set_string_property("task", "chat-completion")  # must be there
#     model = local.register_model(model_path="my-int4-folder", model_id="smollm2-135m-generic-cpu:1", metadata=about)
# model.load()
# ```
#
# An id has a name, usually with the kind of processor at its end, and a **version** behind a colon. The next cell runs that code with several ids.
# (It runs in a process of its own, with a data folder of its own: section 9 says why.)

# %%
import pandas as pd

pd.set_option("display.max_colwidth", None)
name = lab.model.name if lab.model else model
tried = lab.step("register", lambda: foundry_child.run("register", folder=service.model.path, name=name))
pd.DataFrame(tried)

# %% [markdown]
# Look at four things:
#
# - The id that is there already is refused. A program that registers at each start has to look first, or to catch the error.
# - After closing and opening, everything is still there: **registrations stay on the disk** until someone unregisters them.
# - Two versions have one **alias**. Looking up the alias gives the newer one.
# - An id without a proper version is refused.
#
# **Exercise 1.** Complete the function: the version in an id, as a number, and -1 for an id that Foundry Local refuses because of its version.
# A version is a whole number from 0 on, written with digits only and without leading zeros.

# %% tags=["exercise"] exercise="version_of"
def version_of(id):
    """The version behind the colon, or -1. id: text such as "phi-4-mini-generic-cpu:3"."""
    ### BEGIN SOLUTION
    version = id.partition(":")[2]
    return int(version) if version.isdigit() and version == str(int(version)) else -1
    ### END SOLUTION

# %% tags=["check"] exercise="version_of" points=2
ex.version_of.check(version_of, seed=seed)

# %% [markdown]
# ## 3. A session remembers
#
# In the SDK you chat in a `ChatSession`. You give it one new message each turn; it keeps the conversation. Streaming gives you the answer piece by piece:
#
# ```python
# from foundry_local_sdk import ChatSession, MessageItem, Request, RequestOptions, SearchOptions
#
# with ChatSession(model) as chat:
#     chat.set_streaming(True)
#     with Request() as request:
#         request.add_item(MessageItem.user("Who wrote the book?"))
#         request.set_options(RequestOptions(search=SearchOptions(temperature=0.0, max_output_tokens=200)))
#         with chat.process_streaming_request(request) as stream:
#             for item in stream:
#                 print(item.text, end="")
#             with stream.final_response as final:
#                 print(final.finish_reason, final.get_usage())
# ```
#
# The first message of the next experiment is long, the others are short. **Predict:** the first turn takes a second or so until its first token.
# How long will the *second* turn take, in seconds?

# %%
my_guess_s = 0.5  # <- your number

# %% [markdown]
# The same conversation in three ways:
#
# 1. in **one session**, and every answer ends by itself;
# 2. in one session, but `max_output_tokens` **cuts the answers off** after four tokens;
# 3. with a fresh session each turn, and **everything sent anew**: that is what a client does over HTTP.

# %%
turns = foundry_view.turns(quick)
talk = lab.step("session", lambda: foundry_child.run("session", folder=service.model.path, name=name, turns=turns, cut=4))
fig = foundry_view.draw_session(talk, my_guess_s, lab.caption("session"))
assert len(fig.axes[0].lines) == 4  # three ways and the guess

# %%
shown = pd.DataFrame(talk)[["way", "turn", "prompt_tokens", "output_tokens", "finish_reason", "ttft_s", "text"]]
shown.assign(ttft_s=shown["ttft_s"].round(3), text=shown["text"].str[:50])

# %% [markdown]
# All three ways have about the same `prompt_tokens`: the model always sees the whole conversation. But look at the time to the first token.
# In the first way the **KV cache** (lab 00) of the earlier turns is kept, and only the new message is computed.
#
# In the second way nothing is kept. When an answer is cut off, by `max_output_tokens` or by a stop word, this version of the SDK throws the cached state away
# and computes everything anew in the next turn; its source says so, and here you see it. (An answer of the first way may also reach its limit of 200 tokens.
# Then the turn after it is slow. The column `finish_reason` tells: `stop` ended by itself, `length` was cut off.)
#
# **Exercise 2.** How many tokens must the model read as prompt in a whole conversation? A turn is a pair (tokens of the question, tokens of the answer).
# If the cache is kept, only the questions are read: the answers are in the cache already, because the model made them. If not, each turn reads everything that came before it, and its question.

# %% tags=["exercise"] exercise="tokens_read"
def tokens_read(turns, kept):
    """Tokens read as prompt, in all turns together. turns: pairs (question, answer); kept: is the cache kept?"""
    ### BEGIN SOLUTION
    if kept:
        return sum(question for question, answer in turns)
    return sum(sum(q + a for q, a in turns[:n]) + turns[n][0] for n in range(len(turns)))
    ### END SOLUTION

# %% tags=["check"] exercise="tokens_read" points=2
ex.tokens_read.check(tokens_read, seed=seed)

# %% [markdown]
# ## 4. Over HTTP: the web service
#
# Other programs, in any language, reach your model through the **web service**. `manager.start_web_service()` starts it. Its address is in `manager.urls`,
# and models that you registered yourself answer under **/catalogs/local/v1**. labkit starts it in a process of its own:
#
# ```sh
# .venv/bin/labkit serve smollm2-135m --server foundry
# ```
#
# Any OpenAI client will do. Here is the official one, with streaming; `service.base_url` starts the service.

# %%
import openai


def ask():
    client = openai.OpenAI(base_url=service.base_url, api_key="not needed")
    question = [{"role": "user", "content": "Name three colours."}]
    with client.chat.completions.create(model=service.model_id, messages=question, max_tokens=40, temperature=0, stream=True) as stream:
        pieces = [event.choices[0].delta.content or "" for event in stream if event.choices]
    return [{"model": service.model_id, "pieces": len(pieces), "text": "".join(pieces)}]


answer = service.step("client", ask)
print(answer[0]["text"])

# %% [markdown]
# Which routes are there? The next cell lists ten requests. Some of them name a model: `MODEL` stands for its id, and `ALIAS` for its alias (`smollm2-135m` in the default lab).

# %%
pd.DataFrame(foundry_view.ROUTES, columns=["method", "path", "model"])

# %% [markdown]
# **Predict:** which of them are answered with 200 (fine), and which with 404 (not found)?

# %%
my_guess = [200, 200, 200, 200, 200, 200, 200, 200, 200, 200]  # <- 200 or 404, one for each row above

# %%
routes = service.step("routes", lambda: foundry_view.route_rows(service))
pd.DataFrame([{**row, "your guess": guess} for row, guess in zip(routes, my_guess)])

# %% [markdown]
# - With the **alias** you get 404. The alias is for the SDK, which looks it up; over HTTP send the id. (`GET /catalogs/local/v1/models` tells it.)
# - `/v1` belongs to the *public* catalogue. Your own model is not in it.
# - There is no `/completions` (a text that the model goes on with), only `/chat/completions` and `/responses`.
# - A request without `max_tokens` reserves 2048 tokens for its answer, and is refused where prompt and reserve do not fit the context.
# - There is no `/health` and no `/metrics`. Whoever monitors it has to ask `/status` or the list of models, and to measure from outside (lab 19).
#
# If the service is killed, the cell that needed it says so in one sentence. Run that cell again: it starts a new service.
#
# ## 5. Several at once
#
# **Predict.** Four requests are sent. One at a time, the machine makes R tokens per second. All four at the same time: how many, in all?

# %%
my_guess_factor = 2.0  # <- your number: 1 is "as many as before", 4 is "four times as many"

# %% [markdown]
# **Exercise 3.** Suppose that nothing is gained: requests that run at the same time **share the processor equally**. With k running, each has 1/k of the speed.
# When one is done, the others get faster. Complete the function: when is each request done, if all start together?
# (Example: alone they would take 1 s and 2 s. Together, the first is done after 2 s; by then half of the second is done too, and it goes on alone until 3 s.)

# %% tags=["exercise"] exercise="finish_times"
def finish_times(alone):
    """A list of seconds, one a request, in the same order. alone: the seconds that each request takes by itself."""
    ### BEGIN SOLUTION
    return [sum(min(time, other) for other in alone) for time in alone]
    ### END SOLUTION

# %% tags=["check"] exercise="finish_times" points=3
ex.finish_times.check(finish_times, seed=seed)

# %% [markdown]
# Now the measurement: the same four requests, of 16, 32, 48 and 64 tokens, sent one, two and four at a time. The right plot compares the ends of the four
# with the prediction by equal shares, computed from the times that they take alone.

# %%
parallel = service.step("parallel", lambda: foundry_view.parallel_rows(service, repeats=1 if quick else 3))
rate = float(foundry_view.medians(parallel, 1, "tokens_per_s"))
fig = foundry_view.draw_parallel(parallel, my_guess_factor * rate, lab.caption("parallel"))
assert len(fig.axes) == 2

# %%
for n in (1, 2, 4):
    total = float(foundry_view.medians(parallel, n, "tokens_per_s"))
    print(f"{n} at a time: {total:.0f} tokens/s in all, {total / rate:.2f} times one at a time; your guess for 4 was {my_guess_factor:g}")

# %% [markdown]
# The requests are all accepted, and they are served side by side. But together they hardly get more tokens than one alone: each has its own pass through the weights.
# A server such as llama-server or vLLM computes one step of *all* requests in one pass (**continuous batching**, lab 18), and then four at once do get more.
#
# SDK 2.2.1 has code for such a batch: an entry `engine.dynamic_batching` in `genai_config.json` asks for it. With this model, made by the usual model builder for the CPU, it failed when it was tried:
# first with "key-value cache budget is too small", and with more blocks with an error in the first token (seen on 2026-11-25). So try before you plan with it.
#
# ## 6. Look around
#
# Choose the number of requests and the tokens of each. The bars are **computed**: a queue, equal shares, and an ideal batch that costs nothing more.
# For whom is equal sharing worse than a queue, and who loses nothing by it?

# %%
from labkit.learn.widgets import explore


def draw(requests, tokens):
    return foundry_view.draw_disciplines(requests, tokens, rate, f"computed from a rate that was {lab.caption('parallel')}")


box = explore(draw, requests=[4, 1, 2, 8], tokens=(16, 256, 16))

# %% [markdown]
# ## 7. Which processor computes?
#
# ONNX Runtime computes through **execution providers**: one for each kind of processor. The CPU's is always there. A GPU or an NPU (a processor made for neural networks,
# found in new laptops) needs the maker's provider, a driver, *and* a variant of the model that was made for it: an id that ends in `generic-cpu` stays on the CPU.
# The table says what each one needs; the last column is your machine. (In the SDK: `manager.discover_eps()` lists what could be fetched, `manager.download_and_register_eps()` fetches it.)

# %%
here = lab.step("providers", lambda: foundry_child.run("providers"))
pd.DataFrame(foundry_view.provider_rows(here))

# %% [markdown]
# (Sources: `data/foundry.toml`. "Fetched by Windows ML": on Windows 11 the operating system brings the makers' providers.)
#
# ## 8. Catalogues
#
# A company can have a **private catalogue**: `Configuration(catalog_urls=[(url, None)])`, with a URL that ends in `/asset-gallery/v1.0/models`. The next cell shows the real SDK with a
# **stand-in** of such a catalogue on this machine. It has three made-up models, one of them for an NPU. **Predict:** how many does the SDK list here?

# %%
private = lab.step("catalogue", lambda: foundry_child.run("catalogue", folder=service.model.path))
print("a stand-in of a private catalogue;", lab.caption("catalogue"))
pd.DataFrame([row for row in private if "id" in row])

# %%
asked = pd.DataFrame(private[-1]["asked"])
asked[asked["field"].str.contains("device|executionProvider|deployment")]

# %% [markdown]
# The SDK asks only for what this machine can run: its device and its execution providers are in the request. On a PC with an NPU the same program would ask for more, and get other variants.
# The download is not shown: the SDK fetches the files from Azure's own registry, whatever catalogue listed them.
#
# **With a network** only the look-up changes. These are the lines for a model of the public catalogue (about 0.8 GB for this one):
#
# ```python
# model = manager.catalog.get_model("qwen2.5-0.5b")   # an alias; the SDK picks the variant
# model.download(lambda percent: print(f"{percent:.0f} %"))
# model.load()
# ```
#
# And this is what the first line gives when no catalogue can be reached. (The cell asks an address on this machine where nobody answers, unless you set `online = True`.)

# %%
looked = lab.step("look_up", lambda: foundry_child.run("look_up", alias="qwen2.5-0.5b", online=online))
print(f"after {looked[0]['seconds']:.1f} s: {'found ' if looked[0]['done'] else 'None, and in the log: '}{looked[0]['said']}")

# %% [markdown]
# No exception: `get_model` gives `None`, after several tries. A program has to check for it.
#
# ## 9. Nothing stays behind
#
# Registrations stay on the disk for every program with the same `app_name`. So this lab gave each process a data folder of its own, and removes it. It also uses a process of its own for the SDK
# because the SDK loads its own build of ONNX Runtime GenAI: after it, `import onnxruntime_genai` (lab 07) fails in the same process.
#
# ## 10. What people say
#
# The running service and the installed SDK decide most of these statements. *Cannot decide* means that this run cannot show it: the last column says what could.

# %%
from labkit.facts import claims

checked = service.step("claims", lambda: foundry_view.claim_rows(service))
pd.DataFrame([{"they say": c["says"], "result": claims.in_words(c), "why": c["why"]} for c in checked])

# %%
left = service.step("stop", service.stop)
pd.DataFrame(left)

# %% [markdown]
# **Windows ML** is Windows' own copy of ONNX Runtime, which fetches the makers' providers; Foundry Local uses it there. **Phi Silica** is a small model that belongs to Windows: you
# call it through a Windows API, you cannot register it or take it along. The **AI Toolkit** (now Foundry Toolkit) is an extension of Visual Studio Code with a model catalogue and a playground;
# it runs ONNX models, and those of Ollama. The ledger has a statement about each; on Linux none of them can be tried.
#
# ## 11. In JavaScript and C#
#
# **Not run here**: for reading only, after the SDKs' own documentation. The names are nearly the same in every language. JavaScript (`npm install foundry-local-sdk`):
#
# ```javascript
# import { FoundryLocalManager } from "foundry-local-sdk";
#
# const manager = FoundryLocalManager.create({ appName: "my-app" });
# const model = await manager.catalog.getModel("qwen2.5-0.5b");
# await model.download((percent) => console.log(percent));
# await model.load();
# const chat = model.createChatClient();
# const reply = await chat.completeChat([{ role: "user", content: "Name three colours." }]);
# console.log(reply.choices[0].message.content);
# await model.unload();
# ```
#
# C# (`dotnet add package Microsoft.AI.Foundry.Local`):
#
# ```csharp
# using Betalgo.Ranul.OpenAI.ObjectModels.RequestModels;
# using Microsoft.AI.Foundry.Local;
# using Microsoft.Extensions.Logging.Abstractions;
#
# await FoundryLocalManager.CreateAsync(new Configuration { AppName = "my-app" }, NullLogger.Instance);
# var catalog = await FoundryLocalManager.Instance.GetCatalogAsync();
# var model = await catalog.GetModelAsync("qwen2.5-0.5b");
# await model.DownloadAsync(percent => Console.WriteLine(percent));
# await model.LoadAsync();
# var chat = await model.GetChatClientAsync();
# var question = new List<ChatMessage> { new() { Role = "user", Content = "Name three colours." } };
# await foreach (var piece in chat.CompleteChatStreamingAsync(question, CancellationToken.None))
#     Console.Write(piece.Choices[0].Message.Content);
# await model.UnloadAsync();
# ```
#
# Through the web service it is simpler: any OpenAI client, the base URL and the id, as in section 4.
#
# ## To remember
#
# 1. A model of your own is a folder, an id with a version, and a registration that stays on the disk. In the SDK you may use the alias; over HTTP only the id works, under /catalogs/local/v1.
# 2. One session keeps the computed state, so the next turn is quick, unless the last answer was cut off. Over HTTP every request is computed from its first token.
# 3. Requests at once share the processor, and all together are no quicker. For one user and one program that is fine; for many users take a server that batches (labs 16 and 18).
#
# **In production:** Foundry Local is made for applications on a user's device. Give your application an `app_name` and a data folder of its own, register with a version,
# raise it when the weights change, and check `get_model` for `None`. Do not offer its port to others: it asks for no key. Fix the SDK's version: 2.x differs from 0.x and 1.x in most names.
#
# **Read more:** [Foundry Local](https://github.com/microsoft/Foundry-Local) · [its documentation](https://learn.microsoft.com/azure/ai-foundry/foundry-local/) ·
# [Windows ML's execution providers](https://learn.microsoft.com/windows/ai/new-windows-ml/supported-execution-providers) · [ONNX Runtime GenAI](https://onnxruntime.ai/docs/genai/)
#
# **The same lab on a bigger model:** `labkit run 11 -p model PATH` with a GGUF file or an ONNX folder that has a chat template. The conversion unpacks to 32 bits, on the disk and in memory
# (what it takes is extrapolated from two small models):

# %%
from labkit.models import catalog
from labkit.quant import onnx, onnx_graph

for name in ("qwen3-0.6b", "gemma3-1b", "phi-4-mini"):
    larger = catalog.get(name)
    convert_gb, onnx_gb = onnx.conversion_bytes(larger.parameters) / 1e9, onnx_graph.int4_bytes(larger) / 1e9
    print(f"{name}: download about {larger.parameters * 4.5 / 8e9:.2f} GB (Q4_0), memory about {convert_gb:.1f} GB to convert, {onnx_gb:.2f} GB as ONNX int4")
