#!/bin/sh
# Write Redis' configuration and its users for the platform: redis.conf and users.acl of deploy/redis.
#
#   sh scripts/setup_redis.sh [--env FILE] [--output DIR | --secrets DIR] [--yes]
#
# The platform's password is the one in REDIS_URL, which is read and never written. The exporter and the
# admin get passwords of their own, in DIR/REDIS_EXPORTER_PASSWORD and DIR/REDIS_ADMIN_PASSWORD, which
# stay when this is run again. users.acl holds SHA-256 digests alone. A users.acl that says something
# else is replaced with consent only; a redis.conf that is there is yours and left alone.
#
#   --env FILE     where REDIS_URL stands; default: ENV_FILE, or .env of the project. A REDIS_URL or
#                  REDIS_URL_FILE in the environment wins, as for the platform.
#   --output DIR   default: /etc/sovereigncore/redis
#   --secrets DIR  for containers instead: users.acl and passwords only, readable to whoever can enter
#                  DIR, for there each is mounted by itself for a user of the container's.
#   --yes          replace a users.acl that says something else; a copy is kept
set -eu
umask 077
here=$(dirname "$0")
# shellcheck source=scripts/setup_common.sh
. "$here/setup_common.sh"
shipped=$here/../deploy/redis
usual=/etc/sovereigncore/redis

env_file=${ENV_FILE:-$here/../.env}
folder=$usual
is_for_containers=
is_agreed=
while [ $# -gt 0 ]; do
    case $1 in
    --env | --output | --secrets)
        [ $# -ge 2 ] || fail "$1 needs a value"
        case $1 in
        --env) env_file=$2 ;;
        --output) folder=$2 ;;
        --secrets) folder=$2 is_for_containers=1 ;;
        esac
        shift
        ;;
    --yes) is_agreed=1 ;;
    --help)
        sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *) fail "unknown option $1; --help tells those that there are" ;;
    esac
    shift
done

take_turns

redis_url() {
    if [ -n "${REDIS_URL_FILE:-}" ]; then
        cat "$REDIS_URL_FILE"
    elif [ -n "${REDIS_URL:-}" ]; then
        printf '%s' "$REDIS_URL"
    else
        [ -f "$env_file" ] || fail "there is no $env_file; scripts/setup_env.sh writes one"
        setting REDIS_URL "$env_file"
    fi
}

# password_of NAME: what stands in its file, which is written when there is none.
password_of() {
    file=$folder/$1
    [ -s "$file" ] || fresh | put "$file" "$mode_of_passwords"
    password=$(cat "$file")
    case $password in
    *[!A-Za-z0-9._~-]* | '') fail "$file: expected letters, digits and ._~- alone" ;;
    esac
    printf '%s' "$password"
}

case $is_for_containers$folder in
1*) ;;
*[[:space:]\"\'\\\|\&]*) fail "--output: blanks, quotes, \\, | and & do not belong into a path in redis.conf" ;;
esac
url=$(redis_url)
[ -n "$url" ] || fail "REDIS_URL is not set. It should be redis://sovereigncore:PASSWORD@127.0.0.1:6379/0;\
 scripts/setup_env.sh --redis makes one"
password=$(password_in "$url" sovereigncore)
case $password in
'') fail "REDIS_URL: expected redis://sovereigncore:PASSWORD@host:port/0" ;;
*[!A-Za-z0-9._~-]*) fail "REDIS_URL: the password may have letters, digits and ._~- alone" ;;
esac
[ "${#password}" -ge 32 ] || fail "REDIS_URL: the password is too short: 32 characters at least"

mode_of_passwords=600 mode_of_users=640 mode_of_folder=750
[ -z "$is_for_containers" ] || mode_of_passwords=644 mode_of_users=644 mode_of_folder=700
if [ ! -d "$folder" ]; then
    # Other servers' users pass through what is above it.
    (umask 022 && mkdir -p "$folder" && chmod "$mode_of_folder" "$folder") || fail "cannot make $folder"
fi
[ -w "$folder" ] || fail "cannot write to $folder"

folder=$(cd "$folder" && pwd) # a Redis is started from anywhere
exporter=$(password_of REDIS_EXPORTER_PASSWORD)
admin=$(password_of REDIS_ADMIN_PASSWORD)
users=$(sed -e "s/SHA256_OF_SOVEREIGNCORE_PASSWORD/$(sha256 "$password")/" \
    -e "s/SHA256_OF_EXPORTER_PASSWORD/$(sha256 "$exporter")/" \
    -e "s/SHA256_OF_ADMIN_PASSWORD/$(sha256 "$admin")/" "$shipped/users.acl")
[ "$(printf '%s\n' "$users" | grep -c '#[0-9a-f]\{64\}$')" = 3 ] || fail "the digests could not be made"

if [ -e "$folder/users.acl" ] && [ "$(cat "$folder/users.acl")" = "$users" ]; then
    note "$folder/users.acl: is as it should be"
elif [ ! -e "$folder/users.acl" ] || [ -n "$is_agreed" ] ||
    agrees "$folder/users.acl says something else. Replace it?"; then
    printf '%s\n' "$users" | put "$folder/users.acl" "$mode_of_users"
    note "$folder/users.acl: written. A Redis that runs takes it with ACL LOAD or a restart"
else
    fail "$folder/users.acl says something else; --yes replaces it"
fi

if [ -n "$is_for_containers" ]; then
    exit 0
elif [ -e "$folder/redis.conf" ]; then
    note "$folder/redis.conf: there already, left alone"
else
    sed "s|^aclfile $usual/|aclfile $folder/|" "$shipped/redis.conf" | put "$folder/redis.conf" 640
    note "$folder/redis.conf: written"
fi
[ "$(id -u)" -eq 0 ] || exit 0
for group in redis valkey; do
    if getent group "$group" >/dev/null 2>&1; then
        chgrp "$group" "$folder" "$folder/users.acl" "$folder/redis.conf"
        exit 0
    fi
done
note "There is no group redis or valkey: give $folder, users.acl and redis.conf to the one that Redis runs as"
