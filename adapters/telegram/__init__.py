"""The Telegram bot: every update is stored before it is confirmed, and done when its answer is out."""
