"""Which networks to try and which to keep: pure functions of costs, measurements and validation answers."""
