"""`scripts/top`: one screen of what is served, for people without Grafana.

Web alone is asked, for `/status` and for its metrics: neither wakes a model.
"""
