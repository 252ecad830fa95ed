"""The controller as a process, a real kube-apiserver, a stand-in for SkyPilot, and SkyPilot's own parser beside them."""

from tests.integration.conftest import controllers, crd, namespace, standin
from tests.parser.conftest import skypilot

__all__ = ["controllers", "crd", "namespace", "skypilot", "standin"]
