"""`tokenmem demo`: the main job, on a new SQLite file, explained."""
