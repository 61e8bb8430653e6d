"""Who gets a connection, and what a line in which nobody is overtaken costs."""
