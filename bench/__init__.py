"""Benchmarks: what a VM costs and how fast it comes, beside what libvirt alone takes. See docs/benchmarks.md."""
