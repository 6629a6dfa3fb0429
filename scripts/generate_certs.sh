#!/bin/sh
# A certificate authority of one's own and a certificate for the server, by openssl alone. Run again,
# it leaves alone what is good: so it can run every day. docs/how-to/tls.md tells more.
set -eu
umask 077

readonly CA_DAYS=3650
# Apple's systems trust none that is longer.
readonly SERVER_DAYS=397
readonly RENEW_BEFORE_DAYS=30
readonly FOREIGN="it is by another authority"

output=/etc/sovereigncore/tls
names=
force=false

usage() {
    cat <<'USAGE'
Usage: generate_certs.sh [--name NAME]… [--output DIR] [--force]

  --name NAME   a host name or an address that clients connect to; as often as needed. In later runs
                the same again unless others are given.
  --output DIR  where everything goes; /etc/sovereigncore/tls by default
  --force       make a new authority, and a new certificate: every client has to trust it anew

Makes, where it is missing:
  DIR/ca.pem         the authority's certificate: give it to clients
  DIR/ca-key.pem     its key: best kept elsewhere between two runs
  DIR/fullchain.pem  the server's certificate, made anew within 30 days of its end, or for other names
  DIR/privkey.pem    its key
USAGE
}

fail() {
    printf 'generate_certs.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

say() {
    printf '%s\n' "$1"
}

is_address() {
    octet='(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])'
    case $1 in
        *:*) ! printf '%s' "$1" | grep -Eqv '^[0-9A-Fa-f:.]+$' ;;
        *) printf '%s' "$1" | grep -Eq "^($octet\\.){3}$octet\$" ;;
    esac
}

is_host_name() {
    label='[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?'
    [ "${#1}" -le 253 ] && printf '%s' "$1" | grep -Eq "^(\*\.)?$label(\.$label)*\$"
}

add_name() {
    case $1 in
        *[!A-Za-z0-9.:*-]* | '') fail "--name: '$1' is neither a host name nor an address" 2 ;;
    esac
    case $1 in
        *[!0-9.]*) is_address "$1" || is_host_name "$1" ;;
        *) is_address "$1" ;;
    esac || fail "--name: '$1' is neither a host name nor an address" 2
    names="$names$1
"
}

while [ $# -gt 0 ]; do
    case $1 in
        --name | --output)
            [ $# -ge 2 ] || fail "$1 needs a value" 2
            if [ "$1" = --name ]; then add_name "$2"; else output=$2; fi
            shift 2
            ;;
        --force)
            force=true
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) fail "unknown option '$1'; --help tells which there are" 2 ;;
    esac
done

command -v openssl >/dev/null || fail "openssl is missing: apt-get install openssl"
ca=$output/ca.pem
ca_key=$output/ca-key.pem
certificate=$output/fullchain.pem
key=$output/privkey.pem
known_names=$output/names

if [ -n "$names" ]; then
    names=$(printf '%s' "$names" | sort -u)
elif [ -s "$known_names" ]; then
    names=$(cat "$known_names")
else
    fail "which name do clients connect to? --name ai.example.org, and --name 192.0.2.1 if by address" 2
fi

# Other servers' users pass through what is above it.
(umask 022 && mkdir -p "$output") || fail "cannot make $output"
# The keys are their owner's alone; others, such as the platform's user, get at ca.pem.
chmod 711 "$output" || fail "$output is somebody else's"
# Two at once would each make an authority, and mix them. Where the system can lock.
exec 9<"$output"
! command -v flock >/dev/null 2>&1 || flock 9

# Whatever happens, nothing half made is left where a server would read it.
work=$(mktemp -d "$output/.making.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

openssl_quietly() {
    openssl "$@" 2>"$work/said" || fail "openssl $1: $(cat "$work/said")"
}

put() { # FILE MODE PLACE
    chmod "$2" "$1"
    mv -f "$1" "$3"
}

lasts() { # CERTIFICATE DAYS
    openssl x509 -in "$1" -noout -checkend "$(($2 * 86400))" >/dev/null 2>&1
}

belong_together() { # CERTIFICATE KEY
    of_certificate=$(openssl x509 -in "$1" -noout -pubkey 2>/dev/null) || return 1
    of_key=$(openssl pkey -in "$2" -pubout 2>/dev/null) || return 1
    [ "$of_certificate" = "$of_key" ]
}

new_key() {
    openssl_quietly genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

sign() { # DAYS EXTENSIONS REQUEST OUTPUT SIGNER…
    days=$1 extensions=$2 request=$3 made=$4
    shift 4
    openssl_quietly x509 -req -sha256 -days "$days" -set_serial "0x$(openssl rand -hex 16)" \
        -extfile "$extensions" -in "$request" -out "$made" "$@"
}

make_authority() {
    new_key "$work/ca-key.pem"
    openssl_quietly req -new -key "$work/ca-key.pem" -out "$work/ca.csr" \
        -subj "/O=SovereignCore/CN=SovereignCore CA of $(date -u +%Y-%m-%d)"
    cat >"$work/ca.cnf" <<'EXTENSIONS'
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
EXTENSIONS
    sign "$CA_DAYS" "$work/ca.cnf" "$work/ca.csr" "$work/ca.pem" -signkey "$work/ca-key.pem"
    put "$work/ca-key.pem" 600 "$ca_key"
    put "$work/ca.pem" 644 "$ca"
    say "New authority: $ca"
}

alternative_names() {
    printf '%s\n' "$names" | while read -r name; do
        if is_address "$name"; then printf ',IP:%s' "$name"; else printf ',DNS:%s' "$name"; fi
    done | cut -c2-
}

make_certificate() {
    new_key "$work/privkey.pem"
    openssl_quietly req -new -key "$work/privkey.pem" -out "$work/server.csr" -subj /O=SovereignCore
    cat >"$work/server.cnf" <<EXTENSIONS
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = $(alternative_names)
EXTENSIONS
    sign "$SERVER_DAYS" "$work/server.cnf" "$work/server.csr" "$work/fullchain.pem" \
        -CA "$ca" -CAkey "$ca_key"
    openssl_quietly verify -CAfile "$ca" -purpose sslserver "$work/fullchain.pem" >/dev/null
    printf '%s\n' "$names" >"$work/names"
    put "$work/privkey.pem" 600 "$key"
    put "$work/fullchain.pem" 644 "$certificate"
    put "$work/names" 644 "$known_names"
    say "New certificate: $certificate"
}

why_anew() {
    if [ ! -e "$certificate" ] || [ ! -e "$key" ]; then
        say "there is none"
    elif ! belong_together "$certificate" "$key"; then
        say "certificate and key do not belong together"
    elif ! openssl verify -no_check_time -CAfile "$ca" "$certificate" >/dev/null 2>&1; then
        say "$FOREIGN"
    elif ! lasts "$certificate" "$RENEW_BEFORE_DAYS"; then
        say "it ends within $RENEW_BEFORE_DAYS days"
    elif [ "$(cat "$known_names" 2>/dev/null)" != "$names" ]; then
        say "the names are others"
    fi
}

if $force || { [ ! -e "$ca" ] && [ ! -e "$ca_key" ]; }; then
    make_authority
elif [ ! -e "$ca" ]; then
    fail "$ca is missing, and its key is there: bring it back, or make a new authority with --force"
elif ! lasts "$ca" 0; then
    fail "the authority $ca has ended, or is none: --force makes a new one, which clients have to trust anew"
fi

reason=$(why_anew)
# Such as Let's Encrypt's, which clients trust anyway.
[ "$reason" != "$FOREIGN" ] || $force \
    || fail "$certificate is by another authority and left alone; delete it to have one made"
if [ -z "$reason" ]; then
    say "Unchanged: $certificate, good for $RENEW_BEFORE_DAYS days and more"
else
    [ -e "$ca_key" ] || fail "a new certificate is needed ($reason), and $ca_key is not here to sign it"
    belong_together "$ca" "$ca_key" || fail "$ca and $ca_key do not belong together"
    say "A certificate is made: $reason"
    make_certificate
fi
for secret in "$ca_key" "$key"; do
    [ ! -e "$secret" ] || chmod 600 "$secret"
done
lasts "$ca" "$SERVER_DAYS" || say "The authority itself ends soon: plan for a new one (--force)"
say "Ends: $(openssl x509 -in "$certificate" -noout -enddate | cut -d= -f2)"
say "The authority's SHA-256 fingerprint, to compare on clients:"
say "  $(openssl x509 -in "$ca" -noout -fingerprint -sha256 | cut -d= -f2)"
