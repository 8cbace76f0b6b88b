#!/bin/bash
# Becomes the node of the test cluster: node.sh ROOT STATE
# Runs under `unshare --mount --net --uts --ipc --propagation private`. ROOT is the file system that debootstrap made (it is
# not written to), STATE a folder for everything that is, seen inside at the same path. Ends up as a process that sleeps;
# the namespaces live as long as it does.
set -e
root=$1 state=$2
mkdir -p "$state"/{upper,work,top,containerd,kubelet}
mount -t overlay node -o "lowerdir=$root,upperdir=$state/upper,workdir=$state/work" "$state/top"
cd "$state/top"
mkdir -p var/lib/containerd var/lib/kubelet var/log/pods etc/cni/net.d
# An overlay can't hold the snapshots of another one.
mount --bind "$state/containerd" var/lib/containerd
mount --bind "$state/kubelet" var/lib/kubelet
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mkdir -p ".$state"
mount --bind "$state" ".$state"
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
hostname node1
printf '127.0.0.1 localhost\n10.99.0.1 node1\n' >etc/hosts
echo 5d0f3a1c9b7e4d628a40c1e2f3a4b5c6 >etc/machine-id
cat >etc/cni/net.d/10-bridge.conflist <<'EOF'
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOF
ip link set lo up
# The node's address, on a cable that leads nowhere: nothing gets out of these namespaces.
ip link add node0 type veth peer name nowhere
ip link set nowhere up
ip addr add 10.99.0.1/24 dev node0
ip link set node0 up
ip route add default via 10.99.0.254 dev node0
echo 1 >/proc/sys/net/ipv4/ip_forward
mkdir .old
pivot_root . .old
umount -l /.old
mount --make-rshared /
echo up >"$state/up"
exec sleep infinity
