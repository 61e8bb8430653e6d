"""tokenmem in other frameworks' own types, one module each; each needs the extra of its name."""
