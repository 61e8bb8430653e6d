"""What is inside a message: the one package that looks into a payload."""

from tokenmem.messages.json_lines import ConversationLine, parse_line, render_line

__all__ = ["ConversationLine", "parse_line", "render_line"]
