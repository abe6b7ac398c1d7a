"""The doors over aiohttp: OpenAI proxy, routing endpoint, admin port."""
