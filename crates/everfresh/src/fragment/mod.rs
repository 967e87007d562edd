//! `{% cache %}` for Tera: parts of a page that are kept.
//!
//! What knows what: `scan` and `lower` know the language of templates and nothing else; `pass` is
//! what happens while Tera renders, `splice` puts fragments into what has been rendered, and neither
//! asks a cache; here is the only place that does.

mod digest;
mod lower;
mod pass;
mod scan;
mod splice;

use std::{borrow::Borrow, collections::HashMap, fmt, sync::Arc, time::Duration};

use serde::Serialize;
use tera::{Context, Tera, TeraResult};

pub use self::pass::fragment_key;
use self::{
    digest::{Digests, Source},
    lower::Fault,
    pass::{Asked, Filled, Known, Pass, Rendered, Site},
};
use crate::{
    backend::entries::NewEntry,
    cache::{Cache, stats::Event},
};

/// How often a page is rendered at most: once, and once more for each level of nested fragments
/// that were not in the cache.
const PASSES: usize = 16;

/// Templates in which `{% cache %}` keeps what it holds.
///
/// ```text
/// {% cache TIMEOUT, NAME, VARY…, of=VALUE %} … {% endcache %}
/// ```
///
/// - TIMEOUT: seconds, `none` (for ever), `"default"` (the cache's), or `"del"` (deletes what is
///   stored, and renders). 0 is not stored. Any expression may give it.
/// - NAME and VARY make the key, by their text: [`fragment_key`]. Together they must tell apart
///   all fragments of the app.
/// - `of`: what the fragment is made of. An entry that was made of anything else is not served.
///
/// Without `of` a fragment is as fresh as its timeout: what is in the context was read before the
/// fragment was looked up, so that deleting the key in between does not help.
///
/// The body is rendered only when there is no entry. It may hold includes, loops, components and
/// other fragments, but no `{% block %}`, and `{% set %}` only within a loop of its own. All
/// fragments of a page that are not within others are fetched in one round trip per server; those
/// within fragments that have been missing, in one more per level.
///
/// A page with fragments that are missing is rendered more than once, and one that makes a value of
/// what holds fragments (`{% filter %}`, `{% set %}`, `super()` within an expression) always, so what
/// templates call must not count or draw lots. With a cache that keeps nothing ([`Cache::null`]) the
/// arguments are not looked at: a mistake in them shows with any other.
///
/// An entry serves only templates that have not changed since, nor what they include and extend.
///
/// ```
/// use everfresh::{Cache, Templates};
/// use tera::{Context, Tera};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let row = "{% cache none, \"row\", id, of=name %}<li>{{ name }}</li>{% endcache %}";
/// let templates = Templates::new(Tera::default(), [("row.html", row)])?;
/// let cache = Cache::memory(1 << 20).build().layer("fragment");
///
/// let mut context = Context::new();
/// context.insert("id", &7);
/// context.insert("name", "Milk");
/// for _ in 0..2 {
///     assert_eq!(templates.render(&cache, "row.html", &context).await?, "<li>Milk</li>");
/// }
/// assert_eq!(cache.stats()["fragment"].hits, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Templates {
    tera: Arc<Tera>,
    /// For where nothing is kept.
    plain: Arc<Tera>,
    sites: Arc<[Site]>,
    /// Whether what Tera has put out stands on the page as it is, so that a fragment can be put in
    /// afterwards.
    can_splice: bool,
    digest: u64,
}

/// Templates that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplatesError {
    /// A `{% cache %}` that is not as it should be.
    #[error("template {template:?}, line {line}: {message}")]
    #[non_exhaustive]
    Tag {
        /// The template's name.
        template: String,
        /// Where the tag begins.
        line: usize,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// The [`Tera`] had templates already: what they hold would be no part of any digest.
    #[error("give all templates to Templates::new; Tera already has {0:?}")]
    NotEmpty(String),
    /// What Tera says.
    #[error(transparent)]
    Tera(#[from] tera::Error),
}

impl Templates {
    /// Adds templates to `tera`, which has its functions and filters already, but no template. Its
    /// delimiters must be the usual ones.
    pub fn new<N: AsRef<str>, S: AsRef<str>>(
        mut tera: Tera,
        sources: impl IntoIterator<Item = (N, S)>,
    ) -> Result<Self, TemplatesError> {
        if let Some(name) = tera.get_template_names().next() {
            return Err(TemplatesError::NotEmpty(name.to_owned()));
        }
        let mut plain = tera.clone();
        pass::register(&mut tera);
        let sources: Vec<_> = sources.into_iter().collect();
        let mut sites = Vec::new();
        let mut lowered = Vec::new();
        for (name, source) in &sources {
            let (name, source) = (name.as_ref(), source.as_ref());
            let template = lower::lower(source, sites.len()).map_err(|fault| error(name, fault))?;
            sites.extend(template.tags.iter().map(|tag| Site::new(name, tag)));
            lowered.push((name, source, template));
        }
        let digests = Digests::of(lowered.iter().map(|(name, text, template)| Source {
            name,
            text,
            references: &template.references,
            components: template.components,
        }));
        for site in &mut sites {
            site.schema = digests.of_template(&site.template);
        }
        let digest = digests.of_all();
        let templates = || lowered.iter().map(|(_, _, template)| template);
        let has_components = templates().any(|template| template.components.defined);
        let can_splice = !templates()
            .any(|template| template.captures || (has_components && template.components.captured));
        tera.add_raw_templates(lowered.iter().map(|(name, _, template)| (name, &template.source)))?;
        plain
            .add_raw_templates(lowered.iter().map(|(name, _, template)| (name, &template.plain)))?;
        let (tera, plain) = (Arc::new(tera), Arc::new(plain));
        Ok(Self { tera, plain, sites: sites.into(), can_splice, digest })
    }

    /// Serves only entries of the same version (and of those given before): for what is shown that stands in no template and
    /// no `of`, like the results of functions.
    #[must_use]
    pub fn versioned_by(mut self, version: &str) -> Self {
        self.digest = digest::versioned(self.digest, version);
        self.sites = self.sites.iter().map(|site| site.versioned_by(version)).collect();
        self
    }

    /// Changes when any template does, and with the version.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Renders a template, with fragments from `cache`.
    pub async fn render(
        &self,
        cache: &Cache,
        template: &str,
        context: &Context,
    ) -> TeraResult<String> {
        self.render_with(cache, template, || Ok(context)).await
    }

    /// Likewise, with the fields of `page`, a struct or a map, as variables. For Tera they are copied
    /// to a form that is several times as large, which is not kept while the cache is asked; where
    /// fragments are missing, `page` is serialized again.
    pub async fn render_serialized(
        &self,
        cache: &Cache,
        template: &str,
        page: &impl Serialize,
    ) -> TeraResult<String> {
        self.render_with(cache, template, || Context::from_serialize(page)).await
    }

    async fn render_with<C: Borrow<Context>>(
        &self,
        cache: &Cache,
        template: &str,
        context: impl Fn() -> TeraResult<C>,
    ) -> TeraResult<String> {
        if self.sites.is_empty() || cache.entries().is_null() {
            return self.plain.render(template, context()?.borrow());
        }
        let mut pass = Pass::new(Arc::clone(&self.sites), cache.full_key(""));
        let mut turn = 1;
        loop {
            let may_ask = turn < PASSES;
            let render = || self.tera.render(template, context()?.borrow());
            let mut rendered = pass.run(may_ask, render);
            if rendered.asked.is_empty() {
                return keep(cache, rendered).await;
            }
            let found = find(cache, &rendered.asked).await;
            if self.can_splice && rendered.splice(&found) {
                return keep(cache, rendered).await;
            }
            pass.learn(rendered.asked, found);
            turn += 1;
        }
    }
}

fn error(template: &str, Fault { line, message }: Fault) -> TemplatesError {
    TemplatesError::Tag { template: template.to_owned(), line, message }
}

impl fmt::Debug for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Templates")
            .field("names", &self.tera.get_template_names().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Looks up fragments in one round trip per server, and counts hits and misses.
async fn find(cache: &Cache, asked: &[Asked]) -> Vec<Known> {
    let keys: Vec<_> = asked.iter().map(|asked| asked.key.as_str()).collect();
    let entries = cache.entries();
    let (mut hits, mut bytes) = (0, 0);
    let mut known = Vec::with_capacity(asked.len());
    for (found, asked) in entries.get_many(&keys).await.into_iter().zip(asked) {
        let fragment = match found {
            Ok(entry) => {
                Known::Found(entry.and_then(|(stamp, body)| Some((stamp, body.try_into().ok()?))))
            }
            Err(_) => Known::Unknown,
        };
        if let Some(content) = fragment.content(asked.stamp) {
            hits += 1;
            bytes += content.len();
        }
        known.push(fragment);
    }
    entries.count(Event::Hits { hits, bytes });
    entries.count(Event::Misses(known.len() - hits));
    known
}

/// Stores the fragments that were rendered, deletes those that the template deletes, and returns the
/// page.
async fn keep(cache: &Cache, rendered: Rendered) -> TeraResult<String> {
    let page = rendered.page?;
    let entries = cache.entries();
    if !rendered.deleted.is_empty() {
        entries.delete_many(&rendered.deleted).await;
    }
    let mut by_lifetime: HashMap<Option<Duration>, Vec<NewEntry>> = HashMap::new();
    for Filled { asked, body, took } in rendered.filled {
        entries.count(Event::Computed(took));
        let entry = NewEntry { key: asked.key, stamp: asked.stamp, body: body.into() };
        by_lifetime.entry(cache.resolve(asked.lifetime)).or_default().push(entry);
    }
    for (lifetime, new) in by_lifetime {
        for outcome in entries.put_many(new, lifetime).await {
            if outcome.is_err() {
                entries.count(Event::RefusedFill);
            }
        }
    }
    Ok(page)
}
