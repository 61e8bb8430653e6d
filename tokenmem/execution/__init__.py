"""How procedures run: the effects that they wait for, and what runs these, sync and async."""
