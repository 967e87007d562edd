//! `{% cache %}` for Tera: fragments of a page, stored in the cache.
//!
//! `scan`, `arguments` and `lower` rewrite templates and know only their language. `renderer`
//! renders a page with placeholders for its fragments, on the thread that `offload` chooses, and `page` replaces
//! them by the fragments. Only this file accesses the cache.

mod arguments;
mod digest;
mod key;
mod lower;
mod offload;
mod page;
mod placeholder;
mod renderer;
mod report;
mod scan;

use std::{borrow::Cow, collections::HashMap, fmt, sync::Arc};

use bytes::Bytes;
use serde::Serialize;
use tera::{Context, Tera, TeraResult};

pub use self::key::fragment_key;
use self::{
    digest::{Digests, Source},
    lower::TagError,
    offload::Offload,
    page::{CachedFragment, Fragment, FragmentRequest, RenderedFragment, RenderedPage},
    renderer::{Renderer, Scope, Site},
    report::WrittenTemplates,
};
use crate::{
    backend::entries::NewEntry,
    cache::{Cache, events::CacheEventKind, lifetime::Term, near::NearValue},
    freshness::{beside::beside, computation::is_outdated},
};

/// The most times that a page may be rendered. It takes one run, and one more for each level of nested
/// fragments that were not in the cache. The limit ends the loop for a page that has other keys in
/// each run.
const MAX_RUNS: usize = 16;

/// Tera templates with `{% cache %}`, which stores its body in the cache.
///
/// ```text
/// {% cache TIMEOUT, NAME, VARY…, of=VALUE %} … {% endcache %}
/// ```
///
/// - TIMEOUT: any expression that gives a number of seconds, `none` (forever), `"default"` (the
///   cache's default lifetime), or `"del"` (deletes the entry and renders the body). With 0
///   seconds the fragment is not stored.
/// - NAME and VARY: the parts of the key, by their text; see [`fragment_key`]. Together they must
///   be unique among all fragments of the app.
/// - `of`: the data that the body shows. An entry that was rendered from other data is not served.
///
/// **A fragment is shown to all visitors.** What belongs to one, like a name, the messages or a CSRF token,
/// must be outside, or among the parts of the key. The log warns of a fragment that shows a variable with
/// `csrf` in its name.
///
/// Without `of`, a fragment is only as fresh as its timeout: the context was read before the
/// fragment is looked up, so deleting the key cannot prevent that older data is stored.
///
/// The body is rendered only if there is no entry. It may contain includes, loops, components and other fragments,
/// but no `{% block %}`, and `{% set %}` only within a loop of its own. The outermost fragments of a page are fetched
/// in one round trip per server. Fragments within missing fragments take one more per level of nesting.
///
/// A template that took a millisecond or longer is rendered on a thread for blocking work the next time, so that
/// other requests need not wait for it. Functions and filters must not rely on the thread.
///
/// A page is rendered more than once if fragments are missing, and always if output with fragments is used as a
/// value (`{% filter %}`, `{% set %}`, `super()` within an expression). So functions and filters must not have side
/// effects, like counting, or return random values.
///
/// With a cache without storage ([`Cache::null`]) the arguments are not evaluated, so a
/// mistake in them appears only with other caches.
///
/// A fragment with `of` and without a lifetime is kept in each process, too
/// ([`CacheBuilder::near`](crate::CacheBuilder::near)): it is proven by template, key and value, so the
/// servers are not asked for it, and deleting its key has no effect on it. If it consists mostly of other such
/// fragments, it is kept in the process only, because to put it together from them mostly takes less than to fetch it.
///
/// An entry is served only while the template, and all that it includes or extends, are unchanged.
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
    /// The templates without lookups, for a cache without storage.
    plain: Arc<Tera>,
    sites: Arc<[Site]>,
    written: WrittenTemplates,
    /// Whether all output with fragments is shown unchanged, so that placeholders can be replaced
    /// after rendering.
    can_splice: bool,
    offload: Offload,
    digest: u64,
}

/// An error in a set of templates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplatesError {
    /// A wrong `{% cache %}` or `{% endcache %}`, or a tag that is not allowed between them.
    #[error("template {template:?}, line {line}: {message}")]
    #[non_exhaustive]
    Tag {
        /// The template's name.
        template: String,
        /// The line in which the tag begins, from 1.
        line: usize,
        /// The mistake, and the correct form.
        message: String,
    },
    /// The [`Tera`] already had templates, which the digests would not cover.
    #[error("Tera already has {0:?}; give all templates to Templates::new instead")]
    NotEmpty(String),
    /// An error from Tera.
    #[error(transparent)]
    Tera(#[from] tera::Error),
}

impl Templates {
    /// Adds templates, as pairs of name and source, to `tera`. Functions and filters must have been
    /// registered before, but `tera` must have no template, and Tera's default delimiters.
    ///
    /// # Errors
    ///
    /// Returns an error if `tera` has templates, if a `{% cache %}` is wrong, or if Tera rejects a
    /// template.
    pub fn new<N: AsRef<str>, S: AsRef<str>>(
        mut tera: Tera,
        sources: impl IntoIterator<Item = (N, S)>,
    ) -> Result<Self, TemplatesError> {
        if let Some(name) = tera.get_template_names().next() {
            return Err(TemplatesError::NotEmpty(name.to_owned()));
        }
        let mut plain = tera.clone();
        renderer::register(&mut tera);
        let sources: Vec<_> = sources.into_iter().collect();
        let mut sites = Vec::new();
        let mut lowered = Vec::new();
        for (name, source) in &sources {
            let (name, source) = (name.as_ref(), source.as_ref());
            let template =
                lower::lower(source, sites.len()).map_err(|wrong| tag_error(name, wrong))?;
            for line in &template.csrf_tokens {
                log::warn!(
                    "template {name:?}, line {line}: the fragment shows a CSRF token, so other \
                     visitors get it too; leave it out of `{{% cache %}}`, or add it to VARY"
                );
            }
            sites.extend(template.tags.iter().map(|tag| Site::new(name, tag)));
            lowered.push((name, source, template));
        }

        // Digests cover the sources as written: the lowered forms contain the numbers of tags,
        // which change with the templates before.
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

        // A template may capture the output of a component that another template defines, so both
        // are looked for in all templates.
        let templates = || lowered.iter().map(|(_, _, template)| template);
        let has_components = templates().any(|template| template.components.defined);
        let can_splice = !templates()
            .any(|template| template.captures || (has_components && template.components.captured));

        let written = WrittenTemplates::new(lowered.iter().map(|(name, source, template)| {
            (*name, *source, [template.source.as_ref(), template.plain.as_ref()])
        }));
        let templates = lowered.iter().map(|(name, _, template)| (name, &template.source));
        tera.add_raw_templates(templates).map_err(|error| written.restore(error))?;
        let templates = lowered.iter().map(|(name, _, template)| (name, &template.plain));
        plain.add_raw_templates(templates).map_err(|error| written.restore(error))?;
        let (tera, plain) = (Arc::new(tera), Arc::new(plain));
        let offload = Offload::new(sources.iter().map(|(name, _)| name.as_ref()));
        Ok(Self { tera, plain, sites: sites.into(), written, can_splice, offload, digest })
    }

    /// Serves only entries that were stored with this version. Use it for anything that fragments
    /// show and that is neither in a template nor in `of`, like the results of functions. If
    /// called several times, all versions must match.
    #[must_use]
    pub fn versioned_by(mut self, version: &str) -> Self {
        self.digest = digest::versioned(self.digest, version);
        self.sites = self.sites.iter().map(|site| site.versioned_by(version)).collect();
        self
    }

    /// Returns a number that changes with each template and with the version.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Renders a template, with fragments from `cache`.
    ///
    /// # Errors
    ///
    /// Returns Tera's error, or one that names the argument of `{% cache %}` that is undefined or
    /// not a timeout. A failure of the cache is not an error: the fragments are rendered.
    pub async fn render(
        &self,
        cache: &Cache,
        template: &str,
        context: &Context,
    ) -> TeraResult<String> {
        let rendered = self.render_with(cache, template, || Ok(Cow::Borrowed(context))).await;
        rendered.map_err(|error| self.written.restore(error))
    }

    /// Renders a template like [`render`](Self::render), with the fields of `page`, a struct or a
    /// map, as variables.
    ///
    /// Tera's form of the variables is several times as large as `page`. It is dropped while the
    /// cache is accessed, so `page` is serialized once for each time that the page is rendered.
    ///
    /// # Errors
    ///
    /// Returns an error like [`render`](Self::render), and if `page` is neither a struct nor a map.
    pub async fn render_serialized(
        &self,
        cache: &Cache,
        template: &str,
        page: &impl Serialize,
    ) -> TeraResult<String> {
        let rendered = self
            .render_with(cache, template, || Context::from_serialize(page).map(Cow::Owned))
            .await;
        rendered.map_err(|error| self.written.restore(error))
    }

    async fn render_with<'c>(
        &self,
        cache: &Cache,
        template: &str,
        context: impl Fn() -> TeraResult<Cow<'c, Context>>,
    ) -> TeraResult<String> {
        if self.sites.is_empty() || cache.entries().is_null() {
            let (plain, context) = (&self.plain, context()?);
            if !self.offload.is_long(template) {
                return self.offload.run_here(template, || plain.render(template, &context));
            }
            let (plain, name, context) =
                (Arc::clone(plain), template.to_owned(), context.into_owned());
            return self.offload.run(template, move || plain.render(&name, &context)).await?;
        }
        let mut renderer = Renderer::new(Arc::clone(&self.sites), Arc::new(Scope::of(cache)));
        let mut run = 1;
        loop {
            // In the last run no fragment is left for later, so the page is complete.
            let may_defer = run < MAX_RUNS;
            let mut page;
            (renderer, page) = self.run(renderer, may_defer, template, context()?).await?;
            if page.requests.is_empty() {
                return store(cache, page).await;
            }
            let found = look_up(cache, &page.requests).await;
            // If all fragments are in the cache, the page is complete without another run.
            if self.can_splice && page.splice(&found) {
                return store(cache, page).await;
            }
            // The page is discarded. The next run uses the fragments that were found, and renders
            // the bodies of those that were not.
            renderer.learn(page.requests, found);
            run += 1;
        }
    }

    /// Renders the page once.
    async fn run(
        &self,
        mut renderer: Renderer,
        may_defer: bool,
        template: &str,
        context: Cow<'_, Context>,
    ) -> TeraResult<(Renderer, RenderedPage)> {
        if self.offload.is_long(template) {
            let (tera, name, context) =
                (Arc::clone(&self.tera), template.to_owned(), context.into_owned());
            let run = move || {
                let page = renderer.run(may_defer, || tera.render(&name, &context));
                (renderer, page)
            };
            return self.offload.run(template, run).await;
        }
        let render = || self.tera.render(template, &context);
        let page = self.offload.run_here(template, || renderer.run(may_defer, render));
        Ok((renderer, page))
    }
}

fn tag_error(template: &str, TagError { line, message }: TagError) -> TemplatesError {
    TemplatesError::Tag { template: template.to_owned(), line, message }
}

impl fmt::Debug for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Templates")
            .field("names", &self.tera.get_template_names().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Looks up fragments in one round trip per server. Counts those that match their stamps as hits, all
/// others as misses.
async fn look_up(cache: &Cache, requests: &[FragmentRequest]) -> Vec<CachedFragment> {
    let keys: Vec<_> = requests.iter().map(|request| request.key.as_str()).collect();
    let entries = cache.entries();
    let (mut hits, mut bytes) = (0, 0);
    let stopwatch = entries.stopwatch();
    let mut fragments = Vec::with_capacity(requests.len());
    for (found, request) in entries.get_many(&keys).await.into_iter().zip(requests) {
        let fragment = match found {
            Ok(entry) => CachedFragment::Found(
                entry.and_then(|(stamp, body)| Some((stamp, Fragment::from_bytes(&body)?))),
            ),
            Err(_) => CachedFragment::Unavailable,
        };
        if let Some(content) = fragment.content(request.stamp) {
            hits += 1;
            bytes += content.text().len();
            if let Some(name) = request.near {
                cache.near().insert(name, NearValue::Fragment(content.value().clone()));
            }
        }
        let bytes = fragment.content(request.stamp).map(|content| content.text().len());
        let kind = bytes.map_or(CacheEventKind::Miss, |bytes| CacheEventKind::Hit { bytes });
        entries.tell(&request.key, kind, stopwatch.elapsed());
        fragments.push(fragment);
    }
    entries.counters().count_hits(hits, bytes);
    entries.counters().count_misses(fragments.len() - hits);
    fragments
}

/// Deletes the keys that the page deletes, stores its rendered fragments, and returns it.
async fn store(cache: &Cache, rendered: RenderedPage) -> TeraResult<String> {
    let page = rendered.page?;
    let entries = cache.entries();
    entries.counters().count_hits(rendered.near_hits, rendered.near_bytes);
    if !rendered.deleted.is_empty() {
        entries.delete_many(&rendered.deleted).await;
    }
    let mut by_lifetime: HashMap<Term, Vec<NewEntry>> = HashMap::new();
    for RenderedFragment { request, body, took, is_assembled } in rendered.fragments {
        entries.note(&request.key, CacheEventKind::Computed, Some(took));
        if let Some(name) = request.near {
            cache.near().insert(name, NearValue::Fragment(body.value().clone()));
        }
        if is_assembled {
            continue;
        }
        let body = Bytes::copy_from_slice(body.text().as_bytes());
        let entry = NewEntry { key: request.key, stamp: request.stamp, body };
        by_lifetime.entry(cache.resolve(request.lifetime)).or_default().push(entry);
    }
    if !by_lifetime.is_empty() && !is_outdated() {
        let entries = entries.clone();
        beside(async move {
            for (term, new) in by_lifetime {
                for outcome in entries.put_many(new, term).await {
                    if outcome.is_err() {
                        entries.note("", CacheEventKind::NotKept, None);
                    }
                }
            }
        })
        .await;
    }
    Ok(page)
}
