//! The upper limit of Actix: a server that answers each request with a constant status, headers and
//! body, on as many workers as the app has.
//!
//! `bin/bench` starts it as `limit PORT WORKERS STATUS HEADERS-FILE BODY-FILE`.

use actix_web::{
    App, HttpResponse, HttpServer,
    http::{
        StatusCode,
        header::{HeaderName, HeaderValue},
    },
    web,
};
use bytes::Bytes;

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, workers, status, headers, body] = &arguments[..] else {
        // `cargo bench` and `cargo test` start it without arguments.
        return Ok(());
    };
    let (port, workers): (u16, usize) = (port.parse()?, workers.parse()?);
    let status: StatusCode = status.parse()?;
    let headers = std::fs::read_to_string(headers)?;
    let headers = headers.lines().filter_map(|line| line.split_once(": "));
    let headers: Vec<(HeaderName, HeaderValue)> = headers
        .map(|(name, value)| Ok((name.parse()?, value.parse()?)))
        .collect::<anyhow::Result<_>>()?;
    let body = Bytes::from(std::fs::read(body)?);
    let server = HttpServer::new(move || {
        let (headers, body) = (headers.clone(), body.clone());
        let answer = move || {
            let mut response = HttpResponse::build(status);
            for (name, value) in &headers {
                response.append_header((name.clone(), value.clone()));
            }
            let response = response.body(body.clone());
            async move { response }
        };
        // Reads the body; otherwise Actix closes the connection.
        let answer_after = {
            let answer = answer.clone();
            move |_: Bytes| answer()
        };
        App::new().route("/", web::get().to(answer)).route("/", web::post().to(answer_after))
    });
    server.workers(workers).bind(("127.0.0.1", port))?.run().await?;
    Ok(())
}
