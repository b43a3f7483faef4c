"""What is run against a cluster: make one, check it, build the images, remove it."""
