"""The report: one HTML page that needs nothing beside itself, made from results, exhibits and runs' files."""
