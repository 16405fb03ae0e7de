"""A model in, a smaller one out: block formats and conversions."""
