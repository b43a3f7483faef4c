"""Pictures that requests send in, and the pipelines that begin with them."""
