"""Client: the REST API from Python, blocking or awaited, with the nouns and the errors of this package."""

from influencerai.client.client import DEFAULT_URL, AsyncInfluencerAIClient, InfluencerAIClient
from influencerai.client.listing import AsyncListing, Listing

__all__ = ["DEFAULT_URL", "AsyncInfluencerAIClient", "AsyncListing", "InfluencerAIClient", "Listing"]
