"""Shipping: trained models as the files that other programs read, and those files read back, strictly."""
