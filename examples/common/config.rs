//! The file that `--config` names.

use std::path::PathBuf;

use clap::Args;
use lenore::daemon::{DaemonBuilder, PoolSettings};
use serde::Deserialize;

/// The file in TOML: `max_children = 6`. Each key is the name of a setting of the Daemon.
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
    /// Reads a file. A setting that the file lacks stays as the command line has it.
    pub fn read(bytes: &[u8]) -> Result<Config, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        basic_toml::from_str(text).map_err(|error| error.to_string())
    }

    /// Reads a file for a server that has no `root`.
    pub fn read_without_root(bytes: &[u8]) -> Result<Config, String> {
        let config = Config::read(bytes)?;
        if config.root.is_some() { Err("this server has no root".to_owned()) } else { Ok(config) }
    }

    /// Returns the settings of the pool.
    pub fn pool(&self) -> PoolSettings {
        let pool = PoolSettings::new();
        let pool = self.max_children.map_or(pool.clone(), |children| pool.max_children(children));
        let pool = self.min_spare.map_or(pool.clone(), |children| pool.min_spare(children));
        let pool = self.max_spare.map_or(pool.clone(), |children| pool.max_spare(children));
        self.requests.map_or(pool.clone(), |requests| pool.requests(requests))
    }
}

/// The flag that names the configuration.
#[derive(Args)]
pub struct ConfigFlags {
    /// Read settings from this TOML file, and again on HUP: max_children = 6 [default: none]
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
}

impl ConfigFlags {
    /// Gives `daemon` the file, if there is one, and the function that loads it.
    pub fn apply(&self, daemon: DaemonBuilder, load: fn(&[u8]) -> Result<Config, String>) -> DaemonBuilder {
        match &self.config {
            Some(path) => daemon.config(path, load).config_pool(Config::pool),
            None => daemon,
        }
    }

    /// Tells whether there is a file.
    pub fn is_given(&self) -> bool {
        self.config.is_some()
    }
}
