"""`scripts/run`: web and the predictors on one machine, with scale to zero."""
