# ---
# labkit:
#   title: From prompt to token
#   minutes: 30
#   memory_gb: 0.6
#   track: [run]
#   builds_on: []
#   platforms: [Linux, macOS, Windows]
#   expected:
#     - "Tokens: everyday English costs about one token a word, ten digits cost ten; the same sentence costs about 1.5 times as many in German and about 3 to 4 times as many in Greek and Japanese."
#     - "Temperature: at 0 all seeds tell the same story; at 1.5 each seed tells another one and the text falls apart."
#     - "The loop by hand: its time per token grows with the text; the engine's stays level. In total the loop usually takes 3 to 12 times as long."
#     - "Prefill: a prompt four times as long makes the wait about 2 to 5 times as long, while the time per output token changes by less than half."
#     - "KV cache: about four fifths of the second turn's prompt come from the cache, and the wait is usually 3 to 8 times shorter."
#     - "Context window: a prompt that is too long is refused; an answer that meets the end of the window is cut there, with finish_reason 'length'."
#     - "Questions: the default model gets some right and some wrong, and sounds equally sure each time."
#   transfer:
#     - "A hosted model costs the same per token for everyone. Your users write Greek. How do you estimate what they pay compared with users who write English?"
#     - "A chat program answers quickly at first and more slowly after an hour in the same conversation. What grows, and what could the program do about it?"
#     - "Two people send the same prompt with temperature 0 and get different answers. Name two possible reasons."
#     - "A prompt begins with today's time of day, followed by ten pages of instructions. Why is that bad for the KV cache, and what do you change?"
#     - "A model must pick one of three labels for a letter of complaint. Which temperature do you choose, and what could you read off its scores besides the label?"
# ---

# %% [markdown]
# # 00 · From prompt to token
#
# **The question this lab answers: what happens between the moment you press Enter and the moment the first word appears?**
#
# You type a question, and a language model answers in words. Inside, there are no words. There is a list of numbers,
# a long calculation, and a choice. Then the same again, many times. In this lab you follow one question all the way
# through. Everything runs on a real model on this machine. Nothing is sent anywhere.
#
# - **Builds on:** nothing. You need a little Python: lists, loops and functions.
# - **Time:** 30 minutes. **Memory:** less than 0.6 GB. **Network:** none.
# - **The model:** SmolLM2-135M-Instruct. It is very small, so it starts in a second. It is also often wrong. Section 8
#   looks at that.
#
# **How to work.** Run the cells from top to bottom with Shift+Enter. There are three kinds that ask something of you:
#
# - **Guess first:** write down a number before you measure. A wrong guess teaches more than a right one.
# - **Exercise:** complete a small function, then run the check below it. You get a sentence and a hint, and you may try
#   as often as you like. No later cell needs your answer.
# - **Look:** a question to answer for yourself from a picture.
#
# First come the settings. You can leave them as they are.

# %% tags=["parameters"]
model: str = "smollm2-135m"  # catalogue name, or the path of a GGUF file
engine: str = "llamacpp"  # the program that runs the model; this lab needs one that shows tokens and scores
threads: int = 0  # workers that share the calculation; 0: choose by measuring
seed: int = 1  # where random draws start; also gives you your own exercise numbers
quick: bool = False  # True: fewer and shorter measurements
results_path: str = "results.jsonl"  # results are appended to this file

# %% [markdown]
# This cell loads the model. The program that runs it is called the **engine**; here it is llama.cpp. `context=512` is
# explained in section 7.

# %%
from labkit.learn.exercises import lab_00 as ex
from labkit.learn.lab import start

lab = start(
    "00_from_prompt_to_token", model=model, engine=engine, threads=threads or (1 if quick else 0), seed=seed,
    quick=quick, results_path=results_path, context=512,
)

# %% [markdown]
# Read what was printed. Most people see one line: the model is loaded. There are three other cases:
#
# - *A part is missing.* Then the lab goes on with a **recording**: real results from another machine, marked as
#   recorded wherever they show.
# - *No chat template.* Then the model only continues texts. Section 2 says what that means.
# - *No vocabulary.* Then every byte counts as a token, and the answers mean nothing. The timings are still real.
#
# ## 1. Text becomes tokens
#
# A model calculates, so it needs numbers. Before anything else, a program called the **tokenizer** cuts your text into
# pieces. Every piece comes from a fixed list, the **vocabulary**. A piece is called a **token**. Its place in the list
# is its **id**. The ids are all that the model ever sees.
#
# **Guess first.** Here are six texts. Into how many tokens will each be cut? The last three say the same as the first.

# %%
texts = {
    "English": "The weather is nice today.",
    "rare words": "The ornithologist sneezed.",
    "ten digits": "1234567890",
    "German": "Das Wetter ist heute schön.",
    "Greek": "Ο καιρός είναι καλός σήμερα.",
    "Japanese": "今日はいい天気です。",
}
my_guess_tokens = [6, 6, 6, 6, 6, 6]  # write your six guesses here, in the same order

# %% [markdown]
# Now the real tokenizer cuts them. Each box is a token, and the number below it is its id. `␣` is a space.
# (The Japanese text is counted too, but plots lack its letters.)

# %%
import matplotlib.pyplot as plt

from labkit.learn import tokens

cut = lab.step("pieces", lambda: [
    {"kind": kind, "text": text, "pieces": tokens.pieces(lab.session, lab.session.tokenize(text))} for kind, text in texts.items()
])
fig = tokens.draw_pieces([row["pieces"] for row in cut[:5]], lab.caption())
plt.show()
assert fig.axes[0].patches

# %% [markdown]
# **Look.** A space belongs to the word behind it. Common words are one token. Rare words fall into parts. A `▯` is less
# than a letter: letters that the vocabulary does not know are cut into their bytes.
#
# How good were your guesses? The number above each pair is your guess divided by the count.

# %%
from labkit.learn import plots

counts = [len(row["pieces"]) for row in cut]
fig, ax = plots.figure(lab.caption())
plots.predicted_measured(ax, [row["kind"] for row in cut], my_guess_tokens, counts, "tokens", labels=("your guess", "counted"))
plt.show()
assert len(ax.patches) == 2 * len(cut)

# %%
import pandas as pd

pd.set_option("display.max_colwidth", None)  # show texts whole
table = pd.DataFrame({"text": [row["text"] for row in cut], "tokens": counts}, index=[row["kind"] for row in cut])
table["characters"] = table["text"].str.len()
table["characters per token"] = (table["characters"] / table["tokens"]).round(1)
table

# %% [markdown]
# Why is English cheap? Nobody wrote the vocabulary by hand. A program counted which pieces come often in a large pile
# of text, and gave those a token of their own. For SmolLM2, most of that text was English.
#
# This matters because tokens are the unit of everything that follows: the time a model needs, the length of text it can
# hold, and the price when you pay for one. The same sentence can cost three times as much in another language.
#
# ## 2. A chat becomes one text
#
# In a chat there are **messages**, and each has a **role**: `system` (instructions for the model), `user` (you) or
# `assistant` (the model). But a model reads one list of tokens. So the messages are written into one text, with special
# markers between them. The rule for that is the **chat template**. It comes with the model, because the model was
# trained on exactly these markers.

# %%
from labkit import measure
from labkit.core.records import Request

question = Request.chat("Why is the sky blue?", max_tokens=16 if quick else 48)
template = lab.step("template", lambda: [{
    "text": lab.session.chat_prompt(question.messages),
    "has_template": lab.session.has_chat_template,
    "pieces": tokens.pieces(lab.session, lab.session.prompt_tokens(question)),
}])[0]

# %%
print("--- your messages ---")
for message in question.messages:
    print(f"{message.role}: {message.content}")
print("\n--- what the model reads ---")
print(template["text"])
if not template["has_template"]:
    print("(This model has no chat template: it reads your text as it is and continues it.)")

# %% [markdown]
# And this is the same text in tokens. Special markers are orange. Each is one token, long as it looks. `↵` is a
# line end.

# %%
fig = tokens.draw_pieces([template["pieces"]], lab.caption())
plt.show()
assert fig.axes[0].patches

# %% [markdown]
# **Look.** Is there anything in it that you did not write? Many templates add a system message of their own. And where
# does the text end? It ends where the assistant begins to speak. From there the model simply goes on.
#
# Let it. Each piece is printed as soon as it is there. That is called **streaming**.

# %%
answer = lab.step("answer", lambda: [measure.one(lab.session, question, on_text=lambda text: print(text, end="", flush=True))])[0]
if lab.source == "recorded":
    print(answer.text)
print(f"\n\n{answer.prompt_tokens} tokens read, {answer.output_tokens} written. Why it ended: {answer.finish_reason}")

# %% [markdown]
# `stop` means: the model chose a special token that says "I have finished". `length` means: we cut it off, because we
# allowed only so many tokens (`max_tokens`). Then the answer may end in the middle of a sentence. (A model without a chat
# template may stop at once: it does not know that it was asked something.)
#
# ## 3. Scores become a choice
#
# How does the model choose a word? It does not. It gives **every** token in its vocabulary a score for coming next. Such
# a score is called a **logit**. Here are the real scores for one unfinished sentence. What would you put next?

# %%
sentence = "The farmer keeps cows, pigs and"

def score_next():
    *_, last = lab.session.logits(lab.session.prompt_tokens(Request(prompt=sentence)))  # the scores after the last token
    return [tokens.summary(last, lab.session.token_text)]

scores = lab.step("scores", score_next)[0]

# %%
fig = tokens.draw_candidates(scores, lab.caption())
plt.show()
assert fig.axes[0].patches and fig.axes[1].patches

# %% [markdown]
# On the left are the scores. They can be any number, also a negative one. On the right are the same scores turned into
# **probabilities**: positive numbers that sum to 100 %. The rule for that is called **softmax**. It has two steps:
#
# 1. Raise $e$ to the power of each score: `exp(score)`. Now all are positive, and large scores win clearly.
# 2. Divide each by the sum of them all.
#
# One more number comes in, the **temperature**. Every score is divided by it first. Three made-up scores show what that
# does. Compare the three lines.

# %% tags=["nbval-check-output"]
for temperature in (0.5, 1.0, 2.0):
    shares = [f"{100 * p:4.1f} %" for p in tokens.softmax([2.0, 1.0, 0.0], temperature)]
    print(f"scores 2, 1, 0 at temperature {temperature}:  " + "  ".join(shares))

# %% [markdown]
# A low temperature makes the favourite stronger. A high one makes all tokens more alike. At temperature 0 there is
# nothing to draw: the highest score always wins. This is called **greedy**.
#
# ### Exercise 1: softmax
# Write it yourself. Start with the two steps above, then divide by the temperature. For the last point, let it work for
# scores such as 1,000 too; the check tells you how. You may use a loop and `math.exp`, or NumPy: `np.array(logits)` can be
# divided or subtracted as a whole, and `np.exp` works on all of it at once.
#
# The cell below an exercise is its check. It prints a sentence, and as its result the points you have reached.

# %% tags=["exercise"] exercise="softmax"
import numpy as np

def softmax(logits, temperature):
    """logits: a list of scores. Give back a list (or array) of probabilities, one for each score."""
    ### BEGIN SOLUTION
    scaled = np.array(logits) / temperature
    weights = np.exp(scaled - scaled.max())
    return weights / weights.sum()
    ### END SOLUTION

# %% tags=["check"] exercise="softmax" points=3
ex.softmax.check(softmax, seed=seed)

# %% [markdown]
# Now the model's real scores, at three temperatures.

# %%
fig = tokens.draw_temperatures(scores, lab.caption(), temperatures=(0.3, 1.0, 2.0))
plt.show()
assert all(ax.patches for ax in fig.axes)

# %% [markdown]
# **Look at the last bar of each picture.** Every one of the "others" is very unlikely. But there are thousands of them,
# and together they weigh a lot. At a high temperature the model will often pick one of them, and the sentence goes wrong.
#
# That is what **top-p** is for. It looks at the most likely tokens only: as many as together reach the probability *p*.
# All others are thrown out before the draw. With *p* = 1 all stay.
#
# ### Exercise 2: which tokens stay?
# Begin with the most likely token, add up, and stop when the sum reaches *p*. The token that reaches it stays too.
# Example: with `[0.2, 0.5, 0.3]` and *p* = 0.6, positions 1 and 2 stay. The list may come in any order.

# %% tags=["exercise"] exercise="top_p_keep"
def top_p_keep(probabilities, p):
    """Give back a list of the positions that stay (0 is the first)."""
    ### BEGIN SOLUTION
    order = sorted(range(len(probabilities)), key=lambda i: probabilities[i], reverse=True)
    kept, total = [], 0.0
    for i in order:
        kept.append(i)
        total += probabilities[i]
        if total >= p:
            break
    return kept
    ### END SOLUTION

# %% tags=["check"] exercise="top_p_keep" points=2
ex.top_p_keep.check(top_p_keep, seed=seed)

# %% [markdown]
# Now play. The dashed outlines are the model's own probabilities. The bars are what is left after top-p and temperature.
# One token is **drawn** by chance. The **seed** decides the draw: the same seed, the same token.
#
# - Move the temperature to 0. What happens?
# - Set it to 2, with top-p at 1. Change the seed a few times. How often do "others" win?
# - Leave it at 2 and choose top-p 0.5. What changes?

# %%
from labkit.learn.widgets import explore

def show_choice(temperature, top_p, seed):
    return tokens.draw_choice(scores, lab.caption(), temperature, top_p, seed)

box = explore(show_choice, temperature=(0.0, 2.0, 0.1), top_p=[1.0, 0.95, 0.9, 0.8, 0.5, 0.2], seed=(1, 9, 1))
assert box is None or len(box.children) == 4  # three controls and the picture

# %% [markdown]
# (This picture cuts with top-p first and applies the temperature afterwards, as the engine here does. Some other
# programs do it the other way round. So the same settings can act differently elsewhere.)
#
# What does it do to a whole text? The model continues the same beginning, at several temperatures and with three seeds
# each.

# %%
story = "Once upon a time, there was a"
temperatures = (0.0, 1.5) if quick else (0.0, 0.7, 1.5)
length = 8 if quick else 24

def tell_stories():
    asked = [Request(prompt=story, temperature=t, seed=seed + n, max_tokens=length) for t in temperatures for n in range(3)]
    return [measure.one(lab.session, request) for request in asked]

stories = lab.step("stories", tell_stories)

# %%
for told in stories:
    print(f"temperature {told.settings['temperature']}, seed {told.settings['seed']}: {story}{told.text!r}")
for temperature in sorted({told.settings["temperature"] for told in stories}):
    texts_told = [told.text for told in stories if told.settings["temperature"] == temperature]
    print(f"At temperature {temperature}: {len(set(texts_told))} different texts from {len(texts_told)} seeds.")

# %% [markdown]
# **Look.** At temperature 0 the seed does not matter, because nothing is drawn. In the middle you get variety. At a high
# temperature you get nonsense. A program that must give facts or fixed labels runs at 0 or close to it. One that should
# surprise you runs at 0.7 to 1.
#
# ## 4. The loop that writes
#
# One run of the model gives one token. A sentence comes from a loop:
#
# 1. Ask the model for the scores after the text so far.
# 2. Choose a token (greedy: the highest score).
# 3. If it is the end token, stop. Otherwise append it to the text, and begin again.
#
# ### Exercise 3: write the loop
# The check runs your loop on a toy model. `scores_of(tokens)` gives a list with one score for each token id: the score
# at position 7 belongs to token 7.

# %% tags=["exercise"] exercise="greedy_loop"
def greedy_loop(scores_of, prompt, max_tokens, end):
    """prompt: a list of token ids. end: the id of the end token. Give back the list of new token ids, at most max_tokens."""
    ### BEGIN SOLUTION
    new = []
    while len(new) < max_tokens:
        scores = scores_of(prompt + new)
        best = scores.index(max(scores))
        if best == end:
            break
        new.append(best)
    return new
    ### END SOLUTION

# %% tags=["check"] exercise="greedy_loop" points=3
ex.greedy_loop.check(greedy_loop, seed=seed)

# %% [markdown]
# And here is the same loop on the real model. Only `by_hand` is ours. Next to it runs the engine's own loop
# (`lab.session.stream`). Both get the same beginning. We take the time of every token.

# %%
def by_hand(ids, count):
    ids = list(ids)
    for _ in range(count):
        *_, last = lab.session.logits(ids)  # 1. the scores after the text so far
        best = int(last.argmax())  # 2. greedy: the highest score
        ids.append(best)  # 3. the model reads it back in the next round
        yield lab.session.token_text(best)

# %%
def both_loops():
    ids = lab.session.prompt_tokens(Request(prompt=story))
    request = Request(tokens=tuple(ids), max_tokens=length, ignore_eos=True)
    engine_loop = (chunk.text for chunk in lab.session.stream(request) if chunk.tokens)
    return [{"by_hand": tokens.timed(by_hand(ids, length)), "engine": tokens.timed(engine_loop)}]

loops = lab.step("loops", both_loops)[0]
for name, steps in loops.items():
    print(f"{name:8} {sum(seconds for _, seconds in steps):5.2f} s  {story}{''.join(text for text, _ in steps)!r}")

# %% [markdown]
# The texts should agree, at least at the beginning. (Where two tokens have nearly the same score, a tiny rounding
# difference can decide. From there on the texts differ.) But what about the time?

# %%
fig, ax = plots.figure(lab.caption())
for (name, steps), colour, label in zip(loops.items(), (plots.ORANGE, plots.BLUE), ("our loop", "the engine's loop")):
    ax.plot(range(1, len(steps) + 1), [seconds for _, seconds in steps], "o-", color=colour, label=label)
ax.set(xlabel="which token", ylabel="seconds for this token", ylim=(0, None))
ax.legend(frameon=False)
plt.show()
assert len(ax.lines) == 2

# %% [markdown]
# **Look.** Our loop gets slower with every token: each round reads the whole text again. The engine reads the text once
# (its first point), and every further token costs about the same. What does it do better? The next two sections
# explain it.
#
# ## 5. Reading and writing
#
# An engine works in two phases.
#
# - **Prefill:** it reads the prompt. All its tokens are known, so they are computed many at a time. This is the wait
#   before the first word: the **time to first token (TTFT)**.
# - **Decode:** it writes. Each token depends on the one before, so they come one by one. The pace is the **time per
#   output token (TPOT)**.
#
# **Guess first.** A prompt is four times as long. How many times as long is the wait for the first token?

# %%
my_guess_ratio = 1.0  # 1.0 means: no longer than before

# %%
lengths, repeats = ((16, 32, 64), 1) if quick else ((32, 64, 128, 256), 3)
runs = lab.step("lengths", lambda: tokens.read_lengths(lab.session, lengths, repeats))

# %% [markdown]
# The prompts are one sentence again and again, cut at the wanted length; here only the length matters. Each dot is one
# run, and the black line is the middle one of its group. The lengths were measured in turn, one after another and then
# again, so that a busy moment of the machine does not fall on one of them alone.

# %%
import numpy as np

sizes = sorted({run.prompt_tokens for run in runs})
waits = {n: [run.ttft_s for run in runs if run.prompt_tokens == n] for n in sizes}
guess_s = my_guess_ratio * np.median(waits[sizes[0]])
fig, axes = plots.figure(lab.caption(), columns=2)
axes[0].plot(sizes.index(4 * sizes[0]), guess_s, "*", color=plots.ORANGE, ms=14, label="your guess")
axes[0].legend(frameon=False)
plots.points(axes[0], {str(n): waits[n] for n in sizes}, "TTFT (s), by tokens in the prompt")
plots.points(axes[1], {str(n): [run.tpot_s for run in runs if run.prompt_tokens == n] for n in sizes}, "TPOT (s), by tokens in the prompt")
plt.show()
assert axes[0].lines and axes[1].lines

# %%
ratio = np.median(waits[4 * sizes[0]]) / np.median(waits[sizes[0]])
print(f"From {sizes[0]} to {4 * sizes[0]} prompt tokens, the wait became {ratio:.1f} times as long. Your guess: {my_guess_ratio:.1f} times.")

# %% [markdown]
# The wait grows about as the prompt grows. The pace hardly changes. (On a busy machine the dots scatter. Then compare the
# lowest dots: they were disturbed least.) So a long prompt costs you at the beginning, and a
# long answer costs you at the end.
#
# ## 6. The KV cache: reading only once
#
# While a model reads, it works out two lists of numbers for every token, its **key** and its **value**. Later tokens
# look back at them. They never change, so the engine keeps them in memory. This is the **KV cache**. That is what our
# loop lacked: it threw everything away after each token.
#
# It helps between questions too. A chat program sends the **whole** conversation again with every turn. The beginning is
# the same as last time. So the engine compares the new prompt with the tokens in its cache, from the start. As far as
# they agree, nothing is computed. At the first difference, the rest of the cache is dropped.
#
# ### Exercise 4: what is left to compute?
# `cached` and `prompt` are lists of token ids. How many tokens of the prompt must the model still read? At least one,
# even when all agree: without reading a token, it gives no new scores.

# %% tags=["exercise"] exercise="tokens_to_compute"
def tokens_to_compute(cached, prompt):
    """Give back the number of prompt tokens that the cache cannot save."""
    ### BEGIN SOLUTION
    same = 0
    while same < min(len(cached), len(prompt)) and cached[same] == prompt[same]:
        same += 1
    return max(1, len(prompt) - same)
    ### END SOLUTION

# %% tags=["check"] exercise="tokens_to_compute" points=3
ex.tokens_to_compute.check(tokens_to_compute, seed=seed)

# %% [markdown]
# Now measure it. A first turn gives the model a note to read. The second turn asks one more thing. We run that second
# turn with the cache thrown away and with the cache kept, in turn.

# %%
note = (
    "Please read this note. Dear Ana, the train was late again, so I missed you. The key of the garden house is under the"
    " blue pot. Water the roses, feed the cat twice a day, and close the windows when it rains. I am back on Sunday. Tom."
)
first_turn = Request.chat(note, max_tokens=6, ignore_eos=True)
turns = lab.step("second_turn", lambda: tokens.second_turns(lab.session, first_turn, "Where is the key?", repeats=1 if quick else 5))

# %%
groups = {"thrown away": [t for t in turns if not t.settings["keep_cache"]], "kept": [t for t in turns if t.settings["keep_cache"]]}
fig, ax = plots.figure(lab.caption(), width=5.5)
plots.points(ax, {name: [t.ttft_s for t in group] for name, group in groups.items()}, "TTFT of the second turn (s)")
plt.show()
assert ax.lines
for name, group in groups.items():
    print(f"cache {name:12} {group[0].prompt_tokens} prompt tokens, {group[0].cached_tokens} of them from the cache")

# %% [markdown]
# **Look.** With the cache kept, only the new part is read, and the first word comes sooner. (A few models cannot cut
# their cache in the middle. With such a model the second line says 0, and both groups take the same time.)
#
# A practical rule follows: put what never changes at the **beginning** of a prompt. One changed word at the top makes
# everything behind it new.
#
# ## 7. The context window
#
# Keys and values take memory, so there is a limit on how many tokens can be held. This limit is the **context window**.
# The whole conversation must fit into it, with the new answer. We chose a small window when we loaded the model,
# so that its edge is near: `context=512`. Large models have windows of 100,000 tokens and more. They have an edge too.
#
# A chat goes on and on. Each turn is a question and an answer like these:

# %%
from labkit.core.records import Message

user = Message(role="user", content="Can you tell me one more interesting thing about the sea?")
reply = Message(role="assistant", content="Of course. The sea covers most of our planet, and a large part of it has never been seen by anyone.")
my_guess_turns = 4  # after how many turns is a window of 512 tokens too small?

# %%
def long_chat():
    messages, rows = [], []
    while not rows or rows[-1]["tokens"] <= lab.session.context:
        messages += [reply, user] if messages else [user]
        count = len(lab.session.prompt_tokens(Request(messages=tuple(messages))))
        rows.append({"turn": len(rows) + 1, "tokens": count, "window": lab.session.context})
    return rows

growth = lab.step("long_chat", long_chat)

# %%
fig, ax = plots.figure(lab.caption())
ax.bar([row["turn"] for row in growth], [row["tokens"] for row in growth], color=plots.BLUE, label="tokens the model must read")
ax.axhline(growth[0]["window"], color=plots.RED, label="context window")
ax.axvline(my_guess_turns, color=plots.ORANGE, ls="--", label="your guess")
ax.set(xlabel="turn of the chat", ylabel="tokens", xticks=[row["turn"] for row in growth], ylim=(0, 1.2 * growth[-1]["tokens"]))
ax.legend(frameon=False, loc="upper center", ncols=3)
plt.show()
assert ax.patches and ax.lines

# %% [markdown]
# The last bar does not fit any more. What if we ask anyway? We expect an error here, and the error is the lesson.
# `tokens.refusal` runs the request and keeps the sentence.

# %%
def ask_anyway():
    chat = tuple([user, reply] * (len(growth) - 1) + [user])
    return [{"sentence": tokens.refusal(lambda: lab.session.stream(Request(messages=chat)))}]

print(lab.step("too_long", ask_anyway)[0]["sentence"])

# %% [markdown]
# This engine refuses. Others silently drop the oldest messages, and the model "forgets" how the chat began. A good chat
# program shortens the conversation itself before that happens.
#
# The second way to meet the edge: the prompt fits, but the answer does not. We fill the window until only 24 places are
# left, and ask for 100 tokens.
#
# **Guess first.** How many tokens will the answer have?

# %%
my_guess_answer = 100

# %%
def near_the_edge():
    ids = tokens.filler(lab.session, lab.session.context - 24)  # the same sentence again and again
    return [measure.one(lab.session, Request(tokens=ids, max_tokens=100, ignore_eos=True))]

cut_off = lab.step("near_the_edge", near_the_edge)[0]
print(f"{cut_off.prompt_tokens} tokens read, {cut_off.output_tokens} written. Why it ended: {cut_off.finish_reason}")
print(f"Your guess: {my_guess_answer}")

# %% [markdown]
# The answer is cut where the window ends. There is one token more than the free places. The last token needs no place:
# nothing comes after it, so nobody has to look back at it. In your own programs, look at the reason why an answer ended.
# `length` means that something is missing.
#
# ## 8. Fluent is not right
#
# You have now seen the whole machine: cut into tokens, score, choose, append, again. Nowhere in it did anybody look up a
# fact. The model writes what is **likely** after your text. Often that is also true. A small model has room for few
# facts, so it is often wrong, and it sounds just as sure.
#
# **Guess first.** How many of these questions will it answer correctly?

# %%
known = {
    "What is the capital of Italy?": "Rome",
    "What is 12 times 12?": "144",
    "How many legs does a spider have?": "8",
    "Which planet is closest to the Sun?": "Mercury",
    "Who wrote Romeo and Juliet?": "William Shakespeare",
    "What is 17 + 25?": "42",
}
my_guess_right = 4

# %%
def ask_all():
    rows = []
    for question, truth in list(known.items())[: 4 if quick else None]:
        chat = Request.chat(question, system="Answer in a few words.", max_tokens=12 if quick else 24)
        says = measure.one(lab.session, chat).text.strip()
        rows.append({"question": question, "true answer": truth, "the model says": says})
    return rows

facts = lab.step("facts", ask_all)
pd.DataFrame(facts)

# %% [markdown]
# No program can judge this for you reliably: a right answer can be worded in many ways. So count yourself.

# %%
i_counted_right = 0  # read the table and write your count here
print(f"{len(facts)} questions. You expected {my_guess_right} right answers and counted {i_counted_right}.")

# %% [markdown]
# Were there answers that sound right and are wrong? Those are the dangerous ones. Later labs measure quality with
# hundreds of questions, and give a model the facts it needs inside its prompt.
#
# ## What to remember
#
# 1. A model reads and writes **tokens**. It scores all of them, and temperature, top-p and the seed decide which one is
#    taken.
# 2. **Prefill** (reading) makes the wait, **decode** (writing) makes the pace. The **KV cache** saves reading the same
#    beginning twice.
# 3. Prompt and answer share one **context window**. And a fluent answer is not yet a right one.
#
# **What this means in production.** Count tokens, not words, when you plan time, memory and cost, and count them in your
# users' language. Always use the model's own chat template. Put what stays the same at the start of the prompt. Watch
# why answers end. Use temperature 0 where a task has one right answer, and check facts elsewhere.
#
# **Where to read more**
# - How vocabularies are made: <https://huggingface.co/learn/llm-course/chapter6/5>
# - Chat templates: <https://huggingface.co/docs/transformers/chat_templating>
# - The paper on top-p, "The Curious Case of Neural Text Degeneration": <https://arxiv.org/abs/1904.09751>
# - The engine of this lab: <https://github.com/ggml-org/llama.cpp>
# - The model of this lab: <https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct>
#
# **The same lab on a bigger model.** Set `model` in the settings to the path of any GGUF file and run all cells again.
# Does it answer more questions correctly? How does its tokenizer cut your texts? This is what a bigger model needs, worked
# out from its shape, at 4.5 bits for each of its numbers:

# %%
from labkit.models import catalog, footprint, shape

bigger = catalog.get("qwen3-0.6b")
header = shape.header(bigger, "Q4_0")
need = footprint.predict(header, context=512).total_bytes
print(f"{bigger.name}, {bigger.parameters / 1e6:.0f} million numbers (huggingface.co/{bigger.hub})")
print(f"download {header.file_bytes / 1e9:.2f} GB, memory about {need / 1e9:.2f} GB")

# %% [markdown]
# Everything that you measured is in the file that `results_path` names, one line for each step. Next: lab 01 measures how fast the
# model is, and how to choose the number of threads.
