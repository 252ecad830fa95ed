"""kubectl sky: what people do with SkyClusters, with a kubeconfig and Kubernetes' own permissions.

A program of its own. It knows the API's words and nothing else of the controller, and nothing of the controller knows it.
"""
