#!/bin/sh
# What setup_env.sh and setup_redis.sh share; read by them, does nothing by itself.

fail() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 1
}

note() {
    printf '%s\n' "$1" >&2
}

# fresh: 256 bits in hexadecimal. No random word in it can look like an example, which the settings
# refuse, and nothing in it needs quoting in a URL.
fresh() {
    made=$(od -An -vtx1 -N32 /dev/urandom | tr -d ' \n')
    [ "${#made}" -eq 64 ] || fail "/dev/urandom gave too little"
    printf '%s' "$made"
}

# Passwords go through a pipe: arguments of programs are seen by everybody.
sha256() {
    if command -v sha256sum >/dev/null; then
        printf '%s' "$1" | sha256sum | cut -d ' ' -f 1
    else
        printf '%s' "$1" | openssl dgst -sha256 -r | cut -d ' ' -f 1
    fi
}

# setting NAME FILE: its value in an .env, or in the file that NAME_FILE names there; or nothing.
setting() {
    [ -f "$2" ] || return 0
    its_file=$(sed -n "s/^\(export \)\{0,1\}$1_FILE=//p" "$2")
    if [ -n "$its_file" ]; then
        [ ! -r "$its_file" ] || cat "$its_file"
    else
        sed -n "s/^\(export \)\{0,1\}$1=//p" "$2"
    fi
}

# password_in URL USER: what stands behind that user's name in it; or nothing.
password_in() {
    case $1 in
    *://"$2":*@*)
        found=${1#*://"$2":}
        printf '%s' "${found%%@*}"
        ;;
    esac
}

# take_turns: two at once would each make secrets, and mix them. Where the system can lock.
take_turns() {
    exec 9<"$0"
    ! command -v flock >/dev/null 2>&1 || flock 9
}

is_terminal() {
    [ -t 0 ] && [ -t 2 ]
}

# agrees QUESTION: whether somebody at a terminal says yes.
agrees() {
    is_terminal || return 1
    printf '%s [y/N] ' "$1" >&2
    read -r answer || return 1
    case $answer in [yY] | [yY][eE][sS]) return 0 ;; *) return 1 ;; esac
}

# keep_reader OLD NEW: a group that could read the old one, such as the platform's, reads the new one too.
keep_reader() {
    listed=$(ls -ldn "$1")
    case $listed in
    -rw-r-----*)
        chgrp "$(printf '%s' "$listed" | awk '{ print $4 }')" "$2" && chmod 640 "$2" && return
        rm -f "$2"
        fail "cannot keep the group of $1"
        ;;
    esac
}

# put FILE MODE: standard input becomes FILE, whole or not at all. Nobody else can read it before it has
# its mode. What was there is kept beside it.
put() {
    unfinished=$(mktemp "$1.XXXXXX") || fail "cannot write $1"
    # mktemp gives 600 whatever the umask.
    if ! cat >"$unfinished" || ! chmod "$2" "$unfinished"; then
        rm -f "$unfinished"
        fail "cannot write $1"
    fi
    if [ -e "$1" ]; then
        keep_reader "$1" "$unfinished"
        kept=$1.before-$(date -u +%Y%m%dT%H%M%SZ)
        while [ -e "$kept" ]; do kept=$kept+; done
        cp -p "$1" "$kept" || { rm -f "$unfinished"; fail "cannot keep a copy of $1"; }
        note "$1: what was there is kept as $kept"
    fi
    mv -f "$unfinished" "$1"
}
