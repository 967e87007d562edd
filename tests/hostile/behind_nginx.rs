//! The app behind nginx, as docs/server.md configures it.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command},
};

use tempfile::tempdir;
use test_support::{
    http::{Browser, add_request, statuses_until_closed},
    program::{Program, command},
    secrets::SECRET_KEY,
    wait::wait_until,
};

use crate::{
    alone,
    attack::{begin, beginnings, make_large, visit},
};

/// Fewer than directly: nginx takes each answer whole into the buffers of its own sockets.
const CONNECTIONS: usize = 100;

/// A running nginx. It is stopped when the value is dropped.
struct Nginx(Child);

impl Nginx {
    /// Starts nginx in `folder` on a free port, with the lines of docs/server.md. Returns its address.
    fn start(folder: &Path, socket: &Path) -> (Self, String) {
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let doc =
            fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/server.md")).unwrap();
        let lines = doc.split_once("```nginx\n").unwrap().1.split_once("```").unwrap().0;
        let lines = lines.replace("/run/tasklist/socket", socket.to_str().unwrap());
        let config = format!(
            "daemon off; user root; worker_processes auto; pid {dir}/pid; error_log {dir}/error.log; worker_rlimit_nofile 4096;
            events {{ worker_connections 2048; }}
            http {{
                access_log off;
                client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
                fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
                server {{ listen 127.0.0.1:{port}; {lines} }}
            }}",
            dir = folder.display()
        );
        fs::write(folder.join("nginx.conf"), config).unwrap();
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
        nginx.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let nginx = Self(nginx.spawn().unwrap());
        let address = format!("127.0.0.1:{port}");
        wait_until("nginx listens", || std::net::TcpStream::connect(&address).is_ok());
        (nginx, address)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Only the master process stops the workers.
        let id = self.0.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        let _ = self.0.wait();
    }
}

#[test]
fn a_visitor_is_served_while_hostile_connections_to_nginx_are_open() {
    let _alone = alone();
    let folder = tempdir().unwrap();
    let socket = folder.path().join("app");
    let mut app = command(
        folder.path(),
        &[
            ("SECRET_KEY", SECRET_KEY),
            ("TRUSTED_PROXIES", "unix"),
            ("MAX_WRITES_PER_MINUTE", "0"),
            ("TASKS_PER_PAGE", "1000"),
        ],
    );
    app.arg("--uds").arg(&socket);
    let program = Program::start(app);
    let (_nginx, address) = Nginx::start(folder.path(), &socket);
    let visitor = Browser::new(&format!("http://{address}"));
    make_large(&visitor);
    for (what, beginning, _) in beginnings() {
        let hostile: Vec<_> =
            (0..CONNECTIONS).map(|_| begin(address.parse().unwrap(), &beginning)).collect();
        visit(&format!("http://{address}"), &program, what);
        drop(hostile);
    }
    let sent =
        format!("{}{}", add_request("First", "Connection: close\r\n"), add_request("Second", ""));
    assert_eq!(statuses_until_closed(&address, &sent), [303]);
    assert!(!visitor.get("/").task_names().contains(&"Second"));
}
