//! Starting and stopping the program, its exit codes and its errors.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    process::{Command, Output},
};

use tempfile::tempdir;
use test_support::{
    http::Browser,
    program::{Program, command},
};

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Runs a program that is expected to fail; returns its exit code and standard error.
fn outcome(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn in_an_empty_folder_it_starts_with_defaults_and_serves_every_url() {
    let folder = tempdir().unwrap();
    let program = Program::start(command(folder.path(), &[("PORT", "0"), ("HOST", "127.0.0.1")]));
    assert!(
        program.summary.ends_with(
            "(database: sqlite tasklist.sqlite3; cache: in this process; sessions: cache)\n"
        ),
        "{}",
        program.summary
    );
    let browser = Browser::new(program.address());
    assert_eq!(browser.post_form("/", &[("name", "Milk")]).status, 303);
    let page = browser.get("/");
    assert_eq!(page.task_names(), ["Milk"]);
    for url in page.body.split('"').filter(|text| text.starts_with("/static/")) {
        assert_eq!(browser.get(url).status, 200, "{url}");
    }
}

#[test]
fn tasks_survive_a_restart() {
    let folder = tempdir().unwrap();
    let settings = [("PORT", "0"), ("HOST", "127.0.0.1")];
    let first = Program::start(command(folder.path(), &settings));
    Browser::new(first.address()).post_form("/", &[("name", "Milk")]);
    drop(first);
    let second = Program::start(command(folder.path(), &settings));
    assert_eq!(Browser::new(second.address()).get("/").task_names(), ["Milk"]);
}

#[test]
fn eight_processes_can_start_at_once_in_an_empty_folder() {
    let folder = tempdir().unwrap();
    let programs: Vec<_> = std::thread::scope(|scope| {
        let start =
            || Program::start(command(folder.path(), &[("PORT", "0"), ("HOST", "127.0.0.1")]));
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(programs.len(), 8);
}

#[test]
fn a_wrong_setting_is_one_line_and_exit_code_2() {
    let folder = tempdir().unwrap();
    let (code, stderr) = outcome(command(folder.path(), &[("PORT", "http")]));
    assert_eq!(code, Some(2));
    assert_eq!(stderr, "tasklist: PORT: “http” is not a port number from 0 to 65535\n");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "no file was created");
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let folder = tempdir().unwrap();
    let mut program = command(folder.path(), &[]);
    program.arg("--port");
    assert_eq!(outcome(program).0, Some(2));
}

#[test]
fn a_port_in_use_is_one_line_with_a_remedy_and_exit_code_1() {
    let folder = tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let settings = [("HOST", "127.0.0.1"), ("PORT", port.as_str()), ("RUST_LOG", "error")];
    let (code, stderr) = outcome(command(folder.path(), &settings));
    assert_eq!(code, Some(1));
    assert!(
        stderr.starts_with(&format!("tasklist: cannot listen on 127.0.0.1:{port}: ")),
        "{stderr}"
    );
    assert!(stderr.contains("PORT"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn an_unopenable_database_is_one_line_with_a_remedy_and_exit_code_1() {
    let folder = tempdir().unwrap();
    let settings = [("DATABASE_URL", "sqlite://no/such/folder.sqlite3"), ("RUST_LOG", "error")];
    let (code, stderr) = outcome(command(folder.path(), &settings));
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("no/such/folder.sqlite3") && stderr.contains("DATABASE_URL"),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn the_dotenv_file_sets_missing_variables_and_overrides_none() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join(".env"), "PORT=wrong\nSECRET_KEY=short\n").unwrap();
    let (code, stderr) = outcome(command(folder.path(), &[("PORT", "0")]));
    assert_eq!(code, Some(2));
    assert!(stderr.starts_with("tasklist: SECRET_KEY"), "{stderr}");
}

#[test]
fn the_dotenv_file_is_not_read_on_a_dyno() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join(".env"), format!("SECRET_KEY={KEY}\n")).unwrap();
    let (code, stderr) =
        outcome(command(folder.path(), &[("DYNO", "web.1"), ("ALLOW_EPHEMERAL_SQLITE", "yes")]));
    assert_eq!(code, Some(2));
    assert!(stderr.contains("SECRET_KEY: is required in production"), "{stderr}");
}

#[test]
fn an_unreadable_dotenv_file_is_named_without_its_content() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join(".env"), "MEMCACHIER_PASSWORD='hunter2\n").unwrap();
    let (code, stderr) = outcome(command(folder.path(), &[]));
    assert_eq!(code, Some(2));
    assert!(stderr.contains(".env") && !stderr.contains("hunter2"), "{stderr}");
}

#[test]
fn in_production_cookies_are_secure_and_responses_have_hsts() {
    let folder = tempdir().unwrap();
    let settings =
        [("PORT", "0"), ("HOST", "127.0.0.1"), ("APP_ENV", "production"), ("SECRET_KEY", KEY)];
    let program = Program::start(command(folder.path(), &settings));
    let browser = Browser::new(program.address());
    browser.post_form("/", &[("name", "Milk")]);
    let reply = browser.post("/1/delete");
    assert!(reply.header("strict-transport-security").starts_with("max-age="));
    for name in ["__Host-id", "flash"] {
        let cookie = reply.cookie(name);
        assert!(cookie.contains("Secure") && cookie.contains("HttpOnly"), "{cookie}");
        assert!(cookie.contains("Path=/") && !cookie.contains("Domain"), "{cookie}");
    }
}

#[test]
fn each_request_is_one_line_in_the_log_without_secrets() {
    let folder = tempdir().unwrap();
    let settings = [("PORT", "0"), ("HOST", "127.0.0.1"), ("SECRET_KEY", KEY)];
    let mut program = Program::start(command(folder.path(), &settings));
    let browser = Browser::new(program.address());
    browser.get("/?token=hunter2");
    browser.post_form("/", &[("name", "private matter")]);
    browser.post("/7/delete");
    program.terminate();
    let (_, log) = program.wait();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("tasklist::access")).collect();
    assert_eq!(lines.len(), 3, "{log}");
    assert!(lines[0].contains("method=GET path=/ status=200"), "{}", lines[0]);
    assert!(lines[1].contains("method=POST path=/ status=303"), "{}", lines[1]);
    assert!(lines[2].contains("method=POST path=/7/delete status=303"), "{}", lines[2]);
    for secret in ["hunter2", "private", KEY] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

fn get_over(socket: &std::path::Path) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

#[test]
fn it_listens_on_a_unix_socket_and_removes_the_socket_when_it_stops() {
    let folder = tempdir().unwrap();
    let socket = folder.path().join("app.sock");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists(), "a stopped server leaves its socket file");
    let mut with_socket = command(folder.path(), &[]);
    with_socket.arg("--uds").arg(&socket);
    let mut program = Program::start(with_socket);
    assert!(program.summary.contains(&format!("unix:{}", socket.display())), "{}", program.summary);
    assert!(get_over(&socket).starts_with("HTTP/1.1 200"));
    program.terminate();
    assert!(program.wait().0.success());
    assert!(!socket.exists());
}

#[test]
fn a_stopping_server_keeps_the_unix_socket_of_its_successor() {
    let folder = tempdir().unwrap();
    let socket = folder.path().join("app.sock");
    let start = || {
        let mut with_socket = command(folder.path(), &[]);
        with_socket.arg("--uds").arg(&socket);
        Program::start(with_socket)
    };
    let mut old = start();
    fs::remove_file(&socket).unwrap();
    let _successor = start();
    old.terminate();
    assert!(old.wait().0.success());
    assert!(get_over(&socket).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_regular_file_or_a_live_socket_is_not_replaced_by_the_unix_socket() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("precious");
    fs::write(&file, "content").unwrap();
    let live = folder.path().join("live.sock");
    let _listener = UnixListener::bind(&live).unwrap();
    for path in [&file, &live] {
        let mut program = command(folder.path(), &[("RUST_LOG", "error")]);
        program.arg("--uds").arg(path);
        let (code, stderr) = outcome(program);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains("--uds"), "{stderr}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "content");
    assert!(UnixStream::connect(&live).is_ok());
}
