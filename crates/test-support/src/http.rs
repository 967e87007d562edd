//! An HTTP client, and how tests read the task list's pages.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use ureq::{
    Agent,
    config::AutoHeaderValue,
    http::{HeaderMap, Request},
};

use crate::{secrets::assert_no_secret, wait::PATIENCE};

/// A client with cookies that follows no redirect and sends no header by itself.
#[derive(Debug)]
pub struct Browser {
    agent: Agent,
    base: String,
}

/// A response, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    /// The body as text; bytes that are not UTF-8 are replaced.
    pub body: String,
    pub bytes: Vec<u8>,
}

/// The longest body that is read.
const MAX_BODY: u64 = 1 << 30;

impl Browser {
    /// A client for `base`, such as `http://127.0.0.1:8080`.
    pub fn new(base: &str) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(PATIENCE))
            .allow_non_standard_methods(true)
            .accept_encoding(AutoHeaderValue::None)
            .build()
            .new_agent();
        Self { agent, base: base.to_owned() }
    }

    pub fn get(&self, target: &str) -> Reply {
        self.send("GET", target, &[], "")
    }

    pub fn get_with(&self, target: &str, headers: &[(&str, &str)]) -> Reply {
        self.send("GET", target, headers, "")
    }

    pub fn post(&self, target: &str) -> Reply {
        self.send("POST", target, &[], "")
    }

    pub fn post_form(&self, target: &str, fields: &[(&str, &str)]) -> Reply {
        self.post_body(target, &serde_urlencoded::to_string(fields).unwrap())
    }

    pub fn post_body(&self, target: &str, body: &str) -> Reply {
        self.send("POST", target, &[FORM], body)
    }

    pub fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let reply = self.try_send(method, target, headers, body);
        reply.unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    /// Like [`Browser::get`]; `None` if the server dies before it has answered.
    pub fn try_get(&self, target: &str) -> Option<Reply> {
        self.try_send("GET", target, &[], "").ok()
    }

    /// Like [`Browser::post_form`]; `None` if the server dies before it has answered.
    pub fn try_post_form(&self, target: &str, fields: &[(&str, &str)]) -> Option<Reply> {
        let body = serde_urlencoded::to_string(fields).unwrap();
        self.try_send("POST", target, &[FORM], &body).ok()
    }

    fn try_send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Reply, ureq::Error> {
        let mut request = Request::builder().method(method).uri(format!("{}{target}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = if body.is_empty() && method != "POST" {
            self.agent.run(request.body(()).unwrap())?
        } else {
            self.agent.run(request.body(body).unwrap())?
        };
        let bytes = response.body_mut().with_config().limit(MAX_BODY).read_to_vec()?;
        let reply = Reply {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: String::from_utf8_lossy(&bytes).into_owned(),
            bytes,
        };
        assert_no_secret(&format!("{:?} {}", reply.headers, reply.body));
        Ok(reply)
    }
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

impl Reply {
    /// All values of a header, joined by commas; empty if there is none.
    pub fn header(&self, name: &str) -> String {
        let values = self.headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join(", ")
    }

    /// The `Set-Cookie` line of a cookie; empty if there is none.
    pub fn cookie(&self, name: &str) -> &str {
        let cookies = self.headers.get_all("set-cookie").iter();
        let mut cookies = cookies.map(|value| value.to_str().unwrap());
        cookies.find(|cookie| cookie.split('=').next() == Some(name)).unwrap_or_default()
    }

    /// What the toolkit's `Cache-Status` says.
    pub fn cache_status(&self) -> String {
        self.header("cache-status").trim_start_matches("everfresh; ").to_owned()
    }

    /// The task names on a page, as escaped there.
    pub fn task_names(&self) -> Vec<&str> {
        between(&self.body, r#"class="task-name""#, "</span>")
            .map(|rest| rest.split_once('>').unwrap().1)
            .collect()
    }

    /// The ids in the targets of a page's delete forms.
    pub fn task_ids(&self) -> Vec<&str> {
        between(&self.body, r#"action="/"#, "/delete").filter(|id| !id.contains('"')).collect()
    }

    /// The flash messages on a page, as text.
    pub fn flashes(&self) -> Vec<String> {
        between(&self.body, r#"<p class="flash"#, "</p>")
            .map(|rest| rest.split_once('>').unwrap().1)
            .map(|text| text.replace("<bdi>", "").replace("</bdi>", ""))
            .collect()
    }
}

fn between<'a>(text: &'a str, start: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(start).skip(1).filter_map(move |rest| rest.split_once(end).map(|(found, _)| found))
}

/// Writes a request and reads one response from a connection that stays open.
pub fn exchange(stream: &mut BufReader<TcpStream>, request: &str) -> std::io::Result<RawReply> {
    stream.get_mut().write_all(request.as_bytes())?;
    RawReply::read(stream)
}

/// A response as it came over the wire.
#[derive(Debug)]
pub struct RawReply {
    pub head: String,
}

impl RawReply {
    pub fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Self> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let head = head.to_ascii_lowercase();
        let length = head
            .split_once("content-length: ")
            .map_or(0, |(_, rest)| rest.split_once("\r\n").unwrap().0.parse().unwrap());
        stream.read_exact(&mut vec![0; length])?;
        Ok(Self { head })
    }

    pub fn closes(&self) -> bool {
        self.head.contains("connection: close")
    }
}
