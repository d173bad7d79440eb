"""The facts about a model: its card, its labels, the signature of its graph, the record of how it was made."""
