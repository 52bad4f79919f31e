"""The plugins that circusd starts: health, stats."""
