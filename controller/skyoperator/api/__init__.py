"""The SkyCluster API as Python types: the one source of the CRD, of its defaults and of `kubectl explain`.

Anything in the controller may import this package; it imports nothing of ours.
"""
