//! Where frames come from: a running flowtel by its status socket. What this process watches itself, or reads from a capture,
//! comes through the same channel (`cmd::top`).

use std::{sync::mpsc, thread, time::Duration};

use crate::telemetry::status::{
    attach::{Attached, Came},
    frame::Frame,
};

/// Frames that may wait to be shown. A running flowtel then counts what is missed; this process waits.
pub const ROOM: usize = 64;
/// How long is waited for a frame before it is looked whether anybody still reads.
const WAIT: Duration = Duration::from_secs(60);

/// What comes.
#[derive(Debug)]
pub enum Told {
    /// A frame.
    Frame(Frame),
    /// Nothing more comes, because of this.
    Over(String),
}

/// Reads from a running flowtel until either side ends, on a thread of its own.
///
/// # Errors
/// There can't be a thread.
pub fn follow(mut attached: Attached, to: mpsc::SyncSender<Told>) -> std::io::Result<()> {
    let read = move || {
        loop {
            let told = match attached.next(WAIT) {
                Ok(Came::Nothing) => continue,
                Ok(Came::Frame(Frame::End)) => Told::Over("flowtel has stopped".into()),
                Ok(Came::Frame(Frame::Full)) => Told::Over("too many look on already".into()),
                Ok(Came::Gone) => Told::Over("flowtel is gone: it was killed, or has crashed".into()),
                Err(error) => Told::Over(error.to_string()),
                Ok(Came::Frame(frame)) => Told::Frame(frame),
            };
            let over = matches!(told, Told::Over(_) | Told::Frame(Frame::Dropped { .. }));
            if to.send(told).is_err() || over {
                return;
            }
        }
    };
    thread::Builder::new().name("flowtel-top".into()).spawn(read).map(|_| ())
}
