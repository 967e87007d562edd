//! A real server with one handler behind a view cache.

use std::{future::Future, sync::mpsc, thread};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, rt::System, web};
use everfresh::ViewCache;
use ureq::{Agent, Body, http::Response};

/// Stops when it is dropped.
pub struct Site {
    url: String,
    agent: Agent,
    handle: ServerHandle,
    thread: Option<thread::JoinHandle<()>>,
}

/// What a visitor was sent.
#[derive(Debug)]
pub struct Seen {
    pub status: u16,
    pub body: Vec<u8>,
    head: Response<()>,
}

impl Site {
    pub fn start<F, R>(views: &ViewCache, handler: F) -> Self
    where
        F: Fn(HttpRequest) -> R + Clone + Send + 'static,
        R: Future<Output = HttpResponse> + 'static,
    {
        let (tell, started) = mpsc::channel();
        let views = views.clone();
        let thread = thread::spawn(move || {
            System::new().block_on(async move {
                let server = HttpServer::new(move || {
                    let service = web::scope("").wrap(views.clone());
                    App::new().service(service.default_service(web::to(handler.clone())))
                });
                let server = server.workers(2).bind("127.0.0.1:0").unwrap();
                let address = server.addrs()[0];
                let server = server.disable_signals().run();
                tell.send((address, server.handle())).unwrap();
                server.await.unwrap();
            });
        });
        let (address, handle) = started.recv().unwrap();
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .accept_encoding(ureq::config::AutoHeaderValue::None)
            .build();
        let url = format!("http://{address}");
        Self { url, agent: agent.into(), handle, thread: Some(thread) }
    }

    pub fn get(&self, target: &str) -> Seen {
        self.ask("GET", target, &[])
    }

    pub fn get_with(&self, target: &str, headers: &[(&str, &str)]) -> Seen {
        self.ask("GET", target, headers)
    }

    pub fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Seen {
        let mut request =
            ureq::http::Request::builder().method(method).uri(self.url.clone() + target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Seen::of(self.agent.run(request.body(()).unwrap()).unwrap())
    }

    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// The pages at these targets, one after the other.
    pub fn texts<const N: usize>(&self, targets: [&str; N]) -> [String; N] {
        targets.map(|target| self.get(target).text().to_owned())
    }
}

impl Seen {
    fn of(response: Response<Body>) -> Self {
        let (head, mut body) = response.into_parts();
        Self {
            status: head.status.as_u16(),
            body: body.with_config().limit(1 << 30).read_to_vec().unwrap(),
            head: Response::from_parts(head, ()),
        }
    }

    /// All values of a header.
    pub fn header(&self, name: &str) -> String {
        let values = self.head.headers().get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join(", ")
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// What `Cache-Status` says.
    pub fn became(&self) -> String {
        self.header("cache-status").trim_start_matches("everfresh; ").to_owned()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}
