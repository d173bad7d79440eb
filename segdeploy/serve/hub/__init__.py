"""Puts a folder of proven files on the Hugging Face Hub, with a model card that has their ledger."""
