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
};
use crate::{codec::Stamp, key::append_escaped, lifetime::Lifetime};

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
    mark: String,
    /// The fragments that the marks stand for.
    pub(super) asked: Vec<Asked>,
    pub(super) filled: Vec<Filled>,
    /// Keys.
    pub(super) deleted: Vec<String>,
}

impl Rendered {
    /// Puts what has been found where the marks are. Does nothing, and says so, if any is missing
    /// or a mark is not where it was put.
    pub(super) fn splice(&mut self, found: &[Known]) -> bool {
        let contents = found.iter().zip(&self.asked);
        let contents: Option<Vec<_>> =
            contents.map(|(known, asked)| known.content(asked.stamp)).collect();
        let Some(contents) = contents else { return false };
        let Ok(page) = &self.page else { return false };
        let length = page.len() + contents.iter().map(|content| content.len()).sum::<usize>();
        let spliced_page = spliced(page, length, &self.mark, &contents);
        let Some((page, marks)) = spliced_page else { return false };
        if !marks.into_iter().eq(0..contents.len()) {
            return false;
        }
        let bodies = self.filled.iter().map(|Filled { body, .. }| {
            // Most hold no others.
            spliced(body, body.len(), &self.mark, &contents)
        });
        let Some(bodies) = bodies.collect::<Option<Vec<_>>>() else { return false };
        self.page = Ok(page);
        for (filled, (body, _)) in self.filled.iter_mut().zip(bodies) {
            filled.body = body;
        }
        true
    }
}

/// Begins each mark.
const MARK: char = '\u{1}';
/// Hexadecimal digits of a mark: those that nobody can have known, and its number.
const SECRET_DIGITS: usize = 12;
const NUMBER_DIGITS: usize = 8;

/// `text` with `contents` for its marks, about as long as `length`, and the numbers of the marks;
/// `None` if one is damaged.
fn spliced(
    text: &str,
    length: usize,
    mark: &str,
    contents: &[&str],
) -> Option<(String, Vec<usize>)> {
    let mut whole = String::with_capacity(length);
    let mut numbers = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        let (before, from_mark) = rest.split_at(at);
        whole.push_str(before);
        if let Some(after) = from_mark.strip_prefix(mark) {
            let (number, after) = after.split_at_checked(NUMBER_DIGITS)?;
            let number = usize::from_str_radix(number, 16).ok()?;
            whole.push_str(contents.get(number)?);
            numbers.push(number);
            rest = after;
        } else {
            whole.push(MARK);
            rest = &from_mark[MARK.len_utf8()..];
        }
    }
    whole.push_str(rest);
    Some((whole, numbers))
}

/// What is known while a page is rendered.
#[derive(Debug)]
pub(super) struct Pass {
    sites: Arc<[Site]>,
    prefix: String,
    known: HashMap<String, Known>,
    /// Begins each mark; nobody can have known it before.
    mark: String,
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
            mark: format!("{MARK}{:0SECRET_DIGITS$x}", rand::random::<u64>() >> 16),
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
            mark: self.mark.clone(),
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
                let mark = self.next_mark();
                self.asked.push(asked);
                Ok(mark)
            }
            None | Some(Known::Unknown) => Ok(self.render(None)),
        }
    }

    /// What stands for the next fragment that is asked for. It is short enough for Tera to keep it
    /// without an allocation.
    fn next_mark(&mut self) -> Value {
        let secret = self.mark.len();
        let number = self.asked.len();
        for digit in (0..NUMBER_DIGITS).rev() {
            self.mark.push(char::from(b"0123456789abcdef"[number >> (4 * digit) & 15]));
        }
        let mark = Value::safe_string(&self.mark);
        self.mark.truncate(secret);
        mark
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
/// use actix_cache::fragment_key;
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

    const STAMP: Stamp = Stamp { schema: 1, fingerprint: 2 };

    /// A page with these marks, of which two have been asked for; `@` stands for the secret part.
    fn rendered(page: &str) -> Rendered {
        let mark = "\u{1}0123456789ab".to_owned();
        let asked = Asked { key: "k".to_owned(), stamp: STAMP, lifetime: Lifetime::Forever };
        Rendered {
            page: Ok(page.replace('@', &mark)),
            mark,
            asked: vec![asked; 2],
            filled: Vec::new(),
            deleted: Vec::new(),
        }
    }

    fn found() -> [Known; 2] {
        ["one", "two"].map(|content| Known::Found(Some((STAMP, content.into()))))
    }

    #[test]
    fn what_has_been_found_stands_where_its_mark_was() {
        let mut rendered = rendered("é@00000000é@00000001");
        assert!(rendered.splice(&found()));
        assert_eq!(rendered.page.unwrap(), "éoneétwo");
    }

    #[test]
    fn text_that_resembles_a_mark_is_text() {
        let lookalike = "\u{1}\u{1}0123456789ac00000000\u{1}";
        let mut rendered = rendered(&format!("{lookalike}@00000000{lookalike}@00000001\u{1}"));
        assert!(rendered.splice(&found()));
        let expected = format!("{lookalike}one{lookalike}two\u{1}");
        assert_eq!(rendered.page.unwrap(), expected);
    }

    #[test]
    fn a_page_whose_marks_are_not_as_they_were_put_is_left_alone() {
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
    fn what_has_been_rendered_is_kept_with_what_stands_in_it() {
        let filled = |body: &str| Filled {
            asked: Asked { key: "f".to_owned(), stamp: STAMP, lifetime: Lifetime::Forever },
            body: body.replace('@', "\u{1}0123456789ab"),
            took: Duration::ZERO,
        };
        let mut outer = rendered("@00000000@00000001");
        outer.filled = vec![filled("[@00000001]"), filled("plain")];
        assert!(outer.splice(&found()));
        let bodies: Vec<_> = outer.filled.iter().map(|filled| filled.body.as_str()).collect();
        assert_eq!(bodies, ["[two]", "plain"]);

        outer = rendered("@00000000@00000001");
        outer.filled = vec![filled("[@0000")];
        assert!(!outer.splice(&found()));
    }

    #[test]
    fn what_is_missing_or_of_another_stamp_is_not_put_in() {
        let other = Stamp { fingerprint: 3, ..STAMP };
        for known in [Known::Unknown, Known::Found(None), Known::Found(Some((other, "x".into())))] {
            let [one, _] = found();
            assert!(!rendered("@00000000@00000001").splice(&[one, known]));
        }
    }

    #[test]
    fn each_page_has_marks_of_its_own() {
        let mark = || Pass::new(Arc::default(), String::new()).mark;
        assert_ne!(mark(), mark());
    }
}
