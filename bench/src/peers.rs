//! What other programs cost for the same load, to be read beside flowtel's figures of this run. They were measured in runs of their
//! own, on 2 CPUs (AMD EPYC) of a virtual machine, agent in the client's namespace; docs/performance.md has versions, settings
//! and what each of them records.

use std::fmt::Write as _;

/// One program's figures: flat out, medians.
#[derive(Debug)]
pub struct Row {
    pub program: String,
    /// CPU of the agent, µs a connection.
    pub agent: f64,
    /// MiB.
    pub peak: f64,
    /// Of all connections, percent.
    pub recorded: f64,
}

/// Program, CPU of the agent (µs a connection), peak of resident memory and BPF maps (MiB), recorded (percent).
const PEERS: &[(&str, f64, f64, f64)] = &[
    ("tcpdump, SYN to pcap: no record", 0.2, 21.8, 100.0),
    ("softflowd (NetFlow v9)", 4.9, 16.0, 100.0),
    ("tcpdump, SYN to text", 5.4, 22.8, 100.0),
    ("Beyla, network mode", 10.0, 191.0, 96.75),
    ("conntrack -E, and 29 in the kernel", 10.8, 2.0, 99.97),
    ("pmacctd (CSV)", 14.6, 307.1, 100.0),
    ("argus", 14.9, 67.7, 84.89),
    ("Suricata (EVE flow)", 23.1, 356.9, 100.0),
    ("tshark, SYN to fields", 31.8, 248.4, 100.0),
    ("NetObserv agent (JSON)", 46.4, 173.2, 100.0),
];

/// flowtel's rows, then the others', the cheapest first.
pub fn table(ours: &[Row]) -> String {
    let mut table = String::from(
        "| program | agent, µs CPU a connection | RSS peak and maps, MiB | recorded, % |\n|---|---|---|---|\n",
    );
    let ours = ours.iter().map(|row| (row.program.as_str(), row.agent, row.peak, row.recorded));
    for (program, agent, peak, recorded) in ours.chain(PEERS.iter().copied()) {
        // Writing to a string can't fail.
        let _ = writeln!(table, "| {program} | {agent:.1} | {peak:.0} | {recorded:.2} |");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_a_program_ours_first() {
        let ours = Row { program: "flowtel".into(), agent: 5.08, peak: 32.0, recorded: 100.0 };
        let table = table(&[ours]);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(rows.len(), 1 + PEERS.len());
        assert_eq!(rows[0], "| flowtel | 5.1 | 32 | 100.00 |");
        assert!(rows.iter().all(|row| row.matches('|').count() == 5));
    }
}
