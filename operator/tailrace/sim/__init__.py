"""A model server that behaves like vLLM without a GPU."""
