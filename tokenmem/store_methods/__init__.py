"""The methods of Store and AsyncStore, by subject. Each runs the procedure of the same name."""
