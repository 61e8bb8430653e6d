"""Where langchain-core is not installed everything works without its types."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PRELUDE = """
import asyncio, sys
for name in ("langchain_core", "langchain_classic"):
    sys.modules[name] = None  # as if it were not installed
from tokenmem import ConversationChain, ConversationTokenBufferMemory, Message, Store
store = Store("sqlite:///x.db"); store.upgrade()
prompts = []
def llm(prompt, stop=None):
    prompts.append(prompt)
    return f"answer {len(prompts)}"
def memory(**options):
    return ConversationTokenBufferMemory(llm=llm, store=store, **options)
"""


def run(program: str, where: Path) -> list[str]:
    code = PRELUDE + textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=where, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_way_of_calling(tmp_path: Path) -> None:
    printed = run(
        """
        chain = ConversationChain(llm=llm, memory=memory(conversation_id="c"))
        print(chain.predict(input="a"), chain.run("b"), chain.run(input="c"), chain("d", True))
        print(chain.invoke("e", {"tags": ["x"]}, return_only_outputs=True))
        print([each["response"] for each in chain.batch(["f", {"input": "g"}])])
        print(list(chain.stream("h")), next(chain.stream("i"))["response"])
        async def main():
            print(await chain.apredict(input="j"), await chain.arun("k"), await chain.acall("l", True))
            print((await chain.abatch(["m"]))[0]["response"], [p async for p in chain.astream("n")])
            print((await chain.agenerate([{"input": "o", "history": ""}])).generations[0][0].text)
        asyncio.run(main())
        print(chain.apply([{"input": "p", "history": "H", "stop": ["."]}]), repr(prompts[-1][-15:]))
        print([m.content for m in store.messages("c") if m.role == "user"])
        print(hasattr(chain.invoke("q", include_run_info=True)["__run"], "run_id"))
        """,
        tmp_path,
    )
    assert printed == [
        "answer 1 answer 2 answer 3 {'response': 'answer 4'}",
        "{'response': 'answer 5'}",
        "['answer 6', 'answer 7']",
        "['answer 8'] answer 9",
        "answer 10 answer 11 {'response': 'answer 12'}",
        "answer 13 ['answer 14']",
        "answer 15",
        "[{'response': 'answer 16'}] '\\nH\\nHuman: p\\nAI:'",
        "['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n']",
        "True",
    ]


def test_messages_are_messages_and_dicts(tmp_path: Path) -> None:
    printed = run(
        """
        mine = memory(return_messages=True)
        mine.save_context({"input": "hi"}, {"output": "hello"})
        first, second = mine.load_memory_variables({})["history"]
        assert isinstance(first, Message) and first == store.messages(mine.conversation_id)[0]
        print(first["role"], dict(second), {**first}, first.content, second.position)
        print(mine.chat_memory.messages == mine.buffer == mine.buffer_as_messages)
        mine.chat_memory.add_user_message("more"); mine.chat_memory.add_ai_message("yes")
        print(mine.buffer_as_str.splitlines()[-2:])
        mine.chat_memory.clear(); print(mine.buffer)
        """,
        tmp_path,
    )
    assert printed == [
        "user {'role': 'assistant', 'content': 'hello'} {'role': 'user', 'content': 'hi'} hi 2",
        "True",
        "['Human: more', 'AI: yes']",
        "[]",
    ]


def test_callbacks_are_objects_with_the_methods(tmp_path: Path) -> None:
    printed = run(
        """
        class Handler:
            def on_chain_start(self, serialized, inputs, *, run_id, tags, name, **rest):
                print("start", inputs, tags, name)
            def on_text(self, text, **rest):
                raise RuntimeError("is logged, and stops nothing")
            def on_chain_error(self, error, **rest):
                print("error", type(error).__name__)
        class Awaited:
            async def on_chain_end(self, outputs, **rest):
                print("end", outputs)
        chain = ConversationChain(llm=llm, memory=memory(), callbacks=[Handler()], tags=["t"])
        chain.predict(input="a")
        asyncio.run(chain.ainvoke("b", {"callbacks": [Awaited()], "tags": ["u"], "run_name": "n"}))
        try:
            chain.predict()
        except ValueError:
            print("refused")
        class Strict(Handler):
            raise_error = True
        try:
            chain.predict(input="c", callbacks=[Strict()])
        except RuntimeError as error:
            print(error)
        """,
        tmp_path,
    )
    assert printed[0] == "start {'input': 'a', 'history': ''} ['t'] ConversationChain"
    assert printed[1] == "start {'input': 'b', 'history': 'Human: a\\nAI: answer 1'} ['u', 't'] n"
    assert printed[2] == "end {'response': 'answer 2'}"
    assert printed[3].startswith("start {'history'")
    assert printed[4:6] == ["error InvalidArgument", "refused"]
    assert printed[-1] == "is logged, and stops nothing"


@pytest.mark.parametrize("use", ["chain | print", "import tokenmem.adapters.langchain"])
def test_what_needs_it_says_so(use: str, tmp_path: Path) -> None:
    printed = run(
        f"""
        from tokenmem.errors import MissingExtra
        chain = ConversationChain(llm=llm, memory=memory())
        try:
            {use}
        except MissingExtra as error:
            print(error)
        """,
        tmp_path,
    )
    assert 'pip install "tokenmem[langchain]"' in printed[0]
