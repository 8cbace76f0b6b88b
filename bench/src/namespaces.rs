//! Two network namespaces joined by a veth pair, gone again when dropped, or when the process is ended by a signal.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// The client's address (RFC 2544's network for benchmarks).
pub const CLIENT: &str = "198.18.0.1";
/// The server's.
pub const SERVER: &str = "198.18.0.2";

/// The two namespaces.
#[derive(Debug)]
pub struct Namespaces {
    pub client: String,
    pub server: String,
}

// === impl Namespaces

impl Namespaces {
    /// Makes them. Fresh ones for each run: no connection of an earlier run is in TIME_WAIT there.
    pub fn new() -> Result<Self> {
        let [client, server] = names();
        let made = Self { client, server };
        let (client, server) = (made.client.as_str(), made.server.as_str());
        ip(&["netns", "add", client])?;
        ip(&["netns", "add", server])?;
        ip(&["link", "add", "v0", "netns", client, "type", "veth", "peer", "name", "v0", "netns", server])?;
        for (name, address) in [(client, CLIENT), (server, SERVER)] {
            ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", "v0"])?;
            ip(&["-n", name, "link", "set", "v0", "up"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            // Every connection gets a tuple of its own: none is reused out of TIME_WAIT, and none has to be.
            for (key, value) in
                [("tcp_tw_reuse", "0"), ("tcp_max_tw_buckets", "262144"), ("ip_local_port_range", "1025 65000")]
            {
                let path = format!("/proc/sys/net/ipv4/{key}");
                ip(&["netns", "exec", name, "sh", "-c", &format!("echo {value} > {path}")])?;
            }
        }
        Ok(made)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        remove_all();
    }
}

/// Of this process: it has two at a time.
fn names() -> [String; 2] {
    let pid = std::process::id();
    ["c", "s"].map(|end| format!("flowtel-bench-{pid}-{end}"))
}

/// Takes away those that this process made.
pub fn remove_all() {
    for name in names() {
        // Perhaps it was never made. Nothing better can be done here.
        let _ = Command::new("ip").args(["netns", "del", &name]).stderr(Stdio::null()).status();
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
