//! An HTTP server that runs one handler behind a view cache.

use std::{future::Future, sync::mpsc, thread};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, rt::System, web};
use everfresh::ViewCache;
use test_support::http::{Browser, Reply};

/// A running server. It stops when it is dropped.
pub struct Site {
    url: String,
    browser: Browser,
    handle: ServerHandle,
    thread: Option<thread::JoinHandle<()>>,
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
        let url = format!("http://{address}");
        Self { browser: Browser::new(&url), url, handle, thread: Some(thread) }
    }

    pub fn get(&self, target: &str) -> Reply {
        self.browser.get(target)
    }

    pub fn get_with(&self, target: &str, headers: &[(&str, &str)]) -> Reply {
        self.browser.get_with(target, headers)
    }

    pub fn send(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Reply {
        self.browser.send(method, target, headers, "")
    }

    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Requests these targets one after the other, and returns the bodies.
    pub fn texts<const N: usize>(&self, targets: [&str; N]) -> [String; N] {
        targets.map(|target| self.get(target).body)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}
