//! What happens while Tera renders.
//!
//! Tera's functions wait for nothing, and a page has many fragments. So a page is rendered with a
//! mark for each fragment that has not been asked for yet; all of these are asked for together,
//! and put where the marks are. If some are missing, the page is rendered again, with what is now
//! known; the bodies of those that are missing may hold further ones.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytestring::ByteString;
use tera::{Error, Kwargs, State, Tera, TeraResult, Value};

use super::{
    digest,
    lower::{LOOKUP, MISSED, STORE, Tag},
    splice::Marks,
};
use crate::{backend::frame::Stamp, cache::key::append_escaped, cache::lifetime::Lifetime};

/// One `{% cache %}`, and what its entries must match.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) template: String,
    line: usize,
    has_fingerprint: bool,
    /// The digest of the template.
    pub(super) schema: u64,
}

impl Site {
    pub(super) fn new(template: &str, tag: &Tag) -> Self {
        let Tag { line, has_fingerprint } = *tag;
        Self { template: template.to_owned(), line, has_fingerprint, schema: 0 }
    }

    pub(super) fn versioned_by(&self, version: &str) -> Self {
        Self { schema: digest::versioned(self.schema, version), ..self.clone() }
    }

    fn error(&self, message: &str) -> Error {
        Error::message(format!("template {:?}, line {}: {message}", self.template, self.line))
    }
}

/// A fragment that is wanted.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// As the backend knows it.
    pub(super) key: String,
    pub(super) stamp: Stamp,
    pub(super) lifetime: Lifetime,
}

/// What the cache has under a key.
#[derive(Clone, Debug)]
pub(super) enum Known {
    Found(Option<(Stamp, ByteString)>),
    /// It could not be asked.
    Unknown,
}

impl Known {
    /// The fragment, if it is one of this stamp.
    pub(super) fn content(&self, stamp: Stamp) -> Option<&str> {
        match self {
            Self::Found(Some((found, body))) if *found == stamp => Some(body),
            _ => None,
        }
    }
}

/// A fragment that has been rendered.
#[derive(Debug)]
pub(super) struct Filled {
    pub(super) asked: Asked,
    pub(super) body: String,
    pub(super) took: Duration,
}

/// A page, perhaps with marks, and what has come of it.
#[derive(Debug)]
pub(super) struct Rendered {
    /// Or what Tera complains of, which marks may have caused.
    pub(super) page: TeraResult<String>,
    pub(super) marks: Marks,
    /// The fragments that the marks stand for.
    pub(super) asked: Vec<Asked>,
    pub(super) filled: Vec<Filled>,
    /// Keys.
    pub(super) deleted: Vec<String>,
}

/// What is known while a page is rendered.
#[derive(Debug)]
pub(super) struct Pass {
    sites: Arc<[Site]>,
    prefix: String,
    known: HashMap<String, Known>,
    marks: Marks,
    /// Whether fragments may be left for later.
    may_ask: bool,
    /// Whether the body of the last fragment that was looked up is to be rendered.
    missed: bool,
    /// The fragments whose bodies are being rendered, the innermost last; `None` where it is not
    /// to be kept.
    open: Vec<Option<(Asked, Instant)>>,
    asked: Vec<Asked>,
    filled: Vec<Filled>,
    deleted: Vec<String>,
}

thread_local! {
    /// The page that is being rendered. Rendering is never interrupted.
    static CURRENT: RefCell<Option<Pass>> = const { RefCell::new(None) };
}

/// Puts back what was there before, also if rendering panics.
struct Restore(Option<Pass>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.replace(self.0.take());
    }
}

impl Pass {
    pub(super) fn new(sites: Arc<[Site]>, prefix: String) -> Self {
        Self {
            sites,
            prefix,
            known: HashMap::new(),
            marks: Marks::new(),
            may_ask: true,
            missed: true,
            open: Vec::new(),
            asked: Vec::new(),
            filled: Vec::new(),
            deleted: Vec::new(),
        }
    }

    /// Renders once; if `may_ask`, with marks for what is not known.
    pub(super) fn run(
        &mut self,
        may_ask: bool,
        render: impl FnOnce() -> TeraResult<String>,
    ) -> Rendered {
        let fresh = Self::new(Arc::clone(&self.sites), String::new());
        let current = Self { may_ask, ..std::mem::replace(self, fresh) };
        let restore = Restore(CURRENT.replace(Some(current)));
        let page = render();
        if let Some(current) = CURRENT.take() {
            *self = current;
        }
        drop(restore);
        // What an error has left open is not to be found by the next pass.
        self.open.clear();
        Rendered {
            page,
            marks: self.marks.clone(),
            asked: std::mem::take(&mut self.asked),
            filled: std::mem::take(&mut self.filled),
            deleted: std::mem::take(&mut self.deleted),
        }
    }

    pub(super) fn learn(&mut self, asked: Vec<Asked>, found: Vec<Known>) {
        self.known.extend(asked.into_iter().map(|asked| asked.key).zip(found));
    }

    /// The fragment, or its mark, or nothing if its body is to be rendered.
    fn look_up(&mut self, arguments: &[Value], state: &State) -> TeraResult<Value> {
        let Arguments { key, stamp, timeout } =
            Arguments::read(arguments, &self.sites, &self.prefix, state)?;
        self.missed = true;
        let lifetime = match timeout {
            Timeout::Lifetime(Lifetime::For(Duration::ZERO)) => return Ok(self.render(None)),
            Timeout::Lifetime(lifetime) => lifetime,
            Timeout::Delete => {
                self.deleted.push(key);
                return Ok(self.render(None));
            }
        };
        let asked = Asked { key, stamp, lifetime };
        match self.known.get(&asked.key) {
            Some(known @ Known::Found(_)) => match known.content(stamp) {
                Some(content) => {
                    self.missed = false;
                    Ok(Value::safe_string(content))
                }
                None => Ok(self.render(Some(asked))),
            },
            None if self.may_ask => {
                self.missed = false;
                let mark = self.marks.numbered(self.asked.len());
                self.asked.push(asked);
                Ok(mark)
            }
            None | Some(Known::Unknown) => Ok(self.render(None)),
        }
    }

    fn render(&mut self, asked: Option<Asked>) -> Value {
        self.open.push(asked.map(|asked| (asked, Instant::now())));
        Value::from("")
    }

    fn rendered(&mut self, body: &Value) {
        if let Some((asked, begun)) = self.open.pop().flatten() {
            let body = body.as_str().unwrap_or_default().to_owned();
            self.filled.push(Filled { asked, body, took: begun.elapsed() });
        }
    }
}

struct Arguments {
    key: String,
    stamp: Stamp,
    timeout: Timeout,
}

enum Timeout {
    Lifetime(Lifetime),
    Delete,
}

impl Arguments {
    fn read(arguments: &[Value], sites: &[Site], prefix: &str, state: &State) -> TeraResult<Self> {
        let site = arguments.first().and_then(Value::as_u64);
        let site = site.and_then(|site| sites.get(usize::try_from(site).ok()?));
        let (Some(site), [_, timeout, name, vary @ ..]) = (site, arguments) else {
            return Err(Error::message("this is only for `{% cache %}`"));
        };
        let (vary, of) = match vary {
            [vary @ .., of] if site.has_fingerprint => (vary, Some(of)),
            vary => (vary, None),
        };
        let undefined = |what: &str| site.error(&format!("{what} of `{{% cache %}}` is undefined"));
        if name.is_undefined() {
            return Err(undefined("the name"));
        }
        if let Some(at) = vary.iter().position(Value::is_undefined) {
            return Err(undefined(&format!("value {} to vary by", at + 1)));
        }
        if of.is_some_and(Value::is_undefined) {
            return Err(undefined("what `of` stands for, an argument"));
        }
        let timeout = self::timeout(timeout).ok_or_else(|| {
            site.error(
                "the timeout of `{% cache %}` must be seconds, none (for ever), \"default\" or \"del\"",
            )
        })?;
        let mut key = String::with_capacity(prefix.len() + 32);
        key.push_str(prefix);
        append_key(&mut key, std::iter::once(name).chain(vary));
        // What has been escaped is no good where nothing is, and the reverse would be worse.
        let schema = if state.autoescaping_enabled() { site.schema } else { !site.schema };
        let fingerprint = of.map_or(0, digest::of_value);
        Ok(Self { key, stamp: Stamp { schema, fingerprint }, timeout })
    }
}

fn timeout(value: &Value) -> Option<Timeout> {
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

/// The key of the fragment with this name and these values to vary by, for
/// [`Cache::delete`](crate::Cache::delete) or an [`Invalidation`](crate::Invalidation).
///
/// Values count by their text, as a template would show it, but that `none` is not the empty text.
///
/// ```
/// use everfresh::fragment_key;
///
/// // {% cache none, "task-fragment", task.id, lang %}
/// assert_eq!(fragment_key("task-fragment", ["7", "de"]), "task-fragment/7/de");
/// ```
#[must_use]
pub fn fragment_key<V: Into<Value>>(name: &str, vary: impl IntoIterator<Item = V>) -> String {
    let values = std::iter::once(Value::from(name)).chain(vary.into_iter().map(Into::into));
    let values: Vec<_> = values.collect();
    let mut key = String::new();
    append_key(&mut key, values.iter());
    key
}

/// As [`join_key`](crate::join_key) does.
fn append_key<'v>(key: &mut String, values: impl Iterator<Item = &'v Value>) {
    for (at, value) in values.enumerate() {
        if at > 0 {
            key.push('/');
        }
        if let Some(text) = value.as_str() {
            append_escaped(key, text, Some(b'/'));
        } else if let Some(number) = value.as_i64() {
            key.push_str(itoa::Buffer::new().format(number));
        } else if value.is_none() {
            // An escape is longer, so this is nobody else's.
            key.push('%');
        } else {
            append_escaped(key, &value.to_string(), Some(b'/'));
        }
    }
}

/// Adds what lowered templates call. Where no page is being rendered by
/// [`Templates`](super::Templates), each body is rendered and nothing is kept.
pub(super) fn register(tera: &mut Tera) {
    tera.register_filter(LOOKUP, |arguments: &[Value], _: Kwargs, state: &State| {
        CURRENT.with_borrow_mut(|current| match current {
            Some(pass) => pass.look_up(arguments, state),
            None => Ok(Value::from("")),
        })
    });
    tera.register_function(MISSED, |_: Kwargs, _: &State| {
        CURRENT.with_borrow(|current| current.as_ref().is_none_or(|pass| pass.missed))
    });
    tera.register_filter(STORE, |body: Value, _: Kwargs, _: &State| {
        CURRENT.with_borrow_mut(|current| {
            if let Some(pass) = current {
                pass.rendered(&body);
            }
        });
        body
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_may_be_part_of_a_second() {
        let half = Duration::from_millis(500);
        let timeout = timeout(&Value::from(0.5));
        assert!(matches!(timeout, Some(Timeout::Lifetime(Lifetime::For(time))) if time == half));
    }
}
