//! The layers put together: sources come in, one validated configuration goes out.

use std::{
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use figment::Figment;

use super::{
    env::{self, Environment},
    file,
    key::Key,
    layer::Layer,
    origin::{Origin, Origins},
    otel,
    problem::{ConfigError, Problem},
    reference,
    target::Target,
    types::Config,
    units::Secret,
    validate,
};

/// Where the system's files are looked for.
pub const ETC: &str = "/etc/flowtel";

/// All that a configuration is made from. Nothing else is read.
#[derive(Clone)]
pub struct Sources {
    /// The directory of `flowtel.toml` and `conf.d/`; it may be missing.
    pub etc: PathBuf,
    /// The file that `--config` names; it must exist.
    pub config_file: Option<PathBuf>,
    /// The environment, name to value. Only `OTEL_…` and `FLOWTEL_…` are looked at.
    pub env: Environment,
    /// What flags said, in the order in which they win: the last does.
    pub overrides: Vec<Override>,
}

/// A value that a flag gave.
#[derive(Debug, Clone)]
pub struct Override {
    flag: &'static str,
    key: Key,
    /// Any of them may be a header's value.
    value: Secret,
}

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Where records go: what the settings of `export` come to.
    pub target: Target,
    /// Where each value came from.
    pub origins: Origins,
    /// What is allowed, but probably not meant.
    pub warnings: Vec<Problem>,
}

/// Reads all layers, checks every value where it was written, and the whole.
///
/// # Errors
/// All problems of the values by themselves; where there are none, all problems of the values together.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut problems = Vec::new();
    let mut layers = layers(sources, &mut problems);
    for setting in layers.iter().flat_map(|layer| &layer.settings) {
        problems.extend(setting.check().err());
    }
    if !problems.is_empty() {
        return Err(ConfigError::new(problems));
    }
    let origins = Origins::default();
    drop_older_logs_endpoint(&mut layers);
    let origins = layers.iter().flat_map(|layer| &layer.settings).fold(origins, |mut origins, setting| {
        origins.set(setting.key.clone(), setting.origin.clone());
        origins
    });
    let figment = layers.into_iter().fold(Figment::new(), Figment::merge);
    // Every value has passed its check, so this fails only where check and type disagree; the key is all that is said,
    // for figment quotes values.
    let config: Config = figment.extract().map_err(|e| {
        let key = Key::new(&e.path.join("."));
        ConfigError::new(vec![Problem::at(&origins.get(&key).clone(), &key, "the value cannot be used")])
    })?;
    let (target, warnings) = validate::validate(&config, &origins).map_err(ConfigError::new)?;
    Ok(Loaded { config, target, origins, warnings })
}

fn layers(sources: &Sources, problems: &mut Vec<Problem>) -> Vec<Layer> {
    let mut files = vec![sources.etc.join("flowtel.toml")];
    files.extend(conf_d(&sources.etc.join("conf.d"), problems));
    let mut layers: Vec<Layer> = files.iter().filter_map(|path| file::read(path, problems)).collect();
    if let Some(path) = &sources.config_file {
        let before = problems.len();
        let layer = file::read(path, problems);
        if layer.is_none() && problems.len() == before {
            let origin = Origin::File { path: path.clone(), line: None };
            problems.push(Problem::new(&origin, "there is no such file"));
        }
        layers.extend(layer);
    }
    layers.push(otel::read(&sources.env, problems));
    layers.push(env::read(&sources.env, problems));
    layers.push(flags(&sources.overrides));
    layers
}

/// The files of conf.d by name; hidden ones, and what an editor left behind, have other endings.
fn conf_d(dir: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let listed =
        fs::read_dir(dir).and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>());
    let mut paths = match listed {
        Ok(paths) => paths,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => {
            let origin = Origin::File { path: dir.to_owned(), line: None };
            problems.push(Problem::new(&origin, format!("cannot be listed: {e}")));
            Vec::new()
        }
    };
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "toml") && !hidden(path));
    paths.sort();
    paths
}

fn flags(overrides: &[Override]) -> Layer {
    let mut layer = Layer::default();
    for Override { flag, key, value } in overrides {
        let origin = Origin::Flag(flag);
        let table = reference::find(key).is_some_and(|e| e.kind.is_map() && e.key == *key);
        match file::inline_table(value.expose()).filter(|_| table) {
            Some(table) => layer.add(key.clone(), table, origin),
            None => layer.add_text(key.clone(), value.expose(), origin),
        }
    }
    layer
}

/// `logs_endpoint` wins over `endpoint` of the same layer, as with the variables they come from. But who sets `endpoint`
/// in a later layer, `--endpoint` above all, means that one.
fn drop_older_logs_endpoint(layers: &mut [Layer]) {
    let (endpoint, logs) = (Key::new("export.endpoint"), Key::new("export.logs_endpoint"));
    let Some(last) = layers.iter().rposition(|layer| layer.sets(&endpoint)) else { return };
    for layer in &mut layers[..last] {
        layer.settings.retain(|setting| setting.key != logs);
    }
}

// === impl Sources

impl Sources {
    /// The system's files and the given environment; no flags.
    pub fn new(env: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        // A name that isn't UTF-8 is none of ours.
        let env = env.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
        Self { etc: ETC.into(), config_file: None, env, overrides: Vec::new() }
    }

    /// Whole paths of the files that there may be. (Each load reads them anew.)
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.etc.join("flowtel.toml")];
        files.extend(conf_d(&self.etc.join("conf.d"), &mut Vec::new()));
        files.extend(self.config_file.clone());
        files.into_iter().map(|path| std::path::absolute(&path).unwrap_or(path)).collect()
    }
}

impl fmt::Debug for Sources {
    /// Leaves out the environment: it belongs to the whole process, and any of it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("etc", &self.etc)
            .field("config_file", &self.config_file)
            .field("overrides", &self.overrides)
            .finish_non_exhaustive()
    }
}

// === impl Override

impl Override {
    /// A flag's value. The key's kind says how the text is read; what is wrong with it comes out in [`load`].
    pub fn new(flag: &'static str, key: Key, value: impl Into<String>) -> Self {
        Self { flag, key, value: Secret::new(value) }
    }
}
