"""What a release holds beside its images: the manifests with digests, and the same as a Helm chart."""
