"""What every reconciler stands on, and no kind is named in it.

The rooms above (reconcilers, operator) bring the kinds; this one brings the keyed queue, the cache, the
Kubernetes client, the status writer and the loop that calls reconcilers.
"""
