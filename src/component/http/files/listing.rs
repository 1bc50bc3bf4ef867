//! The page with the names in a directory.

use std::fs;
use std::io;
use std::path::Path;

use super::super::answer::{Answer, IntoAnswer};
use super::super::path;
use super::super::request::Request;
use crate::filter::http::{Response, markup};

/// Makes the page of a directory. `is_directory` tells whether a name stands for a directory, or returns `None` if it
/// is not served.
pub(super) fn page(
    request: &Request,
    directory: &Path,
    is_directory: impl Fn(&str) -> Option<bool>,
) -> io::Result<Answer> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        // Requests can only have names in UTF-8.
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let Some(is_directory) = is_directory(&name) else { continue };
        names.push(format!("{name}{}", if is_directory { "/" } else { "" }));
    }
    names.sort();
    let title = markup::text(request.path());
    let mut page = format!("<html><head><title>{title}</title></head>\n<body><h1>{title}</h1>\n<ul>\n");
    for name in names {
        let (plain, slash) = name.strip_suffix('/').map_or((name.as_str(), ""), |plain| (plain, "/"));
        // The link begins with a dot, because a name may have a colon.
        page.push_str(&format!("<li><a href=\"./{}{slash}\">{}</a></li>\n", path::encode(plain), markup::text(&name)));
    }
    page.push_str("</ul></body></html>\n");
    Ok(Response::new(200).header("Content-Type", "text/html; charset=utf-8").body(page).into_answer())
}
