"""Uploads: images and captions from elsewhere, checked, then put into a dataset folder together."""
