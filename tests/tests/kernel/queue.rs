//! The queue on disk: a restart goes on, a killed flowtel loses nothing that was durable, a full disk stops nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    collector::{Collector, Protocol::Grpc},
    expect::{About, Side, exactly},
    flowtel::{Ended, Launch},
    netns::{Pair, joined},
    record::{Record, decode_lines},
    scene::{Scenario, Scene},
    traffic::{Connection, Server, burst},
    wait::{pause, until},
    watching::Told,
};
use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::{Pid, Signal, kill_process},
};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "without a collector a restart goes on with the queue on disk, and all is delivered once",
        90,
        restart,
    ),
    Scenario::new("a second flowtel on a queue's directory is refused and told who has it", 60, second),
    Scenario::new("killed ten times under load: what was durable arrives, and only copies come twice", 180, killed),
    Scenario::new("a disk that is full stops nothing: losses are named, and it goes on when there is room", 120, full),
];

/// With its queue in this directory, on disk soon, and retries that cost seconds only.
pub fn on_disk(directory: &Path) -> Result<Launch> {
    Ok(Launch::new()?
        .set("queue.kind", "disk")
        .set("queue.path", &directory.to_string_lossy())
        .set("queue.sync_interval", "20ms")
        .set("export.batch.max_age", "50ms")
        .set("export.retry.initial", "100ms")
        .set("export.retry.max", "500ms"))
}

/// Connections, and what they are known by: another run of these tests may have the same addresses in namespaces of its
/// own, but hardly the same port.
fn connected(net: &Pair, n: usize) -> Result<(Vec<Connection>, SocketAddr)> {
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    Ok((burst(&net.client, server.address, 1, n)?, server.address))
}

/// `flowtel queue`, which must end with one of these codes.
fn ask(scene: &Scene, words: &[&str], directory: &Path, codes: &[i32]) -> Result<Ended> {
    let mut launch = Launch::bare()?.command("queue");
    for word in words {
        launch = launch.argument(word);
    }
    let ended = launch.argument(&directory.to_string_lossy()).to_end(scene)?;
    let right = ended.status.code().is_some_and(|code| codes.contains(&code));
    ensure!(right, "queue {words:?} ended with {}: {}", ended.status, ended.stderr);
    Ok(ended)
}

/// All records that wait in a queue's directory. A killed flowtel may have left half a batch, of which the command says
/// that it is damaged.
pub fn waiting(scene: &Scene, directory: &Path) -> Result<Vec<Record>> {
    let ended = ask(scene, &["export"], directory, &[0, 1])?;
    decode_lines(ended.stdout.iter().map(|line| line.text.as_str()))
}

fn uid(record: &Record) -> String {
    record.text("log.record.uid").to_owned()
}

fn restart(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let directory = scene.directory().join("queue");
    let mut collector = Collector::prepare(scene)?;
    let launch = || Ok::<_, anyhow::Error>(collector.receive_from(on_disk(&directory)?, Grpc));
    let flowtel = launch()?.set("export.grace", "300ms").start(scene)?;
    let (mut connections, first) = connected(&net, 20)?;
    let ended = flowtel.stop()?;
    let balance = ended.balance()?;
    let queued = balance.records.part("queued for the next run");
    ensure!(queued == balance.records.total && queued >= 40, "not all is queued: {}", balance.records);

    let there = waiting(scene, &directory)?;
    exactly(&there, &About::Endpoints(vec![first]), &Side::all(&connections))?;
    let verdict = ask(scene, &["verify"], &directory, &[0])?;
    ensure!(verdict.stdout.iter().any(|line| line.text.starts_with("sound")), "{:?}", verdict.stdout);
    let table = ask(scene, &["inspect"], &directory, &[0])?;
    ensure!(table.stdout.iter().any(|line| line.text.contains(&format!(" {queued} "))), "{:?}", table.stdout);

    // Nothing happens in between: what is delivered now is what was queued, and what comes anew.
    let next = launch()?;
    collector.run()?;
    let flowtel = next.start(scene)?;
    let (more, then) = connected(&net, 5)?;
    connections.extend(more);
    let balance = flowtel.stop()?.lossless()?;
    ensure!(balance.records.carried == queued, "{queued} were queued, but: {}", balance.records);
    collector.stop()?;
    let told = Told { records: collector.records()?, balance }.checked()?;
    exactly(&told.records, &About::Endpoints(vec![first, then]), &Side::all(&connections))?;
    ensure!(waiting(scene, &directory)?.is_empty(), "something is left in the queue");
    Ok(())
}

fn second(scene: &Scene) -> Result<()> {
    let directory = scene.directory().join("queue");
    let first = on_disk(&directory)?.start(scene)?;
    let refused = on_disk(&directory)?.to_end(scene)?;
    ensure!(refused.status.code() == Some(69), "it ended with {}: {}", refused.status, refused.stderr);
    let wanted = format!("in use by process {}", first.pid());
    ensure!(refused.stderr.contains(&wanted), "not said who has it: {}", refused.stderr);
    let told = ask(scene, &["inspect", "--json"], &directory, &[0])?;
    ensure!(told.stderr.contains(&wanted), "not said that it is in use: {}", told.stderr);
    first.stop()?.lossless()?;
    Ok(())
}

const KILLS: u64 = 10;

fn killed(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let directory = scene.directory().join("queue");
    let mut collector = Collector::start(scene)?;
    let signal = |collector: &Collector, signal| -> Result<()> {
        let pid = collector.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        Ok(kill_process(pid.context("the collector runs")?, signal)?)
    };
    let launch = || Ok::<_, anyhow::Error>(collector.receive_from(on_disk(&directory)?, Grpc));
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let (over, made) = (AtomicBool::new(false), std::sync::Mutex::new(Vec::new()));
    let mut durable = BTreeSet::new();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !over.load(Relaxed) {
                let connections = burst(&net.client, server.address, 1, 10)?;
                made.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))?.extend(connections);
                pause(Duration::from_millis(10));
            }
            Ok::<_, anyhow::Error>(())
        });
        let rounds = (0..KILLS).try_for_each(|round| -> Result<()> {
            // A collector that stands still lets the queue grow; one that runs lets batches be in flight.
            let stands = round % 3 != 2;
            let flowtel = launch()?.start(scene)?;
            if stands {
                signal(&collector, Signal::STOP)?;
            }
            // At every phase of a batch and of a commit.
            pause(Duration::from_millis(150 + 83 * round));
            let ended = flowtel.kill();
            if stands {
                signal(&collector, Signal::CONT)?;
            }
            ended?;
            durable.extend(waiting(scene, &directory)?.iter().map(uid));
            Ok(())
        });
        over.store(true, Relaxed);
        joined(load.join())?;
        rounds
    })?;
    ensure!(!durable.is_empty(), "nothing was ever durable: this tests nothing");

    let last = launch()?.start(scene)?;
    until("an empty queue", Duration::from_secs(30), || Ok(waiting(scene, &directory)?.is_empty().then_some(())))?;
    // fsync may take its time on a busy machine.
    last.stop_within(Duration::from_secs(30))?.lossless()?;
    collector.stop()?;

    let mut arrived: BTreeMap<String, Record> = BTreeMap::new();
    let mut copies = 0;
    for record in collector.records()? {
        let uid = uid(&record);
        if let Some(before) = arrived.get(&uid) {
            copies += 1;
            ensure!(*before == record, "two records have one id: {before:#?} {record:#?}");
        } else {
            arrived.insert(uid, record);
        }
    }
    let missing: Vec<_> = durable.iter().filter(|uid| !arrived.contains_key(*uid)).collect();
    ensure!(missing.is_empty(), "{} of {} durable records did not arrive", missing.len(), durable.len());
    // Nothing but what happened, and nothing twice under two ids.
    let made = made.into_inner().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
    let ports: BTreeSet<_> = made.iter().map(|c| (c.client, c.server)).collect();
    // Another run of these tests may have the same addresses in namespaces of its own, but hardly the same port.
    let about = About::Endpoints(vec![server.address]);
    let mut sides = BTreeSet::new();
    for record in arrived.values().filter(|record| about.concerns(record)) {
        let ends = record.source().zip(record.destination()).context("a flow has two ends")?;
        ensure!(ports.contains(&ends), "nobody made {record:#?}");
        let direction = record.text("flowtel.flow.direction").to_owned();
        ensure!(sides.insert((ends, direction)), "told twice, with two ids: {record:#?}");
    }
    eprintln!("{KILLS} kills: {} durable, {} arrived, {copies} copies", durable.len(), arrived.len());
    Ok(())
}

/// What the mounts of these tests are called, before the process's id.
const MOUNTS: &str = "flowtel-test-";

/// Unmounts what killed runs left behind.
pub fn sweep() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for (name, at) in mounts.lines().filter_map(|line| line.split_once(' ')) {
        let gone = |pid: u32| !Path::new(&format!("/proc/{pid}")).exists();
        if name.strip_prefix(MOUNTS).is_some_and(|pid| pid.parse().is_ok_and(gone)) {
            // Somebody else may have been quicker.
            let _ = unmount(at.split(' ').next().unwrap_or_default(), UnmountFlags::DETACH);
        }
    }
}

/// A file system of its own.
pub struct Mounted(pub PathBuf);

impl Mounted {
    /// Mounts one of this kind there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(kind: &str, at: PathBuf, options: &str) -> Result<Self> {
        fs::create_dir_all(&at)?;
        let options = std::ffi::CString::new(options)?;
        let name = format!("{MOUNTS}{}", std::process::id());
        mount(&name, &at, kind, MountFlags::NOSUID | MountFlags::NODEV, Some(options.as_c_str()))
            .with_context(|| format!("mounting {kind}"))?;
        Ok(Self(at))
    }

    /// Writes until nothing more fits.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.0.join("filler");
        let mut file = fs::File::create(&path)?;
        while file.write_all(&[0; 4096]).is_ok() {}
        Ok(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whoever still has a file open keeps it until he ends; the name is free at once.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn full(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let disk = Mounted::new("tmpfs", scene.directory().join("disk"), "size=64m")?;
    let directory = disk.0.join("queue");
    let mut collector = Collector::prepare(scene)?;
    let launch = on_disk(&directory)?
        .set("queue.max_bytes", "256MiB")
        .set("queue.max_memory", "128KiB")
        .set("export.batch.max_bytes", "64KiB");
    let flowtel = collector.receive_from(launch, Grpc).start(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let more = || burst(&net.client, server.address, 2, 100).map(|made| made.len());
    let mut made = more()?;
    until(
        "something durable",
        Duration::from_secs(15),
        || Ok((!waiting(scene, &directory)?.is_empty()).then_some(())),
    )?;
    let filler = disk.fill()?;
    // Twice as much as memory has room for.
    let start = Instant::now();
    while !flowtel.says("takes nothing") || start.elapsed() < Duration::from_secs(1) {
        made += more()?;
        ensure!(start.elapsed() < Duration::from_secs(30), "a full disk is not noticed: {}", flowtel.stderr());
        pause(Duration::from_millis(20));
    }
    let warned = flowtel.stderr().matches("takes nothing").count();
    ensure!(warned == 1, "said {warned} times: {}", flowtel.stderr());
    fs::remove_file(filler)?;
    until("flowtel to go on with the disk", Duration::from_secs(20), || Ok(flowtel.says("works again").then_some(())))?;
    made += more()?;
    collector.run()?;
    let ended = flowtel.stop_within(Duration::from_secs(30))?;
    let balance = ended.balance()?;
    collector.stop()?;
    let (records, lost) = (&balance.records, balance.records.part("dropped (queue full)"));
    ensure!(lost > 0, "memory was never full: this tests nothing");
    // Too much for the memory is pressure: repeats are folded before anything is lost.
    let folded = records.part("folded");
    ensure!(records.part("delivered") + folded + lost == records.total, "wrong accounts: {records}");
    let told = Told { records: collector.records()?, balance: balance.clone() }.checked()?;
    let about = About::Endpoints(vec![server.address]);
    let own = told.records.iter().filter(|record| about.concerns(record)).count();
    let untold = usize::try_from(folded + lost)?;
    ensure!(own + untold >= made * 2, "{made} connections, {own} records, {folded} folded, {lost} lost");
    Ok(())
}
