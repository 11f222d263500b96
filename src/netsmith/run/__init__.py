"""The words all parts share: budget, recipe, preprocessing, plan, ledger, result, run folder, clock, metrics, machine."""
