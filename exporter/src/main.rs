//! flowtel, the program: arguments become a command, the command an exit code. Holds no logic of its own.

use std::{env, io::Write as _, path::PathBuf, process::ExitCode};

use flowtel::{
    cli::{self, Command, SchemaForm},
    cmd,
    config::{self, Loaded, Sources},
    escape::Escaped,
    exit::{Exit, Failure},
    record, telemetry,
};

fn main() -> ExitCode {
    let command = match cli::parse(env::args_os(), env::vars_os()) {
        Ok(command) => command,
        Err(e) => return usage(&e).into(),
    };
    match dispatch(command) {
        Ok(()) => Exit::Success.into(),
        Err(failure) => {
            say(&failure.to_string());
            failure.code.into()
        }
    }
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(sources) => cmd::run::run(load(&sources)?, sources),
        Command::Replay { sources, captures } => cmd::replay::replay(&load(&sources)?, &captures),
        Command::Check(sources) => cmd::check::check(&load(&sources)?, &sources),
        Command::Status { sources, form } => cmd::status::status(&load(&sources)?, form),
        Command::Top { sources, replay } => cmd::top::top(load(&sources)?, &sources, replay),
        Command::Tail(sources) => cmd::tail::tail(&load(&sources)?),
        Command::Explain { sources, what } => cmd::explain::run(&load(&sources)?, &what),
        Command::Config { sources, json } => {
            let loaded = load(&sources)?;
            print(if json { cmd::config::json(&loaded) } else { cmd::config::toml(&loaded) })
        }
        Command::InspectQueue { sources, directory, json } => cmd::queue::inspect(&queue(&sources, directory)?, json),
        Command::VerifyQueue(sources, directory) => cmd::queue::verify(&queue(&sources, directory)?),
        Command::ExportQueue { sources, directory, form } => cmd::queue::export(&queue(&sources, directory)?, form),
        Command::Reference => print(config::reference_file()),
        Command::ReferenceDocs => print(config::reference_docs()),
        Command::Schema(form) => print(schema(form)),
        Command::Metrics => print(telemetry::metrics::markdown()),
        Command::Completions(shell) => print(cli::completions(shell)),
        Command::Man(directory) => cmd::man::write(&directory),
    }
}

/// The queue's directory: the one that was named, or the configured one.
fn queue(sources: &Sources, named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    match named {
        Some(directory) => Ok(directory),
        None => Ok(load(sources)?.config.queue.path),
    }
}

fn schema(form: SchemaForm) -> String {
    use record::schema::{json_schema, markdown, registry};
    match form {
        SchemaForm::Markdown => markdown(),
        SchemaForm::JsonSchema => format!("{:#}\n", json_schema::json_schema()),
        SchemaForm::Weaver => registry::registry() + &telemetry::metrics::registry(),
        SchemaForm::WeaverManifest => registry::manifest(),
        SchemaForm::OtlpExample => format!("{}\n", json_schema::example()),
    }
}

/// Loads the configuration and says what is probably not meant.
fn load(sources: &Sources) -> Result<Loaded, Failure> {
    let loaded = config::load(sources)?;
    for warning in &loaded.warnings {
        say(&format!("flowtel: warning: {warning}"));
    }
    Ok(loaded)
}

fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let context = |e| anyhow::Error::new(e).context("cannot write to standard output");
    cmd::print(text.as_ref()).map_err(|e| context(e).into())
}

/// Help and version as clap shows them; wrong arguments without what they could do to a terminal.
fn usage(error: &clap::Error) -> Exit {
    if error.exit_code() == 0 {
        // Nobody reads it: nothing was asked for that could fail.
        _ = error.print();
        return Exit::Success;
    }
    let lines: Vec<_> = error.to_string().trim_end().lines().map(|line| Escaped(line).to_string()).collect();
    say(&format!("flowtel: {}", lines.join("\n")));
    Exit::Usage
}

/// Standard error may be closed: that must not end the program otherwise than it would have.
fn say(text: &str) {
    _ = writeln!(anstream::stderr(), "{text}");
}
