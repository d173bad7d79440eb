"""Names licences as the Hugging Face Hub's metadata does."""

from __future__ import annotations

ON_THE_HUB = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0")


def licences_together(*licences: str) -> str:
    """Name what was made under several licences by all of them, each once."""
    return "; ".join(dict.fromkeys(one for licence in licences for one in licence.split("; ")))


def licence_on_the_hub(licence: str) -> dict[str, str]:
    """Name a licence as the Hub's metadata does; one that it has no name for is `other`, with its own words."""
    short = licence.lower()
    return {"license": short} if short in ON_THE_HUB else {"license": "other", "license_name": licence}
