//! Which compressed form of a file a client accepts.

use crate::filter::http::Request;

/// A content coding of files that were compressed beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Brotli,
    Gzip,
}

impl Coding {
    pub(super) fn name(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Gzip => "gzip",
        }
    }

    pub(super) fn extension(self) -> &'static str {
        match self {
            Coding::Brotli => ".br",
            Coding::Gzip => ".gz",
        }
    }
}

/// Returns the codings that the client accepts, the best first.
pub(super) fn accepted(request: &Request) -> impl Iterator<Item = Coding> {
    let lists: Vec<&str> =
        request.headers().get_all("Accept-Encoding").filter_map(|list| str::from_utf8(list).ok()).collect();
    [Coding::Brotli, Coding::Gzip].into_iter().filter(move |coding| takes(&lists, coding.name()))
}

fn takes(lists: &[&str], name: &str) -> bool {
    let mut any = false;
    for item in lists.iter().flat_map(|list| list.split(',')) {
        let (coding, params) = item.split_once(';').unwrap_or((item, ""));
        let weight = params.trim().strip_prefix("q=").and_then(|weight| weight.trim().parse::<f32>().ok());
        let is_wanted = weight.is_none_or(|weight| weight > 0.0);
        match coding.trim() {
            coding if coding.eq_ignore_ascii_case(name) => return is_wanted,
            "*" => any = is_wanted,
            _ => {}
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::takes;

    #[test]
    fn takes_heeds_weights_and_the_star() {
        for (list, br, gzip) in [
            ("", false, false),
            ("gzip, deflate, br", true, true),
            ("gzip;q=0.5, br;q=0", false, true),
            ("*", true, true),
            ("*;q=0, GZIP", false, true),
            ("br;q=0, *", false, true),
            ("identity", false, false),
        ] {
            assert_eq!((takes(&[list], "br"), takes(&[list], "gzip")), (br, gzip), "{list}");
        }
        assert!(takes(&["deflate", "br"], "br"));
    }
}
