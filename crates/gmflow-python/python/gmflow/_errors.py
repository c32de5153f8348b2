"""Exceptions of gmflow. Each is also the built-in exception that fits it, and has the library's words: field, expected, got."""


class GmflowError(Exception):
    """What can go wrong in gmflow."""


class ConfigError(GmflowError, ValueError):
    """A setting or argument outside its domain. The message names it, what is allowed and what was given."""


class ShapeError(GmflowError, ValueError):
    """An array of the wrong shape."""


class FileError(GmflowError, OSError):
    """A file that is not what it should be, or that the system does not give."""


class NotFoundError(FileError, FileNotFoundError):
    """A file or folder that is not there."""


class DataError(GmflowError, ValueError):
    """Data that cannot be used."""


class OutOfMemoryError(GmflowError, MemoryError):
    """What is asked for does not fit in memory. Nothing of it has been taken."""


class HubError(GmflowError, ConnectionError):
    """A repository on the hub cannot be had."""


class Cancelled(GmflowError):
    """A callback asked for no more."""
