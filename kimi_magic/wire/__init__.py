"""Endpoints, connections and what travels on them."""
