#!/bin/sh
# Every static check. Runs them all and fails at the end if one failed, so that one run tells all.
set -u
cd "$(dirname "$0")/.." || exit 1
bin=.venv/bin
failed=""
# Importing the test settings makes a data directory, which mypy leaves behind.
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

check() {
    name=$1
    shift
    printf '%s\n' "--- $name"
    "$@" || failed="$failed $name"
}

# A complete production-shaped environment with throw-away secrets, for what imports the settings.
settings_env() {
    env DJANGO_SETTINGS_MODULE=tests.settings "$@"
}

secret() {
    "$bin/python" -c 'import secrets; print(secrets.token_urlsafe(48))'
}

production() {
    env ENV_FILE=/dev/null DEBUG=false DATA_DIR=data \
        SECRET_KEY="$(secret)" JWT_SIGNING_KEYS="lint:$(secret)" ENGINE_API_KEY="$(secret)" \
        AUDIT_KEY="$(secret)" \
        METRICS_TOKEN="$(secret)" PUBLIC_BASE_URL=https://ai.clinic.internal \
        TRUSTED_PROXIES=127.0.0.1 EMAIL_URL=smtp+tls://mail.clinic.internal "$@"
}

check ruff "$bin/ruff" check .
check format "$bin/ruff" format --check --quiet .
check mypy "$bin/mypy" .
check migrations-complete settings_env "$bin/python" manage.py makemigrations --check --dry-run
# On PostgreSQL, where an upgrade meets large tables and callers. Before the first release nobody has
# any: those migrations may build their indexes under a lock. Without its cache, which does not know
# of which database it keeps the verdict.
check migrations-safe settings_env "$bin/python" -m tests.servers -- "$bin/python" manage.py \
    lintmigrations --project-root-path . --exclude-apps otp_static otp_totp --warnings-as-errors \
    --ignore-name 0001_initial 0002_conversations_memory_usage_engines 0004_user_newest_first \
    0005_api_key_parent 0006_audit_seals --no-cache --quiet ignore ok
check deploy production "$bin/python" manage.py check --deploy --fail-level WARNING
check shell "$bin/shellcheck" scripts/*.sh deploy/compose/*.sh .ci/run
check yaml "$bin/yamllint" --strict -c .yamllint.yml deploy docker-compose.yml .github
check dockerfile "$bin/hadolint" --failure-threshold style Dockerfile
check compose "$bin/check-jsonschema" --builtin-schema vendor.compose-spec docker-compose.yml \
    deploy/compose/compose.override.yml
check workflows "$bin/check-jsonschema" --builtin-schema vendor.github-workflows .github/workflows/*.yml
check dependabot "$bin/check-jsonschema" --builtin-schema vendor.dependabot .github/dependabot.yml
# By lists of actions and rules of their own: neither asks anybody.
check actionlint "$bin/actionlint" -shellcheck "$bin/shellcheck"
check zizmor "$bin/zizmor" --offline --quiet .github
check locks "$bin/python" scripts/check_locks.py

if [ -n "$failed" ]; then
    printf '\nFailed:%s\n' "$failed" >&2
    exit 1
fi
printf '\nAll checks passed.\n'
