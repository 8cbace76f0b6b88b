if [ -d /run/systemd/system ]; then
    systemctl daemon-reload >/dev/null 2>&1 || :
    # An upgrade: what runs is replaced. With capture.pin no flow is missed.
    if [ "$1" -ge 1 ]; then
        systemctl try-restart flowtel.service >/dev/null 2>&1 || :
    fi
fi
if [ "$1" -eq 0 ]; then
    # Programs that stayed pinned for the next start would run on with nobody to read them. The queue in /var/lib/flowtel
    # stays: RPM has no purge.
    rm -rf /sys/fs/bpf/flowtel
fi
