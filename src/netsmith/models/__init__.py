"""Networks: one class per family, built from a layout."""
