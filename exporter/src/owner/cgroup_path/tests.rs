use proptest::prelude::*;

use super::*;

const A: &str = "3f4b0d9ad41d4a0ea3b1b8d2f7c5f6f0c3a9e1b2d4c6f8a0b1c2d3e4f5a6b7c8";
const B: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const POD: &str = "0d8e4f6c-1b2a-4c3d-9e5f-a1b2c3d4e5f6";
const POD_: &str = "0d8e4f6c_1b2a_4c3d_9e5f_a1b2c3d4e5f6";
const STATIC: &str = "fa08f28a3ae6df8d4b3dc7bd4a5f0b1c";

/// A path with `{A}`, `{B}`, `{POD}`, `{POD_}`, `{STATIC}`, and what it says: container, pod, unit; `-` is none.
type Row = (&'static str, &'static str, &'static str, &'static str);

const ROWS: &[Row] = &[
    // Docker: systemd's driver (the default since 20.10 on version 2), cgroupfs, rootless, with systemd within.
    ("/system.slice/docker-{A}.scope", "{A}", "-", "-"),
    ("/docker/{A}", "{A}", "-", "-"),
    ("/custom-parent.slice/docker-{A}.scope", "{A}", "-", "-"),
    ("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{A}.scope", "{A}", "-", "-"),
    ("/user.slice/user-1000.slice/user@1000.service/app.slice/docker.service/docker/{A}", "{A}", "-", "-"),
    ("/system.slice/docker-{A}.scope/init.scope", "{A}", "-", "init.scope"),
    ("/system.slice/docker-{A}.scope/system.slice/nginx.service", "{A}", "-", "nginx.service"),
    // Docker in Docker: the innermost.
    ("/docker/{A}/docker/{B}", "{B}", "-", "-"),
    ("/system.slice/docker-{A}.scope/docker/{B}", "{B}", "-", "-"),
    // The services themselves.
    ("/system.slice/docker.service", "-", "-", "docker.service"),
    ("/system.slice/containerd.service", "-", "-", "containerd.service"),
    // containerd under Kubernetes.
    (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD_}.slice/cri-containerd-{A}.scope",
        "{A}",
        "{POD}",
        "-",
    ),
    (
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{POD_}.slice/cri-containerd-{A}.scope",
        "{A}",
        "{POD}",
        "-",
    ),
    ("/kubepods.slice/kubepods-pod{POD_}.slice/cri-containerd-{A}.scope", "{A}", "{POD}", "-"),
    ("/kubepods/burstable/pod{POD}/{A}", "{A}", "{POD}", "-"),
    ("/kubepods/pod{POD}/{A}", "{A}", "{POD}", "-"),
    ("/kubepods/besteffort/pod{STATIC}/{A}", "{A}", "{STATIC}", "-"),
    (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC}.slice/cri-containerd-{A}.scope",
        "{A}",
        "{STATIC}",
        "-",
    ),
    ("/kubepods.slice/kubepods-pod{POD_}.slice", "-", "{POD}", "-"),
    (
        "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{POD_}.slice/cri-containerd-{A}.scope",
        "{A}",
        "{POD}",
        "-",
    ),
    ("/system.slice/containerd.service/kubepods-burstable-pod{POD_}.slice:cri-containerd:{A}", "{A}", "{POD}", "-"),
    ("/k8s.io/{A}", "{A}", "-", "-"),
    // Docker as Kubernetes' runtime (dockershim, cri-dockerd).
    (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD_}.slice/docker-{A}.scope",
        "{A}",
        "{POD}",
        "-",
    ),
    // kind: a node is a container; pods on it; its own kubelet.
    ("/docker/{A}/kubelet/kubepods/burstable/pod{POD}/{B}", "{B}", "{POD}", "-"),
    (
        "/system.slice/docker-{A}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{POD_}.slice/cri-containerd-{B}.scope",
        "{B}",
        "{POD}",
        "-",
    ),
    ("/system.slice/docker-{A}.scope/kubelet.slice/kubelet.service", "{A}", "-", "kubelet.service"),
    ("/docker/{A}/kubelet/kubepods/burstable/pod{POD}", "-", "{POD}", "-"),
    // A container that a pod's container made.
    ("/kubepods/burstable/pod{POD}/{A}/docker/{B}", "{B}", "{POD}", "-"),
    // CRI-O, also with crun's own cgroup within, and its monitor.
    ("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD_}.slice/crio-{A}.scope", "{A}", "{POD}", "-"),
    ("/kubepods.slice/kubepods-pod{POD_}.slice/crio-{A}.scope/container", "{A}", "{POD}", "-"),
    ("/kubepods/burstable/pod{POD}/crio-{A}", "{A}", "{POD}", "-"),
    ("/kubepods.slice/kubepods-pod{POD_}.slice/crio-conmon-{A}.scope", "-", "{POD}", "crio-conmon-{A}.scope"),
    ("/kubepods/burstable/pod{POD}/crio-conmon-{A}", "-", "{POD}", "-"),
    // Podman: root, rootless, pods, Quadlet, monitors.
    ("/machine.slice/libpod-{A}.scope", "{A}", "-", "-"),
    ("/machine.slice/libpod-{A}.scope/container", "{A}", "-", "-"),
    ("/machine.slice/libpod-conmon-{A}.scope", "-", "-", "libpod-conmon-{A}.scope"),
    ("/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope/container", "{A}", "-", "-"),
    ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope/container", "{A}", "-", "-"),
    ("/user.slice/user-1000.slice/user@1000.service/user.slice/podman-4711.scope", "-", "-", "podman-4711.scope"),
    ("/system.slice/web.service/libpod-payload-{A}", "{A}", "-", "web.service"),
    ("/system.slice/web.service/runtime", "-", "-", "web.service"),
    ("/libpod_parent/libpod-{A}", "{A}", "-", "-"),
    ("/libpod_parent/conmon", "-", "-", "-"),
    // nerdctl, ECS, buildah.
    ("/system.slice/nerdctl-{A}.scope", "{A}", "-", "-"),
    ("/default/{A}", "{A}", "-", "-"),
    ("/ecs/0123456789abcdef0123456789abcdef/{A}", "{A}", "-", "-"),
    ("/ecs/my-cluster/0123456789abcdef0123456789abcdef/{A}", "{A}", "-", "-"),
    ("/ecstasks.slice/ecstasks-0123456789abcdef0123456789abcdef.slice/docker-{A}.scope", "{A}", "-", "-"),
    // Fargate: a task of its own id, containers with a number behind it; within a cgroup namespace the last part alone.
    ("/ecs/{STATIC}/{STATIC}-1234567890", "{STATIC}-1234567890", "-", "-"),
    ("/../{STATIC}-265927825", "{STATIC}-265927825", "-", "-"),
    ("/ecs/{STATIC}/0123456789abcdef0123456789abcdef-1", "-", "-", "-"),
    ("/ecs/{STATIC}/{STATIC}-", "-", "-", "-"),
    ("/ecs/{STATIC}/{STATIC}-12x", "-", "-", "-"),
    // Garden, with a tag and without, with throttling and without; as a unit of systemd.
    ("/garden/6f265890-5165-7fab-6b52-18d1", "6f265890-5165-7fab-6b52-18d1", "-", "-"),
    ("/garden-1/70e2d4c0-84f7-47a5-6a2b-c7f4", "70e2d4c0-84f7-47a5-6a2b-c7f4", "-", "-"),
    ("/garden/good/6f265890-5165-7fab-6b52-18d1", "6f265890-5165-7fab-6b52-18d1", "-", "-"),
    ("/garden/bad/6f265890-5165-7fab-6b52-18d1", "6f265890-5165-7fab-6b52-18d1", "-", "-"),
    (
        "/system.slice/garden.service/garden/34dc0b5e-626d-2c5c-4c51-70e34b10e765",
        "34dc0b5e-626d-2c5c-4c51-70e34b10e765",
        "-",
        "-",
    ),
    ("/garden", "-", "-", "-"),
    ("/garden/good", "-", "-", "-"),
    ("/gardener/x", "-", "-", "-"),
    ("/garden/a b", "-", "-", "-"),
    ("/system.slice/buildah-{A}.scope", "{A}", "-", "-"),
    // systemd-nspawn and machined.
    ("/machine.slice/systemd-nspawn@web.service/payload", "web", "-", "-"),
    (
        "/machine.slice/systemd-nspawn@my\\x2dweb.service/payload/system.slice/nginx.service",
        "my-web",
        "-",
        "nginx.service",
    ),
    ("/machine.slice/systemd-nspawn@web.service/supervisor", "-", "-", "systemd-nspawn@web.service"),
    ("/machine.slice/machine-debian\\x2d12.scope", "debian-12", "-", "-"),
    ("/machine.slice/machine-qemu\\x2d3\\x2dbuild.scope/libvirt/emulator", "-", "-", "machine-qemu-3-build.scope"),
    // LXC, LXD, Incus, Proxmox.
    ("/lxc.payload.web", "web", "-", "-"),
    ("/lxc.payload.prod_web-1/system.slice/ssh.service", "prod_web-1", "-", "ssh.service"),
    ("/lxc.monitor.web", "-", "-", "-"),
    ("/lxc/101/ns/system.slice/cron.service", "101", "-", "cron.service"),
    ("/lxc", "-", "-", "-"),
    // systemd.
    ("/system.slice/sshd.service", "-", "-", "sshd.service"),
    ("/system.slice/system-getty.slice/getty@tty1.service", "-", "-", "getty@tty1.service"),
    ("/system.slice/system-postgresql.slice/postgresql@16\\x2dmain.service", "-", "-", "postgresql@16-main.service"),
    ("/user.slice/user-1000.slice/session-3.scope", "-", "-", "session-3.scope"),
    ("/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service", "-", "-", "syncthing.service"),
    ("/user.slice/user-1000.slice/user@1000.service/init.scope", "-", "-", "init.scope"),
    (
        "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-org.gnome.Terminal\\x2d7.scope",
        "-",
        "-",
        "app-gnome-org.gnome.Terminal-7.scope",
    ),
    ("/system.slice/_cpu.service", "-", "-", "cpu.service"),
    ("/init.scope", "-", "-", "init.scope"),
    ("/system.slice", "-", "-", "-"),
    ("/", "-", "-", "-"),
    ("", "-", "-", "-"),
    // As a cgroup namespace shows its neighbours.
    ("/../../system.slice/docker-{A}.scope", "{A}", "-", "-"),
    ("/../cri-containerd-{A}.scope", "{A}", "-", "-"),
    ("/../../../kubepods-burstable-pod{POD_}.slice/cri-containerd-{A}.scope", "{A}", "{POD}", "-"),
    // What is no id: one digit less or more, upper case, other letters, another suffix.
    ("/docker/{A}0", "-", "-", "-"),
    ("/system.slice/docker-0{A}.scope", "-", "-", "docker-0{A}.scope"),
    ("/docker/f4b0d9ad41d4a0ea3b1b8d2f7c5f6f0c3a9e1b2d4c6f8a0b1c2d3e4f5a6b7c8", "-", "-", "-"),
    ("/docker/3F4B0D9AD41D4A0EA3B1B8D2F7C5F6F0C3A9E1B2D4C6F8A0B1C2D3E4F5A6B7C8", "-", "-", "-"),
    ("/docker/gf4b0d9ad41d4a0ea3b1b8d2f7c5f6f0c3a9e1b2d4c6f8a0b1c2d3e4f5a6b7c8", "-", "-", "-"),
    ("/system.slice/docker-{A}.mount", "-", "-", "-"),
    ("/kubepods/burstable/podA{POD}/x", "-", "-", "-"),
    ("/kubepods/burstable/pod0D8E4F6C-1B2A-4C3D-9E5F-A1B2C3D4E5F6", "-", "-", "-"),
    // Names that a user of a delegated cgroup may choose.
    ("/user@1000.service/a\u{1b}[31m.service", "-", "-", "user@1000.service"),
    ("/user@1000.service/a b.service", "-", "-", "user@1000.service"),
    ("/user@1000.service/\\x1b\\x0a.service", "-", "-", "\\x1b\\x0a.service"),
    ("/user@1000.service/.service", "-", "-", "user@1000.service"),
    ("/user@1000.service/x\\x.service", "-", "-", "x\\x.service"),
    ("/system.slice/ünit.service", "-", "-", "-"),
    ("/lxc.payload.\u{7}", "-", "-", "-"),
    ("/machine.slice/systemd-nspawn@.service", "-", "-", "systemd-nspawn@.service"),
    ("/machine.slice/machine-a\\x2fb.scope", "-", "-", "machine-a/b.scope"),
];

fn fill(text: &str) -> String {
    [("{A}", A), ("{B}", B), ("{POD}", POD), ("{POD_}", POD_), ("{STATIC}", STATIC)]
        .iter()
        .fold(text.to_owned(), |text, (mark, value)| text.replace(mark, value))
}

fn said(part: Option<&str>) -> String {
    part.unwrap_or("-").to_owned()
}

#[test]
fn each_runtimes_paths_say_what_they_are() {
    for (path, container, pod, unit) in ROWS {
        let path = fill(path);
        let place = Place::from_path(path.as_bytes());
        let found =
            (said(place.container_id.as_deref()), said(place.pod_uid.as_deref()), said(place.systemd_unit.as_deref()));
        assert_eq!(found, (fill(container), fill(pod), fill(unit)), "{path:?}");
        assert_eq!(&*place.path, if path.is_empty() { "/" } else { &*path });
    }
}

#[test]
fn a_path_of_any_length_and_depth_is_cut_and_read_in_time() {
    let deep = Place::from_path("/a".repeat(1_000_000).as_bytes());
    assert!(deep.path.len() <= MAX_PATH);
    let wide = Place::from_path(format!("/{}.service", "x".repeat(5000)).as_bytes());
    assert_eq!(wide.systemd_unit, None);
    assert_eq!(Place::from_path(format!("/{}.service", "x".repeat(248)).as_bytes()).systemd_unit, None);
    assert!(Place::from_path(format!("/{}.service", "x".repeat(247)).as_bytes()).systemd_unit.is_some());
    assert_eq!(Place::from_path(format!("/lxc.payload.{}", "x".repeat(65)).as_bytes()).container_id, None);
}

#[test]
fn bytes_that_are_no_text_are_replaced() {
    let place = Place::from_path(b"/system.slice/\xff\xfe.service");
    assert_eq!((&*place.path, place.systemd_unit), ("/system.slice/\u{fffd}\u{fffd}.service", None));
}

/// What the fuzz target asserts as well.
fn hold(place: &Place) -> bool {
    let plain = |text: &Option<Box<str>>, most: usize| {
        text.as_ref().is_none_or(|t| !t.is_empty() && t.len() <= most && t.bytes().all(|b| matches!(b, b' '..=b'~')))
    };
    plain(&place.container_id, 64)
        && plain(&place.pod_uid, 36)
        && plain(&place.systemd_unit, MAX_UNIT)
        && place.path.len() <= MAX_PATH
        && !place.path.is_empty()
}

proptest! {
    #[test]
    fn any_bytes_are_read_within_the_bounds(path in prop::collection::vec(any::<u8>(), 0..5000)) {
        prop_assert!(hold(&Place::from_path(&path)));
    }

    #[test]
    fn any_mix_of_known_parts_is_read_within_the_bounds(
        parts in prop::collection::vec(prop::sample::select(ROWS), 0..6),
        cut in 0usize..400,
    ) {
        let path: String = parts.iter().map(|row| fill(row.0)).collect();
        let path = path.as_bytes();
        prop_assert!(hold(&Place::from_path(path)));
        prop_assert!(hold(&Place::from_path(&path[..cut.min(path.len())])));
    }

    #[test]
    fn whatever_stands_before_a_containers_part_its_id_is_found(
        before in "(/[a-zA-Z0-9._@-]{1,20}){0,8}",
        id in "[0-9a-f]{64}",
    ) {
        let place = Place::from_path(format!("{before}/docker-{id}.scope").as_bytes());
        prop_assert_eq!(place.container_id.as_deref(), Some(&*id));
        prop_assert_eq!(place.systemd_unit, None);
    }
}
