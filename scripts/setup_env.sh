#!/bin/sh
# Write a production .env with strong secrets of its own. Asks on a terminal for what is not given.
#
#   sh scripts/setup_env.sh [--domain NAME] [--mail-url URL] [options]
#
#   --domain NAME         the public host name, as in https://NAME; NAME:PORT where it is not 443
#   --mail-url URL        smtp+tls://user:password@host:587, smtp+ssl:// or smtp://; none: no mail is
#                         sent, which `manage.py check --deploy` warns of
#   --database-url URL    postgres://host:5432/sovereigncore, for the roles of
#                         deploy/postgresql/roles.sql with passwords that are made now; one with
#                         user:password@ is taken as it is; sqlite for a file in DATA_DIR.
#                         Default: postgres://127.0.0.1:5432/sovereigncore
#   --redis URL           redis:// or rediss://host:6379/0, for the user of deploy/redis with a password
#                         that is made now; one with user:password@ is taken as it is; none.
#                         Default: redis://127.0.0.1:6379/0
#   --proxy ADDRESSES     of the proxies in front, separated by commas. Default: 127.0.0.1,::1
#   --registration MODE   open, verified, invite or closed. Default: verified
#   --data-dir DIR        where everything else is written. Default: data, in the project
#   --output FILE         default: ENV_FILE, or .env of the project
#   --compose             for docker-compose.yml: secrets go into files of their own in `secrets`
#                         beside FILE; servers, proxy and directories are the composition's own
#   --yes                 ask nothing, take the defaults
#   --force               replace a FILE that is there; a copy is kept
#
# Run again, it keeps what FILE has and is not given now, secrets first of all: the audit trail and backups depend on them. To change
# one see docs/how-to/rotate-secrets.md.
set -eu
umask 077
here=$(dirname "$0")
# shellcheck source=scripts/setup_common.sh
. "$here/setup_common.sh"

output=${ENV_FILE:-$here/../.env}
domain='' mail_url='' database_url='' redis='' proxy='' registration='' data_dir=''
is_compose='' is_forced='' asks=1
while [ $# -gt 0 ]; do
    case $1 in
    --domain | --mail-url | --database-url | --redis | --proxy | --registration | --data-dir | --output)
        [ $# -ge 2 ] && [ -n "$2" ] || fail "$1 needs a value"
        case $1 in
        --domain) domain=$2 ;;
        --mail-url) mail_url=$2 ;;
        --database-url) database_url=$2 ;;
        --redis) redis=$2 ;;
        --proxy) proxy=$2 ;;
        --registration) registration=$2 ;;
        --data-dir) data_dir=$2 ;;
        --output) output=$2 ;;
        esac
        shift
        ;;
    --compose) is_compose=1 ;;
    --yes) asks= ;;
    --force) is_forced=1 ;;
    --help)
        sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *) fail "unknown option $1; --help tells those that there are" ;;
    esac
    shift
done
is_terminal || asks=
take_turns

folder=$(dirname "$output")
secrets=$folder/secrets

# --- What was not given -----------------------------------------------------------------------

# kept NAME: what there is of it from before.
kept() {
    if [ -z "$is_compose" ] || [ ! -e "$secrets/$1" ]; then
        setting "$1" "$output"
    else
        cat "$secrets/$1"
    fi
}

# server NAME USER USUAL: the URL from before without our user and its password, or the usual one.
server() {
    before=$(kept "$1")
    case $before in
    *://"$2":*@*) printf '%s' "${before%%://*}://${before#*@}" ;;
    *) printf '%s' "${before:-$3}" ;;
    esac
}

# choose GIVEN QUESTION DEFAULT [BEFORE]: what was given, else what somebody types, else the one from
# before, which is not shown, else the default.
choose() {
    chosen=$1
    if [ -z "$chosen" ] && [ -n "$asks" ]; then
        printf '%s [%s]: ' "$2" "$([ -n "${4:-}" ] && echo as before || echo "$3")" >&2
        read -r chosen || chosen=''
    fi
    printf '%s' "${chosen:-${4:-$3}}"
}

usual_database=postgres://127.0.0.1:5432/sovereigncore usual_redis=redis://127.0.0.1:6379/0
if [ -n "$is_compose" ]; then
    [ -z "$proxy$data_dir" ] || fail "--proxy and --data-dir: docker-compose.yml says these itself"
    usual_database=postgres://postgres:5432/sovereigncore usual_redis=redis://redis:6379/0 proxy=none
elif [ -f "$output" ]; then
    usual_database=sqlite usual_redis=none # what it means there that there is none
fi
before=$(setting PUBLIC_BASE_URL "$output")
domain=$(choose "$domain" "Public host name" "${before#https://}" | tr '[:upper:]' '[:lower:]')
[ -n "$domain" ] || fail "--domain is needed"
mail_url=$(choose "$mail_url" "Mail server, such as smtp+tls://user:password@mail.your.org:587" none \
    "$(kept EMAIL_URL)")
database=$(choose "$database_url" "Database" \
    "$(server DATABASE_URL sovereigncore_app "$usual_database")")
redis=$(choose "$redis" "Redis, or none" "$(server REDIS_URL sovereigncore "$usual_redis")")
before=$(setting REGISTRATION_MODE "$output")
registration=$(choose "$registration" "Who may register: open, verified, invite or closed" \
    "${before:-verified}")
before=$(setting TRUSTED_PROXIES "$output")
proxy=$(choose "$proxy" "Addresses of the proxy in front" "${before:-127.0.0.1,::1}")
before=$(setting DATA_DIR "$output")
data_dir=${data_dir:-${before:-data}}
before=$(setting BACKUP_DIR "$output")
backup_dir=${before:-backups}

# --- Is it right? -----------------------------------------------------------------------------

for value in "$domain" "$mail_url" "$database" "$redis" "$proxy" "$data_dir" "$output"; do
    case $value in
    *[[:space:]\"\'\`\\\$#]*)
        fail "blanks, quotes, \\, \$ and # do not belong into a value; in a password write them as %20, %24 …"
        ;;
    esac
done

host=${domain%%:*}
is_host() {
    [ "${#1}" -le 253 ] && printf '%s' "$1" |
        grep -Eq '^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$'
}
is_host "$host" || fail "--domain: $domain is no host name such as ai.your.org"
case $domain in
*:*)
    printf '%s' "${domain#*:}" | grep -Eq '^[1-9][0-9]{0,4}$' && [ "${domain#*:}" -le 65535 ] ||
        fail "--domain: $domain has no such port"
    ;;
esac
case $mail_url in
none | smtp://?* | smtp+tls://?* | smtp+ssl://?*) ;;
*) fail "--mail-url: expected smtp://, smtp+tls:// or smtp+ssl://, or none" ;;
esac
case $database in
sqlite) [ -z "$is_compose" ] || fail "--database-url: several containers cannot share a file" ;;
postgres://?*/?* | postgresql://?*/?*) ;;
*) fail "--database-url: expected postgres://host:port/database, or sqlite" ;;
esac
case $redis in
none) [ -z "$is_compose" ] || fail "--redis: several containers share their limits there" ;;
redis://?* | rediss://?* | unix://?*) ;;
*) fail "--redis: expected redis://host:port/0, or none" ;;
esac
case $registration in open | verified | invite | closed) ;; *)
    fail "--registration: expected open, verified, invite or closed"
    ;;
esac

hosts=$(setting ALLOWED_HOSTS "$output")
case ,$hosts, in *,"$host",*) ;; *) hosts="$host,127.0.0.1,localhost,[::1]" ;; esac

# --- May it be written? -----------------------------------------------------------------------

if [ -e "$output" ]; then
    [ -f "$output" ] || fail "$output is no file"
    [ -n "$is_forced" ] || { [ -n "$asks" ] && agrees "$output is there. Replace it, keeping its secrets?"; } ||
        fail "$output is there already; --force replaces it and keeps a copy"
fi
[ -d "$folder" ] || (umask 022 && mkdir -p "$folder") || fail "cannot make $folder"
if [ -n "$is_compose" ]; then
    mkdir -p "$secrets" || fail "cannot make $secrets"
    chmod 700 "$secrets"
fi

# --- Secrets ----------------------------------------------------------------------------------

# secret NAME [PREFIX]: the one from before, or a new one.
secret() {
    made=$(kept "$1")
    [ -n "$made" ] || made=${2:-}$(fresh)
    printf '%s' "$made"
}

# with_user URL USER OLD_URL: the URL with that user, and the password that it has in the old one or a
# new one.
with_user() {
    case $1 in
    *://*@*) printf '%s' "$1" ;;
    *)
        password=$(password_in "$3" "$2")
        printf '%s://%s:%s@%s' "${1%%://*}" "$2" "${password:-$(fresh)}" "${1#*://}"
        ;;
    esac
}

secret_key=$(secret SECRET_KEY)
jwt_keys=$(secret JWT_SIGNING_KEYS "k1:")
audit_key=$(secret AUDIT_KEY)
backup_key=$(secret BACKUP_KEY)
metrics_token=$(secret METRICS_TOKEN)
engine_key=$(secret ENGINE_API_KEY)
audit_signing_key=$(kept AUDIT_SIGNING_KEY)

owner_file=$folder/database_owner_url
[ -z "$is_compose" ] || owner_file=$secrets/DATABASE_OWNER_URL
app_url='' owner_url='' redis_url=''
case $database in
sqlite) ;;
*@*) app_url=$database ;;
*)
    app_url=$(with_user "$database" sovereigncore_app "$(kept DATABASE_URL)")
    owner_url=$(with_user "$database" sovereigncore_owner "$(cat "$owner_file" 2>/dev/null || :)")
    ;;
esac
[ "$redis" = none ] || redis_url=$(with_user "$redis" sovereigncore "$(kept REDIS_URL)")
[ "$mail_url" != none ] || mail_url=''

# roles.sql reads them from a file, so that they are in no program's arguments.
passwords_file=$folder/database_passwords.psql
[ -z "$is_compose" ] || passwords_file=$secrets/database_passwords.psql
exporter_password=$(sed -n "s/^.set exporter_password '\(.*\)'\$/\1/p" "$passwords_file" 2>/dev/null || :)
exporter_password=${exporter_password:-$(fresh)}
database_passwords() {
    printf "\\\\set owner_password '%s'\n" "$(password_in "$owner_url" sovereigncore_owner)"
    printf "\\\\set app_password '%s'\n" "$(password_in "$app_url" sovereigncore_app)"
    printf "\\\\set exporter_password '%s'\n" "$exporter_password"
}

# --- What is written --------------------------------------------------------------------------

assign() {
    [ -z "$2" ] || printf '%s=%s\n' "$1" "$2"
}

settings() {
    echo "# Written by scripts/setup_env.sh. .env.example describes these and all other settings."
    assign DEBUG false
    assign PUBLIC_BASE_URL "https://$domain"
    assign REGISTRATION_MODE "$registration"
    if [ -z "$is_compose" ]; then
        assign ALLOWED_HOSTS "$hosts"
        assign TRUSTED_PROXIES "$proxy"
        assign DATA_DIR "$data_dir"
        assign BACKUP_DIR "$backup_dir"
    fi
    others
}

# What somebody has put into the file that is replaced.
others() {
    [ -f "$output" ] || return 0
    ours="DEBUG PUBLIC_BASE_URL REGISTRATION_MODE ALLOWED_HOSTS TRUSTED_PROXIES DATA_DIR BACKUP_DIR \
SECRET_KEY JWT_SIGNING_KEYS AUDIT_KEY AUDIT_SIGNING_KEY BACKUP_KEY METRICS_TOKEN ENGINE_API_KEY \
DATABASE_URL REDIS_URL EMAIL_URL"
    grep -E '^(export )?[A-Za-z_][A-Za-z_0-9]*=' "$output" | while IFS= read -r line; do
        name=${line%%=*} name=${name#export }
        case " $ours " in *" ${name%_FILE} "*) ;; *) printf '%s\n' "$line" ;; esac
    done
}

secret_settings() {
    [ -n "$is_compose" ] || cat <<'END'

# Keep this file private and a copy of BACKUP_KEY and AUDIT_KEY elsewhere: without the one no backup can
# be read, without the other nothing of the audit trail can be verified.
END
    assign SECRET_KEY "$secret_key"
    assign JWT_SIGNING_KEYS "$jwt_keys"
    assign AUDIT_KEY "$audit_key"
    assign AUDIT_SIGNING_KEY "$audit_signing_key"
    assign BACKUP_KEY "$backup_key"
    assign METRICS_TOKEN "$metrics_token"
    assign ENGINE_API_KEY "$engine_key"
    assign DATABASE_URL "$app_url"
    assign REDIS_URL "$redis_url"
    assign EMAIL_URL "$mail_url"
}

# place FILE MODE VALUE: unless that is what stands there.
place() {
    [ -e "$1" ] && [ "$(cat "$1")" = "$3" ] || printf '%s\n' "$3" | put "$1" "$2"
}

if [ -z "$is_compose" ]; then
    { settings && secret_settings; } | put "$output" 600
    note "$output: written"
    if [ -n "$owner_url" ]; then
        place "$owner_file" 600 "$owner_url"
        place "$passwords_file" 600 "$(database_passwords)"
        note "$owner_file: the worker's and commands' DATABASE_URL_FILE"
        note "$passwords_file: for deploy/postgresql/roles.sql"
    fi
    exit 0
fi

# Each is mounted by itself, for a user of the container's who must be able to read it; nobody else
# enters the directory.
secret_settings | while IFS= read -r line; do
    place "$secrets/${line%%=*}" 644 "${line#*=}"
done
place "$secrets/EMAIL_URL" 644 "$mail_url"
# Of Alertmanager; what is not known has to be put in.
place "$secrets/ALERT_WEBHOOK_TOKEN" 644 "$(secret ALERT_WEBHOOK_TOKEN)"
for name in ALERT_SMTP_PASSWORD ALERT_SLACK_URL; do
    [ -e "$secrets/$name" ] || place "$secrets/$name" 644 ""
done
place "$secrets/DATABASE_OWNER_URL" 644 "${owner_url:-$app_url}"
place "$secrets/POSTGRES_EXPORTER_PASSWORD" 644 "$exporter_password"
[ -z "$owner_url" ] || place "$passwords_file" 644 "$(database_passwords)"
for name in POSTGRES_PASSWORD GRAFANA_ADMIN_PASSWORD; do
    place "$secrets/$name" 644 "$(secret "$name")"
done
if [ -n "$(password_in "$redis_url" sovereigncore)" ]; then
    env -u REDIS_URL_FILE REDIS_URL="$redis_url" sh "$here/setup_redis.sh" --secrets "$secrets" --yes
fi
settings | put "$output" 600
note "$output and $secrets: written"
