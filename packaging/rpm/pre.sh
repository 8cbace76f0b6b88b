# The group must exist before the files that belong to it are unpacked.
if command -v systemd-sysusers >/dev/null 2>&1; then
    echo 'u flowtel - "flowtel, TCP flows to OpenTelemetry" /var/lib/flowtel' | systemd-sysusers - || :
else
    getent group flowtel >/dev/null || groupadd -r flowtel || :
    getent passwd flowtel >/dev/null ||
        useradd -r -g flowtel -d /var/lib/flowtel -s /sbin/nologin -c "flowtel, TCP flows to OpenTelemetry" flowtel || :
fi
