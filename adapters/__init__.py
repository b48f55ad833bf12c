"""Chat platforms beside the terminal; each is a folder here and an entry point of the group `chatbot.frontends`."""
