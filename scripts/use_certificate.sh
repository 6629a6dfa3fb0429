#!/bin/sh
# Puts a certificate and its key where nginx reads them, and reloads nginx. As certbot's deploy hook
# it takes those that were just renewed. docs/how-to/tls.md tells more.
set -eu
umask 077

tls=${TLS_DIR:-/etc/sovereigncore/tls}
reload=${RELOAD_COMMAND:-systemctl reload nginx}

fail() {
    printf 'use_certificate.sh: %s\n' "$1" >&2
    exit 1
}

if [ $# -eq 2 ]; then
    certificate=$1 key=$2
elif [ $# -eq 0 ] && [ -n "${RENEWED_LINEAGE:-}" ]; then # as certbot runs it
    certificate=$RENEWED_LINEAGE/fullchain.pem key=$RENEWED_LINEAGE/privkey.pem
else
    printf 'Usage: use_certificate.sh FULLCHAIN PRIVKEY\n' >&2
    exit 2
fi

of_certificate=$(openssl x509 -in "$certificate" -noout -pubkey) || fail "$certificate is no certificate"
of_key=$(openssl pkey -in "$key" -pubout) || fail "$key is no key"
[ "$of_certificate" = "$of_key" ] || fail "$certificate and $key do not belong together"
openssl x509 -in "$certificate" -noout -checkend 0 >/dev/null || fail "$certificate has ended"

(umask 022 && mkdir -p "$tls") # other servers' users pass through what is above it
chmod 711 "$tls" # the keys are their owner's alone
# Two at once would mix their files. Where the system can lock.
exec 9<"$tls"
! command -v flock >/dev/null 2>&1 || flock 9
work=$(mktemp -d "$tls/.using.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cat "$certificate" >"$work/fullchain.pem"
cat "$key" >"$work/privkey.pem"
chmod 644 "$work/fullchain.pem"
mv -f "$work/privkey.pem" "$tls/privkey.pem"
mv -f "$work/fullchain.pem" "$tls/fullchain.pem"
$reload 9<&- || fail "the files are in place, but not in use: '$reload' failed"
