"""What a person can mend: one sentence saying what is wrong and what to do."""


class UserError(Exception):
    """Something the person can put right; its text is shown as it is, with exit code 2."""


class ModelError(UserError):
    """A model that is unknown, missing, broken or does not start."""


class MessageError(UserError):
    """A message that cannot be sent as it is."""
