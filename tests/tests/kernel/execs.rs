//! Which program a process ran, though it lived for milliseconds: by path, descriptor, script and symbolic link, as a copy of
//! another one, in another mount namespace; and when it began, and who made it.
//!
//! The programs are copies of this one, which connect and end (`child`). Where the kernel has no BTF what the caller passed is
//! all that is known once a process is gone; then it must be marked so, or absent.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    child,
    collector::Protocol::Grpc,
    flowtel::Launch,
    netns::{Namespace, Pair},
    record::Record,
    scene::{Scenario, Scene},
    traffic::Server,
    wait::{pause, wall},
    watching::{Told, Watching},
};
use rustix::{
    fs::{MemfdFlags, memfd_create},
    mount::{MountPropagationFlags, mount_bind, mount_change},
    process::{Signal, getpid},
    thread::{UnshareFlags, unshare_unsafe},
};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "three hundred processes that live for milliseconds: each has its path, start and parent",
        120,
        short,
    ),
    Scenario::new("relative, linked and script: the path is that of the file that runs", 60, indirect),
    Scenario::new("a program of memory and one that was removed say so, with device and inode", 60, pathless),
    Scenario::new("a path in another mount namespace says so, with device and inode", 60, elsewhere),
    Scenario::new("a fork without exec runs what its maker runs, though both are gone", 60, copies),
    Scenario::new("owner.exec = false: no program watches starts, and /proc is asked", 60, off),
    Scenario::new("more starts than the ring holds: the loss is told, and no wrong name after it", 90, lost),
    Scenario::new("owner.arguments = first: the first word of the command line, and else no word of it", 60, words),
];

const PATH: &str = "process.executable.path";
const SOURCE: &str = "flowtel.process.executable.source";
const STATE: &str = "flowtel.process.executable.state";

/// Whether this kernel tells which file runs.
fn tells_files() -> bool {
    Path::new("/sys/kernel/btf/vmlinux").exists()
}

/// A copy of this program.
fn copy(directory: &Path, name: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    fs::copy(std::env::current_exe()?, &path)?;
    // As the kernel sees it: the directory for temporary files may be a symbolic link.
    Ok(path.canonicalize()?)
}

/// Runs it to its end as one that connects. Returns its process id.
fn connects(command: &mut Command, to: SocketAddr) -> Result<u32> {
    command.env(child::VARIABLE, format!("connect {to}")).stdout(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
    ensure!(child.wait()?.success(), "{command:?} failed");
    Ok(child.id())
}

/// Has flowtel watch what `happen` does in the client's namespace with the address of a server, and returns what was told of
/// outgoing flows by process id. The directory is the scenario's.
fn watched<T: Send>(
    scene: &Scene,
    launch: Launch,
    happen: impl FnOnce(&Path, SocketAddr) -> Result<T> + Send,
) -> Result<(T, BTreeMap<i64, Record>, Told)> {
    let net = Pair::new(scene)?;
    let watching = Watching::with(scene, Grpc, launch)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let to = server.address;
    let done = in_client(&net.client, || happen(scene.directory(), to))?;
    let told = watching.finish()?;
    Ok((done, outgoing(&told, to), told))
}

fn in_client<T: Send>(client: &Namespace, happen: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    client.run("starter", happen)
}

fn outgoing(told: &Told, to: SocketAddr) -> BTreeMap<i64, Record> {
    let ours = told.records.iter().filter(|r| r.text("flowtel.flow.direction") == "outgoing");
    let ours = ours.filter(|r| r.destination() == Some(to));
    ours.filter_map(|r| Some((r.int("process.pid")?, r.clone()))).collect()
}

fn record_of(records: &BTreeMap<i64, Record>, pid: u32) -> Result<&Record> {
    records.get(&i64::from(pid)).with_context(|| format!("nothing was told of process {pid}"))
}

/// The path is told, and leads to the file. Without BTF: or it is what the caller passed, and says so, or is absent.
fn runs(record: &Record, path: &Path, called: &Path) -> Result<()> {
    let right = if tells_files() {
        record.text(PATH) == path.to_string_lossy() && record.text(SOURCE) == "exec"
    } else {
        match (record.text(SOURCE), record.text(STATE)) {
            ("exec", "called") => record.text(PATH) == called.to_string_lossy(),
            ("proc", _) => record.text(PATH) == path.to_string_lossy(),
            (source, _) => source.is_empty() && record.text(PATH).is_empty(),
        }
    };
    let name = record.text("process.executable.name");
    ensure!(
        right && record.text(PATH).ends_with(name),
        "not {} (called {}): {record:#?}",
        path.display(),
        called.display()
    );
    let shown = if name.is_empty() { record.text("thread.name") } else { name };
    ensure!(record.body.contains(&format!(" {shown}[")), "the body calls it otherwise: {record:#?}");
    Ok(())
}

fn short(scene: &Scene) -> Result<()> {
    const MANY: usize = 300;
    let (started, records, _) = watched(scene, Launch::new()?, |directory, to| {
        let program = copy(directory, "short-lived")?;
        let begun = wall();
        let pids = (0..MANY).map(|_| connects(&mut Command::new(&program), to)).collect::<Result<Vec<_>>>()?;
        Ok((program, pids, begun, wall()))
    })?;
    let (program, pids, begun, over) = started;
    let here = std::env::current_exe()?.canonicalize()?;
    for pid in pids {
        let record = record_of(&records, pid)?;
        runs(record, &program, &program)?;
        ensure!(record.text("process.command").is_empty(), "nobody asked for it: {record:#?}");
        if !tells_files() {
            continue;
        }
        ensure!(record.int("process.parent_pid") == Some(i64::from(getpid().as_raw_nonzero().get())), "{record:#?}");
        let parent = record.text("flowtel.process.parent.executable.path");
        ensure!(parent == here.to_string_lossy(), "the parent runs {parent:?}: {record:#?}");
        let created = record.text("process.creation.time");
        let ms = |wall: u64| wall / 1_000_000;
        let at: jiff::Timestamp = created.parse().with_context(|| format!("no time: {created:?}"))?;
        let at = at.as_millisecond();
        // Each was turned into wall-clock time by its own measurement.
        let range = i64::try_from(ms(begun))? - 5..=i64::try_from(ms(over))? + 5;
        ensure!(range.contains(&at), "{created} is not within {range:?}");
        ensure!(created.len() == "2026-11-21T09:25:34.853Z".len() && created.ends_with('Z'), "{created}");
    }
    Ok(())
}

fn indirect(scene: &Scene) -> Result<()> {
    let (started, records, _) = watched(scene, Launch::new()?, |directory, to| {
        let program = copy(directory, "real")?;
        let link = directory.join("link");
        std::os::unix::fs::symlink(&program, &link)?;
        let script = directory.join("script");
        fs::write(&script, format!("#!{}\n", program.display()))?;
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let within = |called: &str| {
            let mut command = Command::new(called);
            command.current_dir(directory);
            command
        };
        let mut started = Vec::new();
        for called in ["./real", "../", "./link", "./script"] {
            let called = match (called, directory.file_name()) {
                ("../", Some(name)) => format!("../{}/real", name.to_string_lossy()),
                _ => called.to_owned(),
            };
            started.push((connects(&mut within(&called), to)?, called));
        }
        Ok((program, started))
    })?;
    let (program, started) = started;
    started.iter().try_for_each(|(pid, called)| {
        runs(record_of(&records, *pid)?, &program, Path::new(called)).with_context(|| called.clone())
    })
}

/// What numbers the file has, as a record says them.
fn has_numbers(record: &Record, file: &fs::Metadata) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let device = format!("{}:{}", rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let right = record.text("flowtel.process.executable.device") == device
        && record.int("flowtel.process.executable.inode") == Some(i64::try_from(file.ino())?);
    ensure!(right, "not device {device}, inode {}: {record:#?}", file.ino());
    Ok(())
}

fn pathless(scene: &Scene) -> Result<()> {
    let (started, records, _) = watched(scene, Launch::new()?, |directory, to| {
        let memory = fs::File::from(memfd_create("stage two", MemfdFlags::empty())?);
        std::io::copy(&mut fs::File::open(std::env::current_exe()?)?, &mut &memory)?;
        let by_descriptor = |file: &fs::File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        // A file that is open for writing can't be run.
        let readable = fs::File::open(by_descriptor(&memory))?;
        let numbers = readable.metadata()?;
        drop(memory);
        let first = connects(&mut Command::new(by_descriptor(&readable)), to)?;
        let program = copy(directory, "removed")?;
        let file = fs::File::open(&program)?;
        fs::remove_file(&program)?;
        let second = connects(&mut Command::new(by_descriptor(&file)), to)?;
        Ok(((first, numbers), (second, program, file.metadata()?)))
    })?;
    let ((first, memory), (second, program, removed)) = started;
    if !tells_files() {
        return Ok(());
    }
    let record = record_of(&records, first)?;
    ensure!((record.text(PATH), record.text(STATE)) == ("/memfd:stage two", "memfd"), "{record:#?}");
    has_numbers(record, &memory)?;
    let record = record_of(&records, second)?;
    ensure!((record.text(PATH), record.text(STATE)) == (&*program.to_string_lossy(), "deleted"), "{record:#?}");
    has_numbers(record, &removed)
}

fn elsewhere(scene: &Scene) -> Result<()> {
    let (started, records, _) = watched(scene, Launch::new()?, |directory, to| {
        let (inside, place) = (directory.join("inside"), directory.join("place"));
        [&inside, &place].into_iter().try_for_each(fs::create_dir)?;
        let program = copy(&inside, "hidden")?;
        let place = place.canonicalize()?;
        let mut command = Command::new(place.join("hidden"));
        let mounted = place.clone();
        // SAFETY: system calls alone, between fork and exec.
        unsafe {
            command.pre_exec(move || {
                // SAFETY: the child has one thread.
                unshare_unsafe(UnshareFlags::NEWNS)?;
                mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
                mount_bind(&inside, &mounted)?;
                Ok(())
            });
        }
        Ok((connects(&mut command, to)?, place.join("hidden"), program.metadata()?))
    })?;
    let (pid, path, file) = started;
    ensure!(!path.exists(), "the mount is seen here");
    let record = record_of(&records, pid)?;
    if !tells_files() {
        return runs(record, &path, &path);
    }
    let told = (record.text(PATH), record.text(STATE), record.text(SOURCE));
    ensure!(told == (&*path.to_string_lossy(), "other_mount_namespace", "exec"), "{record:#?}");
    has_numbers(record, &file)
}

fn copies(scene: &Scene) -> Result<()> {
    let (program, records, _) = watched(scene, Launch::new()?, |directory, to| {
        let program = copy(directory, "forker")?;
        // It forks processes that connect and end, and is gone itself a moment later.
        let mut command = Command::new(&program);
        command.env(child::VARIABLE, format!("fork {to} 50 1000")).stdout(Stdio::null()).stdin(Stdio::null());
        let mut maker = command.spawn()?;
        pause(Duration::from_millis(500));
        maker.kill()?;
        maker.wait()?;
        Ok((program, maker.id()))
    })?;
    let (program, maker) = program;
    let copies: Vec<_> = records.iter().filter(|(pid, _)| **pid != i64::from(maker)).map(|(_, r)| r).collect();
    ensure!(copies.len() >= 10, "{} copies were told", copies.len());
    copies.iter().try_for_each(|record| runs(record, &program, &program))
}

fn off(scene: &Scene) -> Result<()> {
    let launch = Launch::new()?.set("owner.exec", "false");
    let (_, records, told) = watched(scene, launch, |directory, to| {
        let program = copy(directory, "unseen")?;
        connects(&mut Command::new(&program), to)
    })?;
    for kind in ["exec", "fork"] {
        ensure!(!told.balance.kernel.contains_key(kind), "{kind} was told");
    }
    ensure!(records.values().all(|r| r.text(SOURCE) != "exec"), "{records:#?}");
    Ok(())
}

fn lost(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let launch = Launch::everything()?.set("capture.rings.execs", "64KiB");
    let watching = Watching::with(scene, Grpc, launch)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let to = server.address;
    let (one, two) = (copy(scene.directory(), "one")?, copy(scene.directory(), "two")?);
    let before = in_client(&net.client, || connects(&mut Command::new(&one), to))?;
    pause(Duration::from_millis(200));
    watching.flowtel.signal(Signal::STOP)?;
    for _ in 0..1500 {
        Command::new("/bin/true").status()?;
    }
    watching.flowtel.signal(Signal::CONT)?;
    pause(Duration::from_millis(500));
    let after = in_client(&net.client, || connects(&mut Command::new(&two), to))?;
    let told = watching.finish_with_losses()?;
    let records = outgoing(&told, to);
    runs(record_of(&records, before)?, &one, &one)?;
    runs(record_of(&records, after)?, &two, &two)?;
    let gaps = told.gaps()?;
    ensure!(gaps.contains_key(&("kernel".into(), "execs_ring_full".into())), "the loss is not told: {gaps:?}");
    Ok(())
}

fn words(scene: &Scene) -> Result<()> {
    let launch = Launch::new()?.set("owner.arguments", "first");
    let (pid, records, _) = watched(scene, launch, |directory, to| {
        let program = copy(directory, "worded")?;
        connects(Command::new(&program).arg0("as it likes").arg("--password=secret"), to)
    })?;
    let record = record_of(&records, pid)?;
    ensure!(record.text("process.command") == if tells_files() { "as it likes" } else { "" }, "{record:#?}");
    ensure!(!format!("{record:?}").contains("secret"), "{record:#?}");
    Ok(())
}
