"""Memories that name no store, and what they remember."""

from tokenmem import ConversationTokenBufferMemory


def memory(name: str) -> ConversationTokenBufferMemory:
    """A memory of this conversation, on the store that all memories without one share."""
    return ConversationTokenBufferMemory(conversation_id=name)


def talk(memory: ConversationTokenBufferMemory) -> None:
    """Store one exchange."""
    memory.save_context({"input": f"I am {memory.conversation_id}"}, {"output": "hello"})


def heard(memory: ConversationTokenBufferMemory) -> bool:
    """Whether the conversation is that exchange and nothing else."""
    return memory.buffer == f"Human: I am {memory.conversation_id}\nAI: hello"
