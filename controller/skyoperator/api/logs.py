"""The name of the log API: said here once, for who serves it, who reads it, and who points to it."""

from typing import Final

LOGS_GROUP: Final = "logs.skyoperator.dev"
LOGS_VERSION: Final = "v1alpha1"
