//! The packet path by BPF_PROG_TEST_RUN: what the ingress program of a running flowtel adds to a packet, over a program
//! that does nothing.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use crate::{
    bpf::{INGRESS, Program},
    flowtel::Flowtel,
    numbers::median,
};

const REPEAT: u32 = 1_000_000;
const RUNS: usize = 11;

const ETHERNET: usize = 14;
const ACK_PSH: u8 = 0x18;
const SYN_ACK: u8 = 0x12;

/// Measures, and returns the table.
pub fn measure(flowtel: &Flowtel) -> Result<String> {
    pin()?;
    let ours: Vec<(Program, String)> = flowtel
        .programs()?
        .into_iter()
        .filter_map(|program| program.info().ok().map(|info| (program, info)))
        .filter(|(_, info)| info.kind == INGRESS.program)
        .map(|(program, info)| (program, info.name))
        .collect();
    let empty = Program::empty(INGRESS).context("loading an empty program")?;
    let packets = [
        ("IPv4 TCP data, 100 bytes", ipv4(6, &tcp(ACK_PSH, 100))),
        ("IPv4 TCP data, 1,400 bytes", ipv4(6, &tcp(ACK_PSH, 1400))),
        ("IPv6 TCP data, 100 bytes", ipv6(6, &tcp(ACK_PSH, 100))),
        ("IPv4 UDP, 100 bytes", ipv4(17, &[0; 108])),
        ("IPv4 SYN-ACK, socket not in SYN_SENT", ipv4(6, &tcp(SYN_ACK, 0))),
    ];
    let mut table = String::from(
        "| packet | program | empty program, ns | ns | over empty, ns (min-max of the pairs) |\n|---|---|---|---|---|\n",
    );
    for (name, packet) in packets {
        for (ours, program) in &ours {
            // In turns, so that what else the machine does meets both.
            let pairs: Vec<(f64, f64)> = (0..RUNS)
                .map(|_| Ok((empty.test_run(&packet, REPEAT)?.into(), ours.test_run(&packet, REPEAT)?.into())))
                .collect::<std::io::Result<_>>()
                .context("BPF_PROG_TEST_RUN")?;
            let over: Vec<f64> = pairs.iter().map(|(e, o)| o - e).collect();
            let (e, o) = (median(pairs.iter().map(|p| p.0)), median(pairs.iter().map(|p| p.1)));
            let (least, most) = over.iter().fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
            writeln!(table, "| {name} | {program} | {e:.0} | {o:.0} | {:.0} ({least:.0}-{most:.0}) |", o - e)?;
        }
    }
    unpin()?;
    Ok(table)
}

fn tcp(flags: u8, data: usize) -> Vec<u8> {
    let mut segment = vec![0; 20 + data];
    segment[..4].copy_from_slice(&[0xc0, 0x00, 0x01, 0xbb]);
    segment[12] = 5 << 4;
    segment[13] = flags;
    segment
}

fn ethernet(kind: [u8; 2]) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET];
    frame[12..].copy_from_slice(&kind);
    frame
}

fn ipv4(protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = ethernet([0x08, 0x00]);
    let [high, low] = ((20 + body.len()) as u16).to_be_bytes();
    packet.extend_from_slice(&[0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
    packet.extend_from_slice(body);
    packet
}

fn ipv6(next: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = ethernet([0x86, 0xdd]);
    let [high, low] = (body.len() as u16).to_be_bytes();
    packet.extend_from_slice(&[0x60, 0, 0, 0, high, low, next, 64]);
    for last in [1, 2] {
        packet.extend_from_slice(&[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    packet.extend_from_slice(body);
    packet
}

/// Runs `job` on CPU 0.
pub fn pinned<T>(job: impl FnOnce() -> Result<T>) -> Result<T> {
    pin()?;
    let result = job();
    unpin()?;
    result
}

/// Keeps this thread on CPU 0.
fn pin() -> std::io::Result<()> {
    affinity(&[0])
}

fn unpin() -> std::io::Result<()> {
    affinity(&(0..libc::CPU_SETSIZE as usize).collect::<Vec<_>>())
}

fn affinity(cpus: &[usize]) -> std::io::Result<()> {
    // SAFETY: a set of zeros is empty, indices are below CPU_SETSIZE, and the kernel reads the set of the given size.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        cpus.iter().for_each(|cpu| libc::CPU_SET(*cpu, &mut set));
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
