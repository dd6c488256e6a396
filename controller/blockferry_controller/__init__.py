"""The controller: plans, boots, commands, verifies, reports and cleans up."""
