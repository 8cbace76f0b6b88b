//! Network namespaces: a scene comes in, two namespaces with a wire between them come out, each with an IPv4 and an IPv6
//! address reserved for documentation. They vanish on drop; those of a test process that died are removed by [`sweep`].
//!
//! Which addresses differs from process to process and from scene to scene, so that two runs beside each other are not
//! taken for one another in records of the whole host.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    machine,
    scene::{Belongings, Scene, skip},
};

/// Where iproute2 keeps named namespaces.
const DIRECTORY: &str = "/run/netns";
const PREFIX: &str = "flowtel-test-";
/// The wire's name at both ends.
pub const WIRE: &str = "wire0";

/// A network namespace.
pub struct Namespace {
    name: String,
    file: Arc<File>,
    belongings: Arc<Belongings>,
}

/// Two namespaces and a wire.
pub struct Pair {
    /// Where clients live.
    pub client: Namespace,
    /// Where servers live.
    pub server: Namespace,
    /// The client's addresses.
    pub client_v4: Ipv4Addr,
    /// And IPv6.
    pub client_v6: Ipv6Addr,
    /// The server's addresses.
    pub server_v4: Ipv4Addr,
    /// And IPv6.
    pub server_v6: Ipv6Addr,
    /// Nobody's address, on the wire's server end as far as the client knows.
    pub nobody_there: Ipv4Addr,
    /// Nobody's address, on the wire's client end as far as the server knows.
    pub nobody_here: Ipv4Addr,
    /// A loopback address that nobody else uses; each namespace has it.
    pub loopback: Ipv4Addr,
    /// Addresses of the wire's network that nobody has, for a scenario's own use.
    pub spare: [Ipv4Addr; 2],
    /// Addresses of other networks, to which there is no way.
    pub beyond: [Ipv4Addr; 2],
}

impl Namespace {
    fn new(scene: &Scene, role: &str) -> Result<Self> {
        let name = format!("{PREFIX}{}-{}-{role}", std::process::id(), scene.number);
        ip(&["netns", "add", &name])?;
        scene.belongings().add_namespace(&name);
        let file = File::open(Path::new(DIRECTORY).join(&name)).context("opening the namespace")?;
        let namespace = Self { name, file: Arc::new(file), belongings: scene.belongings() };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Runs `job` inside, on a thread of the given name. Sockets it makes stay in the namespace wherever they go.
    ///
    /// # Errors
    /// The namespace can't be entered, or `job` fails or panics.
    pub fn run<T: Send>(&self, thread: &str, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let entered = thread::Builder::new().name(thread.into()).spawn_scoped(scope, || {
                enter(&self.file)?;
                job()
            })?;
            joined(entered.join())
        })
    }

    /// As [`Self::run`], beside the caller.
    ///
    /// # Errors
    /// No thread can be made; the rest is in what the thread returns.
    pub fn spawn<T: Send + 'static>(
        &self,
        thread: &str,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let file = Arc::clone(&self.file);
        Ok(thread::Builder::new().name(thread.into()).spawn(move || {
            enter(&file)?;
            job()
        })?)
    }

    /// `ip -n NAMESPACE WORDS`.
    ///
    /// # Errors
    /// ip is missing or refuses.
    pub fn ip(&self, words: &str) -> Result<String> {
        let mut arguments = vec!["-n", &self.name];
        arguments.extend(words.split(' '));
        ip(&arguments)
    }

    /// Runs a command inside and waits for it.
    ///
    /// # Errors
    /// Skips the scenario: there is no such command.
    pub fn exec(&self, words: &str) -> Result<()> {
        let program = words.split(' ').next().unwrap_or_default();
        if !machine::has(program) {
            return Err(skip(format!("no {program} here")));
        }
        let mut arguments = vec!["netns", "exec", &self.name];
        arguments.extend(words.split(' '));
        ip(&arguments).map(drop)
    }

    /// Loads nftables rules. Skips the scenario where nft is missing or the kernel has not what the rules need.
    ///
    /// # Errors
    /// To skip the scenario.
    pub fn nft(&self, rules: &str) -> Result<()> {
        let mut lines = String::new();
        for rule in rules.lines().map(str::trim).filter(|r| !r.is_empty()) {
            lines.push_str(rule);
            lines.push('\n');
        }
        let directory = tempfile::NamedTempFile::new()?;
        fs::write(directory.path(), lines)?;
        let output = Command::new("ip")
            .args(["netns", "exec", &self.name, "nft", "-f"])
            .arg(directory.path())
            .stdin(Stdio::null())
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(skip(format!("nftables rules can't be loaded here: {}", said.lines().next().unwrap_or_default())))
    }

    /// Sets a sysctl of the namespace (`net.ipv4.tcp_syncookies`). Skips the scenario where the kernel has it not.
    ///
    /// # Errors
    /// To skip the scenario, or the kernel refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.run("sysctl", || match fs::write(&path, value) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(skip(format!("this kernel has no {key}"))),
            other => other.with_context(|| format!("setting {key} to {value}")),
        })
    }

    /// The wire's hardware address at this end.
    ///
    /// # Errors
    /// It can't be read.
    pub fn hardware_address(&self) -> Result<String> {
        // ip and not /sys, which shows the namespace of whoever mounted it.
        let line = self.ip(&format!("-o link show {WIRE}"))?;
        let mut words = line.split_whitespace().skip_while(|w| *w != "link/ether").skip(1);
        words.next().map(str::to_owned).ok_or_else(|| anyhow!("no hardware address in {line:?}"))
    }

    /// Says where `address` lives, for good.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn neighbour(&self, address: IpAddr, hardware: &str) -> Result<()> {
        self.ip(&format!("neigh replace {address} lladdr {hardware} dev {WIRE} nud permanent")).map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.belongings.forget_namespace(&self.name);
        delete(&self.name);
    }
}

impl Pair {
    /// Makes both, with addresses and static neighbours: nothing has to be asked for on the wire.
    ///
    /// # Errors
    /// iproute2 is missing or refuses.
    pub fn new(scene: &Scene) -> Result<Self> {
        let (client, server) = (Namespace::new(scene, "c")?, Namespace::new(scene, "s")?);
        ip(&["link", "add", WIRE, "netns", &client.name, "type", "veth", "peer", "name", WIRE, "netns", &server.name])?;
        let block = std::process::id().wrapping_mul(7).wrapping_add(scene.number) % 40;
        let v4 = |n: u32| Ipv4Addr::new(192, 0, 2, u8::try_from(10 + 6 * block + n).unwrap_or(u8::MAX));
        // Process ids have 22 bits at most.
        let high = u16::try_from(std::process::id() >> 16).unwrap_or_default();
        let low = (std::process::id() & 0xffff) as u16;
        let v6 =
            |n: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, high, low, u16::try_from(scene.number).unwrap_or_default(), n);
        let pair = Self {
            client_v4: v4(0),
            server_v4: v4(1),
            nobody_there: v4(2),
            nobody_here: v4(3),
            spare: [v4(4), v4(5)],
            beyond: [[198, 51, 100], [203, 0, 113]].map(|[a, b, c]| Ipv4Addr::new(a, b, c, v4(0).octets()[3])),
            loopback: Ipv4Addr::new(127, 77, (std::process::id() % 251) as u8, 1 + (scene.number % 250) as u8),
            client_v6: v6(1),
            server_v6: v6(2),
            client,
            server,
        };
        let ends = [(&pair.client, pair.client_v4, pair.client_v6), (&pair.server, pair.server_v4, pair.server_v6)];
        for (namespace, v4, v6) in ends {
            namespace.ip(&format!("link set {WIRE} up"))?;
            namespace.ip(&format!("addr add {v4}/24 dev {WIRE}"))?;
            namespace.ip(&format!("addr add {v6}/64 dev {WIRE} nodad"))?;
        }
        let (here, there) = (pair.client.hardware_address()?, pair.server.hardware_address()?);
        for address in [pair.server_v4.into(), pair.server_v6.into(), pair.nobody_there.into()] {
            pair.client.neighbour(address, &there)?;
        }
        for address in [pair.client_v4.into(), pair.client_v6.into(), pair.nobody_here.into()] {
            pair.server.neighbour(address, &here)?;
        }
        Ok(pair)
    }

    /// Every address that the scenario may use.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let v4 = [self.client_v4, self.server_v4, self.nobody_there, self.nobody_here, self.spare[0], self.spare[1]];
        let others = [self.client_v6.into(), self.server_v6.into(), self.loopback.into()];
        v4.into_iter().chain(self.beyond).map(IpAddr::from).chain(others).collect()
    }
}

/// Removes namespaces that test processes left behind which are no more.
pub fn sweep() {
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return };
    for name in entries.flatten().filter_map(|e| e.file_name().into_string().ok()) {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let pid = rest.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(pid).exists() {
            delete(&name);
        }
    }
}

/// Removes a namespace; one that is gone already is as wanted.
pub(crate) fn delete(name: &str) {
    let _ = ip(&["netns", "del", name]);
}

fn enter(namespace: &File) -> Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).context("entering the namespace")
}

/// What a thread returned; its panic goes on in the caller.
///
/// # Errors
/// The thread's own.
pub fn joined<T>(result: thread::Result<Result<T>>) -> Result<T> {
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn ip(arguments: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output().context("running ip (iproute2)")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
