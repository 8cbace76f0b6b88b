# The last one goes: not at an upgrade.
if [ "$1" -eq 0 ] && command -v systemctl >/dev/null 2>&1; then
    systemctl --no-reload disable flowtel.service >/dev/null 2>&1 || :
    if [ -d /run/systemd/system ]; then
        systemctl stop flowtel.service >/dev/null 2>&1 || :
    fi
fi
