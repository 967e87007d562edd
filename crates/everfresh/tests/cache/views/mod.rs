//! Tests of the view cache: whole pages, requested from a real server.

mod sessions;
pub mod site;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use actix_web::{
    App, HttpRequest, HttpResponse,
    cookie::Cookie,
    http::{
        Method, StatusCode, Version,
        header::{self, HeaderValue},
    },
    test::{self, TestRequest},
    web::{self, Bytes},
};
use everfresh::{Cache, Lifetime, ViewCache, ViewCacheBuilder, view_key};
use futures_util::stream;
use memcached_client::Protocol;
use test_support::{
    counting_proxy::CountingProxy,
    http::Reply,
    memcached::{Kind, Memcached},
    wait::eventually,
};
use tokio::sync::Semaphore;

use self::site::Site;

fn memory() -> Cache {
    Cache::memory(1 << 24).build()
}

fn views(cache: &Cache) -> ViewCacheBuilder {
    ViewCache::builder(cache.clone())
}

fn on_every_backend(check: impl Fn(&Cache)) {
    let server = Memcached::start(Kind::Plain);
    check(&memory());
    check(&Cache::memcached(server.client(Protocol::Binary)).build());
    check(&Cache::memcached(server.client(Protocol::Text)).prefix("text:").build());
    check(&Cache::memcached(server.client(Protocol::Meta)).prefix("meta:").build());
}

/// Returns a handler that counts its calls. `change` makes the response from the text `page N`,
/// where N is the number of the call.
fn counting(
    change: impl Fn(&HttpRequest, String) -> HttpResponse + Clone + Send + 'static,
) -> impl Fn(HttpRequest) -> std::future::Ready<HttpResponse> + Clone + Send + 'static {
    let calls = Arc::new(AtomicU32::new(0));
    move |req| {
        let number = calls.fetch_add(1, Ordering::SeqCst) + 1;
        std::future::ready(change(&req, format!("page {number}")))
    }
}

fn plain(_: &HttpRequest, text: String) -> HttpResponse {
    HttpResponse::Ok().content_type("text/html").body(text)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_page_is_computed_once_and_again_after_it_is_deleted() {
    on_every_backend(|cache| {
        let views = views(cache).build();
        let site = Site::start(&views, counting(plain));
        assert_eq!(site.texts(["/a", "/a", "/b", "/a"]), ["page 1", "page 1", "page 2", "page 1"]);
        assert!(block_on(views.forget("/a")));
        assert_eq!(site.texts(["/a", "/b"]), ["page 3", "page 2"]);
        assert!(block_on(cache.delete(&view_key("/b"))));
        assert_eq!(site.texts(["/a", "/b"]), ["page 3", "page 4"]);
    });
}

#[test]
fn a_page_can_be_made_anew_by_a_request_that_may() {
    on_every_backend(|cache| {
        let views = views(cache).renew_if(|req| req.headers().contains_key("x-renew")).build();
        let site = Site::start(&views, counting(plain));
        assert_eq!(site.texts(["/a", "/a"]), ["page 1", "page 1"]);
        assert_eq!(site.get_with("/a", &[("x-renew", "1")]).body, "page 2");
        assert_eq!(site.get("/a").body, "page 2");
    });
}

#[test]
fn the_query_is_not_part_of_the_key_and_is_hidden_from_the_handler() {
    let reflect = |req: &HttpRequest, text| plain(req, format!("{text} {}", req.query_string()));
    let site = Site::start(&views(&memory()).build(), counting(reflect));
    assert_eq!(site.texts(["/?x=1", "/", "/?y=%20&x"]), ["page 1 ", "page 1 ", "page 1 "]);
}

#[test]
fn only_named_parameters_are_part_of_the_key_in_any_order() {
    let reflect = |req: &HttpRequest, text| plain(req, format!("{text} {}", req.query_string()));
    let views = views(&memory()).query(["page", "q"]).build();
    let site = Site::start(&views, counting(reflect));
    assert_eq!(
        site.texts(["/?q=a%20b&page=2&x=1", "/?page=2&q=a+b", "/?page=3", "/?page=%33&z=9", "/"]),
        ["page 1 page=2&q=a+b", "page 1 page=2&q=a+b", "page 2 page=3", "page 2 page=3", "page 3 "]
    );
    assert!(block_on(views.forget("/?q=a+b&page=2")));
    assert_eq!(
        site.texts(["/?page=2&q=a+b", "/?page=3"]),
        ["page 4 page=2&q=a+b", "page 2 page=3"]
    );
}

#[test]
fn only_one_spelling_of_a_path_is_cached() {
    let views = views(&memory()).query(["a"]).build();
    assert_ne!(views.key("/x%3Fa=1"), views.key("/x?a=1"));
    assert_ne!(view_key("/x?a=1"), views.key("/x?a=1"));
    let site = Site::start(&views, counting(plain));
    assert_eq!(site.texts(["/tag/caf%C3%A9", "/tag/caf%C3%A9"]), ["page 1", "page 1"]);
    for other in ["/t%61g/caf%C3%A9", "/tag/caf%c3%a9", "/tag%2Fcaf%C3%A9"] {
        assert_eq!(site.get(other).cache_status(), "fwd=bypass", "{other}");
    }
    assert!(block_on(views.forget("/tag/caf\u{e9}")));
    assert_ne!(site.get("/tag/caf%C3%A9").body.as_str(), "page 1");
    assert_eq!(view_key("/tag/caf\u{e9}"), view_key("/tag/caf%c3%a9"));
    // Browsers send these characters without percent-encoding.
    for path in ["/a|b", "/a[1]'", "/~me/x.html;v=1,2", "/x:y@z!$&()*+"] {
        assert_eq!(site.get(path).cache_status(), "fwd=uri-miss; stored", "{path}");
    }
}

#[test]
fn a_request_with_an_absolute_url_stores_no_page() {
    let reflect = |req: HttpRequest| async move { HttpResponse::Ok().body(req.uri().to_string()) };
    let site = Site::start(&views(&memory()).build(), reflect);
    let mut client = TcpStream::connect(site.address()).unwrap();
    let request = "GET https://evil.example/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("fwd=bypass"), "{answer}");
    assert_eq!(site.get("/?").body.as_str(), "/");
}

#[tokio::test]
async fn with_http_2_the_authority_of_the_url_replaces_the_host_header() {
    let views = views(&memory()).build();
    let host = |req: HttpRequest| async move {
        let host = req.connection_info().host().to_owned();
        HttpResponse::Ok().insert_header((header::VARY, "host")).body(host)
    };
    let app = test::init_service(App::new().service(web::resource("/").wrap(views).to(host))).await;
    for host in ["a.example", "b.example", "a.example"] {
        let uri = format!("https://{host}/");
        let request = TestRequest::get().version(Version::HTTP_2).uri(&uri).to_request();
        let response = test::call_service(&app, request).await;
        assert_eq!(test::read_body(response).await, host.as_bytes());
    }
}

#[test]
fn a_page_with_a_key_function_is_deleted_by_that_key() {
    let key = |req: &actix_web::dev::ServiceRequest| Some(req.uri().to_string());
    let views = views(&memory()).key(key).build();
    let site = Site::start(&views, counting(plain));
    assert_eq!(site.texts(["/a?x=1", "/a?x=1", "/a?x=2"]), ["page 1", "page 1", "page 2"]);
    assert!(block_on(views.forget("/a?x=1")));
    assert_eq!(site.texts(["/a?x=1", "/a?x=2"]), ["page 3", "page 2"]);
}

#[test]
fn head_is_answered_like_get_with_and_without_an_entry() {
    // As an app with a route for GET alone.
    let only_get = |req: &HttpRequest, text| {
        if req.method() == Method::GET {
            plain(req, text)
        } else {
            HttpResponse::MethodNotAllowed().finish()
        }
    };
    let site = Site::start(&views(&memory()).build(), counting(only_get));
    let length = "page 1".len().to_string();
    for status in ["fwd=uri-miss; stored", "hit"] {
        let head = site.send("HEAD", "/", &[]);
        assert_eq!((head.status, head.bytes.len()), (200, 0));
        assert_eq!(head.header("content-length"), length);
        assert_eq!(head.header("content-type"), "text/html");
        assert_eq!(head.cache_status(), status);
    }
    assert_eq!(site.get("/").body, "page 1");
}

#[test]
fn head_of_a_page_that_is_not_cached_is_answered_like_get() {
    let uncacheable = |req: &HttpRequest, text| {
        let mut response = plain(req, text);
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().insert(header::CACHE_CONTROL, no_store);
        if req.method() == Method::GET { response } else { HttpResponse::NotFound().finish() }
    };
    let site = Site::start(&views(&memory()).build(), counting(uncacheable));
    for _ in 0..2 {
        let head = site.send("HEAD", "/", &[]);
        assert_eq!((head.status, head.bytes.len()), (200, 0));
    }
}

#[test]
fn a_hit_has_the_headers_cache_status_and_age() {
    let site = Site::start(&views(&memory()).build(), counting(plain));
    let (first, second) = (site.get("/"), site.get("/"));
    assert_eq!(first.cache_status(), "fwd=uri-miss; stored");
    assert_eq!(first.header("age"), "");
    assert_eq!(second.cache_status(), "hit");
    assert!(second.header("age").parse::<u64>().unwrap() < 60);
    for seen in [first, second] {
        assert_eq!(seen.header("cache-control"), "private, no-cache");
        assert_eq!(seen.header("content-type"), "text/html");
        assert!(!seen.header("date").is_empty());
    }
}

#[test]
fn a_conditional_request_for_an_unchanged_page_gets_304() {
    on_every_backend(|cache| {
        let views = views(cache).build();
        let site = Site::start(&views, counting(plain));
        let tag = site.get("/").header("etag");
        for listed in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            let seen = site.get_with("/", &[("if-none-match", &listed)]);
            assert_eq!((seen.status, seen.bytes.len()), (304, 0), "{listed}");
            assert_eq!((seen.header("etag"), seen.cache_status()), (tag.clone(), "hit".to_owned()));
            assert_eq!(seen.header("cache-control"), "private, no-cache");
        }
        assert_eq!(site.get_with("/", &[("if-none-match", "\"x\"")]).status, 200);
        block_on(views.forget("/"));
        let seen = site.get_with("/", &[("if-none-match", &tag)]);
        assert_eq!((seen.status, seen.body.as_str()), (200, "page 2"));
        assert_ne!(seen.header("etag"), tag);
    });
}

#[test]
fn equal_pages_have_equal_etags_in_all_processes() {
    let many = |_: HttpRequest| async {
        let mut res = HttpResponse::Ok();
        for n in 0..20 {
            res.append_header((format!("x-{n}"), "a")).append_header((format!("x-{n}"), "b"));
        }
        res.body("x")
    };
    let tag = || Site::start(&views(&memory()).build(), many).get("/").header("etag");
    let first = tag();
    assert!((0..5).all(|_| tag() == first));
}

fn long_page(_: &HttpRequest, text: String) -> HttpResponse {
    let body = format!("{text} {}", "<li>a task</li>\n".repeat(500));
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(body)
}

fn decompressed(seen: &Reply) -> String {
    let mut text = String::new();
    match seen.header("content-encoding").as_str() {
        "br" => drop(brotli::Decompressor::new(&seen.bytes[..], 4096).read_to_string(&mut text)),
        "gzip" => drop(flate2::read::GzDecoder::new(&seen.bytes[..]).read_to_string(&mut text)),
        _ => seen.body.as_str().clone_into(&mut text),
    }
    text
}

#[test]
fn each_client_gets_a_form_that_it_accepts_with_its_own_etag() {
    on_every_backend(|cache| {
        let site = Site::start(&views(cache).build(), counting(long_page));
        let whole = decompressed(&site.get("/"));
        let mut tags = Vec::new();
        for (accepted, coding) in [("", ""), ("gzip", "gzip"), ("gzip, deflate, br", "br")] {
            for _ in 0..2 {
                let seen = site.get_with("/", &[("accept-encoding", accepted)]);
                assert_eq!(seen.header("content-encoding"), coding);
                assert_eq!(seen.header("vary"), "accept-encoding");
                assert_eq!(decompressed(&seen), whole);
                let tag = seen.header("etag");
                let asked = [("accept-encoding", accepted), ("if-none-match", tag.as_str())];
                let again = site.get_with("/", &asked);
                assert_eq!((again.status, again.header("etag")), (304, tag.clone()));
                assert_eq!(again.header("vary"), "accept-encoding");
                tags.push(tag);
            }
        }
        tags.dedup();
        assert_eq!(tags.len(), 3);
        // A client that does not accept a form gets no 304 for its tag.
        assert_eq!(site.get_with("/", &[("if-none-match", &tags[2])]).status, 200);
    });
}

#[test]
fn short_pages_and_pictures_are_not_compressed() {
    let picture =
        |_: &HttpRequest, _| HttpResponse::Ok().content_type("image/png").body(vec![0; 10_000]);
    for site in [
        Site::start(&views(&memory()).build(), counting(plain)),
        Site::start(&views(&memory()).build(), counting(picture)),
    ] {
        for _ in 0..2 {
            let seen = site.get_with("/", &[("accept-encoding", "gzip, br")]);
            assert_eq!((seen.header("content-encoding"), seen.header("vary")), Default::default());
        }
    }
}

/// Checks that a page is neither stored nor answered from the cache.
fn assert_uncacheable(views: ViewCacheBuilder, change: fn(&HttpRequest, String) -> HttpResponse) {
    let site = Site::start(&views.build(), counting(change));
    let first = site.get("/");
    let second = site.get("/");
    assert!(!first.cache_status().contains("stored"), "{first:?}");
    assert_ne!(second.cache_status(), "hit");
    assert_ne!(second.bytes, first.bytes);
}

#[test]
fn errors_and_redirects_are_not_stored() {
    fn with<const CODE: u16>(_: &HttpRequest, text: String) -> HttpResponse {
        HttpResponse::build(StatusCode::from_u16(CODE).unwrap())
            .insert_header((header::LOCATION, "/elsewhere"))
            .body(text)
    }
    for change in [
        with::<201>,
        with::<206>,
        with::<301>,
        with::<303>,
        with::<404>,
        with::<422>,
        with::<500>,
        with::<503>,
    ] {
        assert_uncacheable(views(&memory()), change);
    }
}

#[test]
fn a_response_that_sets_a_cookie_is_not_stored() {
    assert_uncacheable(views(&memory()), |_, text| {
        HttpResponse::Ok().cookie(Cookie::new("id", text.clone())).body(text)
    });
}

#[test]
fn a_response_is_not_stored_if_its_cache_control_forbids_it() {
    fn with(value: &'static str) -> impl Fn(&HttpRequest, String) -> HttpResponse + Clone + Send {
        move |_, text| HttpResponse::Ok().insert_header((header::CACHE_CONTROL, value)).body(text)
    }
    for value in [
        "private",
        "private, x=\u{e9}",
        "x=\u{e9}",
        "max-age=-1",
        "max-age=0.5",
        "no-store",
        "no-cache",
        "max-age=0",
        "public, Private",
        "max-age=9, s-maxage=0",
        "private=\"set-cookie\"",
    ] {
        let site = Site::start(&views(&memory()).build(), counting(with(value)));
        assert_eq!(site.texts(["/", "/"]), ["page 1", "page 2"], "{value}");
    }
    assert_uncacheable(views(&memory()), |_, text| {
        HttpResponse::Ok().insert_header((header::EXPIRES, "0")).body(text)
    });
    let site = Site::start(&views(&memory()).build(), counting(with("public, max-age=60")));
    assert_eq!(site.texts(["/", "/"]), ["page 1", "page 1"]);
    assert_eq!(site.get("/").header("cache-control"), "public, max-age=60");
}

#[test]
fn a_stream_is_not_stored_and_arrives_complete() {
    assert_uncacheable(views(&memory()), |_, text| {
        let parts = ["a ", "stream ", &text].map(|part| Ok(Bytes::from(part.to_owned())));
        HttpResponse::Ok().streaming(stream::iter::<[Result<_, actix_web::Error>; 3]>(parts))
    });
    let endless = |_: &HttpRequest, text: String| {
        HttpResponse::Ok().streaming(stream::iter([Ok::<_, actix_web::Error>(Bytes::from(text))]))
    };
    let site = Site::start(&views(&memory()).build(), counting(endless));
    assert_eq!(site.texts(["/", "/"]), ["page 1", "page 2"]);
}

#[test]
fn a_response_with_a_content_encoding_is_not_stored() {
    assert_uncacheable(views(&memory()), |_, text| {
        HttpResponse::Ok().insert_header((header::CONTENT_ENCODING, "br")).body(text)
    });
}

#[test]
fn a_response_that_varies_by_everything_is_not_stored() {
    assert_uncacheable(views(&memory()), |_, text| {
        HttpResponse::Ok().insert_header((header::VARY, "accept, *")).body(text)
    });
}

#[test]
fn a_response_with_an_unreadable_vary_is_not_stored() {
    assert_uncacheable(views(&memory()), |_, text| {
        let vary = HeaderValue::from_bytes("cookie, \u{e9}".as_bytes()).unwrap();
        HttpResponse::Ok().insert_header((header::VARY, vary)).body(text)
    });
}

#[test]
fn a_page_with_no_transform_is_not_compressed() {
    let site = Site::start(
        &views(&memory()).build(),
        counting(|req, text| {
            let mut res = long_page(req, text);
            let value = HeaderValue::from_static("no-transform");
            res.headers_mut().insert(header::CACHE_CONTROL, value);
            res
        }),
    );
    for _ in 0..2 {
        let seen = site.get_with("/", &[("accept-encoding", "gzip")]);
        assert_eq!(seen.header("content-encoding"), "");
    }
}

#[test]
fn a_page_is_not_stored_if_the_handler_or_a_condition_refuses_it() {
    assert_uncacheable(views(&memory()), |req, text| {
        let mut res = plain(req, text);
        ViewCache::set_lifetime(&mut res, Lifetime::For(Duration::ZERO));
        res
    });
    assert_uncacheable(
        views(&memory()).only_if(|head| !head.headers.contains_key("x-flash")),
        |_, text| HttpResponse::Ok().insert_header(("x-flash", "1")).body(text),
    );
    assert_uncacheable(views(&memory()).unless(|req| req.path() == "/"), plain);
    assert_uncacheable(views(&memory()).key(|_| None), plain);
    assert_uncacheable(views(&memory()).lifetime(Lifetime::For(Duration::ZERO)), plain);
}

#[test]
fn requests_with_authorization_or_a_bypass_cookie_bypass_the_cache() {
    for secret in [
        ("authorization", "Basic eA=="),
        ("cookie", "flash=1"),
        ("cookie", "a=b; flash=; c=d"),
        ("cookie", "flash"),
    ] {
        let site = Site::start(&views(&memory()).bypass_cookie("flash").build(), counting(plain));
        let first = site.get_with("/", &[secret]);
        assert_eq!(
            (first.body.as_str(), first.cache_status().as_str()),
            ("page 1", "fwd=bypass"),
            "{secret:?}"
        );
        assert_eq!(site.get("/").body.as_str(), "page 2", "the page was not stored");
        assert_eq!(
            site.get_with("/", &[secret]).body.as_str(),
            "page 3",
            "the page is not from the cache"
        );
        assert_eq!(site.get("/").body.as_str(), "page 2");
        assert_eq!(site.get_with("/", &[("cookie", "flashy=1; x=flash")]).body.as_str(), "page 2");
    }
}

#[test]
fn only_get_and_head_are_answered_from_the_cache() {
    let site = Site::start(&views(&memory()).build(), counting(plain));
    site.get("/");
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let seen = site.send(method, "/", &[]);
        assert_eq!((seen.status, seen.cache_status().as_str()), (200, ""), "{method}");
        assert_ne!(seen.body.as_str(), "page 1");
    }
    assert_eq!(site.get("/").body.as_str(), "page 1");
}

fn by_language(req: &HttpRequest, text: String) -> HttpResponse {
    let language = req.headers().get(header::ACCEPT_LANGUAGE).map_or("-", |v| v.to_str().unwrap());
    HttpResponse::Ok()
        .insert_header((header::VARY, "Accept-Language, accept-encoding"))
        .body(format!("{text} in {language}"))
}

#[test]
fn clients_with_different_values_of_a_vary_header_share_no_page() {
    on_every_backend(|cache| {
        let views = views(cache).build();
        let site = Site::start(&views, counting(by_language));
        let page_in = |language| {
            site.get_with("/", &[("accept-language", language)]).body.as_str().to_owned()
        };
        let values = ["de", "en", "de,en", "de, en", "d", "e", "%64e", "de/", "de;q=1", "DE"];
        for value in values {
            assert!(page_in(value).ends_with(&format!(" in {value}")));
        }
        assert_eq!(site.get("/").body.as_str(), "page 11 in -");
        for (at, value) in values.iter().enumerate() {
            assert_eq!(page_in(value), format!("page {} in {value}", at + 1));
        }
        assert!(block_on(views.forget("/")), "all variants are deleted");
        assert_eq!(page_in("en"), "page 12 in en");
        assert_eq!(page_in("de"), "page 13 in de");
        assert_eq!(page_in("en"), "page 12 in en");
    });
}

#[test]
fn a_response_may_vary_by_more_headers_than_earlier_ones() {
    let handler = |req: &HttpRequest, text: String| {
        let value =
            |name: &str| req.headers().get(name).map_or("-", |v| v.to_str().unwrap()).to_owned();
        let (a, b) = (value("x-a"), value("x-b"));
        let vary = if a == "more" { "x-a, x-b" } else { "x-a" };
        let shown = if a == "more" { format!("{text} {a} {b}") } else { format!("{text} {a}") };
        HttpResponse::Ok().insert_header((header::VARY, vary)).body(shown)
    };
    let site = Site::start(&views(&memory()).build(), counting(handler));
    let seen = |a, b| site.get_with("/", &[("x-a", a), ("x-b", b)]).body.as_str().to_owned();
    assert_eq!(seen("less", "1"), "page 1 less");
    assert_eq!(seen("more", "1"), "page 2 more 1");
    assert_eq!(seen("more", "2"), "page 3 more 2");
    assert_eq!(seen("more", "1"), "page 4 more 1");
    assert_eq!(seen("more", "1"), "page 4 more 1", "the cache has learned the second header");
    assert_eq!(seen("more", "2"), "page 3 more 2");
}

const UNUSUAL_QUERIES: [&str; 20] = [
    "?x=1",
    "?",
    "?&",
    "?page=2&page=3&x",
    "?%00",
    "?a=%0d%0aSet-Cookie:%20x=1",
    "?utm_source=x",
    "?callback=alert",
    "?_method=DELETE",
    "?x=%3Cscript%3E",
    "?page=1;x=2",
    "?x[]=1",
    "?page",
    "?page=",
    "?%70age=9",
    "?PAGE=2",
    "?x=/../..",
    "?lang=de",
    "?cb=1&cb=2",
    "?=",
];

const UNUSUAL_HEADERS: [(&str, &str); 21] = [
    ("host", "evil.example"),
    ("x-forwarded-host", "evil.example"),
    ("x-forwarded-for", "1.1.1.1"),
    ("x-forwarded-proto", "ftp"),
    ("forwarded", "host=evil"),
    ("x-original-url", "/admin"),
    ("x-rewrite-url", "/admin"),
    ("x-http-method-override", "POST"),
    ("range", "bytes=0-1"),
    ("cache-control", "no-store"),
    ("pragma", "no-cache"),
    ("if-none-match", "*"),
    ("if-modified-since", "Thu, 01 Jan 2032 00:00:00 GMT"),
    ("cookie", "a=b"),
    ("accept", "image/png"),
    ("accept-encoding", "br;q=0.1, gzip;q=0"),
    ("user-agent", "<script>"),
    ("te", "trailers"),
    ("accept-language", "de"),
    ("origin", "https://evil.example"),
    ("expect", ""),
];

#[test]
fn forty_unusual_requests_do_not_change_the_page_for_others() {
    let page = |req: &HttpRequest, _: String| {
        let language =
            req.headers().get(header::ACCEPT_LANGUAGE).map_or("-", |v| v.to_str().unwrap());
        let body = format!("{} {language} {}", req.uri(), "x".repeat(2000));
        HttpResponse::Ok()
            .content_type("text/html")
            .insert_header((header::VARY, "accept-language"))
            .body(body)
    };
    let site = || Site::start(&views(&memory()).query(["page"]).build(), counting(page));
    let expected = site().get("/");
    assert_eq!(expected.status, 200);
    let unusual_queries = UNUSUAL_QUERIES.map(|query| (format!("/{query}"), None));
    let unusual_headers = UNUSUAL_HEADERS.map(|header| ("/".to_owned(), Some(header)));
    for (target, header) in unusual_queries.into_iter().chain(unusual_headers) {
        let site = site();
        site.get_with(&target, header.as_slice());
        let seen = site.get("/");
        assert_eq!((seen.status, &seen.bytes), (200, &expected.bytes), "{target} {header:?}");
        for name in ["etag", "vary", "content-type", "content-encoding", "cache-control"] {
            assert_eq!(seen.header(name), expected.header(name), "{target} {header:?}");
        }
    }
}

#[test]
fn a_key_function_replaces_the_path_as_the_key() {
    let key = |req: &actix_web::dev::ServiceRequest| Some(req.query_string().len().to_string());
    let views = views(&memory()).key(key).build();
    let reflect = |req: &HttpRequest, text| plain(req, format!("{text} {}", req.query_string()));
    let site = Site::start(&views, counting(reflect));
    assert_eq!(site.texts(["/a?x=1", "/b?y=2", "/c?z"]), ["page 1 x=1", "page 1 x=1", "page 2 z"]);
}

#[tokio::test]
async fn a_page_expires_after_its_lifetime() {
    let by_header = |_: &HttpRequest, text| {
        HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "max-age=2")).body(text)
    };
    let by_handler = |req: &HttpRequest, text| {
        let mut res = plain(req, text);
        ViewCache::set_lifetime(&mut res, Lifetime::For(Duration::from_secs(2)));
        res
    };
    let two_seconds = Lifetime::For(Duration::from_secs(2));
    for site in [
        Site::start(&views(&memory()).build(), counting(by_header)),
        Site::start(&views(&memory()).build(), counting(by_handler)),
        Site::start(&views(&memory()).lifetime(two_seconds).build(), counting(plain)),
    ] {
        assert_eq!(site.texts(["/", "/"]), ["page 1", "page 1"]);
        eventually("the page is computed again", async || site.get("/").body.as_str() == "page 2")
            .await;
    }
}

#[test]
fn a_page_computed_before_a_delete_is_sent_but_not_stored() {
    on_every_backend(|cache| {
        let views = views(cache).build();
        let (has_read, may_answer) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let value = Arc::new(AtomicU32::new(1));
        let handler = {
            let (has_read, may_answer, value) =
                (has_read.clone(), may_answer.clone(), value.clone());
            move |_: HttpRequest| {
                let (has_read, may_answer) = (has_read.clone(), may_answer.clone());
                let read = value.load(Ordering::SeqCst);
                async move {
                    has_read.add_permits(1);
                    may_answer.acquire().await.unwrap().forget();
                    HttpResponse::Ok().body(read.to_string())
                }
            }
        };
        let site = Site::start(&views, handler);
        thread::scope(|scope| {
            let slow = scope.spawn(|| site.get("/"));
            block_on(has_read.acquire()).unwrap().forget();
            value.store(2, Ordering::SeqCst);
            assert!(block_on(views.forget("/")));
            may_answer.add_permits(1);
            let slow = slow.join().unwrap();
            assert_eq!((slow.body.as_str(), slow.cache_status().as_str()), ("1", "fwd=uri-miss"));
        });
        may_answer.add_permits(1);
        assert_eq!(site.texts(["/", "/"]), ["2", "2"]);
    });
}

/// Releases all waiting handlers when dropped, also when a test fails.
struct Release<'a>(&'a Semaphore);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.add_permits(1000);
    }
}

#[test]
fn five_hundred_concurrent_requests_compute_a_page_once() {
    on_every_backend(|cache| {
        let calls = Arc::new(AtomicU32::new(0));
        let may_answer = Arc::new(Semaphore::new(0));
        let handler = {
            let (calls, may_answer) = (calls.clone(), may_answer.clone());
            move |_: HttpRequest| {
                let (calls, may_answer) = (calls.clone(), may_answer.clone());
                async move {
                    calls.fetch_add(1, Ordering::SeqCst);
                    may_answer.acquire().await.unwrap().forget();
                    HttpResponse::Ok().body("page")
                }
            }
        };
        let site = Site::start(&views(cache).build(), handler);
        let release = Release(&may_answer);
        thread::scope(|scope| {
            let release = release;
            let clients: Vec<_> =
                (0..500).map(|_| scope.spawn(|| site.get("/").body.as_str().to_owned())).collect();
            // One request computes; the other 499 wait for it.
            block_on(eventually("all requests wait", async || cache.stats()["cache"].waits >= 499));
            drop(release);
            assert!(clients.into_iter().all(|client| client.join().unwrap() == "page"));
        });
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn if_the_first_client_disconnects_the_next_one_computes_the_page() {
    let (has_come, may_answer) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let handler = {
        let (has_come, may_answer) = (has_come.clone(), may_answer.clone());
        move |_: HttpRequest| {
            let (has_come, may_answer) = (has_come.clone(), may_answer.clone());
            async move {
                has_come.add_permits(1);
                may_answer.acquire().await.unwrap().forget();
                HttpResponse::Ok().body("page")
            }
        }
    };
    let site = Site::start(&views(&memory()).build(), handler);
    let mut first = TcpStream::connect(site.address()).unwrap();
    first.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    block_on(has_come.acquire()).unwrap().forget();
    thread::scope(|scope| {
        let release = Release(&may_answer);
        let second = scope.spawn(|| site.get("/").body.as_str().to_owned());
        drop(first);
        // The second request waited for the first, and now computes the page itself.
        block_on(has_come.acquire()).unwrap().forget();
        drop(release);
        assert_eq!(second.join().unwrap(), "page");
    });
}

#[test]
fn a_hit_takes_one_small_round_trip_for_a_page_of_any_size() {
    let proxy = CountingProxy::start();
    let large =
        |_: &HttpRequest, text: String| HttpResponse::Ok().body(text + &"x".repeat(300_000));
    let cache = Cache::memcached(proxy.client()).build();
    let site = Site::start(&views(&cache).build(), counting(large));
    // Each worker opens a connection of its own with its first request.
    for _ in 0..20 {
        site.get("/");
    }
    proxy.round_trips();
    let hits = proxy.server().stat("get_hits");
    let sent = proxy.server().stat("bytes_written");
    for _ in 0..10 {
        assert_eq!(site.get("/").cache_status(), "hit");
    }
    assert_eq!(proxy.round_trips(), 10);
    assert_eq!(proxy.server().stat("get_hits") - hits, 10);
    assert!(proxy.server().stat("bytes_written") - sent < 10_000);

    // Another process fetches the page itself once.
    let other = Cache::memcached(proxy.client()).build();
    let other = Site::start(&views(&other).build(), counting(large));
    assert_eq!(other.get("/").bytes, site.get("/").bytes);
    assert_eq!(other.get("/").cache_status(), "hit");
}

#[test]
fn a_page_over_the_servers_size_limit_is_cached_in_each_process() {
    let server = Memcached::start(Kind::Plain);
    let large =
        |_: &HttpRequest, text: String| HttpResponse::Ok().body(text + &"x".repeat(2_000_000));
    let process = |at_hand| {
        let cache = Cache::memcached(server.client(Protocol::Binary)).build();
        Site::start(&views(&cache).local_bytes(at_hand).build(), counting(large))
    };
    let (one, other) = (process(8 << 20), process(8 << 20));
    for site in [&one, &other] {
        assert_eq!(site.get("/").status, 200);
        assert_eq!(site.get("/").cache_status(), "hit");
    }
    let without_memory = process(0);
    for number in 1..4 {
        assert!(without_memory.get("/").body.as_str().starts_with(&format!("page {number}x")));
    }
}

#[test]
fn a_damaged_page_is_computed_again() {
    let server = Memcached::start(Kind::Plain);
    let cache = Cache::memcached(server.client(Protocol::Binary)).build();
    let site = Site::start(&views(&cache).local_bytes(0).build(), counting(plain));
    let damages: [fn(&mut Vec<u8>); 4] = [
        |bytes| *bytes.last_mut().unwrap() = b'9',
        |bytes| bytes.truncate(30),
        |bytes| bytes[20..24].fill(0xff),
        Vec::clear,
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let whole = site.get("/");
        assert_eq!(whole.body.as_str(), format!("page {}", number + 1));
        assert_eq!(site.get("/").cache_status(), "hit");
        block_on(async {
            let key = format!("view-page/{}", whole.header("etag").replace('"', ""));
            let client = server.client(Protocol::Binary);
            let mut bytes = client.get(&key).await.unwrap().unwrap().data.to_vec();
            damage(&mut bytes);
            client.set(&key, &bytes[..]).await.unwrap();
        });
        assert_eq!(site.get("/").body.as_str(), format!("page {}", number + 2));
    }
}

#[test]
fn an_entry_that_is_not_a_page_is_replaced() {
    on_every_backend(|cache| {
        block_on(cache.set(&view_key("/"), &"something else", Lifetime::Forever));
        let site = Site::start(&views(cache).build(), counting(plain));
        assert_eq!(site.texts(["/", "/"]), ["page 1", "page 1"]);
    });
}

#[test]
fn an_entry_of_another_version_is_not_served() {
    let server = Memcached::start(Kind::Plain);
    let cache = || Cache::memcached(server.client(Protocol::Binary)).build();
    let cache_status = |version| {
        let views = views(&cache()).version(version).build();
        Site::start(&views, counting(plain)).get("/").cache_status()
    };
    // Whether a server has stored a page is not known when it is answered.
    assert_eq!(
        [1, 1, 2, 1].map(cache_status),
        ["fwd=uri-miss", "hit", "fwd=uri-miss", "fwd=uri-miss"]
    );
}

#[test]
fn without_a_working_backend_pages_are_computed_each_time() {
    for cache in [Cache::failing().build(), Cache::null().build()] {
        let site = Site::start(&views(&cache).build(), counting(plain));
        assert_eq!(site.texts(["/", "/"]), ["page 1", "page 2"]);
    }
}

#[test]
fn requests_for_an_uncacheable_page_do_not_wait_for_each_other() {
    let (has_come, may_answer) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let handler = {
        let (has_come, may_answer) = (has_come.clone(), may_answer.clone());
        move |req: HttpRequest| {
            let (has_come, may_answer) = (has_come.clone(), may_answer.clone());
            async move {
                has_come.add_permits(1);
                may_answer.acquire().await.unwrap().forget();
                let query = req.query_string().to_owned();
                HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "private")).body(query)
            }
        }
    };
    let site = Site::start(&views(&memory()).build(), handler);
    may_answer.add_permits(1);
    assert_eq!(site.get("/").cache_status(), "fwd=uri-miss");
    block_on(has_come.acquire()).unwrap().forget();
    thread::scope(|scope| {
        let release = Release(&may_answer);
        let clients: Vec<_> =
            (0..8).map(|_| scope.spawn(|| site.get("/?x=1").body.as_str().to_owned())).collect();
        // All eight requests are in the handler at the same time.
        block_on(has_come.acquire_many(8)).unwrap().forget();
        drop(release);
        for client in clients {
            assert_eq!(client.join().unwrap(), "", "the handler sees no query");
        }
    });
}

#[test]
fn one_clients_uncacheable_page_does_not_affect_others() {
    let by_cookie = |req: &HttpRequest, text| {
        let mut res = HttpResponse::Ok();
        res.insert_header((header::VARY, "cookie"));
        if req.headers().contains_key(header::COOKIE) {
            // The cookie expires at once, so that the next request does not send it.
            let ended = actix_web::cookie::time::Duration::ZERO;
            res.cookie(Cookie::build("id", "").max_age(ended).finish());
        }
        res.body(text)
    };
    let site = Site::start(&views(&memory()).build(), counting(by_cookie));
    assert_eq!(site.texts(["/", "/"]), ["page 1", "page 1"]);
    for n in 0..5 {
        site.get_with("/", &[("cookie", &format!("id={n}"))]);
    }
    assert_eq!(site.get("/").cache_status(), "hit");
}
