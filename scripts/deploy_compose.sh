#!/bin/sh
# On the host of docker-compose.yml: another version, without a request that fails, and back.
#
#   sh scripts/deploy_compose.sh up WEB_IMAGE ENGINE_IMAGE [REVISION]
#   sh scripts/deploy_compose.sh rollback
#   sh scripts/deploy_compose.sh roll           the web containers anew, as after a change of .env
#
# `up` checks REVISION out where one is given, gets the images, migrates, and replaces the web
# containers while as many old ones serve. Migrations are made so that the version before them still
# runs; so `rollback` brings images and files back and leaves the database alone. What runs stands in
# `.deployed`, what ran before in `.deployed.before`.
set -eu
cd "$(dirname "$0")/.."

# For as long nginx may send requests to addresses that it knew (valid=2s in nginx_upstream.conf).
readonly NAMES_ARE_KNOWN_S=5
readonly STREAMS_END_WITHIN_S=40
readonly HEALTHY_WITHIN_S=240

fail() {
    printf 'deploy_compose.sh: %s\n' "$1" >&2
    exit 1
}

compose() {
    if [ -e .deployed ]; then
        docker compose --env-file .env --env-file .deployed "$@"
    else
        docker compose --env-file .env "$@"
    fi
}

check_out() {
    [ -n "$1" ] || return 0
    git cat-file -e "$1^{commit}" 2>/dev/null || git fetch --quiet --depth=1 origin "$1"
    git checkout --quiet --detach "$1"
}

# value NAME FILE
value() {
    sed -n "s/^$1=//p" "$2"
}

# New web containers beside the old ones; these are stopped when the new ones answer and nginx knows
# them. A stop lets open streams end.
roll() {
    old=$(compose ps --quiet api)
    count=$(printf '%s' "$old" | grep -c . || :)
    if [ "$count" -eq 0 ]; then
        compose up --detach --wait --wait-timeout "$HEALTHY_WITHIN_S" api
        return
    fi
    if ! compose up --detach --no-deps --no-recreate --scale "api=$((count * 2))" \
        --wait --wait-timeout "$HEALTHY_WITHIN_S" api; then
        for container in $(compose ps --all --quiet api); do
            case $old in *"$container"*) ;; *) docker rm --force "$container" >/dev/null ;; esac
        done
        fail "the new web containers do not get healthy; the old ones serve on"
    fi
    sleep "$NAMES_ARE_KNOWN_S"
    for container in $old; do
        docker stop -t "$STREAMS_END_WITHIN_S" "$container" >/dev/null
        docker rm "$container" >/dev/null
    done
    replicas=$count
}

# Everything else as the files say, and as many web containers as before.
settle() {
    compose up --detach --remove-orphans --scale "api=${replicas:-2}" \
        --wait --wait-timeout "$HEALTHY_WITHIN_S"
}

bring_up() {
    compose pull --quiet api engine
    compose run --rm --no-TTY migrate
    roll
    settle
}

[ -e .env ] || fail "there is no .env: sh scripts/setup_env.sh --compose writes it"
case ${1:-} in
up)
    [ $# -ge 3 ] || fail "usage: up WEB_IMAGE ENGINE_IMAGE [REVISION]"
    now=$(git rev-parse HEAD 2>/dev/null || :)
    if [ -e .deployed ]; then
        cp .deployed .deployed.before
        grep -q '^REVISION=' .deployed.before || printf 'REVISION=%s\n' "$now" >>.deployed.before
    fi
    check_out "${4:-}"
    printf 'WEB_IMAGE=%s\nENGINE_IMAGE=%s\nREVISION=%s\n' "$2" "$3" "${4:-$now}" >.deployed.new
    mv .deployed.new .deployed
    bring_up
    ;;
rollback)
    [ -e .deployed.before ] || fail "there is nothing to go back to"
    check_out "$(value REVISION .deployed.before)"
    cp .deployed.before .deployed
    compose pull --quiet api engine
    roll
    settle
    ;;
roll)
    roll
    settle
    ;;
*) fail "usage: up WEB_IMAGE ENGINE_IMAGE [REVISION] | rollback | roll" ;;
esac
