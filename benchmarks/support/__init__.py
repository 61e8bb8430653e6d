"""What the questions share: databases, messages to store, clocks, results."""
