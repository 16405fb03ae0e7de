// Asks through the proxy and shows each piece of the answer when it comes. The key stays in this page's memory.
const by = (id) => document.getElementById(id);
let running = null;

// A stream of server-sent events, cut wherever the network cut it: lines are put together again before they are read.
async function* events(body) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of pieces(body)) {
    rest += decoder.decode(bytes, { stream: true });
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ")) yield line.slice(6).trim();
    }
  }
}

async function* pieces(body) {
  const reader = body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

async function why(reply) {
  const said = await reply.json().catch(() => null);
  return said?.error?.message ?? reply.statusText;
}

async function ask() {
  const begin = performance.now();
  let count = 0, first = null, ended = false;
  by("answer").textContent = "";
  by("status").textContent = "waiting for the first piece";
  running = new AbortController();
  const reply = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${by("key").value}` },
    body: JSON.stringify({
      model: by("model").value,
      messages: [{ role: "user", content: by("prompt").value }],
      max_tokens: 120,
      stream: true,
    }),
    signal: running.signal,
  });
  if (!reply.ok) throw new Error(`${reply.status}: ${await why(reply)}`);
  for await (const data of events(reply.body)) {
    if (data === "[DONE]") { ended = true; break; }
    const piece = JSON.parse(data).choices?.[0]?.delta?.content ?? "";
    if (!piece) continue;
    count += 1;
    first ??= performance.now() - begin;
    by("answer").textContent += piece;  // as text: whatever the model writes, it is never read as HTML
    by("status").textContent = `${count} pieces, the first after ${(first / 1000).toFixed(2)} s`;
  }
  if (!ended) throw new Error("the answer was cut off");
  by("status").textContent += `, all after ${((performance.now() - begin) / 1000).toFixed(2)} s`;
}

by("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  by("send").disabled = true;
  by("stop").disabled = false;
  try {
    await ask();
  } catch (error) {
    by("status").textContent = error.name === "AbortError" ? "stopped" : error.message;
  } finally {
    by("send").disabled = false;
    by("stop").disabled = true;
  }
});
by("stop").addEventListener("click", () => running?.abort());
