"""Token counting: what a message costs, and what a model bills for a whole request."""
