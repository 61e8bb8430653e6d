"""Programs to read, to run and to copy; the tests run them."""
