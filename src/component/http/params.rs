//! The parameters of a route, with names and values.

use std::fmt;

/// The parameters of a route for one path. However many there are, they take two allocations, and none if there are
/// none.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Params {
    /// Each name, followed by its value.
    text: String,
    /// Where each name ends, and where its value ends.
    ends: Vec<(usize, usize)>,
}

impl Params {
    /// Returns the value of the first parameter with this name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut begin = 0;
        self.ends.iter().map(move |&(middle, end)| {
            let begin = std::mem::replace(&mut begin, end);
            (&self.text[begin..middle], &self.text[middle..end])
        })
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Params {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(params: I) -> Params {
        let mut made = Params::default();
        for (name, value) in params {
            made.text.push_str(name);
            let middle = made.text.len();
            made.text.push_str(value);
            made.ends.push((middle, made.text.len()));
        }
        made
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_are_found_by_their_names() {
        let params: Params = [("id", "7"), ("empty", ""), ("7", "id"), ("id", "8")].into_iter().collect();
        for (name, value) in [("id", Some("7")), ("empty", Some("")), ("7", Some("id")), ("", None), ("i", None)] {
            assert_eq!(params.get(name), value, "{name}");
        }
        assert_eq!(format!("{params:?}"), r#"{"id": "7", "empty": "", "7": "id", "id": "8"}"#);
        assert_eq!(Params::default().get("id"), None);
    }
}
