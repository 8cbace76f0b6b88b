//! From the end of a handshake to its line on standard output, at a low rate.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    flowtel::{Flowtel, Output},
    numbers::{pause, quantile},
};

/// Between two connections: no multiple of the tick, so that each meets another phase of it.
const BETWEEN: Duration = Duration::from_micros(23_700);

/// Makes connections over loopback one after the other, and returns a sentence.
pub fn measure(binary: &Path, connections: usize) -> Result<String> {
    let mut flowtel = Flowtel::start(binary, &Output::Pipe)?;
    let mut stdout = BufReader::new(flowtel.stdout()?);
    let (lines, arrived) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut line = String::new();
        // Read first, understood later: only the time counts here.
        while stdout.read_line(&mut line).is_ok_and(|n| n > 0) {
            if lines.send((Instant::now(), std::mem::take(&mut line))).is_err() {
                return;
            }
        }
    });
    pause(Duration::from_secs(1));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = listener.local_addr()?;
    let mut established = HashMap::new();
    for _ in 0..connections {
        let client = TcpStream::connect(server)?;
        established.insert(client.local_addr()?.port(), Instant::now());
        drop(listener.accept()?);
        pause(BETWEEN);
    }
    pause(Duration::from_secs(1));
    flowtel.stop()?;
    let _ = reader.join();
    let mut delays = Vec::new();
    for (when, line) in arrived {
        let request: Value = serde_json::from_str(&line).context("a line is no JSON")?;
        for record in records(&request) {
            if attribute(record, "flowtel.flow.direction") == Some("outgoing")
                && attribute(record, "destination.port") == Some(&server.port().to_string())
                && let Some(port) = attribute(record, "source.port").and_then(|p| p.parse().ok())
                && let Some(made) = established.remove(&port)
            {
                delays.push(when.saturating_duration_since(made).as_secs_f64() * 1000.0);
            }
        }
    }
    Ok(format!(
        "{} of {connections} connections on stdout; from handshake to line: median {:.0} ms, p99 {:.0} ms, most {:.0} ms",
        delays.len(),
        quantile(delays.iter().copied(), 0.5),
        quantile(delays.iter().copied(), 0.99),
        quantile(delays.iter().copied(), 1.0),
    ))
}

fn records(request: &Value) -> impl Iterator<Item = &Value> {
    request["resourceLogs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|r| r["scopeLogs"].as_array())
        .flatten()
        .filter_map(|s| s["logRecords"].as_array())
        .flatten()
}

fn attribute<'a>(record: &'a Value, key: &str) -> Option<&'a str> {
    let found = record["attributes"].as_array()?.iter().find(|a| a["key"] == key)?;
    found["value"]["stringValue"].as_str().or_else(|| found["value"]["intValue"].as_str())
}
