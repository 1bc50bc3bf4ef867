//! From a request to a file below the root, and to nothing else.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use lenore::filter::http::{Request, Response, format_date, parse_date};
use nix::errno::Errno;

/// What is served.
pub struct Site {
    /// Without symbolic links. `None` if there are no files.
    root: Option<PathBuf>,
}

/// A response, and the file to be streamed behind it.
pub struct Answer {
    pub response: Response,
    pub file: Option<io::Take<File>>,
}

/// The status of a response without a file, and what it says.
type Refused = (u16, &'static str);

impl Answer {
    /// Closes the connection behind it.
    pub fn last(self) -> Answer {
        Answer { response: self.response.close(), ..self }
    }
}

impl From<Response> for Answer {
    fn from(response: Response) -> Answer {
        Answer { response, file: None }
    }
}

impl Site {
    pub fn new(root: Option<PathBuf>) -> io::Result<Site> {
        let canonical = |root: PathBuf| {
            let explain = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", root.display()));
            fs::read_dir(&root).and_then(|_| root.canonicalize()).map_err(explain)
        };
        Ok(Site { root: root.map(canonical).transpose()? })
    }

    pub fn answer(&self, request: &Request) -> Answer {
        if !["GET", "HEAD"].contains(&request.method()) {
            return request.reply(405).header("Allow", "GET, HEAD").page("files can be read").into();
        }
        if request.path() == "/hello" {
            return request.reply(200).header("Content-Type", "text/plain").body("hello\n").into();
        }
        self.find(request).unwrap_or_else(|(status, detail)| request.reply(status).page(detail).into())
    }

    fn find(&self, request: &Request) -> Result<Answer, Refused> {
        let asked = decode(request.path()).ok_or((400, "malformed path"))?;
        let root = self.root.as_deref().ok_or(NOTHING)?;
        let mut path = below(root, &asked)?;
        let mut about = fs::metadata(&path).map_err(|error| refused(&error))?;
        if about.is_dir() {
            if !asked.ends_with('/') {
                let query = request.query().map_or(String::new(), |query| format!("?{query}"));
                let target = format!("{}/{query}", request.path());
                return Ok(request.reply(301).header("Location", target).page("it is a directory").into());
            }
            path = below(root, &format!("{asked}index.html"))?;
            about = fs::metadata(&path).map_err(|error| refused(&error))?;
        } else if asked.ends_with('/') {
            return Err(NOTHING);
        }
        // A pipe would block, and a device never end.
        if !about.is_file() {
            return Err(NOTHING);
        }
        let file = File::open(&path).map_err(|error| refused(&error))?;
        let about = file.metadata().map_err(|_| (500, "the file can't be read"))?;
        let length = about.len();
        let changed = about.modified().ok().map(whole_seconds);
        // There are no entity tags here, so none of the client's is known; that counts, and its time doesn't any more.
        let has_tag = request.header("If-None-Match").is_some();
        let known = request.header("If-Modified-Since").filter(|_| !has_tag).and_then(parse_date);
        let is_known = changed.zip(known).is_some_and(|(changed, known)| changed <= known);
        let mut response = request.reply(if is_known { 304 } else { 200 });
        if let Some(changed) = changed {
            response = response.header("Last-Modified", format_date(changed));
        }
        if is_known {
            return Ok(response.into());
        }
        response = response.header("Content-Type", content_type(&path)).header("Content-Length", length.to_string());
        if request.method() == "HEAD" {
            return Ok(response.into());
        }
        Ok(Answer { response: response.streamed(), file: Some(file.take(length)) })
    }
}

/// Finds what `asked` stands for. What is not below the root does not exist: not with `..`, not by symbolic links. Nor do
/// files and directories whose names begin with a dot: they are their owner's, `.git` and `.htpasswd` among them.
///
/// A user who can put symbolic links below the root while this runs can get around it.
fn below(root: &Path, asked: &str) -> Result<PathBuf, Refused> {
    let mut path = root.to_owned();
    for part in asked.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part.starts_with('.') || part.contains('\0') {
            return Err(NOTHING);
        }
        path.push(part);
    }
    // What is in a directory that may not be searched does not exist either.
    let path = path.canonicalize().map_err(|_| NOTHING)?;
    let inside = path.strip_prefix(root).map_err(|_| NOTHING)?;
    if inside.iter().any(|part| part.as_encoded_bytes().starts_with(b".")) { Err(NOTHING) } else { Ok(path) }
}

/// Why a file that is there can't be opened. That this server is out of something says nothing of the file.
fn refused(error: &io::Error) -> Refused {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) => {
            log::error!("a file can't be opened: {error}");
            (503, "too busy")
        }
        Some(Errno::EACCES | Errno::EPERM) => (403, "not for everybody"),
        Some(Errno::ENOENT) => NOTHING,
        _ => (500, "the file can't be read"),
    }
}

/// Decodes `%2e` and the like; `None` if they make no sense, or no text.
fn decode(path: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'%' {
            decoded.push(octet);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        decoded.push((digit()? << 4 | digit()?) as u8);
    }
    String::from_utf8(decoded).ok()
}

/// A file's time may be more exact than a header can say.
fn whole_seconds(time: SystemTime) -> SystemTime {
    time.duration_since(UNIX_EPOCH).map_or(time, |since| UNIX_EPOCH + std::time::Duration::from_secs(since.as_secs()))
}

fn content_type(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "txt" | "md" | "rs" => "text/plain; charset=utf-8",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        _ => "application/octet-stream",
    }
}

const NOTHING: Refused = (404, "nothing has this name");
