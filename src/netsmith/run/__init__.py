"""The words all parts share: budget, recipe, preprocessing, plan, ledger, result, folder, clock, metrics, machine."""
