"""The sensor, for objects that somebody else answers for."""
