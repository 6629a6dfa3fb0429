#!/bin/sh
# Asks a running installation, from outside, whether it does what it should: by curl and openssl
# alone. It changes nothing but the count of logins of the address that it runs on.
set -u
umask 077

ca=
http_url=
base=
readonly SLOWEST_ANSWER_S=120
readonly MOST_LOGINS=100 # more than anybody should allow
readonly WINDOW_S=20     # that a limit must have left to be counted in one piece

usage() {
    cat <<'USAGE'
Usage: test_deployment.sh [--ca FILE] [--http URL] BASE_URL

  BASE_URL     as in PUBLIC_BASE_URL: https://ai.example.org
  --ca FILE    the authority that signed the server's certificate, if it is one of your own
  --http URL   where plain HTTP is answered; BASE_URL's host on port 80 by default

An account that may ask questions, by the environment:
  DEPLOYMENT_USER
  DEPLOYMENT_PASSWORD, or DEPLOYMENT_PASSWORD_FILE that holds it

Afterwards nobody can log in from this address until the login limit's window is over: a minute,
unless RATE_LIMIT_AUTH says otherwise. Exit code: 0 all passed, 1 something failed, 2 not run.
USAGE
}

refuse() {
    printf 'test_deployment.sh: %s\n' "$1" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
        --ca | --http)
            [ $# -ge 2 ] || refuse "$1 needs a value"
            if [ "$1" = --ca ]; then ca=$2; else http_url=${2%/}; fi
            shift 2
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        -*) refuse "unknown option '$1'; --help tells which there are" ;;
        *)
            base=${1%/}
            shift
            ;;
    esac
done
case $base in
    https://*) ;;
    *) refuse "BASE_URL has to begin with https://; --help tells more" ;;
esac
authority=${base#https://}
host=${authority%:*}
port=${authority##*:}
case $authority in *:*) ;; *) port=443 ;; esac
http_url=${http_url:-http://$host}
: "${DEPLOYMENT_USER:?the account to log in with}"
for program in curl openssl; do
    command -v "$program" >/dev/null || refuse "$program is missing"
done
[ -z "$ca" ] || [ -r "$ca" ] || refuse "cannot read $ca"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM
# Secrets go by files: arguments are seen by everybody on the machine.
if [ -n "${DEPLOYMENT_PASSWORD_FILE:-}" ]; then
    tr -d '\n' <"$DEPLOYMENT_PASSWORD_FILE" >"$work/password" || refuse "cannot read the password"
else
    printf '%s' "${DEPLOYMENT_PASSWORD:?or DEPLOYMENT_PASSWORD_FILE}" >"$work/password"
fi
: >"$work/authorization"

# --- Asking ------------------------------------------------------------------------------------

status=
ask() { # URL OPTION…: sets `status`, leaves $work/head and $work/body
    url=$1
    shift
    status=$(curl -q --silent --show-error --max-time "$SLOWEST_ANSWER_S" --path-as-is \
        ${ca:+--cacert "$ca"} --dump-header "$work/head" --output "$work/body" \
        --write-out '%{http_code}' "$@" "$url" 2>"$work/error") || {
        : "${status:=000}"
        head -n 1 "$work/error" >"$work/body"
    }
    tr -d '\r' <"$work/head" >"$work/head.lines" 2>/dev/null || : >"$work/head.lines"
}

header() { # NAME: its values, one a line
    grep -i "^$1:" "$work/head.lines" | cut -d: -f2- | sed 's/^ *//'
}

ask_json() { # PATH JSON OPTION…
    path=$1 json=$2
    shift 2
    ask "$base$path" --header 'Content-Type: application/json' \
        --header "@$work/authorization" --data-binary "$json" "$@"
}

# --- Judging -----------------------------------------------------------------------------------

failed=0
faults=
fault() {
    faults="$faults${faults:+; }$(printf '%s' "$1" | tr '\n' ' ')"
}

expect() { # WHAT EXPECTED FOUND
    [ "$2" = "$3" ] || fault "$1: $3 instead of $2"
}

check() { # NAME FUNCTION
    faults=
    "$2"
    if [ -z "$faults" ]; then
        printf 'passed  %s\n' "$1" >>"$work/table"
    else
        printf 'FAILED  %s\n          %s\n' "$1" "$faults" >>"$work/table"
        failed=$((failed + 1))
    fi
    tail -n "$([ -z "$faults" ] && echo 1 || echo 2)" "$work/table"
}

health() {
    for path in /live /ready /health; do
        ask "$base$path"
        [ "$status" = 200 ] || fault "$path: $status $(head -c 300 "$work/body")"
    done
    grep -q '"status": *"healthy"' "$work/body" || fault "/health: $(head -c 300 "$work/body")"
}

redirect() {
    ask "$http_url/api/v1/auth/me?a=b"
    expect "status" 308 "$status"
    case $(header Location) in
        "https://$host"*"/api/v1/auth/me?a=b") ;;
        *) fault "leads to '$(header Location)'" ;;
    esac
}

security_headers() {
    for path in / /api/v1/nowhere /metrics /static/nowhere; do
        ask "$base$path" --header 'X-Request-ID: of-the-deployment-test'
        expect "$path X-Request-ID" of-the-deployment-test "$(header X-Request-ID)"
        expect "$path X-Content-Type-Options" nosniff "$(header X-Content-Type-Options)"
        expect "$path X-Frame-Options" DENY "$(header X-Frame-Options)"
        expect "$path Strict-Transport-Security, how often" 1 \
            "$(header Strict-Transport-Security | grep -c 'max-age=[1-9][0-9]\{6,\}')"
        expect "$path Content-Security-Policy, how often" 1 \
            "$(header Content-Security-Policy | grep -c "default-src 'none'")"
        case $(header Server) in *[0-9]*) fault "$path tells a version: $(header Server)" ;; esac
    done
}

offer() { # OPTION…: what openssl says to a handshake
    openssl s_client -connect "$host:$port" -servername "$host" "$@" </dev/null 2>&1
}

tls() {
    for old in -tls1 -tls1_1; do
        # The server has to say no, not this machine's openssl.
        offer "$old" -cipher 'ALL:@SECLEVEL=0' | grep -q 'alert protocol version' \
            || fault "$old is not refused by the server"
    done
    for new in -tls1_2 -tls1_3; do
        offer "$new" ${ca:+-CAfile "$ca"} -verify_return_error | grep -q 'Verify return code: 0' \
            || fault "$new: no handshake with a certificate that is trusted"
    done
    for weak in AES128-SHA ECDHE-ECDSA-AES128-SHA ECDHE-RSA-AES128-SHA256 CAMELLIA128-SHA; do
        offer -tls1_2 -cipher "$weak:@SECLEVEL=0" | grep -q 'handshake failure' \
            || fault "$weak is not refused by the server"
    done
}

tls_scanned() {
    sslscan --no-colour "$host:$port" >"$work/scan" 2>&1 || fault "sslscan failed"
    for old in SSLv2 SSLv3 TLSv1.0 TLSv1.1; do
        grep -Eq "^$old +disabled" "$work/scan" || fault "$old is not disabled"
    done
    for new in TLSv1.2 TLSv1.3; do
        grep -Eq "^$new +enabled" "$work/scan" || fault "$new is not enabled"
    done
    ! grep -Eq '^(Accepted|Preferred).*(CBC|RC4|DES|NULL|EXP|-SHA *$)' "$work/scan" \
        || fault "weak ciphers: $(grep -Ec '^(Accepted|Preferred)' "$work/scan") are accepted"
    ! grep -q 'VULNERABLE\|: *vulnerable' "$work/scan" || fault "vulnerable, says sslscan"
}

metrics_are_closed() {
    for path in /metrics /metrics/ //metrics /%6detrics /x/../metrics '/metrics?a=b'; do
        ask "$base$path"
        expect "$path" 404 "$status"
        ! grep -q '^sovereigncore_' "$work/body" || fault "$path gives metrics"
    done
}

large_bodies() {
    head -c 2097152 /dev/zero | tr '\0' a >"$work/large"
    ask_json /api/v1/consciousness/process "@$work/large"
    expect "/api/v1" 413 "$status"
    expect "/api/v1" application/problem+json "$(header Content-Type)"
    ask_json /v1/chat/completions "@$work/large"
    expect "/v1" 413 "$status"
    grep -q '^{"error":{"message":' "$work/body" || fault "/v1: not in OpenAI's shape"
    rm -f "$work/large"
}

log_in() {
    ask "$base/api/v1/auth/token" --data-urlencode "username=$DEPLOYMENT_USER" \
        --data-urlencode "password@$work/password"
    token=$(sed -n 's/.*"access_token": *"\([^"]*\)".*/\1/p' "$work/body")
    if [ "$status" != 200 ] || [ -z "$token" ]; then
        fault "$status $(head -c 300 "$work/body")"
        return
    fi
    printf 'Authorization: Bearer %s\n' "$token" >"$work/authorization"
    ask "$base/api/v1/auth/me" --header "@$work/authorization"
    expect "/api/v1/auth/me" 200 "$status"
}

question() {
    ask_json /api/v1/consciousness/process \
        '{"prompt": "What is the capital of France?", "temperature": 0, "use_memory": false}'
    expect "status" 200 "$status"
    answer=$(sed -n 's/.*"response": *"\([^"]*\)".*/\1/p' "$work/body")
    [ -n "$answer" ] || fault "no answer in $(head -c 300 "$work/body")"
}

stream() {
    : >"$work/events"
    curl -q --silent --no-buffer --max-time "$SLOWEST_ANSWER_S" ${ca:+--cacert "$ca"} \
        --header "@$work/authorization" --header 'Content-Type: application/json' \
        --data-binary '{"prompt": "Count to 30", "stream": true, "use_memory": false}' \
        --output "$work/events" "$base/api/v1/consciousness/process" &
    curl_pid=$!
    while ! grep -q '^event: token' "$work/events" && kill -0 "$curl_pid" 2>/dev/null; do :; done
    ! grep -q '^event: done' "$work/events" || fault "the first event came with the last one"
    wait "$curl_pid" || fault "the stream was cut"
    expect "ends, how often" 1 "$(grep -c '^event: done' "$work/events")"
    [ "$(grep -c '^event: token' "$work/events")" -gt 1 ] || fault "all of it in one event"
}

guess=0
guess_once() { # OPTION…: a login that fails; sets `left` and `reset_s` of the limit
    guess=$((guess + 1))
    ask "$base/api/v1/auth/token" --data "username=nobody-$$-$guess&password=Wrong-1-word" "$@"
    left=$(header RateLimit | sed -n 's/^"auth";r=\([0-9]*\);t=[0-9]*$/\1/p')
    reset_s=$(header RateLimit | sed -n 's/^"auth";r=[0-9]*;t=\([0-9]*\)$/\1/p')
}

# However many web processes answer, each attempt takes exactly one from what is left.
limits() {
    guess_once
    if [ -n "$reset_s" ] && [ "$reset_s" -lt "$WINDOW_S" ]; then
        sleep "$((reset_s + 1))"
        guess_once
    fi
    if [ "$status" = 429 ]; then
        sleep "$(($(header Retry-After) + 1))"
        guess_once
    fi
    if [ "$status" != 401 ] || [ -z "$left" ]; then
        fault "a wrong login is answered by $status $(head -c 300 "$work/body")"
        return
    fi
    if [ "$left" -gt "$MOST_LOGINS" ]; then
        fault "$left attempts to log in are allowed"
        return
    fi
    while [ "$left" -gt 0 ]; do
        before=$left
        guess_once
        expect "an attempt with $before left" "401 and $((before - 1)) left" "$status and ${left:-none} left"
        [ "${left:-x}" = "$((before - 1))" ] || return
    done
    guess_once
    expect "one more than the limit" 429 "$status"
    [ -n "$(header Retry-After)" ] || fault "429 without Retry-After"
}

# After `limits`, when nothing is left: another address in a header is no other caller.
spoofing() {
    for name in X-Forwarded-For X-Real-IP X-Client-IP True-Client-IP CF-Connecting-IP; do
        guess_once --header "$name: 203.0.113.$guess"
        expect "$name" 429 "$status"
    done
    guess_once --header "Forwarded: for=203.0.113.$guess"
    expect Forwarded 429 "$status"
    guess_once --header "X-Forwarded-For: 203.0.113.$guess" --header "X-Forwarded-For: 203.0.113.1"
    expect "X-Forwarded-For twice" 429 "$status"
}

check "health of every component" health
check "plain HTTP leads to TLS" redirect
check "security headers, once each" security_headers
check "TLS 1.2 and 1.3 with good ciphers only" tls
if command -v sslscan >/dev/null; then check "sslscan finds nothing" tls_scanned; fi
check "/metrics is closed" metrics_are_closed
check "log in" log_in
check "bodies that are too large" large_bodies
check "a question is answered" question
check "a stream arrives as it is made" stream
check "login limit, exact over all processes" limits
check "spoofed addresses give no extra login" spoofing

printf '\n%s: %s passed, %s failed\n' "$base" "$(grep -c '^passed' "$work/table")" "$failed"
[ "$failed" = 0 ]
