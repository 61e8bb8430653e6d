"""How fast are many messages stored, against the bare driver's fastest way?"""
