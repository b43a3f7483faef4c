"""The page for browsers, and its form for browsers that run no scripts."""
