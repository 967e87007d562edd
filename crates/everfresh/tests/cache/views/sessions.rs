//! Pages of visitors with a session: never shown to others.

use actix_http::Request;
use actix_session::{
    Session, SessionMiddleware,
    storage::{CookieSessionStore, SessionStore},
};
use actix_web::{
    App, Error, HttpRequest, HttpResponse,
    body::MessageBody,
    cookie::{Cookie, Key},
    dev::{Service, ServiceResponse},
    http::header,
    test::{self, TestRequest},
    web::{self, ServiceConfig},
};
use everfresh::{Cache, CacheSessionStore, ViewCache, ViewCacheBuilder, WatchedSessions};

use crate::values::not_kept::{collect_warnings, warnings_of};

/// Shows the name in the session.
async fn greet(session: Session) -> HttpResponse {
    let name: Option<String> = session.get("name").unwrap();
    HttpResponse::Ok().body(format!("I am {}", name.as_deref().unwrap_or("nobody")))
}

/// Like [`greet`], and tells the cache what it depends on.
async fn greet_openly(session: Session) -> HttpResponse {
    let mut response = greet(session).await;
    response.headers_mut().insert(header::VARY, header::HeaderValue::from_static("cookie"));
    response
}

/// A form with a token that a cookie has, too: nothing of it is in a session.
async fn form(req: HttpRequest) -> HttpResponse {
    let token = req.cookie("csrf").map_or_else(String::new, |cookie| cookie.value().to_owned());
    HttpResponse::Ok()
        .content_type("text/html")
        .body(format!("<form><input type=hidden name=csrf_token value={token}></form>"))
}

async fn log_in(session: Session, name: web::Path<String>) -> HttpResponse {
    session.insert("name", name.as_str()).unwrap();
    HttpResponse::Ok().finish()
}

fn sessions<S: SessionStore>(store: S) -> SessionMiddleware<S> {
    SessionMiddleware::builder(store, Key::from(&[7; 64])).cookie_secure(false).build()
}

fn routes(app: &mut ServiceConfig) {
    app.route("/", web::get().to(greet))
        .route("/open", web::get().to(greet_openly))
        .route("/form", web::get().to(form))
        .route("/logged", web::get().to(greet))
        .route("/log-in/{name}", web::post().to(log_in));
}

/// Starts an app whose sessions are inside of its view cache.
async fn site<S: SessionStore + 'static>(
    views: ViewCacheBuilder,
    store: S,
) -> impl Service<Request, Response = ServiceResponse<impl MessageBody>, Error = Error> {
    test::init_service(App::new().wrap(sessions(store)).wrap(views.build()).configure(routes)).await
}

/// Starts an app whose view cache is inside of its sessions, as around single resources.
async fn site_with_sessions_outside(
    views: ViewCacheBuilder,
) -> impl Service<Request, Response = ServiceResponse<impl MessageBody>, Error = Error> {
    // Not watched: the view cache sees the session itself.
    let sessions = sessions(CookieSessionStore::default());
    test::init_service(App::new().wrap(views.build()).wrap(sessions).configure(routes)).await
}

/// Requests a page with cookies. Returns its text and its `Cache-Status`.
async fn get<B: MessageBody>(
    site: &impl Service<Request, Response = ServiceResponse<B>, Error = Error>,
    path: &str,
    cookies: &[Cookie<'_>],
) -> (String, String) {
    let mut req = TestRequest::with_uri(path);
    for cookie in cookies {
        req = req.cookie(cookie.clone().into_owned());
    }
    let res = test::call_service(site, req.to_request()).await;
    let status = res.headers().get(header::CACHE_STATUS).unwrap().to_str().unwrap().to_owned();
    let body = test::read_body(res).await;
    (String::from_utf8(body.to_vec()).unwrap(), status)
}

/// Logs in, and returns the session's cookie.
async fn cookie_of<B: MessageBody>(
    site: &impl Service<Request, Response = ServiceResponse<B>, Error = Error>,
    name: &str,
) -> Cookie<'static> {
    let req = TestRequest::post().uri(&format!("/log-in/{name}")).to_request();
    let res = test::call_service(site, req).await;
    res.response().cookies().next().unwrap().into_owned()
}

fn memory() -> Cache {
    Cache::memory(1 << 20).build()
}

async fn assert_no_leak<B: MessageBody>(
    site: &impl Service<Request, Response = ServiceResponse<B>, Error = Error>,
) {
    let ada = cookie_of(site, "Ada").await;
    for _ in 0..2 {
        let (text, status) = get(site, "/", std::slice::from_ref(&ada)).await;
        assert_eq!(text, "I am Ada");
        assert!(status.starts_with("everfresh; fwd=") && !status.contains("stored"), "{status}");
    }
    assert_eq!(get(site, "/", &[]).await.0, "I am nobody");
}

#[actix_web::test]
async fn a_page_of_a_visitor_with_a_session_is_not_shown_to_others() {
    let cache = memory();
    let views = || ViewCache::builder(memory());
    assert_no_leak(&site(views(), CacheSessionStore::new(&cache)).await).await;
    assert_no_leak(&site(views(), WatchedSessions(CookieSessionStore::default())).await).await;
    assert_no_leak(&site_with_sessions_outside(views()).await).await;
}

#[actix_web::test]
async fn a_cookie_or_a_function_that_is_not_of_the_session_does_not_share_its_pages() {
    let language = || ViewCache::builder(memory()).vary_cookie("lang");
    let mobile = || ViewCache::builder(memory()).vary_by("mobile", |_| "no".to_owned());
    for views in [language, mobile as fn() -> ViewCacheBuilder] {
        let cache = memory();
        assert_no_leak(&site(views(), CacheSessionStore::new(&cache)).await).await;
        assert_no_leak(&site_with_sessions_outside(views()).await).await;
    }
}

#[actix_web::test]
async fn a_page_that_varies_by_the_session_is_cached_for_each_content() {
    let views = ViewCache::builder(memory())
        .vary_by_session("name", |session| session.get("name").ok().flatten().unwrap_or_default());
    let site = site_with_sessions_outside(views).await;
    let (ada, bob) = (cookie_of(&site, "Ada").await, cookie_of(&site, "Bob").await);
    for expected in [false, true] {
        for (cookie, greeting) in [(&ada, "I am Ada"), (&bob, "I am Bob")] {
            let (text, status) = get(&site, "/", std::slice::from_ref(cookie)).await;
            assert_eq!((&*text, status == "everfresh; hit"), (greeting, expected));
        }
    }
}

#[actix_web::test]
async fn the_cookie_of_the_session_may_have_another_name() {
    let cache = memory();
    let views = ViewCache::builder(cache.clone()).vary_cookie("sid").session_cookie("sid");
    let sessions = SessionMiddleware::builder(CacheSessionStore::new(&cache), Key::from(&[7; 64]));
    let sessions = sessions.cookie_secure(false).cookie_name("sid".to_owned()).build();
    let app = App::new().wrap(sessions).wrap(views.build()).configure(routes);
    let site = test::init_service(app).await;
    let ada = cookie_of(&site, "Ada").await;
    get(&site, "/", std::slice::from_ref(&ada)).await;
    let (text, status) = get(&site, "/", std::slice::from_ref(&ada)).await;
    assert_eq!((&*text, &*status), ("I am Ada", "everfresh; hit"));
}

#[actix_web::test]
async fn visitors_without_a_session_share_a_cached_page() {
    let cache = memory();
    let site = site(ViewCache::builder(cache.clone()), CacheSessionStore::new(&cache)).await;
    assert_eq!(get(&site, "/", &[]).await.0, "I am nobody");
    let (text, status) = get(&site, "/", &[Cookie::new("_ga", "1")]).await;
    assert_eq!((&*text, &*status), ("I am nobody", "everfresh; hit"));
}

#[actix_web::test]
async fn a_page_that_varies_by_the_cookie_is_cached_for_each_visitor() {
    let cache = memory();
    let site = site(ViewCache::builder(cache.clone()), CacheSessionStore::new(&cache)).await;
    let (ada, bob) = (cookie_of(&site, "Ada").await, cookie_of(&site, "Bob").await);
    for expected in [false, true] {
        for (cookie, greeting) in [(&ada, "I am Ada"), (&bob, "I am Bob")] {
            let (text, status) = get(&site, "/open", std::slice::from_ref(cookie)).await;
            assert_eq!((&*text, status == "everfresh; hit"), (greeting, expected));
        }
    }
}

#[actix_web::test]
async fn a_page_that_varies_by_one_cookie_does_not_vary_by_others() {
    let cache = memory();
    let views = ViewCache::builder(cache.clone()).vary_cookie("id");
    let site = site(views, CacheSessionStore::new(&cache)).await;
    let (ada, bob) = (cookie_of(&site, "Ada").await, cookie_of(&site, "Bob").await);
    for path in ["/", "/open"] {
        assert_eq!(get(&site, path, std::slice::from_ref(&ada)).await.0, "I am Ada");
        assert_eq!(get(&site, path, std::slice::from_ref(&bob)).await.0, "I am Bob");
        let (text, status) = get(&site, path, &[Cookie::new("_ga", "1"), ada.clone()]).await;
        assert_eq!((&*text, &*status), ("I am Ada", "everfresh; hit"), "{path}");
        assert_eq!(get(&site, path, &[]).await.0, "I am nobody");
    }
}

#[actix_web::test]
async fn with_leave_pages_of_visitors_with_a_session_are_shared() {
    let cache = memory();
    let views = ViewCache::builder(cache.clone()).allow_sessions();
    let site = site(views, CacheSessionStore::new(&cache)).await;
    let ada = cookie_of(&site, "Ada").await;
    get(&site, "/", std::slice::from_ref(&ada)).await;
    assert_eq!(get(&site, "/", &[]).await.1, "everfresh; hit");
}

#[actix_web::test]
async fn a_form_with_the_csrf_token_of_a_visitor_is_not_shown_to_others() {
    collect_warnings();
    let site = site_with_sessions_outside(ViewCache::builder(memory())).await;
    for token in ["one", "two"] {
        let (text, status) = get(&site, "/form", &[Cookie::new("csrf", token)]).await;
        assert!(text.contains(token) && !status.contains("stored"), "{text} {status}");
    }
    let warnings = warnings_of("/form");
    assert!(warnings.len() == 1 && warnings[0].contains("CSRF token"), "{warnings:?}");
}

#[actix_web::test]
async fn pages_that_are_not_kept_because_of_a_session_are_logged_once_for_each_route() {
    collect_warnings();
    let site = site_with_sessions_outside(ViewCache::builder(memory())).await;
    let ada = cookie_of(&site, "Ada").await;
    for _ in 0..3 {
        get(&site, "/logged", std::slice::from_ref(&ada)).await;
    }
    let warnings = warnings_of("/logged");
    assert!(warnings.len() == 1 && warnings[0].contains("`allow_sessions`"), "{warnings:?}");
}
