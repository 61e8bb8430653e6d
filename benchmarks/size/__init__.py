"""How does a database of 50 million messages behave, and the commands that go through all of it?"""
