"""The pages in docs/ that are made from several questions' results."""
