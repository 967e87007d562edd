//! A rendered page, the fragments that it still needs, and the fragments that were rendered for it.

use std::time::Duration;

use tera::{TeraResult, Value};

use super::placeholder::Placeholders;
use crate::{backend::frame::Stamp, cache::lifetime::Lifetime};

/// A fragment that a page needs.
#[derive(Clone, Debug)]
pub(super) struct FragmentRequest {
    /// The number of its tag.
    pub(super) site: usize,
    /// The full key, with the cache's prefix.
    pub(super) key: String,
    pub(super) stamp: Stamp,
    pub(super) lifetime: Lifetime,
    /// Its name among the fragments that this process keeps, if it may be kept.
    pub(super) near: Option<u128>,
}

/// The text of a fragment in the form of templates, marked as safe. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Fragment(Value);

impl Fragment {
    /// `None` if the bytes are not UTF-8.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        str::from_utf8(bytes).ok().map(Self::from)
    }

    /// Returns the text that Tera has rendered.
    pub(super) fn of_rendered(text: &Value) -> Self {
        Self(text.clone().mark_safe())
    }

    pub(super) fn text(&self) -> &str {
        self.0.as_str().unwrap_or_default()
    }

    pub(super) fn value(&self) -> &Value {
        &self.0
    }
}

impl From<&str> for Fragment {
    fn from(text: &str) -> Self {
        Self(Value::safe_string(text))
    }
}

/// The cache's reply for one key.
#[derive(Clone, Debug)]
pub(super) enum CachedFragment {
    /// The entry under the key, if there is one.
    Found(Option<(Stamp, Fragment)>),
    /// The backend failed, so it is unknown whether there is an entry.
    Unavailable,
}

impl CachedFragment {
    /// Returns the fragment if its stamp is `stamp`.
    pub(super) fn content(&self, stamp: Stamp) -> Option<&Fragment> {
        match self {
            Self::Found(Some((found, body))) if *found == stamp => Some(body),
            _ => None,
        }
    }
}

/// A fragment that was rendered because it was missing, to be stored.
#[derive(Debug)]
pub(super) struct RenderedFragment {
    pub(super) request: FragmentRequest,
    pub(super) body: Fragment,
    pub(super) took: Duration,
    /// Whether it consists mostly of other fragments that this process keeps, so that it is kept here only.
    pub(super) is_assembled: bool,
}

/// The result of rendering a page once.
#[derive(Debug)]
pub(super) struct RenderedPage {
    /// The page, with a placeholder for each request; or Tera's error, which a placeholder may
    /// have caused.
    pub(super) page: TeraResult<String>,
    pub(super) placeholders: Placeholders,
    /// The fragments that the placeholders stand for, in the order of their numbers.
    pub(super) requests: Vec<FragmentRequest>,
    pub(super) fragments: Vec<RenderedFragment>,
    /// The number and bytes of the fragments that this process has kept.
    pub(super) near_hits: usize,
    pub(super) near_bytes: usize,
    /// The keys that the page deletes with the timeout `"del"`.
    pub(super) deleted: Vec<String>,
}

impl RenderedPage {
    /// Replaces the placeholders by the fragments in `found`, which are in the order of the
    /// requests. Returns `false`, and leaves the page unchanged, if a fragment is missing or if the
    /// placeholders in the page are not all there, each once and in order: a filter, for example,
    /// may have altered them.
    pub(super) fn splice(&mut self, found: &[CachedFragment]) -> bool {
        let Ok(page) = &self.page else { return false };
        let contents: Option<Vec<&str>> = found
            .iter()
            .zip(&self.requests)
            .map(|(cached, request)| cached.content(request.stamp).map(Fragment::text))
            .collect();
        let Some(contents) = contents else { return false };

        let length = page.len() + contents.iter().map(|content| content.len()).sum::<usize>();
        let replaced = self.placeholders.replace(page, length, &contents);
        let Some((spliced, numbers)) = replaced else { return false };
        if !numbers.into_iter().eq(0..contents.len()) {
            return false;
        }

        // The rendered fragments are stored, so a placeholder must not be left in them either.
        let mut bodies = Vec::with_capacity(self.fragments.len());
        for RenderedFragment { body, .. } in &self.fragments {
            // Most bodies contain no other fragment, so their length is right for the new one.
            match self.placeholders.replace(body.text(), body.text().len(), &contents) {
                Some((_, numbers)) if numbers.is_empty() => bodies.push(body.clone()),
                Some((body, _)) => bodies.push(Fragment::from(&*body)),
                None => return false,
            }
        }

        // Both are complete: only now is anything changed.
        self.page = Ok(spliced);
        for (fragment, body) in self.fragments.iter_mut().zip(bodies) {
            fragment.body = body;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { schema: 1, fingerprint: 2 };
    const PREFIX: &str = "\u{1}0123456789ab";

    /// A page that has requested two fragments. `@` stands for the prefix of its placeholders.
    fn rendered(page: &str) -> RenderedPage {
        let request = FragmentRequest {
            site: 0,
            key: "k".to_owned(),
            stamp: STAMP,
            lifetime: Lifetime::Forever,
            near: None,
        };
        RenderedPage {
            page: Ok(page.replace('@', PREFIX)),
            placeholders: Placeholders::with_prefix(PREFIX),
            requests: vec![request; 2],
            fragments: Vec::new(),
            near_hits: 0,
            near_bytes: 0,
            deleted: Vec::new(),
        }
    }

    fn found() -> [CachedFragment; 2] {
        ["one", "two"].map(|content| CachedFragment::Found(Some((STAMP, content.into()))))
    }

    #[test]
    fn a_fragment_takes_the_place_of_its_placeholder() {
        let mut rendered = rendered("é@00000000é@00000001");
        assert!(rendered.splice(&found()));
        assert_eq!(rendered.page.unwrap(), "éoneétwo");
    }

    #[test]
    fn text_that_resembles_a_placeholder_stays() {
        let lookalike = "\u{1}\u{1}0123456789ac00000000\u{1}";
        let mut rendered = rendered(&format!("{lookalike}@00000000{lookalike}@00000001\u{1}"));
        assert!(rendered.splice(&found()));
        let expected = format!("{lookalike}one{lookalike}two\u{1}");
        assert_eq!(rendered.page.unwrap(), expected);
    }

    #[test]
    fn a_page_with_altered_placeholders_is_not_changed() {
        for page in [
            "@00000000",
            "@00000001@00000000",
            "@00000000@00000000",
            "@00000000@00000001@00000000",
            "@00000000@00000002",
            "@00000000@0000000g",
            "@00000000@0000001",
            "@00000000@0000000é",
            "@00000000@",
        ] {
            let mut rendered = rendered(page);
            let before = rendered.page.as_ref().unwrap().clone();
            assert!(!rendered.splice(&found()), "{page}");
            assert_eq!(rendered.page.unwrap(), before);
        }
    }

    #[test]
    fn rendered_fragments_are_stored_without_placeholders() {
        let fragment = |body: &str| RenderedFragment {
            request: FragmentRequest {
                site: 0,
                key: "f".to_owned(),
                stamp: STAMP,
                lifetime: Lifetime::Forever,
                near: None,
            },
            body: Fragment::from(&*body.replace('@', PREFIX)),
            took: Duration::ZERO,
            is_assembled: false,
        };
        let mut outer = rendered("@00000000@00000001");
        outer.fragments = vec![fragment("[@00000001]"), fragment("plain")];
        assert!(outer.splice(&found()));
        let bodies: Vec<_> = outer.fragments.iter().map(|fragment| fragment.body.text()).collect();
        assert_eq!(bodies, ["[two]", "plain"]);

        outer = rendered("@00000000@00000001");
        outer.fragments = vec![fragment("[@0000")];
        assert!(!outer.splice(&found()));
    }

    #[test]
    fn a_page_is_not_changed_if_a_fragment_is_missing_or_has_another_stamp() {
        let other = Stamp { fingerprint: 3, ..STAMP };
        for cached in [
            CachedFragment::Unavailable,
            CachedFragment::Found(None),
            CachedFragment::Found(Some((other, "x".into()))),
        ] {
            let [one, _] = found();
            assert!(!rendered("@00000000@00000001").splice(&[one, cached]));
        }
    }
}
