"""Conversations carried away and brought in: files of this program, of ChatGPT, of ShareGPT; Markdown, JSON lines."""
