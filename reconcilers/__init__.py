"""Where desired meets observed: one package a kind, each read top to bottom from its `reconcile`."""
