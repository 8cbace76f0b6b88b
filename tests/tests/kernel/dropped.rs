//! What flowtel can't do any more once it has started: each thread of both processes is looked at, and calls that must fail are
//! made in their names. What it is there for goes on afterwards.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    collector::{
        Collector,
        Protocol::{self, Grpc},
    },
    flowtel::{Flowtel, Launch, user},
    inject::{Argument, Stopped},
    netns::Pair,
    scene::{Scenario, Scene, skip},
    status::ask,
    traffic::{Server, burst},
    wait::{pause, until},
};
use rustix::process::Signal;

use crate::queue::Mounted;

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new("rights: no thread has any, forty calls are refused, and all goes on", 120, dropped),
    Scenario::new("rights: a queue and pins of root's are taken over by the user, and back", 120, handed_over),
    Scenario::new("rights: where the user can't go to its queue, flowtel stays root without rights", 60, stays),
    Scenario::new("rights: without its helper flowtel goes on", 60, helpless),
    Scenario::new("rights: as in a container, root with the table's capabilities alone, twice", 120, contained),
    Scenario::new("rights: as a service, another user with ambient capabilities, twice", 120, served),
];

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The kernel's version: what a process keeps depends on it.
fn kernel_is_at_least(wanted: (u32, u32)) -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) >= wanted
}

fn has_landlock() -> bool {
    // LANDLOCK_CREATE_RULESET_VERSION: it asks for the version, and makes nothing.
    // SAFETY: no pointer is read with this flag.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, 1) > 0 }
}

/// The helper of a flowtel: its child.
fn helper(flowtel: &Flowtel) -> Result<u32> {
    let pid = flowtel.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let child = children.split_whitespace().next().context("it has no child")?.parse()?;
    let name = fs::read_to_string(format!("/proc/{child}/comm"))?;
    ensure!(name.trim() == "flowtel-helper", "its child is {name}");
    Ok(child)
}

/// Checks each thread of a process: user, capabilities, what it can't gain. Returns how many there are.
pub(crate) fn bare(pid: u32, uid: u32, capabilities: u64) -> Result<usize> {
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
            line.with_context(|| format!("no {key}: {status}"))
        };
        let set = |key| Ok::<_, anyhow::Error>(u64::from_str_radix(value(key)?, 16)?);
        ensure!(value("Uid")? == [uid; 4].map(|id| id.to_string()).join("\t"), "{status}");
        ensure!(value("Groups")?.trim().is_empty() || uid == 0, "{status}");
        for key in ["CapPrm", "CapEff"] {
            ensure!(set(key)? == capabilities, "{key}: {status}");
        }
        for key in ["CapInh", "CapAmb", "CapBnd"] {
            ensure!(set(key)? == 0, "{key}: {status}");
        }
        ensure!(value("NoNewPrivs")? == "1" && value("Seccomp")? == "2", "{status}");
        threads += 1;
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).context("a limit")?;
    ensure!(core.split_whitespace().filter(|word| *word == "0").count() == 2, "{core}");
    // What is not dumpable belongs to root in /proc.
    ensure!(fs::metadata(format!("/proc/{pid}/environ"))?.uid() == 0, "it can be dumped");
    Ok(threads)
}

pub(crate) fn kept_by_main() -> u64 {
    // CAP_BPF, without which older kernels let nobody look into a map.
    if kernel_is_at_least((5, 19)) { 0 } else { 1 << 39 }
}

/// CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE.
const KEPT_BY_HELPER: u64 = 1 << 2 | 1 << 19;

type Call = (&'static str, libc::c_long, Vec<Argument>, i32);

fn call<const N: usize>(name: &'static str, number: libc::c_long, arguments: [Argument; N], errno: i32) -> Call {
    (name, number, arguments.to_vec(), errno)
}

macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { [$(Argument::from($argument)),*] };
}

/// What neither process may do, whatever its arguments.
fn forbidden_to_both() -> Vec<Call> {
    use libc::{EPERM, SYS_bpf as BPF};
    vec![
        call("a BPF map", BPF, arguments![0, 0, 0], EPERM),
        call("a BPF program", BPF, arguments![5, 0, 0], EPERM),
        call("a pin", BPF, arguments![6, 0, 0], EPERM),
        call("an object that is pinned", BPF, arguments![7, 0, 0], EPERM),
        call("a list of programs", BPF, arguments![16, 0, 0], EPERM),
        call("a BPF link", BPF, arguments![28, 0, 0], EPERM),
        call("a link's other program", BPF, arguments![29, 0, 0], EPERM),
        call("ptrace", libc::SYS_ptrace, arguments![16, 1, 0, 0], EPERM),
        call("another user", libc::SYS_setresuid, arguments![0, 0, 0], EPERM),
        call("another group", libc::SYS_setresgid, arguments![0, 0, 0], EPERM),
        call("other groups", libc::SYS_setgroups, arguments![0, 0], EPERM),
        call("capabilities", libc::SYS_capset, arguments![0, 0], EPERM),
        call("a packet socket", libc::SYS_socket, arguments![libc::AF_PACKET, libc::SOCK_RAW, 0], EPERM),
        call("a raw socket", libc::SYS_socket, arguments![libc::AF_INET, libc::SOCK_RAW, 6], EPERM),
        call("a socket to the hypervisor", libc::SYS_socket, arguments![libc::AF_VSOCK, libc::SOCK_STREAM, 0], EPERM),
        call("another netlink family", libc::SYS_socket, arguments![libc::AF_NETLINK, libc::SOCK_RAW, 15], EPERM),
        call("a mount", libc::SYS_mount, arguments!["none", "/mnt", "tmpfs", 0, 0], EPERM),
        call("an unmount", libc::SYS_umount2, arguments!["/proc", 2], EPERM),
        call("a user namespace", libc::SYS_unshare, arguments![libc::CLONE_NEWUSER], EPERM),
        call("another's namespace", libc::SYS_setns, arguments![0, 0], EPERM),
        call("another root", libc::SYS_chroot, arguments!["/tmp"], EPERM),
        call("a program", libc::SYS_execve, arguments!["/bin/sh", 0, 0], EPERM),
        call("a process", libc::SYS_clone, arguments![libc::SIGCHLD, 0, 0, 0, 0], EPERM),
        call("a process the old way", libc::SYS_fork, arguments![], EPERM),
        call("a signal", libc::SYS_kill, arguments![1, 0], EPERM),
        call("another's memory", libc::SYS_process_vm_writev, arguments![1, 0, 0, 0, 0, 0], EPERM),
        call("a descriptor of a process", libc::SYS_pidfd_open, arguments![1, 0], EPERM),
        call("a performance event", libc::SYS_perf_event_open, arguments![0, 0, -1, -1, 0], EPERM),
        call("a file of memory", libc::SYS_memfd_create, arguments!["x", 0], EPERM),
        call("a kernel module", libc::SYS_init_module, arguments![0, 0, ""], EPERM),
        call("a ring of system calls", libc::SYS_io_uring_setup, arguments![8, 0], EPERM),
        call("a key", libc::SYS_keyctl, arguments![0, -3, 0], EPERM),
        call("page faults of its own", libc::SYS_userfaultfd, arguments![0], EPERM),
        call("a symbolic link", libc::SYS_symlink, arguments!["/etc/shadow", "/tmp/x"], EPERM),
        call("memory that becomes code", libc::SYS_mmap, arguments![0, 4096, 7, 0x22, -1, 0], EPERM),
        call("code that was data", libc::SYS_mprotect, arguments![0, 4096, 5], EPERM),
        call("a core file", libc::SYS_prctl, arguments![libc::PR_SET_DUMPABLE, 1], EPERM),
    ]
}

/// Has a process make each call, and compares the answers.
fn refused(pid: u32, calls: Vec<Call>) -> Result<()> {
    let mut stopped = Stopped::stop(pid)?;
    let mut wrong = Vec::new();
    for (name, number, arguments, errno) in calls {
        let answer = stopped.call(number, &arguments).with_context(|| name)?;
        if answer != -i64::from(errno) {
            wrong.push(format!("{name}: {answer} instead of -{errno}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// Two namespaces, a collector, and directories for flowtel.
pub(crate) struct Stage {
    pub(crate) net: Pair,
    pub(crate) collector: Collector,
    directory: PathBuf,
    pins: Option<Mounted>,
}

impl Stage {
    pub(crate) fn new(scene: &Scene) -> Result<Self> {
        Self::with(scene, Collector::start(scene)?)
    }

    pub(crate) fn with(scene: &Scene, collector: Collector) -> Result<Self> {
        let pins = Mounted::new("bpf", scene.directory().join("bpf"), "").ok();
        // The modes above let the user go through, as in /var/lib.
        if let Some(pins) = &pins {
            fs::set_permissions(&pins.0, fs::Permissions::from_mode(0o755))?;
        }
        let directory = scene.directory().to_owned();
        Ok(Self { net: Pair::new(scene)?, collector, directory, pins })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("run/status.sock")
    }

    fn queue(&self) -> PathBuf {
        self.directory.join("state/queue")
    }

    fn launch(&self) -> Result<Launch> {
        self.launch_by(Grpc)
    }

    pub(crate) fn launch_by(&self, protocol: Protocol) -> Result<Launch> {
        // What others do on this host is not what is asked about here.
        let launch = self.collector.receive_from(Launch::everything()?, protocol);
        let launch = launch.argument("--include").argument(&format!("destination={}", self.net.server_v4));
        let text = |path: PathBuf| path.display().to_string();
        let launch = launch
            .set("telemetry.status.socket", &text(self.socket()))
            .set("queue.kind", "disk")
            .set("queue.path", &text(self.queue()));
        Ok(match &self.pins {
            Some(pins) => launch.set("capture.pin", &text(pins.0.join("flowtel"))),
            None => launch,
        })
    }

    /// Connections, and whether their records came: `all` so far.
    pub(crate) fn delivers(&self, all: usize) -> Result<()> {
        self.comes(all).with_context(|| format!("{all} begins are not there"))
    }

    fn comes(&self, all: usize) -> Result<()> {
        let server = Server::start(&self.net.server, (self.net.server_v4, 0))?;
        burst(&self.net.client, server.address, 2, 10)?;
        until("the records of twenty connections", PATIENCE, || Ok((self.begins()? >= all).then_some(())))
    }

    /// How many begins came.
    pub(crate) fn begins(&self) -> Result<usize> {
        let records = self.collector.records()?;
        Ok(records.iter().filter(|r| r.event_name == "flowtel.tcp.flow.begin").count())
    }
}

pub(crate) fn owner(path: &Path) -> Result<u32> {
    Ok(fs::symlink_metadata(path).with_context(|| path.display().to_string())?.uid())
}

fn dropped(scene: &Scene) -> Result<()> {
    let stage = Stage::new(scene)?;
    let outside = scene.directory().join("outside");
    fs::create_dir(&outside)?;
    let file = outside.join("file");
    fs::write(&file, "precious")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666))?;
    let path: &'static str = Box::leak(file.display().to_string().into_boxed_str());
    let flowtel = stage.launch()?.start(scene)?;
    let helper = helper(&flowtel)?;
    until("the status socket", PATIENCE, || Ok(ask(&stage.socket()).ok()))?;
    stage.delivers(40)?;
    // Under load, and with all threads that there are.
    let threads = bare(flowtel.pid(), user(), kept_by_main())?;
    ensure!(threads >= 3, "{threads} threads are not all of it");
    ensure!(bare(helper, user(), KEPT_BY_HELPER)? == 1, "the helper has more than one thread");

    let mut main = forbidden_to_both();
    main.push(call("clone3", libc::SYS_clone3, arguments![0, 0], libc::ENOSYS));
    main.push(call("a cgroup by its number", libc::SYS_open_by_handle_at, arguments![0, 0, 0], libc::EPERM));
    let open = |name, path, flags: i32, errno| {
        call(name, libc::SYS_openat, arguments![libc::AT_FDCWD, path, flags, 0o600], errno)
    };
    main.push(open("init's memory", "/proc/1/mem", libc::O_RDWR, libc::EACCES));
    main.push(open("a setting of the kernel", "/proc/sys/kernel/core_pattern", libc::O_WRONLY, libc::EACCES));
    main.push(open("a new file in /etc", "/etc/flowtel-was-here", libc::O_CREAT | libc::O_WRONLY, libc::EACCES));
    main.push(open("another user's environment", "/proc/1/environ", libc::O_RDONLY, libc::EACCES));
    if has_landlock() {
        main.push(open("a file outside", path, libc::O_RDONLY, libc::EACCES));
        main.push(open("a file outside, to write", path, libc::O_WRONLY, libc::EACCES));
    }
    ensure!(main.len() >= 40, "{} calls are fewer than were promised", main.len());
    let named = main.len();
    refused(flowtel.pid(), main)?;

    let mut its = forbidden_to_both();
    its.push(call("a socket", libc::SYS_socket, arguments![libc::AF_INET, libc::SOCK_STREAM, 0], libc::EPERM));
    its.push(call(
        "a socket of this host",
        libc::SYS_socket,
        arguments![libc::AF_UNIX, libc::SOCK_STREAM, 0],
        libc::EPERM,
    ));
    its.push(call("writing to another descriptor", libc::SYS_write, arguments![4, path, 1], libc::EPERM));
    its.push(call("sending elsewhere", libc::SYS_sendto, arguments![4, path, 1, 0, 0, 0], libc::EPERM));
    its.push(call("a handle of another mount", libc::SYS_open_by_handle_at, arguments![4, 0, 0], libc::EPERM));
    for (name, flags) in [
        ("writing", libc::O_WRONLY),
        ("both", libc::O_RDWR),
        ("making", libc::O_CREAT | libc::O_RDONLY),
        ("cutting", libc::O_TRUNC),
        ("reading anywhere", libc::O_RDONLY),
    ] {
        its.push(call(name, libc::SYS_openat, arguments![libc::AT_FDCWD, path, flags, 0], libc::EPERM));
    }
    its.push(call("a process's memory", libc::SYS_openat, arguments![4, "1/mem", libc::O_RDWR, 0], libc::EPERM));
    refused(helper, its)?;
    ensure!(fs::read_to_string(&file)? == "precious", "the file was written to");

    // And all goes on.
    stage.delivers(80)?;
    flowtel.signal(Signal::HUP)?;
    let status = until("a reload", PATIENCE, || {
        let status = ask(&stage.socket())?;
        Ok((status["configuration"]["reloads"] == 1).then_some(status))
    })?;
    ensure!(status["rights"]["refused_calls"].as_u64() >= Some(named as u64 - 10), "{status}");
    ensure!(status["rights"]["main"]["users"] == serde_json::json!([user()]), "{status}");
    ensure!(status["rights"]["helper"][0] == helper, "{status}");
    let refusals = |flowtel: &Flowtel| -> Vec<String> {
        let text = flowtel.stderr();
        let lists = text.lines().filter_map(|line| line.split_once("calls=\"")?.1.split_once('"'));
        lists.flat_map(|(list, _)| list.split(' ')).map(str::to_owned).collect()
    };
    until("names of what was refused", PATIENCE, || {
        let names = refusals(&flowtel);
        Ok(["ptrace", "bpf", "execve", "socket"].iter().all(|name| names.iter().any(|n| n == name)).then_some(()))
    })?;
    let names = refusals(&flowtel);
    ensure!(names.iter().collect::<BTreeSet<_>>().len() == names.len(), "some are named twice: {names:?}");
    // An executable of another user, of a process that is older than flowtel: this test.
    let text: BTreeSet<_> = stage
        .collector
        .records()?
        .iter()
        .filter(|record| record.event_name == "flowtel.tcp.flow.begin")
        .map(|record| record.text("process.executable.name").to_owned())
        .collect();
    ensure!(text.iter().any(|name| name.starts_with("kernel")), "no executable of this test: {text:?}");
    let socket = stage.socket();
    let balance = flowtel.stop()?.balance()?;
    ensure!(balance.records.part("delivered") >= 80, "{}", balance.records);
    ensure!(!socket.exists(), "the socket is left behind");
    until("the helper's end", PATIENCE, || Ok((!Path::new(&format!("/proc/{helper}")).exists()).then_some(())))
}

fn handed_over(scene: &Scene) -> Result<()> {
    let stage = Stage::new(scene)?;
    let pins = stage
        .pins
        .as_ref()
        .map(|pins| pins.0.join("flowtel"))
        .ok_or_else(|| skip("no BPF file system can be mounted"))?;
    let queue = stage.queue();
    // As the version before ran: root all the time.
    let root = stage.launch()?.set("security.drop", "false").start(scene)?;
    stage.delivers(40)?;
    root.stop()?.balance()?;
    ensure!((owner(&pins)?, owner(&queue)?) == (0, 0), "root's are root's");
    for round in 2..4 {
        let flowtel = stage.launch()?.start(scene)?;
        until("what is taken over", PATIENCE, || Ok(flowtel.says("reading on where process").then_some(())))?;
        ensure!((owner(&pins)?, owner(&queue)?) == (user(), user()), "they are the user's now");
        let files = fs::read_dir(&queue)?.map(|file| owner(&file?.path())).collect::<Result<BTreeSet<_>>>()?;
        ensure!(files == BTreeSet::from([user()]), "a file of the queue is still {files:?}'s");
        stage.delivers(40 * round)?;
        flowtel.stop()?.balance()?;
    }
    // And back, without the right to go where it may not.
    let words = ["/bin/sh", "-c", "exec \"$0\" \"$@\" --set security.drop=false"];
    let root = stage.launch()?.through(&words).start(scene)?;
    ensure!((owner(&pins)?, owner(&queue)?) == (0, 0), "they are root's again");
    stage.delivers(160)?;
    root.stop()?.balance()?;
    Ok(())
}

fn stays(scene: &Scene) -> Result<()> {
    let shut = scene.directory().join("shut");
    fs::create_dir(&shut)?;
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700))?;
    let launch = Launch::new()?.set("queue.kind", "disk").set("queue.path", &shut.join("queue").display().to_string());
    let flowtel = launch.start(scene)?;
    until("its word", PATIENCE, || Ok(flowtel.says("flowtel stays user 0, without any capability").then_some(())))?;
    until("its rights to be gone", PATIENCE, || Ok(bare(flowtel.pid(), 0, kept_by_main()).ok()))?;
    flowtel.stop()?.balance()?;
    // Who was chosen, and can't go there, is an error.
    let launch = Launch::new()?.set("queue.kind", "disk").set("queue.path", &shut.join("queue").display().to_string());
    let ended = launch.set("security.user", &user().to_string()).to_end(scene)?;
    ensure!(
        ended.status.code() == Some(78) && ended.stderr.contains("security.user"),
        "{}: {}",
        ended.status,
        ended.stderr
    );
    let ended = Launch::new()?.set("security.user", "no-such-user").to_end(scene)?;
    ensure!(
        ended.status.code() == Some(78) && ended.stderr.contains("no-such-user"),
        "{}: {}",
        ended.status,
        ended.stderr
    );
    Ok(())
}

fn helpless(scene: &Scene) -> Result<()> {
    let stage = Stage::new(scene)?;
    let flowtel = stage.launch()?.start(scene)?;
    let helper = helper(&flowtel)?;
    stage.delivers(40)?;
    let pid = i32::try_from(helper).ok().and_then(rustix::process::Pid::from_raw).context("a process id")?;
    rustix::process::kill_process(pid, Signal::KILL)?;
    pause(Duration::from_millis(100));
    stage.delivers(80)?;
    until("that it is gone", PATIENCE, || Ok(flowtel.says("the helper process is gone").then_some(())))?;
    flowtel.stop()?.balance()?;
    // And with none from the start.
    let flowtel = stage.launch()?.set("security.helper", "false").start(scene)?;
    stage.delivers(120)?;
    ensure!(self::helper(&flowtel).is_err(), "there is a helper that nobody wants");
    flowtel.stop()?.balance().map(drop)
}

/// The capabilities of a line of the compose file or the unit, as setpriv(1) wants them.
fn named(text: &str, start: &str, end: &str) -> Result<String> {
    let line =
        text.lines().find_map(|line| line.trim().strip_prefix(start)?.strip_suffix(end)).context("no such line")?;
    let names = line.split([' ', ',']).filter(|name| !name.is_empty());
    let names: Vec<_> = names.map(|name| format!("+{}", name.trim_start_matches("CAP_").to_lowercase())).collect();
    Ok(format!("-all,{}", names.join(",")))
}

fn setpriv() -> Result<&'static str> {
    let places = ["/usr/bin/setpriv", "/bin/setpriv"];
    places.into_iter().find(|path| Path::new(path).exists()).ok_or_else(|| skip("setpriv (util-linux) is not here"))
}

fn contained(scene: &Scene) -> Result<()> {
    let capabilities = named(include_str!("../../../docker-compose.yml"), "cap_add: [", "]")?;
    let (inherited, bounding) = (format!("--inh-caps={capabilities}"), format!("--bounding-set={capabilities}"));
    let words = [setpriv()?, "--no-new-privs", &inherited, &bounding];
    let stage = Stage::new(scene)?;
    for round in 1..3 {
        let flowtel = stage.launch()?.through(&words).start(scene)?;
        stage.delivers(40 * round)?;
        bare(flowtel.pid(), user(), kept_by_main())?;
        bare(helper(&flowtel)?, user(), KEPT_BY_HELPER)?;
        ensure!(owner(&stage.queue())? == user(), "the queue is the user's");
        flowtel.stop()?.balance()?;
    }
    Ok(())
}

fn served(scene: &Scene) -> Result<()> {
    let capabilities = named(include_str!("../../../config/flowtel.service"), "AmbientCapabilities=", "")?;
    let given = ["--inh-caps", "--ambient-caps", "--bounding-set"].map(|key| format!("{key}={capabilities}"));
    let id = user();
    let (uid, gid) = (format!("--reuid={id}"), format!("--regid={id}"));
    let stage = Stage::new(scene)?;
    // As StateDirectory=, RuntimeDirectory= and the unit's first command make them.
    let pins = stage.pins.as_ref().map(|pins| pins.0.join("flowtel"));
    for directory in
        [Some(stage.directory.join("state")), Some(stage.directory.join("run")), pins].into_iter().flatten()
    {
        fs::create_dir(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        chown(&directory, Some(id), Some(id))?;
    }
    // Where everybody may run it.
    let program = scene.directory().join("flowtel");
    fs::copy(stage.launch()?.program(), &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let words = [setpriv()?, &uid, &gid, "--clear-groups", "--no-new-privs", &given[0], &given[1], &given[2]];
    let words: Vec<_> = words
        .into_iter()
        .chain(["/bin/sh", "-c", "shift; exec \"$0\" \"$@\"", program.to_str().context("a path")?])
        .collect();
    for round in 1..3 {
        let flowtel = stage.launch()?.through(&words).start(scene)?;
        stage.delivers(40 * round)?;
        for (pid, kept) in [(flowtel.pid(), kept_by_main()), (helper(&flowtel)?, KEPT_BY_HELPER)] {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            for key in ["CapPrm", "CapEff"] {
                ensure!(status.contains(&format!("{key}:\t{kept:016x}")), "{key}: {status}");
            }
            ensure!(status.contains("CapAmb:\t0000000000000000") && status.contains("Seccomp:\t2"), "{status}");
        }
        flowtel.stop()?.balance()?;
    }
    Ok(())
}
