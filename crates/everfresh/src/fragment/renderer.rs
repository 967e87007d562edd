//! Renders a page with Tera, with placeholders for its fragments.
//!
//! Tera's functions cannot await, and a page has many fragments, which are to be fetched together.
//! So a page is rendered with a placeholder for each fragment that has not been fetched yet. Then
//! all of these fragments are fetched at once and take the places of their placeholders. If some
//! are missing from the cache, the page is rendered again with the fragments that are known by
//! then. The bodies of the missing fragments may contain further fragments, which get placeholders
//! in that run.
//!
//! This module does not access a cache.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tera::{Error, Kwargs, State, Tera, TeraResult, Value};

use super::{
    arguments::not_a_timeout,
    digest,
    key::append_key,
    lower::{CacheTag, LOOKUP, MISSED, STORE},
    page::{CachedFragment, Fragment, FragmentRequest, RenderedFragment, RenderedPage},
    placeholder::Placeholders,
};
use crate::{
    backend::frame::{FingerprintKey, Stamp},
    cache::{
        Cache,
        lifetime::Lifetime,
        near::{Near, NearValue},
    },
    freshness::computation::is_made_of_new_value,
};

/// The number of fragments that are rendered, because they are likely to be new, before others are fetched.
const MAX_AT_ONCE: usize = 2;

/// A `{% cache %}` tag in a template.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) template: String,
    line: usize,
    has_fingerprint: bool,
    /// The digest of the template, which entries must match to be served.
    pub(super) schema: u64,
    /// Whether the last body consisted mostly of other fragments that this process keeps. To put it together takes
    /// less than to fetch it, so the servers are neither asked for it nor sent it.
    is_assembled: Arc<AtomicBool>,
}

impl Site {
    pub(super) fn new(template: &str, tag: &CacheTag) -> Self {
        let CacheTag { line, has_fingerprint } = *tag;
        let template = template.to_owned();
        Self { template, line, has_fingerprint, schema: 0, is_assembled: Arc::default() }
    }

    pub(super) fn versioned_by(&self, version: &str) -> Self {
        Self { schema: digest::versioned(self.schema, version), ..self.clone() }
    }

    fn error(&self, message: &str) -> Error {
        Error::message(format!("template {:?}, line {}: {message}", self.template, self.line))
    }
}

/// The cache for which a page is rendered.
#[derive(Debug)]
pub(super) struct Scope {
    /// The prefix of keys.
    prefix: String,
    default_lifetime: Option<Duration>,
    fingerprint_key: FingerprintKey,
    near: Near,
    /// Whether the page is made of a value that was computed for it.
    is_of_new_value: bool,
}

impl Scope {
    pub(super) fn of(cache: &Cache) -> Self {
        Self {
            prefix: cache.prefix().to_owned(),
            default_lifetime: cache.resolve(Lifetime::Default).fresh,
            fingerprint_key: cache.entries().fingerprint_key(),
            near: cache.near().clone(),
            is_of_new_value: is_made_of_new_value(),
        }
    }
}

/// Renders one page, as often as it takes, and remembers the fragments that it has learned.
#[derive(Debug)]
pub(super) struct Renderer {
    sites: Arc<[Site]>,
    scope: Arc<Scope>,
    near_hits: usize,
    near_bytes: usize,
    /// The number of fragments that were rendered without asking for them, in this run.
    at_once: usize,
    /// The cache's replies so far, by key.
    known: HashMap<String, CachedFragment>,
    placeholders: Placeholders,
    /// Whether a fragment that is not known gets a placeholder. Otherwise its body is rendered.
    may_defer: bool,
    /// Whether the body of the fragment that was looked up last must be rendered.
    missed: bool,
    /// The fragments that are being rendered, the innermost last.
    in_progress: Vec<Body>,
    requests: Vec<FragmentRequest>,
    fragments: Vec<RenderedFragment>,
    deleted: Vec<String>,
}

/// A fragment that is being rendered.
#[derive(Debug)]
struct Body {
    /// `None` if the fragment will not be stored.
    request: Option<FragmentRequest>,
    begun: Instant,
    /// The bytes of fragments within it that this process keeps.
    kept: usize,
}

thread_local! {
    /// The renderer of the page that this thread is rendering. Tera hands no state of ours to
    /// filters and functions; rendering contains no await, so that one page is finished or has
    /// failed before the thread begins another.
    static CURRENT: RefCell<Option<Renderer>> = const { RefCell::new(None) };
}

/// Puts the previous renderer back into [`CURRENT`] when dropped, also if rendering panics.
struct Restore(Option<Renderer>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.replace(self.0.take());
    }
}

impl Renderer {
    pub(super) fn new(sites: Arc<[Site]>, scope: Arc<Scope>) -> Self {
        Self {
            sites,
            scope,
            near_hits: 0,
            near_bytes: 0,
            at_once: 0,
            known: HashMap::new(),
            placeholders: Placeholders::new(),
            may_defer: true,
            missed: true,
            in_progress: Vec::new(),
            requests: Vec::new(),
            fragments: Vec::new(),
            deleted: Vec::new(),
        }
    }

    /// Renders the page once. With `may_defer`, fragments that are not known get placeholders.
    pub(super) fn run(
        &mut self,
        may_defer: bool,
        render: impl FnOnce() -> TeraResult<String>,
    ) -> RenderedPage {
        // The filters and functions reach this renderer through CURRENT only.
        let empty = Self::new(Arc::clone(&self.sites), Arc::clone(&self.scope));
        let current = Self { may_defer, at_once: 0, ..std::mem::replace(self, empty) };
        let restore = Restore(CURRENT.replace(Some(current)));
        let page = render();
        if let Some(current) = CURRENT.take() {
            *self = current;
        }
        drop(restore);
        // After an error some bodies are unfinished; the next run must not see them.
        self.in_progress.clear();
        RenderedPage {
            page,
            placeholders: self.placeholders.clone(),
            requests: std::mem::take(&mut self.requests),
            fragments: std::mem::take(&mut self.fragments),
            near_hits: std::mem::take(&mut self.near_hits),
            near_bytes: std::mem::take(&mut self.near_bytes),
            deleted: std::mem::take(&mut self.deleted),
        }
    }

    /// Remembers the cache's replies for the next run.
    pub(super) fn learn(&mut self, requests: Vec<FragmentRequest>, found: Vec<CachedFragment>) {
        self.known.extend(requests.into_iter().map(|request| request.key).zip(found));
    }

    /// Returns the fragment if it is known, a placeholder if it can be fetched later, and an empty
    /// value if its body must be rendered.
    fn look_up(&mut self, arguments: &[Value], state: &State) -> TeraResult<Value> {
        let TagValues { site, key, stamp, timeout, has_fingerprint } =
            TagValues::read(arguments, &self.sites, &self.scope, state)?;
        let is_assembled = self.sites[site].is_assembled.load(Ordering::Relaxed);
        self.missed = true;
        let lifetime = match timeout {
            Timeout::Lifetime(Lifetime::For(Duration::ZERO)) => return Ok(self.begin_body(None)),
            Timeout::Lifetime(lifetime) => lifetime,
            Timeout::Delete => {
                self.deleted.push(key);
                return Ok(self.begin_body(None));
            }
        };
        let is_proven =
            has_fingerprint && lifetime.resolve(self.scope.default_lifetime).fresh.is_none();
        let near = (is_proven && !self.scope.near.is_off())
            .then(|| digest::of_fragment(&key, stamp, self.scope.fingerprint_key));
        if let Some(NearValue::Fragment(body)) = near.and_then(|name| self.scope.near.get(name)) {
            self.missed = false;
            self.near_hits += 1;
            let length = body.as_str().map_or(0, str::len);
            self.near_bytes += length;
            self.contains_kept(length);
            return Ok(body);
        }
        let request = FragmentRequest { site, key, stamp, lifetime, near };
        match self.known.get(&request.key) {
            Some(cached @ CachedFragment::Found(_)) => match cached.content(stamp) {
                Some(content) => {
                    let (content, length) = (content.value().clone(), content.text().len());
                    self.missed = false;
                    if near.is_some() {
                        self.contains_kept(length);
                    }
                    Ok(content)
                }
                None => Ok(self.begin_body(Some(request))),
            },
            None if near.is_some() && is_assembled => Ok(self.begin_body(Some(request))),
            None if self.may_defer && !self.is_rendered_at_once(request.near) => {
                self.missed = false;
                let placeholder = self.placeholders.numbered(self.requests.len());
                if near.is_some() {
                    self.contains_kept(placeholder.as_str().map_or(0, str::len));
                }
                self.requests.push(request);
                Ok(placeholder)
            }
            None if self.may_defer => {
                self.at_once += 1;
                Ok(self.begin_body(Some(request)))
            }
            // The backend failed, or this is the last run, after which no more fragments are
            // fetched: the fragment is rendered and not stored.
            None | Some(CachedFragment::Unavailable) => Ok(self.begin_body(None)),
        }
    }

    /// Returns whether a fragment that this process does not have is rendered rather than fetched: one of the first
    /// within a missing fragment, or of a new value, if this process would otherwise have it. After a write, it is the
    /// one that has changed; fetching it would take a round trip, in vain, and another run.
    fn is_rendered_at_once(&self, near: Option<u128>) -> bool {
        let is_likely_new = self.scope.is_of_new_value || !self.in_progress.is_empty();
        near.is_some() && is_likely_new && self.at_once < MAX_AT_ONCE
    }

    /// Notes that the body of a fragment is rendered next, and returns the empty value that
    /// stands for it. The fragment is stored if there is a request.
    fn begin_body(&mut self, request: Option<FragmentRequest>) -> Value {
        self.in_progress.push(Body { request, begun: Instant::now(), kept: 0 });
        Value::from("")
    }

    fn end_body(&mut self, body: &Value) {
        let Some(Body { request, begun, kept }) = self.in_progress.pop() else { return };
        let body = Fragment::of_rendered(body);
        let length = body.text().len();
        let is_kept = request.as_ref().is_some_and(|request| request.near.is_some());
        self.contains_kept(if is_kept { length } else { kept });
        let Some(request) = request else { return };
        let is_assembled = is_kept && kept > length / 2;
        self.sites[request.site].is_assembled.store(is_assembled, Ordering::Relaxed);
        let took = begun.elapsed();
        self.fragments.push(RenderedFragment { request, body, took, is_assembled });
    }

    /// Notes that the fragment that is being rendered contains another one, which this process keeps.
    fn contains_kept(&mut self, bytes: usize) {
        if let Some(around) = self.in_progress.last_mut() {
            around.kept += bytes;
        }
    }
}

/// The values of a tag's arguments at one execution of the tag.
struct TagValues {
    /// The number of the tag.
    site: usize,
    key: String,
    stamp: Stamp,
    timeout: Timeout,
    has_fingerprint: bool,
}

enum Timeout {
    Lifetime(Lifetime),
    Delete,
}

impl TagValues {
    /// Reads the list that [`lower`](super::lower::lower) passes to the lookup filter: the tag's
    /// number, the timeout, the name, the VARY values and, if the tag has it, the value of `of`.
    fn read(arguments: &[Value], sites: &[Site], scope: &Scope, state: &State) -> TeraResult<Self> {
        let number = arguments.first().and_then(Value::as_u64);
        let number = number.and_then(|number| usize::try_from(number).ok()).unwrap_or(usize::MAX);
        let (Some(site), [_, timeout, name, rest @ ..]) = (sites.get(number), arguments) else {
            return Err(Error::message(format!(
                "the filter `{LOOKUP}` is for internal use; write `{{% cache %}}`"
            )));
        };
        let (vary, of) = match rest {
            [vary @ .., of] if site.has_fingerprint => (vary, Some(of)),
            vary => (vary, None),
        };

        // An undefined value would give one key to fragments that differ.
        let undefined =
            |argument: &str| site.error(&format!("{argument} of `{{% cache %}}` is undefined"));
        if name.is_undefined() {
            return Err(undefined("NAME"));
        }
        if let Some(at) = vary.iter().position(Value::is_undefined) {
            return Err(undefined(&format!("VARY value {}", at + 1)));
        }
        if of.is_some_and(Value::is_undefined) {
            return Err(undefined("the value of argument `of`"));
        }
        let timeout = parse_timeout(timeout).ok_or_else(|| site.error(&not_a_timeout(timeout)))?;

        let mut key = String::with_capacity(scope.prefix.len() + 32);
        key.push_str(&scope.prefix);
        append_key(&mut key, std::iter::once(name).chain(vary));
        // An escaped fragment is wrong on a page without autoescaping, and an unescaped one on a
        // page with autoescaping would be a hole: the two have different schemas.
        let schema = if state.autoescaping_enabled() { site.schema } else { !site.schema };
        let fingerprint = of.map_or(0, |of| digest::of_value(of, scope.fingerprint_key));
        let has_fingerprint = of.is_some();
        Ok(Self {
            site: number,
            key,
            stamp: Stamp { schema, fingerprint },
            timeout,
            has_fingerprint,
        })
    }
}

fn parse_timeout(value: &Value) -> Option<Timeout> {
    let lifetime = match value.as_str() {
        Some("del") => return Some(Timeout::Delete),
        Some("default") => Lifetime::Default,
        None if value.is_none() => Lifetime::Forever,
        None if value.is_number() => {
            Lifetime::For(Duration::try_from_secs_f64(value.as_f64()?).ok()?)
        }
        _ => return None,
    };
    Some(Timeout::Lifetime(lifetime))
}

/// Adds the filters and the function that lowered templates call. When a template is rendered
/// directly by Tera, not by [`Templates`](super::Templates), every body is rendered and no
/// fragment is stored.
pub(super) fn register(tera: &mut Tera) {
    tera.register_filter(LOOKUP, |arguments: &[Value], _: Kwargs, state: &State| {
        CURRENT.with_borrow_mut(|current| match current {
            Some(renderer) => renderer.look_up(arguments, state),
            None => Ok(Value::from("")),
        })
    });
    tera.register_function(MISSED, |_: Kwargs, _: &State| {
        CURRENT.with_borrow(|current| current.as_ref().is_none_or(|renderer| renderer.missed))
    });
    tera.register_filter(STORE, |body: Value, _: Kwargs, _: &State| {
        CURRENT.with_borrow_mut(|current| {
            if let Some(renderer) = current {
                renderer.end_body(&body);
            }
        });
        body
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_may_be_a_fraction_of_a_second() {
        let half = Duration::from_millis(500);
        let timeout = parse_timeout(&Value::from(0.5));
        assert!(matches!(timeout, Some(Timeout::Lifetime(Lifetime::For(time))) if time == half));
    }
}
