//! Pages ready to be sent, and where they are stored.
//!
//! An entry of the cache only names the current page, by the digest of its content. A page never
//! changes, so each process keeps the pages that it has sent, and reads only the small entry from the
//! servers.

use std::sync::Arc;

use actix_web::{
    http::header::{self, HeaderMap, HeaderName, HeaderValue},
    web,
};
use bytes::{BufMut, Bytes, BytesMut};
use moka::policy::EvictionPolicy;
use tokio::sync::OnceCell;

use super::{
    compression::{Form, is_compressible},
    policy::may_be_transformed,
};
use crate::cache::{Cache, codec, near::DigestHasherBuilder};

/// Identifies a page: the first 16 bytes of the BLAKE3 hash of its content. (SHA-256 is slower,
/// which is noticeable in the first response of a long page.)
pub(super) type PageId = u128;

/// The `Cache-Status` of a hit (RFC 9211), which is stored with the page's headers.
const HIT: &str = "everfresh; hit";

/// Headers that belong to one response, not to the page.
const NOT_STORED: [HeaderName; 8] = [
    header::AGE,
    header::CACHE_STATUS,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::DATE,
    header::ETAG,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Headers of a page that describe its body, which a 304 does not have (RFC 9110, section 15.4.5).
const NOT_IN_NOT_MODIFIED: [HeaderName; 6] = [
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::LAST_MODIFIED,
];

/// The default `Cache-Control` of a page: browsers and proxies must revalidate it each time, because
/// they cannot be told of a change.
const REVALIDATE: &str = "private, no-cache";

/// The memory of a page without its body, in bytes.
const OVERHEAD: usize = 1024;

/// A page in one form: plain or compressed.
#[derive(Debug)]
pub(super) struct Rendition {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A page in all forms that have been requested.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) id: PageId,
    plain: Arc<Rendition>,
    /// The entity tags of its forms, in the order of [`Form::ALL`].
    tags: [HeaderValue; 3],
    /// The headers of its 304, without the tag.
    pub(super) not_modified_headers: HeaderMap,
    is_compressible: bool,
    brotli: OnceCell<Arc<Rendition>>,
    gzip: OnceCell<Arc<Rendition>>,
}

impl Page {
    /// Makes a page of a response, and its stored form: the length of the headers as four bytes in
    /// big-endian order, the headers, the body.
    pub(super) fn of_response(headers: &HeaderMap, body: Bytes) -> Option<(Self, Bytes)> {
        let mut fields: Vec<_> = headers
            .iter()
            .filter(|(name, _)| !NOT_STORED.contains(name))
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        if !headers.contains_key(header::CACHE_CONTROL) {
            fields.push((header::CACHE_CONTROL.as_str(), REVALIDATE.as_bytes()));
        }
        // A stable sort by name: the order of values of one name matters.
        fields.sort_by_key(|(name, _)| *name);
        let head = codec::serialize(&fields)?;
        let mut stored = BytesMut::with_capacity(4 + head.len() + body.len());
        stored.put_u32(u32::try_from(head.len()).ok()?);
        stored.put_slice(&head);
        stored.put_slice(&body);
        let stored = stored.freeze();
        Some((Self::of_stored(&stored)?, stored))
    }

    fn of_stored(stored: &Bytes) -> Option<Self> {
        let length = u32::from_be_bytes(stored.get(..4)?.try_into().ok()?);
        let body_at = usize::try_from(length).ok()?.checked_add(4)?;
        let fields: Vec<(String, Vec<u8>)> = codec::deserialize(stored.get(4..body_at)?)?;
        let mut headers = HeaderMap::with_capacity(fields.len() + 5);
        headers.insert(header::CACHE_STATUS, HeaderValue::from_static(HIT));
        for (name, value) in fields {
            headers.append(HeaderName::try_from(name).ok()?, HeaderValue::from_bytes(&value).ok()?);
        }
        let (id, body) = (id_of(stored), stored.slice(body_at..));
        let is_compressible = may_be_transformed(&headers) && is_compressible(&headers, body.len());
        if is_compressible {
            headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        let mut not_modified_headers = HeaderMap::new();
        let fields = headers.iter().filter(|(name, _)| !NOT_IN_NOT_MODIFIED.contains(name));
        for (name, value) in fields {
            not_modified_headers.append(name.clone(), value.clone());
        }
        let tags = Form::ALL.map(|form| etag(id, form));
        headers.insert(header::ETAG, tags[Form::Plain as usize].clone());
        let plain = Arc::new(Rendition { headers, body });
        let (brotli, gzip) = (OnceCell::new(), OnceCell::new());
        Some(Self { id, plain, tags, not_modified_headers, is_compressible, brotli, gzip })
    }

    /// Returns the size of the plain body in bytes.
    pub(super) fn length(&self) -> usize {
        self.plain.body.len()
    }

    /// Estimates the memory of a page in bytes: two compressed forms of about an eighth each.
    fn weight(&self) -> usize {
        let forms = if self.is_compressible { self.length() / 4 } else { 0 };
        OVERHEAD + self.length() + forms
    }

    /// Returns the entity tags of the forms that a client accepts.
    pub(super) fn etags(
        &self,
        accept_encoding: Option<&str>,
    ) -> impl Iterator<Item = &HeaderValue> {
        self.forms(accept_encoding).map(|form| &self.tags[form as usize])
    }

    fn forms(&self, accept_encoding: Option<&str>) -> impl Iterator<Item = Form> {
        let is_compressible = self.is_compressible;
        Form::acceptable(accept_encoding)
            .filter(move |form| is_compressible || *form == Form::Plain)
    }

    /// Returns the smallest form that a client accepts; compresses the page when it is first
    /// requested.
    pub(super) async fn rendition(&self, accept_encoding: Option<&str>) -> Arc<Rendition> {
        let form = self.forms(accept_encoding).next().unwrap_or(Form::Plain);
        let cell = match form {
            Form::Plain => return Arc::clone(&self.plain),
            Form::Brotli => &self.brotli,
            Form::Gzip => &self.gzip,
        };
        match cell.get() {
            Some(rendition) => Arc::clone(rendition),
            None => Arc::clone(Box::pin(cell.get_or_init(|| self.compressed(form))).await),
        }
    }

    async fn compressed(&self, form: Form) -> Arc<Rendition> {
        let body = self.plain.body.clone();
        // Takes milliseconds, for which the worker must not block.
        let compressed = web::block(move || form.compress(&body)).await.ok().and_then(Result::ok);
        match compressed {
            Some(body) if body.len() < self.length() => {
                let mut headers = self.plain.headers.clone();
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(form.coding()));
                headers.insert(header::ETAG, self.tags[form as usize].clone());
                Arc::new(Rendition { headers, body: body.into() })
            }
            _ => Arc::clone(&self.plain),
        }
    }
}

fn id_of(stored: &[u8]) -> PageId {
    let hash = blake3::hash(stored);
    hash.as_bytes()[..16].iter().fold(0, |id, byte| id << 8 | PageId::from(*byte))
}

fn etag(id: PageId, form: Form) -> HeaderValue {
    let separator = if form == Form::Plain { "" } else { "-" };
    let tag = format!("\"{id:032x}{separator}{}\"", form.coding());
    HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\""))
}

/// The pages of this process, and those on the servers.
#[derive(Debug)]
pub(super) struct PageStore {
    local: moka::sync::Cache<PageId, Arc<Page>, DigestHasherBuilder>,
    bound: usize,
}

impl PageStore {
    /// Keeps local pages in at most `bound` bytes; the least recently sent is evicted first.
    pub(super) fn new(bound: usize) -> Self {
        let weigh = |_: &PageId, page: &Arc<Page>| u32::try_from(page.weight()).unwrap_or(u32::MAX);
        let local = moka::sync::Cache::builder()
            .max_capacity(bound as u64)
            .weigher(weigh)
            .eviction_policy(EvictionPolicy::lru())
            .build_with_hasher(DigestHasherBuilder::default());
        Self { local, bound }
    }

    /// Keeps a page in this process. Returns `false` if it is too large.
    pub(super) fn keep(&self, page: &Arc<Page>) -> bool {
        let fits = page.weight() <= self.bound;
        if fits {
            self.local.insert(page.id, Arc::clone(page));
        }
        fits
    }

    /// Returns the key of a page on the servers.
    pub(super) fn key(cache: &Cache, id: PageId) -> String {
        cache.full_key(&format!("view-page/{id:032x}"))
    }

    /// Finds a page, here or on the servers.
    pub(super) async fn find(&self, cache: &Cache, id: PageId) -> Option<Arc<Page>> {
        match self.local.get(&id) {
            None if cache.is_shared() => Box::pin(self.fetch(cache, id)).await,
            local => local,
        }
    }

    /// Fetches a page from the servers, and keeps it in this process from now on.
    async fn fetch(&self, cache: &Cache, id: PageId) -> Option<Arc<Page>> {
        let key = Self::key(cache, id);
        let stored = cache.entries().get_named(&key).await.ok()??;
        let page = Arc::new(Page::of_stored(&stored)?);
        // A page with another digest was damaged, or stored by another program. It has no seal.
        let is_valid = page.id == id;
        if is_valid {
            self.local.insert(id, Arc::clone(&page));
        }
        is_valid.then_some(page)
    }
}
