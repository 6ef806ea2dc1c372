"""A real Kubernetes control plane without a cluster: etcd, API server, controller manager, kubectl."""
