"""From a folder of pictures and a budget to a verified model: the stages of `netsmith fit`."""
