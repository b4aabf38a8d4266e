"""Answers: a served model, a user's live state and a request go in; a ranked list, and its impressions, come out."""
