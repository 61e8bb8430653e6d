"""The persistent successors of LangChain's memory and chain."""
