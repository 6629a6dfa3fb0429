#!/bin/sh
# An image as docker-compose.yml starts it: no root, nothing writable but volumes, no way to install
# anything, healthy in time, and gone within seconds of SIGTERM.
#
#   sh scripts/test_image.sh web|engine IMAGE
set -eu
target=${1:?web or engine} image=${2:?an image}
readonly HEALTHY_WITHIN_S=180
name=sovereigncore-test-$$
trap 'docker rm --force "$name" >/dev/null 2>&1 || :; docker volume rm --force "$name" >/dev/null 2>&1 || :' EXIT
trap 'exit 1' HUP INT TERM

fail() {
    printf 'test_image.sh: %s\n' "$1" >&2
    docker logs "$name" >&2 2>&1 || :
    exit 1
}

fresh() {
    od -An -vtx1 -N32 /dev/urandom | tr -d ' \n'
}

locked_down() {
    docker run --init --read-only --cap-drop ALL --security-opt no-new-privileges --user 10001:10001 \
        --tmpfs /tmp:size=64m,noexec --volume "$name:/data" --network none --env-file "$settings" "$@"
}

settings=$(mktemp)
trap 'rm -f "$settings"; docker rm --force "$name" >/dev/null 2>&1 || :; docker volume rm --force "$name" >/dev/null 2>&1 || :' EXIT
cat >"$settings" <<END
SECRET_KEY=$(fresh)
JWT_SIGNING_KEYS=k1:$(fresh)
AUDIT_KEY=$(fresh)
ENGINE_API_KEY=$(fresh)
METRICS_TOKEN=$(fresh)
END
docker volume create "$name" >/dev/null

[ "$(docker image inspect --format '{{.Config.User}}' "$image")" = 10001:10001 ] || fail "it runs as root"
for program in pip pip3 gcc cc make curl wget git; do
    ! locked_down --rm --entrypoint sh "$image" -c "command -v $program" >/dev/null || fail "it has $program"
done
locked_down --rm "$image" python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("pip") is not None)' ||
    fail "it has pip"
[ "$target" != web ] || ! locked_down --rm "$image" python -c 'import xllamacpp' 2>/dev/null ||
    fail "the image for web processes has the engine"
! locked_down --rm "$image" sh -c 'touch /app/there' 2>/dev/null || fail "its code can be written to"

[ "$target" != web ] || locked_down --rm "$image" python manage.py migrate --noinput --verbosity 0
locked_down --detach --name "$name" "$image" >/dev/null
waited_s=0
until [ "$(docker inspect --format '{{.State.Health.Status}}' "$name")" = healthy ]; do
    [ "$(docker inspect --format '{{.State.Running}}' "$name")" = true ] || fail "it ended"
    [ "$waited_s" -lt "$HEALTHY_WITHIN_S" ] || fail "it is not healthy within $HEALTHY_WITHIN_S s"
    sleep 1
    waited_s=$((waited_s + 1))
done
docker stop -t 45 "$name" >/dev/null
code=$(docker inspect --format '{{.State.ExitCode}}' "$name")
[ "$code" -eq 0 ] || fail "it ended with $code on SIGTERM"
printf '%s: as it should be, healthy after %s s\n' "$image" "$waited_s"
