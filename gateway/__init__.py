"""The same thinking behind an OpenAI-compatible API."""
