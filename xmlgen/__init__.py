"""Models to libvirt documents: one module per document and per device family, all pure functions.

Same input, same bytes: a document is generated once per accepted spec and pool baseline, and only `domain.render` puts
in what one host differs in from another.
"""
