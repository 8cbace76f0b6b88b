# Nothing is started: first flowtel is told where records go. `systemctl enable --now flowtel` does it.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload >/dev/null 2>&1 || :
fi
if [ "$1" -eq 1 ] && command -v systemctl >/dev/null 2>&1; then
    systemctl preset flowtel.service >/dev/null 2>&1 || :
fi
