"""The audit trail's words for what is done to engines and models."""

ACTIONS = {
    "engine.added": "An engine was added in the admin site.",
    "engine.changed": "Fields of an engine were changed in the admin site.",
    "engine.removed": "An engine was removed in the admin site.",
    "alias.added": "Another name for a model was added in the admin site.",
    "alias.changed": "Another name for a model was changed in the admin site.",
    "alias.removed": "Another name for a model was removed in the admin site.",
}
