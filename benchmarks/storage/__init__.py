"""How many bytes on disk does a message take above its text?"""
