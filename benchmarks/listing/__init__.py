"""Lists of conversations, the newest first."""
