"""One file = one DVC stage = one CLI command = one log prefix; each reads, computes, writes."""
