//! The file that `--config` names.

use std::path::PathBuf;

use clap::Args;
use lenore::daemon::{DaemonBuilder, PoolSettings};
use serde::Deserialize;

/// What the file says, in TOML: `max_children = 6`. Each key is the name of a setting of the Daemon.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    max_children: Option<u32>,
    min_spare: Option<u32>,
    max_spare: Option<u32>,
    requests: Option<u64>,
    /// Directory of the files to serve, for a server that has any.
    pub root: Option<PathBuf>,
}

impl Config {
    /// Reads a file. What it does not say stays as the command line has it.
    pub fn read(bytes: &[u8]) -> Result<Config, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        basic_toml::from_str(text).map_err(|error| error.to_string())
    }

    /// The same for a server that has no files.
    pub fn read_without_root(bytes: &[u8]) -> Result<Config, String> {
        let config = Config::read(bytes)?;
        if config.root.is_some() { Err("this server has no root".to_owned()) } else { Ok(config) }
    }

    /// What of it the Daemon has to know.
    pub fn pool(&self) -> PoolSettings {
        let pool = PoolSettings::new();
        let pool = self.max_children.map_or(pool.clone(), |children| pool.max_children(children));
        let pool = self.min_spare.map_or(pool.clone(), |children| pool.min_spare(children));
        let pool = self.max_spare.map_or(pool.clone(), |children| pool.max_spare(children));
        self.requests.map_or(pool.clone(), |requests| pool.requests(requests))
    }
}

/// Where the configuration is.
#[derive(Args)]
pub struct ConfigFlags {
    /// Read settings from this TOML file, and again on HUP: max_children = 6 [default: none]
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
}

impl ConfigFlags {
    /// Gives `daemon` the file, if there is one, to be read by `load`.
    pub fn apply(&self, daemon: DaemonBuilder, load: fn(&[u8]) -> Result<Config, String>) -> DaemonBuilder {
        match &self.config {
            Some(path) => daemon.config(path, load).config_pool(Config::pool),
            None => daemon,
        }
    }

    /// Tells whether there is one.
    pub fn is_given(&self) -> bool {
        self.config.is_some()
    }
}
