"""Faces, motion kernels and the blurred images made of them."""
