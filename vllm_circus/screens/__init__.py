"""Full screens that change in place and listen to keys: the overview, the logs, the start-up."""
