"""The audit trail's words for what happens to the platform's data as a whole."""

ACTIONS = {
    "backup.made": "A backup was made: a copy of all data, and of the keys if it says so.",
    "backup.restored": "A backup took the place of the database.",
    "backup.undone": "A database that a restore had kept aside came back into its place.",
}
