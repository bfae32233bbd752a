#!/usr/bin/env bash
# Installs the programs that tests use as real clients and judges, as root on Debian; says what is skipped elsewhere.
# Always ends well: a test whose program is missing skips itself and says why.
set -uo pipefail

say() { printf '%s\n' "$*" >&2; }

# command:package
programs=(
    curl:curl
    fetchmail:fetchmail
    getmail:getmail6
    mpop:mpop
    openssl:openssl
    strace:strace
    pg_createcluster:postgresql
    slapd:slapd
    ldapadd:ldap-utils
    haproxy:haproxy
    fail2ban-regex:fail2ban
    chromium:chromium
    chromedriver:chromium-driver
)

# some of them are no user's commands
PATH=$PATH:/usr/sbin
missing=()
for entry in "${programs[@]}"; do
    command -v "${entry%%:*}" >/dev/null || missing+=("${entry#*:}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
    say "Not here, so the tests that use them are skipped: ${missing[*]}"
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    say "Not here, so the tests that use them are skipped: ${missing[*]}"
    say "To have them run, as root:  apt-get install --no-install-recommends ${missing[*]}"
    exit 0
fi

say "Installing Debian packages that tests use: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
install=(timeout 600 apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=60 "${missing[@]}")
"${install[@]}" >/dev/null 2>&1 </dev/null ||
    { timeout 300 apt-get update -qq >&2 && "${install[@]}" >/dev/null </dev/null; } ||
    say "Could not install them; the tests that use them are skipped."
exit 0
