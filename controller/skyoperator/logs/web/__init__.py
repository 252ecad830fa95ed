"""Serving logs: HTTPS with two doors, kube-apiserver's front proxy and a bearer token, and Kubernetes' own roles behind both."""

from skyoperator.logs.web.server import Pace, hang_up, serve

__all__ = ["Pace", "hang_up", "serve"]
