"""How fast the controller is, beside what docs/design asks for: `make bench`. Prints, and asserts nothing.

The controller as a process, a real kube-apiserver, and the stand-in with the real SkyPilot server's pace.
"""
