"""Scripts behind the Makefile; run from the repository root."""
