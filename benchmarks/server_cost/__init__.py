"""What do windows and appends ask of the server, told by the server's own counts?"""
