"""All SQL. Each operation is a plain function whose first arguments are a connection and a scope.

An operation does no token counting and no network I/O but its statements, and returns finished values.
It neither commits nor rolls back: whoever calls it owns the transaction.
"""
