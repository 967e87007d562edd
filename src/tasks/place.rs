//! Places in the list: a filter and the number of a page, and their URLs. Pure.

use std::fmt;

use serde::Serialize;

/// The tasks that a list shows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Filter {
    #[default]
    All,
    Active,
    Completed,
}

impl Filter {
    pub(crate) const EACH: [Self; 3] = [Self::All, Self::Active, Self::Completed];

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::All => "/",
            Self::Active => "/active",
            Self::Completed => "/completed",
        }
    }
}

/// One page of one list; pages count from 1. Its text is the URL.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) filter: Filter,
    pub(crate) page: u64,
}

impl Default for Place {
    fn default() -> Self {
        Self { filter: Filter::All, page: 1 }
    }
}

impl Place {
    /// Parses a path and query. A page that is no positive number is the first. Returns `None` if this is
    /// not the path of a list.
    pub(crate) fn from_url(path_and_query: &str) -> Option<Self> {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let filter = Filter::EACH.into_iter().find(|filter| filter.path() == path)?;
        let page = query.split('&').find_map(|pair| pair.strip_prefix("page="));
        let page = page.filter(|page| page.bytes().all(|byte| byte.is_ascii_digit()));
        let page = page.and_then(|page| page.parse().ok()).filter(|page| *page > 0);
        Some(Self { filter, page: page.unwrap_or(1) })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.filter.path())?;
        if self.page > 1 { write!(f, "?page={}", self.page) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_parsed_from_its_url() {
        for url in ["/", "/active", "/completed?page=3", "/?page=18446744073709551615"] {
            assert_eq!(Place::from_url(url).unwrap().to_string(), url);
        }
    }

    #[test]
    fn a_page_that_is_no_positive_number_is_the_first() {
        for query in
            ["", "page=", "page=0", "page=-1", "page=+2", "page=x", "page=99999999999999999999"]
        {
            assert_eq!(Place::from_url(&format!("/active?{query}")).unwrap().page, 1, "{query}");
        }
    }

    #[test]
    fn other_paths_are_no_places() {
        for url in
            ["", "//", "/cache", "/7/edit", "https://other.example/", "//other.example/active"]
        {
            assert_eq!(Place::from_url(url), None, "{url}");
        }
    }
}
