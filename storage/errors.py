"""What can go wrong with the database, said to a person."""


class StorageError(Exception):
    """The database cannot be opened, read or written; the text says why and what to do."""


class NotFoundError(StorageError):
    """Nothing stands under that name."""


class ConnectionLostError(StorageError):
    """The database went away in the middle of what was asked; it may be done or not."""
