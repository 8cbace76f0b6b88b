//! `flowtel man`: the command line's definition comes in, manual pages in roff go out, one for each command.
//!
//! Packages hold them; a person reads them by `man flowtel`. Must never say what the definition doesn't.

use std::path::Path;

use crate::{
    cli,
    escape::Escaped,
    exit::{Exit, Failure},
};

/// Writes `flowtel.1`, `flowtel-run.1` and so on into an existing directory. The same program writes the same bytes.
///
/// # Errors
/// With 69 if the directory isn't there, with 1 if a page can't be written.
pub fn write(directory: &Path) -> Result<(), Failure> {
    let shown = directory.to_string_lossy();
    if !directory.is_dir() {
        let error = anyhow::anyhow!("cannot write manual pages into {}: no such directory", Escaped(&shown));
        return Err(Exit::Unavailable.with(error));
    }
    clap_mangen::generate_to(cli::definition().mut_subcommands(versioned), directory).map_err(|e| {
        let context = format!("cannot write manual pages into {}", Escaped(&shown));
        Failure::from(anyhow::Error::new(e).context(context))
    })
}

/// The version stands on each page, not on the first alone.
fn versioned(command: clap::Command) -> clap::Command {
    command.version(env!("CARGO_PKG_VERSION")).disable_version_flag(true).mut_subcommands(versioned)
}
