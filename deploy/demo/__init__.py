"""`make demo`: one SkyCluster from apply to gone, on the local Kubernetes or on the reader's own."""
