"""How much of a window does a provider's prompt cache find, with and without a stride?"""
