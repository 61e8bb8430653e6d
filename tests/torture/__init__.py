"""Proof by torture: what becomes of conversations when processes, servers, networks and disks fail.

One module for each class of faults. Its function `run` does a number of operations under these faults, and
returns what it counted as an `Outcome`; `CLASS` at its end says on which engines, how often in the short form
(pytest, inside `scripts/test`) and in the long form (`scripts/torture --long`), and which planted faults must
make it fail: a check that finds nothing in a broken program proves nothing of a sound one.
"""
