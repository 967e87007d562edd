//! Pages, ready to be sent, and where they are kept.
//!
//! An entry of the cache holds only which page is the right one, by the digest of its content. The
//! page itself never changes: whoever has it, has it for good. So a process keeps the pages that
//! it has sent, and asks the servers just for the little entry.

use std::{
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use actix_web::{
    http::header::{self, HeaderMap, HeaderName, HeaderValue},
    web,
};
use bytes::{BufMut, Bytes, BytesMut};
use moka::policy::EvictionPolicy;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::{
    answer::HIT,
    compression::{Form, is_compressible},
    policy::may_be_transformed,
};
use crate::{
    backend::frame::{self as codec, Frame, Stamp},
    cache::Cache,
};

/// A page's name: the beginning of the SHA-256 of its content.
pub(super) type PageId = u128;

/// What belongs to one way and one moment of sending, and not to the page.
const NOT_KEPT: [HeaderName; 8] = [
    header::AGE,
    header::CACHE_STATUS,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::DATE,
    header::ETAG,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Of the headers of a page those that describe the body that a 304 does not have (RFC 9110, section
/// 15.4.5).
const NOT_IN_NOT_MODIFIED: [HeaderName; 6] = [
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::LAST_MODIFIED,
];

/// For browsers and what lies between, unless the handler says otherwise: they must ask each time,
/// for nobody could tell them of a change.
const ASK_EACH_TIME: &str = "private, no-cache";

/// Bytes that a page costs besides its body.
const OVERHEAD: usize = 1024;

/// A page in one form.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A page in all forms that somebody has asked for.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) id: PageId,
    plain: Arc<Ready>,
    /// The entity tags of its forms, in the order of [`Form::ALL`].
    tags: [HeaderValue; 3],
    /// What its 304 carries besides the tag.
    pub(super) in_not_modified: HeaderMap,
    is_compressible: bool,
    brotli: OnceCell<Arc<Ready>>,
    gzip: OnceCell<Arc<Ready>>,
}

impl Page {
    /// The page that a response is, and its stored form: the length of its headers (four bytes, the
    /// highest first), the headers, the body.
    pub(super) fn of_response(headers: &HeaderMap, body: Bytes) -> Option<(Self, Bytes)> {
        let mut kept: Vec<_> = headers
            .iter()
            .filter(|(name, _)| !NOT_KEPT.contains(name))
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        if !headers.contains_key(header::CACHE_CONTROL) {
            kept.push((header::CACHE_CONTROL.as_str(), ASK_EACH_TIME.as_bytes()));
        }
        // By name only: of one name, the order counts.
        kept.sort_by_key(|(name, _)| *name);
        let head = codec::serialize(&kept)?;
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
        let kept: Vec<(String, Vec<u8>)> = codec::deserialize(stored.get(4..body_at)?)?;
        let mut headers = HeaderMap::with_capacity(kept.len() + 5);
        headers.insert(header::CACHE_STATUS, HeaderValue::from_static(HIT));
        for (name, value) in kept {
            headers.append(HeaderName::try_from(name).ok()?, HeaderValue::from_bytes(&value).ok()?);
        }
        let (id, body) = (id_of(stored), stored.slice(body_at..));
        let is_compressible = may_be_transformed(&headers) && is_compressible(&headers, body.len());
        if is_compressible {
            headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        let mut in_not_modified = HeaderMap::new();
        let kept = headers.iter().filter(|(name, _)| !NOT_IN_NOT_MODIFIED.contains(name));
        for (name, value) in kept {
            in_not_modified.append(name.clone(), value.clone());
        }
        let tags = Form::ALL.map(|form| etag(id, form));
        headers.insert(header::ETAG, tags[Form::Plain as usize].clone());
        let plain = Arc::new(Ready { headers, body });
        let (brotli, gzip) = (OnceCell::new(), OnceCell::new());
        Some(Self { id, plain, tags, in_not_modified, is_compressible, brotli, gzip })
    }

    /// Bytes of the plain form's body.
    pub(super) fn length(&self) -> usize {
        self.plain.body.len()
    }

    /// What it takes, about: compressed text is mostly a tenth of what it was.
    fn weight(&self) -> usize {
        let forms = if self.is_compressible { self.length() / 4 } else { 0 };
        OVERHEAD + self.length() + forms
    }

    /// The entity tags of the forms that a visitor takes.
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

    /// The form that suits a visitor best; made when it is asked for first.
    pub(super) async fn ready(&self, accept_encoding: Option<&str>) -> Arc<Ready> {
        let form = self.forms(accept_encoding).next().unwrap_or(Form::Plain);
        let cell = match form {
            Form::Plain => return Arc::clone(&self.plain),
            Form::Brotli => &self.brotli,
            Form::Gzip => &self.gzip,
        };
        match cell.get() {
            Some(ready) => Arc::clone(ready),
            None => Arc::clone(Box::pin(cell.get_or_init(|| self.compressed(form))).await),
        }
    }

    async fn compressed(&self, form: Form) -> Arc<Ready> {
        let body = self.plain.body.clone();
        // Takes milliseconds, which the other visitors of this worker should not wait.
        let compressed = web::block(move || form.compress(&body)).await.ok().and_then(Result::ok);
        match compressed {
            Some(body) if body.len() < self.length() => {
                let mut headers = self.plain.headers.clone();
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(form.coding()));
                headers.insert(header::ETAG, self.tags[form as usize].clone());
                Arc::new(Ready { headers, body: body.into() })
            }
            _ => Arc::clone(&self.plain),
        }
    }
}

fn id_of(stored: &[u8]) -> PageId {
    let digest = Sha256::digest(stored);
    digest[..16].iter().fold(0, |id, byte| id << 8 | PageId::from(*byte))
}

fn etag(id: PageId, form: Form) -> HeaderValue {
    let separator = if form == Form::Plain { "" } else { "-" };
    let tag = format!("\"{id:032x}{separator}{}\"", form.coding());
    HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\""))
}

/// The pages that this process has at hand, and the servers that have them all.
#[derive(Debug)]
pub(super) struct Pages {
    at_hand: moka::sync::Cache<PageId, Arc<Page>, BuildHasherDefault<OfDigest>>,
    bound: usize,
}

/// A digest needs no other hash.
#[derive(Debug, Default)]
struct OfDigest(u64);

impl Hasher for OfDigest {
    fn write_u128(&mut self, digest: u128) {
        let [_, _, _, _, _, _, _, _, half @ ..] = digest.to_be_bytes();
        self.0 = u64::from_be_bytes(half);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Pages {
    /// In so many bytes at most; what has not been sent for longest goes first.
    pub(super) fn new(bound: usize) -> Self {
        let weigh = |_: &PageId, page: &Arc<Page>| u32::try_from(page.weight()).unwrap_or(u32::MAX);
        let at_hand = moka::sync::Cache::builder()
            .max_capacity(bound as u64)
            .weigher(weigh)
            .eviction_policy(EvictionPolicy::lru())
            .build_with_hasher(BuildHasherDefault::default());
        Self { at_hand, bound }
    }

    /// Keeps a page at hand and, if `cache` is on servers, there. Whether it can be found again.
    pub(super) async fn keep(
        &self,
        cache: &Cache,
        page: &Arc<Page>,
        stored: &[u8],
        lifetime: Option<std::time::Duration>,
    ) -> bool {
        let fits = page.weight() <= self.bound;
        if fits {
            self.at_hand.insert(page.id, Arc::clone(page));
        }
        if !cache.backend().is_shared() {
            return fits;
        }
        let key = key(cache, page.id);
        let frame = cache.secret().entry(&key, Stamp::default(), stored);
        let entry = (key, frame);
        let outcome = cache.backend().set_many(&[entry], lifetime).await.remove(0);
        outcome.inspect_err(|failure| cache.failed(*failure)).is_ok() || fits
    }

    /// A page that has been kept.
    pub(super) async fn find(&self, cache: &Cache, id: PageId) -> Option<Arc<Page>> {
        match self.at_hand.get(&id) {
            None if cache.backend().is_shared() => Box::pin(self.fetch(cache, id)).await,
            at_hand => at_hand,
        }
    }

    /// A page that the servers have, which is at hand from now on.
    async fn fetch(&self, cache: &Cache, id: PageId) -> Option<Arc<Page>> {
        let key = key(cache, id);
        let found = cache.backend().get(&key, false).await;
        let found = found.inspect_err(|failure| cache.failed(*failure)).ok()??;
        let Some(Frame::Entry { body, .. }) = cache.secret().open(&key, &found.bytes) else {
            return None;
        };
        let page = Arc::new(Page::of_stored(&body)?);
        // What is not what it says it is has been damaged, or written by somebody else.
        let is_it = page.id == id;
        if is_it {
            self.at_hand.insert(id, Arc::clone(&page));
        }
        is_it.then_some(page)
    }
}

fn key(cache: &Cache, id: PageId) -> String {
    cache.full_key(&format!("view-page/{id:032x}"))
}
