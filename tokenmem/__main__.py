"""`python -m tokenmem` is the same as `tokenmem`."""

from tokenmem.cli import main

main()
