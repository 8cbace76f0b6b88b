//! An end from outside: SIGINT or SIGTERM comes in, and no namespace and no process of this bench stays.

use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{self, Command},
    thread,
};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::namespaces;

/// From now on such a signal takes away what this process made, before it ends.
pub fn watch() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("a runtime")?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    drop(entered);
    thread::spawn(move || {
        let number = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => libc::SIGINT,
                _ = terminate.recv() => libc::SIGTERM,
            }
        });
        namespaces::remove_all();
        eprintln!("flowtel-bench: ended by a signal");
        #[expect(
            clippy::disallowed_methods,
            reason = "main is waiting for what is measured; no stage of flowtel runs here"
        )]
        process::exit(128 + number);
    });
    Ok(())
}

/// Makes the process that `command` will start end with this one. To be started by the main thread: it is that thread's
/// end that counts (PR_SET_PDEATHSIG).
pub fn with_us(command: &mut Command) -> &mut Command {
    let parent = process::id();
    // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                return Err(io::Error::last_os_error());
            }
            // It may have ended before.
            if libc::getppid() as u32 != parent {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Ok(())
        })
    }
}
