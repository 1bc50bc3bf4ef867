//! Serves the files of a directory, and nothing outside of it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use self::conditions::{Range, Verdict};
use self::version::Version;
use super::answer::{Answer, IntoAnswer, Kind, NOTHING};
use super::error::HttpError;
use super::path;
use super::request::Request;
use super::service::REST;
use crate::filter::http::{self, Response, format_date};

mod conditions;
mod encodings;
mod listing;
mod media;
mod version;

/// The files below a directory, for [`Service::files`](super::Service::files) or for a handler.
///
/// ```
/// use lenore::component::http::{Files, Service};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let files = Files::new("examples")?.cache_control("max-age=3600").precompressed();
/// let service = Service::new().files("/static", files);
/// # let _ = service;
/// # Ok(())
/// # }
/// ```
///
/// - A file has a `Last-Modified`, an `ETag`, and a `Content-Type` for its extension. `If-None-Match`,
///   `If-Modified-Since`, `If-Match`, `If-Unmodified-Since` and `If-Range` work. The tag is made of the file's length
///   and modification time. It is weak for two seconds after a change, because another change might not show in the
///   time.
/// - A single `Range` is answered with 206 or 416. A request for several ranges gets the whole file, which is allowed.
/// - A file is sent in pieces of 64 KiB as the client takes them, however large it is. Reading a file blocks the
///   process.
/// - For a directory, the client gets its `index.html`. A path without the slash at its end is redirected. If there is
///   no such file, the client gets 404, unless [`list_directories`](Files::list_directories) was called.
/// - A path that leads out of the directory gets 404. So do names that begin with a dot, paths with an encoded slash,
///   and pipes, sockets and devices. A symbolic link is followed if it leads to a file below the directory that is
///   itself served. A program that can put symbolic links below the directory while the service runs can get around
///   that.
///
/// POE: nothing like it in SimpleHTTP.
#[derive(Debug)]
#[must_use]
pub struct Files {
    /// With its symbolic links resolved.
    root: PathBuf,
    types: Vec<(String, String)>,
    cache_control: Option<String>,
    is_precompressed: bool,
    lists: bool,
}

/// An open file.
struct Opened {
    file: File,
    length: u64,
    changed: Option<SystemTime>,
}

impl Files {
    /// Returns the files below the directory `root`.
    ///
    /// # Errors
    ///
    /// The system's error, with the path, if `root` is not a directory that can be read.
    pub fn new(root: impl AsRef<Path>) -> io::Result<Files> {
        let root = root.as_ref();
        let explain = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", root.display()));
        let root = fs::read_dir(root).and_then(|_| root.canonicalize()).map_err(explain)?;
        Ok(Files { root, types: Vec::new(), cache_control: None, is_precompressed: false, lists: false })
    }

    /// Sets the `Content-Type` of files with this extension, which is given without the dot and in any case.
    pub fn content_type(mut self, extension: &str, media_type: &str) -> Files {
        self.types.push((extension.to_ascii_lowercase(), media_type.to_owned()));
        self
    }

    /// Sets the `Cache-Control` of all files. Default: none.
    pub fn cache_control(mut self, value: &str) -> Files {
        self.cache_control = Some(value.to_owned());
        self
    }

    /// Sends `app.js.br` or `app.js.gz` instead of `app.js` to a client that accepts it, if there is such a file.
    /// Default: off.
    pub fn precompressed(mut self) -> Files {
        self.is_precompressed = true;
        self
    }

    /// Lists the names in directories that have no `index.html`. Default: off.
    pub fn list_directories(mut self) -> Files {
        self.lists = true;
        self
    }

    /// Answers a request with the file at `path`, relative to the directory. This is for a handler that chooses the
    /// file itself.
    ///
    /// The path of the request does not matter, nor does a slash at its end. An empty `path` or `/` stands for the
    /// `index.html` of the directory itself. Links on a page that [lists](Files::list_directories) a directory are
    /// relative to the path of the request.
    pub fn answer(&self, request: &Request, path: &str) -> Answer {
        self.answer_for(request, path, Slash::Nothing)
    }

    fn answer_for(&self, request: &Request, path: &str, slash: Slash) -> Answer {
        if !["GET", "HEAD"].contains(&request.method()) {
            let response = Response::new(405).header("Allow", "GET, HEAD");
            return response.page("the method is not for this path").into_answer();
        }
        self.find(request, path, slash).unwrap_or_else(IntoAnswer::into_answer)
    }

    /// Answers a request whose path has a [`prefix`](super::Service::prefix).
    pub(super) fn answer_rest(&self, request: &Request) -> Answer {
        let rest = request.raw_param(REST).unwrap_or_default();
        // A proxy that guards a directory does not take an encoded slash for a slash.
        if rest.contains(path::SLASH) {
            return Answer::page(404, NOTHING);
        }
        self.answer_for(request, &path::decode_rest(rest), Slash::Directory)
    }

    fn find(&self, request: &Request, asked: &str, slash: Slash) -> Result<Answer, HttpError> {
        let mut path = self.below(asked)?;
        let mut about = fs::metadata(&path).map_err(|error| refused(&error))?;
        if about.is_dir() {
            if slash == Slash::Directory && !request.path().ends_with('/') {
                return Ok(redirect(request));
            }
            let index = self.below(&format!("{asked}/index.html"));
            path = match index {
                Err(_) if self.lists => {
                    let is_directory = |name: &str| self.is_directory(&format!("{asked}/{name}"));
                    return listing::page(request, &path, is_directory).map_err(|error| refused(&error));
                }
                index => index?,
            };
            about = fs::metadata(&path).map_err(|error| refused(&error))?;
        } else if slash == Slash::Directory && request.path().ends_with('/') {
            return Err(nothing());
        }
        // Reading a pipe would block, and reading a device might never end.
        if !about.is_file() {
            return Err(nothing());
        }
        self.send(request, &path)
    }

    fn send(&self, request: &http::Request, path: &Path) -> Result<Answer, HttpError> {
        let mut coding = None;
        let mut opened = None;
        if self.is_precompressed {
            for wanted in encodings::accepted(request) {
                let mut compressed = path.as_os_str().to_owned();
                compressed.push(wanted.extension());
                // A symbolic link might lead out of the directory.
                let compressed = Path::new(&compressed);
                if fs::symlink_metadata(compressed).is_ok_and(|about| about.is_file()) {
                    opened = Opened::open(compressed).ok();
                    coding = opened.is_some().then_some(wanted);
                }
                if opened.is_some() {
                    break;
                }
            }
        }
        let opened = match opened {
            Some(opened) => opened,
            None => Opened::open(path).map_err(|error| refused(&error))?,
        };
        let version = Version::new(&opened, coding);
        let verdict = conditions::judge(request, &version, opened.length);
        let status = match verdict {
            Verdict::Send => 200,
            Verdict::Part(_) => 206,
            Verdict::NotModified => 304,
            Verdict::Failed => 412,
            Verdict::Unsatisfiable => 416,
        };
        let mut response = Response::new(status).header("Accept-Ranges", "bytes");
        if self.is_precompressed {
            response = response.header("Vary", "Accept-Encoding");
        }
        match verdict {
            Verdict::Failed => return Ok(response.page("the file is another one").into_answer()),
            Verdict::Unsatisfiable => {
                let response = response.header("Content-Range", format!("bytes */{}", opened.length));
                return Ok(response.page("the file is not that long").into_answer());
            }
            Verdict::Send | Verdict::Part(_) | Verdict::NotModified => {}
        }
        if let Some(tag) = version.tag() {
            response = response.header("ETag", tag);
        }
        if let Some(changed) = version.changed() {
            response = response.header("Last-Modified", format_date(changed));
        }
        if let Some(value) = &self.cache_control {
            response = response.header("Cache-Control", value);
        }
        if verdict == Verdict::NotModified {
            return Ok(response.into_answer());
        }
        if let Some(coding) = coding {
            response = response.header("Content-Encoding", coding.name());
        }
        response = response.header("Content-Type", self.type_of(path));
        let (start, length) = match verdict {
            Verdict::Part(Range { start, end }) => {
                let range = format!("bytes {start}-{}/{}", end - 1, opened.length);
                response = response.header("Content-Range", range);
                (start, end - start)
            }
            _ => (0, opened.length),
        };
        let response = response.header("Content-Length", length.to_string());
        let file = opened.from(start, length)?;
        Ok(Answer(Kind::File(response, file)))
    }

    /// Finds the file that `asked` stands for.
    fn below(&self, asked: &str) -> Result<PathBuf, HttpError> {
        let mut path = self.root.clone();
        for part in asked.split('/').filter(|part| !part.is_empty() && *part != ".") {
            if part.starts_with('.') || part.contains('\0') {
                return Err(nothing());
            }
            path.push(part);
        }
        // If the directory may not be searched, the client is told that the file does not exist.
        let path = path.canonicalize().map_err(|_| nothing())?;
        let inside = path.strip_prefix(&self.root).map_err(|_| nothing())?;
        if inside.iter().any(|part| part.as_encoded_bytes().starts_with(b".")) { Err(nothing()) } else { Ok(path) }
    }

    /// Tells whether `asked` stands for a directory. Returns `None` if it stands for nothing that is served.
    fn is_directory(&self, asked: &str) -> Option<bool> {
        let about = fs::metadata(self.below(asked).ok()?).ok()?;
        (about.is_dir() || about.is_file()).then_some(about.is_dir())
    }

    fn type_of(&self, path: &Path) -> &str {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let extension = extension.to_ascii_lowercase();
        let own = self.types.iter().rev().find(|(other, _)| *other == extension);
        own.map_or_else(|| media::type_of(&extension), |(_, media_type)| media_type)
    }
}

impl Opened {
    fn open(path: &Path) -> io::Result<Opened> {
        // A pipe may have replaced the file since. This keeps it from blocking.
        let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(Errno::ENOENT.into());
        }
        Ok(Opened { file, length: about.len(), changed: about.modified().ok() })
    }

    fn from(mut self, start: u64, length: u64) -> io::Result<io::Take<File>> {
        if start > 0 {
            io::Seek::seek(&mut self.file, io::SeekFrom::Start(start))?;
        }
        Ok(self.file.take(length))
    }
}

/// What a slash at the end of the request's path means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slash {
    /// A directory. The path of the request is the path of the file.
    Directory,
    /// Nothing, because a handler has chosen the file.
    Nothing,
}

/// Reads a piece, usually with one call. `read_to_end` would begin with a few bytes, because it does not know the
/// length.
pub(super) fn read_piece(file: &mut io::Take<File>) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; file.limit().min(PIECE) as usize];
    let mut filled = 0;
    while filled < piece.len() {
        match file.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(filled);
    Ok(piece)
}

/// Adds the slash that relative links in the directory's page need.
fn redirect(request: &Request) -> Answer {
    let query = request.query().map_or(String::new(), |query| format!("?{query}"));
    let target = format!("{}/{query}", request.path());
    Response::new(301).header("Location", target).page("it is a directory").into_answer()
}

fn nothing() -> HttpError {
    HttpError::new(404, NOTHING)
}

/// Returns the error for a file that exists but can't be opened. A shortage in this server says nothing about the file.
fn refused(error: &io::Error) -> HttpError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) => {
            HttpError::new(503, "too busy").caused_by(io::Error::new(error.kind(), error.to_string()))
        }
        Some(Errno::EACCES | Errno::EPERM) => HttpError::new(403, "not for everybody"),
        Some(Errno::ENOENT | Errno::ENOTDIR) => nothing(),
        _ => HttpError::new(500, "the file can't be read").caused_by(io::Error::new(error.kind(), error.to_string())),
    }
}

/// How many bytes of a file are read at a time.
const PIECE: u64 = 64 * 1024;
