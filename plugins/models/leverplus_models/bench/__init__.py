"""`leverplus bench`: what scoring costs, side by side with how it is done elsewhere and with what arithmetic asks."""
