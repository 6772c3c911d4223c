"""The chat completions API of OpenAI, in every dialect that servers speak."""
