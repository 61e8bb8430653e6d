"""The APIs by which models are asked: how a prompt is sent, and a reply read."""
