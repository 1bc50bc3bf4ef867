//! The configuration of a program: the file that it comes from, how it is loaded, and the editions of it that are in use.
//!
//! Its type is the program's own. Here it is a value behind `dyn Any`, which [`Daemon::config`](crate::Daemon::config) gives back.

use std::any::{Any, TypeId, type_name};
use std::fmt::{self, Display};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::libc::O_NONBLOCK;

use crate::daemon::error::DaemonError;
use crate::daemon::launch::absolute;
use crate::daemon::machine::{Edition, Tunable};
use crate::daemon::settings::{RawSettings, Settings, SettingsError, resolve};
use crate::error::Error;
use crate::inherited::prepared::{self, Owner};
use crate::wheel::{SocketFactory, clash};

/// The settings of a Daemon that a configuration can change. A setting that the configuration leaves out keeps the value that the
/// program has set.
///
/// A reload changes these settings while the Daemon runs. Name every other setting of the configuration with
/// [`needs_restart`](PoolSettings::needs_restart). A reload then tells the operator when such a setting has changed.
///
/// ```
/// use lenore::daemon::PoolSettings;
///
/// struct Config { children: u32, listen: String }
///
/// fn pool(config: &Config) -> PoolSettings {
///     PoolSettings::new().max_children(config.children).needs_restart("listen", &config.listen)
/// }
/// # assert!(format!("{:?}", pool(&Config { children: 6, listen: "[::1]:80".into() })).contains("listen"));
/// ```
///
/// POE: nothing like it.
#[derive(Clone, Debug, Default)]
#[must_use = "does nothing until a configuration has it"]
pub struct PoolSettings {
    max_children: Option<u32>,
    min_spare: Option<u32>,
    max_spare: Option<u32>,
    requests: Option<u64>,
    requests_jitter: Option<u64>,
    addresses: Vec<String>,
    fixed: Vec<(String, String)>,
}

impl PoolSettings {
    /// Makes settings that change nothing yet.
    pub fn new() -> PoolSettings {
        PoolSettings::default()
    }

    /// Sets what [`DaemonBuilder::max_children`](crate::daemon::DaemonBuilder::max_children) sets. A configuration that says 0 is rejected.
    pub fn max_children(mut self, children: u32) -> Self {
        self.max_children = Some(children);
        self
    }

    /// Sets what [`DaemonBuilder::min_spare`](crate::daemon::DaemonBuilder::min_spare) sets.
    pub fn min_spare(mut self, children: u32) -> Self {
        self.min_spare = Some(children);
        self
    }

    /// Sets what [`DaemonBuilder::max_spare`](crate::daemon::DaemonBuilder::max_spare) sets.
    pub fn max_spare(mut self, children: u32) -> Self {
        self.max_spare = Some(children);
        self
    }

    /// Sets what [`DaemonBuilder::requests`](crate::daemon::DaemonBuilder::requests) sets. A reload sets it for children that are forked
    /// after the reload.
    pub fn requests(mut self, requests: u64) -> Self {
        self.requests = Some(requests);
        self
    }

    /// Sets what [`DaemonBuilder::requests_jitter`](crate::daemon::DaemonBuilder::requests_jitter) sets.
    pub fn requests_jitter(mut self, jitter: u64) -> Self {
        self.requests_jitter = Some(jitter);
        self
    }

    /// Adds a TCP address on which the program listens.
    ///
    /// `address` is `IP:PORT`. The port can't be 0.
    ///
    /// [`DaemonBuilder::spawn`](crate::daemon::DaemonBuilder::spawn) binds the addresses of the first configuration before it gives up
    /// privileges. A reload binds the addresses that a new configuration adds. If one of them can't be bound, the reload is rejected, and
    /// the old addresses stay open.
    ///
    /// Each process then listens on the addresses that [`Daemon::addresses`](crate::Daemon::addresses) returns. A
    /// [`SocketFactory`](crate::wheel::SocketFactory) for such an address takes over the socket that is already bound. A
    /// [`Server`](crate::component::Server) made by [`configured`](crate::component::Server::configured) does this by itself.
    ///
    /// An address that both configurations have keeps its socket, and the clients in its queue. An address that the new configuration
    /// does not have is closed in the parent when the reload is applied. During the
    /// [`probation`](crate::daemon::DaemonBuilder::probation) a Daemon with children keeps that address bound and refuses its clients. So
    /// the former configuration can have the address again.
    ///
    /// The program must be allowed to bind a new address at the time of the reload. A program that has given up its privileges can't
    /// add port 80.
    ///
    /// ```
    /// use lenore::daemon::PoolSettings;
    ///
    /// fn pool(listen: &Vec<String>) -> PoolSettings {
    ///     listen.iter().fold(PoolSettings::new(), PoolSettings::listen)
    /// }
    /// # assert!(format!("{:?}", pool(&vec!["[::1]:80".into()])).contains("[::1]:80"));
    /// ```
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// Returns the addresses, each once.
    fn addresses(&self) -> Result<Rc<[SocketAddr]>, SettingsError> {
        let mut addresses = Vec::new();
        for text in &self.addresses {
            let address = text.parse().ok().filter(|address: &SocketAddr| address.port() != 0);
            let address = address.ok_or_else(|| SettingsError::NoAddress { address: text.clone() })?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses.into())
    }

    /// Names a setting that can't change while the program runs, for example a user or the path of a socket.
    ///
    /// `value` is the value in this configuration. If it differs from the value at the start, the verdict of a reload says that `name`
    /// needs a restart. All other changes are applied. With
    /// [`DaemonBuilder::strict_reload`](crate::daemon::DaemonBuilder::strict_reload) the whole reload is rejected instead.
    pub fn needs_restart(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.fixed.push((name.into(), value.to_string()));
        self
    }

    /// Returns the program's settings with these in their place.
    fn over(&self, program: &RawSettings) -> Result<RawSettings, SettingsError> {
        let PoolSettings { max_children, min_spare, max_spare, requests, requests_jitter, .. } = *self;
        // For a program it stands for "not set". Who writes it in a file means "none".
        if max_children == Some(0) {
            return Err(SettingsError::Zero { setting: "max_children" });
        }
        Ok(RawSettings {
            max_children: max_children.or(program.max_children),
            min_spare: min_spare.or(program.min_spare),
            max_spare: max_spare.or(program.max_spare),
            requests: requests.or(program.requests),
            requests_jitter: requests_jitter.or(program.requests_jitter),
            ..program.clone()
        })
    }
}

type Load = dyn Fn(&[u8]) -> Result<Rc<dyn Any>, String>;
type ToPool = dyn Fn(&dyn Any) -> PoolSettings;

/// What the program has said of its configuration.
#[derive(Clone, Default)]
pub(super) struct RawConfig {
    path: PathBuf,
    load: Option<Rc<Load>>,
    /// Which type it loads, and which one the settings are taken from.
    types: [Option<(TypeId, &'static str)>; 2],
    to_pool: Option<Rc<ToPool>>,
    pub(super) is_strict: bool,
    pub(super) needs_addresses: bool,
}

impl fmt::Debug for RawConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawConfig").field("path", &self.path).finish_non_exhaustive()
    }
}

impl RawConfig {
    pub(super) fn load<T: 'static, E: Display + 'static>(&mut self, path: PathBuf, load: fn(&[u8]) -> Result<T, E>) {
        self.path = path;
        self.types[0] = Some((TypeId::of::<T>(), type_name::<T>()));
        self.load = Some(Rc::new(move |bytes| match load(bytes) {
            Ok(value) => Ok(Rc::new(value)),
            Err(error) => Err(error.to_string()),
        }));
    }

    pub(super) fn pool<T: 'static>(&mut self, to_pool: fn(&T) -> PoolSettings) {
        self.types[1] = Some((TypeId::of::<T>(), type_name::<T>()));
        self.to_pool = Some(Rc::new(move |value| value.downcast_ref().map(to_pool).unwrap_or_default()));
    }

    /// Reads and loads the configuration for the first time. `program` has the settings of the program, and gets those of the
    /// configuration in their place.
    pub(super) fn open(self, program: &mut RawSettings) -> Result<Option<Config>, DaemonError> {
        let RawConfig { path, load, types, to_pool, is_strict, needs_addresses } = self;
        let Some(load) = load else {
            return if to_pool.is_none() {
                Ok(None)
            } else {
                Err(DaemonError::Settings(SettingsError::NoConfiguration))
            };
        };
        if let [Some((loaded, type_of_file)), Some((taken, type_of_pool))] = types
            && loaded != taken
        {
            return Err(DaemonError::Settings(SettingsError::OtherConfiguration { type_of_file, type_of_pool }));
        }
        let path = absolute("config")(path)?;
        program.has_configuration = true;
        let program_alone = program.clone();
        let source =
            Source { path, load, to_pool, program: program_alone, is_strict, needs_addresses, fixed: Vec::new() };
        let fail = |text: String| DaemonError::Config { path: source.path.clone(), text };
        let bytes = source.read().map_err(|error| fail(error.to_string()))?;
        let value = (source.load)(&bytes).map_err(fail)?;
        let pool = source.pool(&*value);
        *program = pool.over(program).map_err(DaemonError::Settings)?;
        let addresses = pool.addresses().map_err(DaemonError::Settings)?;
        let source = Source { fixed: pool.fixed, ..source };
        let current = Held { edition: FIRST, value, addresses };
        Ok(Some(Config { source: Rc::new(source), owner: prepared::owner(), current, others: Vec::new() }))
    }
}

/// Where a configuration comes from.
pub(super) struct Source {
    path: PathBuf,
    load: Rc<Load>,
    to_pool: Option<Rc<ToPool>>,
    /// The settings of the program, without those of the configuration.
    program: RawSettings,
    is_strict: bool,
    /// A server listens on what the configuration names, and on nothing else.
    needs_addresses: bool,
    /// What can't change, as it was at the start.
    fixed: Vec<(String, String)>,
}

/// A configuration that was loaded.
#[derive(Clone)]
pub(super) struct Loaded {
    value: Rc<dyn Any>,
    /// What the program listens on with it.
    pub(super) addresses: Rc<[SocketAddr]>,
    pub(super) tunable: Tunable,
    /// What would have to change and can't.
    pub(super) needs_restart: Vec<String>,
}

impl Loaded {
    /// Finds out whether the addresses could be bound that this adds to those that are listened on. Nothing stays bound, and nothing
    /// listens.
    ///
    /// # Errors
    ///
    /// The first address that can't be bound, in an [`Error::Os`].
    pub(super) fn try_to_bind(&self, current: &[SocketAddr]) -> Result<(), Error> {
        let added: Vec<SocketAddr> = self.addresses.iter().copied().filter(|added| !current.contains(added)).collect();
        for (place, address) in added.iter().enumerate() {
            // What is kept for a former edition is ours.
            if !prepared::waits_at(*address)? {
                SocketFactory::tcp(address.to_string()).try_to_bind()?;
            }
            if added[..place].iter().any(|before| clash(*before, *address)) {
                return Err(Error::os("bind", address, Errno::EADDRINUSE));
            }
        }
        Ok(())
    }
}

/// Why a configuration was not loaded.
pub(super) enum NotLoaded {
    /// What the program says.
    Load(String),
    Settings(SettingsError),
    /// These settings need a restart, and `strict_reload` is set.
    NeedsRestart(Vec<String>),
}

impl Source {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file, all of it, once.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        // Reading anything but a regular file might never end, or never begin.
        let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(&self.path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        read_limited(file)
    }

    fn pool(&self, value: &dyn Any) -> PoolSettings {
        self.to_pool.as_ref().map(|to_pool| to_pool(value)).unwrap_or_default()
    }

    /// Loads what was read.
    pub(super) fn load(&self, bytes: &[u8]) -> Result<Loaded, NotLoaded> {
        let value = (self.load)(bytes).map_err(NotLoaded::Load)?;
        let pool = self.pool(&*value);
        let settings: Settings = pool.over(&self.program).and_then(resolve).map_err(NotLoaded::Settings)?;
        let addresses = pool.addresses().map_err(NotLoaded::Settings)?;
        if self.needs_addresses && addresses.is_empty() {
            return Err(NotLoaded::Settings(SettingsError::NoAddresses));
        }
        let needs_restart = self.changed(&pool.fixed);
        if self.is_strict && !needs_restart.is_empty() {
            return Err(NotLoaded::NeedsRestart(needs_restart));
        }
        Ok(Loaded { value, addresses, tunable: Tunable::of(&settings), needs_restart })
    }

    /// Returns the names of settings that differ from those of the start.
    fn changed(&self, now: &[(String, String)]) -> Vec<String> {
        let differs = |name: &str, value: Option<&str>| {
            let first = self.fixed.iter().find(|(first, _)| first == name).map(|(_, value)| value.as_str());
            first != value
        };
        let mut names: Vec<String> = Vec::new();
        for (name, value) in now {
            if differs(name, Some(value)) && !names.contains(name) {
                names.push(name.clone());
            }
        }
        let is_gone = |name: &str| now.iter().all(|(other, _)| other != name);
        names.extend(self.fixed.iter().map(|(name, _)| name.clone()).filter(|name| is_gone(name)));
        names
    }
}

/// One edition of the configuration.
#[derive(Clone)]
pub(super) struct Held {
    edition: Edition,
    value: Rc<dyn Any>,
    addresses: Rc<[SocketAddr]>,
}

/// The configuration in one process.
pub(super) struct Config {
    source: Rc<Source>,
    /// The owner of the sockets that were prepared for the configuration.
    pub(super) owner: Owner,
    /// What is in force here.
    current: Held,
    /// In the parent: the edition that is being tried, and the one before the current one.
    others: Vec<Held>,
}

impl Config {
    pub(super) fn source(&self) -> Rc<Source> {
        Rc::clone(&self.source)
    }

    /// Returns what is in force in this process.
    pub(super) fn value(&self) -> Rc<dyn Any> {
        Rc::clone(&self.current.value)
    }

    /// Returns what this process listens on.
    pub(super) fn addresses(&self) -> Rc<[SocketAddr]> {
        Rc::clone(&self.current.addresses)
    }

    /// Returns what all editions together listen on.
    pub(super) fn all_addresses(&self) -> Vec<SocketAddr> {
        let editions = self.others.iter().chain([&self.current]);
        editions.flat_map(|held| held.addresses.iter().copied()).collect()
    }

    /// An edition was loaded, and is to be tried.
    pub(super) fn enter(&mut self, edition: Edition, loaded: &Loaded) {
        let Loaded { value, addresses, .. } = loaded.clone();
        self.others.push(Held { edition, value, addresses });
    }

    /// Puts this edition in force. The former edition is kept until it is [forgotten](Config::forget). Returns whether the new
    /// edition has a higher number, and the addresses that only the former edition has.
    pub(super) fn adopt(&mut self, edition: Edition) -> (bool, Vec<SocketAddr>) {
        let place = self.others.iter().position(|held| held.edition == edition);
        let Some(place) = place else { return (false, Vec::new()) };
        let held = self.others.swap_remove(place);
        let former = std::mem::replace(&mut self.current, held);
        let gone = former.addresses.iter().filter(|address| !self.current.addresses.contains(address));
        let (is_newer, gone) = (edition.0 > former.edition.0, gone.copied().collect());
        self.others.push(former);
        (is_newer, gone)
    }

    /// Forgets an edition that is not in force.
    pub(super) fn forget(&mut self, edition: Edition) {
        self.others.retain(|held| held.edition != edition);
    }

    /// Returns an edition, for a child that is to have it.
    pub(super) fn of(&self, edition: Edition) -> Held {
        let other = self.others.iter().find(|held| held.edition == edition);
        other.unwrap_or(&self.current).clone()
    }

    /// In a child: puts this edition in force, and forgets all others.
    pub(super) fn settle(&mut self, held: Held) {
        if held.edition != self.current.edition {
            self.current = held;
        }
        self.others = Vec::new();
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        prepared::retain(self.owner, &[]);
    }
}

fn read_limited(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("larger than {LARGEST} bytes")));
    }
    Ok(bytes)
}

/// How large a configuration may be, in bytes.
const LARGEST: u64 = 64 << 20;

/// The edition of the start.
const FIRST: Edition = Edition(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn source(fixed: &[(&str, &str)]) -> Source {
        let mut raw = RawConfig::default();
        raw.load(PathBuf::from("/x"), |bytes| std::str::from_utf8(bytes).map(str::to_owned));
        Source {
            path: PathBuf::new(),
            load: raw.load.unwrap(),
            to_pool: Some(Rc::new(|value| {
                let text = value.downcast_ref::<String>().unwrap();
                let pool = PoolSettings::new().needs_restart("listen", text.len());
                text.parse().map_or(pool.clone(), |children| pool.max_children(children))
            })),
            program: RawSettings { start_children: Some(2), max_spare: Some(4), ..RawSettings::default() },
            is_strict: false,
            needs_addresses: false,
            fixed: fixed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn pool_of_a_configuration_that_is_not_there_is_refused() {
        let mut raw = RawConfig::default();
        raw.pool(|_: &String| PoolSettings::new());
        let refused = raw.open(&mut RawSettings::default());
        assert!(matches!(refused, Err(DaemonError::Settings(SettingsError::NoConfiguration))), "{:?}", refused.err());
        assert!(RawConfig::default().open(&mut RawSettings::default()).is_ok_and(|config| config.is_none()));
    }

    #[test] // O-RL-03: 0 is not "as many as the program would have without a number"
    fn configuration_without_children_is_refused() {
        let refused = source(&[]).load(b"0").err();
        assert!(matches!(refused, Some(NotLoaded::Settings(SettingsError::Zero { setting: "max_children" }))));
    }

    #[test] // O-RL-14: never silent
    fn settings_that_need_a_restart_are_named() {
        let loaded = |source: &Source, bytes: &[u8]| source.load(bytes).map(|loaded| loaded.needs_restart).ok();
        assert_eq!(loaded(&source(&[("listen", "1")]), b"6"), Some(vec![]));
        assert_eq!(
            loaded(&source(&[("listen", "9"), ("user", "x")]), b"6"),
            Some(vec!["listen".into(), "user".into()])
        );
        let strict = Source { is_strict: true, ..source(&[]) };
        assert!(matches!(strict.load(b"6"), Err(NotLoaded::NeedsRestart(names)) if names == ["listen"]));
    }

    #[test] // O-RL-03
    fn settings_that_contradict_the_program_are_refused() {
        let error = source(&[]).load(b"1").err();
        assert!(matches!(error, Some(NotLoaded::Settings(SettingsError::StartAboveMax { .. }))));
        assert!(matches!(source(&[]).load(b"\xff").err(), Some(NotLoaded::Load(text)) if text.contains("utf-8")));
    }

    #[test] // O-RL-13
    fn address_without_a_port_is_refused() {
        let of = |address: &str| PoolSettings::new().listen("[::1]:80").listen("[::1]:80").listen(address).addresses();
        assert_eq!(of("127.0.0.1:1").map(|addresses| addresses.len()), Ok(2));
        for address in ["127.0.0.1", "127.0.0.1:0", "localhost:80", ""] {
            assert_eq!(of(address), Err(SettingsError::NoAddress { address: address.to_owned() }));
        }
    }

    #[test]
    fn adopted_edition_is_in_force_and_the_former_one_is_kept() {
        let text = |config: &Config| config.value().downcast_ref::<String>().unwrap().clone();
        let source = Rc::new(source(&[]));
        let load = |bytes: &[u8]| source.load(bytes).ok().unwrap();
        let Loaded { value, addresses, .. } = load(b"6");
        let current = Held { edition: FIRST, value, addresses };
        let mut config = Config { source: Rc::clone(&source), owner: 0, current, others: Vec::new() };
        config.enter(Edition(2), &load(b"7"));
        assert_eq!(text(&config), "6");
        config.adopt(Edition(2));
        assert_eq!((text(&config), config.current.edition), ("7".into(), Edition(2)));
        config.adopt(FIRST);
        assert_eq!((text(&config), config.current.edition), ("6".into(), FIRST));
        config.forget(Edition(2));
        config.adopt(Edition(2));
        assert_eq!((text(&config), config.others.len()), ("6".into(), 0));
    }
}
