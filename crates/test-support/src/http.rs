//! An HTTP client that can parse the pages of the task list.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::TcpStream,
};

use ureq::{
    Agent,
    config::AutoHeaderValue,
    http::{HeaderMap, Request},
};

use crate::{secrets::assert_no_secret, wait::PATIENCE};

/// An HTTP client with a cookie jar. It does not follow redirects, and adds no headers of its own.
#[derive(Debug)]
pub struct Browser {
    agent: Agent,
    base: String,
}

/// A complete response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    /// The body as text. Bytes that are not UTF-8 are replaced.
    pub body: String,
    /// The body as bytes.
    pub bytes: Vec<u8>,
}

/// The longest body that is read, in bytes.
const MAX_BODY: u64 = 1 << 30;

impl Browser {
    /// Creates a client for a base URL, for example `http://127.0.0.1:8080`.
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

    /// Returns the names of all tasks, from all pages of the list.
    pub fn all_task_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for number in 1.. {
            let page = self.get(&format!("/?page={number}"));
            names.extend(page.task_names().into_iter().map(str::to_owned));
            if !page.body.contains("rel=\"next\"") {
                break;
            }
        }
        names
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

    /// Sends a GET request. Returns `None` if the server ends before it has answered.
    pub fn try_get(&self, target: &str) -> Option<Reply> {
        self.try_send("GET", target, &[], "").ok()
    }

    /// Posts a form. Returns `None` if the server ends before it has answered.
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
    /// Returns all values of a header, joined by commas, or an empty string.
    pub fn header(&self, name: &str) -> String {
        let values = self.headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join(", ")
    }

    /// Returns the value of the `Set-Cookie` header for a cookie, or an empty string.
    pub fn cookie(&self, name: &str) -> &str {
        let cookies = self.headers.get_all("set-cookie").iter();
        let mut cookies = cookies.map(|value| value.to_str().unwrap());
        cookies.find(|cookie| cookie.split('=').next() == Some(name)).unwrap_or_default()
    }

    /// Returns the value of `Cache-Status` without its prefix `everfresh; `.
    pub fn cache_status(&self) -> String {
        self.header("cache-status").trim_start_matches("everfresh; ").to_owned()
    }

    /// Returns the task names on a page, with HTML escapes.
    pub fn task_names(&self) -> Vec<&str> {
        between(&self.body, r#"class="task-name""#, "</span>")
            .map(|rest| rest.split_once('>').unwrap().1)
            .collect()
    }

    /// Returns the ids of the tasks on a page, from the targets of their delete buttons.
    pub fn task_ids(&self) -> Vec<&str> {
        between(&self.body, r#"action="/"#, "/delete").filter(|id| !id.contains('"')).collect()
    }

    /// Returns the flash messages on a page.
    pub fn flashes(&self) -> Vec<String> {
        between(&self.body, r#"<p class="flash"#, "</p>")
            .map(|rest| rest.split_once('>').unwrap().1)
            .map(|text| text.replace("<bdi>", "").replace("</bdi>", ""))
            .collect()
    }
}

/// Returns the texts between each `start` and the next `end`.
fn between<'a>(text: &'a str, start: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(start).skip(1).filter_map(move |rest| rest.split_once(end).map(|(found, _)| found))
}

/// Writes a request to a connection and reads one response. The connection stays open.
pub fn exchange(stream: &mut BufReader<TcpStream>, request: &str) -> std::io::Result<RawReply> {
    stream.get_mut().write_all(request.as_bytes())?;
    RawReply::read(stream)
}

/// Returns the bytes of a request that adds a task. `more` are further headers.
pub fn add_request(name: &str, more: &str) -> String {
    let body = format!("name={name}");
    let length = body.len();
    format!("POST / HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {length}\r\n\r\n{body}")
}

/// Sends bytes to an address, and reads until the server closes the connection. Returns the status of
/// each answer.
pub fn statuses_until_closed(address: &str, sent: &str) -> Vec<u16> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(sent.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("it stays open"),
        _ => {}
    }
    let text = String::from_utf8_lossy(&bytes);
    let answers = text.split("HTTP/1.1 ").skip(1);
    answers.filter_map(|answer| answer.get(..3)?.parse().ok()).collect()
}

/// A response that was read from a raw connection.
#[derive(Debug)]
pub struct RawReply {
    /// The status line and headers, in lower case.
    pub head: String,
}

impl RawReply {
    /// Reads one response, and discards its body.
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

    /// Returns whether the server announces that it will close the connection.
    pub fn closes(&self) -> bool {
        self.head.contains("connection: close")
    }
}
