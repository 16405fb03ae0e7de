"""Is what people say true? A ledger of published statements and what this machine shows of them."""
