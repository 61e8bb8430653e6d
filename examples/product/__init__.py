"""A product's conversations over HTTP: sidebar, history, rename, archive, delete, usage and export."""
