"""Model-server families: where their gauges are and what they are called."""
