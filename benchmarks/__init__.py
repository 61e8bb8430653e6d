"""One folder a question, which its docstring asks; `python -m benchmarks` asks most of them."""
