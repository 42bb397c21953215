"""Any encoder behind one contract, and its features made once: opening, costs, the cache."""
