"""Hostler in a bottle: the controller as it is, on an API server and hosts in memory, in virtual time.

Nothing of the product imports this room. A run is decided by its seed alone, so that whatever it shows can be shown
again.
"""
