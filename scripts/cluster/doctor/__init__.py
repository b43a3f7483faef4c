"""`scripts/doctor`: what a cluster lacks for the manifests, and whether a deployed address works."""
