"""Programs as tutorials write them: only the import changes, and the history outlives the process."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("langchain_classic", reason="langchain-classic is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

THEIRS = """
from langchain_classic.chains import ConversationChain
from langchain_classic.memory import ConversationTokenBufferMemory
"""
OURS = "from tokenmem import ConversationChain, ConversationTokenBufferMemory\n"

# A model that answers with how many lines it was told, and counts words: the same on both sides.
MODEL = """
import warnings
warnings.simplefilter("ignore")
from langchain_core.language_models import LLM

class Parrot(LLM):
    @property
    def _llm_type(self):
        return "parrot"

    def _call(self, prompt, stop=None, run_manager=None, **options):
        return f"I was told {len(prompt.splitlines())} lines, ending with {prompt[-40:]!r}"

    def get_num_tokens(self, text):
        from tokenmem import TiktokenCounter
        return TiktokenCounter("cl100k_base").count_text(text)

llm = Parrot()
"""

NOTEBOOK = """
conversation = ConversationChain(
    llm=llm,
    # the limit is low, to see the history leave the window
    memory=ConversationTokenBufferMemory(llm=llm, max_token_limit=60),
    verbose=False,
)
print(conversation.prompt.template)
print(conversation.predict(input="Hi, my name is Andrew"))
print(conversation.predict(input="What is 1+1?"))
print(conversation.predict(input="What is my name?"))
print(conversation.memory.buffer)
print(conversation.memory.load_memory_variables({}))

memory = ConversationTokenBufferMemory(llm=llm, max_token_limit=50)
memory.save_context({"input": "AI is what?!"}, {"output": "Amazing!"})
memory.save_context({"input": "Backpropagation is what?"}, {"output": "Beautiful!"})
memory.save_context({"input": "Chatbots are what?"}, {"output": "Charming!"})
print(memory.load_memory_variables({}))
memory.clear()
print(memory.load_memory_variables({}))

messages = ConversationTokenBufferMemory(llm=llm, max_token_limit=10, return_messages=True)
messages.save_context({"input": "hi"}, {"output": "whats up"})
messages.save_context({"input": "not much you"}, {"output": "not much"})
print(messages.load_memory_variables({}))
for message in messages.chat_memory.messages:
    print(message.type, message.content)
"""

STREAMLIT = """
session_state = {}  # as st.session_state: the script runs anew for each thing that is said

def rerun(said):
    if "conversation" not in session_state:
        session_state["memory"] = ConversationTokenBufferMemory(
            llm=llm, max_token_limit=200, return_messages=True, memory_key="chat_history"
        )
        session_state["conversation"] = ConversationChain(
            llm=llm, memory=session_state["memory"], prompt=PROMPT, input_key="question"
        )
    for message in session_state["memory"].chat_memory.messages:
        print(f"[{message.type}] {message.content}")
    if said is not None:
        print("[ai, new]", session_state["conversation"].run(said))

from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
PROMPT = ChatPromptTemplate.from_messages(
    [("system", "Be kind."), MessagesPlaceholder("chat_history"), ("human", "{question}")]
)
for said in ("Hello", "Who are you?", None, "Bye"):
    rerun(said)
"""

FASTAPI = """
import asyncio
from fastapi import FastAPI, HTTPException
from fastapi.testclient import TestClient
from pydantic import BaseModel

app = FastAPI()
conversations = {}

class Question(BaseModel):
    session: str
    text: str

@app.post("/ask")
async def ask(question: Question):
    if question.session not in conversations:
        memory = ConversationTokenBufferMemory(llm=llm, max_token_limit=100)
        conversations[question.session] = ConversationChain(llm=llm, memory=memory)
    try:
        answer = await conversations[question.session].ainvoke({"input": question.text})
    except ValueError as error:
        raise HTTPException(422, "refused") from error
    return {"answer": answer["response"], "history": answer["history"]}

client = TestClient(app)
for session, text in (("ann", "Hello"), ("bob", "Hi"), ("ann", "And now?"), ("bob", "Well?"), ("ann", "Bye")):
    print(client.post("/ask", json={"session": session, "text": text}).json())
"""


# Runs each program in a process of its own, forked from one that has imported what all of them import.
EACH_IN_A_FORK = """
import json, os, sys
import alembic.command, fastapi.testclient, langchain_classic.chains, langchain_classic.memory, tokenmem
assert tokenmem.ConversationChain and tokenmem.TiktokenCounter("cl100k_base").count_text("x")
for name, program in json.load(sys.stdin).items():
    os.mkdir(name)
    if os.fork() == 0:
        os.chdir(name)
        os.dup2(os.open("output", os.O_CREAT | os.O_WRONLY), 1)
        exec(program, {"__name__": "__main__"})
        sys.stdout.flush()
        os._exit(0)  # an interpreter's orderly end takes ten times as long as the program
    if os.wait()[1]:
        sys.exit(f"{name} failed")  # behind what it wrote to stderr
"""


def run(programs: dict[str, str], where: Path) -> dict[str, str]:
    """What each of these programs writes, in a directory of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOKENMEM_")}
    done = subprocess.run(
        [sys.executable, "-c", EACH_IN_A_FORK],
        input=json.dumps(programs),
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: (where / name / "output").read_text(encoding="utf-8") for name in programs}


def test_only_the_import_changes(tmp_path: Path) -> None:
    programs = {"notebook": NOTEBOOK, "streamlit": STREAMLIT, "fastapi": FASTAPI}
    theirs = {f"their {name}": MODEL + THEIRS + program for name, program in programs.items()}
    ours = {f"our {name}": MODEL + OURS + program for name, program in programs.items()}
    told = run(theirs | ours, tmp_path)
    for name in programs:
        assert told[f"their {name}"] == told[f"our {name}"] != "", name
        assert (tmp_path / f"our {name}" / "tokenmem.db").is_file()


LANGUAGES = {
    "en": [("hi", "whats up"), ("not much you", "not much")],
    "zh": [("你好", "有什么事"), ("没什么，你呢", "也没什么")],
    "ja": [("やあ", "どうしたの"), ("特に何も、あなたは", "特に何も")],
    "ko": [("안녕", "무슨 일이야"), ("별일 없어, 너는", "별일 없어")],
    "pt": [("olá", "o que foi"), ("nada demais, e você", "nada demais")],
}
SYNC = ("memory.save_context({})", "memory.load_memory_variables({})", "chain.predict(input=said)")
ASYNC = (
    "asyncio.run(memory.asave_context({}))",
    "asyncio.run(memory.aload_memory_variables({}))",
    "asyncio.run(chain.apredict(input=said))",
)


def documented(exchanges: list[tuple[str, str]], calls: tuple[str, str, str]) -> str:
    save, load, predict = calls
    return textwrap.dedent(f"""
        import asyncio
        for limit in (5, 10, 20, 2000):
            for as_messages in (False, True):
                memory = ConversationTokenBufferMemory(
                    llm=llm, max_token_limit=limit, return_messages=as_messages
                )
                for said, answered in {exchanges!r}:
                    {save.format('{"input": said}, {"output": answered}')}
                print({load})
            memory = ConversationTokenBufferMemory(llm=llm, max_token_limit=limit)
            chain = ConversationChain(llm=llm, memory=memory)
            for said, _ in {exchanges!r}:
                print({predict})
    """)


def test_the_documented_example_in_five_languages(tmp_path: Path) -> None:
    programs = {}
    for language, exchanges in LANGUAGES.items():
        programs[f"theirs {language}"] = MODEL + THEIRS + documented(exchanges, SYNC)
        programs[f"ours {language}"] = MODEL + OURS + documented(exchanges, SYNC)
        # LangChain's own asave_context never prunes; awaited or not, ours loads the same.
        programs[f"ours, awaited, {language}"] = MODEL + OURS + documented(exchanges, ASYNC)
    told = run(programs, tmp_path)
    for language in LANGUAGES:
        assert told[f"theirs {language}"] == told[f"ours {language}"] != ""
        assert told[f"theirs {language}"] == told[f"ours, awaited, {language}"]
