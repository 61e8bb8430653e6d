"""What the page about the prompt cache says beside its figures."""

WHAT = (
    "Providers bill the beginning of a prompt that they have seen before at a part of its price, and answer "
    "sooner. How much of a window they have seen before depends on where it starts. Measured on logs of real "
    "conversations, replayed call by call; all figures are counts, no clock is involved, and the same logs "
    "give the same page."
)

WHY = (
    "## Why sliding windows miss the cache",
    "A cache compares prompts from their first token on and stops at the first difference. While a "
    "conversation fits the limit, each prompt is the one before with something behind it, and nearly all of "
    "it is served. From then on a window that holds as much as fits drops its oldest messages whenever new "
    "ones come. The next prompt begins with another message, and everything behind the instructions is paid "
    "in full, although all but one or two of its messages were sent a moment ago.",
    "## What the stride does",
    "With `stride` the start stays where it is until the conversation has grown by that many tokens, then "
    "moves by a stride at once. Between two moves each prompt begins with the whole prompt before it, to the "
    "byte; only a call at which the start moves pays for its whole window. The start follows from the "
    "conversation's total alone, so every process finds the same one, nothing is stored, and it is still "
    "one range read. The price is memory: right behind a move the window holds up to a stride less than the "
    "limit, half a stride on average. Windows never exceed the limit.",
    """```python
from tokenmem import Store

store = Store("sqlite:///agent.db")
store.upgrade()
prompts = []
for number in range(100):
    store.append("c1", [{"role": "user", "content": f"Question {number}: " + "and why? " * 20}])
    prompts.append(store.window("c1", token_limit=2_000, stride=500).to_openai())

extended = sum(new[: len(old)] == old for old, new in zip(prompts, prompts[1:]))
print(f"{extended} of {len(prompts) - 1} prompts begin with the whole prompt before")
```""",
)

CHOOSING = (
    "## How to choose it",
    "Two rules of thumb, which the tables bear out:",
    """- *Sent before*: the start moves at no more than (tokens that a call adds) / stride of the calls. Ten
  times what a call adds repeats about nine tenths of a prompt.
- *Full*: 1 - stride / (2 · limit), less half a step. An eighth of the limit costs 6 % of it, a quarter 13 %,
  a half 25 %.""",
    'So take ten times what a call adds (a question, an answer, a tool\'s result; "By source" has what it is '
    "in the logs), and not more than a quarter of the limit unless the bill matters more than the memory. At "
    "16,000 tokens an eighth does both. A conversation that never exceeds its limit is repeated in any case.",
    "What has to hold besides: instructions and tools are the same bytes at each call (no time of day in "
    "them), and messages in the window are not edited. Pinned messages come first, and pinning another one "
    "changes the beginning once. Bills below are relative to the sliding window of the same limit, where a "
    "token that is not cached costs 1; agents' logs, once full:",
)

METHOD = (
    "## Method",
    """- Before each assistant's message of a log the messages so far are appended to a Store on an SQLite
  file, and the window is loaded with `start_on="step"`. A prompt is the instructions and then the window.
  Replies are those of the log.
- *Sent before*: tokens of the longest beginning that a prompt shares with the one before it, by whole
  messages, and in the first message that differs by the tokens of its text. A first call repeats nothing.
- *Cached*: of these, whole multiples of 128 from 1,024 on, as
  [OpenAI describes its cache](https://openai.com/index/api-prompt-caching/). Every call is taken to come
  before the entry expires (minutes there). A surcharge for writing to the cache, as some providers have it,
  is left out; it would fall on the sliding window's bill more than on the other.
- *Full*: the window's tokens by its limit, the mean of all calls; instructions are not in it.
- *Once full*: calls at which the conversation exceeds the limit.
- Single logs are mostly shorter than these limits. The conversations of a source are therefore chained, in
  the order of the file, into one long session; sources of fewer than 64,000 tokens are left out. Under
  "Conversations as they are" nothing is chained.
- A system message with which all conversations of a source begin is its instructions, sent before the window.
  No log says what its tools' schemas were, so they are counted as nothing; "Instructions and tools" shows
  what they would change.
- Where no window fits, because one step exceeds the limit or the log begins with a tool's result, there is
  no prompt and no call; how many these are is told below.
- Agents' logs are those with tools' results in them. Tokens are counted by o200k_base with tokenmem's own
  overheads for messages and calls.
- `tests/chat/test_prompt_cache.py` holds the guarantee on made-up conversations, on both engines: equal bytes
  while the start stays, and both bars.""",
)

HOW = (
    "## Measure it yourself",
    "On your own calls, the provider says it: `usage.prompt_tokens_details.cached_tokens` with OpenAI, and "
    "where calls are recorded in `llm_calls`:",
    """```sql
SELECT day, model, round(100.0 * cached_tokens / input_tokens, 1) AS percent_cached
FROM usage_by_day WHERE input_tokens > 0 ORDER BY day, model
```""",
    "On your own conversations, before you have decided:",
    """```console
$ mkdir logs && tokenmem export --output logs/mine.jsonl
$ scripts/benchmark --help                                     # makes build/venv-benchmarks, which can plot
$ build/venv-benchmarks/bin/python -m benchmarks.cache logs    # three minutes; writes this page and its plot
$ build/venv-benchmarks/bin/python -m benchmarks.cache --page  # only the page, from build/benchmarks
```""",
    "The directory holds JSON Lines files, a conversation a line: `id`, `messages` in OpenAI's format, and "
    "perhaps `source`, else the file's name is its source. The logs that this page was made from are other "
    "people's and not part of the project; the sources are named above.",
)
