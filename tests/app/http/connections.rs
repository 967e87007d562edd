//! What one connection may do: every state has a deadline, and one request is carried out at a time.

use std::{
    io::{BufReader, ErrorKind, Read, Write},
    net::TcpStream,
    thread::ScopedJoinHandle,
    time::{Duration, Instant},
};

use tempfile::{TempDir, tempdir};
use test_support::{
    app::TestApp,
    database::TestDatabase,
    http::{Browser, RawReply, add_request, statuses_until_closed},
    program::{Program, command},
    secrets::SECRET_KEY,
    wait::{PATIENCE, wait_until},
};

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const OWN_CHUNKED: &str =
    "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
const FOREIGN_CHUNKED: &str = "POST / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\
    Transfer-Encoding: chunked\r\n\r\n";

fn start(settings: &[(&str, &str)]) -> (TempDir, Program) {
    let folder = tempdir().unwrap();
    let mut all = vec![("PORT", "0"), ("HOST", "127.0.0.1"), ("SECRET_KEY", SECRET_KEY)];
    all.extend(settings);
    let program = Program::start(command(folder.path(), &all));
    (folder, program)
}

const FORM: &str = "application/x-www-form-urlencoded";

fn answers_to(program: &Program, sent: &str) -> Vec<u16> {
    statuses_until_closed(&program.address()["http://".len()..], sent)
}

#[test]
fn every_state_of_a_connection_has_a_deadline() {
    let (_folder, program) = start(&[("REQUEST_TIMEOUT", "500ms"), ("IDLE_TIMEOUT", "500ms")]);
    for (state, sent, expected) in [
        ("before the first byte", String::new(), vec![]),
        ("in the first head", "GET / HT".to_owned(), vec![408]),
        ("after an answer", GET.to_owned(), vec![200]),
        ("in a second head", format!("{GET}GET / HT"), vec![200, 408]),
        (
            "in a body",
            add_request("Milk", "").replace("Content-Length: ", "Content-Length: 9"),
            vec![408],
        ),
        ("in a chunked body", format!("{OWN_CHUNKED}4\r\nna"), vec![408]),
        ("after a refusal", FOREIGN_CHUNKED.to_owned(), vec![403]),
        ("after a refusal for its size", format!("{OWN_CHUNKED}4000\r\n{:x<16000}", ""), vec![413]),
    ] {
        assert_eq!(answers_to(&program, &sent), expected, "{state}");
    }
}

#[test]
fn a_head_that_comes_byte_by_byte_ends_at_the_deadline() {
    let (_folder, program) = start(&[("REQUEST_TIMEOUT", "500ms")]);
    let mut stream = program.connect();
    stream.write_all(GET.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    RawReply::read(&mut reader).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    wait_until("the server ends a head that never ends", || {
        let _ = stream.write_all(b"x");
        RawReply::read(&mut reader).is_ok_and(|reply| reply.head.starts_with("http/1.1 408"))
    });
}

#[test]
fn a_head_over_the_limit_is_a_431() {
    let (_folder, program) = start(&[("MAX_HEAD_BYTES", "2000")]);
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {:x<2000}", "");
    assert_eq!(answers_to(&program, &long), [431]);
    assert_eq!(answers_to(&program, &format!("{GET}{long}")), [200, 431]);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let (_folder, program) = start(&[]);
    let chunked = format!("{OWN_CHUNKED}4\r\nname\r\n4\r\n=Tea\r\n0\r\n\r\n");
    let last = GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let sent =
        format!("{GET}{}{chunked}{GET}{}{last}", add_request("Milk", ""), add_request("", ""));
    assert_eq!(answers_to(&program, &sent), [200, 303, 303, 200, 422, 200]);
    assert_eq!(Browser::new(program.address()).get("/").task_names(), ["Milk", "Tea"]);
}

#[test]
fn a_request_behind_the_last_answer_of_a_connection_is_not_carried_out() {
    let (_folder, program) = start(&[]);
    for more in ["Connection: close\r\n", "Origin: http://evil.example\r\nConnection: close\r\n"] {
        let sent = format!("{}{}", add_request("First", more), add_request("Second", ""));
        assert_eq!(answers_to(&program, &sent).len(), 1);
    }
    assert_eq!(Browser::new(program.address()).get("/").task_names(), ["First"]);
}

#[test]
fn a_request_behind_the_redirect_to_https_is_not_carried_out() {
    let (_folder, program) = start(&[
        ("APP_ENV", "production"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
        ("SESSION_STORE", "cookie"),
    ]);
    let plain = add_request("Plain", "X-Forwarded-Proto: http\r\n");
    let sent = format!("{plain}{}", add_request("Second", "X-Forwarded-Proto: https\r\n"));
    assert_eq!(answers_to(&program, &sent), [308]);
    let secure = [("X-Forwarded-Proto", "https")];
    assert!(Browser::new(program.address()).get_with("/", &secure).task_names().is_empty());
}

/// The time for which the process has used a processor.
fn processor_time(program: &Program) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", program.id())).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[test]
fn a_client_that_sends_requests_and_does_not_read_costs_nothing_and_is_dropped() {
    let (_folder, program) = start(&[("WRITE_TIMEOUT", "2s")]);
    // More than the kernels' buffers hold.
    let requests = GET.repeat(500_000);
    let mut streams: Vec<_> = (0..4).map(|_| program.connect()).collect();
    for stream in &mut streams {
        stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let sent = stream.write_all(requests.as_bytes());
        assert!(sent.is_err(), "the server reads requests whose answers are not read");
    }
    let (start, before) = (Instant::now(), processor_time(&program));
    for stream in &mut streams {
        wait_until("the connection is dropped", || {
            stream.write_all(GET.as_bytes()).is_err_and(|e| e.kind() != ErrorKind::WouldBlock)
        });
    }
    let used = processor_time(&program).saturating_sub(before);
    assert!(used < start.elapsed() / 4, "{used:?} of {:?}", start.elapsed());
}

#[test]
fn at_the_limit_the_slowest_connection_makes_room() {
    let (_folder, program) = start(&[("MAX_CONNECTIONS", "10"), ("WEB_CONCURRENCY", "1")]);
    let slow: Vec<_> = (0..30)
        .map(|_| {
            let mut stream = program.connect();
            stream.write_all(b"GET / HT").unwrap();
            stream
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(Browser::new(program.address()).get("/").status, 200);
    }
    let mut first = &slow[0];
    assert_eq!(first.read(&mut [0]).unwrap_or(0), 0, "the first one was closed");
}

#[test]
fn connections_do_not_use_up_the_open_files() {
    let folder = tempdir().unwrap();
    let settings = [("PORT", "0"), ("HOST", "127.0.0.1"), ("SECRET_KEY", SECRET_KEY)];
    let program = command(folder.path(), &settings);
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -n 200; exec \"$0\""]).arg(program.get_program());
    limited.current_dir(folder.path()).env_clear().envs(settings);
    let program = Program::start(limited);
    let idle: Vec<_> = (0..230).map(|_| program.connect()).collect();
    for _ in 0..20 {
        let browser = Browser::new(program.address());
        assert_eq!(browser.post_form("/", &[("name", "Milk")]).status, 303);
        assert_eq!(browser.get("/").status, 200);
    }
    drop(idle);
}

#[test]
fn an_address_that_writes_too_often_is_told_when_to_try_again() {
    let settings = [("TRUSTED_PROXIES", "127.0.0.1"), ("MAX_WRITES_PER_MINUTE", "2")];
    let app = TestApp::with(TestDatabase::sqlite(), &settings);
    let browser = app.browser();
    let add = |address| {
        let form = ("Content-Type", FORM);
        browser.send("POST", "/", &[form, ("X-Forwarded-For", address)], "name=Milk")
    };
    assert_eq!([add("203.0.113.1").status, add("203.0.113.1").status], [303, 303]);
    let refused = add("203.0.113.1");
    assert_eq!(refused.status, 429);
    assert!(refused.body.contains("Too many requests"));
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait));
    assert_eq!(add("203.0.113.2").status, 303);
    assert_eq!(browser.get_with("/", &[("X-Forwarded-For", "203.0.113.1")]).status, 200);
}

#[test]
fn a_visitor_behind_a_proxy_has_a_limit_of_requests_at_the_same_time() {
    let settings = [("TRUSTED_PROXIES", "127.0.0.1"), ("MAX_CONNECTIONS_PER_ADDRESS", "1")];
    let app = TestApp::with(TestDatabase::sqlite(), &settings);
    let lock = app.database.lock();
    std::thread::scope(|scope| {
        let write = |address: &'static str| {
            let browser = app.browser();
            let headers = [("X-Forwarded-For", address), ("Content-Type", FORM)];
            scope.spawn(move || browser.send("POST", "/", &headers, "name=Milk").status)
        };
        // Either of the visitor's two may come first; it waits for the lock.
        let visitor = [write("203.0.113.1"), write("203.0.113.1")];
        let other = write("203.0.113.2");
        wait_until("one is refused", || visitor.iter().any(ScopedJoinHandle::is_finished));
        drop(lock);
        let mut statuses = visitor.map(|request| request.join().unwrap());
        statuses.sort_unstable();
        assert_eq!((statuses, other.join().unwrap()), ([303, 429], 303));
    });
}

#[test]
fn the_server_waits_for_the_slowest_reader_within_its_deadline() {
    // Much more than the kernels' buffers hold.
    let app = TestApp::with(TestDatabase::sqlite(), &[("WRITE_TIMEOUT", "1s")]);
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) \
        INSERT INTO task (name) SELECT printf('%.500c', '&') FROM n";
    drop(app.database.execute(rows));
    let length = app.browser().get("/").bytes.len();
    let stream = TcpStream::connect(("127.0.0.1", app.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    (&stream)
        .write_all(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes())
        .unwrap();
    // The pauses of this reader are shorter than the deadline, and together longer.
    let mut received = 0;
    let mut bytes = vec![0; length / 20];
    loop {
        match (&stream).read(&mut bytes).unwrap() {
            0 => break,
            read => received += read,
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(received > length, "{received} of {length} bytes and a head");
}
