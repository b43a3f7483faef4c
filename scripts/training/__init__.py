"""How the embedded models were made and are measured."""
