"""Settings that every test shares."""

from hypothesis import settings

settings.register_profile("edgecnn", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("edgecnn")
