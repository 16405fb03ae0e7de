# ---
# labkit:
#   title: Get a model you can trust
#   minutes: 40
#   memory_gb: 1.0
#   track: [shrink]
#   builds_on: [0, 2]
#   prerequisites: ["the extras `azure` and `hf` (SET=all) for your own figures in steps 6 and 8; without them those two steps play their recording"]
#   expected:
#     - "a download that breaks three times: four requests, together exactly the file's size"
#     - "one flipped bit: about 4 of 64 digits of the checksum stay the same, never all 64"
#     - "the bundle: every flipped bit is refused, and nothing of the bundle is put in place"
#   transfer:
#     - "A supplier mails you a model and its sha256 in the same message. What does the checksum prove, and what would you ask for?"
#     - "A repository offers pytorch_model.bin with a long list of good reviews, and no safetensors. Name two ways to get its weights without the risk."
#     - "Your product uses a model under Apache-2.0 today. The next version comes under a licence of the maker's own. Which steps of your update must stop and ask somebody?"
#     - "A download of 40 GB breaks once an hour on a line that needs five hours for it. What happens with a client that resumes, and with one that does not?"
#     - "A hospital's computers have no network. List all that must be in the bundle so that a model runs there, and who checks what, where."
# ---

# %% [markdown]
# # 03 · Get a model you can trust
#
# **The question this lab answers: how does a program find, fetch, check and carry a model, and how do you know that what arrived is what was published, safe to load and yours to use?**
#
# It builds on labs 00 (model, token) and 02 (weights, formats, the catalogue). About 40 minutes, 1 GB of memory.
#
# Nothing is downloaded from the internet. Model hubs are played by **stand-ins**: small servers that run on this machine, inside this notebook,
# and answer as the real ones do. The clients are the real ones. Every figure says which service answered. With a network,
# set `hub = "online"` below, and step 1 asks the real Hugging Face Hub.

# %% tags=["parameters"]
model: str = "stdlib-10m"  # catalogue name, or the path of a GGUF file: the one that is fetched, looked into and carried
engine: str = "llamacpp"  # not used here: no model answers in this lab
threads: int = 0  # not used here
seed: int = 1  # your own seed gives you your own exercise numbers, and other bits to flip
quick: bool = False  # True: fewer bits to flip, for a fast check
results_path: str = "results.jsonl"  # results are appended here
hub: str = "stand-in"  # "online" asks the real Hub in step 1
search_for: str = "course"  # what to search for on the Hub; with "online" try "SmolLM2 GGUF"

# %%
from labkit.learn import acquiring, acquiring_view, plots
from labkit.learn.exercises import lab_03 as ex
from labkit.learn.lab import start

lab = start(
    "03_model_acquisition", model=model, engine=engine, threads=threads, seed=seed, quick=quick, results_path=results_path, load=False
)
service = acquiring.open_hub(hub, lab.model)
print("The Hub in this lab is", service.label)

# %% [markdown]
# ## 1. Find
#
# A **hub** is a web site that keeps models, each in a **repository**: a folder of files with a history. The largest is the Hugging Face Hub.
# A program asks it through the package `huggingface_hub`. Behind the next cell are two lines of it:
#
# ```python
# api = huggingface_hub.HfApi(endpoint=…)      # without an endpoint: huggingface.co
# api.list_models(search="course", full=True)
# ```
#
# The last three columns count files by what their *names* promise: weights in a safe format, weights in a format that can hold a **pickle** (step 5), and program code.

# %%
import pandas as pd

pd.set_option("display.max_colwidth", None)
found = lab.step("listing", lambda: acquiring.listing(service, search_for))
print(f"{service.label}; {lab.caption('listing')}")
pd.DataFrame(found)

# %% [markdown]
# Before you fetch anything, this table answers three questions. May I use it (licence)? Do I get in (gated: its owner must let you in)?
# Is there anything safe to load?
#
# ## 2. Fetch
#
# `labkit models pull NAME` fetches a model. It shows the licence and waits until you accept it, refuses pickles, compares each file with the checksum that the
# Hub states, and only then gives the model its place. The next cell does that for every repository of the stand-in. (The licences are accepted in your place: they are made up.)

# %%
stand_in = service if service.stand_in else acquiring.open_hub("stand-in", lab.model)
repositories = sorted(stand_in.stand_in.repos)
pulled = lab.step("pull", lambda: acquiring.pull_rows(stand_in, repositories))
print(f"{stand_in.label}; {lab.caption('pull')}")
pd.DataFrame(pulled)

# %% [markdown]
# Look at `course/disguised`: its file is called `model.safetensors`, and its checksum is the one that was published. Still it was refused. Step 5 shows why.
# In the column *why*, `sha256` names the checksum that was compared. And `course/no-licence` was fetched: where none is stated labkit warns, and obeys you.
# Section 4 says what that means.
#
# ### When the connection breaks
#
# Models are large, and connections break. A server can send a part of a file: the client asks for it with the header `Range: bytes=…`.
# So a client that kept what had arrived needs only the rest.
#
# **Predict.** The model of this lab is sent by the stand-in, which closes the connection at 30 %, 60 % and 90 % of the file.
# How many MB are sent in all until the file is complete? (The file of the default model has 19 MB; for another, `labkit inspect FILE` says it.)

# %%
my_guess_mb = 30  # <- your number

# %%
cuts = lab.step("cut", lambda: acquiring.cut_rows(lab.model, (0.3, 0.6, 0.9)))
fig = acquiring_view.draw_cut(cuts, my_guess_mb, f"{acquiring.STAND_IN}; {lab.caption('cut')}")
assert len(fig.axes[0].patches) == 2 * len(cuts)
sent = sum(row["to_byte"] - row["from_byte"] for row in cuts)
print(f"{len(cuts)} requests, {sent:,} bytes sent for {cuts[0]['file_bytes']:,}; the checksum agreed: {cuts[0]['verified']}")

# %% [markdown]
# The upper bar is what happened: each request begins where the last one ended, to the byte. The lower bar is the sum for a client that begins anew each time.
#
# Does the Hub's own client resume? Try it: the stand-in breaks a file of 30 MB at 60 %, again and again, until the client gives up. Then the client is called a second time.

# %%
official = lab.step("official_client", lambda: acquiring.official_rows())
print(f"{acquiring.STAND_IN}; {lab.caption('official_client')}")
print(f"The first call sent {official[0]['requests']} requests, the second {official[1]['requests']}.")
pd.DataFrame(official)

# %% [markdown]
# `start_bytes` says at which byte each request began. Inside the first call the client resumes, in pieces of 10 MiB (10,485,760 bytes): each later request
# begins after the last whole piece, and what had come of the next one is sent again. So a file smaller than a piece begins at 0 every time.
# `first_from_byte` of the second call says where a *new* call began.
# This is why labkit asks the official client what to fetch, and fetches the bytes itself.
#
# ## 3. Verify
#
# A **checksum** is a short number that is computed from all bytes of a file. **SHA-256** gives 256 bits, written as 64 hexadecimal digits (0 to 9, a to f).
# The same bytes always give the same checksum; nobody knows a way to make other bytes with the same one.
#
# **Predict.** You flip *one bit* of the file. How many of the 64 digits stay as they were?

# %%
my_guess_digits = 60  # <- your number

# %%
flips = lab.step("flips", lambda: acquiring.flip_rows(lab.model, seed, 5 if quick else 60))
fig = acquiring_view.draw_flips(flips, my_guess_digits, lab.caption("flips"))
assert len(fig.axes[0].lines) == 2
print(f"{sum(row['equal'] for row in flips)} of {len(flips)} changes went unnoticed")

# %% [markdown]
# The changed checksum has nothing to do with the old one: each digit agrees by chance, 1 in 16, so about 4 of 64. There is no "almost right".
#
# **Exercise 1.** A model may be larger than your memory. Complete the function: it reads the file in blocks of `block_bytes` and returns the
# checksum as text. `file` is open; `file.read(n)` gives at most n bytes, and an empty result at the end. `digest` has `update(block)` and `hexdigest()`.

# %% tags=["exercise"] exercise="checksum"
def checksum(file, digest, block_bytes):
    """The checksum of a file's content, as text."""
    ### BEGIN SOLUTION
    while block := file.read(block_bytes):
        digest.update(block)
    return digest.hexdigest()
    ### END SOLUTION

# %% tags=["check"] exercise="checksum" points=2
ex.checksum.check(checksum, seed=seed)

# %% [markdown]
# A checksum proves that *this is the file that was published*. It does not prove that the file is good, or who published it. And it helps only
# if it came by another way than the file: whoever can change the file can change a checksum that lies beside it.
#
# ## 4. May I use it?
#
# **Open weights** means that you can fetch the weights. What you may do with them stands in the licence. Some are plain (Apache-2.0, MIT: use it for what you like, keep the notice),
# some forbid uses or ask for more. A repository without a licence gives you no right at all, though nothing stops you from fetching it (`course/no-licence` in step 2).
#
# The widget draws the course's catalogue. What remains if you may have no conditions on use, and 3 GB?

# %%
from labkit.learn.widgets import explore

rows = acquiring_view.licences()
names = ["no conditions on use", "any", *sorted({row["licence"] for row in rows})]
box = explore(acquiring_view.draw_licences, licence=names, most_gb=(1.0, 17.0, 1.0))

# %% [markdown]
# **Exercise 2.** Complete the function. It gets rows (dictionaries with `name`, `licence`, `gb`) and returns the *names* of the models whose licence is in `allowed`
# and that take at most `most_gb`, the smallest first. A `licence` may be `None`: none was stated.

# %% tags=["exercise"] exercise="by_licence"
def by_licence(rows, allowed, most_gb):
    """Names of the allowed models, smallest first."""
    ### BEGIN SOLUTION
    fits = [row for row in rows if row["licence"] in allowed and row["gb"] <= most_gb]
    return [row["name"] for row in sorted(fits, key=lambda row: row["gb"])]
    ### END SOLUTION

# %% tags=["check"] exercise="by_licence" points=2
ex.by_licence.check(by_licence, seed=seed)

# %% [markdown]
# ## 5. Is it safe to load?
#
# A **pickle** is Python's way to write an object into a file. It is a small *program*: Python runs it to build the object again. PyTorch's older formats
# (`.bin`, `.pt`, `.ckpt`) use it. Here is one that holds two weights and something else. It is harmless, and we do not load it: `pickletools` reads
# the program's instructions without running them.

# %% tags=["nbval-check-output"]
for line in acquiring.opcodes(acquiring.pickle_bytes())[13:26]:
    print(line)

# %% [markdown]
# Read it from the top: it puts the words *builtins* and *print* on its stack, `STACK_GLOBAL` turns them into Python's function `print`, a text follows, and
# `REDUCE` **calls** the function with the text. Instead of `print` it could name any function of any package: one that deletes your files or sends them away.
# It would run while the file is being read, before you see a single weight.

# %% tags=["nbval-check-output"]
from labkit.models import safety

imports = safety.pickle_imports(acquiring.pickle_bytes())
print("this pickle asks Python for:", imports)

# %% [markdown]
# **safetensors** is the answer to that: 8 bytes that say how long a table is, the table, and the numbers. The table (JSON) has name, type, shape and place of each
# **tensor**: an array of numbers, such as a matrix of weights. There is nothing in it that could run. GGUF (lab 02) and **ONNX** (a format for the models of many
# frameworks, lab 07) are of the same kind. The whole of a small file:

# %% tags=["nbval-check-output"]
from labkit.learn.acquiring_services import safetensors_bytes

data = safetensors_bytes()
length = int.from_bytes(data[:8], "little")
print(length, data[8 : 8 + length].decode())
print(len(data) - 8 - length, "bytes of numbers")

# %% [markdown]
# Safe to *load* is not the same as *good*: safe weights can still be a bad model.
#
# **Exercise 3.** A repository lists its files. Complete the function: the names that may be loaded, in the order of the listing. `safe` holds the endings that are allowed,
# in small letters. Names may be written in capitals, and may try to mislead.

# %% tags=["exercise"] exercise="safe_files"
def safe_files(names, safe):
    """The names that end like a safe format."""
    ### BEGIN SOLUTION
    return [name for name in names if name.lower().endswith(tuple(safe))]
    ### END SOLUTION

# %% tags=["check"] exercise="safe_files" points=2
ex.safe_files.check(safe_files, seed=seed)

# %% [markdown]
# labkit goes one step further, as you saw in step 2: after the name it looks at the *content*, and a pickle under another name is deleted.
#
# ## 6. Other sources: Foundry Local and Azure
#
# **Foundry Local** is Microsoft's program that runs models on your own machine (lab 11). Its catalogue is a web service. A client asks it what there is, then asks a registry
# for the address of the files, then fetches them from a store. The catalogue has a row for each kind of processor: the same model comes in several builds.
#
# The stand-in of that catalogue has four made-up entries. The real one's shape was read from Foundry Local's public source code; it was not asked when this lab was written.

# %%
offers = lab.step("foundry", lambda: acquiring.foundry_rows())
print(f"a stand-in of Foundry Local's catalogue on this machine; {lab.caption('foundry')}")
pd.DataFrame(offers)

# %% [markdown]
# The store states an MD5 for each file. MD5 is an old checksum: it finds damage, but a forger can make two files with the same MD5.
#
# **Azure's model registries** hold models for companies, behind a login. The official client is the package `azure-ai-ml`. The code that fetches a model:
#
# ```python
# client = MLClient(credential, registry_name="azureml")
# client.models.download("tiny-instruct-generic-cpu", version="2")
# ```
#
# The next cell runs exactly that, against a stand-in, and shows what the client asked on its way. (Without the extra `azure` it shows a recording.)

# %%
asked = lab.step("azure", lambda: acquiring.azure_rows(), needs="azure")
print(f"a stand-in of an Azure registry on this machine; {lab.caption('azure')}")
pd.DataFrame(asked)[["asks", "request"]]

# %% [markdown]
# Four kinds of question: where is the registry, what is the model, may I read its files (the answer is an address that is signed for a short time), and then the files.
# This client states no checksum. labkit computes the sha256 of what arrived, so that you can compare it the next time.
#
# ## 7. What is in the file?
#
# A GGUF file begins with the four letters `GGUF`, then come three numbers: the format's version (4 bytes), how many tensors there are (8 bytes) and how many
# pieces of **metadata** (8 bytes), all **little-endian**: the smallest byte comes first. Metadata is what a program must know: architecture, shape, vocabulary, chat template, licence.
#
# **Exercise 4.** Complete the function: version, tensors, pairs. `data` holds the first bytes of a file; `int.from_bytes(data[a:b], "little")` reads a number.

# %% tags=["exercise"] exercise="gguf_header"
def gguf_header(data):
    """(version, number of tensors, number of metadata pairs)"""
    ### BEGIN SOLUTION
    return tuple(int.from_bytes(data[a:b], "little") for a, b in ((4, 8), (8, 16), (16, 24)))
    ### END SOLUTION

# %% tags=["check"] exercise="gguf_header" points=2
ex.gguf_header.check(gguf_header, seed=seed)

# %%
from labkit.models import inspect

header = inspect.read(acquiring.gguf_of(lab.model))
print(f"version {header.version}, {len(header.tensors)} tensors, {len(header.metadata)} pieces of metadata")
shown = {key: value for key, value in header.metadata.items() if not isinstance(value, (dict, list))}
pd.Series({key: str(value)[:70] for key, value in shown.items()}, name="value").to_frame()

# %% [markdown]
# Where do the bytes go? The reader sorts the tensors by what they do.

# %%
fig, ax = plots.figure(f"read from the file's header: {header.path.name}", height=2.2)
for at, (kind, size) in enumerate(header.kinds.items()):
    ax.barh(at, size / 1e6, 0.6, color=plots.COLOURS[at])
ax.set_yticks(range(len(header.kinds)), list(header.kinds))
ax.set_xlabel(f"MB of {header.file_bytes / 1e6:.1f} MB")
ax.grid(axis="y", visible=False)
assert len(ax.patches) == len(header.kinds)

# %% [markdown]
# ## 8. Convert
#
# Other programs want other files. A **Hugging Face folder** holds `config.json`, the tokenizer and the weights as safetensors: what `transformers`, vLLM, MLX and the builders of
# ONNX models read. So the way from GGUF to ONNX is GGUF → Hugging Face folder → ONNX. The first half is here; the second half, ONNX, comes in lab 07.
#
# `transformers` reads a GGUF file and unpacks each weight to 32 bits. (Without the extra `hf` the cell shows a recording.)

# %%
files = lab.step("convert", lambda: acquiring.convert_rows(lab.model), needs="hf")
fig = acquiring_view.draw_formats(files, lab.caption("convert"))
assert len(fig.axes[0].patches) == 4
pd.DataFrame(files)

# %% [markdown]
# The folder is larger, and not better: unpacking changes no weight and brings nothing back. A folder that was made from a 4-bit file holds the 4-bit values, written in 32 bits.
#
# ## 9. Over the air gap
#
# Some machines have no network: in a factory, a hospital, a bank. An **air gap** is crossed with a disk in somebody's hand. What is needed on the other side goes into one file, a **bundle**:
# models, the Python packages as **wheels** (installable archives), container images (lab 16), and a manifest with the checksum of each.
#
# ```sh
# labkit models bundle stdlib-10m --wheels wheels/ --images server.tar --out course.tar   # here
# labkit models unbundle course.tar                                                       # there
# ```
#
# Unpacking checks everything *first* and puts it in place *afterwards*: a bundle with one wrong bit leaves nothing behind. The next cell packs a bundle, unpacks it (first row),
# then flips one bit at a time somewhere in it.

# %%
tries = lab.step("bundle", lambda: acquiring.bundle_rows(lab.model, seed, 6 if quick else 40))
damaged = [row for row in tries if row["at_byte"] >= 0]
print(f"{sum(row['refused'] for row in damaged)} of {len(damaged)} damaged bundles refused; {lab.caption('bundle')}")
pd.DataFrame(tries[:5])

# %% [markdown]
# The manifest's own checksum is not in the manifest. So `bundle` prints the checksum of the whole file: tell it to the other side by another way, on paper or by telephone.
#
# ## 10. What people say
#
# Four statements from published material. The column *result* says what your own figures say about each.

# %%
from labkit.facts import acquisition, claims

checked = [acquisition.only_numbers(imports), acquisition.checksum_is_safety(pulled)]
checked += [acquisition.open_weights(rows), acquisition.always_resumed(official)]
pd.DataFrame([{"they say": c["says"], "result": claims.in_words(c), "why": c["why"]} for c in checked])

# %%
stand_in.stop()
service.stop()

# %% [markdown]
# ## To remember
#
# 1. Three questions before a download: may I use it, is it safe to load, and which checksum must it have?
# 2. A checksum finds every change, and says nothing about whether the file was good to begin with. Keep it apart from the file.
# 3. Take safetensors, GGUF or ONNX. A pickle is a program.
#
# **In production:** mirror the models that you use into a store of your own, pinned to one revision and its checksum, with the licence beside it; let nothing else be loaded.
# Lab 15 adds signatures, which also say *who* published a file.
#
# **Read more:** [safetensors, the format](https://huggingface.co/docs/safetensors) · [pickle scanning on the Hub](https://huggingface.co/docs/hub/security-pickle) ·
# [the GGUF format](https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) · [Foundry Local](https://github.com/microsoft/Foundry-Local)
#
# **The same lab on a bigger model:** `labkit run 03 -p model smollm2-135m` (98 MB, here already; the conversion takes 1.6 GB of memory), or give the path of a GGUF file.
# For a model from the real Hub: `labkit models pull OWNER/NAME --file '*Q4_0.gguf'`. What to expect:

# %%
from labkit.models import catalog, shape
from labkit.quant import hf

for name in ("qwen3-0.6b", "gemma3-1b", "phi-4-mini"):
    size = shape.header(catalog.get(name), "Q4_0").tensor_bytes
    print(f"{name}: download about {size / 1e9:.2f} GB at Q4_0; memory for its conversion about {hf.conversion_bytes(catalog.get(name).parameters) / 1e9:.1f} GB")
