//! `flowtel replay` as a shell sees it: captures in, records, words and exit codes out.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

#[expect(dead_code, reason = "the unit tests use the rest of it")]
#[path = "../src/capture/pcap/sample.rs"]
mod sample;
use sample::*;

const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 17;
const TIME: u64 = 1_795_341_600_000_000_000;

fn end(text: &str) -> SocketAddr {
    text.parse().expect("an endpoint")
}

/// A connection of `port`, 10 bytes there and 20 back, a millisecond from packet to packet.
fn connection(from: u64, port: u16) -> Vec<(u64, Frame)> {
    let (client, server) = (SocketAddr::new(end("10.0.0.1:1").ip(), port), end("192.0.2.7:443"));
    let there = |flags, s: u32, a: u32, bytes: &[u8]| ethernet(&tcp(client, server, flags, (100 + s, a), bytes));
    let back = |flags, s: u32, a: u32, bytes: &[u8]| ethernet(&tcp(server, client, flags, (900 + s, 100 + a), bytes));
    [
        there(SYN, 0, 0, b""),
        back(SYN | ACK, 0, 1, b""),
        there(ACK, 1, 901, b""),
        there(ACK, 1, 901, &[b'x'; 10]),
        back(ACK, 1, 11, &[b'y'; 20]),
        there(FIN, 11, 921, b""),
        back(FIN, 21, 12, b""),
        there(ACK, 12, 922, b""),
    ]
    .into_iter()
    .enumerate()
    .map(|(i, frame)| (from + i as u64 * 1_000_000, frame))
    .collect()
}

/// A query for example.com and its answer, 192.0.2.7.
fn resolved(from: u64) -> Vec<(u64, Frame)> {
    let question = b"\x07example\x03com\0\0\x01\0\x01";
    let query = [&[7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], question].concat();
    let record = [&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4][..], &[192, 0, 2, 7]].concat();
    let answer = [&[7, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0][..], question, &record].concat();
    let (client, server) = (end("10.0.0.1:5353"), end("10.0.0.53:53"));
    vec![(from, ethernet(&udp(client, server, &query))), (from + 1000, ethernet(&udp(server, client, &answer)))]
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> String {
        let path: PathBuf = self.0.path().join(name);
        fs::write(&path, bytes).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    }
}

fn replay(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_flowtel"))
        .arg("replay")
        .args(args)
        .env_clear()
        .env("FLOWTEL_LOG__BALANCE", "true")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // It may have ended before it read all.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    child.wait_with_output().expect("it ends")
}

/// All records: event name, and attributes by name.
fn records(output: &Output) -> Vec<(String, Value)> {
    let text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let records = lines
        .flat_map(|line| line["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().expect("records").clone());
    let told = |record: Value| {
        let attributes = record["attributes"].as_array().expect("attributes").iter();
        let pairs = attributes.map(|a| {
            let value = a["value"].as_object().and_then(|v| v.values().next()).expect("a value").clone();
            (a["key"].as_str().expect("a key").to_owned(), value)
        });
        (record["eventName"].as_str().expect("a name").to_owned(), Value::Object(pairs.collect()))
    };
    records.map(told).collect()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[test]
fn a_capture_becomes_the_records_that_its_host_would_have_made() {
    let files = Files::new();
    let frames = [resolved(TIME), connection(TIME + 5_000_000, 40_000)].concat();
    for file in [files.put("a.pcap", &pcap(&frames, false)), files.put("a.pcapng", &pcapng(&frames))] {
        let output = replay(&[&file, "--local", "10.0.0.0/8"], b"");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let records = records(&output);
        let names: Vec<_> = records.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["flowtel.tcp.flow.begin", "flowtel.tcp.flow.end"]);
        for (_, record) in &records {
            assert_eq!(record["source.address"], "10.0.0.1");
            assert_eq!(record["destination.port"], "443");
            assert_eq!(record["flowtel.flow.direction"], "outgoing");
            assert_eq!(record["flowtel.destination.dns.names"]["values"][0]["stringValue"], "example.com");
            assert_eq!(record["flowtel.destination.dns.state"], "fresh");
            assert!(record.get("flowtel.source.dns.names").is_none() && record.get("process.pid").is_none());
        }
        let end = &records[1].1;
        assert_eq!((&end["flowtel.source.bytes"], &end["flowtel.destination.bytes"]), (&"10".into(), &"20".into()));
        assert_eq!(end["flowtel.flow.end.reason"], "fin");
        let said = stderr(&output);
        assert!(said.contains("packets: 10 read = 8 joined + 2 names"), "{said}");
        assert!(
            said.contains("records: 2 made = 2 delivered\n") && said.contains("replayed 10 packets, 1 flows"),
            "{said}"
        );
    }
}

#[test]
fn a_block_that_nobody_knows_is_named_and_has_an_exit_code_of_its_own_and_the_rest_is_recorded() {
    let files = Files::new();
    let whole = pcapng(&connection(TIME, 40_000));
    let output = replay(&[&files.put("a.pcapng", &[&whole[..], &block(0x0bad, &[1, 2, 3, 4])].concat())], b"");
    assert_eq!(output.status.code(), Some(76), "{}", stderr(&output));
    assert!(stderr(&output).contains("1 block of type 0xbad (a vendor's own)"), "{}", stderr(&output));
    let known = replay(&[&files.put("b.pcapng", &whole)], b"");
    assert_eq!(known.status.code(), Some(0), "{}", stderr(&known));
    assert_eq!(records(&output), records(&known));
    assert_eq!(records(&output).len(), 2);
}

#[test]
fn two_replays_are_the_same_bytes_also_from_standard_input() {
    let files = Files::new();
    let frames: Vec<_> = (0..300).flat_map(|i| connection(TIME + i * 3_000_000, 1000 + i as u16)).collect();
    let bytes = pcap(&frames, false);
    let file = files.put("a.pcap", &bytes);
    let [first, second] = [(); 2].map(|()| replay(&[&file, "--quiet"], b""));
    assert!(!first.stdout.is_empty() && first.stdout == second.stdout);
    assert_eq!(stderr(&first), "");
    let [piped, again] = [(); 2].map(|()| replay(&["-", "-q"], &bytes));
    assert_eq!(piped.stdout, again.stdout);
    assert_eq!(records(&piped), records(&first));
    assert_eq!(records(&first).len(), 600);
}

#[test]
fn captures_in_a_row_are_one() {
    let files = Files::new();
    let frames = connection(TIME, 40_000);
    let parts: Vec<_> =
        frames.chunks(3).enumerate().map(|(i, part)| files.put(&format!("{i}.pcap"), &pcap(part, i == 1))).collect();
    let output = replay(&[&parts[0], &parts[1], &parts[2]], b"");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(records(&output).len(), 2);
    assert!(records(&output)[1].1.get("flowtel.flow.direction").is_none());
}

#[test]
fn a_queue_without_room_is_waited_for() {
    let files = Files::new();
    let frames: Vec<_> = (0..4000).flat_map(|i| connection(TIME + i * 10_000, 1000 + i as u16)).collect();
    let file = files.put("a.pcap", &pcap(&frames, false));
    let small = ["--set", "queue.max_bytes=2MiB", "--set", "export.batch.max_records=500", "--format", "text"];
    let output = replay(&[&[file.as_str()], &small[..]].concat(), b"");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("records: 8000 made = 8000 delivered\n"), "{}", stderr(&output));
    assert_eq!(output.stdout.iter().filter(|b| **b == b'\n').count(), 8000);
}

#[test]
fn a_damaged_capture_is_told_up_to_the_damage_and_ends_with_65() {
    let files = Files::new();
    let bytes = pcap(&connection(TIME, 40_000), false);
    let file = files.put("cut.pcap", &bytes[..bytes.len() - 3]);
    let output = replay(&[&file], b"");
    assert_eq!(output.status.code(), Some(65), "{}", stderr(&output));
    assert_eq!(records(&output).len(), 2, "both have finished");
    let said = stderr(&output);
    let at = bytes.len() - 76;
    assert!(said.contains("cut.pcap") && said.contains(&format!("the block at byte {at} is not whole")), "{said}");
    let output = replay(&["-"], b"this is no capture at all");
    assert_eq!(output.status.code(), Some(65));
    assert!(stderr(&output).contains("neither pcap nor pcapng"), "{}", stderr(&output));
}

#[test]
fn what_is_not_there_ends_with_66_and_a_wrong_network_with_64() {
    let output = replay(&["/nonexistent/a.pcap"], b"");
    assert_eq!(output.status.code(), Some(66), "{}", stderr(&output));
    assert!(stderr(&output).contains("/nonexistent/a.pcap"), "{}", stderr(&output));
    assert_eq!(replay(&["/"], b"").status.code(), Some(66));
    assert_eq!(replay(&["-", "--local", "10.0.0.0/33"], b"").status.code(), Some(64));
    assert_eq!(replay(&[], b"").status.code(), Some(64));
}

#[test]
fn a_capture_without_packets_is_no_error() {
    let output = replay(&["-"], &pcap(&[], false));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
}
