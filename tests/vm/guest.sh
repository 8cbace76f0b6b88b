#!/bin/sh
# What the guest of kernels.sh does, as its init: flowtel, some connections, and a look at what it told: "guest: pass" or
# "guest: FAIL". Then, where there is one, the table of scenarios: "table: pass" or "table: FAIL".
export PATH=/bin:/sbin HOME=/ FLOWTEL_LOG__BALANCE=true
/bin/busybox mkdir -p /sys/fs/cgroup
# What was copied here from the host stays: ip, nft.
for applet in $(/bin/busybox --list); do
    [ -e "/bin/$applet" ] || /bin/busybox ln -s busybox "/bin/$applet"
done
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
hostname guest
ip link set lo up
records=10
if modprobe -q tcp_diag; then
    records=14
fi
modprobe -q veth
echo "Linux $(uname -r)"

failures=0
expect() { # expect COUNT PATTERN: so many lines of the output match
    found=$(grep -cE "$2" /tmp/out)
    if [ "$found" != "$1" ]; then
        echo "expected $1 lines of '$2', found $found"
        failures=$((failures + 1))
    fi
}

flowtel check </dev/null || failures=$((failures + 1))
# The programs of leaner configurations: without failures, begins with names, begins alone.
flowtel check --set flow.update=5m </dev/null || failures=$((failures + 1))
flowtel check --set capture.tls=true </dev/null || failures=$((failures + 1))
flowtel check --set capture.tls=true --set flow.update=5m </dev/null || failures=$((failures + 1))
flowtel check --set capture.events=flows </dev/null || failures=$((failures + 1))
flowtel check --set capture.events=begins </dev/null || failures=$((failures + 1))
flowtel check --set capture.events=begins --set dns.enabled=false --set owner.acceptor=false </dev/null ||
    failures=$((failures + 1))
# A connection that is older than flowtel.
sleep 1000 | nc -l -p 8090 >/dev/null &
sleep 1
sleep 1000 | nc 127.0.0.1 8090 >/dev/null &
older=$!
for _ in $(seq 20); do netstat -tn | grep -q ':8090.*ESTABLISHED' && break; sleep 1; done
flowtel --format text --set dns.enabled=false >/tmp/out 2>/tmp/err &
flowtel=$!
# An emulator on a busy machine takes its time.
for _ in $(seq 90); do grep -q 'found .* open connections\|not told' /tmp/err && break; sleep 1; done
sleep 1
echo hello >/www/index.html
httpd -p 127.0.0.1:8080 -h /www
httpd -p '[::1]:8081' -h /www
sleep 1
wget -q -O /dev/null http://127.0.0.1:8080/ || failures=$((failures + 1))
wget -q -O /dev/null 'http://[::1]:8081/' || failures=$((failures + 1))
wget -q -O /dev/null http://127.0.0.1:9/ 2>/dev/null
kill -9 $older
sleep 3
kill -INT $flowtel
wait $flowtel || failures=$((failures + 1))
cat /tmp/out /tmp/err

# Each row says whether one thing works here.
row() { # row NAME COMMAND...: the command finds no failure
    before=$failures
    name=$1
    shift
    "$@"
    if [ "$failures" = "$before" ]; then echo "row: $name: pass"; else echo "row: $name: FAIL"; fi
}
begins() {
    for end in '127\.0\.0\.1:[0-9]+ → 127\.0\.0\.1:8080' '\[::1\]:[0-9]+ → \[::1\]:8081'; do
        expect 1 "begin  out $end"
        expect 1 "begin  in  $end"
    done
}
ends() {
    for end in '127\.0\.0\.1:[0-9]+ → 127\.0\.0\.1:8080' '\[::1\]:[0-9]+ → \[::1\]:8081'; do
        expect 1 "end    out $end .*, fin$"
        expect 1 "end    in  $end .*, fin$"
    done
}
failed() {
    expect 1 'failed out 127\.0\.0\.1:[0-9]+ → 127\.0\.0\.1:9 .*refused'
    expect 1 'failed in  127\.0\.0\.1:[0-9]+ → 127\.0\.0\.1:9 +refused'
}
owners() {
    expect 2 'begin  out .*:808[01] +(wget|busybox)'
    expect 2 'begin  in  .*:808[01] +busybox'
    expect 2 'end    out .*:808[01] +(wget|busybox)'
    expect 2 'end    in  .*:808[01] +busybox'
    expect 1 'failed out .*:9 +(wget|busybox)'
}
older() {
    expect 1 'open   out 127\.0\.0\.1:[0-9]+ → 127\.0\.0\.1:8090 +(nc|busybox)'
    expect 1 'open   in  127\.0\.0\.1:[0-9]+ → 127\.0\.0\.1:8090 +(nc|busybox)'
    expect 1 'end    out 127\.0\.0\.1:[0-9]+ → 127\.0\.0\.1:8090 +(nc|busybox).* fin'
    expect 1 'end    in  127\.0\.0\.1:[0-9]+ → 127\.0\.0\.1:8090 +(nc|busybox).* fin'
}
balance() {
    expect $records '.'
    if ! grep -q "^records: $records made = $records delivered\$" /tmp/err; then
        echo "the records don't balance"
        failures=$((failures + 1))
    fi
    if grep -E '^kernel events:' /tmp/err | grep -E 'ring full|unread|evicted'; then
        echo "events were lost"
        failures=$((failures + 1))
    fi
}
row begin begins
row end ends
row failed failed
row owner owners
[ $records != 14 ] || row older older
row balance balance

# Starts flowtel, its output added to /tmp/out, and waits until it watches: watch SETTING...
watch() {
    : >/tmp/err
    flowtel --format text --set capture.snapshot=false "$@" >>/tmp/out 2>/tmp/err &
    flowtel=$!
    for _ in $(seq 90); do grep -q 'watching TCP' /tmp/err && break; sleep 1; done
    sleep 1
}
stop() {
    sleep 3
    kill -INT $flowtel
    wait $flowtel || { cat /tmp/err; failures=$((failures + 1)); }
}
# Programs stay when flowtel goes, and the next one reads on: no flow of the time between is missed, none is told twice.
pins() {
    : >/tmp/out
    mount -t bpf bpf /sys/fs/bpf
    watch --set capture.pin=/sys/fs/bpf/flowtel --set dns.enabled=false
    wget -q -O /dev/null http://127.0.0.1:8080/
    stop
    wget -q -O /dev/null http://127.0.0.1:8080/
    watch --set capture.pin=/sys/fs/bpf/flowtel --set dns.enabled=false
    wget -q -O /dev/null http://127.0.0.1:8080/
    stop
    cat /tmp/out
    expect 3 'begin  out .*:8080'
    expect 3 'end    out .*:8080 .*, fin$'
    expect 3 'begin  in  .*:8080'
    expect 3 'end    in  .*:8080 .*, fin$'
    rm -rf /sys/fs/bpf/flowtel
}
row pins pins
# A name that was asked for names the connection that follows.
names() {
    : >/tmp/out
    # Not on loopback: people are spared the names that every host has.
    ip addr add 198.51.100.1/32 dev lo
    httpd -p 198.51.100.1:8080 -h /www
    resolver &
    resolver=$!
    watch --set dns.enabled=true
    nslookup flows.example 127.0.0.53 || failures=$((failures + 1))
    wget -q -O /dev/null http://198.51.100.1:8080/
    stop
    kill $resolver
    ip addr del 198.51.100.1/32 dev lo
    cat /tmp/out
    expect 1 'begin  out .* → 198\.51\.100\.1:8080 \(flows\.example\)'
    expect 1 'end    out .* → 198\.51\.100\.1:8080 \(flows\.example\) .*, fin$'
}
row DNS names
# After the start no thread of flowtel has a right left, and it goes on recording.
rights() {
    : >/tmp/out
    watch --set dns.enabled=false
    grep -hE '^(Uid|Cap[A-Za-z]+|NoNewPrivs|Seccomp):' /proc/$flowtel/task/*/status | sort | uniq -c >/tmp/status
    threads=$(find /proc/$flowtel/task -mindepth 1 -maxdepth 1 | wc -l)
    wget -q -O /dev/null http://127.0.0.1:8080/
    stop
    cat /tmp/status
    # Before 5.19 maps are CAP_BPF's alone, and it stays (docs/operations.md).
    left=0+
    case $(uname -r) in 5.1[0-8].*) left=0000008000000000 ;; esac
    for line in 'Uid:.65534.65534.65534.65534' 'CapInh:.0+' "CapPrm:.$left" "CapEff:.$left" 'CapBnd:.0+' 'CapAmb:.0+' 'NoNewPrivs:.1' 'Seccomp:.2'; do
        if ! grep -qE "^ *$threads $line\$" /tmp/status; then
            echo "not all of $threads threads have $line"
            failures=$((failures + 1))
        fi
    done
    expect 1 'begin  out .*:8080'
    expect 1 'end    out .*:8080 .*, fin$'
}
row "drop of rights" rights
if [ "$failures" = 0 ]; then echo "guest: pass"; else echo "guest: FAIL"; fi

if [ "$failures" = 0 ] && [ -f /table ]; then
    . /table
    export FLOWTEL_TESTS_ROOMS FLOWTEL_TESTS_PATIENCE
    [ "$FLOWTEL_TESTS_ROOMS" != all ] || unset FLOWTEL_TESTS_ROOMS
    # An init has 1024, and some rows keep thousands of connections open.
    ulimit -n 65536
    if /target/debug/deps/kernel --color never ${only:+"$only"} 2>&1; then echo "table: pass"; else echo "table: FAIL"; fi
fi
poweroff -f
