"""The embedded engine: its process and the practice model."""
