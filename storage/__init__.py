"""Conversations, drafts and model versions in a database. Imports nothing else of this project."""
