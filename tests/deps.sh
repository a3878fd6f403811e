#!/bin/sh
# Installs the Debian packages that building and testing need, and those named as arguments, where they are missing; says which.
# Quiet when there is nothing to do.
set -eu

packages="
  build-essential pkg-config libdpdk-dev libclang-dev
  iproute2 iputils-ping netbase nftables ethtool tcpdump nginx-light procps wrk curl valgrind
  python3 python3-venv python3-pytest python3-grpcio dnsmasq-base ldirectord prometheus
"

missing=
for package in $packages "$@"; do
    case "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" in
        installed) ;;
        *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

root=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "These packages are missing, and installing them needs root (there is no sudo here). As root:" >&2
        echo "  apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
    root="sudo"
fi

if ! command -v apt-get >/dev/null; then
    echo "These packages (by their Debian names) are missing, and there is no apt-get here to install them:$missing" >&2
    exit 1
fi

echo "Installing with apt:$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

apt() {
    $root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600 "$@" >"$log" 2>&1
}

# nginx and ldirectord are wanted for the lab only, and prometheus for its promtool: their services, and that of ldirectord's ipvsadm, must not
# start on this machine.
held=
for service in nginx ldirectord ipvsadm prometheus; do
    case "$service:$missing" in
        nginx:*nginx-light* | ldirectord:*ldirectord* | ipvsadm:*ldirectord* | prometheus:*prometheus*)
            if [ -d /run/systemd/system ] && ! systemctl cat "$service.service" >/dev/null 2>&1; then
                $root systemctl mask --runtime --quiet "$service.service"
                held="$held $service.service"
            fi ;;
    esac
done

# shellcheck disable=SC2086 # one word a package
install_missing() { apt install --no-install-recommends $missing; }

status=0
if ! install_missing; then
    # The lists of packages may be missing or old.
    { apt update && install_missing; } || status=$?
fi

for service in $held; do
    $root systemctl unmask --runtime --quiet "$service"
    $root systemctl disable --quiet "$service" 2>/dev/null || true
done

if [ "$status" != 0 ]; then
    tail -n 20 "$log" >&2
    echo "apt could not install:$missing" >&2
    exit "$status"
fi
