"""`vsrm bench`: speed and quality."""
