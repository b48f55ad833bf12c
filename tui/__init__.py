"""The terminal chat, a front end over `chatbot`."""
